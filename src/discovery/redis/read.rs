//! What one server holds of the services: its keys are looked for, and read.

use super::ledger::Held;
use super::names::{Name, Names};
use crate::discovery::registry::redis::Connection;
use crate::discovery::registry::{Failure, Kind};
use redis::{Pipeline, ServerError, ServerErrorKind, Value};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// A value is read up to this and one byte more, which a listing then finds too large, bytes.
const LARGEST: usize = 64 << 10;
/// So many keys are read at once: with the above, less than an answer may have.
pub(super) const AT_ONCE: usize = 200;
/// How many keys a server walks over for one step of looking.
const STEP: usize = 1_000;
/// Nobody has so many keys that it takes longer.
const LONGEST: Duration = Duration::from_secs(300);
/// So many keys of services are looked for on one server.
const MOST: usize = 1 << 20;

/// What was read of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// This.
    Held(Held),
    /// It is not there.
    Gone,
    /// Another server of the cluster has it, or gets it right now.
    Elsewhere,
}

/// May the beginning of a value be asked for? Else it has to be read whole, however long it is.
///
/// # Errors
/// The server does not answer.
pub(super) async fn can_read_parts(connection: &Connection, key: &str) -> Result<bool, Failure> {
    let mut probe = Pipeline::new();
    probe.cmd("GETRANGE").arg(key).arg(0).arg(0);
    let answers = connection.ask_all(&probe).await?;
    Ok(!matches!(answers.first(), Some(Value::ServerError(error)) if error.kind() == Some(ServerErrorKind::NoPerm)))
}

/// The services' keys that a server has, each once. It walks over all of its keys for that.
///
/// # Errors
/// The server refuses, or does not answer.
pub(super) async fn look(connection: &Connection, names: &Names) -> Result<Vec<Vec<u8>>, Failure> {
    let pattern = names.pattern();
    let mut found = BTreeSet::new();
    let mut cursor = b"0".to_vec();
    let until = Instant::now() + LONGEST;
    loop {
        let mut command = redis::cmd("SCAN");
        command.arg(&cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(STEP);
        let Some((next, keys)) = step(connection.ask(&command).await?) else {
            let problem = format!("{}: SCAN's answer is none", connection.address());
            return Err(Failure::new(Kind::BadAnswer, problem));
        };
        found.extend(keys.into_iter().filter(|key| names.of(key).is_some()));
        if found.len() > MOST {
            let problem = format!("{}: more than {MOST} keys belong to the services", connection.address());
            return Err(Failure::new(Kind::BadAnswer, problem));
        }
        if next == b"0" {
            return Ok(found.into_iter().collect());
        }
        if next == cursor || Instant::now() > until {
            return Err(Failure::new(
                Kind::BadAnswer,
                format!("{}: SCAN does not come to an end", connection.address()),
            ));
        }
        cursor = next;
    }
}

/// Where to go on, and the keys that were found.
fn step(answer: Value) -> Option<(Vec<u8>, Vec<Vec<u8>>)> {
    let bytes = |value| if let Value::BulkString(bytes) = value { Some(bytes) } else { None };
    let Value::Array(answer) = answer else { return None };
    let [Value::BulkString(next), Value::Array(keys)] = <[Value; 2]>::try_from(answer).ok()? else { return None };
    Some((next, keys.into_iter().filter_map(bytes).collect()))
}

/// What these keys hold, at most [`AT_ONCE`] of them. `parts`: as [`can_read_parts`] has it.
///
/// # Errors
/// The server refuses, or does not answer.
pub(super) async fn read(
    connection: &Connection,
    names: &Names,
    keys: &[Vec<u8>],
    parts: bool,
) -> Result<Vec<Reading>, Failure> {
    let mut questions = Pipeline::new();
    for key in keys {
        let whole_hash = names.of(key).is_some_and(|name| name.member.is_none());
        match (whole_hash, parts) {
            (true, _) => questions.cmd("HGETALL").arg(key),
            (false, true) => questions.cmd("GETRANGE").arg(key).arg(0).arg(LARGEST),
            (false, false) => questions.cmd("GET").arg(key),
        };
        questions.cmd("PTTL").arg(key);
    }
    let answers = connection.ask_all(&questions).await?;
    let mut found = Vec::with_capacity(keys.len());
    for (key, answer) in keys.iter().zip(answers.chunks(2)) {
        found.push(match (names.of(key), answer) {
            (Some(name), [value, ttl]) => {
                one(key, name, value, ttl).map_err(|error| connection.failure(&error.into()))?
            }
            _ => Reading::Gone,
        });
    }
    Ok(found)
}

/// What the answers about one key say. Err: why the server refuses them.
fn one(key: &[u8], name: Name<'_>, value: &Value, ttl: &Value) -> Result<Reading, ServerError> {
    for answer in [value, ttl] {
        let Value::ServerError(error) = answer else { continue };
        match error.kind() {
            Some(ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::TryAgain) => {
                return Ok(Reading::Elsewhere);
            }
            _ if error.code() == "WRONGTYPE" => {}
            _ => return Err(error.clone()),
        }
    }
    // As the server says of a key that is not there.
    let Value::Int(ttl @ -1..) = *ttl else { return Ok(Reading::Gone) };
    let held = match (name.member, value) {
        (_, Value::ServerError(_)) => {
            let wanted = if name.member.is_some() { "text" } else { "hash" };
            Held::unusable(key, &format!("its type is wrong: a {wanted} is expected"))
        }
        (Some(member), Value::BulkString(value)) => Held::value(key, member, value),
        (None, Value::Map(fields)) => Held::fields(key, fields.iter().filter_map(|(key, value)| texts(key, value))),
        (None, Value::Array(fields)) => {
            let pairs = fields.chunks(2).filter_map(|pair| match pair {
                [key, value] => texts(key, value),
                _ => None,
            });
            Held::fields(key, pairs)
        }
        _ => return Ok(Reading::Gone),
    };
    Ok(Reading::Held(held.for_ms(ttl)))
}

fn texts<'a>(key: &'a Value, value: &'a Value) -> Option<(&'a [u8], &'a [u8])> {
    match (key, value) {
        (Value::BulkString(key), Value::BulkString(value)) => Some((key, value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn error(line: &str) -> Value {
        redis::parse_redis_value(line.as_bytes()).unwrap()
    }

    #[test]
    fn answers_about_a_key_are_told_apart() {
        let member = Name { service: "users", member: Some(b"10.0.0.1:1") };
        let hash = Name { member: None, ..member };
        let says = |name, value: &Value, ttl: &Value| match one(b"k", name, value, ttl) {
            Ok(Reading::Held(held)) => format!("{} {}", held.entries.len(), held.ends.is_some()),
            Ok(found) => format!("{found:?}"),
            Err(error) => error.code().to_owned(),
        };
        let (for_ever, a_second, not_there) = (Value::Int(-1), Value::Int(1_000), Value::Int(-2));
        let pairs = Value::Array(vec![text("10.0.0.1:1"), text(""), text("10.0.0.1:2")]);
        for (name, value, ttl, said) in [
            (member, text(""), &for_ever, "1 false"),
            (member, text(""), &a_second, "1 true"),
            (member, text(""), &not_there, "Gone"),
            (member, Value::Nil, &for_ever, "Gone"),
            (member, Value::Map(vec![]), &for_ever, "Gone"),
            (hash, Value::Map(vec![(text("10.0.0.1:1"), text(""))]), &for_ever, "1 false"),
            (hash, pairs, &a_second, "1 true"),
            (member, error("-WRONGTYPE no\r\n"), &for_ever, "1 false"),
            (member, error("-MOVED 1 h:1\r\n"), &for_ever, "Elsewhere"),
            (member, error("-ASK 1 h:1\r\n"), &for_ever, "Elsewhere"),
            (member, error("-NOPERM no\r\n"), &for_ever, "NOPERM"),
            (member, text(""), &error("-NOPERM no\r\n"), "NOPERM"),
            (member, error("-LOADING no\r\n"), &for_ever, "LOADING"),
        ] {
            assert_eq!(says(name, &value, ttl), said, "{value:?} {ttl:?}");
        }
        let found = step(Value::Array(vec![text("7"), Value::Array(vec![text("a"), Value::Nil])]));
        assert_eq!(found, Some((b"7".to_vec(), vec![b"a".to_vec()])));
        assert_eq!(step(Value::Array(vec![text("7")])).or(step(Value::Okay)), None);
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(Value::Int),
            proptest::collection::vec(0u8.., 0..9).prop_map(Value::BulkString),
            Just(Value::Nil),
            Just(error("-ERR odd\r\n"))
        ];
        leaf.prop_recursive(3, 30, 4, |inner| {
            let pairs = proptest::collection::vec((inner.clone(), inner.clone()), 0..4).prop_map(Value::Map);
            prop_oneof![proptest::collection::vec(inner, 0..4).prop_map(Value::Array), pairs]
        })
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(value in values(), ttl in values(), key in proptest::collection::vec(0u8.., 0..20)) {
            let _ = step(value.clone());
            for member in [None, Some(key.as_slice())] {
                let _ = one(&key, Name { service: "users", member }, &value, &ttl);
            }
        }
    }
}
