//! The engine: one per gateway. How a component is compiled, and how compiled code becomes a version.

use super::component;
use super::hall::{EngineSettings, Hall, Linkers};
use super::limits::{Limits, MAX_MEMORY};
use super::live::PolicyLive;
use super::refusal::Error;
use super::version::{Identity, Version};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::sync::Arc;
use wasmtime::component::Component;
use wasmtime::{Config, Enabled, Inlining, InstanceAllocationStrategy, PoolingAllocationConfig};

/// Stack of a guest; more is a trap.
const GUEST_STACK: usize = 512 << 10;
/// What the host's own functions have beside it.
const HOST_STACK: usize = 512 << 10;
/// Core instances of one component: Python has more than 20.
const CORE_INSTANCES: u32 = 40;
/// Elements of one table: Python has 40,000.
const TABLE_ELEMENTS: usize = 64 << 10;

/// Compiles, loads and runs policies. Cheap to clone; the threads behind it end with the last clone and the last
/// version that it loaded.
#[derive(Clone)]
pub struct Engine {
    hall: Arc<Hall>,
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
        Ok(Engine { hall: Arc::new(Hall::open(settings, engine)?) })
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

    /// Loads compiled code and readies its instances; nobody is asked yet. `live` belongs to the policy's name. Takes as long as the guest's `init` does, times the number of instances.
    ///
    /// `path` must be in a folder that nobody else can write to: it holds machine code that was made by
    /// [`Engine::precompile`] under this [`Engine::fingerprint`].
    ///
    /// # Errors
    /// Why the version cannot go live; what the guest's `init` said is shown as it is.
    pub fn load(
        &self,
        path: &Path,
        identity: Identity,
        config: String,
        limits: Limits,
        live: Arc<PolicyLive>,
    ) -> Result<Arc<Version>, Error> {
        limits.check().map_err(Error::Component)?;
        // SAFETY: the file is what `precompile` wrote, and nobody else can have changed it, since the folder is the
        // gateway's own; this function's documentation asks the caller for it.
        #[expect(unsafe_code, reason = "mapping machine code cannot be safe")]
        let component = unsafe { Component::deserialize_file(&self.hall.engine, path) };
        // Where no code may be run from the file system, it is copied into memory.
        let component = component.or_else(|error| match std::fs::read(path) {
            #[expect(unsafe_code, reason = "as above")]
            // SAFETY: as above.
            Ok(code) => unsafe { Component::deserialize(&self.hall.engine, code) },
            Err(_) => Err(error),
        });
        // It was compiled for this engine and is what the compiler wrote, so the component is not to blame.
        let component =
            component.map_err(|error| Error::System(format!("its compiled code cannot be loaded: {error:#}")))?;
        let pre = self.hall.linkers.link(&component).map_err(Error::Component)?;
        live.state.set_quota(limits.state_keys, limits.state_bytes);
        Version::new(Arc::clone(&self.hall), pre, identity, config, limits, live)
    }

    /// Waits until somebody is suspended.
    pub(super) async fn suspended(&self) {
        self.hall.suspended.notified().await;
    }

    /// What it makes room for.
    pub fn settings(&self) -> &EngineSettings {
        &self.hall.settings
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("settings", &self.hall.settings).finish_non_exhaustive()
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
}
