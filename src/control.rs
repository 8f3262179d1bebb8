//! Control: the only writer. Reports of sources, lists of policies and configuration files come in, one immutable
//! snapshot goes out.

pub mod config;
mod files;
mod jwks;
mod last_known;
mod sources;
mod world;

use crate::base::chance::Chance;
use crate::control::config::Config;
use crate::discovery::Report;
use crate::discovery::shelf::Mirror;
use crate::http::settings::Policies;
use crate::policy::{Engine, EngineSettings, Scope, Scopes, directory::Directory};
use crate::service::Checks;
use crate::service::health::ejecting;
use crate::snapshot::vitals::{BEAT, Vitals};
use crate::snapshot::{Publisher, Snapshot};
use files::Files;
use jwks::Jwks;
use last_known::LastKnown;
use sources::Sources;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use world::World;

/// How long the ready line waits for sources that do not answer.
const FIRST_ANSWERS: Duration = Duration::from_secs(5);
/// Events in a row that panic, after which it is control that is broken.
const PANICS: u32 = 20;
/// Snapshots that are kept for those who still look at them.
const RETIRED: usize = 64;
/// After a watch of the policies has ended, which it never should, another one begins.
const AGAIN: Duration = Duration::from_secs(1);

/// Endpoints are compared with each other each second.
const COMPARED_EACH_MS: u64 = 1000;

/// The one that publishes.
struct Control {
    publisher: Publisher,
    vitals: Arc<Vitals>,
    world: World,
    sources: Sources,
    policies: PolicyWatch,
    checks: Checks,
    jwks: Jwks,
    /// Snapshots at which requests may still look: to take one apart is work for whoever looks last.
    retired: Vec<Arc<Snapshot>>,
    /// Where sources report.
    reports: mpsc::Receiver<(Arc<str>, Report)>,
    /// What the configuration was read from.
    files: Files,
    /// For the next start.
    last_known: LastKnown,
    /// Services that were reported since it was written, and when that was.
    unwritten: HashSet<Arc<str>>,
    written: Instant,
    confirmed: Instant,
    /// When endpoints were compared last, in ms since the process started.
    compared_ms: u64,
    chance: Chance,
    hangup: Signal,
    tick: tokio::time::Interval,
    /// What must be answered for before the gateway is ready: a source's declared services, or all that it names.
    waiting: HashSet<(Arc<str>, Option<Arc<str>>)>,
}

/// The policies' directory, if one is declared.
#[derive(Default)]
struct PolicyWatch {
    engine: Option<Engine>,
    declared: Option<Policies>,
    lists: Option<mpsc::Receiver<Vec<Arc<Scope>>>>,
    /// What copies them from a shelf; it ends with this.
    _copying: JoinSet<()>,
    /// The first list is still to come.
    waiting: bool,
}

impl PolicyWatch {
    /// Follows this directory.
    fn follow(declared: &Policies, engine: Engine) -> Result<Self, String> {
        let mut copying = JoinSet::new();
        let lists = match &declared.from {
            None => Directory::follow(&declared.directory, &declared.cache, engine.clone())?,
            Some(_) => {
                let mirror = Mirror::new(config::shelf(declared)?, &declared.directory)?;
                let (to, lists) = mpsc::channel(1);
                copying.spawn(copied(mirror, declared.clone(), engine.clone(), to));
                lists
            }
        };
        let (engine, declared, lists) = (Some(engine), Some(declared.clone()), Some(lists));
        Ok(PolicyWatch { engine, declared, lists, _copying: copying, waiting: true })
    }
}

/// Policies from a shelf. The directory is read when there is a whole copy: until then it may lack a policy that guards
/// something. It ends with its task, or where the directory cannot be watched, upon which control begins anew.
async fn copied(mut mirror: Mirror, declared: Policies, engine: Engine, to: mpsc::Sender<Vec<Arc<Scope>>>) {
    while let Err(problem) = mirror.begin(FIRST_ANSWERS * 10).await {
        tracing::error!(problem, "no policies yet");
    }
    match Directory::follow(&declared.directory, &declared.cache, engine) {
        Ok(mut lists) => {
            let pass_on = async {
                while let Some(list) = lists.recv().await {
                    if to.send(list).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! { () = mirror.follow() => {}, () = pass_on => {} }
        }
        Err(problem) => tracing::error!(problem, "the policies' directory cannot be watched"),
    }
}

/// What control waits for.
enum Event {
    Reported(Arc<str>, Report),
    Policies(Vec<Arc<Scope>>),
    Configuration(Box<Result<Config, String>>),
    Hangup,
    Tick,
}

/// Starts sources and policies on the current runtime, and waits for their first answers. Gives the task that goes on
/// then; it ends with the runtime, or because control is broken.
///
/// # Errors
/// A source's or the policies' settings cannot be used.
pub async fn start(config: Config, publisher: Publisher, vitals: Arc<Vitals>) -> anyhow::Result<JoinHandle<()>> {
    let (to, reports) = mpsc::channel(64);
    let mut control = Control {
        world: World::new(config.clone()),
        sources: Sources::new(to),
        policies: PolicyWatch::default(),
        checks: Checks::default(),
        jwks: Jwks::new(config.gateway.state_directory.clone()),
        retired: Vec::new(),
        reports,
        files: Files::new(&config),
        last_known: LastKnown::new(config.gateway.state_directory.clone()),
        unwritten: HashSet::new(),
        written: Instant::now(),
        confirmed: Instant::now(),
        compared_ms: 0,
        chance: Chance::seeded(),
        hangup: signal(SignalKind::hangup())?,
        tick: tokio::time::interval(BEAT),
        waiting: config.awaited(),
        publisher,
        vitals,
    };
    control.remember();
    control.adopt(config).map_err(|problem| anyhow::anyhow!("{problem}"))?;
    control.publish();
    let deadline = Instant::now() + FIRST_ANSWERS;
    while control.policies.waiting || !control.waiting.is_empty() || control.jwks.is_waiting() {
        tokio::select! {
            event = control.event() => drop(control.take(event)),
            // Policies are waited for without end: compiling goes on for as long as it needs.
            () = tokio::time::sleep_until(deadline), if !control.policies.waiting => break,
        }
    }
    Ok(tokio::spawn(async move {
        let mut panics = 0;
        while panics < PANICS {
            let event = control.event().await;
            panics = if control.take(event) { 0 } else { panics + 1 };
        }
    }))
}

impl Control {
    async fn event(&mut self) -> Event {
        tokio::select! {
            Some((source, report)) = self.reports.recv() => Event::Reported(source, report),
            scopes = self.policies.list() => Event::Policies(scopes),
            read = self.files.next(&self.world.config) => Event::Configuration(Box::new(read)),
            Some(()) = self.hangup.recv() => Event::Hangup,
            _ = self.tick.tick() => Event::Tick,
        }
    }

    /// Handles an event. False: that panicked, which is a bug of ours. What was published stays, and the next event may
    /// well be handled.
    fn take(&mut self, event: Event) -> bool {
        self.vitals.beat();
        let handled = catch_unwind(AssertUnwindSafe(|| self.handle(event))).is_ok();
        if !handled {
            self.vitals.panicked();
            tracing::error!("control could not handle an event; what is published stays");
        }
        handled
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Reported(source, report) => {
                let service = match &report {
                    Report::Service(service, _) => {
                        self.waiting.remove(&(source.clone(), Some(service.clone())));
                        Some(Arc::clone(service))
                    }
                    Report::All(_) => {
                        self.waiting.retain(|(awaited, _)| *awaited != source);
                        None
                    }
                    Report::Confirmed | Report::Failed(..) => None,
                };
                if self.world.report(&source, report) {
                    self.unwritten.extend(service);
                    self.publish();
                }
            }
            Event::Policies(scopes) => {
                self.policies.waiting = false;
                self.world.policies = scopes.into();
                self.publish();
            }
            Event::Configuration(read) => self.reload(*read),
            Event::Hangup => self.files.read_again(),
            Event::Tick => {
                self.take_apart();
                self.try_again();
                self.keep();
            }
        }
    }

    /// Takes the configuration over that was read again. One that cannot be used changes nothing but what is told about it.
    fn reload(&mut self, read: Result<Config, String>) {
        let file = self.world.config.file.clone();
        if read.as_ref().is_ok_and(|new| new.digest == self.world.config.digest) && self.world.config_error.is_none() {
            return;
        }
        match read.and_then(|new| self.adopt(new)) {
            Ok(()) => tracing::info!(file = %file.display(), "configuration read again"),
            Err(problem) => {
                self.files.refused();
                if self.world.config_error.as_ref() == Some(&problem) {
                    return;
                }
                tracing::error!(problem, "the configuration stays as it is");
                self.world.config_error = Some(problem);
            }
        }
        self.publish();
    }

    /// Makes a configuration the one in force: all of it, or nothing.
    fn adopt(&mut self, mut new: Config) -> Result<(), String> {
        let kept = new.keep_until_restart(&self.world.config);
        let built = self.sources.build(&new)?;
        self.policies.switch(&new)?;
        match &self.policies.engine {
            Some(engine) => self.world.stores = engine.stores().clone(),
            None => self.world.stores.declare(&new.stores),
        }
        for key in kept {
            tracing::warn!(key, "changed in the configuration file; this takes effect when the gateway is restarted");
        }
        if new.policies.is_none() {
            self.world.policies = Scopes::default();
        }
        self.sources.switch(&new, built);
        self.world.declare(new);
        Ok(())
    }

    /// What the last process knew counts until the sources report.
    fn remember(&mut self) {
        let kept = self.last_known.read(self.world.config.all_lookups());
        if let Some(oldest) = kept.iter().map(|kept| kept.confirmed).min() {
            let age = humantime::format_duration(Duration::from_secs(oldest.elapsed().unwrap_or_default().as_secs()));
            tracing::info!(services = kept.len(), %age, "beginning with what was known last");
        }
        for kept in kept {
            self.sources.remember(Arc::clone(&kept.source), kept.lookup.clone(), Arc::clone(&kept.observed));
            self.world.remember(kept);
        }
    }

    /// What is known is kept for the next process.
    fn keep(&mut self) {
        let now = Instant::now();
        let confirm = now.duration_since(self.confirmed) >= last_known::CONFIRM;
        if confirm {
            (self.confirmed, self.written) = (now, now);
            self.unwritten.clear();
            self.last_known.write(self.world.kept(None), true);
        } else if !self.unwritten.is_empty() && now.duration_since(self.written) >= last_known::WRITE {
            self.written = now;
            let services = std::mem::take(&mut self.unwritten);
            self.last_known.write(self.world.kept(Some(&services)), false);
        }
    }

    fn publish(&mut self) {
        let snapshot = Arc::new(self.world.snapshot());
        for name in self.world.published() {
            self.checks.follow(name, snapshot.service(name));
        }
        self.jwks.follow(&snapshot.middleware);
        self.retired.push(self.publisher.publish(snapshot));
        self.take_apart();
    }

    /// Takes snapshots apart at which nobody looks any more, and lets go of the oldest where too many are looked at.
    fn take_apart(&mut self) {
        self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
        let too_many = self.retired.len().saturating_sub(RETIRED);
        self.retired.drain(..too_many);
    }

    /// Where no check would find out, endpoints that failing connects made unhealthy get another chance: one more
    /// failure puts them aside again. So do those that were put aside for their answers, when their time has come.
    fn try_again(&mut self) {
        let now = crate::base::time::process_ms();
        for (service, endpoint) in self.world.unhealthy() {
            ejecting::comes_back(&service, &endpoint, now);
            let due = endpoint.live.retry_at_ms.load(Relaxed) <= now;
            if due && !endpoint.live.is_reachable() && !self.checks.covers(endpoint.id) {
                endpoint.live.on_probation();
            }
        }
        if now >= self.compared_ms + COMPARED_EACH_MS {
            self.compared_ms = now;
            self.world.services().for_each(|service| ejecting::compare(service, now, &mut self.chance));
        }
        self.world.tidy(now);
    }
}

impl PolicyWatch {
    /// The next list of policies; none ever where no directory is declared.
    async fn list(&mut self) -> Vec<Arc<Scope>> {
        match &mut self.lists {
            Some(lists) => match lists.recv().await {
                Some(scopes) => scopes,
                None => self.again().await,
            },
            None => std::future::pending().await,
        }
    }

    /// The watch has ended, which is a bug of ours: it begins anew. Policies stay as they are until its first list.
    async fn again(&mut self) -> Vec<Arc<Scope>> {
        loop {
            tracing::error!("the watch of the policies' directory has ended; beginning another one");
            tokio::time::sleep(AGAIN).await;
            let (Some(declared), Some(engine)) = (&self.declared, &self.engine) else {
                return std::future::pending().await;
            };
            match PolicyWatch::follow(declared, engine.clone()) {
                Ok(watched) => *self = watched,
                Err(problem) => tracing::error!(problem, "the policies' directory cannot be watched"),
            }
            if let Some(lists) = &mut self.lists
                && let Some(scopes) = lists.recv().await
            {
                return scopes;
            }
        }
    }

    /// Watches the directory that `config` declares. The policies of another one stay until its first list.
    fn switch(&mut self, config: &Config) -> Result<(), String> {
        if let Some(engine) = &self.engine {
            engine.stores().declare(&config.stores);
        }
        if self.declared == config.policies {
            return Ok(());
        }
        let Some(declared) = &config.policies else {
            *self = PolicyWatch { engine: self.engine.take(), ..PolicyWatch::default() };
            return Ok(());
        };
        let engine = match &self.engine {
            Some(engine) if engine.settings().versions == declared.max_versions.get() => engine.clone(),
            _ => {
                let settings = EngineSettings::for_workers(config.gateway.workers);
                let settings = EngineSettings { versions: declared.max_versions.get(), ..settings };
                let engine = Engine::new(settings).map_err(|e| e.to_string())?;
                engine.stores().declare(&config.stores);
                engine
            }
        };
        *self = PolicyWatch::follow(declared, engine)?;
        Ok(())
    }
}
