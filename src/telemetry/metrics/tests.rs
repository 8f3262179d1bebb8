use crate::service::decision::{Decision, Fault, FaultKind};
use crate::service::record::{AttemptError, End, PolicyCall};
use crate::snapshot::Snapshot;
use crate::snapshot::vitals::Vitals;
use crate::telemetry::tests::{attempt, call, record, service, telemetry};
use std::collections::{BTreeMap, HashSet};

/// Reads Prometheus text strictly (format 0.0.4): each sample belongs to the family that was declared last, no sample
/// comes twice, and histograms add up.
pub(crate) fn parse(page: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut families = HashSet::new();
    let (mut family, mut kind) = (String::new(), String::new());
    let mut lines = page.lines().peekable();
    assert!(page.ends_with('\n'));
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').unwrap();
            assert!(!text.is_empty() && families.insert(name.to_owned()), "{line}");
            let declared = lines.next().unwrap().strip_prefix("# TYPE ").unwrap().split_once(' ').unwrap();
            assert_eq!(declared.0, name);
            assert!(["counter", "gauge", "histogram"].contains(&declared.1), "{line}");
            (family, kind) = (name.to_owned(), declared.1.to_owned());
            assert!(kind != "counter" || name.ends_with("_total"), "{name}");
            continue;
        }
        let name_end = line.find(['{', ' ']).unwrap();
        let (name, mut rest) = line.split_at(name_end);
        let suffix = name.strip_prefix(&*family).unwrap_or_else(|| panic!("{line} is not of {family}"));
        let fitting: &[&str] = if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(fitting.contains(&suffix), "{line}");
        let mut labels = Vec::new();
        if rest.starts_with('{') {
            loop {
                rest = &rest[1..];
                let (label, after) = rest.split_once("=\"").unwrap();
                assert!(label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
                let mut value = String::new();
                let mut chars = after.char_indices();
                let end = loop {
                    match chars.next().unwrap() {
                        (at, '"') => break at,
                        (_, '\\') => value.push(match chars.next().unwrap().1 {
                            'n' => '\n',
                            same @ ('\\' | '"') => same,
                            other => panic!("\\{other} in {line}"),
                        }),
                        (_, char) => value.push(char),
                    }
                };
                labels.push(format!("{label}={value}"));
                rest = &after[end + 1..];
                match rest.as_bytes()[0] {
                    b',' => {}
                    b'}' => break,
                    _ => panic!("{line}"),
                }
            }
            rest = &rest[1..];
        }
        let value: f64 = rest.strip_prefix(' ').unwrap().parse().unwrap();
        let known: HashSet<&str> = labels.iter().map(|label| label.split_once('=').unwrap().0).collect();
        assert_eq!(known.len(), labels.len(), "a label twice: {line}");
        let key = format!("{name}{{{}}}", labels.join(","));
        assert!(samples.insert(key, value).is_none(), "twice: {line}");
    }
    for (key, count) in &samples {
        let Some((name, labels)) = key.split_once("_count{") else { continue };
        let labels = labels.trim_end_matches('}');
        let comma = if labels.is_empty() { "" } else { "," };
        assert_eq!(samples[&format!("{name}_bucket{{{labels}{comma}le=+Inf}}")], *count, "{key}");
        assert!(samples.contains_key(&format!("{name}_sum{{{labels}}}")), "{key}");
    }
    samples
}

#[test]
fn a_scrape_adds_up_what_all_workers_counted() {
    let telemetry = telemetry();
    let (one, another) = (telemetry.recorder(0), telemetry.recorder(0));
    for recorder in [&one, &one, &another] {
        recorder.begin();
        let mut record = record(http::Request::get("/"));
        record.route = Some("a \"b\"\n\\".into());
        record.service = Some(service("users"));
        let fault = Some(Fault { kind: FaultKind::Deadline, message: String::new() });
        record.calls =
            vec![call("canary", Decision::Next), PolicyCall { fault, ..call("late", Decision::Fault) }].into();
        record.attempts = vec![attempt(1, Err(AttemptError::Reset)), attempt(2, Ok(201))].into();
        (record.status, record.end) = (201, End::Complete);
        recorder.finish(&record, std::time::Instant::now());
    }
    one.begin();
    let page = || parse(&telemetry.metrics(&Snapshot::default(), 0, &Vitals::default()));
    let samples = page();
    let expected = [
        ("wayside_requests_total{route=a \"b\"\n\\,service=users,code=2xx}", 3.0),
        ("wayside_request_duration_seconds_count{route=a \"b\"\n\\,service=users,code=2xx}", 3.0),
        ("wayside_upstream_attempts_total{service=users,outcome=2xx}", 3.0),
        ("wayside_upstream_attempts_total{service=users,outcome=reset}", 3.0),
        ("wayside_upstream_attempt_duration_seconds_count{service=users}", 6.0),
        ("wayside_upstream_attempt_duration_seconds_sum{service=users}", 0.012),
        ("wayside_upstream_attempt_duration_seconds_bucket{service=users,le=0.001}", 0.0),
        ("wayside_upstream_attempt_duration_seconds_bucket{service=users,le=0.0025}", 6.0),
        ("wayside_policy_calls_total{policy=canary,version=none,role=live,decision=next}", 3.0),
        ("wayside_policy_calls_total{policy=canary,version=none,role=live,decision=fault}", 0.0),
        ("wayside_policy_faults_total{policy=late,version=none,role=live,kind=deadline}", 3.0),
        ("wayside_policy_duration_seconds_bucket{policy=late,version=none,role=live,le=0.000005}", 3.0),
        ("wayside_exchanges_in_flight{}", 1.0),
        ("wayside_spans_dropped_total{reason=queue_full}", 0.0),
    ];
    for (key, value) in expected {
        assert_eq!(samples.get(key), Some(&value), "{key}");
    }
    one.finish(&record(http::Request::get("/")), std::time::Instant::now());
    let samples = page();
    assert_eq!(samples["wayside_exchanges_in_flight{}"], 0.0);
    assert_eq!(samples["wayside_requests_total{route=none,service=none,code=none}"], 1.0);
}

#[test]
fn more_routes_than_there_is_room_for_are_counted_together() {
    let telemetry = telemetry();
    let recorder = telemetry.recorder(0);
    for number in 0..super::MOST + 10 {
        let mut record = record(http::Request::get("/"));
        record.route = Some(format!("r{number}").into());
        record.status = 200;
        recorder.finish(&record, std::time::Instant::now());
    }
    let samples = parse(&telemetry.metrics(&Snapshot::default(), 0, &Vitals::default()));
    assert_eq!(samples["wayside_requests_total{route=other,service=other,code=2xx}"], 10.0);
    let series = samples.keys().filter(|key| key.starts_with("wayside_requests_total")).count();
    assert_eq!(series, super::MOST + 1);
}

#[test]
fn numbers_of_what_is_gone_go_after_a_while() {
    let registry = std::sync::Arc::<super::Registry>::default();
    let recorder = super::Tally::new(&registry);
    for route in ["stays", "goes"] {
        recorder.pairs.with((route, "none"), |route, service| recorder.new_pair(route, service), |_| ());
    }
    let routes = |registry: &super::Registry| -> Vec<String> {
        super::page::alive(&mut registry.lists().pairs).iter().map(|pair| pair.route.to_string()).collect()
    };
    let named = |route: &str, _: &str| route == "stays";
    let now = crate::base::time::process_ms();
    recorder.pairs.tidy(now + super::KEPT_MS / 2, named);
    assert_eq!(routes(&registry), ["stays", "goes"]);
    recorder.pairs.tidy(now + super::KEPT_MS * 2, named);
    assert_eq!(routes(&registry), ["stays"]);
}

#[test]
fn the_gateways_own_metrics_of_policies_are_those_that_policies_may_not_use() {
    let page = telemetry().metrics(&Snapshot::default(), 0, &Vitals::default());
    let shown: HashSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# HELP wayside_policy_")?.split(' ').next()).collect();
    assert_eq!(shown, crate::policy::OWN.into_iter().collect());
}

#[test]
fn what_policies_count_is_shown_even_where_two_use_a_name_differently() {
    use crate::policy::GuestMetrics;
    let label = |value: &str| [("user".to_owned(), value.to_owned())];
    let (a, b) = (GuestMetrics::default(), GuestMetrics::default());
    a.count("hits", 2, &mut label("x\"\n\\")).unwrap();
    a.count("hits_total", 3, &mut label("y")).unwrap();
    a.observe("took", 0.02, &mut []).unwrap();
    b.count("hits", 5, &mut label("y")).unwrap();
    b.count("took_total", 7, &mut []).unwrap();
    b.observe("hits_total", 0.02, &mut []).unwrap();
    let mut text = super::text::Text::default();
    super::page::guests(&mut text, [("a", &a), ("b", &b)].into_iter());
    let samples = parse(&text.finish());
    for (key, value) in [
        ("wayside_policy_hits_total{policy=a,user=x\"\n\\}", 2.0),
        ("wayside_policy_hits_total{policy=a,user=y}", 3.0),
        ("wayside_policy_hits_total{policy=b,user=y}", 5.0),
        ("wayside_policy_took_total{policy=b}", 7.0),
        ("wayside_policy_took_bucket{policy=a,le=0.01}", 0.0),
        ("wayside_policy_took_bucket{policy=a,le=0.025}", 1.0),
        ("wayside_policy_took_sum{policy=a}", 0.02),
        ("wayside_policy_metrics_dropped_total{policy=a}", 0.0),
        ("wayside_policy_metrics_dropped_total{policy=b}", 1.0),
    ] {
        assert_eq!(samples.get(key), Some(&value), "{key}");
    }
}
