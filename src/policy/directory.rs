//! The watched directory: a component that is dropped into it is compiled, loaded and live, or turned away with a
//! reason while its last good version goes on answering.

mod found;
mod last_good;
mod table;
mod trial;

use super::aside::aside;
use super::compile::{Cache, Error, this_program};
use super::engine::Engine;
use super::release::{Desk, Ordered, Refused};
use super::scope::Scope;
use super::version::Version;
use crate::base::watch::{self, Changes};
use crate::discovery::backoff::Backoff;
use found::{Digests, Found};
use last_good::LastGood;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use table::{Held, Obeyed, Room, Table, Ticked};
use tokio::sync::{mpsc, oneshot};
use trial::Trial;

/// How often to look whether workers have let go of replaced versions.
const TEAR_DOWN: Duration = Duration::from_secs(1);

/// The directory that holds the policies, and what was made of it.
#[derive(Debug)]
pub struct Directory {
    folder: PathBuf,
    cache: Arc<Cache>,
    engine: Engine,
    changes: Changes,
    digests: Digests,
    table: Table,
    /// What is on disk of it.
    last_good: LastGood,
    /// That could not be written, which was told.
    last_good_failed: bool,
    /// When to look at the directory again that could not be read.
    look_at: Option<Instant>,
    lost: Backoff,
    /// What is being tried. One at a time: compiling takes memory and a core.
    trial: Option<Trial>,
    /// What is tried after that.
    queue: VecDeque<Found>,
    /// What operators want.
    orders: mpsc::Receiver<Ordered>,
    /// What is loaded for one of them, beside the trial: who rolls back is in a hurry.
    held: Option<(Held, Trial, Reply)>,
    /// Operators that are told so once all hear of it.
    told: Vec<(Reply, Result<String, Refused>)>,
}

/// Where an operator waits.
type Reply = oneshot::Sender<Result<String, Refused>>;

/// What the watch waits for.
enum Event {
    /// Something may have changed in the directory, or it is time to look again.
    Changed,
    /// The trial has ended.
    Tried(Result<Arc<Version>, Error>),
    /// A version was suspended, or a canary went wrong.
    Suspended,
    /// It is time to look at the canaries.
    Tick,
    /// An operator wants something.
    Ordered(Ordered),
    /// What one of them wanted was loaded.
    Held(Result<Arc<Version>, Error>),
    /// There may be room for the next trial.
    Room,
}

impl Directory {
    /// Begins to watch `folder`. Nothing is read yet. `cache` is the folder for compiled code and last good versions, which
    /// another one stands in for where it cannot be used; `program` is the `wayside` binary to compile with.
    ///
    /// # Errors
    /// There is no such directory, or no place to keep compiled code.
    pub fn open(folder: &Path, cache: &Path, program: &Path, engine: Engine) -> Result<Directory, String> {
        let shown = folder.display();
        // Before the cache, which may lie inside and is made if need be.
        if let Err(error) = std::fs::read_dir(folder) {
            return Err(format!("policies.directory: {shown} cannot be read: {error}; create it or name another one"));
        }
        let cache = Arc::new(Cache::open_or_temporary(cache, program)?);
        let (desk, orders) = Desk::new();
        Ok(Directory {
            folder: folder.to_owned(),
            last_good: LastGood::open(cache.folder()?, folder),
            cache,
            engine,
            changes: watch::directory(folder),
            digests: Digests::default(),
            table: Table::at(desk),
            last_good_failed: false,
            look_at: None,
            lost: Backoff::seeded(),
            trial: None,
            queue: VecDeque::new(),
            orders,
            held: None,
            told: Vec::new(),
        })
    }

    /// Opens `folder`, with this very program as the compiler, and watches it on the current runtime for as long as
    /// somebody holds the receiver.
    ///
    /// # Errors
    /// As [`Directory::open`]'s, or the program cannot find itself.
    pub fn follow(folder: &Path, cache: &Path, engine: Engine) -> Result<mpsc::Receiver<Vec<Arc<Scope>>>, String> {
        let directory = Directory::open(folder, cache, &this_program()?, engine)?;
        let (to, lists) = mpsc::channel(1);
        tokio::spawn(directory.watch(to));
        Ok(lists)
    }

    /// Sends the complete list of policies, in name order: once everything that is there at first has been tried, and
    /// then each time that something changes. Ends when nobody receives any more.
    pub async fn watch(mut self, out: mpsc::Sender<Vec<Arc<Scope>>>) {
        let closed = out.clone();
        tokio::select! {
            () = closed.closed() => {}
            () = self.run(&out) => {}
        }
    }

    async fn run(&mut self, out: &mpsc::Sender<Vec<Arc<Scope>>>) {
        self.table.remember(&self.last_good);
        self.scan().await;
        while self.begin() {
            if let Some(trial) = &mut self.trial {
                let tried = trial.end().await;
                self.conclude(tried);
            }
        }
        self.restore().await;
        self.table.started(Instant::now());
        // What answers is kept before anybody hears of it.
        self.keep().await;
        while out.send(self.table.scopes()).await.is_ok() {
            self.table.told(Instant::now());
            for (reply, told) in self.told.drain(..) {
                // Whoever wanted it may have gone.
                let _ = reply.send(told);
            }
            while !self.is_news().await {}
            self.keep().await;
        }
    }

    /// Takes in what comes next. True: all others should hear of it.
    async fn is_news(&mut self) -> bool {
        self.begin();
        match self.event().await {
            Event::Changed => self.scan().await,
            Event::Tried(tried) => self.conclude(tried),
            Event::Ordered(ordered) => self.obey(ordered).await,
            Event::Held(loaded) => self.hold(loaded),
            Event::Suspended => drop(self.table.tick(Instant::now())),
            Event::Tick => match self.table.tick(Instant::now()) {
                Ticked::Answers => {}
                Ticked::Progress => {
                    self.keep().await;
                    return false;
                }
                Ticked::Nothing => return false,
            },
            Event::Room => {}
        }
        true
    }

    /// Waits for what comes next, tearing down replaced versions meanwhile.
    async fn event(&mut self) -> Event {
        loop {
            let going = self.table.tear_down(Instant::now());
            let trial = async {
                match &mut self.trial {
                    Some(trial) => trial.end().await,
                    None => std::future::pending().await,
                }
            };
            let held = async {
                match &mut self.held {
                    Some((_, trial, _)) => trial.end().await,
                    None => std::future::pending().await,
                }
            };
            // As long as nothing can be read, nothing else is due.
            let due = self.look_at.or_else(|| self.table.due());
            let due = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            let tick = async {
                match self.table.tick_due() {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.changes.next() => return Event::Changed,
                tried = trial => return Event::Tried(tried),
                () = due => return Event::Changed,
                () = tick => return Event::Tick,
                () = self.engine.suspended() => return Event::Suspended,
                Some(ordered) = self.orders.recv() => return Event::Ordered(ordered),
                loaded = held => return Event::Held(loaded),
                () = tokio::time::sleep(TEAR_DOWN), if going => {
                    if self.trial.is_none() && !self.queue.is_empty() {
                        return Event::Room;
                    }
                }
            }
        }
    }

    /// Does what an operator wants, or begins to.
    async fn obey(&mut self, Ordered { policy, order, reply }: Ordered) {
        let refused = |told: &str| Refused::Conflict(format!("{policy}: {told}"));
        let told = match self.table.obey(&policy, &order) {
            Ok(Obeyed::Look(told)) => {
                self.scan().await;
                Ok(told)
            }
            Ok(Obeyed::Load(_)) if self.held.is_some() => Err(refused("another order is being carried out; try again")),
            Ok(Obeyed::Load(held)) => match self.last_good.loadable(&policy, held.good.clone()) {
                Some(found) => {
                    let live = self.table.live(&policy);
                    let trial = Trial::new(Arc::clone(&self.cache), self.engine.clone(), found, live);
                    self.held = Some((held, trial, reply));
                    return;
                }
                None => Err(refused("its component is not kept any more, or is damaged; deliver it again")),
            },
            Err(refused) => Err(refused),
        };
        self.told.push((reply, told));
    }

    /// What an operator wanted was loaded, or cannot be.
    fn hold(&mut self, loaded: Result<Arc<Version>, Error>) {
        let Some((held, trial, reply)) = self.held.take() else { return };
        let told = match loaded {
            Ok(version) => Ok(self.table.held(&held, &trial.found, version)),
            Err(error) => {
                Err(Refused::Failed(format!("{}: {} does not load: {error}", trial.found.name, held.version)))
            }
        };
        self.told.push((reply, told));
    }

    /// Reads the directory: forgets what is gone, and notes what is to be tried.
    async fn scan(&mut self) {
        let mut digests = std::mem::take(&mut self.digests);
        let folder = self.folder.clone();
        let scan = move || (found::scan(&folder, &mut digests), digests);
        let scan = match aside(scan).await {
            Ok((scan, digests)) => {
                self.digests = digests;
                scan.map_err(|error| format!("it cannot be read: {error}"))
            }
            Err(error) => Err(error.to_string()),
        };
        match scan.and_then(|scan| self.table.found(&scan, Instant::now())) {
            Ok(to_try) => {
                self.look_at = None;
                self.lost.reset();
                self.plan(to_try);
            }
            Err(error) => {
                self.look_at = Some(Instant::now() + self.lost.wait());
                let error = format!("policies.directory: {}: {error}", self.folder.display());
                if self.table.lost(error.clone()) {
                    tracing::warn!(%error, "policies stay as they are");
                }
            }
        }
    }

    /// Before a gateway is ready: for whom nobody answers, the last good version does.
    async fn restore(&mut self) {
        for (name, tried) in self.table.unanswered() {
            let Some(found) = self.last_good.found(&name).filter(|found| tried.as_ref() != Some(&found.key)) else {
                continue;
            };
            let live = self.table.live(&name);
            match Trial::new(Arc::clone(&self.cache), self.engine.clone(), found.clone(), live).end().await {
                Ok(version) => self.table.restored(&found, version),
                Err(error) => tracing::warn!(policy = %name, %error, "its last good version does not load either"),
            }
        }
    }

    /// Makes the disk remember what answers and what was suspended.
    async fn keep(&mut self) {
        let wanted = self.table.wanted();
        let mut last_good = std::mem::take(&mut self.last_good);
        let (cache, trying) = (Arc::clone(&self.cache), self.trial.is_some());
        let keep = move || {
            let kept = match cache.folder() {
                Ok(folder) => last_good.keep(folder, wanted, trying).map_err(|error| error.to_string()),
                Err(problem) => Err(problem),
            };
            (last_good, kept)
        };
        let kept = match aside(keep).await {
            Ok((last_good, kept)) => {
                self.last_good = last_good;
                kept
            }
            Err(error) => {
                self.last_good = LastGood::open(self.cache.folder().unwrap_or_default(), &self.folder);
                Err(error.to_string())
            }
        };
        let failed = kept.is_err();
        match kept {
            Err(error) if !self.last_good_failed => {
                tracing::warn!(error, "what answers now cannot be kept for the time after a restart");
            }
            _ => {}
        }
        self.last_good_failed = failed;
        self.table.follow();
    }

    /// What is being tried goes on if its content is still there; else it is given up, which ends its compiler, and
    /// the others come first, so that a file that changes without end keeps nobody waiting.
    fn plan(&mut self, mut to_try: Vec<Found>) {
        if let Some(mut trial) = self.trial.take() {
            match to_try.iter().position(|found| found.name == trial.found.name) {
                Some(index) if to_try[index].key == trial.found.key => {
                    trial.found = to_try.remove(index);
                    self.trial = Some(trial);
                }
                Some(index) => to_try[index..].rotate_left(1),
                None => {}
            }
        }
        self.queue = to_try.into();
    }

    /// Begins the next trial unless one is under way. False: there is nothing to try.
    fn begin(&mut self) -> bool {
        let most = self.engine.settings().versions;
        if self.trial.is_none()
            && let Some(found) = self.queue.pop_front()
        {
            match self.table.room(&found.name, most, Instant::now()) {
                Room::Here => {
                    let live = self.table.live(&found.name);
                    self.trial = Some(Trial::new(Arc::clone(&self.cache), self.engine.clone(), found, live));
                }
                Room::Later => self.queue.push_front(found),
                Room::None => {
                    let problem = format!("{most} policies answer, and no more may: raise `policies.max_versions`");
                    self.trial = Some(Trial::refused(found, Error::System(problem)));
                }
            }
        }
        self.trial.is_some()
    }

    /// The trial has ended.
    fn conclude(&mut self, tried: Result<Arc<Version>, Error>) {
        let Some(Trial { found, .. }) = self.trial.take() else { return };
        match (tried, &found.candidate) {
            (Ok(version), Ok(_)) => self.table.accepted(&found, version, Instant::now()),
            (Err(error), _) if found.is_unchanged(&self.folder) => self.table.rejected(&found, &error, Instant::now()),
            // Somebody is writing it: the change that wakes us is on its way.
            (Err(error), _) => tracing::debug!(policy = %found.name, %error, "changed while it was being tried"),
            // Without a candidate, there is nothing to load.
            (Ok(_), Err(_)) => {}
        }
    }
}
