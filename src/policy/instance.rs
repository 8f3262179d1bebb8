//! One running copy of a component: built, asked, and thrown away once it went wrong.

use super::bindings::PolicyPre;
use super::bindings::exports::wayside::policy::routing::Decision;
use super::context::{Call, Context, Deadline};
use super::cut::cut;
use super::host;
use super::limits::Limits;
use super::live::PolicyLive;
use super::question::Question;
use super::refusal::Error;
use super::rooms::Place;
use crate::service::decision::{Called, Fault, FaultKind, LogLine, Outcome};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{self, Poll, Waker};
use std::time::Duration;
use tracing::Level;
use wasmtime::Store;
use wasmtime::component::TypedFunc;

/// CPU time for instantiation and `init` together: they may parse a large configuration or start a language's runtime.
const INIT_CPU: Duration = Duration::from_secs(1);
/// The same on the clock.
const INIT_WALL: Duration = Duration::from_secs(5);
/// Bytes that a guest hands over in one call, at most; more is a trap. Without this, a list whose items all point at
/// the same large text would make the host allocate without end.
const HANDED_OVER: usize = 1 << 20;
/// Bytes that are kept of what a guest says about its own error, and of names of its functions.
const MESSAGE: usize = 4096;
/// The interface that a policy exports; it is found by this name also where the policy is for an older gateway.
const ROUTING: &str = "wayside:policy/routing@0.1.1";

/// A copy that answered `init` and is ready for questions.
pub(super) struct Instance {
    store: Store<Context>,
    exports: Exports,
    /// It may try to wait, so its calls need a stack of their own.
    waits: bool,
    limits: Arc<Limits>,
    /// Calls so far.
    calls: u32,
    /// What it takes up; given back after all the rest of it.
    _place: Arc<Place>,
}

/// What a policy is asked through, looked up once.
#[derive(Clone, Copy)]
struct Exports {
    init: TypedFunc<(String,), (Result<(), String>,)>,
    decide: TypedFunc<(), (Result<Decision, String>,)>,
}

impl Exports {
    fn find(store: &mut Store<Context>, instance: &wasmtime::component::Instance) -> wasmtime::Result<Self> {
        let routing = instance.get_export_index(&mut *store, None, ROUTING);
        let mut function = |name: &str| {
            let index = instance.get_export_index(&mut *store, routing.as_ref(), name);
            index.ok_or_else(|| wasmtime::format_err!("no export `{name}`"))
        };
        let (init, decide) = (function("init")?, function("decide")?);
        Ok(Exports {
            init: instance.get_typed_func(&mut *store, init)?,
            decide: instance.get_typed_func(&mut *store, decide)?,
        })
    }
}

impl Instance {
    /// Makes a copy and calls its `init`. `calls` is where its count starts, so that the copies of a version do not
    /// come of age all at once. The lines that `init` logged come with it.
    ///
    /// # Errors
    /// What the guest said or how it went wrong.
    pub(super) fn build(
        place: Arc<Place>,
        pre: &PolicyPre<Context>,
        config: &str,
        limits: &Arc<Limits>,
        live: &Arc<PolicyLive>,
        waits: bool,
        calls: u32,
    ) -> Result<(Box<Self>, Vec<LogLine>), Error> {
        let mut store = Store::new(pre.engine(), Context::new(limits, Arc::clone(live)));
        store.limiter(|context| &mut context.memory);
        store.set_hostcall_fuel(HANDED_OVER);
        store.epoch_deadline_callback(|mut store| store.data_mut().deadline.tick());
        store.data_mut().deadline = Deadline::new(INIT_CPU, INIT_WALL);
        store.set_epoch_deadline(1);
        let (pre, config) = (pre.instance_pre(), (config.to_owned(),));
        let made = if waits {
            poll_once(async {
                let instance = pre.instantiate_async(&mut store).await?;
                let exports = Exports::find(&mut store, &instance)?;
                let (answer,) = exports.init.call_async(&mut store, config).await?;
                Ok((exports, answer))
            })
        } else {
            let make = || -> wasmtime::Result<_> {
                let instance = pre.instantiate(&mut store)?;
                let exports = Exports::find(&mut store, &instance)?;
                let (answer,) = exports.init.call(&mut store, config)?;
                Ok((exports, answer))
            };
            Some(make())
        };
        let context = store.data_mut();
        let printed = context.wasi.output.take();
        let (exports, answer) = match made {
            Some(Ok(made)) => made,
            Some(Err(error)) => {
                if let Some(refused) = Error::of_wasmtime("an instance", &error) {
                    return Err(refused);
                }
                let fault = context.name_fault(&error);
                let message = with_output(short(format!("`init` failed: {}", fault.message)), printed);
                // Not for its own fault was it so slow: the machine is busy.
                let preempted = fault.kind == FaultKind::Deadline && !context.deadline.is_spent();
                return Err(if preempted { Error::System(message) } else { Error::Component(message) });
            }
            None => return Err(Error::Component(with_output("`init` tried to wait".into(), printed))),
        };
        // Its own words, as they are.
        answer.map_err(|words| Error::Component(short(words)))?;
        let Call { fault, mut logs, .. } = std::mem::take(&mut context.call);
        if let Some(fault) = fault {
            return Err(Error::Component(with_output(fault, printed)));
        }
        logs.extend(printed.map(|message| LogLine { level: Level::WARN, message }));
        Ok((Box::new(Instance { store, exports, waits, limits: Arc::clone(limits), calls, _place: place }), logs))
    }

    /// Asks it. False: it cannot be asked again.
    pub(super) fn decide(&mut self, question: Question) -> (Called, bool) {
        let context = self.store.data_mut();
        context.wasi.begin(question.now_ms, question.seed);
        context.call = Call::default();
        context.memory.refused = false;
        context.deadline = Deadline::new(self.limits.cpu, self.limits.wall);
        context.question = Some(question);
        self.store.set_epoch_deadline(1);
        self.calls = self.calls.saturating_add(1);
        // A panic would be a bug of the host functions; the worker must live on all the same.
        let asked = catch_unwind(AssertUnwindSafe(|| {
            if self.waits {
                poll_once(self.exports.decide.call_async(&mut self.store, ()))
            } else {
                Some(self.exports.decide.call(&mut self.store, ()))
            }
        }));
        let context = self.store.data_mut();
        let (outcome, fit) = match asked {
            Ok(Some(Ok((answer,)))) => (judge(context, answer), true),
            Ok(Some(Err(error))) => {
                let Fault { kind, message } = context.name_fault(&error);
                (fault(kind, message), false)
            }
            Ok(None) => (fault(FaultKind::Wait, "it tried to wait".into()), false),
            Err(_) => (fault(FaultKind::Trap, "the gateway panicked in a call of the guest".into()), false),
        };
        let outcome = match outcome {
            Outcome::Fault(Fault { kind, message }) => {
                let message = with_output(message, context.wasi.output.take());
                Outcome::Fault(Fault { kind, message })
            }
            good => {
                if let Some(message) = context.wasi.output.take() {
                    context.call.logs.push(LogLine { level: Level::INFO, message });
                }
                good
            }
        };
        let call = &mut context.call;
        let (reason, logs) = (std::mem::take(&mut call.reason), std::mem::take(&mut call.logs));
        // An idle instance keeps no snapshot alive.
        let tape = context.question.take().and_then(|question| question.wall).map(|wall| Box::new(wall.tape));
        (Called { outcome, reason, logs, tape }, fit)
    }

    /// CPU time of the last call, if that went wrong.
    pub(super) fn spent(&self) -> Duration {
        self.store.data().deadline.spent()
    }

    /// It has answered often enough, or has grown: time for a new one.
    pub(super) fn of_age(&self) -> bool {
        self.calls >= self.limits.calls || self.store.data().memory.used > self.limits.memory_mark
    }
}

/// An answer of `decide`, and what was noted meanwhile.
fn judge(context: &mut Context, answer: Result<Decision, String>) -> Outcome {
    let decision = match answer {
        Ok(decision) => decision,
        Err(message) => return fault(FaultKind::Error, message),
    };
    if let Some(message) = context.call.fault.take() {
        return fault(FaultKind::BadAnswer, message);
    }
    host::answer(context, decision).unwrap_or_else(|message| fault(FaultKind::BadAnswer, message))
}

fn fault(kind: FaultKind, message: String) -> Outcome {
    Outcome::Fault(Fault { kind, message: short(message) })
}

fn short(mut message: String) -> String {
    cut(&mut message, MESSAGE);
    message
}

/// A fault's message ends with what the guest printed: languages put their stack traces there.
fn with_output(message: String, printed: Option<String>) -> String {
    match printed {
        Some(printed) => format!("{message}; it printed: {printed}"),
        None => message,
    }
}

/// Runs a guest's call to its end. None: it wanted to wait, and is beyond use now.
fn poll_once<T>(call: impl Future<Output = T>) -> Option<T> {
    match pin!(call).poll(&mut task::Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}
