//! Consul's client: asks one agent by its HTTP API. A path and what is to be known go in; a body, its headers and its
//! index come out. Blocking queries follow developer.hashicorp.com/consul/api-docs/features/blocking.

mod index;
mod settings;
mod share;

pub use index::Index;
pub use settings::{Address, Settings};

use super::body::{read, told};
use super::{Failure, Kind};
use crate::base::secret::Secret;
use crate::http::tls;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use share::Share;
use std::error::Error as _;
use std::time::Duration;

/// To connect, and for a query that does not wait.
const CONNECT: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(5);
/// How much of an error's body is shown, bytes.
const SHOWN: usize = 160;
/// How long an error's body is waited for.
const SAYING: Duration = Duration::from_secs(1);

/// What to do where an agent turns connections away.
const RAISE: &str = "the agent takes no more connections: raise its `limits.http_max_conns_per_client` (200 by default), or \
                     lower `max_connections` of the source (150)";

/// Asks one agent.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    settings: Settings,
    share: Share,
}

/// What an agent is asked.
#[derive(Debug, Clone)]
pub struct Query<'a> {
    /// What follows `/v1/`, segment by segment, each as it is called: none is empty, `.` or `..`.
    pub path: &'a [&'a str],
    /// Names and values of the URL's query.
    pub parameters: &'a [(&'a str, &'a str)],
    /// The index of what is known: it is answered when something is newer, or when the client's `wait` is over. 0: at once.
    pub index: u64,
}

/// An answer with status 200, or with 404 where that is one.
#[derive(Debug)]
pub struct Reply {
    /// There is what was asked for.
    pub found: bool,
    /// Consul's index; 0: there was none.
    pub index: u64,
    /// Its headers.
    pub headers: HeaderMap,
    /// All of its body.
    pub body: Vec<u8>,
    voice: Voice,
}

impl Reply {
    /// The text of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// What is wrong with it for who asked, told as the client tells its own failures: with the agent's address, and
    /// without the token, should the answer quote it.
    pub fn failure(&self, kind: Kind, problem: &str) -> Failure {
        self.voice.failure(kind, problem)
    }
}

/// How failures of one query are told.
#[derive(Debug)]
struct Voice {
    address: String,
    token: Option<Secret>,
}

impl Voice {
    fn failure(&self, kind: Kind, problem: &str) -> Failure {
        let problem = format!("{}: {problem}", self.address);
        Failure::new(kind, self.token.as_ref().map_or_else(|| problem.clone(), |token| token.redact(&problem)))
    }
}

impl Client {
    /// A client of this agent. It connects when it is asked for something.
    ///
    /// # Errors
    /// The system's certificates cannot be used.
    pub fn new(settings: Settings) -> Result<Self, String> {
        tls::install_provider();
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            // A query waits in silence; without these, an agent whose machine is gone is noticed when `wait` is over.
            .tcp_keepalive(Duration::from_secs(10))
            .tcp_keepalive_interval(Duration::from_secs(5))
            .tcp_keepalive_retries(3)
            .user_agent(concat!("wayside/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| failure(&e).problem)?;
        let share = Share::new(settings.max_connections);
        Ok(Client { http, settings, share })
    }

    /// So many queries wait for changes from now on. True: they have to take turns.
    pub fn watches(&self, queries: usize) -> bool {
        self.share.watch(queries)
    }

    /// Asks when the query has its turn: answered at once with index 0, else when something changed or `wait` is over.
    ///
    /// # Errors
    /// What went wrong, of which kind, in one line that names the agent.
    pub async fn get(&self, query: &Query<'_>) -> Result<Reply, Failure> {
        let _turn = self.share.turn().await;
        self.send(query, None, false).await
    }

    /// The same where nothing may be there.
    ///
    /// # Errors
    /// What went wrong, of which kind, in one line that names the agent.
    pub async fn find(&self, query: &Query<'_>) -> Result<Reply, Failure> {
        self.send(query, None, true).await
    }

    /// Tells it something.
    ///
    /// # Errors
    /// What went wrong, of which kind, in one line that names the agent.
    pub async fn put(&self, path: &[&str], parameters: &[(&str, &str)], body: Vec<u8>) -> Result<Reply, Failure> {
        self.send(&Query { path, parameters, index: 0 }, Some((Method::PUT, body)), false).await
    }

    /// Takes something away.
    ///
    /// # Errors
    /// What went wrong, of which kind, in one line that names the agent.
    pub async fn delete(&self, path: &[&str], parameters: &[(&str, &str)]) -> Result<(), Failure> {
        self.send(&Query { path, parameters, index: 0 }, Some((Method::DELETE, Vec::new())), true).await.map(drop)
    }

    /// `absent`: that nothing is there is an answer.
    async fn send(&self, query: &Query<'_>, tell: Option<(Method, Vec<u8>)>, absent: bool) -> Result<Reply, Failure> {
        let token = match &self.settings.token {
            None => None,
            Some(token) => Some(token.read().await.map_err(|problem| Failure::new(Kind::Denied, problem))?),
        };
        let voice = Voice { address: self.settings.address.to_string(), token };
        match self.ask(query, tell, absent, voice.token.as_ref()).await {
            Ok((status, headers, body)) => {
                let index = headers.get("x-consul-index").and_then(|value| value.to_str().ok()?.parse().ok());
                let found = status == StatusCode::OK;
                Ok(Reply { found, index: index.unwrap_or(0), headers, body, voice })
            }
            Err(Failure { kind, problem }) => Err(voice.failure(kind, &problem)),
        }
    }

    async fn ask(
        &self,
        query: &Query<'_>,
        tell: Option<(Method, Vec<u8>)>,
        absent: bool,
        token: Option<&Secret>,
    ) -> Result<(StatusCode, HeaderMap, Vec<u8>), Failure> {
        // Consul adds up to a sixteenth to spread its clients.
        let wait = if query.index == 0 { Duration::ZERO } else { self.share.wait(self.settings.wait) };
        let url = self.url(query, wait)?;
        let mut request = match tell {
            None => self.http.get(url),
            Some((method, body)) => self.http.request(method, url).body(body),
        };
        request = request.timeout(wait + wait / 16 + ANSWER);
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(token.expose())
                .map_err(|_| Failure::new(Kind::Denied, "the token holds characters that no header can carry"))?;
            value.set_sensitive(true);
            request = request.header("x-consul-token", value);
        }
        let turned_away = |error: &reqwest::Error| !error.is_connect() && !error.is_timeout() && self.share.is_shared();
        let mut response = request.send().await.map_err(|error| match failure(&error) {
            // Some agents just close.
            Failure { kind, problem } if turned_away(&error) => {
                Failure::new(kind, format!("{problem}; if others are still answered, {RAISE}"))
            }
            failure => failure,
        })?;
        let status = response.status();
        if status != StatusCode::OK && !(absent && status == StatusCode::NOT_FOUND) {
            return Err(refused(&mut response).await);
        }
        let headers = response.headers().clone();
        let limit = self.settings.max_answer;
        let (body, whole) = read(&mut response, limit).await.map_err(|e| failure(&e))?;
        if !whole {
            let problem = format!("the answer is larger than {limit} bytes (`max_answer`)");
            return Err(Failure::new(Kind::BadAnswer, problem));
        }
        Ok((status, headers, body))
    }

    fn url(&self, query: &Query<'_>, wait: Duration) -> Result<Url, Failure> {
        let mut url = self.settings.address.0.clone();
        url.path_segments_mut()
            .map_err(|()| Failure::new(Kind::Unreachable, "the address has no path"))?
            .pop_if_empty()
            .push("v1")
            .extend(query.path);
        let mut pairs = url.query_pairs_mut();
        pairs.extend_pairs(query.parameters);
        if query.index > 0 {
            pairs.append_pair("index", &query.index.to_string());
            pairs.append_pair("wait", &format!("{}ms", wait.as_millis()));
        }
        drop(pairs);
        if url.query() == Some("") {
            url.set_query(None);
        }
        Ok(url)
    }
}

/// What another status than 200 says. Its body helps, but is no reason to wait or to read much.
async fn refused(response: &mut reqwest::Response) -> Failure {
    let status = response.status();
    let body = tokio::time::timeout(SAYING, read(response, SHOWN)).await;
    let (body, _) = body.unwrap_or_else(|_| Ok(Default::default())).unwrap_or_default();
    let said: String = String::from_utf8_lossy(&body).split_whitespace().collect::<Vec<_>>().join(" ");
    let said: String = said.chars().filter(|c| !c.is_control()).collect();
    let problem = format!("answered {}: {said}", status.as_u16()).trim_end_matches([':', ' ']).to_owned();
    match status {
        StatusCode::TOO_MANY_REQUESTS => Failure::new(Kind::Unreachable, format!("{problem}; {RAISE}")),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Failure::new(Kind::Denied, problem),
        status if status.is_server_error() => Failure::new(Kind::Unreachable, problem),
        _ => Failure::new(Kind::BadAnswer, problem),
    }
}

fn failure(error: &reqwest::Error) -> Failure {
    if error.is_timeout() {
        let what = if error.is_connect() { "cannot connect: no answer in time" } else { "no answer in time" };
        return Failure::new(Kind::Silent, what);
    }
    let mut causes = std::iter::successors(error.source(), |cause| (*cause).source()).skip(1);
    let is_parse = causes.any(|cause| cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse));
    Failure::new(if is_parse { Kind::BadAnswer } else { Kind::Unreachable }, told(error))
}

#[cfg(test)]
mod tests;
