//! Match rules by host and path: of many, those that can fit a request are found without a look at the others, and in their
//! order. Whether one does fit, with its methods and headers, it says itself.

mod trie;

use super::matcher::{Host, Match};
use crate::http::request::Head;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use trie::Trie;

/// Numbers of rules by what they ask for.
#[derive(Debug, Default)]
pub struct Index {
    len: usize,
    /// Of those that name a host.
    hosts: FxHashMap<Box<str>, Paths>,
    /// Of those that name what hosts are under, by its labels from the last one on.
    under: Trie<Paths>,
    /// Of those that name none.
    any: Paths,
}

/// Numbers of rules, each list in order.
#[derive(Debug, Default)]
struct Paths {
    whole: FxHashMap<Box<[u8]>, Vec<u32>>,
    /// By the segments of their prefix.
    prefixes: Trie<Vec<u32>>,
    /// Those that name no path.
    any: Vec<u32>,
}

impl Index {
    /// Of these rules, which are numbered from 0.
    pub fn of<'a>(rules: impl IntoIterator<Item = &'a Match>) -> Self {
        let mut index = Index::default();
        for (number, rule) in (0..).zip(rules) {
            let paths = match &rule.host {
                None => &mut index.any,
                Some(Host::Exact(host)) => index.hosts.entry(host.as_str().into()).or_default(),
                Some(Host::Under(suffix)) => index.under.at(labels(suffix.strip_prefix('.').unwrap_or(suffix))),
            };
            paths.list(rule).push(number);
            index.len += 1;
        }
        index
    }

    /// How many rules it is made of.
    pub fn len(&self) -> usize {
        self.len
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// In order, the numbers of those that can fit; none that fits is missing.
    pub fn candidates(&self, head: &Head) -> Candidates<'_> {
        let (host, path) = (head.host(), head.matched_path());
        let mut lists = SmallVec::new();
        self.any.find(path, &mut lists);
        if let Some(paths) = self.hosts.get(host) {
            paths.find(path, &mut lists);
        }
        if !self.under.is_empty() {
            self.under.along(labels(host)).for_each(|paths| paths.find(path, &mut lists));
        }
        Candidates(lists)
    }
}

/// The labels of a host from the last one on.
fn labels(host: &str) -> impl Iterator<Item = &[u8]> {
    host.rsplit('.').map(str::as_bytes)
}

/// The segments of a path that begins with a slash.
fn segments(path: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    Some(path.strip_prefix(b"/")?.split(|byte| *byte == b'/'))
}

impl Paths {
    /// Where this rule's number belongs.
    fn list(&mut self, rule: &Match) -> &mut Vec<u32> {
        match (&rule.path, rule.prefix.as_deref().and_then(segments)) {
            (Some(path), _) => self.whole.entry(path.as_slice().into()).or_default(),
            (None, Some(segments)) => self.prefixes.at(segments),
            (None, None) => &mut self.any,
        }
    }

    fn find<'a>(&'a self, path: &[u8], lists: &mut SmallVec<[&'a [u32]; 8]>) {
        let mut add = |list: &'a Vec<u32>| {
            if !list.is_empty() {
                lists.push(list);
            }
        };
        self.whole.get(path).into_iter().for_each(&mut add);
        if !self.prefixes.is_empty() {
            segments(path).into_iter().for_each(|segments| self.prefixes.along(segments).for_each(&mut add));
        }
        add(&self.any);
    }
}

/// Numbers of rules that can fit a request, in order.
#[derive(Debug)]
pub struct Candidates<'a>(SmallVec<[&'a [u32]; 8]>);

impl Iterator for Candidates<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let next = self.0.iter_mut().filter(|list| !list.is_empty()).min_by_key(|list| list[0])?;
        let (first, rest) = next.split_first()?;
        *next = rest;
        Some(*first as usize)
    }
}

#[cfg(test)]
mod tests;
