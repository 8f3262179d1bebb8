//! The thread that builds new instances and takes used ones apart, so that no worker has to.

use super::instance::Instance;
use super::version::Version;
use std::sync::Weak;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Jobs that wait at most.
const WAITING: usize = 1024;

pub(super) enum Job {
    /// Take it apart.
    Discard(Box<Instance>),
    /// Build what is missing.
    Refill(Weak<Version>),
}

/// Where jobs go.
pub(super) struct Jobs(SyncSender<Job>);

impl Jobs {
    /// False: there is no room.
    pub(super) fn send(&self, job: Job) -> bool {
        self.0.try_send(job).is_ok()
    }

    /// Has an instance taken apart; here, if there is no room.
    pub(super) fn discard(&self, used: Box<Instance>) {
        self.send(Job::Discard(used));
    }
}

/// Starts the thread. It ends when the last [`Jobs`] is gone.
///
/// # Errors
/// The system gives no more threads.
pub(super) fn start() -> std::io::Result<(Jobs, JoinHandle<()>)> {
    let (send, receive) = sync_channel(WAITING);
    let thread = std::thread::Builder::new().name("policy-refill".into()).spawn(move || run(&receive))?;
    Ok((Jobs(send), thread))
}

fn run(jobs: &Receiver<Job>) {
    // Versions that need more. One instance for each in turn, so that a slow one does not hold up the others.
    let mut needy: Vec<Weak<Version>> = Vec::new();
    loop {
        let next = if needy.is_empty() { jobs.recv().ok() } else { None };
        let mut more = next.or_else(|| jobs.try_recv().ok());
        if more.is_none() && needy.is_empty() {
            return;
        }
        while let Some(job) = more {
            match job {
                Job::Discard(instance) => drop(instance),
                Job::Refill(version) => needy.push(version),
            }
            more = jobs.try_recv().ok();
        }
        needy.retain(|version| version.upgrade().is_some_and(|version| version.refill_one()));
    }
}
