//! Keys of who issues tokens, where they are named by URL: fetched at the start, again and again, and soon after a token
//! names one that is not among them. Requests never wait for it. What was good last is on disk, too, until something good
//! comes.

mod kept;

use crate::base::chance::Chance;
use crate::discovery::backoff::Backoff;
use crate::discovery::registry::body::{read, told};
use crate::http::tls;
use crate::service::middleware::Chain;
use crate::service::middleware::jwt::{BYTES, KeySet, Remote};
use kept::KeptKeys;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// To connect, and until all of an answer is here.
const CONNECT: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(10);
/// From one time to the next, however many tokens name keys that are not known: anybody can make them up.
const AGAIN: Duration = Duration::from_secs(5);
/// The longest wait after failures, unless sets are fetched more often anyway.
const RETRY: Duration = Duration::from_secs(30);

/// The sets that are fetched.
#[derive(Debug)]
pub(super) struct Jwks {
    /// Where they are kept.
    folder: PathBuf,
    running: Vec<Running>,
    /// What was followed last.
    chain: Arc<Chain>,
}

/// One set; dropping it ends its task.
#[derive(Debug)]
struct Running {
    set: Arc<KeySet>,
    task: tokio::task::AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Jwks {
    /// None yet; those to come are kept in this folder.
    pub(super) fn new(folder: PathBuf) -> Self {
        Jwks { folder, running: Vec::new(), chain: Arc::default() }
    }

    /// Fetches what these need from now on, and nothing else. Must be called on a tokio runtime.
    pub(super) fn follow(&mut self, chain: &Arc<Chain>) {
        if Arc::ptr_eq(&self.chain, chain) {
            return;
        }
        self.chain = Arc::clone(chain);
        let wanted: Vec<&Arc<KeySet>> = chain.key_sets().collect();
        self.running.retain(|running| wanted.iter().any(|set| Arc::ptr_eq(set, &running.set)));
        for set in wanted {
            let runs = self.running.iter().any(|running| Arc::ptr_eq(&running.set, set));
            if let Some(remote) = set.remote.clone().filter(|_| !runs) {
                let task = tokio::spawn(keep(Arc::clone(set), remote, self.folder.clone())).abort_handle();
                self.running.push(Running { set: Arc::clone(set), task });
            }
        }
    }

    /// One of them was not tried yet.
    pub(super) fn is_waiting(&self) -> bool {
        self.running.iter().any(|running| !running.set.was_tried())
    }
}

/// Fetches one set again and again, and begins with what was kept of it.
async fn keep(set: Arc<KeySet>, remote: Remote, folder: PathBuf) {
    let mut kept = KeptKeys::of(&folder, &remote);
    recall(&set, &remote, &mut kept).await;
    let (url, mut chance) = (&remote.url, Chance::seeded());
    let mut backoff = Backoff::seeded().up_to(RETRY.min(remote.refresh));
    let client = loop {
        match client(&remote) {
            Ok(client) => break client,
            Err(problem) => {
                tracing::warn!(url, problem, "keys cannot be fetched");
                set.failed(&problem);
                sleep(RETRY).await;
            }
        }
    };
    loop {
        let again = Instant::now() + AGAIN;
        let before = set.problem();
        let fetched = fetch(&client, url).await;
        let wait = match fetched.and_then(|text| Ok((set.replace(&text)?, text))) {
            Ok((is_new, text)) => {
                backoff.reset();
                kept.keep(&text).await;
                if is_new || before.is_some() {
                    tracing::info!(url, keys = set.len(), is_new, "keys were fetched");
                }
                // So that gateways do not come together.
                remote.refresh.mul_f64(0.9 + chance.below(1000) as f64 / 5000.0)
            }
            Err(problem) => {
                set.failed(&problem);
                if before.is_none_or(|before| *before != problem) {
                    tracing::warn!(url, problem, known = set.len(), "keys cannot be fetched; what was known stays");
                }
                backoff.wait()
            }
        };
        let missed = async {
            set.missed().await;
            sleep_until(again).await;
        };
        tokio::select! { () = sleep(wait) => {}, () = missed => {} }
    }
}

/// What the last process fetched counts until something good comes.
async fn recall(set: &KeySet, remote: &Remote, kept: &mut KeptKeys) {
    let Some((keys, confirmed)) = kept.read().await.filter(|_| set.is_empty()) else { return };
    let age = confirmed.elapsed().unwrap_or_default();
    match set.recall(&keys, age) {
        Ok(()) => {
            let age = humantime::format_duration(Duration::from_secs(age.as_secs()));
            tracing::info!(url = remote.url, keys = set.len(), %age, "beginning with the keys that were known last");
        }
        Err(problem) => tracing::warn!(url = remote.url, problem, "the keys that were kept cannot be used"),
    }
}

fn client(remote: &Remote) -> Result<reqwest::Client, String> {
    tls::install_provider();
    let mut client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT)
        .timeout(ANSWER)
        .user_agent(concat!("wayside/", env!("CARGO_PKG_VERSION")));
    match remote.url.starts_with("https://") {
        true => client = client.https_only(true),
        // On this machine.
        false => client = client.no_proxy(),
    }
    if let Some(pem) = &remote.ca {
        let authorities = reqwest::Certificate::from_pem_bundle(pem.as_bytes());
        client = client.tls_certs_only(authorities.map_err(|error| format!("`ca`: {error}"))?);
    }
    client.build().map_err(|error| problem(&error))
}

async fn fetch(client: &reqwest::Client, url: &str) -> Result<String, String> {
    let request = client.get(url).header("accept", "application/jwk-set+json, application/json");
    let mut response = request.send().await.map_err(|error| problem(&error))?;
    if response.status() != reqwest::StatusCode::OK {
        return Err(format!("answered {}", response.status().as_u16()));
    }
    let (body, whole) = read(&mut response, BYTES).await.map_err(|error| problem(&error))?;
    if !whole {
        return Err(format!("the answer is larger than {BYTES} bytes"));
    }
    String::from_utf8(body).map_err(|_| "the answer is no text".to_owned())
}

fn problem(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    told(error)
}
