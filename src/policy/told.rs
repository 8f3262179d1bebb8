//! What the log is told of faults: each shape of request that goes wrong once, and the rest in one line now and then, so
//! that a policy that fails each request does not fill the disk.

use super::cut::cut;
use crate::http::fields::Fields;
use crate::service::decision::{Fault, FaultKind};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// Between two lines of one kind about one policy.
const PERIOD_MS: u64 = 10_000;
/// Shapes of one version that are told.
const SHAPES: usize = 32;
/// Bytes that are told of headers' names.
const NAMES: usize = 1024;

/// What was told about one policy, and what is still to be told.
#[derive(Debug, Default)]
pub(super) struct Told {
    shapes: Mutex<Shapes>,
    /// Faults of shapes that were told before.
    faulted: Line,
    /// Requests for which nobody was asked.
    unasked: Line,
}

/// The shapes of requests that went wrong with one version.
#[derive(Debug, Default)]
struct Shapes {
    version: String,
    seen: HashSet<u64>,
}

/// One line a period.
#[derive(Debug, Default)]
struct Line {
    /// When the next one may come, ms since the process started.
    next_ms: AtomicU64,
    /// What it will stand for.
    count: AtomicU64,
}

impl Line {
    /// One more. Some: time for a line, which stands for so many.
    fn count(&self, now_ms: u64) -> Option<u64> {
        self.count.fetch_add(1, Relaxed);
        let next_ms = self.next_ms.load(Relaxed);
        let due = now_ms >= next_ms;
        // Unless another worker was quicker.
        let ours = due && self.next_ms.compare_exchange(next_ms, now_ms + PERIOD_MS, Relaxed, Relaxed).is_ok();
        ours.then(|| self.count.swap(0, Relaxed))
    }
}

/// What is to be told of a fault.
#[derive(Debug, PartialEq, Eq)]
enum Telling {
    /// All of it.
    Shape,
    /// A line that stands for so many.
    Line(u64),
    Nothing,
}

impl Told {
    /// Tells the log what it has to know of a fault; `version` is "none" where nobody could be asked. Values of headers
    /// are not told, nor is the path.
    pub(super) fn tell(&self, now_ms: u64, policy: &str, version: &str, fault: &Fault, head: (&str, &Fields)) {
        let (method, headers) = head;
        let Fault { kind, message } = fault;
        let kind_name = kind.name();
        match self.telling(now_ms, version, *kind, method, headers) {
            Telling::Shape => {
                let mut names = names(headers).join(" ");
                cut(&mut names, NAMES);
                tracing::warn!(
                    policy,
                    version,
                    kind = kind_name,
                    method,
                    headers = names,
                    message,
                    "policy fault; more of these are told by their number"
                );
            }
            Telling::Line(count) => {
                tracing::warn!(
                    policy,
                    version,
                    count,
                    kind = kind_name,
                    message,
                    "policy faults since the last such line"
                );
            }
            Telling::Nothing => {}
        }
    }

    fn telling(&self, now_ms: u64, version: &str, kind: FaultKind, method: &str, headers: &Fields) -> Telling {
        let line = match kind {
            FaultKind::Suspended | FaultKind::Broken | FaultKind::Starved => &self.unasked,
            _ if self.is_new(version, shape(kind, method, headers)) => return Telling::Shape,
            _ => &self.faulted,
        };
        line.count(now_ms).map_or(Telling::Nothing, Telling::Line)
    }

    fn is_new(&self, version: &str, shape: u64) -> bool {
        // Nothing that panics runs under this lock.
        let mut shapes = self.shapes.lock().unwrap_or_else(PoisonError::into_inner);
        if shapes.version != version {
            *shapes = Shapes { version: version.to_owned(), seen: HashSet::new() };
        }
        shapes.seen.len() < SHAPES && shapes.seen.insert(shape)
    }
}

fn shape(kind: FaultKind, method: &str, headers: &Fields) -> u64 {
    let mut hasher = DefaultHasher::new();
    (kind, method, names(headers)).hash(&mut hasher);
    hasher.finish()
}

/// Each name once, in order.
fn names(headers: &Fields) -> Vec<String> {
    let mut names: Vec<_> = headers.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(names: &[&'static str]) -> Fields {
        names.iter().map(|name| (*name, "x")).collect()
    }

    fn telling(told: &Told, now_ms: u64, version: &str, kind: FaultKind, names: &[&'static str]) -> Telling {
        told.telling(now_ms, version, kind, "GET", &headers(names))
    }

    #[test]
    fn each_shape_is_told_once_and_the_rest_once_a_period() {
        let told = Told::default();
        let trap = |now_ms, names: &[&'static str]| telling(&told, now_ms, "v1", FaultKind::Trap, names);
        assert_eq!(trap(0, &["a", "b"]), Telling::Shape);
        assert_eq!(trap(0, &["b", "a"]), Telling::Line(1), "the order of headers is no shape");
        assert_eq!(trap(1, &["a"]), Telling::Shape);
        for now_ms in 1..1000 {
            assert_eq!(trap(now_ms, &["a"]), Telling::Nothing);
        }
        assert_eq!(trap(PERIOD_MS, &["a"]), Telling::Line(1000));
        assert_eq!(trap(PERIOD_MS, &["a"]), Telling::Nothing);
        assert_eq!(telling(&told, 1, "v2", FaultKind::Trap, &["a"]), Telling::Shape, "another version");
        assert_eq!(telling(&told, 1, "v2", FaultKind::Error, &["a"]), Telling::Shape, "another kind");
    }

    #[test]
    fn who_is_not_asked_is_told_once_a_period_whatever_the_requests_look_like() {
        let told = Told::default();
        let names = ["a", "b", "c", "d"];
        let mut lines = 0;
        for now_ms in 0..30_000_u64 {
            let name = names[now_ms as usize % names.len()];
            lines += u32::from(telling(&told, now_ms, "v1", FaultKind::Suspended, &[name]) != Telling::Nothing);
        }
        assert_eq!(lines, 3);
    }

    #[test]
    fn clients_cannot_make_it_talk_by_making_up_headers() {
        let told = Told::default();
        let shapes = (0..1000).filter(|number| {
            let mut headers = Fields::default();
            headers.append(format!("x-{number}"), b"x");
            told.telling(0, "v1", FaultKind::Trap, "GET", &headers) == Telling::Shape
        });
        assert_eq!(shapes.count(), SHAPES);
    }
}
