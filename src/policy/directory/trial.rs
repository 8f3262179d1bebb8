//! Trying a candidate: compiled, loaded, its instances readied. One at a time; dropping a trial gives it up.

use super::found::{Candidate, Found, Problem, read_component};
use super::last_good::put_component;
use crate::base::digest;
use crate::policy::aside::aside;
use crate::policy::compile::{Cache, Error};
use crate::policy::engine::Engine;
use crate::policy::live::PolicyLive;
use crate::policy::state::Sharing;
use crate::policy::version::{Identity, Version};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// A file that is still being written is not turned away: it must have been quiet for so long.
const SETTLED: Duration = Duration::from_millis(500);

/// A candidate that is being tried.
pub(super) struct Trial {
    /// The files, as they were seen last.
    pub(super) found: Found,
    load: Pin<Box<dyn Future<Output = Result<Arc<Version>, Error>> + Send>>,
}

impl Trial {
    /// Nothing happens until [`Trial::end`] is awaited. `live` is what the policy keeps from version to version.
    pub(super) fn new(cache: Arc<Cache>, engine: Engine, found: Found, live: Arc<PolicyLive>) -> Trial {
        let tried = found.clone();
        let load = async move {
            let loaded = load(&cache, engine, &tried, live).await;
            if loaded.is_err() {
                // A file that is still being written is not turned away: it must have been left alone for a while.
                tokio::time::sleep(SETTLED.saturating_sub(tried.age())).await;
            }
            loaded
        };
        Trial { found, load: Box::pin(load) }
    }

    /// One that is over before it begins.
    pub(super) fn refused(found: Found, error: Error) -> Trial {
        Trial { found, load: Box::pin(std::future::ready(Err(error))) }
    }

    /// What came of it. The wait may be broken off and begun again; once it has ended, the trial is over.
    pub(super) async fn end(&mut self) -> Result<Arc<Version>, Error> {
        self.load.as_mut().await
    }
}

impl fmt::Debug for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trial").field("found", &self.found).finish_non_exhaustive()
    }
}

async fn load(cache: &Cache, engine: Engine, found: &Found, live: Arc<PolicyLive>) -> Result<Arc<Version>, Error> {
    let Candidate { component, component_digest, sidecar, .. } = found.candidate.clone()?;
    let read = move || read_component(&component).map(|bytes| (digest::full(&bytes), bytes));
    let read = aside(read).await.map_err(|e| Error::system("reading the component", &e))?;
    let (read_digest, bytes) = read.map_err(|problem| match problem {
        Problem::Gone => Error::System(format!("{}.wasm: it is gone", found.name)),
        Problem::Bad(error) => error,
    })?;
    if read_digest != component_digest {
        return Err(Error::System("the file changed while it was read".into()));
    }
    let compiled = cache.compiled(&bytes, &read_digest).await?;
    let identity = Identity { name: found.name.clone(), version: found.key.clone(), component: component_digest };
    let sharing = sidecar.store.map(|store| {
        if engine.stores().get(&store).is_none() {
            tracing::warn!(policy = %found.name, %store, "there is no such `[stores]`; the state is this gateway's own");
        }
        let (stores, policy) = (engine.stores().clone(), Arc::clone(&found.name));
        Sharing { stores, store, policy, closed: sidecar.closed }
    });
    live.share(sharing);
    let load = move || engine.load(&compiled, identity, sidecar.config, sidecar.limits, live);
    let version = aside(load).await.map_err(|e| Error::system("loading the component", &e))??;
    if let Ok(folder) = cache.folder() {
        // That it could not be kept is told by whoever misses it.
        let _ = aside(move || put_component(&folder, &read_digest, &bytes)).await;
    }
    Ok(version)
}
