//! `[release]` of a sidecar: how a version takes the place of the one before. It is no part of what a version is.

use super::judge::Bounds;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use std::time::Duration;

/// The most steps that there may be.
const MOST_STEPS: usize = 20;
/// The shortest time of a step.
const SHORTEST: Duration = Duration::from_secs(1);

/// `[release]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How it takes the other one's place. Default: at once.
    pub mode: Mode,
    /// Shares of the clients that ask it, one after the other, rising, each above 0 and below 100 %. Then all do.
    #[serde(deserialize_with = "percents")]
    pub steps: Vec<f64>,
    /// How long each step takes at least, 1 s or more.
    #[serde(with = "crate::base::duration")]
    pub hold: Duration,
    /// By what clients are told apart, so that none goes back and forth.
    pub sticky_on: StickyOn,
    /// Calls that may go wrong where the live version answers; one more ends it.
    pub max_faults: u64,
    /// How much larger its share of answers of 500 and more may be, in points.
    #[serde(deserialize_with = "percent")]
    pub max_5xx_rise: f64,
    /// How much longer its 99th percentile may be. A rise of so much is found; one of less than half of it is let pass.
    #[serde(deserialize_with = "percent")]
    pub max_p99_rise: f64,
    /// Its own requests in each step, at least.
    pub min_requests: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            mode: Mode::AtOnce,
            steps: vec![0.01, 0.1, 0.5],
            hold: Duration::from_secs(300),
            sticky_on: StickyOn::Client,
            max_faults: 0,
            max_5xx_rise: 0.002,
            max_p99_rise: 0.2,
            min_requests: 200,
        }
    }
}

/// How a version takes the other one's place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// As soon as it is loaded.
    #[default]
    AtOnce,
    /// A part of the clients at a time, for as long as it does no harm.
    Canary,
}

/// By what clients are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StickyOn {
    /// Their address.
    Client,
    /// The value of this header; their address where there is none.
    Header(String),
    /// The value of this cookie; their address where there is none.
    Cookie(String),
    /// Not at all: each request is drawn for itself.
    Request,
}

impl<'de> Deserialize<'de> for StickyOn {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let named = text.split_once(':').filter(|(_, name)| !name.is_empty());
        match (text.as_str(), named) {
            ("client", _) => Ok(StickyOn::Client),
            ("request", _) => Ok(StickyOn::Request),
            (_, Some(("header", name))) => Ok(StickyOn::Header(name.to_ascii_lowercase())),
            (_, Some(("cookie", name))) => Ok(StickyOn::Cookie(name.to_owned())),
            _ => Err(D::Error::custom(format!(
                "`{text}` tells no clients apart; write \"client\", \"header:NAME\", \"cookie:NAME\" or \"request\""
            ))),
        }
    }
}

impl Settings {
    /// What a canary may do.
    pub fn bounds(&self) -> Bounds {
        Bounds { max_5xx_rise: self.max_5xx_rise, max_p99_rise: self.max_p99_rise }
    }

    /// Can it be released so?
    ///
    /// # Errors
    /// The key that is wrong, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        let shown = || self.steps.iter().map(|step| format!("{} %", step * 100.0)).collect::<Vec<_>>().join(", ");
        let rising = self.steps.is_sorted_by(|a, b| a < b);
        let within = self.steps.iter().all(|step| (0.0001..1.0).contains(step));
        if self.steps.is_empty() || self.steps.len() > MOST_STEPS || !rising || !within {
            return Err(format!(
                "steps: {} is no way up; write 1 to {MOST_STEPS} rising shares, from 0.01 % to below 100 %, like \
                 [\"1%\", \"10%\", \"50%\"]",
                shown()
            ));
        }
        if self.hold < SHORTEST {
            let hold = humantime::format_duration(self.hold);
            return Err(format!("hold: {hold} is too short to see anything; write \"1s\" or more, like \"5m\""));
        }
        let bounds = [("max_5xx_rise", self.max_5xx_rise, 1.0), ("max_p99_rise", self.max_p99_rise, 100.0)];
        match bounds.into_iter().find(|(_, rise, most)| !(0.0..=*most).contains(rise)) {
            Some((key, rise, most)) => {
                Err(format!("{key}: {} % is not between 0 % and {} %", rise * 100.0, most * 100.0))
            }
            None => Ok(()),
        }
    }
}

fn percent<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let text = String::deserialize(from)?;
    parse_percent(&text).ok_or_else(|| D::Error::custom(format!("`{text}` is no share; write it like \"0.2%\"")))
}

fn percents<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
    #[derive(Deserialize)]
    struct Percent(#[serde(deserialize_with = "percent")] f64);
    Ok(Vec::<Percent>::deserialize(from)?.into_iter().map(|percent| percent.0).collect())
}

/// A share, as `"0.2%"`: digits, perhaps with a point among them.
fn parse_percent(text: &str) -> Option<f64> {
    let number = text.trim().strip_suffix('%')?.trim_end();
    let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && number.len() <= 16;
    let number: f64 = plain.then(|| number.parse().ok()).flatten()?;
    Some(number / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        let settings: Settings = toml::from_str(text).map_err(|error| error.to_string())?;
        settings.check().map(|()| settings)
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        assert_eq!(read(""), Ok(Settings::default()));
        let said = "mode = 'canary'\nsteps = ['5%', '50 %']\nhold = '1m'\nsticky_on = 'header:X-User'\nmax_faults = 2\n\
                    max_5xx_rise = '1%'\nmax_p99_rise = '50%'\nmin_requests = 1000";
        let settings = read(said).unwrap();
        assert_eq!((settings.mode, settings.steps.as_slice()), (Mode::Canary, &[0.05, 0.5][..]));
        assert_eq!(settings.sticky_on, StickyOn::Header("x-user".into()));
        assert_eq!((settings.max_5xx_rise, settings.max_p99_rise), (0.01, 0.5));
        assert_eq!(read("sticky_on = 'cookie:sid'").unwrap().sticky_on, StickyOn::Cookie("sid".into()));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_key() {
        for (text, expected) in [
            ("steps = []", "steps:"),
            ("steps = ['10%', '5%']", "steps: 10 %, 5 %"),
            ("steps = ['100%']", "below 100 %"),
            ("steps = ['0%', '5%']", "steps:"),
            ("steps = ['5']", "`5` is no share"),
            ("steps = ['-5%']", "is no share"),
            ("steps = ['NaN%']", "is no share"),
            ("hold = '10ms'", "hold: 10ms"),
            ("sticky_on = 'header:'", "cookie:NAME"),
            ("sticky_on = 'user'", "`user`"),
            ("max_5xx_rise = '101%'", "max_5xx_rise: 101 %"),
            ("max_p99_rise = '1e9%'", "is no share"),
            ("mode = 'slowly'", "canary"),
            ("step = ['5%']", "unknown field"),
        ] {
            let problem = read(text).unwrap_err();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,20}", share in "[0-9.]{0,20}%?") {
            let _ = parse_percent(&text);
            let share = parse_percent(&share);
            proptest::prop_assert!(share.is_none_or(f64::is_finite));
            let _ = read(&format!("sticky_on = {text:?}"));
        }
    }
}
