//! What no record may hold: headers, cookies and query parameters by name. Their values are taken out of the request, and
//! out of every other text in which they stand.

use crate::http::headers::cookie;
use crate::http::request::Head;
use memchr::memmem;
use smallvec::SmallVec;
use std::borrow::Cow;

/// Stands where something was taken out. No header and no path can have it, since it has controls.
pub const MARK: &str = "\0redacted\0";
/// A shorter value is not looked for in other texts: it would be found in each of them.
const SHORTEST: usize = 4;
/// Rules at most.
const MOST: usize = 256;

/// Whose values are taken out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Redaction {
    headers: Vec<Box<str>>,
    cookies: Names,
    parameters: Names,
    /// So are policies' configurations.
    pub config: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Names {
    #[default]
    None,
    Some(Vec<Box<str>>),
    All,
}

impl Names {
    fn add(&mut self, name: &str) {
        match self {
            _ if name == "*" => *self = Names::All,
            Names::None => *self = Names::Some(vec![name.into()]),
            Names::Some(names) => names.push(name.into()),
            Names::All => {}
        }
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Names::None => false,
            Names::Some(names) => names.iter().any(|known| **known == *name),
            Names::All => true,
        }
    }

    fn is_empty(&self) -> bool {
        *self == Names::None
    }
}

impl Redaction {
    /// Of rules like `header:authorization`, `cookie:sid`, `cookie:*`, `query:token` and `config`.
    ///
    /// # Errors
    /// The rule that is none, and what was expected.
    pub fn parse(rules: &[impl AsRef<str>]) -> Result<Self, String> {
        if rules.len() > MOST {
            return Err(format!("more than {MOST} rules"));
        }
        let mut redaction = Redaction::default();
        for rule in rules {
            let rule = rule.as_ref();
            match rule.split_once(':') {
                Some(("header", name)) if name.parse::<http::HeaderName>().is_ok() => {
                    redaction.headers.push(name.to_ascii_lowercase().into());
                }
                Some(("cookie", name)) if !name.is_empty() => redaction.cookies.add(name),
                Some(("query", name)) if !name.is_empty() => redaction.parameters.add(name),
                None if rule == "config" => redaction.config = true,
                _ => {
                    return Err(format!(
                        "`{}` is no rule; write `header:NAME`, `cookie:NAME`, `query:NAME` (`*`: each) or `config`",
                        rule.chars().take(64).collect::<String>().escape_debug()
                    ));
                }
            }
        }
        Ok(redaction)
    }

    /// What must not be told of this request.
    pub fn secrets(&self, head: &Head) -> Secrets {
        let mut secrets = Secrets::default();
        let fields = &head.parts.headers;
        for (name, value) in fields.iter() {
            if self.has_header(name) {
                secrets.add(value);
                // A policy takes them apart: cookies, or what a scheme says.
                if name == b"cookie" {
                    pairs(value, b';').for_each(|(_, value)| secrets.add_part(unquoted(value)));
                } else {
                    let parts = value.split(|byte| matches!(byte, b' ' | b'\t' | b';' | b',' | b'"' | b'='));
                    parts.skip(1).for_each(|part| secrets.add_part(part));
                }
                if let Some(pair) = value.strip_prefix(b"Basic ").or_else(|| value.strip_prefix(b"basic ")) {
                    secrets.add_basic(pair);
                }
            } else if name == b"cookie" && !self.cookies.is_empty() {
                for (_, value) in pairs(value, b';').filter(|(name, _)| self.cookies.has(name)) {
                    secrets.add(value);
                    secrets.add_part(unquoted(value));
                }
            }
        }
        if !self.parameters.is_empty()
            && let Some(query) = head.query()
        {
            for (name, value) in pairs(query.as_bytes(), b'&') {
                let decoded = |text: &[u8]| form_urlencoded::parse(text).next().map(|(name, _)| name.into_owned());
                if decoded(name.as_bytes()).is_some_and(|name| self.parameters.has(&name)) {
                    secrets.add(value);
                    if let Some(plain) = decoded(value) {
                        secrets.add_part(plain.as_bytes());
                    }
                }
            }
        }
        secrets.sort();
        secrets
    }

    /// Adds what a line of `Set-Cookie` gives the client: its next request brings that back, where it is taken out.
    pub fn add_cookie(&self, line: &str, secrets: &mut Secrets) {
        let pair = line.split(';').next().unwrap_or_default();
        let Some((name, value)) = split(pair.as_bytes()) else { return };
        let name = String::from_utf8_lossy(name.trim_ascii());
        if self.has_header(b"cookie") || self.has_header(b"set-cookie") || self.cookies.has(&name) {
            secrets.add(value.trim_ascii());
            secrets.add_part(unquoted(value.trim_ascii()));
            secrets.sort();
        }
    }

    fn has_header(&self, name: &[u8]) -> bool {
        self.headers.iter().any(|known| known.as_bytes() == name)
    }

    /// Whoever reads this of the request, in the words of `request.inputs`, sees something that must not be told.
    pub fn hides(&self, input: &str, head: &Head) -> bool {
        let (kind, name) = input.split_once(' ').unwrap_or((input, ""));
        let fields = &head.parts.headers;
        match kind {
            "header" if name == "cookie" && !self.cookies.is_empty() => fields.has(name),
            "header" => self.has_header(name.as_bytes()) && fields.has(name),
            "cookie" if self.has_header(b"cookie") => fields.has("cookie"),
            "cookie" => self.cookies.has(name) && cookie(fields, name).is_some(),
            "parameter" => self.parameters.has(name) && head.parts.target.parameter(name).is_some(),
            "query" => head.query().is_some_and(|query| self.without_parameters(query.as_bytes()).is_some()),
            _ => false,
        }
    }

    /// A line of a request's head as it may be told.
    pub fn line<'a>(&self, name: &[u8], value: &'a [u8], secrets: &Secrets) -> Cow<'a, [u8]> {
        if self.has_header(name) {
            return Cow::Borrowed(MARK.as_bytes());
        }
        if name == b"cookie" && !self.cookies.is_empty() {
            return self.without(value, b';', |name| self.cookies.has(name)).map_or(Cow::Borrowed(value), Cow::Owned);
        }
        secrets.take_out(value).map_or(Cow::Borrowed(value), Cow::Owned)
    }

    /// A request's path and query as they may be told.
    pub fn target<'a>(&self, target: &'a str, secrets: &Secrets) -> Cow<'a, str> {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let query = query.and_then(|query| Some((path, self.without_parameters(query.as_bytes())?)));
        let told = match query {
            Some((path, query)) => Cow::Owned([path.as_bytes(), b"?", &query].concat()),
            None => Cow::Borrowed(target.as_bytes()),
        };
        match secrets.take_out(&told).or(match told {
            Cow::Owned(told) => Some(told),
            Cow::Borrowed(_) => None,
        }) {
            Some(told) => Cow::Owned(String::from_utf8_lossy(&told).into_owned()),
            None => Cow::Borrowed(target),
        }
    }

    fn without_parameters(&self, query: &[u8]) -> Option<Vec<u8>> {
        let has = |name: &str| {
            form_urlencoded::parse(name.as_bytes()).next().is_some_and(|(name, _)| self.parameters.has(&name))
        };
        if self.parameters.is_empty() { None } else { self.without(query, b'&', has) }
    }

    /// Pairs of a name and a value with the values of these names taken out. None: there are none of these.
    fn without(&self, text: &[u8], between: u8, has: impl Fn(&str) -> bool) -> Option<Vec<u8>> {
        let (mut out, mut changed) = (Vec::with_capacity(text.len()), false);
        for (index, pair) in text.split(|byte| *byte == between).enumerate() {
            if index > 0 {
                out.push(between);
            }
            match split(pair) {
                Some((name, _)) if has(&String::from_utf8_lossy(name.trim_ascii())) => {
                    changed = true;
                    out.extend_from_slice(name);
                    out.push(b'=');
                    out.extend_from_slice(MARK.as_bytes());
                }
                _ => out.extend_from_slice(pair),
            }
        }
        changed.then_some(out)
    }
}

/// What must not be told of one request.
#[derive(Debug, Default)]
pub struct Secrets {
    /// In lower case, the longest first.
    values: SmallVec<[Vec<u8>; 2]>,
    /// There are some that are too short to be looked for.
    short: bool,
}

impl Secrets {
    /// There is nothing to hide.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty() && !self.short
    }

    /// Some are too short to be looked for: what a policy made of them must not be told at all.
    pub fn has_short(&self) -> bool {
        self.short
    }

    /// This text without them. None: it has none of them.
    pub fn take_out(&self, text: &[u8]) -> Option<Vec<u8>> {
        if self.values.is_empty() || text.len() < SHORTEST {
            return None;
        }
        let mut out: Option<Vec<u8>> = None;
        // A policy may have changed their case.
        let mut lower = text.to_ascii_lowercase();
        for value in &self.values {
            let now = out.as_deref().unwrap_or(text);
            let (mut from, mut changed) = (0, Vec::new());
            for at in memmem::find_iter(&lower, value) {
                changed.extend_from_slice(now.get(from..at).unwrap_or_default());
                changed.extend_from_slice(MARK.as_bytes());
                from = at + value.len();
            }
            if from > 0 {
                changed.extend_from_slice(now.get(from..).unwrap_or_default());
                lower = changed.to_ascii_lowercase();
                out = Some(changed);
            }
        }
        out
    }

    /// Takes them out of this text. True: there were some.
    pub fn clean(&self, text: &mut String) -> bool {
        let told = self.take_out(text.as_bytes());
        // Parts of a character may be left where a value was not UTF-8.
        told.map(|told| *text = String::from_utf8_lossy(&told).into_owned()).is_some()
    }

    /// The longer one first: a part of it must not break it up.
    fn sort(&mut self) {
        self.values.sort_unstable_by(|one, two| two.len().cmp(&one.len()).then_with(|| one.cmp(two)));
        self.values.dedup();
    }

    fn add(&mut self, value: &[u8]) {
        self.short |= (1..SHORTEST).contains(&value.len());
        self.add_part(value);
    }

    fn add_part(&mut self, value: &[u8]) {
        if value.len() >= SHORTEST {
            self.values.push(value.to_ascii_lowercase());
        }
    }

    /// User and password (RFC 7617 §2), which a policy may have read.
    fn add_basic(&mut self, value: &[u8]) {
        use base64::Engine as _;
        let Ok(pair) = base64::engine::general_purpose::STANDARD.decode(value.trim_ascii()) else { return };
        self.add_part(&pair);
        if let Some((_, password)) = pair.iter().position(|byte| *byte == b':').map(|at| pair.split_at(at)) {
            self.add(password.get(1..).unwrap_or_default());
        }
    }
}

fn split(pair: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b'=', pair)?;
    Some((pair.get(..at)?, pair.get(at + 1..)?))
}

fn pairs(text: &[u8], between: u8) -> impl Iterator<Item = (Cow<'_, str>, &[u8])> {
    let pairs = text.split(move |byte| *byte == between).filter_map(|pair| split(pair.trim_ascii()));
    pairs.map(|(name, value)| (String::from_utf8_lossy(name), value))
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

#[cfg(test)]
mod tests;
