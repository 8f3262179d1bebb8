//! How a request is to be sent: what a policy or a route may say about it, and the strategies that they can name.

use std::time::Duration;

/// How an endpoint is chosen from those that are usable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// One after the other; one counter per service, shared by all workers.
    #[default]
    RoundRobin,
    /// One after the other in proportion to weight, smoothly mixed.
    WeightedRoundRobin,
    /// Any, in proportion to weight.
    Random,
    /// The one with fewest in flight, failures of the last seconds counted: of all where they are few, else of two drawn at
    /// random (Mitzenmacher, "The power of two choices").
    LeastRequest,
    /// The one with less latency × in flight, failures counted as well, of two drawn at random.
    PeakEwma,
    /// Consistent hash of a key, with the least disruption (weighted rendezvous hashing).
    Hash,
    /// As `Hash`, with shares that are more even and some more disruption where endpoints come and go (Eisenbud et al. 2016).
    Maglev,
    /// As `Hash`, but a key keeps the endpoint that it was once given.
    Sticky,
}

impl Strategy {
    /// It goes by a key.
    pub fn hashes(self) -> bool {
        matches!(self, Strategy::Hash | Strategy::Maglev | Strategy::Sticky)
    }

    /// As it is written in the configuration, WIT and telemetry.
    pub fn name(self) -> &'static str {
        match self {
            Strategy::RoundRobin => "round-robin",
            Strategy::WeightedRoundRobin => "weighted-round-robin",
            Strategy::Random => "random",
            Strategy::LeastRequest => "least-request",
            Strategy::PeakEwma => "peak-ewma",
            Strategy::Hash => "hash",
            Strategy::Maglev => "maglev",
            Strategy::Sticky => "sticky",
        }
    }

    /// Whose turn it is depends on nothing that an endpoint does, so that one can let it pass.
    pub fn takes_turns(self) -> bool {
        matches!(self, Strategy::RoundRobin | Strategy::WeightedRoundRobin | Strategy::Random)
    }
}

/// How a forward is to be done. What is not said stays as the service's settings have it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Instead of the service's own.
    pub strategy: Option<Strategy>,
    /// For `hash` and `sticky`.
    pub key: Option<String>,
    /// Ids of endpoints to try, in this order, before the strategy picks.
    pub endpoints: Vec<u32>,
    /// Only endpoints with all these pairs.
    pub subset: Vec<(String, String)>,
    /// Of those, only endpoints with all these pairs, unless there is none; one wish after the other.
    pub prefer: Vec<Vec<(String, String)>>,
    /// Whole exchange.
    pub timeout: Option<Duration>,
    /// One attempt, until its response head.
    pub attempt_timeout: Option<Duration>,
    /// Attempts, the first one counted.
    pub max_attempts: Option<u32>,
    /// Instead of the service's list, where not empty.
    pub retry_status: Vec<u16>,
    /// With whom it waits for its service to have room, and how many places those have in each turn.
    pub queue: Option<(String, u32)>,
}
