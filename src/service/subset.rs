//! `subset = { metadata = { … } }` of a service or of a route: only some endpoints, by what their metadata says.

use super::plan::Plan;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Which endpoints, and what holds where none of them is usable.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "Written")]
pub struct Subset {
    /// Those that have all of these pairs, which are in order of their keys.
    pub metadata: Vec<(String, String)>,
    /// Where there is none of them.
    pub fallback: Fallback,
}

/// What holds where no endpoint of a subset is usable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fallback {
    /// 503 `no_endpoint`.
    #[default]
    None,
    /// All endpoints of the service.
    Any,
}

impl Fallback {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Fallback::None => "none",
            Fallback::Any => "any",
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    metadata: BTreeMap<String, String>,
    #[serde(default)]
    fallback: Fallback,
}

/// The most pairs: as many as a policy may name.
const MOST: usize = 8;

impl TryFrom<Written> for Subset {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written.metadata.len() {
            1..=MOST => Ok(Subset { metadata: written.metadata.into_iter().collect(), fallback: written.fallback }),
            many => Err(format!("`metadata` has {many} pairs; name 1 to {MOST}, like `{{ version = \"v2\" }}`")),
        }
    }
}

impl Subset {
    /// There is nobody else.
    pub fn is_must(&self) -> bool {
        self.fallback == Fallback::None
    }

    /// As a plan says it.
    pub fn plan(&self) -> Plan {
        let metadata = self.metadata.clone();
        match self.fallback {
            Fallback::None => Plan { subset: metadata, ..Plan::default() },
            Fallback::Any => Plan { prefer: vec![metadata], ..Plan::default() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_is_meant() {
        let read = |text: &str| toml::from_str::<Subset>(text).map_err(|error| error.message().to_owned());
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let subset = read("metadata = { version = 'v2', tier = 'x' }").unwrap();
        assert_eq!(subset.metadata, [pair("tier", "x"), pair("version", "v2")]);
        assert!(subset.is_must() && subset.plan().subset == subset.metadata && subset.plan().prefer.is_empty());
        let wish = read("metadata = { version = 'v2' }\nfallback = 'any'").unwrap();
        assert!(!wish.is_must() && wish.plan().subset.is_empty() && wish.plan().prefer == [wish.metadata]);
        assert!(read("metadata = {}").unwrap_err().starts_with("`metadata` has 0 pairs; name 1 to 8"));
        assert!(read("metadata = { a = 'b' }\nfallback = 'some'").unwrap_err().contains("`none` or `any`"));
        assert!(read("fallback = 'any'").unwrap_err().contains("missing field `metadata`"));
    }
}
