//! A recorded decision as a case for tests: what was asked, what was read, and what is expected, as TOML.

use super::book::Book;
use crate::cli::out;
use crate::service::decision::said::Said;
use crate::service::tape::redaction::MARK;
use crate::service::tape::{Asked, Got};
use crate::telemetry::recording::entry::{CallSaid, Entry, HeadSaid};
use crate::telemetry::recording::exchange_seed;
use crate::telemetry::recording::reader::Frame;
use anyhow::{Context, bail};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A case of one policy.
#[derive(Debug, Serialize)]
struct Case {
    name: String,
    policy: String,
    /// The version that decided so.
    version: String,
    now_ms: u64,
    /// Of the exchange, in hex: a TOML number has no room for it.
    seed: String,
    request: Request,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    services: BTreeMap<String, Service>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reads: Vec<Read>,
    expect: Expect,
}

#[derive(Debug, Serialize)]
struct Request {
    method: String,
    target: String,
    client: String,
    tls: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claims: Option<String>,
    headers: Vec<[String; 2]>,
}

#[derive(Debug, Default, Serialize)]
struct Service {
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Serialize)]
struct Endpoint {
    address: String,
    weight: u32,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
struct Read {
    asked: String,
    got: String,
}

#[derive(Debug, Serialize)]
struct Expect {
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strategy: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    endpoints: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'static str>,
    reason: String,
}

/// Shows the decisions of the record with this number.
///
/// # Errors
/// There is none, or it cannot be a case.
pub(super) fn show(files: &[PathBuf], number: u64) -> anyhow::Result<()> {
    let mut first = 1;
    for file in files {
        let mut book = Book::default();
        let (mut reader, _) = super::open(file)?;
        while let Some(frame) = reader.frame().with_context(|| file.display().to_string())? {
            let Frame::Entries(entries) = frame else {
                book.note(frame);
                continue;
            };
            let after = first + u64::from(entries.count);
            if (first..after).contains(&number) {
                let at = usize::try_from(number - first).unwrap_or(usize::MAX);
                let Some((revision, entry)) = entries.iter().nth(at) else { bail!("record {number} cannot be read") };
                return tell(&book, number, revision, entry);
            }
            first = after;
        }
    }
    bail!("there is no record {number}: the last one is {}", first - 1)
}

fn tell(book: &Book, number: u64, revision: u64, entry: Entry<'_>) -> anyhow::Result<()> {
    let pages = book.pages();
    let (Some(seed), Some(catalog)) = (pages.seed(), pages.catalog(revision)) else {
        bail!("record {number} cannot be a case: what it refers to is missing in the file")
    };
    let seed = exchange_seed(seed, entry.worker, entry.number);
    for call in &entry.calls {
        if call.tape.hidden {
            bail!("record {number} cannot be a case: `{}` has read something that was taken out of it", call.policy);
        }
        let named: Vec<&str> = call.tape.reads.iter().filter_map(|read| service(&read.asked)).collect();
        let mut services = BTreeMap::new();
        for service in named.iter().filter_map(|name| catalog.service(name)) {
            services.insert(service.name.as_ref().to_owned(), described(service));
        }
        // A forward needs that there is one.
        if let Some(name) = call.said.service() {
            services.entry(name.to_owned()).or_insert_with(Service::default);
        }
        let case = Case {
            name: format!("record {number}"),
            policy: call.policy.as_ref().to_owned(),
            version: call.version.as_ref().to_owned(),
            now_ms: entry.at_ms,
            seed: format!("{seed:016x}"),
            request: request(&entry.head),
            services,
            reads: call.tape.reads.iter().map(|read| Read { asked: words(&read.asked), got: got(&read.got) }).collect(),
            expect: expect(call, |id| catalog.endpoint(id).map_or_else(|| id.to_string(), |e| e.address.to_string())),
        };
        #[derive(Serialize)]
        struct Cases {
            case: [Case; 1],
        }
        out::say(toml::to_string(&Cases { case: [case] })?.replace(MARK, "[redacted]"));
    }
    Ok(())
}

fn service(asked: &Asked) -> Option<&str> {
    match asked {
        Asked::Service(service)
        | Asked::Endpoints(service)
        | Asked::LeastLoaded { service, .. }
        | Asked::Find { service, .. } => Some(service),
        _ => None,
    }
}

fn described(service: &crate::service::Service) -> Service {
    let endpoint = |endpoint: &std::sync::Arc<crate::service::Endpoint>| Endpoint {
        address: endpoint.address.to_string(),
        weight: endpoint.weight,
        metadata: endpoint.metadata.clone(),
    };
    Service { endpoints: service.endpoints.iter().map(endpoint).collect() }
}

fn request(head: &HeadSaid<'_>) -> Request {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Request {
        method: head.method.clone().into_owned(),
        target: head.target.clone().into_owned(),
        client: head.client.to_string(),
        tls: head.tls,
        tls_subject: head.subject.as_deref().map(str::to_owned),
        claims: head.claims.as_deref().map(str::to_owned),
        headers: head.fields.iter().map(|(name, value)| [text(&name.0), text(&value.0)]).collect(),
    }
}

/// Such as `get("user:7")`.
fn words(asked: &Asked) -> String {
    serde_json::to_string(asked).unwrap_or_default()
}

fn got(got: &Got) -> String {
    serde_json::to_string(got).unwrap_or_default()
}

fn expect(call: &CallSaid, address: impl Fn(u32) -> String) -> Expect {
    let mut expect = Expect {
        decision: call.said.kind(),
        service: call.said.service().map(str::to_owned),
        strategy: None,
        key: None,
        endpoints: Vec::new(),
        status: None,
        fault: None,
        reason: call.reason.clone(),
    };
    match &call.said {
        Said::Forward(sent) => {
            expect.strategy = sent.strategy.map(|strategy| strategy.name());
            expect.key.clone_from(&sent.key);
            expect.endpoints = sent.endpoints.iter().map(|id| address(*id)).collect();
        }
        Said::Respond(answered) => expect.status = Some(answered.status),
        Said::Fault(kind, _) => expect.fault = Some(kind.name()),
        Said::Next => {}
    }
    expect
}
