//! Whether the agent lives. A query that waits for a change is silent for as long as it waits, and so is an agent that hangs
//! or whose machine is gone: so it is asked for something else now and then.

use crate::discovery::backoff::Backoff;
use crate::discovery::registry::consul::{Client, Query};
use crate::discovery::registry::{Failure, Kind};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How often it is asked while it answers.
const EVERY: Duration = Duration::from_secs(2);
/// How long it is waited for, and how soon it is asked again, while it does not.
const ANSWER: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_secs(1);

/// Comes when the agent says nothing, for about five seconds. That it cannot be reached, or refuses, is told by those who
/// watch services.
pub(super) async fn silence(client: &Client) -> Failure {
    loop {
        sleep(EVERY).await;
        match ask(client).await {
            Err(failure) if failure.kind == Kind::Silent => return failure,
            _ => {}
        }
    }
}

/// Comes when it says something again, whatever that is.
pub(super) async fn speech(client: &Client) {
    let mut backoff = Backoff::seeded().up_to(AGAIN);
    loop {
        match timeout(ANSWER, ask(client)).await {
            Ok(Err(Failure { kind: Kind::Silent, .. })) | Err(_) => sleep(backoff.wait()).await,
            Ok(_) => return,
        }
    }
}

/// Needs no rights, and no turn of those who watch.
async fn ask(client: &Client) -> Result<(), Failure> {
    client.find(&Query { path: &["status", "leader"], parameters: &[], index: 0 }).await.map(drop)
}
