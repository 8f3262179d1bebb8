//! What plans leave of services' endpoints: the line of those that fit. A worker keeps those that it was asked for lately,
//! each good until what is ready is another.

use super::Wanted;
use crate::service::endpoints::{Line, Ready};
use crate::service::plan::Plan;
use crate::service::subset::Subset;
use rustc_hash::{FxHashMap, FxHasher};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A worker's own.
#[derive(Debug, Default)]
pub(super) struct Narrowed {
    lines: FxHashMap<u64, Narrow>,
    /// What is preferred among those that were not tried: the last one that was asked for.
    untried: Line,
    /// A buffer.
    wish: Vec<u64>,
}

#[derive(Debug)]
struct Narrow {
    /// What was ready then.
    of: Arc<Ready>,
    declared: Option<Subset>,
    subset: Vec<(String, String)>,
    prefer: Vec<Vec<(String, String)>>,
    line: Line,
    /// Somebody asked for it lately.
    used: bool,
}

/// Lines that are kept; where there are more, all begin anew.
const MOST: usize = 128;

/// A number for what is declared of its service and this request's plan leave of it, the same for the next one like it; 0: all
/// that is ready.
pub(super) fn key(wanted: &Wanted<'_>) -> u64 {
    let (Plan { subset, prefer, .. }, declared) = (wanted.plan, &wanted.service.settings.subset);
    if subset.is_empty() && prefer.is_empty() && declared.is_none() {
        return 0;
    }
    let mut hasher = FxHasher::default();
    (&wanted.service.name, declared, subset, prefer).hash(&mut hasher);
    hasher.finish().max(1)
}

impl Narrowed {
    /// What this plan leaves of those on the line `of`, which is one of what is ready. `key` is that of [`key`], moved by which.
    pub(super) fn line(&mut self, key: u64, wanted: &Wanted<'_>, ready: &Arc<Ready>, of: &Line) -> &Line {
        let (Plan { subset, prefer, .. }, declared) = (wanted.plan, &wanted.service.settings.subset);
        let endpoints = &wanted.service.endpoints;
        let wishes = !prefer.is_empty() || declared.as_ref().is_some_and(|declared| !declared.is_must());
        let by = (declared.as_ref(), wanted.plan);
        // Whoever is preferred and was tried must not keep all others from being asked.
        if wishes && !wanted.tried.is_empty() {
            endpoints.narrow(of, by, wanted.tried, &mut self.untried, &mut self.wish);
            return &self.untried;
        }
        if self.lines.len() >= MOST && !self.lines.contains_key(&key) {
            self.lines.clear();
        }
        let new = || Narrow {
            of: Arc::default(),
            declared: declared.clone(),
            subset: subset.clone(),
            prefer: prefer.clone(),
            line: Line::default(),
            used: true,
        };
        let kept = self.lines.entry(key).or_insert_with(new);
        kept.used = true;
        // Two plans may share a number, and then they share a place.
        if !Arc::ptr_eq(&kept.of, ready)
            || kept.subset != *subset
            || kept.prefer != *prefer
            || kept.declared != *declared
        {
            kept.of = Arc::clone(ready);
            kept.declared.clone_from(declared);
            kept.subset.clone_from(subset);
            kept.prefer.clone_from(prefer);
            endpoints.narrow(of, by, &[], &mut kept.line, &mut self.wish);
        }
        &kept.line
    }

    /// Forgets what nobody has asked for since the last time.
    pub(super) fn tidy(&mut self) {
        self.lines.retain(|_, kept| std::mem::take(&mut kept.used));
    }
}
