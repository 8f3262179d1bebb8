//! Records of exchanges that never were on a wire, for the tests of what is told of them and for the bench of what that
//! costs.

use std::sync::Arc;
use std::time::{Duration, Instant};
use wayside::base::chance::Chance;
use wayside::base::time::Calendar;
use wayside::base::trace::{Sampler, TraceContext};
use wayside::discovery::Observed;
use wayside::http::request::{Head, Parts, Peer};
use wayside::http::settings::AccessLog;
use wayside::service::decision::{Decision, Role};
use wayside::service::plan::Strategy;
use wayside::service::record::{Attempt, AttemptError, PolicyCall, Record};
use wayside::service::{Endpoint, Service, Settings};

/// A record of this request, sampled or not.
pub(crate) fn record(request: http::request::Builder, sampled: bool, access_log: AccessLog) -> Record {
    let parts = Parts::from(request.body(()).unwrap().into_parts().0);
    let peer = Peer::new("127.0.0.9:4711".parse().unwrap());
    let sampler = Sampler::of_new_traces(if sampled { 1.0 } else { 0.0 });
    let trace = TraceContext::begin(
        parts.headers.only("traceparent"),
        parts.headers.all("tracestate"),
        Some(sampler),
        &mut Chance(1),
    );
    let mut record = Record::new(Instant::now(), Calendar::look(), trace, access_log, Arc::clone(&peer));
    record.head = Some(Head::new(parts, peer, &[]));
    record
}

pub(crate) fn service(name: &str) -> Arc<Service> {
    let settings = Arc::new(Settings::of("local"));
    Arc::new(Service {
        name: name.into(),
        settings,
        endpoints: Default::default(),
        reported: Arc::new(Observed { revision: "r7".into(), ..Observed::default() }),
        digest: 0,
        tls: None,
        affinity: None,
        live: Arc::default(),
    })
}

pub(crate) fn attempt(span_id: u64, outcome: Result<u16, AttemptError>) -> Attempt {
    let endpoint = Endpoint::of("users", 1, ([127, 0, 0, 1], 9001).into());
    Attempt {
        span_id,
        endpoint: Arc::new(endpoint),
        strategy: Some(Strategy::LeastRequest),
        candidates: 3,
        passed_over: 0,
        panic: false,
        hedge: false,
        began: Duration::from_millis(1),
        took: Duration::from_millis(2),
        outcome,
        cause: None,
    }
}

pub(crate) fn call(policy: &str, decision: Decision) -> PolicyCall {
    PolicyCall {
        role: Role::Live,
        policy: policy.into(),
        version: None,
        decision,
        reason: String::new(),
        strategy: None,
        path: None,
        query: None,
        fault: None,
        logs: Vec::new(),
        began: Duration::from_micros(10),
        took: Duration::from_micros(5),
    }
}
