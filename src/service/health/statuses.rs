//! A set of statuses as people write it: `["200-299", 304]`.

use serde::Deserialize;
use std::ops::RangeInclusive;

/// Statuses between 100 and 599.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<OneOrRange>")]
pub struct Statuses(Vec<RangeInclusive<u16>>);

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrRange {
    One(u16),
    Range(String),
}

/// Ranges in one set.
const MOST: usize = 64;

impl Statuses {
    /// All between these two, both counted.
    pub fn between(first: u16, last: u16) -> Self {
        Statuses(vec![first..=last])
    }

    /// Is it one of them?
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl TryFrom<Vec<OneOrRange>> for Statuses {
    type Error = String;

    fn try_from(given: Vec<OneOrRange>) -> Result<Self, String> {
        match given.len() {
            1..=MOST => given.into_iter().map(range).collect::<Result<_, _>>().map(Statuses),
            0 => Err("an empty list of statuses: nothing would be good".into()),
            _ => Err(format!("more than {MOST} statuses; write ranges, like \"200-299\"")),
        }
    }
}

fn range(given: OneOrRange) -> Result<RangeInclusive<u16>, String> {
    let (text, ends) = match given {
        OneOrRange::One(status) => (status.to_string(), Some((status, status))),
        OneOrRange::Range(text) => {
            let (first, last) = text.split_once('-').unwrap_or((&text, &text));
            let ends = number(first).zip(number(last));
            (text, ends)
        }
    };
    let good = |(first, last): &(u16, u16)| 100 <= *first && first <= last && *last <= 599;
    let ends = ends.filter(good).ok_or_else(|| format!("`{text}` is no status or range of them, like \"200-299\""))?;
    Ok(ends.0..=ends.1)
}

/// Three digits.
fn number(text: &str) -> Option<u16> {
    let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Deserialize)]
    struct Given {
        expect: Statuses,
    }

    fn parse(text: &str) -> Result<Statuses, String> {
        toml::from_str::<Given>(&format!("expect = {text}")).map(|given| given.expect).map_err(|e| e.to_string())
    }

    #[test]
    fn statuses_are_numbers_and_ranges() {
        let set = parse(r#"["200-299", 304, "401"]"#).unwrap();
        let good: Vec<u16> = (0..=999).filter(|status| set.contains(*status)).collect();
        assert_eq!(good, (200..300).chain([304, 401]).collect::<Vec<_>>());
        for bad in
            ["[]", "[99]", "[600]", r#"["299-200"]"#, r#"["2xx"]"#, r#"["200-"]"#, r#"["+20-299"]"#, "[-1]", "200"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse(r#"["5xx"]"#).unwrap_err().contains("`5xx` is no status or range of them"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,12}", first in any::<u16>(), last in any::<u16>()) {
            let _ = range(OneOrRange::Range(text));
            let valid = (100..=599).contains(&first) && (first..=599).contains(&last);
            let parsed = range(OneOrRange::Range(format!("{first}-{last}")));
            prop_assert_eq!(parsed.ok(), valid.then_some(first..=last));
        }
    }
}
