//! By a cookie: the gateway tells a client which endpoint has answered it, in a word that only it understands. The word is
//! a name of the key, 8 bytes of an HMAC-SHA-256 of service and address, and 8 bytes of another one of service and those:
//! it tells its holder no more than "the same one" or "another one", and nobody can make one of an endpoint that was not
//! given. It is looked up among those of all endpoints, worked out beforehand, so that a request costs no arithmetic. By
//! its last bytes, one of an endpoint that has left is known from one that was made up.

use super::address;
use super::keys::{Key, Keys};
use crate::service::Endpoints;
use aws_lc_rs::{constant_time, hmac};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rustc_hash::FxHashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What is set.
#[derive(Debug)]
pub struct Cookie {
    /// Its name.
    pub name: String,
    pub(super) ttl: Option<Duration>,
    pub(super) path: String,
    pub(super) same_site: cookie::SameSite,
    pub(super) secure: bool,
}

/// A key's name, what it says of an endpoint, and that it is the key that says so.
type Word = [u8; 20];
/// What a key says of something.
type Said = [u8; 8];
/// In base64.
const TEXT: usize = 27;

impl Cookie {
    /// The line that sets it, for browsers to keep from scripts.
    pub(super) fn line(&self, value: &str) -> String {
        let mut line = cookie::Cookie::build((self.name.as_str(), value))
            .path(self.path.as_str())
            .same_site(self.same_site)
            .secure(self.secure)
            .http_only(true)
            .build();
        if let Some(ttl) = self.ttl {
            line.set_max_age(cookie::time::Duration::seconds(ttl.as_secs().cast_signed()));
        }
        line.to_string()
    }
}

/// What a cookie says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    /// This endpoint; `newest`: by the key that signs now.
    Here { address: SocketAddr, newest: bool },
    /// One that is not there.
    Gone,
    /// Nothing that one of the keys has said.
    Nothing,
}

/// The words of a service's endpoints.
#[derive(Debug, Default)]
pub(super) struct Words {
    /// One for each key, in the keys' order.
    of: FxHashMap<SocketAddr, Arc<[Word]>>,
    by: FxHashMap<Word, SocketAddr>,
}

impl Words {
    /// Of these endpoints; what `before` had of the same keys and service is taken over.
    pub(super) fn new(service: &str, keys: &Keys, endpoints: &Endpoints, before: Option<&Words>) -> Self {
        let mut words = Words::default();
        words.of.reserve(endpoints.len());
        words.by.reserve(endpoints.len() * keys.all.len());
        for endpoint in endpoints {
            let address = endpoint.address;
            let known = before.and_then(|before| before.of.get(&address)).cloned();
            let all = known.unwrap_or_else(|| keys.all.iter().map(|key| word(key, service, address)).collect());
            words.by.extend(all.iter().map(|word| (*word, address)));
            words.of.insert(address, all);
        }
        words
    }

    /// The value of a client's cookie for this service.
    pub(super) fn read(&self, service: &str, keys: &Keys, value: &[u8]) -> Says {
        let mut word: Word = [0; 20];
        if value.len() != TEXT || BASE64_URL_SAFE_NO_PAD.decode_slice(value, &mut word) != Ok(word.len()) {
            return Says::Nothing;
        }
        let Some((id, said)) = word.split_first_chunk() else { return Says::Nothing };
        if let Some(address) = self.by.get(&word) {
            return Says::Here { address: *address, newest: keys.first().is_some_and(|key| key.id == *id) };
        }
        let Some((name, seal)) = said.split_first_chunk() else { return Says::Nothing };
        let said = keys.find(*id).map(|key| self::seal(key, service, *name));
        let same = said.is_some_and(|said| constant_time::verify_slices_are_equal(&said, seal).is_ok());
        if same { Says::Gone } else { Says::Nothing }
    }

    /// The value that names this endpoint.
    pub(super) fn write(&self, address: SocketAddr) -> Option<String> {
        Some(BASE64_URL_SAFE_NO_PAD.encode(self.of.get(&address)?.first()?))
    }

    /// It has these endpoints and no others.
    pub(super) fn is_of(&self, endpoints: &Endpoints) -> bool {
        self.of.len() == endpoints.len() && endpoints.iter().all(|endpoint| self.of.contains_key(&endpoint.address))
    }
}

fn word(key: &Key, service: &str, at: SocketAddr) -> Word {
    // A service's name has no zero in it, and is not empty: no name is a seal.
    let name = says(key, &[service.as_bytes(), &[0], &address::bytes(at)]);
    let mut word = [0; 20];
    let bytes = key.id.into_iter().chain(name).chain(seal(key, service, name));
    word.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    word
}

/// Nobody else says this of a name.
fn seal(key: &Key, service: &str, name: Said) -> Said {
    says(key, &[&[0], service.as_bytes(), &[0], &name])
}

fn says(key: &Key, of: &[&[u8]]) -> Said {
    let mut signing = hmac::Context::with_key(&key.mac);
    of.iter().for_each(|part| signing.update(part));
    let mut said = [0; 8];
    said.iter_mut().zip(signing.sign().as_ref()).for_each(|(to, from)| *to = *from);
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Endpoint;
    use proptest::prelude::*;

    const OLD: &str = "00112233445566778899aabbccddeeff";
    const NEW: &str = "ffeeddccbbaa99887766554433221100";

    fn endpoints(ports: &[u16]) -> Endpoints {
        let endpoint = |port: &u16| Arc::new(Endpoint::of("shop", (*port).into(), ([10, 0, 0, 1], *port).into()));
        ports.iter().map(endpoint).collect()
    }

    fn at(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    #[test]
    fn gateways_with_the_same_keys_understand_each_other_and_others_do_not() {
        let (keys, all) = (Keys::of(OLD), endpoints(&[1, 2]));
        let words = Words::new("shop", &keys, &all, None);
        let value = words.write(at(2)).unwrap();
        assert_eq!(value.len(), TEXT);
        let read = |service: &str, keys: &Keys, all: &Endpoints| {
            Words::new(service, keys, all, None).read(service, keys, value.as_bytes())
        };
        let here = |newest| Says::Here { address: at(2), newest };
        assert_eq!(read("shop", &Keys::of(OLD), &endpoints(&[9, 2])), here(true));
        assert_eq!(read("shop", &keys, &endpoints(&[1, 3])), Says::Gone);
        assert_eq!(read("cart", &keys, &all), Says::Nothing, "what holds for one service says nothing in another");
        assert_eq!(read("shop", &Keys::of(NEW), &all), Says::Nothing);
        // Rotation: added, then put first, then alone.
        assert_eq!(read("shop", &Keys::of(&format!("{OLD}\n{NEW}")), &all), here(true));
        assert_eq!(read("shop", &Keys::of(&format!("{NEW}\n{OLD}")), &all), here(false));
        assert!(words.is_of(&all) && !words.is_of(&endpoints(&[1])) && !words.is_of(&endpoints(&[1, 3])));
        let after = Words::new("shop", &keys, &endpoints(&[2, 3]), Some(&words));
        assert_eq!((after.write(at(2)), after.write(at(1))), (Some(value), None));
    }

    #[test]
    fn it_is_kept_from_scripts_and_from_other_sites() {
        let same_site = cookie::SameSite::Lax;
        let cookie = Cookie { name: "shop".into(), ttl: None, path: "/".into(), same_site, secure: true };
        assert_eq!(cookie.line("v"), "shop=v; HttpOnly; SameSite=Lax; Secure; Path=/");
        let cookie = Cookie { ttl: Some(Duration::from_secs(3600)), secure: false, ..cookie };
        assert_eq!(cookie.line("v"), "shop=v; HttpOnly; SameSite=Lax; Path=/; Max-Age=3600");
    }

    proptest! {
        #[test]
        fn nobody_makes_one(value: Vec<u8>, text in "[A-Za-z0-9_-]{27}", place in 0..27_usize, byte: u8) {
            let (keys, all) = (Keys::of(&format!("{OLD}\n{NEW}")), endpoints(&[1, 2, 3]));
            let words = Words::new("shop", &keys, &all, None);
            let read = |value: &[u8]| words.read("shop", &keys, value);
            prop_assert_eq!(read(&value), Says::Nothing);
            prop_assert_eq!(read(text.as_bytes()), Says::Nothing);
            let mut changed = words.write(at(1)).unwrap().into_bytes();
            let same = changed[place] == byte;
            changed[place] = byte;
            // Also behind the name of a key that is known.
            prop_assert_eq!(matches!(read(&changed), Says::Here { .. }), same);
            prop_assert!(same || read(&changed) == Says::Nothing);
            let others = Words::new("shop", &keys, &endpoints(&[2, 3]), None);
            prop_assert_eq!(others.read("shop", &keys, &changed) == Says::Gone, same);
        }
    }
}
