//! What an answer of DNS says about a name.

use hickory_resolver::proto::op::{self, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

/// No chain of aliases is followed further.
pub(super) const ALIASES: usize = 8;

/// The records of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Those of the kind that was asked for; none: there are none.
    pub records: Vec<Record>,
    /// What the server added unasked, such as the addresses of targets.
    pub additionals: Vec<Record>,
    /// How long all of it holds, aliases and "there are none" included, seconds.
    pub ttl: u32,
}

/// What a server says.
#[derive(Debug)]
pub(super) enum Message {
    /// Records, though not necessarily those that were asked for.
    Records(op::Message),
    /// There are none, for so many seconds.
    Nothing {
        /// 0: the server does not say for how long.
        ttl: u32,
    },
}

impl Message {
    /// What it says about a name; with another name, if it is an alias and what that one has is not in here.
    pub(super) fn read(self, name: &Name, kind: RecordType) -> (Answer, Option<Name>) {
        let mut answer = Answer { records: vec![], additionals: vec![], ttl: u32::MAX };
        let message = match self {
            Message::Records(message) => message,
            Message::Nothing { ttl } => return (Answer { ttl, ..answer }, None),
        };
        let mut name = name;
        let mut is_alias = false;
        for _ in 0..ALIASES {
            let alias = message.answers.iter().find_map(|record| match &record.data {
                RData::CNAME(alias) if record.name == *name && kind != RecordType::CNAME => {
                    Some((&alias.0, record.ttl))
                }
                _ => None,
            });
            let Some((alias, ttl)) = alias else { break };
            (name, is_alias) = (alias, true);
            answer.ttl = answer.ttl.min(ttl);
        }
        let fits = |record: &&Record| record.name == *name && record.record_type() == kind;
        answer.records = message.answers.iter().filter(fits).cloned().collect();
        // Of an alias's end, NXDOMAIN is said here (RFC 6604), and nothing more is to be asked for.
        let more = is_alias && answer.records.is_empty() && message.metadata.response_code != ResponseCode::NXDomain;
        let alias = more.then(|| name.clone());
        if answer.records.is_empty() && alias.is_none() {
            answer.ttl = answer.ttl.min(negative_ttl(&message));
        }
        answer.ttl = answer.records.iter().map(|record| record.ttl).fold(answer.ttl, u32::min);
        answer.additionals = message.additionals;
        (answer, alias)
    }
}

/// How long "there are none" holds (RFC 2308, section 5); 0: it is not said.
fn negative_ttl(message: &op::Message) -> u32 {
    let ttl = |record: &Record| match &record.data {
        RData::SOA(soa) => Some(soa.minimum.min(record.ttl)),
        _ => None,
    };
    message.authorities.iter().find_map(ttl).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::proto::rr::rdata::{A, CNAME};

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn alias(from: &str, ttl: u32, to: &str) -> Record {
        Record::from_rdata(name(from), ttl, RData::CNAME(CNAME(name(to))))
    }

    fn address(of: &str, ttl: u32) -> Record {
        Record::from_rdata(name(of), ttl, RData::A(A::new(10, 0, 0, 7)))
    }

    fn read(answers: Vec<Record>, code: ResponseCode) -> (usize, u32, Option<String>) {
        let mut message = op::Message::response(0, op::OpCode::Query);
        message.metadata.response_code = code;
        message.answers = answers;
        let (answer, alias) = Message::Records(message).read(&name("a.test."), RecordType::A);
        (answer.records.len(), answer.ttl, alias.map(|alias| alias.to_ascii()))
    }

    #[test]
    fn aliases_are_followed_within_an_answer_and_beyond() {
        let (good, none) = (ResponseCode::NoError, ResponseCode::NXDomain);
        assert_eq!(read(vec![address("a.test.", 7), address("b.test.", 1), address("A.Test.", 5)], good), (2, 5, None));
        let chain = vec![address("c.test.", 9), alias("b.test.", 3, "c.test."), alias("a.test.", 60, "b.test.")];
        assert_eq!(read(chain, good), (1, 3, None));
        assert_eq!(read(vec![alias("a.test.", 60, "b.test.")], good), (0, 60, Some("b.test.".to_owned())));
        assert_eq!(read(vec![alias("a.test.", 60, "b.test.")], none), (0, 0, None));
        assert_eq!(read(vec![address("other.test.", 60)], good), (0, 0, None));
        // A circle ends somewhere, and the client asks no further than so many names.
        let circle = vec![alias("a.test.", 60, "b.test."), alias("b.test.", 60, "a.test.")];
        assert!(read(circle, good).2.is_some());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(0u8.., 12..200)) {
            if let Ok(message) = op::Message::from_vec(&bytes) {
                let _ = Message::Records(message).read(&name("a."), RecordType::A);
            }
        }
    }
}
