//! Who is live, who is being tried, who was turned away: what the directory's content means, without any I/O.

use super::found::Found;
use crate::policy::compile::Error;
use crate::policy::sidecar::Sidecar;
use crate::policy::{OnFault, PolicyLive, Scope, Standing, Version};
use crate::service::route::Match;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Every policy of the directory, by name.
#[derive(Debug, Default)]
pub(super) struct Table {
    policies: BTreeMap<Arc<str>, Entry>,
    /// Replaced versions, kept until no worker holds them: the last one to let go tears the instances down, and that
    /// must not be a worker.
    graveyard: Vec<Arc<Version>>,
    /// Why the directory cannot be read. Every policy stays as it is.
    trouble: Option<String>,
    /// The first scan was tried in full, so what comes now comes to a running gateway.
    started: bool,
}

#[derive(Debug)]
struct Entry {
    /// What the policy keeps from version to version.
    kept: Arc<PolicyLive>,
    matcher: Match,
    on_fault: OnFault,
    standing: Standing,
    loading: bool,
    error: Option<String>,
    /// The content that was turned away last: not tried again until it changes.
    rejected: Option<Arc<str>>,
}

impl Entry {
    fn live(&self) -> Option<&Arc<Version>> {
        match &self.standing {
            Standing::Live(version) => Some(version),
            Standing::Broken | Standing::Pending => None,
        }
    }
}

impl Table {
    /// Takes note of what the directory holds, forgets what is gone, and gives those that have to be tried.
    pub(super) fn found(&mut self, found: &[Found]) -> Vec<Found> {
        self.trouble = None;
        let gone: Vec<_> =
            self.policies.keys().filter(|name| !found.iter().any(|f| f.name == **name)).cloned().collect();
        for name in gone {
            tracing::info!(policy = %name, "removed");
            if let Some(Standing::Live(version)) = self.policies.remove(&name).map(|entry| entry.standing) {
                self.graveyard.push(version);
            }
        }
        let mut to_try = Vec::new();
        for found in found {
            let standing = if self.started { Standing::Pending } else { Standing::Broken };
            let entry = self.policies.entry(found.name.clone()).or_insert_with(|| Entry {
                kept: Arc::default(),
                // Fits everything, until its sidecar says more: failing closed is safer.
                matcher: Match::default(),
                on_fault: OnFault::default(),
                standing,
                loading: false,
                error: None,
                rejected: None,
            });
            if entry.live().is_some_and(|version| version.id == found.key) {
                // Back to what is live: the file that was turned away is gone.
                entry.loading = false;
                entry.error = None;
                entry.rejected = None;
            } else if entry.rejected.as_ref() != Some(&found.key) {
                entry.loading = true;
                to_try.push(found.clone());
            } else {
                entry.loading = false;
            }
        }
        to_try
    }

    /// The directory cannot be read. True: that is news.
    pub(super) fn lost(&mut self, error: String) -> bool {
        let news = self.trouble.as_ref() != Some(&error);
        self.trouble = Some(error);
        news
    }

    /// A version was loaded: it answers from now on.
    pub(super) fn accepted(&mut self, name: &str, version: Arc<Version>, sidecar: &Sidecar) {
        let Some(entry) = self.policies.get_mut(name) else { return };
        tracing::info!(policy = name, version = %version.id, "loaded");
        entry.matcher = sidecar.matcher.clone();
        entry.on_fault = sidecar.on_fault;
        entry.loading = false;
        entry.error = None;
        entry.rejected = None;
        if let Standing::Live(old) = std::mem::replace(&mut entry.standing, Standing::Live(version)) {
            self.graveyard.push(old);
        }
    }

    /// A version did not load: whoever answers goes on answering.
    pub(super) fn rejected(&mut self, found: &Found, error: &Error) {
        let Some(entry) = self.policies.get_mut(&found.name) else { return };
        let live = entry.live().map_or("none", |version| &version.id);
        tracing::warn!(policy = %found.name, version = %found.key, live, %error, "rejected");
        // Nobody answers, so the newest sidecar that can be read says which requests that concerns.
        if entry.live().is_none()
            && let Ok(candidate) = &found.candidate
        {
            entry.matcher = candidate.sidecar.matcher.clone();
            entry.on_fault = candidate.sidecar.on_fault;
        }
        entry.loading = false;
        entry.error = Some(error.to_string());
        entry.rejected = match error {
            Error::Component(_) => Some(found.key.clone()),
            // Tried again with the next change in the directory, and be it a `touch`.
            Error::System(_) => None,
        };
    }

    /// What was there when the gateway started has been tried.
    pub(super) fn started(&mut self) {
        self.started = true;
    }

    /// What the policy of this name keeps from version to version.
    pub(super) fn live(&self, name: &str) -> Arc<PolicyLive> {
        self.policies.get(name).map(|entry| entry.kept.clone()).unwrap_or_default()
    }

    /// Tears down replaced versions that nobody else holds. Blocks. True: some are still held.
    pub(super) fn bury(&mut self) -> bool {
        self.graveyard.retain(|version| Arc::strong_count(version) > 1);
        !self.graveyard.is_empty()
    }

    /// The complete list, in name order.
    pub(super) fn scopes(&self) -> Vec<Arc<Scope>> {
        let scope = |(name, entry): (&Arc<str>, &Entry)| {
            Arc::new(Scope {
                name: name.clone(),
                matcher: entry.matcher.clone(),
                on_fault: entry.on_fault,
                standing: entry.standing.clone(),
                live: entry.kept.clone(),
                loading: entry.loading,
                error: entry.error.clone().or_else(|| self.trouble.clone()),
            })
        };
        self.policies.iter().map(scope).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::directory::found::{Candidate, Digests, scan};
    use crate::policy::sidecar;

    /// What a directory with these files holds.
    fn found(files: &[(&str, &str)]) -> Vec<Found> {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        scan(folder.path(), &mut Digests::default()).unwrap()
    }

    fn bad() -> Error {
        Error::Component("bad".into())
    }

    fn errors(table: &Table) -> Vec<Option<String>> {
        table.scopes().iter().map(|scope| scope.error.clone()).collect()
    }

    #[test]
    fn content_is_tried_once() {
        let mut table = Table::default();
        let first = found(&[("a.wasm", "1"), ("b.wasm", "1")]);
        let to_try = table.found(&first);
        assert_eq!(to_try.len(), 2);
        assert!(table.scopes().iter().all(|scope| scope.loading));
        table.rejected(&to_try[0], &bad());
        // b was not settled, so it is tried again; a only when it changes, by whichever file.
        let again = table.found(&first);
        assert_eq!(again.iter().map(|f| &*f.name).collect::<Vec<_>>(), ["b"]);
        assert_eq!(errors(&table), [Some("bad".into()), None]);
        assert_eq!(table.found(&found(&[("a.wasm", "2")])).len(), 1);
        assert_eq!(table.found(&found(&[("a.wasm", "1"), ("a.toml", "config = 'x'")])).len(), 1);
        // The same content in other words is the same.
        assert_eq!(table.found(&found(&[("a.wasm", "1"), ("a.toml", "# nothing")])).len(), 0);
        assert_eq!(table.scopes().len(), 1, "b is gone");
    }

    #[test]
    fn what_the_system_refused_is_tried_again() {
        let mut table = Table::default();
        let files = found(&[("a.wasm", "1")]);
        for file in table.found(&files) {
            table.rejected(&file, &Error::System("disk full".into()));
        }
        assert_eq!(errors(&table), [Some("disk full".into())]);
        assert_eq!(table.found(&files).len(), 1);
    }

    #[test]
    fn what_is_bad_at_the_start_is_broken_and_later_pending() {
        let mut table = Table::default();
        for file in table.found(&found(&[("a.wasm", "1"), ("a.toml", "match = { path = '/a' }\non_fault = 'next'")])) {
            table.rejected(&file, &bad());
        }
        table.started();
        for file in table.found(&found(&[("a.wasm", "1"), ("a.toml", "wrong"), ("b.wasm", "1")])) {
            table.rejected(&file, &bad());
        }
        let scopes = table.scopes();
        assert!(matches!(scopes[0].standing, Standing::Broken));
        assert!(matches!(scopes[1].standing, Standing::Pending));
        // The last sidecar that could be read still says which requests fail.
        assert_eq!((scopes[0].matcher.label().as_str(), scopes[0].on_fault), ("/a", OnFault::Next));
    }

    #[test]
    fn a_lost_directory_is_told_once_and_changes_nothing() {
        let mut table = Table::default();
        let files = found(&[("a.wasm", "1")]);
        let to_try = table.found(&files);
        assert!(table.lost("gone".into()));
        assert!(!table.lost("gone".into()));
        assert_eq!(errors(&table), [Some("gone".into())]);
        table.rejected(&to_try[0], &bad());
        assert_eq!(errors(&table), [Some("bad".into())]);
        table.found(&files);
        assert_eq!(errors(&table), [Some("bad".into())]);
        assert!(table.lost("gone".into()), "news again");
    }

    #[test]
    fn a_key_is_the_versions_id_where_there_is_one() {
        let files = found(&[("a.wasm", "1"), ("a.toml", "config = 'x'"), ("b.wasm", "1"), ("b.toml", "wrong")]);
        let Ok(Candidate { component_digest, .. }) = &files[0].candidate else { unreachable!() };
        assert_eq!(files[0].key, sidecar::parse("config = 'x'").unwrap().version(component_digest));
        assert!(files[1].key.starts_with("bad ") && files[1].candidate.is_err());
    }
}
