//! What a guest's calls act on: the question, what was said so far, and the bounds that hold meanwhile.

use super::host::Inputs;
use super::limits::Limits;
use super::live::PolicyLive;
use super::question::Question;
use super::wasi::Wasi;
use crate::base::chance::Chance;
use crate::service::decision::{Edits, Fault, FaultKind, LogLine};
use crate::service::plan::Plan;
use std::sync::Arc;
use std::time::{Duration, Instant};
use wasmtime::{ResourceLimiter, UpdateDeadline};
use wasmtime_wasi::{WasiCtxView, WasiView};

/// The data of one instance's store.
pub(super) struct Context {
    /// Only while `decide` runs.
    pub(super) question: Option<Question>,
    /// What the guest read last by `request.inputs`.
    pub(super) inputs: Inputs,
    pub(super) call: Call,
    pub(super) memory: Memory,
    pub(super) deadline: Deadline,
    pub(super) wasi: Wasi,
    pub(super) live: Arc<PolicyLive>,
}

/// What a guest said in the call that runs now.
#[derive(Default)]
pub(super) struct Call {
    /// The first thing that the interface forbids. It turns the answer into a fault when the call ends: a host function
    /// that returned an error would cost the whole instance.
    pub(super) fault: Option<String>,
    pub(super) reason: String,
    pub(super) logs: Vec<LogLine>,
    pub(super) plan: Plan,
    pub(super) edits: Edits,
    pub(super) edit_count: usize,
    pub(super) chance: Option<Chance>,
}

impl Context {
    pub(super) fn new(limits: &Limits, live: Arc<PolicyLive>) -> Self {
        Context {
            question: None,
            inputs: Inputs::default(),
            call: Call::default(),
            memory: Memory { most: limits.memory, used: 0, refused: false },
            deadline: Deadline::new(Duration::MAX, Duration::MAX),
            wasi: Wasi::new(),
            live,
        }
    }

    /// Notes a bad call; the first one counts.
    #[cold]
    pub(super) fn bad(&mut self, message: impl Into<String>) {
        self.call.fault.get_or_insert_with(|| message.into());
    }

    /// The question, for a function that does not work during `init`; its name is for the fault.
    pub(super) fn question(&mut self, function: &str) -> Option<&mut Question> {
        if self.question.is_none() {
            self.bad(format!("`{function}` cannot be called during `init`"));
        }
        self.question.as_mut()
    }

    /// As above, where the question is not looked at.
    pub(super) fn deciding(&mut self, function: &str) -> bool {
        self.question(function).is_some()
    }

    /// Names what ended a call. `error` is what wasmtime says about it.
    pub(super) fn name_fault(&self, error: &wasmtime::Error) -> Fault {
        if self.deadline.passed {
            let Deadline { cpu, wall, .. } = &self.deadline;
            return Fault {
                kind: FaultKind::Deadline,
                message: format!("took longer than {cpu:?} of CPU time or {wall:?} on the clock"),
            };
        }
        let mut message = error.root_cause().to_string();
        if let Some(trace) = error.downcast_ref::<wasmtime::WasmBacktrace>() {
            let names: Vec<&str> = trace.frames().iter().filter_map(|frame| frame.func_name()).take(5).collect();
            if !names.is_empty() {
                message = format!("{message} in {}", names.join(" < "));
            }
        }
        if self.memory.refused {
            message = format!("{message}, after it asked for more than {} bytes of memory", self.memory.most);
            return Fault { kind: FaultKind::Memory, message };
        }
        Fault { kind: FaultKind::Trap, message }
    }
}

impl WasiView for Context {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.wasi.ctx()
    }
}

/// How much memory an instance has and may have.
pub(super) struct Memory {
    most: usize,
    /// Of all its linear memories, in bytes.
    pub(super) used: usize,
    /// It asked for more in the call that runs now.
    pub(super) refused: bool,
}

/// From one look at the deadlines of running guests to the next.
pub(super) const TICK: Duration = Duration::from_millis(2);
/// What a call that goes wrong costs where no tick came to measure it: its own time, and a new instance.
const FAULT: Duration = Duration::from_micros(20);
/// Table elements of one instance; Python has 40,000.
const TABLE_ELEMENTS: usize = 100_000;

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, now: usize, wanted: usize, most: Option<usize>) -> wasmtime::Result<bool> {
        let used = self.used.saturating_add(wanted.saturating_sub(now));
        if used > self.most {
            self.refused = true;
            return Ok(false);
        }
        if most.is_none_or(|most| wanted <= most) {
            self.used = used;
        }
        Ok(true)
    }

    fn table_growing(&mut self, _now: usize, wanted: usize, _most: Option<usize>) -> wasmtime::Result<bool> {
        Ok(wanted <= TABLE_ELEMENTS)
    }
}

/// How long a call may take. Looking at the thread's CPU clock is a system call, so the first look is at the first tick
/// of the epoch, up to 2 ms into the call: nearly every call is over by then and pays nothing.
pub(super) struct Deadline {
    cpu: Duration,
    wall: Duration,
    first: Option<(Duration, Instant)>,
    pub(super) passed: bool,
}

impl Deadline {
    pub(super) fn new(cpu: Duration, wall: Duration) -> Self {
        Deadline { cpu, wall, first: None, passed: false }
    }

    /// CPU time of a call that went wrong. Only from the first tick on is it measured; a call that came to a tick has
    /// the time between two ticks added, which makes up for all those that took some of it and came to none.
    pub(super) fn spent(&self) -> Duration {
        let measured = |(first, _)| thread_cpu_time().saturating_sub(first) + TICK;
        self.first.map_or(FAULT, measured)
    }

    /// The CPU time is used up, not only the time on the clock.
    pub(super) fn is_spent(&self) -> bool {
        self.first.is_some_and(|(first, _)| thread_cpu_time().saturating_sub(first) >= self.cpu)
    }

    /// At each tick: on, or an end to it?
    pub(super) fn tick(&mut self) -> wasmtime::Result<UpdateDeadline> {
        let (cpu, now) = (thread_cpu_time(), Instant::now());
        let (first_cpu, first) = *self.first.get_or_insert((cpu, now));
        if cpu.saturating_sub(first_cpu) < self.cpu && now.saturating_duration_since(first) < self.wall {
            return Ok(UpdateDeadline::Continue(1));
        }
        self.passed = true;
        Err(wasmtime::format_err!("past the deadline"))
    }
}

fn thread_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}
