//! Gives a request its id.

use super::{After, Passing};
use crate::service::middleware::request_id::RequestId;

/// The id that came, if it may be kept; else another one, 128 bits of chance in hex.
pub(super) fn before(settings: &RequestId, passing: &mut Passing) {
    let trusted = settings.trust_clients || passing.head().peer_is_trusted;
    let came = passing.head().parts.headers.only(&settings.header).filter(|id| trusted && RequestId::is_good(id));
    let id: Box<str> = match came.and_then(|id| std::str::from_utf8(id).ok()) {
        Some(id) => id.into(),
        None => {
            let made = {
                let mut chance = passing.request.exchange.worker.chance.borrow_mut();
                format!("{:016x}{:016x}", chance.next_u64(), chance.next_u64())
            };
            passing.edit(|head| head.parts.headers.set(&settings.header, made.as_bytes()));
            made.into()
        }
    };
    passing.record().request_id = Some(id.clone());
    passing.after.push(After::RequestId { header: settings.header.clone(), id });
}
