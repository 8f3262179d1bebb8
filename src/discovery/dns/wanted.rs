//! What a service is called in DNS.

use crate::discovery::Lookup;
use hickory_resolver::proto::rr::Name;
use std::net::IpAddr;

/// What is looked up for a service. Names are absolute: no search list applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The addresses of a host, each with this port.
    Host(Name, u16),
    /// The targets of an SRV name.
    Service(Name),
}

impl Wanted {
    /// What `registered_as` says: `users.internal:8080`, or an SRV name like `_http._tcp.users.internal`.
    ///
    /// # Errors
    /// The key that is wrong, and what to write.
    pub(super) fn of(lookup: &Lookup) -> Result<Self, String> {
        let written = lookup.registered_as.as_str();
        let wrong = |problem: &str| {
            let good = "write `HOST:PORT`, or an SRV name like `_http._tcp.users.internal`";
            Err(format!("registered_as: `{written}` {problem}; {good}"))
        };
        if !lookup.tags.is_empty() {
            return Err("tags: DNS knows none".to_owned());
        }
        let is_address = |text: &str| text.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        let (host, port) = match written.rsplit_once(':') {
            _ if is_address(written) => return wrong("is an address, and no name to look up"),
            Some((host, port)) => match port.parse() {
                Ok(port) if port > 0 => (host, Some(port)),
                _ => return wrong("has no port that can be used"),
            },
            None => (written, None),
        };
        if is_address(host) {
            return wrong("is an address, and no name to look up");
        }
        let mut name = match Name::from_utf8(host).or_else(|_| Name::from_ascii(host)) {
            Ok(name) if !host.contains(char::is_whitespace) => name,
            _ => return wrong("is no name of DNS"),
        };
        name.set_fqdn(true);
        // Of a name as long as it may be, the final dot is too much.
        if name.is_root() || name.len() > 255 {
            return wrong("is no name of DNS");
        }
        match port {
            Some(port) => Ok(Wanted::Host(name, port)),
            None if host.starts_with('_') => Ok(Wanted::Service(name)),
            None => wrong("has no port"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Wanted, String> {
        let registered_as = text.to_owned();
        Wanted::of(&Lookup { service: "users".into(), registered_as, tags: vec![], allow_empty: false })
    }

    #[test]
    fn hosts_and_services_are_told_apart() {
        let name = |text| Name::from_ascii(text).unwrap();
        for text in ["users.internal:8080", "users.internal.:8080"] {
            assert_eq!(of(text), Ok(Wanted::Host(name("users.internal."), 8080)));
        }
        assert_eq!(of("_http._tcp.users.internal"), Ok(Wanted::Service(name("_http._tcp.users.internal."))));
        assert_eq!(of("_a.b:1"), Ok(Wanted::Host(name("_a.b."), 1)));
        assert_eq!(of("café.test:1"), Ok(Wanted::Host(name("xn--caf-dma.test."), 1)));
        for (text, problem) in [
            ("users", "registered_as: `users` has no port; write `HOST:PORT`, or an SRV name"),
            ("users.internal:0", "has no port that can be used"),
            ("users.internal:http", "has no port that can be used"),
            ("10.0.0.7:80", "is an address"),
            ("[::1]:80", "is an address"),
            ("::1", "is an address"),
            (":80", "is no name"),
            (".:80", "is no name"),
            ("", "is no name"),
            ("a b:80", "is no name"),
            (&format!("{}.test:80", "a".repeat(64)), "is no name"),
            (&format!("{}test:80", "abcd.".repeat(60)), "is no name"),
        ] {
            let told = of(text).unwrap_err();
            assert!(told.contains(problem), "{text} gave {told}");
        }
        let tagged = Lookup { tags: vec!["blue".to_owned()], ..lookup() };
        assert_eq!(Wanted::of(&tagged), Err("tags: DNS knows none".to_owned()));
    }

    fn lookup() -> Lookup {
        Lookup { service: "a".into(), registered_as: "a.b:1".to_owned(), tags: vec![], allow_empty: false }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}", near in "[a-z_.:\\[\\]\\\\0-9]{0,40}") {
            let _ = (of(&text), of(&near));
        }
    }
}
