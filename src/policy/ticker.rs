//! The ticker: a thread that advances the epoch, by which calls that run too long are noticed. It sleeps while no call
//! runs, and the first call after that wakes it.

use super::context::TICK;
use super::rooms::Rooms;
use std::io;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::{self, JoinHandle, Thread};

/// One more call that began, in a worker's count; below it are those that run.
const BEGUN: u64 = 1 << 32;

/// What calls and the ticker know of each other.
///
/// Each side writes its own word and then reads the other's, all in one order (`SeqCst`): a call counts itself and then
/// looks whether the ticker is asleep; the ticker says that it sleeps and then looks for calls. So one of them sees the
/// other, whichever comes first.
pub(super) struct Pulse {
    /// One for each worker.
    workers: Box<[Count]>,
    asleep: AtomicBool,
    stop: AtomicBool,
    /// Whom to wake.
    ticker: OnceLock<Thread>,
}

/// Calls that began and calls that run. On cache lines of its own, since every call writes here.
#[derive(Default)]
#[repr(align(128))]
struct Count(AtomicU64);

/// A call that runs; it ends when this is dropped.
pub(super) struct Running<'a>(&'a Count);

impl Pulse {
    /// For so many workers. The ticker is awake.
    fn new(workers: usize) -> Arc<Self> {
        Arc::new(Pulse {
            workers: (0..workers.max(1)).map(|_| Count::default()).collect(),
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            ticker: OnceLock::new(),
        })
    }

    /// A call begins on this worker: from now on until it ends, there are ticks.
    pub(super) fn call(&self, worker: usize) -> Running<'_> {
        let count = &self.workers[worker % self.workers.len()];
        count.0.fetch_add(BEGUN + 1, SeqCst);
        if self.asleep.load(SeqCst) {
            self.wake();
        }
        Running(count)
    }

    #[cold]
    fn wake(&self) {
        // Unless another worker was quicker.
        if self.asleep.swap(false, SeqCst)
            && let Some(ticker) = self.ticker.get()
        {
            ticker.unpark();
        }
    }

    /// Ends the ticker's thread.
    pub(super) fn stop(&self) {
        self.stop.store(true, SeqCst);
        if let Some(ticker) = self.ticker.get() {
            ticker.unpark();
        }
    }

    /// Nothing ticks, since no call runs.
    pub(super) fn is_asleep(&self) -> bool {
        self.asleep.load(SeqCst)
    }

    /// Calls that began, all workers', and whether one runs.
    fn calls(&self) -> (u64, bool) {
        self.workers.iter().fold((0, false), |(begun, runs), count| {
            let count = count.0.load(SeqCst);
            (begun.wrapping_add(count / BEGUN), runs || count % BEGUN > 0)
        })
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, SeqCst);
    }
}

/// The ticker's side.
struct Watch {
    pulse: Arc<Pulse>,
    /// Calls that had begun at the last look.
    begun: u64,
}

impl Watch {
    /// No call runs, and none began since the last look. While calls come one after the other, it would be dearer to fall
    /// asleep and be woken each time.
    fn is_quiet(&mut self) -> bool {
        let (begun, runs) = self.pulse.calls();
        let none_began = std::mem::replace(&mut self.begun, begun) == begun;
        none_began && !runs
    }

    /// False: a call came in the last moment.
    fn falls_asleep(&self) -> bool {
        self.pulse.asleep.store(true, SeqCst);
        let quiet = self.pulse.calls() == (self.begun, false);
        if !quiet {
            self.pulse.asleep.store(false, SeqCst);
        }
        quiet
    }

    /// Ticks while calls run. `pause` takes the time from one tick to the next; `tick` says whether to go on.
    fn run(mut self, pause: impl Fn(), mut tick: impl FnMut() -> bool) {
        // There is one ticker, so nobody set it before.
        let _ = self.pulse.ticker.set(thread::current());
        while !self.pulse.stop.load(SeqCst) {
            pause();
            if !tick() {
                return;
            }
            if self.is_quiet() && self.falls_asleep() {
                while self.pulse.is_asleep() && !self.pulse.stop.load(SeqCst) {
                    thread::park();
                }
                // For a call that comes alone, one tick is enough.
                self.begun = self.pulse.calls().0;
            }
        }
    }
}

/// Starts the thread, one that starves less than a worker's.
pub(super) fn start(rooms: &Rooms, workers: usize) -> io::Result<(Arc<Pulse>, JoinHandle<()>)> {
    // Weak: an engine that only its ticker holds would never end.
    let engines: Vec<_> = rooms.engines().map(wasmtime::Engine::weak).collect();
    let tick = move || {
        let advance = |engine: &wasmtime::EngineWeak| engine.upgrade().map(|engine| engine.increment_epoch());
        engines.iter().all(|engine| advance(engine).is_some())
    };
    let pulse = Pulse::new(workers);
    let watch = Watch { pulse: Arc::clone(&pulse), begun: 0 };
    let thread = thread::Builder::new().name("policy-ticker".into()).spawn(move || {
        // Needs a privilege; without it, deadlines are looked at a little later on a busy machine.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), -10);
        watch.run(|| thread::sleep(TICK), tick);
    })?;
    Ok((pulse, thread))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::until;

    fn watch(workers: usize) -> (Arc<Pulse>, Watch) {
        let pulse = Pulse::new(workers);
        (Arc::clone(&pulse), Watch { pulse, begun: 0 })
    }

    /// One turn of the ticker, which is awake.
    fn dozes(watch: &mut Watch) -> bool {
        watch.is_quiet() && watch.falls_asleep()
    }

    #[test]
    fn at_rest_it_sleeps_after_one_look_and_while_a_call_runs_it_never_does() {
        let (pulse, mut watch) = watch(2);
        assert!(dozes(&mut watch));
        let running = pulse.call(1);
        assert!(!pulse.is_asleep(), "woken");
        for _ in 0..1000 {
            assert!(!dozes(&mut watch));
        }
        drop(running);
        assert!(dozes(&mut watch));
        drop(pulse.call(0));
        assert!(!dozes(&mut watch), "one began: there may be more");
        assert!(dozes(&mut watch));
    }

    #[test]
    fn whichever_comes_first_a_call_is_not_without_ticks() {
        // A call counts itself (c) and looks whether the ticker sleeps (l); the ticker says that it sleeps (s) and looks
        // for calls (f). Every order of these in which each side keeps its own.
        for order in ["clsf", "cslf", "csfl", "sclf", "scfl", "sfcl"] {
            let (pulse, watch) = watch(1);
            let mut slept = false;
            for step in order.chars() {
                match step {
                    'c' => drop(pulse.workers[0].0.fetch_add(BEGUN + 1, SeqCst)),
                    'l' if pulse.asleep.load(SeqCst) => pulse.wake(),
                    's' => pulse.asleep.store(true, SeqCst),
                    'f' => slept = pulse.calls() == (watch.begun, false),
                    _ => {}
                }
            }
            assert!(!slept || !pulse.is_asleep(), "{order}: asleep while a call runs");
        }
    }

    #[test]
    fn each_call_of_many_threads_gets_its_tick_and_at_rest_there_is_none() {
        let (pulse, watch) = watch(2);
        let ticks = Arc::new(AtomicU64::new(0));
        let ticker = {
            let ticks = Arc::clone(&ticks);
            thread::spawn(move || watch.run(thread::yield_now, || ticks.fetch_add(1, SeqCst) < u64::MAX))
        };
        thread::scope(|scope| {
            for worker in 0..4 {
                let (pulse, ticks) = (&pulse, &ticks);
                scope.spawn(move || {
                    for _ in 0..500 {
                        let before = ticks.load(SeqCst);
                        let _running = pulse.call(worker);
                        until(|| ticks.load(SeqCst) > before);
                    }
                });
            }
        });
        until(|| pulse.is_asleep());
        let at_rest = ticks.load(SeqCst);
        (0..10_000).for_each(|_| thread::yield_now());
        assert_eq!((ticks.load(SeqCst), pulse.is_asleep()), (at_rest, true));
        drop(pulse.call(0));
        until(|| ticks.load(SeqCst) > at_rest);
        pulse.stop();
        ticker.join().unwrap();
    }
}
