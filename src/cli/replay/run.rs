//! The threads: one reads, the others ask, and what they find out is put back into the order of the files.

use super::again::{Asking, Verdict, again};
use super::book::Pages;
use super::done::{Difference, Done};
use super::report::Report;
use super::versions::{Library, Loaded};
use crate::http::request::Head;
use crate::service::record::taped::About;
use crate::telemetry::recording::entry::{CallSaid, Entry};
use crate::telemetry::recording::exchange_seed;
use crate::telemetry::recording::reader::Entries;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Versions that a thread finds without asking the others.
const MOST_KNOWN: usize = 64;

/// One block of entries, to be done by one thread.
pub(super) struct Job {
    /// Its place among all blocks.
    pub(super) place: u64,
    /// The number of its first entry.
    pub(super) first: u64,
    pub(super) pages: Arc<Pages>,
    pub(super) entries: Entries,
    /// Bytes of the files before it.
    pub(super) read: u64,
}

/// Does all of it: `read` hands out the blocks.
///
/// # Errors
/// Those of `read`.
pub(super) fn all(
    threads: usize,
    library: &Library,
    read: impl FnOnce(&SyncSender<Job>) -> anyhow::Result<u64> + Send,
    report: &mut Report,
) -> anyhow::Result<u64> {
    let (send_jobs, jobs) = sync_channel::<Job>(threads * 2);
    // No thread is more than so many blocks ahead of the slowest.
    let (send_done, all_done) = sync_channel::<Done>(threads * 2);
    let jobs = Mutex::new(jobs);
    std::thread::scope(|scope| {
        let reading = scope.spawn(move || read(&send_jobs));
        for worker in 0..threads {
            let (jobs, send_done) = (&jobs, send_done.clone());
            scope.spawn(move || work(worker, jobs, library, &send_done));
        }
        drop(send_done);
        in_order(&all_done, report);
        reading.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the thread that reads has panicked")))
    })
}

fn in_order(all_done: &Receiver<Done>, report: &mut Report) {
    let mut early: BTreeMap<u64, Done> = BTreeMap::new();
    let mut next = 0;
    for done in all_done {
        early.insert(done.place, done);
        while let Some(done) = early.remove(&next) {
            report.take(done);
            next += 1;
        }
    }
    // Where a thread has panicked, what it had is missing.
    early.into_values().for_each(|done| report.take(done));
}

fn work(worker: usize, jobs: &Mutex<Receiver<Job>>, library: &Library, done: &SyncSender<Done>) {
    let mut hand = Hand { worker, library, known: Vec::new() };
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        if done.send(hand.block(&job)).is_err() {
            return;
        }
    }
}

/// One thread's.
struct Hand<'a> {
    worker: usize,
    library: &'a Library,
    /// Versions that it has asked for before.
    known: Vec<(Arc<About>, Loaded)>,
}

impl Hand<'_> {
    fn block(&mut self, job: &Job) -> Done {
        let mut done = Done { place: job.place, read: job.read, ..Done::default() };
        let mut number = job.first;
        for (revision, entry) in job.entries.iter() {
            self.entry((number, revision), entry, &job.pages, &mut done);
            number += 1;
        }
        // What cannot be read of a block that is whole.
        done.counts.not_run += (job.first + u64::from(job.entries.count)).saturating_sub(number);
        done
    }

    fn entry(&mut self, (number, revision): (u64, u64), entry: Entry<'_>, pages: &Pages, done: &mut Done) {
        let asked = (pages.seed(), pages.catalog(revision), entry.head.head());
        let (Some(seed), Some(catalog), Some(head)) = asked else {
            done.counts.not_run += entry.calls.len() as u64;
            return;
        };
        let seed = exchange_seed(seed, entry.worker, entry.number);
        let (worker, same) = (self.worker, self.library.is_same());
        let asking = Asking { head: &head, catalog, at_ms: entry.at_ms, seed, worker, same };
        for call in entry.calls.into_iter().filter(|call| self.library.wants(&call.policy)) {
            self.call(call, number, &asking, pages, done);
        }
    }

    fn call(&mut self, call: CallSaid, number: u64, asking: &Asking<'_>, pages: &Pages, done: &mut Done) {
        let counts = &mut done.counts;
        // Without a look at the version: there may be none.
        if call.tape.hidden {
            return counts.hidden += 1;
        }
        if call.said.is_of_environment() {
            return counts.environment += 1;
        }
        let (policy, id) = (Arc::clone(&call.policy), Arc::clone(&call.version));
        let Some(Ok(version)) = pages.about(&policy, &id).map(|about| self.version(about)) else {
            return counts.not_run += 1;
        };
        let verdict = again(&version, call, asking);
        match &verdict {
            Verdict::Same => {}
            Verdict::Changed(_) => counts.changed += 1,
            Verdict::Memory(_) => counts.memory += 1,
            Verdict::Hidden => return counts.hidden += 1,
            Verdict::Unknown(_) => counts.unknown += 1,
            Verdict::Environment => return counts.environment += 1,
        }
        counts.replayed += u64::from(!matches!(verdict, Verdict::Unknown(_)));
        if verdict != Verdict::Same {
            let place = (number, asking.at_ms);
            done.differences.push(Difference::new(place, (policy, id), shown(asking.head), verdict));
        }
    }

    fn version(&mut self, about: &Arc<About>) -> Loaded {
        if let Some((_, loaded)) = self.known.iter().find(|(known, _)| Arc::ptr_eq(known, about)) {
            return loaded.clone();
        }
        let loaded = self.library.version(about);
        if self.known.len() < MOST_KNOWN {
            self.known.push((Arc::clone(about), loaded.clone()));
        }
        loaded
    }
}

fn shown(head: &Head) -> String {
    let query = head.query().map_or_else(String::new, |query| format!("?{query}"));
    format!("{} {}{}{query}", head.parts.method, head.host(), head.path())
}
