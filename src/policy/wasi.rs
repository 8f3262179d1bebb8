//! WASI 0.2 as policies find it: some toolchains' runtimes want it, so it is there, and nothing is in it. No files, no
//! network, no environment; a clock that stands still during a call; random numbers from the call's seed; output that goes
//! into a small memory.

use crate::base::chance::Chance;
use rand_core::TryRng;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task;
use std::time::Duration;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, ResourceTable, WasiCtx, WasiCtxView, WasiView, async_trait};

/// Bytes of output that are kept, the last ones.
const OUTPUT: usize = 4096;
/// Bytes of output in one call, at most; more is a trap, or printing would be a way to keep a worker busy for free.
const PRINTED: usize = 64 << 10;
/// Resources that an instance can have open, such as streams; a guest that leaks them traps.
const RESOURCES: usize = 1024;
/// Random bytes in one call, at most.
const RANDOM: u64 = 64 << 10;
/// The seed during `init`: every instance draws the same sequence there.
const SEED: u64 = 0x5741_5953_4944_4521;

/// One instance's WASI.
pub(super) struct Wasi {
    context: WasiCtx,
    table: ResourceTable,
    given: Arc<Given>,
    /// Standard error; standard output goes there as well.
    pub(super) output: Output,
}

impl Wasi {
    pub(super) fn new() -> Self {
        let given = Arc::new(Given::default());
        let output = Output::default();
        let context = WasiCtx::builder()
            .stdout(output.clone())
            .stderr(output.clone())
            .wall_clock(Clock(Arc::clone(&given)))
            .monotonic_clock(Clock(Arc::clone(&given)))
            .secure_random(Dice(Arc::clone(&given)))
            .insecure_random(Dice(Arc::clone(&given)))
            .insecure_random_seed(SEED.into())
            .max_random_size(RANDOM)
            .allow_tcp(false)
            .allow_udp(false)
            .build();
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES);
        Wasi { context, table, given, output }
    }

    /// A call begins: what its clocks show, in ms since 1970, and the call's seed.
    pub(super) fn begin(&self, now_ms: u64, seed: u64) {
        self.given.now_ms.store(now_ms, Relaxed);
        // Not the sequence that `random` draws from, but as repeatable.
        self.given.chance.store(Chance(seed ^ 1).next_u64(), Relaxed);
    }
}

impl WasiView for Wasi {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.context, table: &mut self.table }
    }
}

/// What a call finds. Read and written by the thread that runs the instance alone.
struct Given {
    /// What the clocks show, in ms since 1970.
    now_ms: AtomicU64,
    /// Where the random numbers have come to.
    chance: AtomicU64,
}

impl Default for Given {
    /// During `init`, which is always the same time. Not 0: Go's runtime takes that for a clock that does not run.
    fn default() -> Self {
        Given { now_ms: AtomicU64::new(1), chance: AtomicU64::new(SEED) }
    }
}

/// Random numbers: SplitMix64.
struct Dice(Arc<Given>);

impl TryRng for Dice {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.try_next_u64().map(|number| (number >> 32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut chance = Chance(self.0.chance.load(Relaxed));
        let number = chance.next_u64();
        self.0.chance.store(chance.0, Relaxed);
        Ok(number)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for part in bytes.chunks_mut(8) {
            let number = self.try_next_u64()?.to_le_bytes();
            part.iter_mut().zip(number).for_each(|(byte, new)| *byte = new);
        }
        Ok(())
    }
}

struct Clock(Arc<Given>);

impl HostWallClock for Clock {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        Duration::from_millis(self.0.now_ms.load(Relaxed))
    }
}

impl HostMonotonicClock for Clock {
    fn resolution(&self) -> u64 {
        1_000_000
    }

    fn now(&self) -> u64 {
        self.0.now_ms.load(Relaxed).saturating_mul(1_000_000)
    }
}

/// The last few KiB of what a guest printed.
#[derive(Clone, Default)]
pub(super) struct Output(Arc<Printed>);

#[derive(Default)]
struct Printed {
    /// Bytes that were printed since it was taken last. 0: nothing is in it, which is cheaper to ask than the lock.
    printed: AtomicUsize,
    bytes: Mutex<Vec<u8>>,
}

impl Output {
    /// False: that was too much.
    fn keep(&self, new: &[u8]) -> bool {
        let mut bytes = self.0.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let printed = self.0.printed.load(Relaxed).saturating_add(new.len());
        self.0.printed.store(printed, Relaxed);
        let new = &new[new.len().saturating_sub(OUTPUT)..];
        let over = (bytes.len() + new.len()).saturating_sub(OUTPUT);
        bytes.drain(..over);
        bytes.extend_from_slice(new);
        printed <= PRINTED
    }

    /// What was printed since this was asked last, if anything.
    pub(super) fn take(&self) -> Option<String> {
        if self.0.printed.load(Relaxed) == 0 {
            return None;
        }
        let mut bytes = self.0.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.printed.store(0, Relaxed);
        let text = String::from_utf8_lossy(&bytes).trim().to_owned();
        bytes.clear();
        (!text.is_empty()).then_some(text)
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl OutputStream for Output {
    fn write(&mut self, bytes: bytes::Bytes) -> StreamResult<()> {
        match self.keep(&bytes) {
            true => Ok(()),
            false => Err(StreamError::Trap(wasmtime::format_err!("it printed more than {PRINTED} bytes in one call"))),
        }
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        // Always room: what is new pushes out what is old.
        Ok(64 << 10)
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl AsyncWrite for Output {
    fn poll_write(self: Pin<&mut Self>, _: &mut task::Context<'_>, bytes: &[u8]) -> task::Poll<io::Result<usize>> {
        self.keep(bytes);
        task::Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut task::Context<'_>) -> task::Poll<io::Result<()>> {
        task::Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_keeps_the_end_and_never_grows() {
        let output = Output::default();
        assert_eq!(output.take(), None);
        for i in 0..100_000 {
            output.keep(format!("line {i}\n").as_bytes());
        }
        assert!(!output.keep(b"line 99999\n"), "too much for one call");
        assert!(output.0.bytes.lock().unwrap().capacity() <= 4 * OUTPUT);
        let text = output.take().unwrap();
        assert!(text.len() <= OUTPUT && text.ends_with("line 99999"));
        assert!(output.keep(&[b'x'; PRINTED]) && !output.keep(b"x"));
        assert_eq!(output.take().unwrap().len(), OUTPUT);
        assert_eq!(output.take(), None);
    }
}
