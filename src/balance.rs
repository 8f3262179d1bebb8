//! Strategies: how an endpoint is chosen.

/// How an endpoint is chosen from those that are usable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// One after the other; one counter per service, shared by all workers.
    #[default]
    RoundRobin,
    /// One after the other in proportion to weight, smoothly mixed (nginx's algorithm).
    WeightedRoundRobin,
    /// Any, in proportion to weight.
    Random,
    /// The one with fewer in flight of two drawn at random (Mitzenmacher, "The power of two choices").
    LeastRequest,
    /// The one with less latency × in flight of two drawn at random.
    PeakEwma,
    /// Consistent hash of a key, with bounded disruption (weighted rendezvous hashing).
    Hash,
    /// As `Hash`, but a key keeps the endpoint that it was once given.
    Sticky,
}

impl Strategy {
    /// As it is written in the configuration, WIT and telemetry.
    pub fn name(self) -> &'static str {
        match self {
            Strategy::RoundRobin => "round-robin",
            Strategy::WeightedRoundRobin => "weighted-round-robin",
            Strategy::Random => "random",
            Strategy::LeastRequest => "least-request",
            Strategy::PeakEwma => "peak-ewma",
            Strategy::Hash => "hash",
            Strategy::Sticky => "sticky",
        }
    }
}
