//! The versions that are asked again: found by their content, compiled and loaded once each.

use crate::base::digest;
use crate::policy::compile::{Cache, MAX_COMPONENT, this_program};
use crate::policy::{Engine, EngineSettings, Identity, Limits, Version, sidecar};
use crate::service::record::taped::About;
use crate::service::tape::redaction::MARK;
use anyhow::{Context, bail};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Folders are looked into so deep.
const DEEPEST: usize = 6;
/// Components that are looked at, at most.
const MOST_FILES: usize = 10_000;
/// A machine that replays has other things to do; how long a call took then is not what is asked.
const SLACK: u32 = 10;
const WALL: Duration = Duration::from_secs(20);

/// A component that takes the place of the recorded ones.
#[derive(Debug)]
pub(super) struct Other {
    name: String,
    file: PathBuf,
    bytes: Vec<u8>,
    config: Option<String>,
    limits: Option<Limits>,
}

impl Other {
    /// Reads it, and its sidecar, if there is one.
    pub(super) fn read(file: &Path, config: Option<&str>) -> anyhow::Result<Self> {
        let bytes = crate::base::files::read(file, MAX_COMPONENT).with_context(|| file.display().to_string())?;
        let beside = file.with_extension("toml");
        let sidecar = match beside.exists() {
            true => {
                let text =
                    crate::base::files::read_text(&beside, 1 << 20).with_context(|| beside.display().to_string())?;
                Some(sidecar::parse(&text).map_err(|problem| anyhow::anyhow!("{}: {problem}", beside.display()))?)
            }
            false => None,
        };
        let name = file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let limits = sidecar.as_ref().map(|sidecar| sidecar.limits.clone());
        let config = config.map(str::to_owned).or_else(|| sidecar.map(|sidecar| sidecar.config));
        Ok(Other { name, file: file.to_owned(), bytes, config, limits })
    }
}

/// All versions, loaded as they are asked for.
pub(super) struct Library {
    engine: Engine,
    cache: Cache,
    /// Where components are, by their digest.
    shelf: HashMap<String, PathBuf>,
    other: Option<Other>,
    loaded: Mutex<HashMap<Arc<About>, Loaded>>,
    /// How long that has taken, ns.
    loading: AtomicU64,
    /// Compiled code lies here, as long as this lives.
    _folder: tempfile::TempDir,
}

/// A version, or why there is none.
pub(super) type Loaded = Result<Arc<Version>, Arc<str>>;

impl Library {
    pub(super) fn new(folders: &[PathBuf], other: Option<Other>, threads: usize) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("no temporary folder")?;
        let program = this_program().map_err(anyhow::Error::msg)?;
        let cache = Cache::open(&folder.path().join("cache"), &program).map_err(anyhow::Error::msg)?;
        let mut shelf = HashMap::new();
        if other.is_none() {
            let mut files = Vec::new();
            folders.iter().for_each(|folder| collect(folder, 0, &mut files));
            for file in files {
                if let Ok(bytes) = crate::base::files::read(&file, MAX_COMPONENT) {
                    shelf.entry(digest::full(&bytes)).or_insert(file);
                }
            }
        }
        let engine = Engine::new(EngineSettings::for_workers(threads))?;
        Ok(Library {
            engine,
            cache,
            shelf,
            other,
            loaded: Mutex::default(),
            loading: AtomicU64::new(0),
            _folder: folder,
        })
    }

    /// It asks the versions that decided then.
    pub(super) fn is_same(&self) -> bool {
        self.other.is_none()
    }

    /// Whether the decisions of this policy are made again.
    pub(super) fn wants(&self, policy: &str) -> bool {
        self.other.as_ref().is_none_or(|other| other.name == policy)
    }

    /// Whose place another component takes.
    pub(super) fn other(&self) -> Option<&str> {
        self.other.as_ref().map(|other| other.name.as_str())
    }

    /// The version that is asked what this one was asked. Takes as long as it takes to compile it, the first time.
    pub(super) fn version(&self, about: &Arc<About>) -> Loaded {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = loaded.get(about) {
            return known.clone();
        }
        let began = Instant::now();
        let new = self.load(about).map_err(|problem| Arc::from(format!("{problem:#}")));
        self.loading.fetch_add(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX), Relaxed);
        loaded.insert(Arc::clone(about), new.clone());
        new
    }

    /// How long compiling and loading took, in which nobody was asked.
    pub(super) fn loading(&self) -> Duration {
        Duration::from_nanos(self.loading.load(Relaxed))
    }

    /// What could not be loaded, and why.
    pub(super) fn problems(&self) -> Vec<(Arc<About>, Arc<str>)> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let problem =
            |(about, loaded): (&Arc<About>, &Loaded)| Some((Arc::clone(about), loaded.as_ref().err()?.clone()));
        loaded.iter().filter_map(problem).collect()
    }

    fn load(&self, about: &About) -> anyhow::Result<Arc<Version>> {
        let (bytes, config, limits) = match &self.other {
            Some(other) => (other.bytes.clone(), other.config.clone(), other.limits.clone()),
            None => {
                let Some(file) = self.shelf.get(&about.component) else {
                    bail!("there is no component with the SHA-256 {} in --policies", about.component);
                };
                (crate::base::files::read(file, MAX_COMPONENT)?, None, None)
            }
        };
        let config = config.unwrap_or_else(|| about.config.clone());
        if config.contains(MARK) {
            bail!("its configuration was taken out of the record; give it with --policy and --config");
        }
        let recorded = || serde_json::from_str(&about.limits).unwrap_or_default();
        let limits: Limits = limits.unwrap_or_else(recorded);
        let limits = Limits { cpu: limits.cpu.saturating_mul(SLACK), wall: WALL.max(limits.wall), ..limits };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let component = digest::full(&bytes);
        let compiled = runtime.block_on(self.cache.compiled(&bytes, &component));
        let compiled = compiled.map_err(|error| self.named(&error.to_string()))?;
        let version =
            if self.is_same() { Arc::clone(&about.version) } else { component.get(..12).unwrap_or("").into() };
        let identity = Identity { name: Arc::clone(&about.policy), version, component };
        let loaded = self.engine.load(&compiled, identity, config, limits, Arc::default());
        loaded.map_err(|error| self.named(&error.to_string()))
    }

    fn named(&self, problem: &str) -> anyhow::Error {
        match &self.other {
            Some(other) => anyhow::anyhow!("{}: {problem}", other.file.display()),
            None => anyhow::anyhow!("{problem}"),
        }
    }
}

fn collect(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() && depth < DEEPEST {
            collect(&path, depth + 1, files);
        } else if files.len() < MOST_FILES && path.extension().is_some_and(|end| end == "wasm") {
            files.push(path);
        }
    }
}
