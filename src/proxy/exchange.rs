//! One exchange on its way: what is known of it so far, who carries it, and its place on the client's connection. It
//! finishes exactly once: when it is dropped, which is when the last byte of the response is gone or the client is.

use super::decide::Ask;
use super::worker::Worker;
use crate::base::trace::TraceContext;
use crate::http::downstream::clock::{Active, Clock};
use crate::http::fields::Fields;
use crate::http::request::{Head, Peer};
use crate::http::settings::{AccessLog, Gateway, Telemetry};
use crate::policy::release::Watched;
use crate::policy::{Question, Version, Wall};
use crate::service::admission::Place;
use crate::service::balance::Picked;
use crate::service::catalog::Catalog;
use crate::service::decision::Called;
use crate::service::decision::said::Said;
use crate::service::record::taped::{Call, Taped};
use crate::service::record::{Attempt, AttemptError, By, End, Record};
use smallvec::SmallVec;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// One request and its response.
#[derive(Debug)]
pub struct Exchange {
    /// Who carries it.
    pub worker: Rc<Worker>,
    /// Keeps the connection's idle timer still.
    pub active: Active,
    /// What is known of it.
    pub record: Record,
    /// Its place at its service, where places are limited.
    pub place: Option<Place>,
    /// Canaries to which it matters what comes of it.
    pub watched: SmallVec<[Watched; 1]>,
}

impl Exchange {
    /// Begins: finds the trace.
    pub fn begin(
        worker: &Rc<Worker>,
        peer: Arc<Peer>,
        active: Active,
        headers: &Fields,
        telemetry: &Telemetry,
    ) -> Box<Self> {
        worker.recorder.begin();
        let (parent, state) = (headers.only("traceparent"), headers.all("tracestate"));
        let sampler = worker.recorder.sampler(telemetry);
        let trace = TraceContext::begin(parent, state, sampler, &mut worker.chance.borrow_mut());
        let mut record = Record::new(active.began, worker.calendar.get(), trace, telemetry.access_log, peer);
        (record.number, record.seed) = worker.numbers.next();
        Box::new(Exchange { worker: Rc::clone(worker), active, record, place: None, watched: SmallVec::new() })
    }

    /// A request of the gateway's own for the sake of a client's: a part of that one's trace, on no client's connection.
    pub fn own(worker: &Rc<Worker>, by: By, trace: TraceContext, head: Arc<Head>, limits: &Gateway) -> Box<Self> {
        let active = Clock::enter(&Rc::new(Clock::new(limits, false, Instant::now())));
        let peer = Arc::clone(&head.peer);
        let mut record = Record::new(active.began, worker.calendar.get(), trace, AccessLog::Off, peer);
        (record.head, record.own) = (Some(head), Some(by));
        Box::new(Exchange { worker: Rc::clone(worker), active, record, place: None, watched: SmallVec::new() })
    }

    /// Notes that an attempt begins now; `hedge`: beside another one. Gives its place among all, and its span.
    pub fn attempt(&mut self, picked: &Picked, hedge: bool, now: Instant) -> (usize, u64) {
        let place = self.record.attempts.len();
        let span_id = self.worker.chance.borrow_mut().next_u64().max(1);
        self.record.attempts.push(Attempt {
            span_id,
            endpoint: Arc::clone(&picked.endpoint),
            strategy: picked.strategy,
            candidates: picked.candidates,
            passed_over: picked.passed_over,
            panic: picked.panic,
            hedge,
            began: now.saturating_duration_since(self.record.started),
            took: Duration::ZERO,
            outcome: Err(AttemptError::Unfinished),
            cause: None,
        });
        (place, span_id)
    }

    /// Notes what came of the attempt at this place, and after which time.
    pub fn attempted(
        &mut self,
        place: usize,
        outcome: Result<u16, AttemptError>,
        cause: Option<Box<str>>,
        took: Duration,
    ) {
        if let Some(attempt) = self.record.attempts.get_mut(place) {
            attempt.outcome = outcome;
            attempt.cause = cause;
            attempt.took = took;
        }
    }

    /// Keeps a call by value, for the record.
    #[cold]
    fn tape(&mut self, version: &Version, called: &mut Called) {
        let Some(taped) = &mut self.record.taped else { return };
        taped.calls.push(Call {
            version: Arc::clone(&version.about),
            // Who was not asked has read nothing.
            tape: called.tape.take().map(|tape| *tape).unwrap_or_default(),
            said: Said::of(&called.outcome),
            reason: called.reason.clone(),
        });
    }
}

impl Ask for Exchange {
    fn ask(&mut self, version: &Version, head: &Arc<Head>, catalog: &Arc<Catalog>) -> Called {
        let (head, catalog) = (Arc::clone(head), Arc::clone(catalog));
        let (now_ms, started) = (self.record.unix_ms(), self.record.started);
        let seed = Question::seed(&version.name, self.record.seed);
        let records = self.worker.recorder.records(self.record.seed);
        if records && self.record.taped.is_none() {
            let (head, catalog) = (Arc::clone(&head), Arc::clone(&catalog));
            self.record.taped = Some(Box::new(Taped { head, catalog, calls: SmallVec::new() }));
        }
        let wall = records.then(Wall::noting);
        let mut called = version.decide(self.worker.index, Question { head, catalog, now_ms, started, seed, wall });
        if records {
            self.tape(version, &mut called);
        }
        called
    }

    fn chance(&mut self) -> u64 {
        self.worker.chance.borrow_mut().next_u64()
    }

    fn elapsed(&self) -> Duration {
        self.record.started.elapsed()
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let now = Instant::now();
        self.active.ended(self.record.end == End::ClientGone, now);
        if let Some(taped) = self.record.taped.take() {
            self.worker.recorder.record(&self.record, &taped, now);
        }
        self.worker.recorder.finish(&self.record, now);
        for watched in &self.watched {
            watched.finished(self.worker.index, &self.record);
        }
    }
}
