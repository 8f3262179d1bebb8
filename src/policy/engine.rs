//! The engine: one per gateway. Settings, the epoch's ticker, and how a compiled component becomes a version.

use super::bindings::{Policy, PolicyPre};
use super::context::Context;
use super::limits::{Limits, MAX_MEMORY};
use super::refill::{self, Jobs};
use super::version::Version;
use super::{PolicyLive, component};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Config, Enabled, Inlining, InstanceAllocationStrategy, PoolingAllocationConfig};

/// From one look at the deadlines of running guests to the next.
const TICK: Duration = Duration::from_millis(2);
/// Stack of a guest; more is a trap.
const GUEST_STACK: usize = 512 << 10;
/// What the host's own functions have beside it.
const HOST_STACK: usize = 512 << 10;
/// Core instances of one component: Python has more than 20.
const CORE_INSTANCES: u32 = 40;
/// Elements of one table: Python has 40,000.
const TABLE_ELEMENTS: usize = 64 << 10;

/// How much an engine makes room for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineSettings {
    /// Threads that ask policies.
    pub workers: usize,
    /// Instances of each version that are kept ready for each worker. Five faults in a row suspend a version and use up
    /// an instance each, so there must be more than five in all, or an innocent request would starve.
    pub ready_per_worker: usize,
    /// Versions that there is room for at a time, the live ones and those that are being readied. Room is address
    /// space, not memory: about 4 GiB for each instance.
    pub versions: usize,
}

impl EngineSettings {
    /// The defaults: six ready instances among the workers, or two for each, and room for 32 versions.
    pub fn for_workers(workers: usize) -> Self {
        let workers = workers.max(1);
        EngineSettings { workers, ready_per_worker: 6_usize.div_ceil(workers).max(2), versions: 32 }
    }

    /// Nothing works with none.
    fn at_least_one(self) -> Self {
        let EngineSettings { workers, ready_per_worker, versions } = self;
        EngineSettings { workers: workers.max(1), ready_per_worker: ready_per_worker.max(1), versions: versions.max(1) }
    }
}

/// Compiles, loads and runs policies. Cheap to clone; the threads behind it end with the last clone and the last
/// version that it loaded.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

/// What versions need of their engine.
pub(super) struct Shared {
    pub(super) settings: EngineSettings,
    pub(super) jobs: Jobs,
    /// WASI's timers panic where there is no runtime. Nobody drives this one: a guest that waits is never woken.
    pub(super) timers: Timers,
    engine: wasmtime::Engine,
    linkers: Linkers,
    /// Dropped after `jobs`, whose end ends the first thread.
    _threads: Threads,
}

impl Engine {
    /// Makes room for instances and starts the threads.
    ///
    /// # Errors
    /// The system has no room or no threads for it.
    pub fn new(settings: EngineSettings) -> anyhow::Result<Self> {
        let settings = settings.at_least_one();
        let engine = pooled(&settings).or_else(|error| {
            tracing::warn!(error = %format!("{error:#}"), "no room for a pool of policy instances; they will be slower");
            wasmtime::Engine::new(&config(InstanceAllocationStrategy::OnDemand))
        });
        let engine = engine.map_err(|error| anyhow::anyhow!("{error:#}"))?;
        let linkers = Linkers::new(&engine).map_err(|error| anyhow::anyhow!("{error:#}"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let ticker = ticker(&engine, Arc::clone(&stop))?;
        let (jobs, refill) = refill::start()?;
        let timers = Timers::new()?;
        let threads = Threads { stop, threads: vec![ticker, refill] };
        Ok(Engine { shared: Arc::new(Shared { settings, jobs, timers, engine, linkers, _threads: threads }) })
    }

    /// What compiled code depends on beside its component: this program's and wasmtime's versions, the settings, the
    /// CPU. Code that was compiled under another fingerprint must not be loaded.
    ///
    /// # Errors
    /// The settings do not suit this machine.
    pub fn fingerprint() -> Result<String, String> {
        let engine = compiler()?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(format!("wayside {} {} {:016x}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, hasher.finish()))
    }

    /// Makes a component from a core module that knows its component type. What is a component stays as it is.
    ///
    /// # Errors
    /// It is no policy, or none for this gateway.
    pub fn componentize(bytes: &[u8]) -> Result<Vec<u8>, String> {
        component::prepare(bytes).map(|prepared| prepared.bytes.into_owned())
    }

    /// Compiles a component, or a core module that knows its component type, into code that [`Engine::load`] takes.
    /// Meant for a process of its own: a large component takes seconds and hundreds of MiB.
    ///
    /// # Errors
    /// What is wrong with the component, for whoever wrote it.
    pub fn precompile(bytes: &[u8]) -> Result<Vec<u8>, String> {
        let prepared = component::prepare(bytes)?;
        let engine = compiler()?;
        let compiled =
            Component::new(&engine, &prepared.bytes).map_err(|error| format!("does not compile: {error:#}"))?;
        let linkers = Linkers::new(&engine).map_err(|error| format!("{error:#}"))?;
        linkers.link(&compiled).map_err(|problem| prepared.explain(problem))?;
        compiled.serialize().map_err(|error| format!("{error:#}"))
    }

    /// Loads compiled code and readies its instances; nobody is asked yet. `id` is the version's, `name` the policy's,
    /// `live` belongs to that name. Takes as long as the guest's `init` does, times the number of instances.
    ///
    /// `path` must be in a folder that nobody else can write to: it holds machine code that was made by
    /// [`Engine::precompile`] under this [`Engine::fingerprint`].
    ///
    /// # Errors
    /// Why the version cannot go live; what the guest's `init` said is shown as it is.
    pub fn load(
        &self,
        path: &Path,
        id: Arc<str>,
        name: Arc<str>,
        config: String,
        limits: Limits,
        live: Arc<PolicyLive>,
    ) -> Result<Arc<Version>, String> {
        limits.check()?;
        // SAFETY: the file is what `precompile` wrote, and nobody else can have changed it, since the folder is the
        // gateway's own; this function's documentation asks the caller for it.
        #[expect(unsafe_code, reason = "mapping machine code cannot be safe")]
        let component = unsafe { Component::deserialize_file(&self.shared.engine, path) };
        let component = component.map_err(|error| format!("its compiled code cannot be loaded: {error:#}"))?;
        let pre = self.shared.linkers.link(&component)?;
        live.state.set_quota(limits.state_keys, limits.state_bytes);
        Version::new(Arc::clone(&self.shared), pre, (id, name), config, limits, live)
    }

    /// What it makes room for.
    pub fn settings(&self) -> &EngineSettings {
        &self.shared.settings
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("settings", &self.shared.settings).finish_non_exhaustive()
    }
}

/// An engine that compiles; it runs nothing, so it needs no pool. The pool does not change the code.
fn compiler() -> Result<wasmtime::Engine, String> {
    wasmtime::Engine::new(&config(InstanceAllocationStrategy::OnDemand)).map_err(|error| format!("{error:#}"))
}

/// The one place where settings are made, for compiling and for running.
fn config(strategy: InstanceAllocationStrategy) -> Config {
    let mut config = Config::new();
    config
        .allocation_strategy(strategy)
        // The default, and it doubles the price of a call.
        .concurrency_support(false)
        .epoch_interruption(true)
        // Inlining takes 7 GiB to compile a JavaScript engine.
        .compiler_inlining(Inlining::No)
        .memory_init_cow(true)
        .max_wasm_stack(GUEST_STACK)
        .async_stack_size(GUEST_STACK + HOST_STACK)
        // A replay on another CPU gives the same bits.
        .relaxed_simd_deterministic(true)
        .cranelift_nan_canonicalization(true);
    config
}

fn pooled(settings: &EngineSettings) -> wasmtime::Result<wasmtime::Engine> {
    // Two more for each version, since a new instance is built while a used one waits to be taken apart.
    let instances = settings.versions * (settings.workers * settings.ready_per_worker + 2);
    let instances = u32::try_from(instances).unwrap_or(u32::MAX / CORE_INSTANCES);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_memories(instances)
        .total_stacks(instances)
        // Few components have as many as Python's, and these are only counted.
        .total_core_instances(instances.saturating_mul(CORE_INSTANCES))
        .max_core_instances_per_component(CORE_INSTANCES)
        .total_tables(instances.saturating_mul(2))
        .table_elements(TABLE_ELEMENTS)
        .max_memory_size(MAX_MEMORY)
        // Rust puts 1 MiB of stack before its data: less than this would never reach what was written.
        .linear_memory_keep_resident(2 << 20)
        .table_keep_resident(64 << 10)
        .pagemap_scan(Enabled::Auto);
    wasmtime::Engine::new(&config(InstanceAllocationStrategy::Pooling(pool)))
}

/// What components are linked with. Those that import no WASI get none: without its functions, which may wait, a call
/// needs no stack of its own.
struct Linkers {
    plain: Linker<Context>,
    wasi: Linker<Context>,
}

impl Linkers {
    fn new(engine: &wasmtime::Engine) -> wasmtime::Result<Self> {
        let mut plain = Linker::new(engine);
        Policy::add_to_linker::<_, HasSelf<_>>(&mut plain, |context: &mut Context| context)?;
        let mut wasi = plain.clone();
        // Never the synchronous one: it blocks the worker, or panics in its runtime.
        wasmtime_wasi::p2::add_to_linker_async(&mut wasi)?;
        Ok(Linkers { plain, wasi })
    }

    fn link(&self, component: &Component) -> Result<PolicyPre<Context>, String> {
        let linker = if uses_wasi(component) { &self.wasi } else { &self.plain };
        let pre = linker.instantiate_pre(component).map_err(|error| format!("cannot be linked: {error:#}"))?;
        PolicyPre::new(pre).map_err(|error| format!("does not export what a policy must: {error:#}"))
    }
}

/// It imports WASI.
pub(super) fn uses_wasi(component: &Component) -> bool {
    component.component_type().imports(component.engine()).any(|(name, _)| name.starts_with("wasi:"))
}

/// Advances the epoch, on a thread of its own that starves less than a worker's.
fn ticker(engine: &wasmtime::Engine, stop: Arc<AtomicBool>) -> std::io::Result<JoinHandle<()>> {
    // Weak: an engine that only its ticker holds would never end.
    let engine = engine.weak();
    thread::Builder::new().name("policy-ticker".into()).spawn(move || {
        // Needs a privilege; without it, deadlines are looked at a little later on a busy machine.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), -10);
        while !stop.load(Relaxed) {
            thread::sleep(TICK);
            match engine.upgrade() {
                Some(engine) => engine.increment_epoch(),
                None => return,
            }
        }
    })
}

/// A runtime that is never run.
pub(super) struct Timers(Option<tokio::runtime::Runtime>);

impl Timers {
    fn new() -> std::io::Result<Self> {
        Ok(Timers(Some(tokio::runtime::Builder::new_current_thread().enable_time().build()?)))
    }

    /// Timers work while this is held.
    pub(super) fn enter(&self) -> Option<tokio::runtime::EnterGuard<'_>> {
        self.0.as_ref().map(tokio::runtime::Runtime::enter)
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        // The last version may go on a worker, where dropping a runtime the plain way panics.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

struct Threads {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        for handle in self.threads.drain(..) {
            // The refill thread itself drops the last version if it was just readying it.
            if handle.thread().id() != thread::current().id() && handle.join().is_err() {
                tracing::error!("a thread of the policy engine panicked");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_fit_and_do_not_change_the_code() {
        let hash = |engine: &wasmtime::Engine| {
            let mut hasher = DefaultHasher::new();
            engine.precompile_compatibility_hash().hash(&mut hasher);
            hasher.finish()
        };
        let compiler = compiler().unwrap();
        for workers in [1, 2, 16, 64] {
            let engine = pooled(&EngineSettings::for_workers(workers)).unwrap();
            assert_eq!(hash(&engine), hash(&compiler));
        }
    }

    #[test]
    fn five_faults_leave_an_instance_whatever_the_number_of_workers() {
        for workers in 0..100 {
            let EngineSettings { workers, ready_per_worker, .. } = EngineSettings::for_workers(workers);
            assert!(workers * ready_per_worker > super::super::suspension::FAULTS && ready_per_worker >= 2);
        }
    }
}
