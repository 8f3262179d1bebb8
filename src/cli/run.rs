//! `wayside run`: the gateway, by a configuration on disk or on a shelf.

use super::credentials::Credentials;
use crate::base::{digest, lines};
use crate::control::config::Config;
use crate::discovery::shelf::{Mirror, Shelf};
use crate::gateway;
use std::path::PathBuf;
use std::time::Duration;

/// How long the store is waited for at the start, where there is no copy of what it held.
const FIRST: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration file; or where one was pushed, like consul://127.0.0.1:8500/wayside or etcd://127.0.0.1:2379/wayside
    #[arg(long, default_value = "wayside.toml")]
    config: String,
    /// Where what was pushed is copied to. Default: a folder of its own in $STATE_DIRECTORY, $XDG_STATE_HOME/wayside,
    /// ~/.local/state/wayside or /var/lib/wayside, the first of which is named or there.
    #[arg(long)]
    state: Option<PathBuf>,
    #[command(flatten)]
    credentials: Credentials,
}

/// Runs it until a signal ends it.
///
/// # Errors
/// It cannot be run.
pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let (config, mirror) = if args.config.contains("://") {
        let mirror = copied(args)?;
        (Config::read(&mirror.folder().join("wayside.toml"))?, Some(mirror))
    } else {
        (Config::read(&PathBuf::from(&args.config))?, None)
    };
    gateway::run(config, mirror, |listeners, admin| {
        // Whether or not somebody can read it.
        lines::output().push(|| gateway::ready_line(listeners, admin) + "\n");
    })
}

/// What was pushed, in a folder.
fn copied(args: Args) -> anyhow::Result<Mirror> {
    let wrong = |problem: String| anyhow::anyhow!("--config: {problem}");
    let place = args.credentials.at(args.config.parse().map_err(wrong)?);
    let folder =
        args.state.or_else(state).ok_or_else(|| wrong("no folder for its copy is known: use --state".into()))?;
    let folder = folder.join(format!("shelf-{}", digest::short(args.config.as_bytes())));
    let mirror = || Mirror::new(Shelf::at(&place).map_err(wrong)?, &folder).map_err(wrong);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(mirror()?.begin(FIRST)).map_err(wrong)?;
    // Connections of the first one ended with its runtime.
    mirror()
}

fn state() -> Option<PathBuf> {
    let named = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    named("STATE_DIRECTORY")
        .or_else(|| named("XDG_STATE_HOME").map(|folder| folder.join("wayside")))
        .or_else(|| named("HOME").map(|home| home.join(".local/state/wayside")))
        .or_else(|| Some(PathBuf::from("/var/lib/wayside")))
}
