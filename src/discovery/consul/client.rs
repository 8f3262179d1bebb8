//! One query to the health endpoint: what is sent, what is refused, and what is said when it fails.

use super::share::Share;
use super::{Settings, States, Token, answer};
use crate::base::files;
use crate::base::secret::Secret;
use crate::discovery::Lookup;
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{StatusCode, Url};
use std::error::Error as _;
use std::time::Duration;

/// To connect, and for a query that does not wait.
const CONNECT: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(5);
/// How much of an error's body is shown, bytes.
const SHOWN: usize = 160;
/// No token is longer, bytes.
const TOKEN_BYTES: u64 = 64 << 10;
/// How long an error's body is waited for.
const SAYING: Duration = Duration::from_secs(1);

/// What to do where an agent turns connections away.
const RAISE: &str = "the agent takes no more connections: raise its `limits.http_max_conns_per_client` (200 by default), or \
                     lower `max_connections` of the source (150)";

/// Asks one agent.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    pub(super) settings: Settings,
    pub(super) share: Share,
}

/// A good answer.
#[derive(Debug)]
pub(super) struct Reply {
    /// Consul's index; 0: there was none.
    pub(super) index: u64,
    pub(super) answer: answer::Answer,
    /// What is wrong with all of its entries.
    pub(super) unusable: Option<String>,
}

impl Client {
    pub(super) fn new(settings: Settings) -> Result<Self, String> {
        // reqwest panics without a provider. An error means that there is one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
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
            .map_err(|e| reason(&e))?;
        let share = Share::new(settings.max_connections);
        Ok(Client { http, settings, share })
    }

    /// Asks for a service when it has its turn: at once with index 0, else when something changed or `wait` is over.
    ///
    /// # Errors
    /// What went wrong, in one line without secrets.
    pub(super) async fn query(&self, lookup: &Lookup, index: u64) -> Result<Reply, String> {
        let _turn = self.share.turn().await;
        let token = self.token().await?;
        let told = |problem: String| {
            let problem = format!("{}: {problem}", self.settings.address);
            token.as_ref().map_or_else(|| problem.clone(), |token| token.redact(&problem))
        };
        let mut reply = self.ask(lookup, index, token.as_ref()).await.map_err(told)?;
        reply.unusable = reply.answer.problem().map(told);
        Ok(reply)
    }

    async fn ask(&self, lookup: &Lookup, index: u64, token: Option<&Secret>) -> Result<Reply, String> {
        // Consul adds up to a sixteenth to spread its clients.
        let wait = if index == 0 { Duration::ZERO } else { self.share.wait(self.settings.wait) };
        let mut request = self.http.get(self.url(lookup, index, wait)?).timeout(wait + wait / 16 + ANSWER);
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(token.expose())
                .map_err(|_| "the token holds characters that no header can carry".to_owned())?;
            value.set_sensitive(true);
            request = request.header("x-consul-token", value);
        }
        let turned_away = |error: &reqwest::Error| !error.is_connect() && !error.is_timeout() && self.share.is_shared();
        let mut response = request.send().await.map_err(|error| match reason(&error) {
            // Some agents just close.
            reason if turned_away(&error) => format!("{reason}; if others are still answered, {RAISE}"),
            reason => reason,
        })?;
        let status = response.status();
        if status != StatusCode::OK {
            // What Consul says about it helps, but is no reason to wait or to read much.
            let body = tokio::time::timeout(SAYING, read(&mut response, SHOWN)).await;
            let (body, _) = body.unwrap_or_else(|_| Ok(Default::default())).unwrap_or_default();
            let said: String = String::from_utf8_lossy(&body).split_whitespace().collect::<Vec<_>>().join(" ");
            let said: String = said.chars().filter(|c| !c.is_control()).collect();
            let problem = format!("answered {}: {said}", status.as_u16()).trim_end_matches([':', ' ']).to_owned();
            let turned_away = status == StatusCode::TOO_MANY_REQUESTS;
            return Err(if turned_away { format!("{problem}; {RAISE}") } else { problem });
        }
        let headers = response.headers().clone();
        let limit = self.settings.max_answer;
        let (body, whole) = read(&mut response, limit).await.map_err(|e| reason(&e))?;
        if !whole {
            return Err(format!("the answer is larger than {limit} bytes (`max_answer`)"));
        }
        let mut answer = answer::parse(&body)?;
        if self.settings.states == States::NotCritical {
            answer.endpoints.retain(|entry| entry.healthy);
        }
        if answer.endpoints.is_empty() && header(&headers, "x-consul-results-filtered-by-acls") == Some("true") {
            return Err("the answer is empty because the token may not read the service or its nodes".to_owned());
        }
        let index = header(&headers, "x-consul-index").and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok(Reply { index, answer, unusable: None })
    }

    fn url(&self, lookup: &Lookup, index: u64, wait: Duration) -> Result<Url, String> {
        let settings = &self.settings;
        let name = lookup.registered_as.as_str();
        // As path segments, dots would be dropped.
        if matches!(name, "" | "." | "..") {
            return Err(format!("`{name}` is no name of a service"));
        }
        let mut url = settings.address.0.clone();
        url.path_segments_mut()
            .map_err(|()| "the address has no path".to_owned())?
            .pop_if_empty()
            .extend(["v1", "health", "service", name]);
        let mut query = url.query_pairs_mut();
        if settings.states == States::Passing {
            query.append_pair("passing", "1");
        }
        if let Some(datacenter) = &settings.datacenter {
            query.append_pair("dc", datacenter);
        }
        for tag in settings.tags.iter().chain(&lookup.tags) {
            query.append_pair("tag", tag);
        }
        if index > 0 {
            query.append_pair("index", &index.to_string());
            query.append_pair("wait", &format!("{}ms", wait.as_millis()));
        }
        drop(query);
        if url.query() == Some("") {
            url.set_query(None);
        }
        Ok(url)
    }

    async fn token(&self) -> Result<Option<Secret>, String> {
        match &self.settings.token {
            None => Ok(None),
            Some(Token::Value(token)) => Ok(Some(token.clone())),
            Some(Token::File(file)) => {
                let text = files::read_text_beside(file, TOKEN_BYTES).await;
                let text = text.map_err(|e| format!("token_file {}: cannot be read: {e}", file.display()))?;
                match text.trim() {
                    // To ask without a token would be answered with an empty list, not with an error.
                    "" => Err(format!("token_file {}: is empty", file.display())),
                    token => Ok(Some(Secret::new(token))),
                }
            }
        }
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// At most `limit` bytes of the body, and whether that is all of it.
async fn read(response: &mut reqwest::Response, limit: usize) -> Result<(Vec<u8>, bool), reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = limit - body.len();
        if chunk.len() > room {
            body.extend_from_slice(&chunk[..room]);
            return Ok((body, false));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((body, true))
}

/// The innermost cause, which is what helps. The URL is left out: it may hold a password.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() && !error.is_connect() {
        return "no answer in time".to_owned();
    }
    let mut cause = error.source();
    while let Some(inner) = cause.and_then(|cause| cause.source()) {
        cause = Some(inner);
    }
    let what = if error.is_connect() { "cannot connect" } else { "the exchange failed" };
    cause.map_or_else(|| what.to_owned(), |cause| format!("{what}: {cause}"))
}

#[cfg(test)]
mod tests;
