//! Origins that are allowed: one, or all below a name.

/// Who is allowed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// This one.
    Exact(String),
    /// What stands before the name, and what it ends with: `https://` and `.example.com`.
    Under(String, String),
}

impl Origin {
    pub(super) fn parse(written: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "origins: `{written}` is no origin; write it like `https://shop.example` or `https://*.example.com`"
            )
        };
        let (scheme, host) = written.split_once("://").ok_or_else(bad)?;
        let plain = host.strip_prefix("*.").unwrap_or(host);
        let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._[]:".contains(&byte);
        let scheme_is_good =
            !scheme.is_empty() && scheme.bytes().all(|b| b.is_ascii_lowercase() || b"+-.".contains(&b));
        // Browsers leave the default port out, so that one with it would fit nobody.
        let default_port =
            [("https", ":443"), ("http", ":80")].iter().any(|(s, port)| *s == scheme && plain.ends_with(port));
        if !scheme_is_good || plain.is_empty() || plain.starts_with('.') || !plain.bytes().all(good) || default_port {
            return Err(bad());
        }
        Ok(match host.strip_prefix('*') {
            Some(suffix) => Origin::Under(format!("{scheme}://"), suffix.to_owned()),
            None => Origin::Exact(written.to_owned()),
        })
    }

    pub(super) fn fits(&self, origin: &str) -> bool {
        match self {
            Origin::Exact(exact) => exact == origin,
            Origin::Under(scheme, suffix) => {
                let names = origin.strip_prefix(scheme.as_str()).and_then(|host| host.strip_suffix(suffix.as_str()));
                let name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
                names.is_some_and(|names| !names.is_empty() && !names.starts_with('.') && names.bytes().all(name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn only_what_is_below_the_name_fits(origin in "(https?://)?[a-z.@:/#-]{0,12}(\\.example\\.com|example\\.com)?(:[0-9]{1,3})?") {
            let under = Origin::parse("https://*.example.com").unwrap();
            if under.fits(&origin) {
                let uri: http::Uri = origin.parse().unwrap();
                prop_assert_eq!(uri.scheme_str(), Some("https"));
                prop_assert!(uri.host().unwrap().ends_with(".example.com") && uri.port().is_none());
            }
        }
    }
}
