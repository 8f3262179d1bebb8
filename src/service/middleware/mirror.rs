//! `mirror`: a part of the traffic is also sent to another service, and what that answers is thrown away. Nobody waits for
//! a copy, and nothing that becomes of one reaches the client. As Envoy's `request_mirror_policies`, but for the host,
//! which stays as it is: what the copy is, [`HEADER`] says, and a service that needs another host has `host`.

use crate::base::chance::Chance;
use crate::base::duration;
use serde::Deserialize;
use std::time::Duration;

/// What a copy says of itself. No client's request keeps it where something is mirrored.
pub const HEADER: &str = "x-wayside-mirror";
/// The most of a body, bytes, and of copies under way.
const BODY: usize = 1 << 20;
const UNDER_WAY: u32 = 10_000;
/// The longest that a copy may be under way.
const LONGEST: Duration = Duration::from_secs(300);
/// Chance is drawn in millionths.
const WHOLE: usize = 1_000_000;

/// What is written.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// Where copies go.
    pub service: String,
    /// How much of the traffic is copied.
    #[serde(default = "all")]
    percent: f64,
    /// Copies under way at once, all workers together; of what comes meanwhile, none is made.
    #[serde(default = "under_way")]
    pub max_in_flight: u32,
    /// Bytes of a body that is copied; larger ones are not. They are held until the client has sent all of it.
    #[serde(default = "body")]
    pub max_body_bytes: usize,
    /// In which a copy must be sent and answered once the request's body is here, and that must be here.
    #[serde(default = "timeout", with = "duration")]
    pub timeout: Duration,
}

fn all() -> f64 {
    100.0
}

fn under_way() -> u32 {
    100
}

fn body() -> usize {
    64 << 10
}

fn timeout() -> Duration {
    Duration::from_secs(5)
}

impl Mirror {
    /// `is_service`: there is a service of this name, or may be.
    ///
    /// # Errors
    /// What is wrong with which key.
    pub(super) fn check(&self, is_service: &impl Fn(&str) -> bool) -> Result<(), String> {
        if !is_service(&self.service) {
            return Err(format!("service: there is no `[services.{}]`", self.service));
        }
        // Neither is what is no number.
        if !(0.0..=100.0).contains(&self.percent) {
            return Err(format!("percent: {} is not between 0 and 100", self.percent));
        }
        if !(1..=UNDER_WAY).contains(&self.max_in_flight) {
            return Err(format!("max_in_flight: {} is not between 1 and {UNDER_WAY}", self.max_in_flight));
        }
        if self.max_body_bytes > BODY {
            return Err(format!("max_body_bytes: {BODY} is the most"));
        }
        if self.timeout.is_zero() || self.timeout > LONGEST {
            return Err(format!("timeout: must be more than 0 and at most {}s", LONGEST.as_secs()));
        }
        Ok(())
    }

    /// Shall this one be copied?
    pub fn draws(&self, chance: &mut Chance) -> bool {
        let wanted = (self.percent * (WHOLE as f64 / 100.0)).round() as usize;
        chance.below(WHOLE) < wanted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mirror(rest: &str) -> Mirror {
        toml::from_str(&format!("service = 'shadow'\n{rest}")).unwrap()
    }

    #[test]
    fn what_is_wrong_is_told_with_its_key() {
        for (rest, problem) in [
            ("percent = -1", "percent: -1 is not between"),
            ("percent = 100.5", "percent: 100.5 is not between"),
            ("percent = nan", "percent: NaN is not between"),
            ("max_in_flight = 0", "max_in_flight: 0 is not between 1 and 10000"),
            ("max_body_bytes = 2000000", "max_body_bytes: 1048576 is the most"),
            ("timeout = '0s'", "timeout: must be more than 0"),
        ] {
            let told = mirror(rest).check(&|_: &str| true).unwrap_err();
            assert!(told.starts_with(problem), "{told}");
        }
        mirror("percent = 5").check(&|_: &str| true).unwrap();
        assert_eq!(mirror("").check(&|_: &str| false), Err("service: there is no `[services.shadow]`".to_owned()));
    }

    proptest! {
        #[test]
        fn as_much_is_drawn_as_was_asked_for(percent in 0.0..100.0_f64, seed: u64) {
            let (mirror, mut chance) = (mirror(&format!("percent = {percent}")), Chance(seed));
            let drawn = (0..10_000).filter(|_| mirror.draws(&mut chance)).count() as f64 / 100.0;
            // More than five standard deviations, at most half a point each.
            prop_assert!((drawn - percent).abs() < 3.0, "{} of {}", drawn, percent);
            prop_assert!(!self::mirror("percent = 0").draws(&mut chance) && self::mirror("").draws(&mut chance));
        }
    }
}
