//! The engine: one per gateway. How a component is compiled, and how compiled code becomes a version.

use super::component;
use super::hall::Hall;
use super::limits::Limits;
use super::live::PolicyLive;
use super::refusal::Error;
use super::rooms::{Linkers, Space, compiler};
use super::settings::EngineSettings;
use super::version::{Identity, Version};
use crate::discovery::store::Stores;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::sync::Arc;
use wasmtime::component::Component;

/// Compiles, loads and runs policies. Cheap to clone; the threads behind it end with the last clone and the last
/// version that it loaded.
#[derive(Clone)]
pub struct Engine {
    hall: Arc<Hall>,
    stores: Stores,
}

impl Engine {
    /// Makes room for instances and starts the threads.
    ///
    /// # Errors
    /// The system has no room or no threads for it.
    pub fn new(settings: EngineSettings) -> anyhow::Result<Self> {
        Ok(Engine { hall: Arc::new(Hall::open(settings.at_least_one())?), stores: Stores::default() })
    }

    /// What compiled code depends on beside its component: this program's and wasmtime's versions, the settings, the
    /// CPU. Code that was compiled under another fingerprint must not be loaded.
    ///
    /// # Errors
    /// The settings do not suit this machine.
    pub fn fingerprint() -> Result<String, String> {
        let engine = compiler(Space::here())?;
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
        Engine::precompile_for(Space::here(), bytes)
    }

    /// The same for a process with so much address space.
    pub(super) fn precompile_for(space: Space, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let prepared = component::prepare(bytes)?;
        let engine = compiler(space)?;
        let compiled =
            Component::new(&engine, &prepared.bytes).map_err(|error| format!("does not compile: {error:#}"))?;
        let linkers = Linkers::new(&engine).map_err(|error| format!("{error:#}"))?;
        linkers.link(&compiled).map_err(|problem| prepared.explain(problem))?;
        compiled.serialize().map_err(|error| format!("{error:#}"))
    }

    /// Loads compiled code and readies its instances; nobody is asked yet. `live` belongs to the policy's name.
    /// Takes as long as the guest's `init` does, times the number of instances.
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
        let place = self.hall.place();
        let engine = &place.room().engine;
        // SAFETY: the file is what `precompile` wrote, and nobody else can have changed it, since the folder is the
        // gateway's own; this function's documentation asks the caller for it.
        #[expect(unsafe_code, reason = "mapping machine code cannot be safe")]
        let component = unsafe { Component::deserialize_file(engine, path) };
        // Where no code may be run from the file system, it is copied into memory.
        let component = component.or_else(|error| match std::fs::read(path) {
            #[expect(unsafe_code, reason = "as above")]
            // SAFETY: as above.
            Ok(code) => unsafe { Component::deserialize(engine, code) },
            Err(_) => Err(error),
        });
        // It was compiled for this engine and is what the compiler wrote, so the component is not to blame.
        let component =
            component.map_err(|error| Error::System(format!("its compiled code cannot be loaded: {error:#}")))?;
        let pre = place.room().link(&component).map_err(Error::Component)?;
        live.state.set_quota(limits.state_keys, limits.state_bytes);
        Version::new(Arc::clone(&self.hall), (place, pre), identity, config, limits, live)
    }

    /// Waits until somebody is suspended.
    pub(super) async fn suspended(&self) {
        self.hall.suspended.notified().await;
    }

    /// Nothing ticks, since no call runs.
    #[cfg(test)]
    pub(super) fn is_at_rest(&self) -> bool {
        self.hall.pulse.is_asleep()
    }

    /// Where policies' state can be shared.
    pub fn stores(&self) -> &Stores {
        &self.stores
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
