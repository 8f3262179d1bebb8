//! A client of DNS: asks one server after the other for the records of a name, and follows aliases. Built on hickory's
//! pool of connections, which goes over to TCP where an answer is cut short; what an answer means stands here, as in
//! RFC 1035 and, for "there is none", RFC 2308. Nothing is kept: who asks knows how long an answer holds.

pub mod hosts;
mod message;
mod servers;

pub use message::Answer;
pub use servers::Settings;

use super::{Failure, Kind};
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{DnsRequestOptions, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use message::{ALIASES, Message};
use servers::{Server, Servers};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Asks DNS.
#[derive(Debug)]
pub struct Client {
    servers: Servers,
    timeout: Duration,
}

impl Client {
    /// A client of these servers.
    pub fn new(settings: Settings) -> Self {
        Client { timeout: settings.timeout, servers: Servers::new(settings) }
    }

    /// The moment until which what begins now may take.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// The records of this kind that a name has; none: so DNS says.
    ///
    /// # Errors
    /// Why nobody knows, naming server, name and kind: that is no answer, and says nothing about the records.
    pub async fn ask(&self, name: &Name, kind: RecordType, until: Instant) -> Result<Answer, Failure> {
        let (mut name, mut ttl) = (name.clone(), u32::MAX);
        for _ in 0..=ALIASES {
            let message = self.exchange(&name, kind, until).await?;
            match message.read(&name, kind) {
                (answer, None) => return Ok(Answer { ttl: answer.ttl.min(ttl), ..answer }),
                (answer, Some(alias)) => (name, ttl) = (alias, ttl.min(answer.ttl)),
            }
        }
        let problem = format!("{name} {kind}: more than {ALIASES} aliases lead to it");
        Err(Failure::new(Kind::BadAnswer, problem))
    }

    /// Asks each server in its turn, and again while none says anything.
    async fn exchange(&self, name: &Name, kind: RecordType, until: Instant) -> Result<Message, Failure> {
        let mut last = Failure::new(Kind::Silent, format!("{name} {kind}: no answer in time"));
        let ask = async {
            let servers = self.servers.get().await?;
            loop {
                for (place, server) in servers.in_turn() {
                    match send(server, name, kind).await {
                        Ok(message) => {
                            servers.prefer(place);
                            return Ok(message);
                        }
                        Err(failure) => last = failure,
                    }
                }
                if last.kind != Kind::Silent {
                    return Err(last.clone());
                }
            }
        };
        timeout_at(until, ask).await.unwrap_or(Err(last))
    }
}

/// One question to one server.
async fn send(server: &Server, name: &Name, kind: RecordType) -> Result<Message, Failure> {
    let query = Query::query(name.clone(), kind);
    let told =
        |kind_of: Kind, problem: &str| Failure::new(kind_of, format!("{}: {name} {kind}: {problem}", server.address));
    match server.pool.lookup(query, DnsRequestOptions::default()).first_answer().await {
        Ok(response) => match response.response_code {
            ResponseCode::NoError | ResponseCode::NXDomain => Ok(Message::Records(response.into_message())),
            code => Err(told(Kind::BadAnswer, &code_told(code))),
        },
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) if none.ns.is_some() && none.soa.is_none() => {
            Err(told(Kind::BadAnswer, "answered with other servers to ask, which a resolver does by itself"))
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
            Ok(Message::Nothing { ttl: none.negative_ttl.unwrap_or(0) })
        }
        Err(NetError::Dns(DnsError::ResponseCode(ResponseCode::Refused))) => {
            Err(told(Kind::Denied, "answered REFUSED"))
        }
        Err(NetError::Dns(DnsError::ResponseCode(ResponseCode::ServFail))) => {
            Err(told(Kind::Unreachable, "answered SERVFAIL"))
        }
        Err(NetError::Dns(DnsError::ResponseCode(code))) => Err(told(Kind::BadAnswer, &code_told(code))),
        Err(NetError::Timeout) => Err(told(Kind::Silent, "no answer in time")),
        Err(error @ (NetError::Io(_) | NetError::Busy | NetError::NoConnections)) => {
            Err(told(Kind::Unreachable, &error.to_string()))
        }
        Err(error) => Err(told(Kind::BadAnswer, &error.to_string())),
    }
}

fn code_told(code: ResponseCode) -> String {
    format!("answered with code {} ({code})", u16::from(code))
}
