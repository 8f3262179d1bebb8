//! Where operators say what shall become of a policy's versions. Whoever keeps the versions takes it from there.

use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Orders that wait at most.
const WAITING: usize = 8;

/// What shall be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Let this version answer; none: the canary, or what the directory holds.
    Promote(Option<String>),
    /// Let the good version before this one answer, or end the canary.
    Rollback,
    /// Never let this version answer again.
    Quarantine(String),
    /// Let it come back.
    Lift(String),
}

impl Order {
    /// As the command line calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Order::Promote(_) => "promote",
            Order::Rollback => "rollback",
            Order::Quarantine(_) => "quarantine",
            Order::Lift(_) => "lift",
        }
    }

    /// The version that it names.
    pub fn version(&self) -> Option<&str> {
        match self {
            Order::Promote(version) => version.as_deref(),
            Order::Rollback => None,
            Order::Quarantine(version) | Order::Lift(version) => Some(version),
        }
    }
}

/// Why an order was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It does not go together with how things are.
    #[error("{0}")]
    Conflict(String),
    /// It should have worked, and did not.
    #[error("{0}")]
    Failed(String),
}

/// An order, and where its end is waited for.
#[derive(Debug)]
pub struct Ordered {
    /// The policy's name.
    pub policy: Arc<str>,
    /// What shall be done.
    pub order: Order,
    /// What has come of it, in a sentence.
    pub reply: oneshot::Sender<Result<String, Refused>>,
}

/// Where orders are given. Clones lead to the same.
#[derive(Debug, Clone, Default)]
pub struct Desk(Option<mpsc::Sender<Ordered>>);

impl Desk {
    /// One, and where its orders come out.
    pub fn new() -> (Desk, mpsc::Receiver<Ordered>) {
        let (to, orders) = mpsc::channel(WAITING);
        (Desk(Some(to)), orders)
    }

    /// Gives an order and waits for its end: what was done, in a sentence.
    ///
    /// # Errors
    /// Why it was not.
    pub async fn give(&self, policy: Arc<str>, order: Order) -> Result<String, Refused> {
        let gone = || Refused::Failed("nobody keeps this policy's versions any more; try again".to_owned());
        let (reply, done) = oneshot::channel();
        let to = self.0.as_ref().ok_or_else(gone)?;
        to.send(Ordered { policy, order, reply }).await.map_err(|_| gone())?;
        done.await.map_err(|_| gone())?
    }
}
