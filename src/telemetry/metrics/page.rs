//! `/metrics`: the workers' numbers added up, and how the world looks now.

use super::super::counter::Counter;
use super::super::traces::Counts;
use super::admission;
use super::numbers::Total;
use super::text::Text;
use super::{CODES, Lists, POLICY_BOUNDS, Pair, Policy, REQUEST_BOUNDS, Registry};
use crate::http::malformed::Malformed;
use crate::policy::{BOUNDS, GuestMetrics, SeriesValue, Version};
use crate::service::affinity::Standing;
use crate::service::breaker::State;
use crate::service::decision::{Decision, FaultKind};
use crate::service::health::outlier::Cause;
use crate::service::middleware::Outcome;
use crate::service::record::AttemptError;
use crate::snapshot::Snapshot;
use crate::snapshot::vitals::Vitals;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

/// The whole page. `connections`: downstream, open now; `spans`: none where nothing is exported; `lines`: of the access log, lost.
pub(in crate::telemetry) fn page(
    registry: &Registry,
    snapshot: &Snapshot,
    (connections, vitals): (usize, &Vitals),
    spans: Option<&Counts>,
    lines: u64,
) -> String {
    let mut text = Text::default();
    let (in_flight, tasks, pairs, policies) = {
        let mut lists = registry.lists();
        let Lists { workers, pairs, policies } = &mut *lists;
        let workers = alive(workers);
        let in_flight: u64 = workers.iter().map(|load| load.begun.get().saturating_sub(load.ended.get())).sum();
        let runtimes = workers.iter().filter_map(|load| load.runtime.as_ref());
        let tasks: usize = runtimes.map(tokio::runtime::RuntimeMetrics::num_alive_tasks).sum();
        (in_flight, tasks, alive(pairs), alive(policies))
    };
    requests(&mut text, &pairs);
    let refused = "wayside_refused_requests_total";
    text.family(refused, "counter", "What clients sent that could not be read as one request, by what was wrong.");
    for (kind, count) in Malformed::ALL.into_iter().zip(&registry.refused) {
        text.sample(refused, &[("kind", kind.name())], count.load(Relaxed));
    }
    for (counter, name, help) in Counter::ALL {
        text.single(name, "counter", help, registry.counters.get(counter));
    }
    attempts(&mut text, &pairs);
    affinity(&mut text, &pairs);
    decisions(&mut text, &policies);
    live_policies(&mut text, snapshot);
    services(&mut text, snapshot);
    text.single("wayside_exchanges_in_flight", "gauge", "Exchanges that have begun and not ended.", in_flight);
    text.single("wayside_tasks", "gauge", "Tasks of all workers: connections, streams, timers.", tasks);
    text.single("wayside_connections", "gauge", "Downstream connections that are open.", connections);
    text.single("wayside_snapshot_generation", "gauge", "Number of the published snapshot.", snapshot.generation);
    let age = vitals.control_age().as_secs_f64();
    text.single("wayside_control_age_seconds", "gauge", "Time since control was last alive.", age);
    let help = "Events that control could not handle: bugs, which the log tells.";
    text.single("wayside_control_panics_total", "counter", help, vitals.panics());
    let get = |count: fn(&Counts) -> &std::sync::atomic::AtomicU64| spans.map_or(0, |spans| count(spans).load(Relaxed));
    let full = get(|counts| &counts.queue_full);
    text.single("wayside_spans_total", "counter", "Spans that exchanges had.", get(|counts| &counts.queued) + full);
    text.single("wayside_spans_exported_total", "counter", "Spans the collector took.", get(|counts| &counts.exported));
    let lost = "wayside_spans_dropped_total";
    text.family(lost, "counter", "Spans lost, by why.");
    text.sample(lost, &[("reason", "queue_full")], full);
    text.sample(lost, &[("reason", "not_taken")], get(|counts| &counts.not_taken));
    text.single("wayside_access_log_dropped_total", "counter", "Lines of the access log that were lost.", lines);
    let lost = super::super::log::dropped();
    text.single("wayside_log_dropped_total", "counter", "Lines of the process log that were lost.", lost);
    let started = registry.started.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let help = "When the gateway started, in seconds since 1970-01-01 UTC.";
    text.single("process_start_time_seconds", "gauge", help, started.as_secs_f64());
    text.family("wayside_build_info", "gauge", "Which version this is.");
    text.sample("wayside_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    rate_limits(&mut text, snapshot);
    middleware(&mut text, snapshot);
    keys(&mut text, snapshot);
    stores(&mut text, snapshot);
    guests(&mut text, live(snapshot).map(|version| (&*version.name, &version.live.metrics)));
    text.finish()
}

/// Those whose workers still have them; the others are forgotten.
pub(super) fn alive<T>(list: &mut Vec<Weak<T>>) -> Vec<Arc<T>> {
    let alive: Vec<Arc<T>> = list.iter().filter_map(Weak::upgrade).collect();
    if alive.len() < list.len() {
        list.retain(|one| one.strong_count() > 0);
    }
    alive
}

fn requests(text: &mut Text, pairs: &[Arc<Pair>]) {
    let mut totals: BTreeMap<[&str; 3], Total> = BTreeMap::new();
    for pair in pairs {
        for (code, requests) in CODES.into_iter().zip(&pair.requests) {
            requests.add_to(totals.entry([&*pair.route, &*pair.service, code]).or_default());
        }
    }
    totals.retain(|_, total| total.count() > 0);
    let name = "wayside_requests_total";
    text.family(name, "counter", "Exchanges that ended, by class of the status that the client had.");
    for ([route, service, code], total) in &totals {
        text.sample(name, &[("route", route), ("service", service), ("code", code)], total.count());
    }
    let name = "wayside_request_duration_seconds";
    text.family(name, "histogram", "Time from a request's head to the last byte of its response.");
    for ([route, service, code], total) in &totals {
        text.times(name, &[("route", route), ("service", service), ("code", code)], &REQUEST_BOUNDS, total);
    }
}

fn attempts(text: &mut Text, pairs: &[Arc<Pair>]) {
    let mut outcomes: BTreeMap<[&str; 2], u64> = BTreeMap::new();
    let mut totals: BTreeMap<&str, Total> = BTreeMap::new();
    for pair in pairs {
        let answered = CODES.into_iter().zip(&pair.answered);
        let failed = AttemptError::ALL.map(AttemptError::name).into_iter().zip(&pair.failed);
        for (outcome, count) in answered.chain(failed) {
            *outcomes.entry([&*pair.service, outcome]).or_default() += count.get();
        }
        pair.attempts.add_to(totals.entry(&*pair.service).or_default());
    }
    let name = "wayside_upstream_attempts_total";
    text.family(name, "counter", "Attempts, by class of the status or by what went wrong.");
    for ([service, outcome], count) in outcomes.iter().filter(|(_, count)| **count > 0) {
        text.sample(name, &[("service", service), ("outcome", outcome)], count);
    }
    let name = "wayside_upstream_attempt_duration_seconds";
    text.family(name, "histogram", "Time of an attempt until the response's head, or the failure.");
    for (service, total) in totals.iter().filter(|(_, total)| total.count() > 0) {
        text.times(name, &[("service", service)], &REQUEST_BOUNDS, total);
    }
}

fn affinity(text: &mut Text, pairs: &[Arc<Pair>]) {
    let mut totals: BTreeMap<[&str; 2], u64> = BTreeMap::new();
    for pair in pairs {
        for (standing, count) in Standing::ALL.map(Standing::name).into_iter().zip(&pair.affinity) {
            *totals.entry([&*pair.service, standing]).or_default() += count.get();
        }
    }
    let name = "wayside_affinity_total";
    text.family(name, "counter", "Requests to services with `sticky`, by how they stood with their client's endpoint.");
    for ([service, standing], count) in totals.iter().filter(|(_, count)| **count > 0) {
        text.sample(name, &[("service", service), ("standing", standing)], count);
    }
}

fn decisions(text: &mut Text, policies: &[Arc<Policy>]) {
    let mut calls: BTreeMap<[&str; 4], u64> = BTreeMap::new();
    let mut faults: BTreeMap<[&str; 4], u64> = BTreeMap::new();
    let mut totals: BTreeMap<[&str; 3], Total> = BTreeMap::new();
    for policy in policies {
        let role = policy.role.name();
        for (decision, count) in Decision::ALL.map(Decision::name).into_iter().zip(&policy.decisions) {
            *calls.entry([&*policy.name, &*policy.version, role, decision]).or_default() += count.get();
        }
        for (kind, count) in FaultKind::ALL.map(FaultKind::name).into_iter().zip(&policy.faults) {
            *faults.entry([&*policy.name, &*policy.version, role, kind]).or_default() += count.get();
        }
        policy.took.add_to(totals.entry([&*policy.name, &*policy.version, role]).or_default());
    }
    let name = "wayside_policy_calls_total";
    text.family(name, "counter", "Policy calls, by what was decided.");
    for ([policy, version, role, decision], count) in &calls {
        text.sample(name, &[("policy", policy), ("version", version), ("role", role), ("decision", decision)], count);
    }
    let name = "wayside_policy_faults_total";
    text.family(name, "counter", "Policy calls that gave no decision, by why.");
    for ([policy, version, role, kind], count) in faults.iter().filter(|(_, count)| **count > 0) {
        text.sample(name, &[("policy", policy), ("version", version), ("role", role), ("kind", kind)], count);
    }
    let name = "wayside_policy_duration_seconds";
    text.family(name, "histogram", "Time of a policy call.");
    for ([policy, version, role], total) in &totals {
        text.times(name, &[("policy", policy), ("version", version), ("role", role)], &POLICY_BOUNDS, total);
    }
}

/// The versions that answer now.
fn live(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<Version>> {
    snapshot.policies.iter().filter_map(|scope| scope.standing.live())
}

fn live_policies(text: &mut Text, snapshot: &Snapshot) {
    let name = "wayside_policy_suspended";
    text.family(name, "gauge", "1: the live version is suspended after too many faults.");
    for version in live(snapshot) {
        let suspended = u8::from(version.suspended().is_some());
        text.sample(name, &[("policy", &version.name), ("version", &version.id)], suspended);
    }
    let name = "wayside_policy_suspensions_total";
    text.family(name, "counter", "Times that the live version's component was suspended.");
    for version in live(snapshot) {
        text.sample(name, &[("policy", &version.name), ("version", &version.id)], version.stats().suspensions);
    }
    let name = "wayside_policy_instances_ready";
    text.family(name, "gauge", "Instances of the live version that wait for a request.");
    for version in live(snapshot) {
        text.sample(name, &[("policy", &version.name), ("version", &version.id)], version.stats().ready);
    }
    let name = "wayside_policy_canary_share";
    text.family(name, "gauge", "Share of the clients that a canary has, 0 to 1.");
    for canary in snapshot.policies.iter().filter_map(|scope| scope.canary.as_ref()) {
        let version = &canary.version;
        text.sample(name, &[("policy", &version.name), ("version", &version.id)], canary.told().share);
    }
    let name = "wayside_policy_rollbacks_total";
    text.family(name, "counter", "Canaries that were rolled back by themselves.");
    for scope in snapshot.policies.iter() {
        text.sample(name, &[("policy", &scope.name)], scope.live.rollbacks());
    }
}

fn services(text: &mut Text, snapshot: &Snapshot) {
    let mut services: Vec<_> = snapshot.services().collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    let name = "wayside_endpoints";
    text.family(name, "gauge", "Endpoints, by whether they are healthy by their source and by our own checks.");
    for service in &services {
        let healthy = service.usable();
        let rest = service.endpoints.len() - healthy;
        for (health, count) in [("healthy", healthy), ("unhealthy", rest)] {
            text.sample(name, &[("service", &service.name), ("health", health)], count);
        }
    }
    let name = "wayside_endpoints_ejected";
    text.family(name, "gauge", "Endpoints that are put aside for their answers.");
    for service in &services {
        text.sample(name, &[("service", &service.name)], service.endpoints.ready().ejected);
    }
    let name = "wayside_endpoint_ejections_total";
    text.family(name, "counter", "Times that an endpoint was put aside for its answers, by why.");
    for service in services.iter().filter(|service| service.settings.outlier.is_some()) {
        for cause in Cause::ALL {
            let count = service.live.ejections.get(cause);
            text.sample(name, &[("service", &service.name), ("cause", cause.name())], count);
        }
    }
    let name = "wayside_endpoints_draining";
    text.family(name, "gauge", "Endpoints that left their service and have not finished yet.");
    for service in &services {
        text.sample(name, &[("service", &service.name)], service.live.left.draining().len());
    }
    let name = "wayside_panic";
    text.family(name, "gauge", "1: so few of the service's endpoints are usable that all of them are used.");
    for service in &services {
        text.sample(name, &[("service", &service.name)], u8::from(service.endpoints.ready().panic));
    }
    let name = "wayside_retries_refused_total";
    text.family(name, "counter", "Attempts that were not made since the service's retry budget was spent.");
    for service in &services {
        text.sample(name, &[("service", &service.name)], service.live.budget.refused());
    }
    let name = "wayside_hedges_total";
    text.family(name, "counter", "Attempts that were made beside others, which took long.");
    for service in services.iter().filter(|service| service.settings.hedge.is_some()) {
        text.sample(name, &[("service", &service.name)], service.live.hedges.load(Relaxed));
    }
    let breakers = || services.iter().filter_map(|service| Some((service, service.settings.breaker.as_ref()?)));
    let name = "wayside_breaker_open";
    text.family(name, "gauge", "1: the service's breaker refuses requests, or lets one at a time find out.");
    let now_ms = crate::base::time::process_ms();
    for (service, settings) in breakers() {
        let open = matches!(service.live.breaker.state(settings, now_ms), State::Open | State::HalfOpen);
        text.sample(name, &[("service", &service.name)], u8::from(open));
    }
    let name = "wayside_breaker_lets_in";
    text.family(name, "gauge", "Share of requests that the service's breaker lets in: a part of them while it ramps.");
    for (service, settings) in breakers() {
        text.sample(name, &[("service", &service.name)], service.live.breaker.lets_in(settings, now_ms));
    }
    let name = "wayside_breaker_opened_total";
    text.family(name, "counter", "Times that the service's breaker has opened.");
    for (service, _) in breakers() {
        text.sample(name, &[("service", &service.name)], service.live.breaker.opened());
    }
    admission::admission(text, &services);
    let name = "wayside_discovery_age_seconds";
    text.family(name, "gauge", "Time since the source last confirmed the service's endpoints.");
    for service in &services {
        text.sample(name, &[("service", &service.name)], service.age().as_secs_f64());
    }
    let name = "wayside_discovery_stale";
    text.family(name, "gauge", "1: the service's source is failing, or silent for too long.");
    for service in &services {
        text.sample(name, &[("service", &service.name)], u8::from(service.live.stale.load(Relaxed)));
    }
    let name = "wayside_discovery_partial";
    text.family(name, "gauge", "1: one of the service's several sources is failing, or has not answered yet.");
    for service in &services {
        text.sample(name, &[("service", &service.name)], u8::from(service.live.partial.load(Relaxed)));
    }
    let name = "wayside_discovery_held";
    text.family(name, "gauge", "1: the newest answer of the service's source is held back until it is confirmed.");
    for service in &services {
        text.sample(name, &[("service", &service.name)], u8::from(service.reported.held.is_some()));
    }
    let name = "wayside_snapshot_digest";
    text.family(name, "gauge", "1, with the digest of all that is declared and observed: gateways of one fleet agree.");
    text.sample(name, &[("digest", &snapshot.digest)], 1);
}

fn rate_limits(text: &mut Text, snapshot: &Snapshot) {
    let name = "wayside_rate_limited_total";
    text.family(name, "counter", "Requests that a declared limit refused.");
    for (limit, refused) in snapshot.rate_limits.refused() {
        text.sample(name, &[("limit", &limit.name)], refused);
    }
}

fn middleware(text: &mut Text, snapshot: &Snapshot) {
    let name = "wayside_middleware_total";
    text.family(name, "counter", "Requests with which a middleware did more than let them pass, by what it did.");
    for one in &snapshot.middleware.all {
        for outcome in Outcome::ALL.into_iter().filter(|outcome| one.kind.can(*outcome)) {
            let labels = [("middleware", &*one.name), ("kind", one.kind.name()), ("outcome", outcome.name())];
            text.sample(name, &labels, one.live.get(outcome));
        }
    }
}

/// Keys that are fetched by URL.
fn keys(text: &mut Text, snapshot: &Snapshot) {
    let sets: Vec<_> =
        snapshot.middleware.all.iter().filter_map(|one| Some((&one.name, one.kind.key_set()?))).collect();
    if sets.is_empty() {
        return;
    }
    let name = "wayside_jwks_failing";
    text.family(name, "gauge", "1: the keys could not be fetched the last time; those that are known are used.");
    for (middleware, set) in &sets {
        text.sample(name, &[("middleware", middleware)], u8::from(set.problem().is_some()));
    }
    let name = "wayside_jwks_age_seconds";
    text.family(name, "gauge", "Time since the keys were last fetched.");
    for (middleware, age) in sets.iter().filter_map(|(middleware, set)| Some((middleware, set.age()?))) {
        text.sample(name, &[("middleware", middleware)], age.as_secs_f64());
    }
}

/// What stores did for policies' state and for limits.
fn stores(text: &mut Text, snapshot: &Snapshot) {
    let stores = snapshot.stores.all();
    if stores.is_empty() {
        return;
    }
    let name = "wayside_store_up";
    text.family(name, "gauge", "1: the store answers in time.");
    for (store, state) in &stores {
        text.sample(name, &[("store", store)], u8::from(!state.failing()));
    }
    let name = "wayside_store_operations_total";
    text.family(name, "counter", "Things that policies and limits did with shared state, by what came of them.");
    for (store, state) in &stores {
        let numbers = &state.numbers;
        let outcomes = [("answered", &numbers.answered), ("failed", &numbers.failed), ("dropped", &numbers.dropped)];
        for (outcome, count) in outcomes {
            text.sample(name, &[("store", store), ("outcome", outcome)], count.load(Relaxed));
        }
    }
    let name = "wayside_store_seconds_total";
    text.family(
        name,
        "counter",
        "Time until the store answered, or was no longer waited for; no request waits for it.",
    );
    for (store, state) in &stores {
        text.sample(name, &[("store", store)], state.numbers.waited_us.load(Relaxed) as f64 / 1e6);
    }
}

/// Series of one name, by their labels.
type Family = BTreeMap<Vec<(String, String)>, SeriesValue>;

/// What policies count for themselves. Of two policies with one name for a counter and a histogram, the first is shown.
pub(super) fn guests<'a>(text: &mut Text, policies: impl Iterator<Item = (&'a str, &'a GuestMetrics)>) {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut lost = BTreeMap::new();
    for (policy, metrics) in policies {
        let mut dropped = metrics.dropped();
        for series in metrics.series() {
            let counter = matches!(series.value, SeriesValue::Counter(_));
            let total = if counter && !series.name.ends_with("_total") { "_total" } else { "" };
            let family = families.entry(format!("wayside_policy_{}{total}", series.name)).or_default();
            let other = |value: &SeriesValue| matches!(value, SeriesValue::Counter(_)) != counter;
            let labels = std::iter::once(("policy".to_owned(), policy.to_owned())).chain(series.labels).collect();
            if family.values().next().is_some_and(other) || family.contains_key(&labels) {
                dropped += 1;
            } else {
                family.insert(labels, series.value);
            }
        }
        lost.insert(policy, dropped);
    }
    let name = "wayside_policy_metrics_dropped_total";
    text.family(
        name,
        "counter",
        "Calls and series of policies' own metrics that are not shown: too many, or a name twice.",
    );
    for (policy, dropped) in lost {
        text.sample(name, &[("policy", policy)], dropped);
    }
    for (name, family) in &families {
        let histogram = matches!(family.values().next(), Some(SeriesValue::Histogram { .. }));
        text.family(name, if histogram { "histogram" } else { "counter" }, "Counted by policies.");
        for (labels, value) in family {
            let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (&**name, &**value)).collect();
            match value {
                SeriesValue::Counter(count) => text.sample(name, &labels, count),
                SeriesValue::Histogram { counts, sum } => text.histogram(name, &labels, &BOUNDS, counts, *sum),
            }
        }
    }
}
