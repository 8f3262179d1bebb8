//! The writer: a thread that makes files of what waits. It is in nobody's way: it looks every few milliseconds, so that
//! nobody has to wake it, and everything else on the machine goes first.

use super::asked::{Asked, Track};
use super::folder::Folder;
use super::sheet::Sheet;
use super::world::Lost;
use super::{Counter, Item, Recording, Settings};
use crate::base::seldom::Seldom;
use crate::base::time::unix_ms;
use std::collections::HashSet;
use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak, mpsc};
use std::thread::Thread;
use std::time::Duration;

/// Between two looks while something is recorded.
const LOOK: Duration = Duration::from_millis(5);
/// The same while nothing is.
const REST: Duration = Duration::from_secs(1);
/// After something could not be written, nothing is tried for so long.
const PAUSE_MS: u64 = 60_000;
/// Policies that are told of, at most.
const MOST_TOLD: usize = 1000;
/// Least urgent but for what is idle.
const NICE: i32 = 10;

/// Starts it. It ends when it is told to, or when nobody has the record any more.
///
/// # Errors
/// There is no thread to be had.
pub(super) fn start(recording: &Arc<Recording>) -> io::Result<(Thread, mpsc::Receiver<()>)> {
    let (end, ended) = mpsc::channel();
    let recording = Arc::downgrade(recording);
    let thread = std::thread::Builder::new().name("record".into()).spawn(move || {
        // Where that is not allowed, it is as urgent as the others.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
        run(&recording);
        drop(end);
    })?;
    Ok((thread.thread().clone(), ended))
}

fn run(recording: &Weak<Recording>) {
    let mut writer = Writer::default();
    loop {
        let Some(recording) = recording.upgrade() else { return };
        let last = recording.stopping.load(Relaxed);
        let (settings, asked) = {
            let wanted = recording.wanted();
            (Arc::clone(&wanted.settings), wanted.asked.clone())
        };
        let busy = writer.turn(&recording, (&settings, asked), unix_ms(), last);
        if last {
            return;
        }
        drop(recording);
        std::thread::park_timeout(if busy { LOOK } else { REST });
    }
}

/// What the thread has in hand.
#[derive(Debug, Default)]
struct Writer {
    settings: Arc<Settings>,
    track: Option<(Folder, Sheet)>,
    /// What somebody has asked for beside.
    asked: Option<Track>,
    /// Nothing is tried before this.
    from_ms: u64,
    /// What could not be recorded, until there is a file that can say so.
    lost: Lost,
    frames: Vec<u8>,
    /// Policies of which it was told that their decisions are hidden.
    hidden: HashSet<Arc<str>>,
}

impl Writer {
    /// Writes what there is; `last`: all of it. False: nothing is recorded.
    fn turn(
        &mut self,
        recording: &Arc<Recording>,
        (settings, asked): (&Arc<Settings>, Option<Arc<Asked>>),
        now_ms: u64,
        last: bool,
    ) -> bool {
        if self.settings != *settings {
            // What is open is closed as it was meant.
            self.close(now_ms);
            self.settings = Arc::clone(settings);
        }
        if let Some(asked) = asked.filter(|asked| self.asked.as_ref().is_none_or(|track| track.asked.id != asked.id)) {
            let (opening, hides) = (recording.opening(&self.settings), recording.redaction.load().config);
            self.asked = Some(Track::begin(asked, &opening, hides, now_ms));
        }
        self.loses(recording.no_room.swap(0, Relaxed), now_ms, "there was no room in the queue");
        while let Some(item) = recording.pop() {
            self.take(recording, &item, now_ms);
        }
        if let Some((_, sheet)) = &mut self.track {
            let ticked = sheet.tick(now_ms, &mut self.frames);
            self.put(ticked, now_ms);
        }
        if last || self.settings.sample == 0.0 {
            self.close(now_ms);
        }
        self.tick_asked(recording, now_ms, last);
        self.settings.sample > 0.0 || self.asked.is_some()
    }

    fn tick_asked(&mut self, recording: &Arc<Recording>, now_ms: u64, last: bool) {
        let Some(track) = &mut self.asked else { return };
        let had_ended = track.asked.ended().is_some();
        let stays = track.tick(now_ms, last);
        if !stays {
            recording.over(&track.asked);
            self.asked = None;
        } else if !had_ended && track.asked.ended().is_some() {
            recording.less();
        }
    }

    fn take(&mut self, recording: &Recording, item: &Item, now_ms: u64) {
        if let Some(policy) = &item.hidden {
            self.tell_hidden(policy);
        }
        let asked = self.asked.as_mut().filter(|track| item.coin <= track.asked.most && track.asked.ended().is_none());
        let was_asked = asked.map(|track| track.put(item, now_ms)).is_some();
        let most = super::threshold(self.settings.sample);
        if most == 0 || item.coin > most {
            let counter = if was_asked { Counter::Recorded } else { Counter::NotRecorded };
            return recording.counters.count(counter);
        }
        if now_ms < self.from_ms {
            recording.counters.count(Counter::NotRecorded);
            return self.loses(1, now_ms, "the disk could not be written to");
        }
        let taken = self.open(recording, now_ms).and_then(|()| match &mut self.track {
            Some((_, sheet)) => sheet.put(item, now_ms, &mut self.frames),
            None => Ok(false),
        });
        let counter = if matches!(taken, Ok(true)) { Counter::Recorded } else { Counter::NotRecorded };
        recording.counters.count(counter);
        if matches!(taken, Ok(false)) {
            self.loses(1, now_ms, "there are too many endpoints for a record");
        }
        self.put(taken.map(|_| ()), now_ms);
    }

    /// Once a policy, before somebody finds out when a decision is to be explained.
    fn tell_hidden(&mut self, policy: &Arc<str>) {
        if self.hidden.len() < MOST_TOLD && self.hidden.insert(Arc::clone(policy)) {
            tracing::warn!(%policy, "record.redact: this policy reads what is taken out of the record, so decisions of it that \
                hang on that cannot be made again");
        }
    }

    /// Has a file to write to.
    fn open(&mut self, recording: &Recording, now_ms: u64) -> io::Result<()> {
        let due = self.track.as_ref().is_none_or(|(folder, _)| folder.is_due(now_ms));
        if !due {
            return Ok(());
        }
        self.close(now_ms);
        let Settings { directory, max_size, max_age, .. } = &*self.settings;
        let mut folder = Folder::new(directory, *max_size, *max_age);
        folder.begin(now_ms)?;
        let opening = recording.opening(&self.settings);
        let hides_config = recording.redaction.load().config;
        let sheet = Sheet::begin(&opening, hides_config, now_ms, &mut self.frames)?;
        self.track = Some((folder, sheet));
        Ok(())
    }

    /// Writes the frames that there are, or gives up for a while.
    fn put(&mut self, made: io::Result<()>, now_ms: u64) {
        static SAID: Seldom = Seldom::each(Duration::from_secs(60));
        let mut written = made;
        if let Some((folder, sheet)) = &mut self.track {
            if written.is_ok() && self.lost.count > 0 {
                written = sheet.lost(&std::mem::take(&mut self.lost), &mut self.frames);
            }
            if written.is_ok() && !self.frames.is_empty() {
                written = folder.write(&self.frames);
            }
        }
        self.frames.clear();
        if let Err(error) = written {
            self.track = None;
            self.from_ms = now_ms.saturating_add(PAUSE_MS);
            if SAID.may().is_some() {
                let directory = self.settings.directory.display();
                tracing::error!(%directory, %error, "record.directory: nothing is recorded for a minute");
            }
        }
    }

    fn close(&mut self, now_ms: u64) {
        if let Some((_, sheet)) = &mut self.track {
            let flushed = sheet.flush(&mut self.frames);
            self.put(flushed, now_ms);
        }
        self.track = None;
    }

    fn loses(&mut self, count: u64, now_ms: u64, why: &str) {
        if count > 0 {
            if self.lost.count == 0 {
                self.lost = Lost { count: 0, since_ms: now_ms, why: why.to_owned() };
            }
            self.lost.count += count;
        }
    }
}
