//! `wayside push`: a folder of configuration and policies goes to a store, for many gateways, all at once.

use super::credentials::Credentials;
use super::out;
use crate::control::config::Config;
use crate::discovery::registry::place::Place;
use crate::discovery::shelf::{Pushed, Shelf, push};
use anyhow::{Context, bail};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Nothing lies deeper.
const DEEPEST: usize = 8;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wayside push ./gateway consul://127.0.0.1:8500/wayside    (then: wayside run --config consul://127.0.0.1:8500/wayside)
  wayside push ./policies etcd://127.0.0.1:2379/policies    (then: [policies] from = \"etcd://127.0.0.1:2379/policies\")

Gateways see all of it or nothing. What begins with a dot is left out. What is at the place is replaced.")]
pub(super) struct Args {
    /// The folder. Where it holds a `wayside.toml`, that is checked first.
    directory: PathBuf,
    /// Where to, like consul://127.0.0.1:8500/wayside or etcd://127.0.0.1:2379/wayside
    place: Place,
    #[command(flatten)]
    credentials: Credentials,
}

/// Pushes it.
///
/// # Errors
/// What is wrong with the folder, or what the store says.
pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let mut files = BTreeMap::new();
    collect(&args.directory, "", 0, &mut files)?;
    if files.is_empty() {
        bail!("{}: holds no files", args.directory.display());
    }
    let configuration = args.directory.join("wayside.toml");
    if configuration.exists() {
        Config::read(&configuration)?;
    }
    let shelf = Shelf::at(&args.credentials.at(args.place)).map_err(|problem| anyhow::anyhow!("{problem}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let pushed = runtime.block_on(push(&shelf, &files, |written, all| {
        out::progress(format_args!("{} of {} KiB", written >> 10, all >> 10), written == all);
    }));
    match pushed.map_err(|failure| anyhow::anyhow!("{}", failure.problem))? {
        Pushed { same: true, files, .. } => out::say(format_args!("nothing to do: all {files} files are there")),
        Pushed { written, files, .. } => {
            out::say(format_args!("pushed {files} files, {written} of them with new content"));
        }
    }
    Ok(())
}

fn collect(folder: &Path, under: &str, depth: usize, files: &mut BTreeMap<String, Vec<u8>>) -> anyhow::Result<()> {
    if depth > DEEPEST {
        bail!("{}: lies too deep", folder.display());
    }
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let name = entry.file_name().into_string();
        let name = name.map_err(|name| anyhow::anyhow!("{}: is no UTF-8", Path::new(&name).display()))?;
        if name.starts_with('.') {
            continue;
        }
        let (path, name) = (entry.path(), format!("{under}{name}"));
        // Where a link leads to counts.
        if std::fs::metadata(&path).with_context(|| path.display().to_string())?.is_dir() {
            collect(&path, &format!("{name}/"), depth + 1, files)?;
        } else {
            let bytes = crate::base::files::read(&path, 64 << 20).with_context(|| path.display().to_string())?;
            files.insert(name, bytes);
        }
    }
    Ok(())
}
