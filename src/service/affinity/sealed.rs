//! By a header in which endpoints name their sessions: towards the client, the gateway seals the endpoint's address into
//! the value, and unseals it towards the endpoint, so that any gateway of a fleet finds the endpoint without a store.
//!
//! base64url(version 1 ‖ key's name 4 ‖ nonce 24 ‖ XChaCha20-Poly1305(address 18 ‖ issued 8 ‖ inner value) 16 more), with the
//! service and the header's name as associated data (draft-irtf-cfrg-xchacha). Nonces of 24 bytes may be drawn by chance, so
//! that gateways need not agree on them. The length tells the inner value's, and nothing of the address.

use super::address;
use super::keys::{Id, Key, Keys};
use aws_lc_rs::rand;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chacha20poly1305::XNonce;
use chacha20poly1305::aead::{Aead, Payload};
use std::net::SocketAddr;

/// Which header, and how long it holds.
#[derive(Debug)]
pub struct Header {
    /// In lower case.
    pub name: Box<str>,
    pub(super) max_age_s: u64,
}

/// What says something else to everybody on the way.
pub(super) const RESERVED: [&str; 14] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "date",
    "host",
    "location",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

const VERSION: u8 = 1;
/// The longest value of an endpoint's that is sealed, bytes.
pub(super) const INNER: usize = 1024;
const ID: usize = size_of::<Id>();
const NONCE: usize = 24;
const ISSUED: usize = 8;
const MAC: usize = 16;
/// What is sealed of an empty value, and what is sealed of the longest.
const LEAST: usize = 1 + ID + NONCE + address::WIDTH + ISSUED + MAC;
const MOST: usize = LEAST + INNER;

/// What a sealed value says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) address: SocketAddr,
    /// As the endpoint has named its session.
    pub(super) inner: Vec<u8>,
}

/// Why a value is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// None of the keys has sealed it for this service and header.
    Forged,
    /// It was sealed too long ago.
    Expired,
}

impl Header {
    /// Seals an endpoint's value for a client. `now_s`: since 1970-01-01 UTC. None: it is too long, or there is no chance to
    /// be had from the system.
    pub(super) fn seal(
        &self,
        service: &str,
        keys: &Keys,
        address: SocketAddr,
        inner: &[u8],
        now_s: u64,
    ) -> Option<String> {
        let key = keys.first().filter(|_| inner.len() <= INNER)?;
        let mut nonce = [0; NONCE];
        rand::fill(&mut nonce).ok()?;
        let told = [&address::bytes(address)[..], &now_s.to_be_bytes(), inner].concat();
        let said = self.associated(service);
        let sealed = key.aead.encrypt(&XNonce::from(nonce), Payload { msg: &told, aad: &said }).ok()?;
        let all = [&[VERSION][..], &key.id, &nonce, &sealed].concat();
        Some(BASE64_URL_SAFE_NO_PAD.encode(all))
    }

    /// Opens what a client shows.
    ///
    /// # Errors
    /// Why it is not taken.
    pub(super) fn open(&self, service: &str, keys: &Keys, value: &[u8], now_s: u64) -> Result<Opened, Refused> {
        if value.len() > MOST.div_ceil(3) * 4 {
            return Err(Refused::Forged);
        }
        let all = BASE64_URL_SAFE_NO_PAD.decode(value).map_err(|_| Refused::Forged)?;
        let told = self.unseal(service, keys, &all).ok_or(Refused::Forged)?;
        let (at, rest) = told.split_first_chunk().ok_or(Refused::Forged)?;
        let (issued, inner) = rest.split_first_chunk().ok_or(Refused::Forged)?;
        // Clocks differ: what another gateway has sealed a moment later than now is new.
        if now_s.saturating_sub(u64::from_be_bytes(*issued)) > self.max_age_s {
            return Err(Refused::Expired);
        }
        Ok(Opened { address: address::read(*at), inner: inner.to_vec() })
    }

    fn unseal(&self, service: &str, keys: &Keys, all: &[u8]) -> Option<Vec<u8>> {
        let (version, rest) = all.split_first().filter(|_| all.len() >= LEAST)?;
        let (id, rest) = rest.split_first_chunk::<ID>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE>()?;
        let key: &Key = keys.find(*id).filter(|_| *version == VERSION)?;
        key.aead.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: &self.associated(service) }).ok()
    }

    /// A value holds for one service and one header. Neither name has a zero in it.
    fn associated(&self, service: &str) -> Vec<u8> {
        [service.as_bytes(), &[0], self.name.as_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OLD: &str = "00112233445566778899aabbccddeeff";
    const NEW: &str = "ffeeddccbbaa99887766554433221100";

    fn header(name: &str) -> Header {
        Header { name: name.into(), max_age_s: 100 }
    }

    fn at(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    #[test]
    fn it_holds_for_its_service_header_keys_and_time() {
        let (mcp, keys) = (header("mcp-session-id"), Keys::of(OLD));
        let sealed = mcp.seal("shop", &keys, at(7), b"inner", 1000).unwrap();
        let open = |header: &Header, service: &str, keys: &Keys, now_s| {
            header.open(service, keys, sealed.as_bytes(), now_s).map(|opened| opened.inner)
        };
        for now_s in [0, 999, 1000, 1100] {
            assert_eq!(open(&mcp, "shop", &keys, now_s), Ok(b"inner".to_vec()));
        }
        assert_eq!(open(&mcp, "shop", &keys, 1101), Err(Refused::Expired));
        assert_eq!(open(&mcp, "cart", &keys, 1000), Err(Refused::Forged));
        assert_eq!(open(&header("mcp"), "shop", &keys, 1000), Err(Refused::Forged));
        assert_eq!(open(&mcp, "shop", &Keys::of(NEW), 1000), Err(Refused::Forged));
        for both in [format!("{OLD}\n{NEW}"), format!("{NEW}\n{OLD}")] {
            assert_eq!(open(&mcp, "shop", &Keys::of(&both), 1000), Ok(b"inner".to_vec()));
        }
        // Whoever has two of them cannot tell whether they lead to one endpoint.
        let other = mcp.seal("shop", &keys, at(7), b"inner", 1000).unwrap();
        assert!(other != sealed && other.len() == sealed.len());
        assert_eq!(mcp.seal("shop", &keys, at(7), &[b'x'; INNER + 1], 1000), None);
    }

    proptest! {
        #[test]
        fn what_was_sealed_is_opened_and_nothing_else_is(
            inner in prop::collection::vec(any::<u8>(), 0..=INNER), port: u16, now_s: u64,
            hostile: Vec<u8>, text in "[A-Za-z0-9_-]{0,2000}", place: prop::sample::Index, byte: u8, cut: prop::sample::Index,
        ) {
            let (mcp, keys) = (header("mcp-session-id"), Keys::of(&format!("{OLD}\n{NEW}")));
            let sealed = mcp.seal("shop", &keys, at(port), &inner, now_s).unwrap();
            prop_assert!(sealed.bytes().all(|byte| byte.is_ascii_graphic()));
            let opened = mcp.open("shop", &keys, sealed.as_bytes(), now_s);
            prop_assert_eq!(opened, Ok(Opened { address: at(port), inner }));
            for bytes in [&hostile[..], text.as_bytes()] {
                prop_assert_eq!(mcp.open("shop", &keys, bytes, now_s), Err(Refused::Forged));
            }
            // Also what begins as one should.
            let prefix = [&[VERSION][..], &keys.all[0].id, &hostile].concat();
            let prefix = BASE64_URL_SAFE_NO_PAD.encode(prefix);
            prop_assert_eq!(mcp.open("shop", &keys, prefix.as_bytes(), now_s), Err(Refused::Forged));
            let mut changed = sealed.clone().into_bytes();
            let place = place.index(changed.len());
            prop_assume!(changed[place] != byte);
            changed[place] = byte;
            prop_assert_eq!(mcp.open("shop", &keys, &changed, now_s), Err(Refused::Forged));
            let short = &sealed.as_bytes()[..cut.index(sealed.len())];
            prop_assert_eq!(mcp.open("shop", &keys, short, now_s), Err(Refused::Forged));
        }
    }
}
