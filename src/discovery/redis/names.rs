//! The names of keys: which belong to a declared service, and what a server is asked for to tell of those and few others.

use std::collections::BTreeSet;

/// Of more services than this, all keys of the prefix are tracked: a server compares each key that anybody writes with
/// every prefix that is tracked.
const MOST_TRACKED: usize = 64;

/// The services that are read, as the registry names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    prefix: String,
    services: BTreeSet<String>,
}

/// What a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Name<'a> {
    /// The service, as the registry names it.
    pub(super) service: &'a str,
    /// What follows the service's name: an address, or another name for one endpoint. None: the key is a hash of all.
    pub(super) member: Option<&'a [u8]>,
}

impl Names {
    pub(super) fn new(prefix: &str, services: impl IntoIterator<Item = String>) -> Self {
        Names { prefix: prefix.to_owned(), services: services.into_iter().collect() }
    }

    /// What a key is, if it is one of a service's: of the longest name that fits, since a name may have a colon in it.
    pub(super) fn of<'a>(&'a self, key: &'a [u8]) -> Option<Name<'a>> {
        let rest = key.strip_prefix(self.prefix.as_bytes())?;
        let declared = |name: &[u8]| {
            let name = std::str::from_utf8(name).ok()?;
            self.services.get(name).map(String::as_str)
        };
        if let Some(service) = declared(rest) {
            return Some(Name { service, member: None });
        }
        let mut colons = rest.iter().enumerate().rev().filter(|(_, byte)| **byte == b':').map(|(at, _)| at);
        colons.find_map(|at| {
            let service = declared(rest.get(..at)?)?;
            Some(Name { service, member: rest.get(at + 1..) })
        })
    }

    /// A key that might be there.
    pub(super) fn some_key(&self) -> String {
        format!("{}{}:", self.prefix, self.services.first().map_or("", String::as_str))
    }

    /// What to track: no prefix begins with another, which a server refuses.
    pub(super) fn tracked(&self) -> Vec<String> {
        if self.services.len() > MOST_TRACKED {
            return vec![self.prefix.clone()];
        }
        let mut tracked: Vec<String> = Vec::new();
        // In order, so what others begin with comes before them.
        for service in &self.services {
            let prefix = format!("{}{service}", self.prefix);
            if tracked.last().is_none_or(|last| !prefix.starts_with(last.as_str())) {
                tracked.push(prefix);
            }
        }
        tracked
    }

    /// The channels to listen on. An access list allows just this pattern, or it does not fit.
    pub(super) fn channels(&self, database: u32) -> String {
        format!("__keyspace@{database}__:{}*", escaped(&self.prefix))
    }

    /// What keys are looked for: those that begin like all of them.
    pub(super) fn pattern(&self) -> String {
        let (Some(first), Some(last)) = (self.services.first(), self.services.last()) else {
            return format!("{}*", escaped(&self.prefix));
        };
        // What the first and the last in order begin with, all do.
        let common: String = first.chars().zip(last.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a).collect();
        format!("{}{}*", escaped(&self.prefix), escaped(&common))
    }
}

/// As it is, where a pattern is expected.
fn escaped(text: &str) -> String {
    let mut pattern = String::new();
    for char in text.chars() {
        if matches!(char, '*' | '?' | '[' | '\\') {
            pattern.push('\\');
        }
        pattern.push(char);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn names(services: &[&str]) -> Names {
        Names::new("services:", services.iter().map(|service| (*service).to_owned()))
    }

    #[test]
    fn keys_belong_to_the_longest_name_that_fits() {
        let names = names(&["users", "users:eu", "cart"]);
        let is = |key: &'static str| {
            names.of(key.as_bytes()).map(|name| (name.service, name.member.map(|m| std::str::from_utf8(m).unwrap())))
        };
        for (key, found) in [
            ("services:users", Some(("users", None))),
            ("services:users:10.0.0.7:80", Some(("users", Some("10.0.0.7:80")))),
            ("services:users:eu", Some(("users:eu", None))),
            ("services:users:eu:[::1]:80", Some(("users:eu", Some("[::1]:80")))),
            ("services:users:", Some(("users", Some("")))),
            ("services:users-admin:10.0.0.7:80", None),
            ("services:user", None),
            ("users:10.0.0.7:80", None),
        ] {
            assert_eq!(is(key), found, "{key}");
        }
    }

    #[test]
    fn what_is_tracked_does_not_overlap() {
        assert_eq!(names(&["users", "users-admin", "cart", "user"]).tracked(), ["services:cart", "services:user"]);
        let many: Vec<String> = (0..=MOST_TRACKED).map(|number| format!("s{number}")).collect();
        assert_eq!(Names::new("services:", many).tracked(), ["services:"]);
    }

    #[test]
    fn patterns_find_what_is_declared() {
        assert_eq!(names(&["users"]).pattern(), "services:users*");
        assert_eq!(names(&["users", "user-admin"]).pattern(), "services:user*");
        assert_eq!(names(&["users", "cart"]).pattern(), "services:*");
        assert_eq!(Names::new("a*[b]-:", ["x?".to_owned()]).pattern(), r"a\*\[b]-:x\?*");
        assert_eq!(names(&[]).channels(3), "__keyspace@3__:services:*");
    }

    proptest! {
        #[test]
        fn no_two_that_are_tracked_overlap(services in proptest::collection::btree_set("[a-c:]{1,4}", 1..12)) {
            let names = Names::new("p:", services.clone());
            let tracked = names.tracked();
            for (at, one) in tracked.iter().enumerate() {
                prop_assert!(!tracked.iter().enumerate().any(|(other, prefix)| other != at && one.starts_with(prefix.as_str())));
            }
            for service in services {
                let key = format!("p:{service}");
                prop_assert!(tracked.iter().any(|prefix| key.starts_with(prefix.as_str())));
            }
        }

        #[test]
        fn no_key_makes_it_panic(key in proptest::collection::vec(0u8.., 0..30), services in proptest::collection::vec(".{0,6}", 0..4)) {
            let names = Names::new("s:", services);
            let _ = (names.of(&key), names.of(&[b"s:".as_slice(), &key].concat()), names.tracked(), names.pattern());
        }
    }
}
