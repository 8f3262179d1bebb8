//! The check of kind `tcp`: that a connection is taken, and with TLS, that the handshake succeeds.

use super::target::{Target, Unwell};

pub(super) async fn check(target: &Target<'_>) -> Result<(), Unwell> {
    target.connect().await.map(drop)
}
