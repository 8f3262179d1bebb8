//! A running gateway, asked through its admin: where that is, what proves that one may change something, and what it answers.

use crate::admin::api::Problem;
use crate::admin::token;
use crate::base::secret::Secret;
use crate::discovery::registry::body::read;
use crate::http::tls;
use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use std::time::Duration;

/// No answer is larger, bytes.
const LARGEST: usize = 64 << 20;

/// Whom to ask.
#[derive(Debug, clap::Args)]
pub(super) struct Place {
    /// The gateway's admin address
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9901")]
    admin: String,
}

impl Place {
    /// What stands at this path.
    pub(super) fn url(&self, path: &str) -> String {
        url(&self.admin, path)
    }
}

/// What stands at this path of an admin address, which needs no scheme.
pub(super) fn url(admin: &str, path: &str) -> String {
    let scheme = if admin.contains("://") { "" } else { "http://" };
    format!("{scheme}{}{path}", admin.trim_end_matches('/'))
}

/// What proves that one may change something.
#[derive(Debug, clap::Args)]
pub(super) struct Proof {
    /// The file that the gateway has made, in its `state_directory`
    #[arg(long, value_name = "FILE", default_value = ".wayside/admin-token")]
    token: PathBuf,
}

impl Proof {
    /// The token.
    ///
    /// # Errors
    /// There is none, or it is none.
    pub(super) fn secret(&self) -> anyhow::Result<Secret> {
        let file = self.token.display();
        match token::read(&self.token) {
            Ok(Some(secret)) => Ok(secret),
            Ok(None) => bail!("--token {file}: there is no such file; it lies in the gateway's `state_directory`"),
            Err(problem) => bail!("--token {file}: {problem}"),
        }
    }
}

/// Whoever asks, and waits so long for each answer.
///
/// # Errors
/// The system's certificates cannot be used.
pub(super) fn client(answer: Duration) -> anyhow::Result<reqwest::Client> {
    tls::install_provider();
    Ok(reqwest::Client::builder().no_proxy().timeout(answer).build()?)
}

/// A good answer from this URL, which is not read yet.
///
/// # Errors
/// There is none, or it says what is wrong.
pub(super) async fn good(url: &str, request: reqwest::RequestBuilder) -> anyhow::Result<reqwest::Response> {
    let response = request.send().await.with_context(|| format!("{url}: no answer; see --admin"))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    match serde_json::from_slice::<Problem>(&body(url, response).await?) {
        Ok(problem) => bail!("{}", problem.error.reason),
        Err(_) => bail!("{url}: answered {status}; is that a gateway's admin address?"),
    }
}

/// The whole body of an answer from this URL.
///
/// # Errors
/// It is not to be had, or too large.
pub(super) async fn body(url: &str, mut response: reqwest::Response) -> anyhow::Result<Vec<u8>> {
    let (body, whole) = read(&mut response, LARGEST).await.with_context(|| format!("{url}: no whole answer"))?;
    if !whole {
        bail!("{url}: the answer is larger than {LARGEST} bytes");
    }
    Ok(body)
}

/// What a good answer says.
///
/// # Errors
/// Nothing that a gateway would say.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> anyhow::Result<T> {
    serde_json::from_slice(body).context("what answers is no gateway, or an older one")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_no_scheme() {
        let place = |admin: &str| Place { admin: admin.into() }.url("/policies");
        assert_eq!(place("127.0.0.1:9901"), "http://127.0.0.1:9901/policies");
        assert_eq!(place("http://gateway:9901/"), "http://gateway:9901/policies");
    }
}
