//! A service's list while it is read from a registry that holds what its users wrote: one entry a key. Bad entries are
//! left out, counted and named; an address that is there twice is one endpoint.

use super::left_out::{self, LeftOut};
use super::{Entry, Metadata, Observed};
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};

/// So many endpoints of one service are read; the rest is left out.
const MOST: usize = 65_536;
/// The largest value that is read, bytes, and the most that an entry says beside its address.
const LARGEST: usize = 64 << 10;
const MOST_METADATA: usize = 64;

/// A list that is being read.
#[derive(Debug, Default)]
pub struct Listing {
    endpoints: Vec<Entry>,
    places: HashMap<SocketAddr, usize>,
    skipped: u32,
    left_out: Vec<LeftOut>,
}

impl Listing {
    /// Takes one more entry, or what is wrong with it. `name`: what the registry calls it.
    pub fn add(&mut self, name: &str, entry: Result<Entry, String>) {
        let full = || format!("there are more than {MOST} endpoints");
        let entry = entry.and_then(|entry| match self.places.get(&entry.address) {
            None if self.endpoints.len() >= MOST => Err(full()),
            place => Ok((entry, place.copied())),
        });
        match entry {
            // Registered twice, under two names: one endpoint, healthy if either is.
            Ok((entry, Some(place))) => {
                if entry.healthy && !self.endpoints[place].healthy {
                    self.endpoints[place] = entry;
                }
            }
            Ok((entry, None)) => {
                self.places.insert(entry.address, self.endpoints.len());
                self.endpoints.push(entry);
            }
            Err(problem) => {
                self.skipped = self.skipped.saturating_add(1);
                left_out::note(&mut self.left_out, name, &problem);
            }
        }
    }

    /// The same for a key and its value, as [`instance`] reads them. Only what has all these tags is taken.
    pub fn add_value(&mut self, key: &[u8], value: &[u8], tags: &[String]) {
        let entry = instance(key, value);
        if entry.as_ref().is_ok_and(|entry| !has_tags(entry, tags)) {
            return;
        }
        self.add(&String::from_utf8_lossy(key), entry);
    }

    /// What was read.
    pub fn observed(self, revision: impl Into<String>) -> Observed {
        let Listing { endpoints, places: _, skipped, left_out } = self;
        Observed { endpoints, revision: revision.into(), skipped, left_out, held: None }
    }
}

/// Has it all of these, as its metadata `tags` lists them, with commas between?
pub fn has_tags(entry: &Entry, tags: &[String]) -> bool {
    let has = |tag: &String| {
        let tags = entry.metadata.get("tags").map_or("", String::as_str);
        tags.split(',').any(|own| own.trim() == tag)
    };
    tags.iter().all(has)
}

/// One JSON value for all registries that hold JSON. The other spellings are those of etcd's `naming/endpoints`
/// (`Addr`, `Metadata`) and of Curator's service discovery (`address` without a port, `port`, `enabled`). What else is
/// in it is looked past.
#[derive(Deserialize)]
struct Value {
    #[serde(alias = "Addr", alias = "host")]
    address: Option<String>,
    port: Option<u16>,
    weight: Option<u32>,
    #[serde(alias = "Metadata")]
    metadata: Option<BTreeMap<String, serde_json::Value>>,
    zone: Option<String>,
    tags: Option<Vec<String>>,
    healthy: Option<bool>,
    enabled: Option<bool>,
}

/// An endpoint as a key's last part and its value say. No value, or one that names no address: the key is the address.
///
/// # Errors
/// What is wrong with it.
pub fn instance(key: &[u8], value: &[u8]) -> Result<Entry, String> {
    if value.len() > LARGEST {
        return Err(format!("its value is longer than {LARGEST} bytes"));
    }
    let text = |bytes| std::str::from_utf8(bytes).map(str::trim).map_err(|_| "is no UTF-8".to_owned());
    let (key, value) = (text(key), text(value).map_err(|problem| format!("its value {problem}"))?);
    let key = || key.map_err(|problem| format!("its name {problem}")).and_then(address);
    if value.is_empty() {
        return Ok(plain(key()?));
    }
    if !value.starts_with('{') {
        return Ok(plain(address(value)?));
    }
    let value: Value = serde_json::from_str(value).map_err(|error| format!("its JSON: {error}"))?;
    let address = match (value.address.as_deref().filter(|text| !text.is_empty()), value.port) {
        (None, None) => key()?,
        (None, Some(_)) => return Err("its JSON has a `port` and no `address`".to_owned()),
        (Some(text), None) => address(text)?,
        (Some(text), Some(port)) if text.parse::<SocketAddr>().is_err() => usable(text, port)?,
        (Some(text), Some(_)) => address(text)?,
    };
    let mut metadata = Metadata::new();
    for (key, value) in value.metadata.unwrap_or_default().into_iter().take(MOST_METADATA) {
        let value = match value {
            serde_json::Value::String(text) => text,
            serde_json::Value::Number(number) => number.to_string(),
            serde_json::Value::Bool(bool) => bool.to_string(),
            serde_json::Value::Null => continue,
            serde_json::Value::Array(_) | serde_json::Value::Object(_) => {
                return Err(format!("its JSON: `metadata.{key}` is no text"));
            }
        };
        metadata.insert(key, value);
    }
    if let Some(zone) = value.zone {
        metadata.insert("zone".to_owned(), zone);
    }
    if let Some(tags) = value.tags.filter(|tags| !tags.is_empty()) {
        metadata.insert("tags".to_owned(), tags.join(","));
    }
    let healthy = value.healthy.unwrap_or(true) && value.enabled.unwrap_or(true);
    Ok(Entry { address, weight: value.weight.unwrap_or(1), healthy, metadata })
}

fn plain(address: SocketAddr) -> Entry {
    Entry { address, weight: 1, healthy: true, metadata: Metadata::new() }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let wrong = || format!("`{text}` is not IP:PORT, like `10.0.0.7:8080` or `[::1]:8080`");
    let address: SocketAddr = text.parse().map_err(|_| wrong())?;
    usable(&address.ip().to_string(), address.port())
}

/// An address that somebody wrote as IP and port.
///
/// # Errors
/// Why nobody can connect to it.
pub fn usable(ip: &str, port: u16) -> Result<SocketAddr, String> {
    let bare = ip.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(ip);
    let parsed: IpAddr = bare.parse().map_err(|_| format!("`{ip}` is no IP address"))?;
    if parsed.is_unspecified() {
        return Err(format!("`{ip}` is no address to connect to"));
    }
    if port == 0 {
        return Err("port 0".to_owned());
    }
    Ok(SocketAddr::new(parsed, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(key: &str, value: &str) -> Result<Entry, String> {
        instance(key.as_bytes(), value.as_bytes())
    }

    #[test]
    fn the_spellings_of_an_endpoint() {
        let seven: SocketAddr = "10.0.0.7:8080".parse().unwrap();
        for (key, value) in [
            ("10.0.0.7:8080", ""),
            ("10.0.0.7:8080", "{}"),
            ("a", "10.0.0.7:8080"),
            ("a", " 10.0.0.7:8080\n"),
            ("a", r#"{"address":"10.0.0.7:8080"}"#),
            ("a", r#"{"host":"10.0.0.7","port":8080}"#),
            ("a", r#"{"Op":0,"Addr":"10.0.0.7:8080","Metadata":null}"#),
            ("a", r#"{"name":"users","id":"a","address":"10.0.0.7","port":8080,"sslPort":null,"payload":{"x":[1]}}"#),
        ] {
            assert_eq!(read(key, value), Ok(plain(seven)), "{key} {value}");
        }
        let full = r#"{"address":"[::1]:80","weight":3,"zone":"b","healthy":false,"tags":["x","y"],
            "metadata":{"zone":"a","version":2,"canary":true,"none":null}}"#;
        let metadata = [("canary", "true"), ("tags", "x,y"), ("version", "2"), ("zone", "b")];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let address = "[::1]:80".parse().unwrap();
        assert_eq!(read("a", full), Ok(Entry { address, weight: 3, healthy: false, metadata }));
        assert!(!read("a", r#"{"address":"10.0.0.7","port":1,"enabled":false}"#).unwrap().healthy);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (key, value, problem) in [
            ("a", "", "`a` is not IP:PORT, like `10.0.0.7:8080` or `[::1]:8080`"),
            ("a", "db.local:80", "`db.local:80` is not IP:PORT, like `10.0.0.7:8080` or `[::1]:8080`"),
            ("a", "10.0.0.7:0", "port 0"),
            ("a", "0.0.0.0:80", "`0.0.0.0` is no address to connect to"),
            ("a", r#"{"address":"db.local","port":80}"#, "`db.local` is no IP address"),
            ("a", r#"{"port":80}"#, "its JSON has a `port` and no `address`"),
            ("a", r#"{"address":"10.0.0.7:80","metadata":{"x":{}}}"#, "its JSON: `metadata.x` is no text"),
        ] {
            assert_eq!(read(key, value), Err(problem.to_owned()), "{key} {value}");
        }
        assert!(read("a", "{").unwrap_err().starts_with("its JSON: EOF"));
        assert_eq!(instance(b"a", b"\xff"), Err("its value is no UTF-8".to_owned()));
        assert_eq!(instance(b"\xff", b""), Err("its name is no UTF-8".to_owned()));
        assert!(instance(b"a", &[b' '; LARGEST + 1]).unwrap_err().contains("longer than"));
    }

    #[test]
    fn twice_is_once_and_tags_choose() {
        let mut listing = Listing::default();
        listing.add_value(b"a", br#"{"address":"10.0.0.7:1","healthy":false}"#, &[]);
        listing.add_value(b"b", br#"{"address":"10.0.0.7:1","weight":2}"#, &[]);
        listing.add_value(b"c", b"nowhere", &[]);
        let eu = ["eu".to_owned()];
        listing.add_value(b"10.0.0.7:2", br#"{"tags":["us","eu"]}"#, &eu);
        listing.add_value(b"10.0.0.7:3", br#"{"tags":["europe"]}"#, &eu);
        let observed = listing.observed("7");
        let seen: Vec<_> = observed.endpoints.iter().map(|e| (e.address.port(), e.weight, e.healthy)).collect();
        assert_eq!((seen, observed.skipped), (vec![(1, 2, true), (2, 1, true)], 1));
        assert_eq!(observed.left_out[0].entry, "c");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(key in proptest::collection::vec(0u8.., 0..30), value in proptest::collection::vec(0u8.., 0..60)) {
            let _ = instance(&key, &value);
        }
        #[test]
        fn no_near_miss_makes_it_panic(value in r#"\{("(address|host|Addr|port|weight|metadata|zone|tags|healthy)":("[0-9.:]{0,12}"|[0-9-]{1,11}|true|null|\{\}|\[\]),?){0,4}\}"#) {
            let _ = instance(b"10.0.0.7:80", value.as_bytes());
        }
    }
}
