//! What the admin answers, as types: the server writes them, and whoever asks can read them.

mod declared;
mod policies;

pub use declared::{KeysState, Middleware, MiddlewareState, RateLimitState, RateLimits};
pub use policies::{CanaryState, Done, PinState, Policies, PolicyState, QuarantineState, VersionState, Wanted, broken};

use crate::discovery::Metadata;
use crate::discovery::left_out::LeftOut;
use crate::policy::Scope;
use crate::service::affinity::{Kind, Rule};
use crate::service::subset::Subset;
use crate::service::{Endpoint, Service, ServiceLive, has_all};
use crate::snapshot::Snapshot;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, SystemTime};

/// An answer that is no good news: a stable code for programs, a reason for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong.
    pub error: Told,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// Stable, for programs.
    pub code: String,
    /// For people.
    pub reason: String,
}

/// `/healthz` and `/readyz`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// `alive` or `stuck`; `ready`, `starting`, `draining` or `stuck`.
    pub status: String,
    /// Time since control was last alive, ms.
    pub control_age_ms: u64,
    /// Policies that nobody answers for: what they guard is answered as their `on_fault` says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub broken_policies: Vec<String>,
}

/// `/snapshot`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// Counts publications, from 1.
    pub generation: u64,
    /// Hash of all that was declared and observed, 12 hex digits: gateways with equal state have an equal one.
    pub digest: String,
    /// What it is made of, so that two gateways can be told where they differ.
    #[serde(default)]
    pub parts: Parts,
    /// Why the newest configuration file is not the one in force.
    pub config_error: Option<String>,
}

/// The digests of a snapshot's parts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Parts {
    /// Of the configuration.
    pub configuration: String,
    /// Of each service's endpoints and what is said of them, by name.
    pub services: BTreeMap<String, String>,
    /// The version that answers, by policy.
    pub policies: BTreeMap<String, String>,
}

/// `/services`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Services {
    /// By name.
    pub services: Vec<ServiceState>,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceState {
    /// Its name.
    pub name: String,
    /// How an endpoint is chosen where no policy says otherwise.
    pub strategy: String,
    /// Who reports its endpoints.
    pub source: String,
    /// What the source calls its state.
    pub revision: String,
    /// Entries that were bad, and were left out.
    pub skipped: u32,
    /// The first of them, each with what is wrong with it.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
    /// Why the source's newest answer is held back, while it is.
    pub held: Option<String>,
    /// Time since the source last confirmed the list, ms.
    pub age_ms: u64,
    /// The source is failing, or silent for too long.
    pub stale: bool,
    /// One of several sources is failing, or has not answered yet.
    #[serde(default)]
    pub partial: bool,
    /// So few endpoints are usable that all of them are used.
    #[serde(default)]
    pub panic: bool,
    /// Retries that its budget still allows.
    #[serde(default)]
    pub retries_left: u32,
    /// How long an attempt is waited for before another is made beside it, ms, as far as that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hedge_after_ms: Option<f64>,
    /// `closed`, `open`, `half-open` or `ramping`; none: it has no breaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<String>,
    /// How many exchanges it has and may have; none: as many as come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admission: Option<AdmissionState>,
    /// Which of the endpoints get traffic; none: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<SubsetState>,
    /// By what clients come back to the endpoint that has answered them; none: they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sticky: Option<StickyState>,
    /// In the source's order.
    pub endpoints: Vec<EndpointState>,
    /// Endpoints that left it, and have not finished yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub draining: Vec<EndpointState>,
}

/// How many exchanges a service has, and may have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdmissionState {
    /// In flight.
    pub in_flight: u32,
    /// As many as may be now: what is declared, what its endpoints have room for, or what latency says. None: any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// What latency says of it, where that is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adaptive: Option<u32>,
    /// Requests that wait, for the service or for endpoints of it.
    pub queued: u32,
    /// Connections to its endpoints that are open.
    #[serde(default)]
    pub connections: u32,
}

/// Which of a service's endpoints get traffic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubsetState {
    /// Those with all of these pairs in their metadata.
    pub metadata: BTreeMap<String, String>,
    /// Where none of them is usable: `none` or `any`.
    pub fallback: String,
    /// How many of them are usable and have weight.
    pub usable: usize,
}

/// By what clients come back to an endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StickyState {
    /// A cookie of the gateway's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// A header of the endpoints'.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// What its keys are called, the one that signs first; gateways of a fleet have the same. It tells nothing of the keys.
    pub keys: Vec<String>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndpointState {
    /// IP and port.
    pub address: String,
    /// Share of traffic.
    pub weight: u32,
    /// By its source, by our own checks and by its answers.
    pub healthy: bool,
    /// `healthy`; `unhealthy`, by its source, by our own checks or because connects failed; `ejected` for its answers;
    /// `draining`: its source has it no longer.
    #[serde(default)]
    pub state: String,
    /// Until when it is ejected, as RFC 3339 has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejected_until: Option<String>,
    /// How much of its share it gets while it starts slowly, percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ramp: Option<u32>,
    /// Requests sent to it whose response has not ended.
    pub in_flight: u32,
    /// Its failures of the last seconds that strategies count as in flight, each the less the longer ago it was; in tenths.
    #[serde(default, skip_serializing_if = "is_none")]
    pub failures: f32,
    /// Moving average of the time to the head of its responses, in µs. 0: none came yet.
    #[serde(default)]
    pub latency_us: u32,
    /// What its source says about it.
    pub metadata: Metadata,
}

/// `/routes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Routes {
    /// In the configuration's order.
    pub routes: Vec<RouteState>,
}

/// One declared route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RouteState {
    /// Its name, else what it matches.
    pub name: String,
    /// Where it leads to.
    pub service: String,
    /// Only endpoints with all of these pairs in their metadata.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub subset: BTreeMap<String, String>,
    /// The same, unless there is none of them that is usable.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub prefer: BTreeMap<String, String>,
}

/// What is sent to `/record`: decisions shall be recorded for a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordWanted {
    /// The share of the requests, more than 0 and at most 1.
    pub sample: f64,
    /// For how long, ms; an hour at most.
    pub time_ms: u64,
}

/// The header of a part of a record that says whether more will come, `true` or `false`.
pub const RECORD_MORE: &str = "x-wayside-more";
/// The one that says why it ended before its time; empty: it did not.
pub const RECORD_PROBLEM: &str = "x-wayside-problem";

/// A record that was asked for: `/record/NUMBER/BYTE` gives it in parts, DELETE `/record/NUMBER` ends it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// Its number.
    pub record: u64,
}

impl Problem {
    /// With this code and reason.
    pub fn new(code: &str, reason: impl Into<String>) -> Self {
        Problem { error: Told { code: code.to_owned(), reason: reason.into() } }
    }
}

impl Published {
    /// Of this snapshot.
    pub fn of(snapshot: &Snapshot) -> Self {
        Published {
            generation: snapshot.generation,
            digest: snapshot.digest.clone(),
            parts: Parts::of(snapshot),
            config_error: snapshot.config_error.clone(),
        }
    }
}

impl Parts {
    fn of(snapshot: &Snapshot) -> Self {
        let service = |service: &Arc<Service>| (service.name.to_string(), format!("{:016x}", service.digest));
        let policy = |scope: &Arc<Scope>| {
            let version = scope.standing.live().map_or("none", |version| &version.id);
            (scope.name.to_string(), version.to_owned())
        };
        Parts {
            configuration: snapshot.config_digest.clone(),
            services: snapshot.services().map(service).collect(),
            policies: snapshot.policies.iter().map(policy).collect(),
        }
    }
}

impl Services {
    /// Of this snapshot.
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut services: Vec<_> = snapshot.services().collect();
        services.sort_by(|a, b| a.name.cmp(&b.name));
        Services { services: services.into_iter().map(service).collect() }
    }
}

impl AdmissionState {
    fn of(live: &ServiceLive) -> Self {
        let (admission, places) = (&live.admission, &live.admission.places);
        AdmissionState {
            in_flight: places.in_flight(),
            limit: Some(places.limit()).filter(|limit| *limit < u32::MAX),
            adaptive: admission.adaptive(),
            queued: places.waiting() + live.group.lobby.waiting(),
            connections: admission.sockets.open(),
        }
    }
}

/// An endpoint as it is now. `ramp`: the part of its share that it gets, in thousandths.
fn endpoint(endpoint: &Endpoint, draining: bool, ramp: u32) -> EndpointState {
    let ejected = endpoint.live.ejected_until_ms();
    let state = match ejected {
        _ if draining => "draining",
        Some(_) => "ejected",
        None if endpoint.usable() => "healthy",
        None => "unhealthy",
    };
    EndpointState {
        address: endpoint.address.to_string(),
        weight: endpoint.weight,
        healthy: endpoint.usable(),
        state: state.to_owned(),
        ejected_until: ejected.and_then(at),
        ramp: (ramp < 1000).then_some(ramp / 10),
        in_flight: endpoint.in_flight(),
        failures: (endpoint.live.load.failures(crate::base::time::process_ms()) * 10.0).round() / 10.0,
        latency_us: endpoint.live.load.latency_us(),
        metadata: endpoint.metadata.clone(),
    }
}

fn is_none(failures: &f32) -> bool {
    *failures == 0.0
}

/// A time of the process, as RFC 3339 has it. None: never.
fn at(process_ms: u64) -> Option<String> {
    let left = Duration::from_millis(process_ms.saturating_sub(crate::base::time::process_ms()));
    let at = SystemTime::now().checked_add(left).filter(|_| process_ms < u64::MAX)?;
    Some(humantime::format_rfc3339_seconds(at).to_string())
}

fn service(service: &Arc<Service>) -> ServiceState {
    let (now_ms, ready) = (crate::base::time::process_ms(), service.endpoints.ready());
    let ramp = |endpoint: &Endpoint| match endpoint.is_candidate() {
        true => ready.ramp_permille(&endpoint.live, now_ms),
        false => 1000,
    };
    ServiceState {
        name: service.name.to_string(),
        strategy: service.settings.strategy.name().to_owned(),
        source: service.settings.source.to_string(),
        revision: service.reported.revision.clone(),
        skipped: service.reported.skipped,
        left_out: service.reported.left_out.clone(),
        held: service.reported.held.clone(),
        age_ms: u64::try_from(service.age().as_millis()).unwrap_or(u64::MAX),
        stale: service.live.stale.load(Relaxed),
        retries_left: service.live.budget.left(service.settings.retry_budget, now_ms),
        hedge_after_ms: service
            .settings
            .hedge
            .and_then(|hedge| Some(hedge.wait(service.live.latencies.get())?.as_secs_f64() * 1_000.0)),
        breaker: service.settings.breaker.map(|of| service.live.breaker.state(&of, now_ms).name().to_owned()),
        admission: service.settings.is_limited().then(|| AdmissionState::of(&service.live)),
        subset: service.settings.subset.as_ref().map(|declared| subset(service, declared)),
        sticky: service.affinity.as_ref().map(|affinity| sticky(&affinity.rule)),
        partial: service.live.partial.load(Relaxed),
        panic: ready.panic,
        endpoints: service.endpoints.iter().map(|one| endpoint(one, false, ramp(one))).collect(),
        draining: service.live.left.draining().iter().map(|one| endpoint(one, true, 1000)).collect(),
    }
}

fn subset(service: &Service, declared: &Subset) -> SubsetState {
    let fits = |endpoint: &&Arc<Endpoint>| has_all(&endpoint.metadata, &declared.metadata);
    SubsetState {
        metadata: declared.metadata.iter().cloned().collect(),
        fallback: declared.fallback.name().to_owned(),
        usable: service.candidates().filter(fits).count(),
    }
}

fn sticky(rule: &Rule) -> StickyState {
    let (cookie, header) = match &rule.kind {
        Kind::Cookie(cookie) => (Some(cookie.name.clone()), None),
        Kind::Header(header) => (None, Some(header.name.to_string())),
    };
    StickyState { cookie, header, keys: rule.keys.names().collect() }
}

impl Routes {
    /// Of this snapshot.
    pub fn of(snapshot: &Snapshot) -> Self {
        let route = |route: &crate::service::route::Route| RouteState {
            name: route.name.to_string(),
            service: route.service().name.to_string(),
            subset: route.forward.plan.subset.iter().cloned().collect(),
            prefer: route.forward.plan.prefer.iter().flatten().cloned().collect(),
        };
        Routes { routes: snapshot.routes.iter().map(route).collect() }
    }
}
