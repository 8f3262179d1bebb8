//! Why a canary was rolled back, for whoever comes to look, also long after.

use super::course::Progress;
use super::judge::{Guilt, Harm};
use serde::{Deserialize, Serialize};

/// Requests of each side that are shown.
pub(super) const EXAMPLES: usize = 10;

/// What speaks against a version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// `fault`, `5xx`, `slow` or `starved`.
    pub kind: String,
    /// The same in a sentence.
    pub told: String,
    /// How far it had come.
    pub progress: Progress,
    /// The share of the clients that it had, 0 to 1.
    pub share: f64,
    /// The odds against it; none: they were not needed.
    pub odds: Option<f64>,
    /// How unlike clients were, by which the odds were divided.
    pub unlike: Option<f64>,
    /// What the live version had.
    pub live: Seen,
    /// What it had itself.
    pub canary: Seen,
}

/// What one side had.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Requests.
    pub requests: u64,
    /// Those that count against it.
    pub events: u64,
    /// Its 99th percentile, ms, where that is what counts.
    pub p99_ms: Option<f64>,
    /// Some of the requests.
    pub examples: Vec<Example>,
}

/// One request that did not go well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// When it came, ms since 1970.
    pub at_ms: u64,
    /// Its method.
    pub method: String,
    /// Its host.
    pub host: String,
    /// Its path, without the query; cut where it is long.
    pub path: String,
    /// What the client was answered; none: that was not known yet.
    pub status: Option<u16>,
    /// What the policy's call went wrong with.
    pub fault: Option<String>,
}

impl Evidence {
    /// By numbers.
    pub fn of_guilt(guilt: &Guilt, progress: Progress, share: f64, examples: [Vec<Example>; 2]) -> Self {
        let [requests, events] = [guilt.requests, guilt.events];
        let [live, canary] = examples;
        let percent = |side: usize| {
            let (events, requests) = (events.get(side).unwrap_or(&0), requests.get(side).unwrap_or(&0));
            *events as f64 * 100.0 / (*requests).max(1) as f64
        };
        let (live_share, own_share) = (percent(0), percent(1));
        let (kind, told, p99) = match guilt.harm {
            Harm::Bad => ("5xx", format!("{own_share:.2} % of its answers are 5xx, against {live_share:.2} %"), None),
            Harm::Slow([live, own]) => {
                let ms = [live, own].map(|time| time.as_secs_f64() * 1000.0);
                ("slow", format!("99 of 100 answers come within {:.1} ms, against {:.1} ms", ms[1], ms[0]), Some(ms))
            }
            Harm::Starved => {
                let told = format!(
                    "{own_share:.2} % of its calls ran out of time, memory or stack, against {live_share:.2} %"
                );
                ("starved", told, None)
            }
        };
        let seen = |side: usize, examples| Seen {
            requests: requests.get(side).copied().unwrap_or(0),
            events: events.get(side).copied().unwrap_or(0),
            p99_ms: p99.and_then(|p99| p99.get(side).copied()),
            examples,
        };
        Evidence {
            kind: kind.to_owned(),
            told,
            progress,
            share,
            // JSON knows no number that is larger than all.
            odds: Some(guilt.odds.min(1e300)),
            unlike: Some(guilt.unlike),
            live: seen(0, live),
            canary: seen(1, canary),
        }
    }

    /// By calls that went wrong where the live version answered.
    pub fn of_faults(faults: u64, progress: Progress, share: f64, examples: Vec<Example>) -> Self {
        let first = examples.iter().find_map(|example| example.fault.as_deref()).unwrap_or("no example was kept");
        let told = match faults {
            1 => format!("a call went wrong that the live version answered: {first}"),
            _ => format!("{faults} calls went wrong that the live version answered, the first: {first}"),
        };
        let [live, requests] = progress.requests;
        Evidence {
            kind: "fault".to_owned(),
            told,
            progress,
            share,
            odds: None,
            unlike: None,
            live: Seen { requests: live, ..Seen::default() },
            canary: Seen { requests, events: faults, p99_ms: None, examples },
        }
    }
}
