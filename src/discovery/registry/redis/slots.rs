//! Which server of a cluster holds which keys, by redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec.

use super::settings::member;
use redis::Value;

/// All slots of a cluster.
const SLOTS: u16 = 16_384;
/// Of so many ranges and servers an answer is read.
const MOST: usize = 16_384;

/// A server, and which slots of a cluster it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Master {
    /// As `HOST:PORT`.
    pub address: String,
    /// From and to, both of them in it. None: it is no cluster, and holds every key.
    pub slots: Vec<(u16, u16)>,
}

impl Master {
    /// The keys are all there.
    pub fn alone(address: impl Into<String>) -> Self {
        Master { address: address.into(), slots: vec![] }
    }

    /// The key is there.
    pub fn holds(&self, key: &[u8]) -> bool {
        let slot = slot(key);
        self.slots.is_empty() || self.slots.iter().any(|(from, to)| (*from..=*to).contains(&slot))
    }
}

/// The slot of a key: that of its part in braces, where it has one.
fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = key.get(open + 1..)?;
        let length = rest.iter().position(|byte| *byte == b'}')?;
        rest.get(..length).filter(|tag| !tag.is_empty())
    });
    crc16(tag.unwrap_or(key)) % SLOTS
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(
            crc ^ (u16::from(*byte) << 8),
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
            },
        )
    })
}

/// The masters in an answer to `CLUSTER SLOTS`, which `asked`, as `HOST:PORT`, has given. What cannot be read is left out.
pub(super) fn masters(answer: &Value, asked: &str) -> Vec<Master> {
    let Value::Array(ranges) = answer else { return vec![] };
    let mut masters: Vec<Master> = Vec::new();
    for range in ranges.iter().take(MOST) {
        let Some((slots, address)) = range_of(range, asked) else { continue };
        match masters.iter_mut().find(|master| master.address == address) {
            Some(master) => master.slots.push(slots),
            None => masters.push(Master { address, slots: vec![slots] }),
        }
    }
    masters
}

/// A range, and who is its master: the first server of those that are named.
fn range_of(range: &Value, asked: &str) -> Option<((u16, u16), String)> {
    let Value::Array(range) = range else { return None };
    let [Value::Int(from), Value::Int(to), Value::Array(master), ..] = range.as_slice() else { return None };
    let [host, Value::Int(port), ..] = master.as_slice() else { return None };
    let slots = (u16::try_from(*from).ok()?, u16::try_from(*to).ok()?);
    let own = || asked.rsplit_once(':').map(|(host, _)| host.to_owned());
    let host = match host {
        Value::BulkString(host) if host.is_empty() => own()?,
        // It knows no name of its own that clients could use.
        Value::Nil => own()?,
        Value::BulkString(host) => String::from_utf8(host.clone()).ok()?,
        Value::SimpleString(host) => host.clone(),
        _ => return None,
    };
    let port = u16::try_from(*port).ok().filter(|port| *port > 0)?;
    let good = slots.0 <= slots.1 && slots.1 < SLOTS && host != "?" && !host.contains(|c: char| c.is_control());
    Some((slots, member(&host, port).filter(|_| good)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        // Each asked of a server by CLUSTER KEYSLOT.
        for (key, of) in
            [("foo", 12_182), ("{user1000}.following", 3443), ("foo{}{bar}", 8363), ("foo{{bar}}zap", 4015)]
        {
            assert_eq!(slot(key.as_bytes()), of, "{key}");
        }
        assert_eq!(slot(b"foo{bar"), crc16(b"foo{bar") % SLOTS);
    }

    #[test]
    fn masters_are_read_and_the_rest_is_left_out() {
        let server = |host: Value, port| Value::Array(vec![host, Value::Int(port), Value::BulkString(b"id".to_vec())]);
        let host = |host: &str| Value::BulkString(host.as_bytes().to_vec());
        let range = |from, to, server| Value::Array(vec![Value::Int(from), Value::Int(to), server]);
        let answer = Value::Array(vec![
            range(0, 5, server(host("10.0.0.1"), 1)),
            range(6, 9, server(host(""), 2)),
            range(10, 16_383, server(host("10.0.0.1"), 1)),
            range(3, 2, server(host("10.0.0.1"), 1)),
            range(0, 16_384, server(host("10.0.0.1"), 1)),
            range(0, 1, server(host("?"), 1)),
            range(0, 1, server(host("10.0.0.1"), 0)),
            range(0, 1, Value::Nil),
            Value::Nil,
        ]);
        let first = Master { address: "10.0.0.1:1".to_owned(), slots: vec![(0, 5), (10, 16_383)] };
        let second = Master { address: "[::1]:2".to_owned(), slots: vec![(6, 9)] };
        assert_eq!(masters(&answer, "[::1]:7"), [first, second]);
        assert_eq!(masters(&Value::Okay, "a:1"), []);
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(Value::Int),
            (0i64..20_000).prop_map(Value::Int),
            proptest::collection::vec(0u8.., 0..9).prop_map(Value::BulkString),
            Just(Value::Nil)
        ];
        leaf.prop_recursive(4, 60, 4, |inner| proptest::collection::vec(inner, 0..4).prop_map(Value::Array))
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(answer in values()) {
            for master in masters(&answer, "a:1") {
                prop_assert!(!master.slots.is_empty() && master.address.contains(':'));
            }
        }

        #[test]
        fn every_key_has_one_slot(key in proptest::collection::vec(0u8.., 0..40)) {
            prop_assert!(slot(&key) < SLOTS);
            prop_assert!(Master::alone("a:1").holds(&key));
        }
    }
}
