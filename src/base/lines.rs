//! Lines on their way out of the process: a bounded queue, and a thread of its own that writes them. Whoever has a line
//! never waits for whoever reads it, be the reader slow, standing still or gone: what there is no room for, and what
//! cannot be written, is dropped and counted.

use crossbeam_queue::ArrayQueue;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, LazyLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// Lines that wait at most.
const QUEUE: usize = 8192;
/// Bytes that wait at most.
const BYTES: usize = 16 << 20;
/// Bytes that are written at once, about.
const BATCH: usize = 64 << 10;
/// Between two tries of a stream that has no room and does not say when it has.
const AGAIN: Duration = Duration::from_millis(10);
/// Between two looks whether all is written, at the end.
const LOOK: Duration = Duration::from_millis(2);

static OUTPUT: LazyLock<Arc<Lines>> = LazyLock::new(|| Arc::new(Lines::start("standard-output", Standard::Output)));
static ERROR: LazyLock<Lines> = LazyLock::new(|| Lines::start("standard-error", Standard::Error));

/// Standard output: the ready line and the access log.
pub fn output() -> &'static Arc<Lines> {
    &OUTPUT
}

/// Standard error: the process log.
pub fn error() -> &'static Lines {
    &ERROR
}

/// A stream of lines and its writer. The writer ends when this is dropped.
#[derive(Debug)]
pub struct Lines {
    queue: Arc<Queue>,
    /// None: there is no writer, and each line is dropped.
    writer: Option<Thread>,
}

#[derive(Debug)]
struct Queue {
    waiting: ArrayQueue<String>,
    bytes: AtomicUsize,
    /// Lines that were put in, and those of them that were written or lost.
    given: AtomicU64,
    settled: AtomicU64,
    dropped: AtomicU64,
    ended: AtomicBool,
}

impl Lines {
    /// Starts the writer, a thread of this name. Where the system has none to give, each line counts as dropped.
    pub fn start(name: &str, to: impl Write + Send + 'static) -> Lines {
        let queue = Arc::new(Queue {
            waiting: ArrayQueue::new(QUEUE),
            bytes: AtomicUsize::new(0),
            given: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        let of_writer = Arc::clone(&queue);
        let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(move || write(&of_writer, to));
        Lines { queue, writer: spawned.ok().map(|handle| handle.thread().clone()) }
    }

    /// Queues a line, which ends with a line feed, or counts it as dropped. It is not put together where there is no room.
    pub fn push(&self, line: impl FnOnce() -> String) {
        let queue = &self.queue;
        let room = || !queue.waiting.is_full() && queue.bytes.load(Relaxed) < BYTES;
        let Some(writer) = self.writer.as_ref().filter(|_| room()) else {
            queue.dropped.fetch_add(1, Relaxed);
            return;
        };
        let line = line();
        let bytes = line.len();
        queue.bytes.fetch_add(bytes, Relaxed);
        if queue.waiting.push(line).is_err() {
            queue.bytes.fetch_sub(bytes, Relaxed);
            queue.dropped.fetch_add(1, Relaxed);
            return;
        }
        queue.given.fetch_add(1, SeqCst);
        // A system call only where the writer has nothing to do.
        writer.unpark();
    }

    /// Lines that were not written.
    pub fn dropped(&self) -> u64 {
        self.queue.dropped.load(Relaxed)
    }

    /// Waits until all that was queued before is written, but no longer than this.
    pub fn flush(&self, within: Duration) {
        let (given, until) = (self.queue.given.load(SeqCst), Instant::now() + within);
        while self.queue.settled.load(SeqCst) < given && Instant::now() < until {
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.queue.ended.store(true, SeqCst);
        if let Some(writer) = &self.writer {
            writer.unpark();
        }
    }
}

/// Writes in one piece what is there at once, until the end.
fn write(queue: &Queue, mut to: impl Write) {
    let mut batch = Vec::with_capacity(BATCH);
    // The last line that was written is half a line.
    let mut torn = false;
    loop {
        if torn {
            batch.push(b'\n');
        }
        let mut lines = 0;
        while batch.len() < BATCH
            && let Some(line) = queue.waiting.pop()
        {
            queue.bytes.fetch_sub(line.len(), Relaxed);
            batch.extend_from_slice(line.as_bytes());
            lines += 1;
        }
        if lines == 0 {
            batch.clear();
            if queue.ended.load(SeqCst) {
                return;
            }
            std::thread::park();
            continue;
        }
        let written = write_all(&mut to, &batch);
        let lost = batch[written..].iter().filter(|byte| **byte == b'\n').count() as u64;
        queue.dropped.fetch_add(lost.min(lines), Relaxed);
        queue.settled.fetch_add(lines, SeqCst);
        torn = lost > 0 && batch[..written].last().map_or(torn, |last| *last != b'\n');
        batch.clear();
    }
}

/// How many of the bytes could be written. Waits for as long as the reader stands still.
fn write_all(to: &mut impl Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match to.write(&bytes[written..]) {
            Ok(0) => break,
            Ok(some) => written += some,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Somebody who shares the stream has made it so that it does not wait.
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(AGAIN),
            // Nobody reads, or the disk is full; that may be different later.
            Err(_) => break,
        }
    }
    written
}

/// The process' own streams, without the buffers and locks of `std::io`, in which a stuck writer would hold others up.
#[derive(Debug)]
enum Standard {
    Output,
    Error,
}

impl Write for Standard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match self {
            Standard::Output => rustix::io::write(io::stdout(), bytes),
            Standard::Error => rustix::io::write(io::stderr(), bytes),
        };
        Ok(written?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    const LONG: Duration = Duration::from_secs(20);

    /// What each write is answered, from the end; then all is taken.
    type Answers = Vec<io::Result<usize>>;

    /// What has arrived, and what the next writes are answered.
    #[derive(Clone, Default)]
    struct Reader(Arc<Mutex<(Vec<u8>, Answers)>>);

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut inner = self.0.lock().unwrap();
            let taken = inner.1.pop().unwrap_or(Ok(bytes.len()))?;
            inner.0.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Reader {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().0.clone()).unwrap()
        }
        fn answers(&self, answers: impl IntoIterator<Item = io::Result<usize>>) {
            self.0.lock().unwrap().1 = answers.into_iter().collect();
        }
    }

    fn say(lines: &Lines, line: &str) {
        lines.push(|| format!("{line}\n"));
        lines.flush(LONG);
    }

    #[test]
    fn a_reader_that_is_gone_costs_lines_and_one_that_returns_gets_whole_ones() {
        let reader = Reader::default();
        let lines = Lines::start("lines", reader.clone());
        say(&lines, "one");
        reader.answers([Err(ErrorKind::BrokenPipe.into())]);
        say(&lines, "two");
        assert_eq!(lines.dropped(), 1);
        // Half a line, and then the disk is full.
        reader.answers([Err(ErrorKind::StorageFull.into()), Ok(2)]);
        say(&lines, "three");
        say(&lines, "four");
        assert_eq!((reader.text().as_str(), lines.dropped()), ("one\nth\nfour\n", 2));
        // Not ready, interrupted, a byte at a time: none of it is lost.
        let errors = [ErrorKind::WouldBlock, ErrorKind::Interrupted].map(|kind| Err(kind.into()));
        reader.answers(errors.into_iter().chain([Ok(1), Ok(1)]));
        say(&lines, "five");
        assert_eq!((reader.text().as_str(), lines.dropped()), ("one\nth\nfour\nfive\n", 2));
    }

    /// Takes nothing until it is let go.
    struct Stuck(std::sync::mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stands_still_holds_nobody_up_and_the_queue_is_bounded() {
        let (let_go, stuck) = std::sync::mpsc::channel();
        let lines = Lines::start("lines", Stuck(stuck));
        let large = "x".repeat(BYTES / 100);
        for _ in 0..200 {
            lines.push(|| large.clone() + "\n");
        }
        let bounded = lines.dropped();
        // One more may be with the writer, and one more goes over the bound.
        assert!((98..=100).contains(&bounded), "{bounded}");
        lines.flush(Duration::ZERO);
        drop(let_go);
        lines.flush(LONG);
        assert_eq!(lines.dropped(), bounded);
        for _ in 0..QUEUE / 2 {
            lines.push(|| "y\n".into());
        }
        lines.flush(LONG);
        assert_eq!(lines.dropped(), bounded);
    }

    #[test]
    fn a_line_that_finds_no_room_is_not_put_together() {
        let (_let_go, stuck) = std::sync::mpsc::channel();
        let lines = Lines::start("lines", Stuck(stuck));
        let (mut pushed, mut built) = (0, 0);
        while lines.dropped() == 0 {
            pushed += 1;
            lines.push(|| {
                built += 1;
                "x\n".into()
            });
        }
        assert_eq!(built, pushed - 1);
        assert!(pushed > QUEUE);
    }
}
