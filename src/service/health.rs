//! Active health checks: one task per endpoint of a service that declares `health`, run by control, once per gateway.

use super::endpoints::changed;
use super::settings::HealthCheck;
use super::{Endpoint, Service, Settings};
use crate::base::chance::Chance;
use crate::http::tls::client::{self, Connector};
use http::{Request, header};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The checks that run.
#[derive(Debug, Default)]
pub struct Checks {
    running: HashMap<u32, Check>,
    /// The services as they were last seen.
    followed: HashMap<Arc<str>, Arc<Service>>,
}

/// One endpoint's check; dropping it ends it.
#[derive(Debug)]
struct Check(tokio::task::AbortHandle);

impl Drop for Check {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Checks {
    /// Begins checks of endpoints that are new, ends those of endpoints that are gone, and leaves the others alone: what did
    /// not change since the last time is not looked at. Must be called on a tokio runtime.
    pub fn follow<'a>(&mut self, services: impl Iterator<Item = &'a Arc<Service>>) {
        let mut before = std::mem::take(&mut self.followed);
        for service in services.filter(|service| service.settings.health.is_some()) {
            match before.remove(&service.name) {
                Some(known) if Arc::ptr_eq(&known, service) => {}
                known => self.change(known.as_deref(), service),
            }
            self.followed.insert(Arc::clone(&service.name), Arc::clone(service));
        }
        for gone in before.into_values() {
            self.end(&gone.endpoints);
        }
    }

    fn change(&mut self, known: Option<&Service>, service: &Arc<Service>) {
        let Some(health) = &service.settings.health else { return };
        let terms = Terms::of(service);
        let (gone, come) = match known {
            Some(known) if Terms::of(known) == terms => changed(&known.endpoints, &service.endpoints),
            // All of them are asked in another way now.
            Some(known) => {
                self.end(&known.endpoints);
                (&[][..], &*service.endpoints)
            }
            None => (&[][..], &*service.endpoints),
        };
        self.end(gone.iter().filter(|endpoint| service.endpoints.place(endpoint.id).is_none()));
        for endpoint in come {
            let begin = || {
                let watch = watch(Arc::clone(endpoint), terms.clone(), health.clone());
                Check(tokio::spawn(watch).abort_handle())
            };
            self.running.entry(endpoint.id).or_insert_with(begin);
        }
    }

    fn end<'a>(&mut self, endpoints: impl IntoIterator<Item = &'a Arc<Endpoint>>) {
        for endpoint in endpoints {
            self.running.remove(&endpoint.id);
        }
    }

    /// Is this endpoint's health found out by a check?
    pub fn covers(&self, endpoint: u32) -> bool {
        self.running.contains_key(&endpoint)
    }
}

/// How endpoints are asked.
#[derive(Debug, Clone)]
struct Terms {
    settings: Arc<Settings>,
    tls: Option<Arc<Connector>>,
}

impl Terms {
    fn of(service: &Service) -> Self {
        Terms { settings: Arc::clone(&service.settings), tls: service.tls.clone() }
    }
}

/// A check on the one terms is a check on the others.
impl PartialEq for Terms {
    fn eq(&self, other: &Self) -> bool {
        let (one, two) = (&self.settings, &other.settings);
        one.health == two.health && one.protocol == two.protocol && one.host == two.host && self.tls == other.tls
    }
}

/// Checks one endpoint until the task is ended.
async fn watch(endpoint: Arc<Endpoint>, terms: Terms, settings: HealthCheck) {
    let mut chance = Chance::seeded();
    let mut streak = Streak::default();
    loop {
        let probe = probe(endpoint.address, &settings.path, &terms);
        let problem = match tokio::time::timeout(settings.timeout, probe).await {
            Ok(Ok(())) => None,
            Ok(Err(Unwell::Theirs(problem))) => Some(problem),
            // Nothing was found out.
            Ok(Err(Unwell::Ours(problem))) => {
                tracing::debug!(endpoint = %endpoint.address, problem, "not checked");
                tokio::time::sleep(jittered(settings.interval, &mut chance)).await;
                continue;
            }
            Err(_) => Some("no answer in time".to_owned()),
        };
        if let Some(healthy) = streak.count(problem.is_none(), endpoint.healthy(), &settings) {
            endpoint.live.checked(healthy);
            let (service, address) = (&endpoint.service, endpoint.address);
            match problem {
                None => tracing::info!(%service, endpoint = %address, "healthy again"),
                Some(problem) => tracing::warn!(%service, endpoint = %address, problem, "unhealthy"),
            }
        }
        tokio::time::sleep(jittered(settings.interval, &mut chance)).await;
    }
}

/// Results in a row.
#[derive(Debug, Default)]
struct Streak {
    /// Something was counted already.
    begun: bool,
    good: u32,
    bad: u32,
}

impl Streak {
    /// Takes in one result. Some: the endpoint changes. The first result decides alone, since what nobody has checked
    /// counts as healthy only until then.
    fn count(&mut self, good: bool, healthy: bool, settings: &HealthCheck) -> Option<bool> {
        let first = !std::mem::replace(&mut self.begun, true);
        if good {
            self.bad = 0;
            // Only results since it became unhealthy count, whoever said so: a check or failing connects.
            self.good = if healthy { 0 } else { self.good + 1 };
            return (self.good >= settings.healthy_after).then_some(true);
        }
        self.good = 0;
        self.bad = self.bad.saturating_add(1);
        (healthy && (first || self.bad >= settings.unhealthy_after)).then_some(false)
    }
}

/// Within ± 10 %, so that many gateways and endpoints don't march in step.
fn jittered(interval: Duration, chance: &mut Chance) -> Duration {
    let permille = u32::try_from(chance.next_u64() % 201).unwrap_or(100);
    interval * (900 + permille) / 1000
}

/// Why a probe was not good.
#[derive(Debug)]
enum Unwell {
    /// The gateway could not ask.
    Ours(String),
    /// The endpoint did not answer, or not well.
    Theirs(String),
}

/// `GET path` on a connection of its own; 2xx and 3xx are good.
async fn probe(address: SocketAddr, path: &str, terms: &Terms) -> Result<(), Unwell> {
    let Terms { settings, tls } = terms;
    let tls = tls.as_deref();
    let socket = client::connect(address, tls).await.map_err(|error| match client::out_of_sockets(&error) {
        true => Unwell::Ours(error.to_string()),
        false => Unwell::Theirs(format!("connect: {error}")),
    })?;
    let http2 = settings.http2();
    let host =
        settings.host.as_ref().and_then(|host| host.to_str().ok()).map_or_else(|| address.to_string(), str::to_owned);
    let scheme = if tls.is_some() { "https" } else { "http" };
    let uri = if http2 { format!("{scheme}://{host}{path}") } else { path.to_owned() };
    let mut request = Request::get(uri).header(header::USER_AGENT, "wayside-health");
    if !http2 {
        request = request.header(header::HOST, host).header(header::CONNECTION, "close");
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|e| Unwell::Theirs(e.to_string()))?;
    let io = TokioIo::new(socket);
    let broken = |e: hyper::Error| Unwell::Theirs(format!("no response: {e}"));
    // The connection is driven here, beside the request, so that nothing of it outlives the check.
    let response = if http2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.map_err(broken)?;
        beside(sender.send_request(request), connection).await
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(broken)?;
        beside(sender.send_request(request), connection).await
    };
    match response.map_err(broken)?.status() {
        status if status.is_success() || status.is_redirection() => Ok(()),
        status => Err(Unwell::Theirs(format!("status {}", status.as_u16()))),
    }
}

/// What `request` comes to, while `connection` is driven.
async fn beside<T>(
    request: impl Future<Output = hyper::Result<T>>,
    connection: impl Future<Output = hyper::Result<()>>,
) -> hyper::Result<T> {
    let (mut request, mut connection) = (std::pin::pin!(request), std::pin::pin!(connection));
    tokio::select! {
        response = &mut request => response,
        _ = &mut connection => request.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn settings(unhealthy_after: u32, healthy_after: u32) -> HealthCheck {
        let (interval, timeout) = (Duration::from_secs(2), Duration::from_millis(500));
        HealthCheck { path: "/".into(), interval, timeout, unhealthy_after, healthy_after }
    }

    /// What becomes of an endpoint that begins healthy: its health after each result.
    fn after(results: &[bool], settings: &HealthCheck) -> Vec<bool> {
        let (mut streak, mut healthy) = (Streak::default(), true);
        let mut step = |good: &bool| {
            healthy = streak.count(*good, healthy, settings).unwrap_or(healthy);
            healthy
        };
        results.iter().map(&mut step).collect()
    }

    #[test]
    fn the_first_result_decides_and_then_streaks_do() {
        let (good, bad) = (true, false);
        let settings = settings(3, 2);
        assert_eq!(after(&[bad, good, good], &settings), [false, false, true]);
        assert_eq!(after(&[good, bad, bad, bad], &settings), [true, true, true, false]);
        assert_eq!(after(&[good, bad, bad, good, bad, bad, bad], &settings)[3..], [true, true, true, false]);
        assert_eq!(after(&[bad, good, bad, good, good], &settings)[1..], [false, false, false, true]);
    }

    #[test]
    fn failing_connects_are_forgiven_by_good_checks_that_follow_them() {
        let settings = settings(3, 2);
        let mut streak = Streak::default();
        for _ in 0..5 {
            assert_eq!(streak.count(true, true, &settings), None);
        }
        assert_eq!(streak.count(true, false, &settings), None);
        assert_eq!(streak.count(true, false, &settings), Some(true));
    }

    proptest! {
        #[test]
        fn health_changes_only_with_a_whole_streak(
            results in proptest::collection::vec(any::<bool>(), 1..200),
            unhealthy_after in 1u32..5,
            healthy_after in 1u32..5,
        ) {
            let health = after(&results, &settings(unhealthy_after, healthy_after));
            for at in 1..results.len() {
                if health[at] == health[at - 1] {
                    continue;
                }
                let needed = if health[at] { healthy_after } else { unhealthy_after } as usize;
                prop_assert!(at + 1 >= needed);
                prop_assert!(results[at + 1 - needed..=at].iter().all(|good| *good == health[at]));
            }
        }

        #[test]
        fn intervals_stay_within_a_tenth(ms in 10u64..100_000, seed in any::<u64>()) {
            let interval = Duration::from_millis(ms);
            let jittered = jittered(interval, &mut Chance(seed));
            prop_assert!(jittered >= interval * 9 / 10 && jittered <= interval * 11 / 10);
        }
    }

    /// Numbers of the endpoints that are checked after each of these states of a service: its endpoints, and the path that
    /// they are asked for, if they are.
    #[tokio::test]
    async fn checks_follow_what_changes() {
        let all: Vec<_> = (0..6).map(|id| Arc::new(Endpoint::of("users", id, ([127, 0, 0, 1], 9).into()))).collect();
        let service = |ids: &[usize], path: Option<&str>| {
            let health = path.map(|path| HealthCheck { path: path.into(), ..HealthCheck::default() });
            Arc::new(Service {
                name: "users".into(),
                settings: Arc::new(Settings { health, ..Settings::of("test") }),
                endpoints: ids.iter().map(|id| Arc::clone(&all[*id])).collect(),
                reported: Arc::default(),
                digest: 0,
                tls: None,
                live: Arc::default(),
            })
        };
        let mut checks = Checks::default();
        let running = |checks: &Checks| {
            let mut ids: Vec<_> = checks.running.iter().map(|(id, check)| (*id, check.0.id())).collect();
            ids.sort_unstable_by_key(|(id, _)| *id);
            ids
        };
        let ids = |running: &[(u32, tokio::task::Id)]| running.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        let first = service(&[0, 1, 2, 3], Some("/"));
        checks.follow([&first].into_iter());
        let before = running(&checks);
        assert_eq!(ids(&before), [0, 1, 2, 3]);
        checks.follow([&first].into_iter());
        assert_eq!(running(&checks), before);
        checks.follow([&service(&[0, 4, 3, 2], Some("/"))].into_iter());
        let after = running(&checks);
        assert_eq!(ids(&after), [0, 2, 3, 4]);
        assert!(after.iter().filter(|check| before.contains(check)).count() == 3, "those that stay go on");
        checks.follow([&service(&[0, 4], Some("/other"))].into_iter());
        let other = running(&checks);
        assert_eq!(ids(&other), [0, 4]);
        assert!(!other.iter().any(|check| after.contains(check)), "on other terms they begin anew");
        checks.follow([&service(&[0, 4], None)].into_iter());
        assert!(running(&checks).is_empty());
        checks.follow([&service(&[5], Some("/"))].into_iter());
        assert_eq!(ids(&running(&checks)), [5]);
        checks.follow([].into_iter());
        assert!(running(&checks).is_empty());
    }

    #[tokio::test]
    async fn a_probe_tells_good_from_bad() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cases = ["HTTP/1.1 200 OK\r\n", "HTTP/1.1 302 Found\r\n", "HTTP/1.1 503 No\r\n", "garbage\r\n", ""];
        let origin = tokio::spawn(async move {
            for answer in cases {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = [0; 1024];
                let read = stream.read(&mut asked).await.unwrap();
                assert!(asked[..read].starts_with(b"GET /health HTTP/1.1\r\n"));
                if !answer.is_empty() {
                    stream.write_all(format!("{answer}content-length: 0\r\n\r\n").as_bytes()).await.unwrap();
                }
            }
        });
        let plain = Terms { settings: Arc::new(Settings::of("test")), tls: None };
        let mut good = Vec::new();
        for _ in cases {
            good.push(probe(address, "/health", &plain).await.is_ok());
        }
        assert_eq!(good, [true, true, false, false, false]);
        origin.await.unwrap();
        assert!(
            matches!(probe(address, "/health", &plain).await, Err(Unwell::Theirs(problem)) if problem.starts_with("connect"))
        );
    }
}
