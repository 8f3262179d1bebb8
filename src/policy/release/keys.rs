//! Which clients ask a canary: by a hash that is the same for all of a client's requests and on all gateways, and below the
//! share of more and more of them as that grows.

use super::settings::StickyOn;
use crate::http::headers::cookie;
use crate::http::request::Head;
use std::fmt;
use std::net::IpAddr;
use xxhash_rust::xxh64::Xxh64;

/// Bits of a hash that count: as many as a share can tell apart.
pub(super) const BITS: u32 = 53;

/// How clients are told apart.
pub(super) struct Keys {
    sticky_on: StickyOn,
    /// The hash of what comes before a key: not all canaries have the same clients first.
    salt: Xxh64,
}

impl Keys {
    pub(super) fn new(policy: &str, version: &str, sticky_on: StickyOn) -> Self {
        let mut salt = Xxh64::new(0);
        for part in [policy.as_bytes(), &[0], version.as_bytes(), &[0]] {
            salt.update(part);
        }
        Keys { sticky_on, salt }
    }

    /// Below 2⁵³. `chance` is drawn where each request is for itself.
    pub(super) fn hash(&self, head: &Head, chance: impl FnOnce() -> u64) -> u64 {
        let hash = match &self.sticky_on {
            StickyOn::Request => chance(),
            StickyOn::Client => self.of_client(head.client),
            StickyOn::Header(name) => match head.parts.headers.get(name) {
                Some(value) => self.of(value),
                None => self.of_client(head.client),
            },
            StickyOn::Cookie(name) => match cookie(&head.parts.headers, name) {
                Some(value) => self.of(value.as_bytes()),
                None => self.of_client(head.client),
            },
        };
        hash >> (u64::BITS - BITS)
    }

    fn of(&self, key: &[u8]) -> u64 {
        let mut hash = self.salt.clone();
        hash.update(key);
        hash.digest()
    }

    fn of_client(&self, client: IpAddr) -> u64 {
        match client {
            IpAddr::V4(ip) => self.of(&ip.octets()),
            IpAddr::V6(ip) => self.of(&ip.octets()),
        }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("sticky_on", &self.sticky_on).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::Peer;
    use std::sync::Arc;
    use xxhash_rust::xxh64::xxh64;

    fn head(ip: [u8; 4], headers: &[(&str, &str)]) -> Arc<Head> {
        let request =
            headers.iter().fold(http::Request::get("/"), |request, (name, value)| request.header(*name, *value));
        Head::new(request.body(()).unwrap().into_parts().0, Peer::new((ip, 1).into()), &[])
    }

    fn chance() -> u64 {
        unreachable!("nothing is drawn")
    }

    #[test]
    fn the_hash_is_the_one_that_is_promised() {
        let keys = Keys::new("p", "0123456789ab", StickyOn::Header("x-user".into()));
        assert_eq!(keys.hash(&head([1; 4], &[("x-user", "u")]), chance), xxh64(b"p\x000123456789ab\x00u", 0) >> 11);
    }

    #[test]
    fn a_client_has_one_hash_by_whatever_tells_it_apart() {
        let client = Keys::new("p", "v", StickyOn::Client);
        let header = Keys::new("p", "v", StickyOn::Header("x-user".into()));
        let cookie = Keys::new("p", "v", StickyOn::Cookie("sid".into()));
        let hash = |keys: &Keys, ip, headers: &[(&str, &str)]| keys.hash(&head(ip, headers), chance);
        let (one, two) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        assert_eq!(hash(&client, one, &[]), hash(&client, one, &[("x-user", "u"), ("cookie", "sid=c")]));
        assert_ne!(hash(&client, one, &[]), hash(&client, two, &[]));
        assert_eq!(hash(&header, one, &[("x-user", "u")]), hash(&header, two, &[("x-user", "u")]));
        assert_eq!(hash(&cookie, one, &[("cookie", "a=b; sid=c")]), hash(&cookie, two, &[("cookie", "sid=c")]));
        for keys in [&header, &cookie] {
            assert_eq!(hash(keys, one, &[]), hash(&client, one, &[]), "by its address, where nothing else is there");
        }
        let request = Keys::new("p", "v", StickyOn::Request);
        assert_eq!(request.hash(&head(one, &[]), || u64::MAX), (1 << BITS) - 1);
        let other = Keys::new("p", "w", StickyOn::Client);
        assert_ne!(hash(&client, one, &[]), hash(&other, one, &[]), "another version begins with others");
    }

    #[test]
    fn a_share_of_the_clients_is_below_it() {
        let keys = Keys::new("p", "v", StickyOn::Header("x-user".into()));
        let hashes = (0..20_000).map(|user| keys.hash(&head([1; 4], &[("x-user", &format!("user-{user}"))]), chance));
        let below = hashes.filter(|hash| *hash < (1 << BITS) / 10).count();
        assert!((1_800..2_200).contains(&below), "{below}");
    }
}
