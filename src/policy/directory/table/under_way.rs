//! A canary that is under way: its files, what requests see of it, and how far the disk knows it to have come.

use super::Found;
use crate::policy::release::{Canary, Course, Progress, Released, Settings};
use crate::policy::version::Version;
use std::sync::Arc;
use std::time::Instant;

/// A canary that is under way.
#[derive(Debug)]
pub(super) struct Release {
    /// Its files.
    pub(super) found: Found,
    pub(super) canary: Arc<Canary>,
    pub(super) course: Course,
    pub(super) ticked: Instant,
    /// What the disk is to know.
    pub(super) saved: Progress,
    pub(super) saved_at: Instant,
}

impl Release {
    pub(super) fn new(
        found: &Found,
        version: Arc<Version>,
        settings: Settings,
        resumed: Option<&Progress>,
        now: Instant,
    ) -> Self {
        let workers = version.workers();
        let canary = Canary::new(version, settings.sticky_on.clone(), settings.max_faults, workers);
        let course = match resumed {
            Some(progress) => Course::resume(settings, progress),
            None => Course::new(settings),
        };
        canary.follow(&course);
        let saved = course.progress();
        Release { found: found.clone(), canary: Arc::new(canary), course, ticked: now, saved, saved_at: now }
    }

    pub(super) fn due(&self) -> Instant {
        self.ticked + self.course.tick_in()
    }

    pub(super) fn is_faulty(&self) -> bool {
        self.canary.faults() > self.course.settings().max_faults
    }

    pub(super) fn released(&self) -> Released {
        Released { version: Arc::clone(&self.found.key), progress: self.saved.clone() }
    }

    pub(super) fn save(&mut self, now: Instant) {
        (self.saved, self.saved_at) = (self.course.progress(), now);
    }
}
