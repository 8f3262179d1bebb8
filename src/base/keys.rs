//! Two types that share one table of the configuration, each with keys of its own: so that what many tables have in
//! common stands in one type. Serde's `flatten` does this, too, but its messages no longer name the key.

use super::place::value_problem;
use serde::de::value::Error;
use serde::de::{DeserializeOwned, Deserializer, Error as _, Visitor};

/// Reads both from the table.
///
/// # Errors
/// The key that is wrong, and what was expected; or that neither has such a key, and which there are.
pub fn share<A: DeserializeOwned, B: DeserializeOwned>(table: toml::Table) -> Result<(A, B), String> {
    let (first, second) = (of::<A>(), of::<B>());
    let is_known = |key: &str| first.contains(&key) || second.contains(&key);
    if let Some(key) = table.keys().find(|key| !is_known(key)) {
        let all: Vec<String> = first.iter().chain(second).map(|key| format!("`{key}`")).collect();
        return Err(format!("unknown field `{key}`, expected one of {}", all.join(", ")));
    }
    let (first, second): (toml::Table, toml::Table) =
        table.into_iter().partition(|(key, _)| first.contains(&key.as_str()));
    let first = first.try_into().map_err(|error| value_problem(&error))?;
    let second = second.try_into().map_err(|error| value_problem(&error))?;
    Ok((first, second))
}

/// The keys of a type that is read from a table.
fn of<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut keys: &'static [&'static str] = &[];
    // Always an error: it asks and gives nothing.
    let _ = T::deserialize(Ask(&mut keys));
    keys
}

/// Notes which fields a type asks for.
struct Ask<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Ask<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("no table"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(try_from = "Raw")]
    struct Checked(u8);
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Raw {
        port: u8,
    }
    impl TryFrom<Raw> for Checked {
        type Error = String;
        fn try_from(raw: Raw) -> Result<Self, String> {
            (raw.port > 0).then_some(Checked(raw.port)).ok_or_else(|| "`port`: 0".to_owned())
        }
    }
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Rest {
        #[serde(rename = "in")]
        inside: Option<String>,
        count: u8,
    }

    fn read(text: &str) -> Result<(Checked, Rest), String> {
        share(toml::from_str(text).unwrap())
    }

    #[test]
    fn each_takes_its_own_keys_and_an_error_names_them() {
        let rest = Rest { inside: Some("x".to_owned()), count: 2 };
        assert_eq!(read("port = 1\nin = 'x'\ncount = 2").unwrap(), (Checked(1), rest));
        for (text, problem) in [
            ("port = 1\ncount = 2\nother = 3", "unknown field `other`, expected one of `port`, `in`, `count`"),
            ("count = 2", "missing field `port`"),
            ("port = 1", "missing field `count`"),
            ("port = 0\ncount = 2", "`port`: 0"),
        ] {
            assert_eq!(read(text).unwrap_err(), problem, "{text}");
        }
        for (text, key) in [("port = 'x'\ncount = 2", "`port`: "), ("port = 1\ncount = 'x'", "`count`: ")] {
            assert!(read(text).unwrap_err().starts_with(key), "{text}");
        }
    }
}
