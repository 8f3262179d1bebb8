//! `wayside check`: is this configuration good, and are its policies?

use super::out;
use crate::control::config::Config;
use crate::http::settings::Policies;
use crate::http::tls::server::Acceptor;
use crate::policy::{Engine, EngineSettings, Scope, directory::Directory};
use crate::telemetry::Telemetry;
use anyhow::{Context, bail};
use std::path::Path;
use std::sync::Arc;

/// Checks the configuration file, reads its certificates, builds its sources without asking them anything, and compiles, loads and initializes
/// each policy as the gateway would.
///
/// # Errors
/// What is wrong.
pub fn run(file: &Path) -> anyhow::Result<()> {
    let config = Config::read(file)?;
    for (name, settings) in &config.sources {
        settings.build().map_err(|problem| anyhow::anyhow!("{}: sources.{name}: {problem}", file.display()))?;
    }
    for listen in &config.gateway.listen {
        let address = listen.address;
        let tls = listen.tls.as_ref().map(Acceptor::new).transpose();
        tls.map_err(|problem| anyhow::anyhow!("{}: gateway.listen: {address}: {problem}", file.display()))?;
    }
    Telemetry::check(&config.telemetry)?;
    let (sources, services, routes) = (config.sources.len(), config.services.len(), config.routes.len());
    out::say(format_args!("{}: good: {sources} sources, {services} services, {routes} routes", file.display()));
    let Some(declared) = &config.policies else { return Ok(()) };
    let mut bad = 0;
    for scope in policies(declared)? {
        let file = declared.directory.join(format!("{}.wasm", scope.name));
        match scope.standing.live() {
            Some(version) => out::say(format_args!("{}: good: version {}", file.display(), version.id)),
            None => {
                bad += 1;
                let problem = scope.error.as_deref().unwrap_or("cannot be used");
                out::complain(format_args!("{}: {problem}", file.display()));
            }
        }
    }
    if bad > 0 {
        bail!("{bad} of the policies in {} cannot be used", declared.directory.display());
    }
    Ok(())
}

/// What the gateway would make of the directory at its start. Nothing that a running one uses is touched.
fn policies(declared: &Policies) -> anyhow::Result<Vec<Arc<Scope>>> {
    let cache = tempfile::tempdir().context("no temporary folder")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let engine = Engine::new(EngineSettings::for_workers(1))?;
        let mut lists = Directory::follow(&declared.directory, cache.path(), engine)
            .map_err(|problem| anyhow::anyhow!("{problem}"))?;
        lists.recv().await.context("the policies could not be read")
    })
}
