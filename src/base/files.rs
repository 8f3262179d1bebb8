//! Reading files that people write and name: regular files only, bounded in size and in time. A FIFO, a device or a
//! directory is refused by its kind; a file system that does not answer costs one thread for each file, once. And writing
//! those that the gateway keeps for itself.

use rustix::fs::OFlags;
use std::collections::HashMap;
use std::fs::{File, FileType, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// A file on a disk is there in a thousandth of this.
const WITHIN: Duration = Duration::from_secs(2);

/// The file's bytes. Waits for 2 s at most, so that it may be called where nothing else has to go on.
///
/// # Errors
/// It is not there, no regular file, larger than `most` bytes, or does not answer; the text says which.
pub fn read(file: &Path, most: u64) -> io::Result<Vec<u8>> {
    read_within(file, most, WITHIN)
}

/// The same for a file so large that a slow disk needs longer: waits for this long at most.
///
/// # Errors
/// As for [`read`].
pub fn read_within(file: &Path, most: u64, time: Duration) -> io::Result<Vec<u8>> {
    within(file, time, move |file| read_here(file, most))
}

/// The same as text.
///
/// # Errors
/// As for [`read`], or it is not UTF-8.
pub fn read_text(file: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(read(file, most)?).map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// The same for a task, which waits without holding up its thread.
///
/// # Errors
/// As for [`read_text`].
pub async fn read_text_beside(file: &Path, most: u64) -> io::Result<String> {
    let file = file.to_owned();
    tokio::task::spawn_blocking(move || read_text(&file, most)).await.map_err(io::Error::other)?
}

/// Writes a file that is ours alone, beside and then renamed, so that nobody sees half of it. It was true at this time, which
/// becomes its own.
///
/// # Errors
/// It cannot be written.
pub fn put(file: &Path, bytes: &[u8], time: SystemTime) -> io::Result<()> {
    let beside = file.with_extension("new");
    let mut written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    written.write_all(bytes)?;
    written.set_modified(time)?;
    drop(written);
    std::fs::rename(&beside, file)
}

/// What stands in such a file was true at this time.
///
/// # Errors
/// It is not there, or cannot be changed.
pub fn confirm(file: &Path, time: SystemTime) -> io::Result<()> {
    File::options().write(true).open(file)?.set_modified(time)
}

fn read_here(file: &Path, most: u64) -> io::Result<Vec<u8>> {
    // Before it is opened: to open a device does something to it, and to open a FIFO does something to its writer.
    must_be_file(std::fs::metadata(file)?.file_type())?;
    // Should it have become a FIFO since: that is opened without a writer, and refused.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(file)?;
    must_be_file(opened.metadata()?.file_type())?;
    let mut bytes = Vec::new();
    opened.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it is larger than {most} bytes")));
    }
    Ok(bytes)
}

fn must_be_file(kind: FileType) -> io::Result<()> {
    let kind = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "a directory",
        kind if kind.is_fifo() => "a FIFO",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Err(io::Error::new(ErrorKind::InvalidInput, format!("it is {kind}, and only regular files are read")))
}

/// Files of which something was asked that has not ended in time, each with the number of what was asked.
static HUNG: LazyLock<Mutex<HashMap<PathBuf, u64>>> = LazyLock::new(Mutex::default);

fn hung() -> MutexGuard<'static, HashMap<PathBuf, u64>> {
    HUNG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What `ask` comes to, on a thread of its own, or that it takes too long. A file that once did not answer is not asked
/// again before it has.
fn within<T: Send + 'static>(
    file: &Path,
    within: Duration,
    ask: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let silent = || io::Error::new(ErrorKind::TimedOut, "its file system does not answer");
    if hung().contains_key(file) {
        return Err(silent());
    }
    let (answer, answered) = mpsc::channel();
    let (number, asked) = (ASKED.fetch_add(1, Relaxed), file.to_owned());
    std::thread::Builder::new().name("file".into()).spawn(move || {
        let _ = answer.send(ask(&asked));
        // After the answer: whoever gives up looks for it once more under this lock.
        let mut hung = hung();
        if hung.get(&asked) == Some(&number) {
            hung.remove(&asked);
        }
    })?;
    match answered.recv_timeout(within) {
        Ok(answer) => answer,
        Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("it could not be read")),
        Err(RecvTimeoutError::Timeout) => {
            let mut hung = hung();
            answered.try_recv().unwrap_or_else(|_| {
                hung.insert(file.to_owned(), number);
                Err(silent())
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "four").unwrap();
        assert_eq!(read(&file, 4).unwrap(), b"four");
        assert_eq!(read_text(&file, 5).unwrap(), "four");
        assert_eq!(read(&file, 3).unwrap_err().to_string(), "it is larger than 3 bytes");
        std::fs::write(&file, [0xff]).unwrap();
        assert_eq!(read_text(&file, 4).unwrap_err().to_string(), "it is not UTF-8 text");
        assert_eq!(read(&folder.path().join("none"), 4).unwrap_err().kind(), ErrorKind::NotFound);
        std::os::unix::fs::symlink("file", folder.path().join("link")).unwrap();
        assert_eq!(read(&folder.path().join("link"), 4).unwrap(), [0xff]);
    }

    #[test]
    fn what_is_no_file_is_refused_by_its_kind() {
        let folder = tempfile::tempdir().unwrap();
        let (fifo, socket) = (folder.path().join("fifo"), folder.path().join("socket"));
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let _bound = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let device = |name: &str| PathBuf::from("/dev").join(name);
        let cases = [
            (fifo, "a FIFO"),
            (socket, "a socket"),
            (folder.path().to_owned(), "a directory"),
            (device("zero"), "a device"),
            (device("null"), "a device"),
        ];
        for (file, kind) in cases {
            let problem = read(&file, 4).unwrap_err().to_string();
            assert_eq!(problem, format!("it is {kind}, and only regular files are read"), "{}", file.display());
        }
    }

    #[test]
    fn a_file_that_does_not_answer_is_waited_for_once() {
        let file = Path::new("/a/file/that/hangs");
        let (let_go, hangs) = mpsc::channel::<()>();
        let asked = within(file, Duration::ZERO, move |_| {
            let _ = hangs.recv();
            Ok(1)
        });
        assert_eq!(asked.unwrap_err().kind(), ErrorKind::TimedOut);
        // No second thread; another file is another matter.
        let again = within(file, WITHIN, |_| -> io::Result<()> { panic!("asked again") });
        assert_eq!(again.unwrap_err().kind(), ErrorKind::TimedOut);
        assert_eq!(within(Path::new("/another"), WITHIN, |_| Ok(2)).unwrap(), 2);
        drop(let_go);
        let began = std::time::Instant::now();
        while hung().contains_key(file) {
            assert!(began.elapsed() < Duration::from_secs(20));
            std::thread::yield_now();
        }
        assert_eq!(within(file, WITHIN, |_| Ok(3)).unwrap(), 3);
    }
}
