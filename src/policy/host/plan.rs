//! `plan`: how a forward is done.

use crate::policy::bindings::wayside::policy::plan::Host;
use crate::policy::context::Context;
use crate::policy::cut::cut;
use crate::service::plan::Strategy;
use crate::service::retry::is_retryable;
use std::time::Duration;

/// Named endpoints, subset pairs and preferred pairs: of each at most this many.
const MOST: usize = 8;
/// Bytes of a key.
const KEY: usize = 1024;
/// Places in each turn of a key that waits.
const WEIGHT: u32 = 100;
/// Bytes of a reason.
const REASON: usize = 256;

impl Host for Context {
    fn round_robin(&mut self) {
        self.strategy("plan.round-robin", Strategy::RoundRobin, None);
    }

    fn weighted_round_robin(&mut self) {
        self.strategy("plan.weighted-round-robin", Strategy::WeightedRoundRobin, None);
    }

    fn random(&mut self) {
        self.strategy("plan.random", Strategy::Random, None);
    }

    fn least_request(&mut self) {
        self.strategy("plan.least-request", Strategy::LeastRequest, None);
    }

    fn peak_ewma(&mut self) {
        self.strategy("plan.peak-ewma", Strategy::PeakEwma, None);
    }

    fn hash(&mut self, key: String) {
        self.strategy("plan.hash", Strategy::Hash, Some(key));
    }

    fn sticky(&mut self, key: String) {
        self.strategy("plan.sticky", Strategy::Sticky, Some(key));
    }

    fn maglev(&mut self, key: String) {
        self.strategy("plan.maglev", Strategy::Maglev, Some(key));
    }

    fn endpoint(&mut self, id: u32) {
        if !self.deciding("plan.endpoint") {
            return;
        }
        if self.call.plan.endpoints.len() == MOST {
            return self.bad(format!("`plan.endpoint` was called more than {MOST} times"));
        }
        self.call.plan.endpoints.push(id);
    }

    fn subset(&mut self, key: String, value: String) {
        if !self.deciding("plan.subset") {
            return;
        }
        if self.call.plan.subset.len() == MOST {
            return self.bad(format!("`plan.subset` was called more than {MOST} times"));
        }
        self.call.plan.subset.push((key, value));
    }

    fn prefer(&mut self, key: String, value: String) {
        if !self.deciding("plan.prefer") {
            return;
        }
        if self.call.plan.prefer.len() == MOST {
            return self.bad(format!("`plan.prefer` was called more than {MOST} times"));
        }
        self.call.plan.prefer.push(vec![(key, value)]);
    }

    fn timeout_ms(&mut self, ms: u32) {
        self.call.plan.timeout = self.time("plan.timeout-ms", ms);
    }

    fn attempt_timeout_ms(&mut self, ms: u32) {
        self.call.plan.attempt_timeout = self.time("plan.attempt-timeout-ms", ms);
    }

    fn max_attempts(&mut self, count: u32) {
        if !self.deciding("plan.max-attempts") {
            return;
        }
        if count == 0 {
            return self.bad("`plan.max-attempts` of 0: the first attempt counts, 1 is no retry");
        }
        self.call.plan.max_attempts = Some(count);
    }

    fn retry_status(&mut self, status: u16) {
        if !self.deciding("plan.retry-status") {
            return;
        }
        if !is_retryable(status) {
            return self.bad(format!("`plan.retry-status` of {status} (expected 500 to 599, 408, 425 or 429)"));
        }
        if !self.call.plan.retry_status.contains(&status) {
            self.call.plan.retry_status.push(status);
        }
    }

    fn queue_as(&mut self, key: String, weight: u32) {
        if !self.deciding("plan.queue-as") {
            return;
        }
        if key.len() > KEY {
            return self.bad(format!("`plan.queue-as`: the key is longer than {KEY} bytes"));
        }
        if !(1..=WEIGHT).contains(&weight) {
            return self.bad(format!("`plan.queue-as`: a weight of {weight} (expected 1 to {WEIGHT})"));
        }
        self.call.plan.queue = Some((key, weight));
    }

    fn reason(&mut self, mut text: String) {
        if !self.deciding("plan.reason") {
            return;
        }
        cut(&mut text, REASON);
        if text.contains(char::is_control) {
            // One line, also in logs that are read as text.
            text = text.replace(char::is_control, " ");
        }
        self.call.reason = text;
    }
}

impl Context {
    fn strategy(&mut self, function: &str, strategy: Strategy, key: Option<String>) {
        if !self.deciding(function) {
            return;
        }
        if key.as_ref().is_some_and(|key| key.len() > KEY) {
            return self.bad(format!("`{function}`: the key is longer than {KEY} bytes"));
        }
        self.call.plan.strategy = Some(strategy);
        self.call.plan.key = key;
    }

    fn time(&mut self, function: &str, ms: u32) -> Option<Duration> {
        if !self.deciding(function) {
            return None;
        }
        if ms == 0 {
            self.bad(format!("`{function}` of 0"));
            return None;
        }
        Some(Duration::from_millis(ms.into()))
    }
}
