//! WebSocket between the two ways to ask for it: HTTP/1.1's Upgrade (RFC 6455) and HTTP/2's extended CONNECT (RFC 8441).

use crate::service::pool::Multiplexed;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha1::{Digest, Sha1};
use std::time::Duration;

/// An endpoint's first settings come within this time of the connect; looked for this often.
const SETTINGS: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(5);

/// HTTP/2's clients send no key, and HTTP/1's servers want one: 16 random bytes in base64 (RFC 6455 §4.1).
pub(super) fn key(random: u64) -> String {
    let bytes = [random.to_be_bytes(), random.rotate_left(29).to_le_bytes()].concat();
    BASE64_STANDARD.encode(bytes)
}

/// What a server answers to a key (RFC 6455 §4.2.2).
pub(super) fn accept(key: &[u8]) -> String {
    let digest = Sha1::new().chain_update(key).chain_update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64_STANDARD.encode(digest.finalize())
}

/// Has an HTTP/2 endpoint said that its streams can be tunnels (RFC 8441 §3)? On a fresh connection that is waited for.
pub(super) async fn is_carried(connection: &Multiplexed) -> bool {
    loop {
        if connection.carries_tunnels() {
            return true;
        }
        let late = connection.opened.elapsed() > SETTINGS;
        tokio::time::sleep(LOOK).await;
        if late {
            return connection.carries_tunnels();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_answered_as_the_standard_shows() {
        // RFC 6455 §1.3.
        let accepted = accept(b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(accepted, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(BASE64_STANDARD.decode(key(7)).unwrap().len(), 16);
    }
}
