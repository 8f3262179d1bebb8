//! A record that somebody has asked for: one file of a bounded time, that is fetched while it grows and goes afterwards.

use super::Item;
use super::sheet::Sheet;
use super::world::Opening;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The longest time that can be asked for.
pub const LONGEST: Duration = Duration::from_secs(3600);
/// Bytes that are fetched at once, at most.
const PART: u64 = 1 << 20;
/// After its end, it waits so long to be fetched, ms.
const KEPT_MS: u64 = 600_000;
const BEGINS: &str = "asked-";

/// A record that was asked for.
#[derive(Debug)]
pub struct Asked {
    /// Names it.
    pub id: u64,
    /// Exchanges whose coin is not above this are in it.
    pub(super) most: u64,
    /// When it ends, ms since 1970-01-01 UTC.
    pub(super) until_ms: u64,
    /// Bytes of it, at most.
    pub(super) max_size: u64,
    pub(super) path: PathBuf,
    /// Nobody wants it any more.
    given_up: AtomicBool,
    /// It has ended: well, or why not.
    ended: OnceLock<Result<(), String>>,
}

impl Asked {
    pub(super) fn new(folder: &Path, most: u64, now_ms: u64, time: Duration, max_size: u64) -> Self {
        let time = u64::try_from(time.min(LONGEST).as_millis()).unwrap_or(u64::MAX);
        Asked {
            id: now_ms,
            most,
            until_ms: now_ms.saturating_add(time),
            max_size,
            path: folder.join(format!("{BEGINS}{now_ms:013}.{}", super::EXTENSION)),
            given_up: AtomicBool::new(false),
            ended: OnceLock::new(),
        }
    }

    /// It ends at once, and its file goes.
    pub fn give_up(&self) {
        self.given_up.store(true, Relaxed);
    }

    /// Nothing goes into it any more; what went wrong, if that is why.
    pub fn ended(&self) -> Option<&Result<(), String>> {
        self.ended.get()
    }

    /// What stands in it from there on, as far as that is written, a part of it at a time.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn part(&self, from: u64) -> io::Result<Vec<u8>> {
        let mut part = Vec::new();
        match File::open(&self.path) {
            Ok(mut file) => {
                file.seek(SeekFrom::Start(from))?;
                file.take(PART).read_to_end(&mut part)?;
            }
            // Nothing was written yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.ended().is_none() => {}
            Err(error) => return Err(error),
        }
        Ok(part)
    }
}

/// The writer's side of it.
#[derive(Debug)]
pub(super) struct Track {
    pub(super) asked: Arc<Asked>,
    /// None: it has ended.
    open: Option<(File, Sheet)>,
    written: u64,
    frames: Vec<u8>,
}

impl Track {
    /// Begins the file. Those that were asked for before go, also what a killed gateway has left.
    pub(super) fn begin(asked: Arc<Asked>, opening: &Opening, hides_config: bool, now_ms: u64) -> Self {
        let mut frames = Vec::new();
        let open = make(&asked.path)
            .and_then(|file| Sheet::begin(opening, hides_config, now_ms, &mut frames).map(|sheet| (file, sheet)));
        let mut track = Track { asked, open: None, written: 0, frames };
        match open {
            Ok(open) => {
                track.open = Some(open);
                track.write(Ok(()));
            }
            Err(error) => track.end(Err(error)),
        }
        track
    }

    pub(super) fn put(&mut self, item: &Item, now_ms: u64) {
        if let Some((_, sheet)) = &mut self.open {
            let put = sheet.put(item, now_ms, &mut self.frames).map(|_| ());
            self.write(put);
        }
    }

    /// False: it is over for good.
    pub(super) fn tick(&mut self, now_ms: u64, last: bool) -> bool {
        let given_up = self.asked.given_up.load(Relaxed);
        if let Some((_, sheet)) = &mut self.open {
            let over = last || given_up || now_ms >= self.asked.until_ms;
            let ticked = if over { sheet.flush(&mut self.frames) } else { sheet.tick(now_ms, &mut self.frames) };
            self.write(ticked);
            if over {
                self.end(Ok(()));
            }
        }
        let gone = given_up || (self.open.is_none() && now_ms >= self.asked.until_ms.saturating_add(KEPT_MS));
        if gone {
            let _ = std::fs::remove_file(&self.asked.path);
        }
        !gone
    }

    fn write(&mut self, made: io::Result<()>) {
        let Some((file, _)) = &mut self.open else { return };
        let more = self.written.saturating_add(self.frames.len() as u64);
        let written = made.and_then(|()| match more <= self.asked.max_size {
            true => file.write_all(&self.frames),
            false => {
                Err(io::Error::other(format!("record.max_size: it would be more than {} bytes", self.asked.max_size)))
            }
        });
        self.written = more;
        self.frames.clear();
        if written.is_err() {
            self.end(written);
        }
    }

    fn end(&mut self, how: io::Result<()>) {
        self.open = None;
        // Once only.
        let _ = self.asked.ended.set(how.map_err(|error| error.to_string()));
    }
}

fn make(path: &Path) -> io::Result<File> {
    let folder = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    for entry in std::fs::read_dir(folder)?.flatten() {
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(BEGINS)) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}
