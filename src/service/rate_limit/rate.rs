//! Rates as people write them: `"100/s"`, `"10/m"`, `"5000/h"`, `"100000/d"`.

use super::gcra::Terms;
use serde::Deserialize;
use std::fmt;
use std::num::NonZero;
use std::str::FromStr;

const SECOND_NS: u64 = 1_000_000_000;
/// Requests in a second at most: of more, whole nanoseconds would be too coarse.
const MOST: u64 = 1_000_000;
/// The longest time in which a bucket may fill, ns: a year.
const LONGEST_NS: u64 = 31_557_600 * SECOND_NS;

/// So many requests in a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Rate {
    /// How many; at least 1.
    pub(super) count: NonZero<u32>,
    /// In how many seconds: a second, a minute, an hour or a day.
    pub(super) seconds: u32,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no rate; write it like \"100/s\", \"10/m\", \"5000/h\" or \"100000/d\"");
        let (count, unit) = text.split_once('/').ok_or_else(wrong)?;
        let seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return Err(wrong()),
        };
        if !count.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let rate = Rate { count: count.parse().map_err(|_| wrong())?, seconds };
        match u64::from(rate.count.get()) <= MOST * u64::from(seconds) {
            true => Ok(rate),
            false => Err(format!("`{text}` is too much; at most {MOST} a second are counted")),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.seconds {
            1 => "s",
            60 => "m",
            3600 => "h",
            _ => "d",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

impl TryFrom<String> for Rate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl Rate {
    /// Between two requests, rounded up, so that never more come through than it says.
    fn interval_ns(self) -> u64 {
        (u64::from(self.seconds) * SECOND_NS).div_ceil(self.count.get().into())
    }

    /// In a second, for a store.
    pub(super) fn per_second(self) -> f64 {
        f64::from(self.count.get()) / f64::from(self.seconds)
    }

    /// With so many at once; none: a second's worth, at least 1.
    ///
    /// # Errors
    /// It would take longer than a year until so many are there.
    pub(super) fn with_burst(self, burst: Option<NonZero<u32>>) -> Result<Terms, String> {
        let burst = burst.map_or((self.count.get() / self.seconds).max(1), NonZero::get);
        let terms = Terms { interval_ns: self.interval_ns(), burst };
        match terms.whole_ns() <= LONGEST_NS {
            true => Ok(terms),
            false => Err(format!("`burst`: at this rate it takes more than a year until {burst} are there")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn terms(text: &str) -> Terms {
        text.parse::<Rate>().unwrap().with_burst(None).unwrap()
    }

    #[test]
    fn rates_are_read_with_a_second_s_worth_at_once() {
        for (text, interval_ns, burst) in [
            ("100/s", SECOND_NS / 100, 100),
            ("10/m", 6 * SECOND_NS, 1),
            ("6000/m", SECOND_NS / 100, 100),
            ("5000/h", 720_000_000, 1),
            ("1/d", 86_400 * SECOND_NS, 1),
            ("1000000/s", 1000, 1_000_000),
            // Rounded up.
            ("3/s", 333_333_334, 3),
        ] {
            assert_eq!(terms(text), Terms { interval_ns, burst }, "{text}");
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_rate_is_refused_in_words() {
        for text in ["", "100", "/s", "100/", "0/s", "-1/s", "+1/s", "1.5/s", "1/w", "1/S", " 1/s", "99999999999/d"] {
            let told = text.parse::<Rate>().unwrap_err();
            assert!(told.contains(&format!("`{text}` is no rate; write it like \"100/s\"")), "{told}");
        }
        assert!("1000001/s".parse::<Rate>().unwrap_err().contains("at most 1000000 a second"));
        let year = "1/d".parse::<Rate>().unwrap();
        assert!(year.with_burst(NonZero::new(365)).is_ok());
        assert!(year.with_burst(NonZero::new(366)).unwrap_err().starts_with("`burst`: "));
    }

    proptest! {
        #[test]
        fn any_text_is_a_rate_or_none(text in "[0-9+./smhd ]{0,12}|.{0,12}") {
            if let Ok(rate) = text.parse::<Rate>() {
                let (count, unit) = text.split_once('/').unwrap();
                prop_assert_eq!(count.parse(), Ok(rate.count));
                prop_assert!(["s", "m", "h", "d"].contains(&unit));
                // No more than it says, and hardly less.
                let least = f64::from(rate.seconds) * 1e9 / f64::from(rate.count.get());
                let interval = rate.interval_ns() as f64;
                prop_assert!(interval >= least - 1e-3 && interval <= least * 1.001 + 1e-3, "{interval} {least}");
            }
        }
    }
}
