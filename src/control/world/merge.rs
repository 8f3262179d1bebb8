//! A service that several sources report: what each of them said last, and the union of it.

use crate::discovery::{Entry, Observed};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;

/// What the sources of one service said, in the order in which they are declared.
#[derive(Debug, Clone, Default)]
pub(super) struct Merge {
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
struct Part {
    source: Arc<str>,
    /// None: it has not answered yet.
    said: Option<Arc<Observed>>,
    /// It could not be read last time.
    failing: bool,
}

impl Merge {
    /// The same for these sources: what is known of them stays.
    pub(super) fn of(&mut self, sources: &[Arc<str>]) {
        let mut before = std::mem::take(&mut self.parts);
        let part = |source: &Arc<str>| match before.iter().position(|part| part.source == *source) {
            Some(place) => before.swap_remove(place),
            None => Part { source: Arc::clone(source), said: None, failing: false },
        };
        self.parts = sources.iter().map(part).collect();
    }

    fn part(&mut self, source: &str) -> Option<&mut Part> {
        self.parts.iter_mut().find(|part| *part.source == *source)
    }

    /// Is it one of them?
    pub(super) fn has(&self, source: &str) -> bool {
        self.parts.iter().any(|part| *part.source == *source)
    }

    /// What one of them said last.
    pub(super) fn said(&self, source: &str) -> Option<&Arc<Observed>> {
        self.parts.iter().find(|part| *part.source == *source)?.said.as_ref()
    }

    /// One of them says this.
    pub(super) fn say(&mut self, source: &str, observed: Arc<Observed>) {
        if let Some(part) = self.part(source) {
            (part.said, part.failing) = (Some(observed), false);
        }
    }

    /// One of them fails, or does so no longer.
    pub(super) fn fails(&mut self, source: &str, failing: bool) {
        if let Some(part) = self.part(source) {
            part.failing = failing;
        }
    }

    /// None of them can be read.
    pub(super) fn stale(&self) -> bool {
        self.parts.iter().all(|part| part.failing)
    }

    /// One of them cannot be read, or has not answered yet.
    pub(super) fn partial(&self) -> bool {
        self.parts.iter().any(|part| part.failing || part.said.is_none())
    }

    /// All that they say: each address once, as the first of them has it that lists it. With `failover`, the metadata says
    /// whose turn each endpoint is, as `priority`: 0 for those of the first source.
    pub(super) fn union(&self, failover: bool) -> Observed {
        let mut union = Observed::default();
        let mut taken: HashSet<SocketAddr> = HashSet::new();
        for (place, part) in self.parts.iter().enumerate() {
            let Some(said) = &part.said else { continue };
            for entry in &said.endpoints {
                if taken.insert(entry.address) {
                    let mut entry = Entry::clone(entry);
                    if failover {
                        entry.metadata.insert("priority".to_owned(), place.to_string());
                    }
                    union.endpoints.push(entry);
                }
            }
            let between = if union.revision.is_empty() { "" } else { " " };
            union.revision = format!("{}{between}{}={}", union.revision, part.source, said.revision);
            union.skipped = union.skipped.saturating_add(said.skipped);
            union.left_out.extend(said.left_out.iter().cloned());
            if let Some(held) = &said.held {
                let before = union.held.take().map(|before| before + "; ").unwrap_or_default();
                union.held = Some(format!("{before}{}: {held}", part.source));
            }
        }
        union
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(ports: &[u16], weight: u32) -> Arc<Observed> {
        let entry = |port: &u16| Entry {
            address: ([127, 0, 0, 1], *port).into(),
            weight,
            healthy: true,
            metadata: Default::default(),
        };
        let endpoints = ports.iter().map(entry).collect();
        Arc::new(Observed { endpoints, revision: weight.to_string(), skipped: 1, ..Observed::default() })
    }

    #[test]
    fn the_first_source_wins_an_address_and_each_part_stands_for_itself() {
        let sources: [Arc<str>; 2] = ["a".into(), "b".into()];
        let mut merge = Merge::default();
        merge.of(&sources);
        assert_eq!((merge.union(false), merge.stale(), merge.partial()), (Observed::default(), false, true));
        merge.say("b", said(&[2, 3], 7));
        merge.say("a", said(&[1, 2], 5));
        merge.say("c", said(&[9], 1));
        let union = merge.union(true);
        let seen: Vec<_> =
            union.endpoints.iter().map(|e| (e.address.port(), e.weight, &*e.metadata["priority"])).collect();
        assert_eq!(seen, [(1, 5, "0"), (2, 5, "0"), (3, 7, "1")]);
        assert_eq!((union.revision.as_str(), union.skipped, merge.partial()), ("a=5 b=7", 2, false));
        merge.fails("a", true);
        assert_eq!((merge.stale(), merge.partial(), merge.union(false).endpoints.len()), (false, true, 3));
        merge.fails("b", true);
        assert!(merge.stale());
        merge.of(&sources[1..]);
        assert_eq!(merge.union(false).endpoints.len(), 2);
    }
}
