//! Where instances live: in a pool, whose slots are reused quickly, and once that is full in memory of their own. How much
//! of either there can be is a matter of address space, which is measured here.

use super::bindings::{Policy, PolicyPre};
use super::component::uses_wasi;
use super::context::Context;
use super::limits::MAX_MEMORY;
use super::settings::EngineSettings;
use rustix::process::{Resource, getrlimit};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Config, Enabled, Inlining, InstanceAllocationStrategy, PoolingAllocationConfig};

/// Stack of a guest; more is a trap.
const GUEST_STACK: usize = 512 << 10;
/// What the host's own functions have beside it.
const HOST_STACK: usize = 512 << 10;
/// Core instances of one component: Python has more than 20.
const CORE_INSTANCES: u32 = 40;
/// Elements of one table: Python has 40,000.
const TABLE_ELEMENTS: usize = 64 << 10;
/// Address space of an instance whose accesses need no check.
const WIDE: u64 = 4 << 30;
/// Versions that the pool has slots for.
const POOLED_VERSIONS: usize = 200;
/// Slots of the pool, at most: 32 TiB of address space, of the 128 that a process has.
const POOLED: usize = 8192;

/// How much address space an instance may have. Compiled code is for one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    /// 4 GiB: then no access has to be checked.
    Wide,
    /// What it uses, since the process may not have more (`ulimit -v`). Calls are a little slower.
    Narrow,
}

impl Space {
    /// As this process has it.
    pub(super) fn here() -> Self {
        Space::within(getrlimit(Resource::As).current)
    }

    fn within(limit: Option<u64>) -> Self {
        match limit {
            // Below this, there is more room with checks.
            Some(limit) if limit < POOLED as u64 * WIDE => Space::Narrow,
            _ => Space::Wide,
        }
    }
}

/// An engine that compiles; it runs nothing, so it needs no pool. The pool does not change the code.
pub(super) fn compiler(space: Space) -> Result<wasmtime::Engine, String> {
    alone(space).map_err(|error| format!("{error:#}"))
}

/// One where each instance has memory of its own.
fn alone(space: Space) -> wasmtime::Result<wasmtime::Engine> {
    wasmtime::Engine::new(&config(InstanceAllocationStrategy::OnDemand, space))
}

/// The one place where settings are made, for compiling and for running.
fn config(strategy: InstanceAllocationStrategy, space: Space) -> Config {
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
    if space == Space::Narrow {
        config.memory_reservation(0).memory_guard_size(0).memory_reservation_for_growth(1 << 20);
    }
    config
}

fn pooled(slots: usize) -> wasmtime::Result<wasmtime::Engine> {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(count(slots))
        .total_memories(count(slots))
        // An instance that may wait keeps the stack of its last call.
        .total_stacks(count(slots))
        // Few components have as many as Python's, and these are only counted.
        .total_core_instances(count(slots).saturating_mul(CORE_INSTANCES))
        .max_core_instances_per_component(CORE_INSTANCES)
        .total_tables(count(slots).saturating_mul(2))
        .table_elements(TABLE_ELEMENTS)
        .max_memory_size(MAX_MEMORY)
        // Rust puts 1 MiB of stack before its data: less than this would never reach what was written.
        .linear_memory_keep_resident(2 << 20)
        .table_keep_resident(64 << 10)
        .pagemap_scan(Enabled::Auto);
    wasmtime::Engine::new(&config(InstanceAllocationStrategy::Pooling(pool), Space::Wide))
}

/// All the room that a gateway has.
pub(super) struct Rooms {
    /// With as many slots as are free. None: there is not address space enough for one.
    pool: Option<(Room, AtomicUsize)>,
    /// Without a bound of its own.
    alone: Room,
}

/// An engine, and what components are linked with there.
pub(super) struct Room {
    pub(super) engine: wasmtime::Engine,
    linkers: Linkers,
}

impl Room {
    fn new(engine: wasmtime::Engine) -> wasmtime::Result<Self> {
        Ok(Room { linkers: Linkers::new(&engine)?, engine })
    }

    /// Makes a component of this room ready to be instantiated.
    pub(super) fn link(&self, component: &Component) -> Result<PolicyPre<Context>, String> {
        self.linkers.link(component)
    }
}

impl Rooms {
    /// Makes room for what these ask for.
    pub(super) fn open(settings: &EngineSettings) -> wasmtime::Result<Self> {
        let space = Space::here();
        let instances = settings.instances();
        let wanted = POOLED_VERSIONS.min(settings.versions).saturating_mul(instances).min(POOLED);
        let pool = if space == Space::Wide { largest(wanted, instances) } else { None };
        if pool.is_none() {
            tracing::warn!(
                "no address space for a pool of policy instances (see `ulimit -v`); new ones are made more slowly"
            );
        }
        let pool = match pool {
            Some((engine, slots)) => Some((Room::new(engine)?, AtomicUsize::new(slots))),
            None => None,
        };
        Ok(Rooms { pool, alone: Room::new(alone(space)?)? })
    }

    /// A place for a version with so many instances.
    pub(super) fn place(self: &Arc<Self>, instances: usize) -> Place {
        let slots = self.pool.as_ref().map_or(0, |(_, free)| {
            let take = |free: usize| free.checked_sub(instances);
            free.fetch_update(Relaxed, Relaxed, take).map_or(0, |_| instances)
        });
        Place { rooms: Arc::clone(self), slots }
    }

    /// All engines.
    pub(super) fn engines(&self) -> impl Iterator<Item = &wasmtime::Engine> {
        self.pool.iter().map(|(room, _)| room).chain([&self.alone]).map(|room| &room.engine)
    }
}

/// The largest pool that there is address space for.
fn largest(wanted: usize, least: usize) -> Option<(wasmtime::Engine, usize)> {
    let sizes = std::iter::successors(Some(wanted), |slots| Some(slots / 2)).take_while(|slots| *slots >= least);
    sizes.into_iter().find_map(|slots| pooled(slots).ok().map(|engine| (engine, slots)))
}

/// What a version's instances take up, until the last of them is gone.
pub(super) struct Place {
    rooms: Arc<Rooms>,
    /// Of the pool; 0: they have memory of their own.
    slots: usize,
}

impl Place {
    /// Where that is.
    pub(super) fn room(&self) -> &Room {
        match &self.rooms.pool {
            Some((room, _)) if self.slots > 0 => room,
            _ => &self.rooms.alone,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((_, free)) = &self.rooms.pool {
            free.fetch_add(self.slots, Relaxed);
        }
    }
}

/// What components are linked with. Those that import no WASI get none: without its functions, which may wait, a call
/// needs no stack of its own.
pub(super) struct Linkers {
    plain: Linker<Context>,
    wasi: Linker<Context>,
}

impl Linkers {
    pub(super) fn new(engine: &wasmtime::Engine) -> wasmtime::Result<Self> {
        let mut plain = Linker::new(engine);
        Policy::add_to_linker::<_, HasSelf<_>>(&mut plain, |context: &mut Context| context)?;
        let mut wasi = plain.clone();
        // Never the synchronous one: it blocks the worker, or panics in its runtime.
        wasmtime_wasi::p2::add_to_linker_async(&mut wasi)?;
        Ok(Linkers { plain, wasi })
    }

    pub(super) fn link(&self, component: &Component) -> Result<PolicyPre<Context>, String> {
        let linker = if uses_wasi(component) { &self.wasi } else { &self.plain };
        let pre = linker.instantiate_pre(component).map_err(|error| format!("cannot be linked: {error:#}"))?;
        PolicyPre::new(pre).map_err(|error| format!("does not export what a policy must: {error:#}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};

    #[test]
    fn pools_fit_and_do_not_change_the_code() {
        let hash = |engine: &wasmtime::Engine| {
            let mut hasher = DefaultHasher::new();
            engine.precompile_compatibility_hash().hash(&mut hasher);
            hasher.finish()
        };
        let wide = compiler(Space::Wide).unwrap();
        let (engine, slots) = largest(POOLED, 8).unwrap();
        assert_eq!((hash(&engine), slots), (hash(&wide), POOLED));
        assert_ne!(hash(&wide), hash(&compiler(Space::Narrow).unwrap()));
    }

    #[test]
    fn address_space_that_is_short_is_not_reserved() {
        assert_eq!(Space::within(None), Space::Wide);
        assert_eq!(Space::within(Some(8 << 30)), Space::Narrow);
        assert_eq!(Space::within(Some(1 << 46)), Space::Wide);
    }

    #[test]
    fn a_full_pool_is_not_the_end_and_what_goes_gives_its_place_back() {
        let settings = EngineSettings { versions: 2, ..EngineSettings::for_workers(1) };
        let rooms = Arc::new(Rooms::open(&settings).unwrap());
        let slots = rooms.pool.as_ref().unwrap().1.load(Relaxed);
        let big = rooms.place(slots);
        let small = rooms.place(8);
        assert!(std::ptr::eq(big.room(), &rooms.pool.as_ref().unwrap().0));
        assert!(std::ptr::eq(small.room(), &rooms.alone));
        drop(big);
        assert_eq!(rooms.place(8).slots, 8);
    }
}
