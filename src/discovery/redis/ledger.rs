//! What is known of the declared services' keys, and when each of them ends.

use crate::discovery::listing::{Listing, has_tags, instance};
use crate::discovery::{Entry, Observed};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;
use tokio::time::Instant;

/// A key's end is looked for so much later than the server has told: it counts in whole milliseconds.
const AFTER: Duration = Duration::from_millis(50);
/// A key that ends later than this is looked at before.
const LATEST: Duration = Duration::from_secs(24 * 3600);
/// So many keys of one service are kept; what is beyond them is only told.
const MOST: usize = 65_536;

/// What one key holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    /// Endpoints by the name that is shown for each: one, or those of a hash. Err: what is wrong with it.
    pub(super) entries: Vec<(String, Result<Entry, String>)>,
    /// When it ends, unless it is written again.
    pub(super) ends: Option<Instant>,
}

impl Held {
    /// A key of its own for one endpoint.
    pub(super) fn value(key: &[u8], member: &[u8], value: &[u8]) -> Self {
        Held { entries: vec![(shown(key), instance(member, value))], ends: None }
    }

    /// A hash with a field for each endpoint.
    pub(super) fn fields<'a>(key: &[u8], fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let entry =
            |(field, value): (&[u8], &[u8])| (format!("{} {}", shown(key), shown(field)), instance(field, value));
        // A hash has no order of its own, and must not seem to change.
        let mut entries: Vec<_> = fields.take(MOST).map(entry).collect();
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        Held { entries, ends: None }
    }

    /// What cannot be used.
    pub(super) fn unusable(key: &[u8], problem: &str) -> Self {
        Held { entries: vec![(shown(key), Err(problem.to_owned()))], ends: None }
    }

    /// It ends after so many milliseconds, as `PTTL` has it; below 0: it does not.
    pub(super) fn for_ms(self, ttl: i64) -> Self {
        let left = u64::try_from(ttl).ok().map(|ms| Duration::from_millis(ms).min(LATEST) + AFTER);
        Held { ends: left.map(|left| Instant::now() + left), ..self }
    }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// All keys of all services that are read.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    services: HashMap<String, Keys>,
    ends: BTreeSet<(Instant, Vec<u8>)>,
    /// Changes so far.
    revision: u64,
    /// All that there was has been read once: what is not in here is not there.
    pub(super) whole: bool,
}

#[derive(Debug, Default)]
struct Keys {
    held: BTreeMap<Vec<u8>, Held>,
    /// There were more than are kept.
    more: bool,
}

impl Ledger {
    /// What a key holds now; none: it is gone. True: something else than before.
    pub(super) fn put(&mut self, service: &str, key: &[u8], now: Option<Held>) -> bool {
        let keys = self.services.entry(service.to_owned()).or_default();
        let before = keys.held.remove(key);
        if let Some(ends) = before.as_ref().and_then(|before| before.ends) {
            self.ends.remove(&(ends, key.to_vec()));
        }
        let changed = before.as_ref().map(|held| &held.entries) != now.as_ref().map(|held| &held.entries);
        match now {
            Some(_) if keys.held.len() >= MOST => keys.more = true,
            Some(held) => {
                self.ends.extend(held.ends.map(|ends| (ends, key.to_vec())));
                keys.held.insert(key.to_vec(), held);
            }
            None => {}
        }
        self.revision += u64::from(changed);
        changed
    }

    /// Takes over from an older ledger what this one cannot know: the keys for which `unknown` says so.
    pub(super) fn take_over(&mut self, older: Ledger, unknown: impl Fn(&[u8]) -> bool) {
        for (service, keys) in older.services {
            for (key, held) in keys.held {
                let known = self.services.get(&service).is_some_and(|keys| keys.held.contains_key(&key));
                if !known && unknown(&key) {
                    self.put(&service, &key, Some(held));
                }
            }
        }
        self.revision = older.revision + 1;
        self.whole |= older.whole;
    }

    /// When the next key ends.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.ends.first().map(|(at, _)| *at)
    }

    /// The keys that have ended by now, at most so many. Each is named once: it has to be read again.
    pub(super) fn ended(&mut self, now: Instant, most: usize) -> Vec<Vec<u8>> {
        let mut ended = Vec::new();
        while ended.len() < most
            && let Some((at, _)) = self.ends.first()
            && *at <= now
            && let Some((_, key)) = self.ends.pop_first()
        {
            ended.push(key);
        }
        ended
    }

    /// The list of a service; only what has all these tags.
    pub(super) fn list(&self, service: &str, tags: &[String]) -> Observed {
        let mut listing = Listing::default();
        if let Some(keys) = self.services.get(service) {
            for (name, entry) in keys.held.values().flat_map(|held| &held.entries) {
                if entry.as_ref().map_or(true, |entry| has_tags(entry, tags)) {
                    listing.add(name, entry.clone());
                }
            }
            if keys.more {
                listing.add(service, Err(format!("it has more than {MOST} keys; the rest is not read")));
            }
        }
        listing.observed(self.revision.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(key: &str, value: &str) -> Option<Held> {
        let member = key.strip_prefix("s:users:").unwrap();
        Some(Held::value(key.as_bytes(), member.as_bytes(), value.as_bytes()))
    }

    fn ports(ledger: &Ledger) -> Vec<u16> {
        ledger.list("users", &[]).endpoints.iter().map(|entry| entry.address.port()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_is_renewed_does_not_end_and_is_no_change() {
        let mut ledger = Ledger::default();
        let key = b"s:users:10.0.0.1:1";
        let put =
            |ledger: &mut Ledger, ttl| ledger.put("users", key, value("s:users:10.0.0.1:1", "").map(|h| h.for_ms(ttl)));
        assert!(put(&mut ledger, 1_000) && !put(&mut ledger, 2_000));
        let at = Instant::now() + Duration::from_millis(2_050);
        assert_eq!(ledger.next_end(), Some(at));
        assert_eq!(ledger.ended(at - Duration::from_millis(1), 9), [b""; 0]);
        assert_eq!(ledger.ended(at, 9), [key.to_vec()]);
        assert_eq!((ledger.next_end(), ports(&ledger)), (None, vec![1]));
        assert!(ledger.put("users", key, None) && !ledger.put("users", key, None));
        assert_eq!(ports(&ledger), [0; 0]);
        put(&mut ledger, -1);
        assert_eq!(ledger.next_end(), None);
        put(&mut ledger, i64::MAX);
        assert!(ledger.next_end().is_some_and(|at| at <= Instant::now() + LATEST + AFTER));
    }

    #[test]
    fn keys_and_hashes_are_one_list() {
        let mut ledger = Ledger::default();
        ledger.put("users", b"s:users:10.0.0.1:1", value("s:users:10.0.0.1:1", r#"{"tags":["eu"]}"#));
        let fields = [(b"10.0.0.1:3".as_slice(), b"".as_slice()), (b"10.0.0.1:2", b"{}"), (b"\xff", b"")];
        ledger.put("users", b"s:users", Some(Held::fields(b"s:users", fields.into_iter())));
        ledger.put("users", b"s:users:x", Some(Held::unusable(b"s:users:x", "it is a list")));
        let observed = ledger.list("users", &[]);
        assert_eq!((ports(&ledger), observed.skipped), (vec![2, 3, 1], 2));
        let named: Vec<_> = observed.left_out.iter().map(|left| (left.entry.as_str(), left.reason.as_str())).collect();
        assert_eq!(named, [("s:users \u{fffd}", "its name is no UTF-8"), ("s:users:x", "it is a list")]);
        assert_eq!(ledger.list("users", &["eu".to_owned()]).endpoints.len(), 1);
        let again = fields.into_iter().rev();
        assert!(!ledger.put("users", b"s:users", Some(Held::fields(b"s:users", again))));
    }

    #[test]
    fn what_no_server_could_tell_is_taken_over() {
        let (mut older, mut newer) = (Ledger::default(), Ledger::default());
        for port in 1..=3 {
            let key = format!("s:users:10.0.0.1:{port}");
            older.put("users", key.as_bytes(), value(&key, ""));
        }
        newer.put("users", b"s:users:10.0.0.1:1", value("s:users:10.0.0.1:1", r#"{"weight":2}"#));
        newer.take_over(older, |key| key.ends_with(b"1") || key.ends_with(b"2"));
        assert_eq!(ports(&newer), [1, 2]);
        assert_eq!(newer.list("users", &[]).endpoints[0].weight, 2);
    }
}
