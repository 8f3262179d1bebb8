//! An exchange made into an entry, on the worker that carried it: what must not be told is taken out before a byte of it
//! goes anywhere else.

use super::bytes::Bytes;
use super::entry::{CallSaid, Entry, HeadSaid, MOST, OutcomeSaid, written_paths, written_version};
use crate::http::error::Error;
use crate::http::request::Head;
use crate::policy::read_input;
use crate::service::record::Record;
use crate::service::record::taped::{Call, Taped};
use crate::service::tape::redaction::{MARK, Redaction, Secrets};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

/// The entry's bytes, and a policy that has read what is not told. None: it is more than a record holds.
pub(super) fn entry(
    record: &Record,
    taped: &Taped,
    (worker, took): (u32, Duration),
    redaction: &Redaction,
) -> Option<(Vec<u8>, Option<Arc<str>>)> {
    if taped.calls.iter().any(|call| call.tape.cut) {
        return None;
    }
    let mut secrets = redaction.secrets(&taped.head);
    for line in taped.calls.iter().flat_map(|call| call.said.cookies()) {
        redaction.add_cookie(line, &mut secrets);
    }
    let entry = Entry {
        worker,
        number: record.number,
        at_ms: record.unix_ms(),
        head: head(&taped.head, redaction, &secrets),
        calls: taped.calls.iter().map(|call| self::call(call, &taped.head, redaction, &secrets)).collect(),
        outcome: outcome(record, took),
    };
    let bytes = entry.bytes();
    let hidden = entry.calls.iter().find(|call| call.tape.hidden).map(|call| Arc::clone(&call.policy));
    (!bytes.is_empty() && bytes.len() <= MOST).then_some((bytes, hidden))
}

fn head<'a>(head: &'a Head, redaction: &Redaction, secrets: &Secrets) -> HeadSaid<'a> {
    let parts = &head.parts;
    let line =
        |(name, value): (&'a [u8], &'a [u8])| (Bytes(Cow::Borrowed(name)), Bytes(redaction.line(name, value, secrets)));
    let text = |text: &'a str| match secrets.take_out(text.as_bytes()) {
        Some(told) => Cow::Owned(String::from_utf8_lossy(&told).into_owned()),
        None => Cow::Borrowed(text),
    };
    HeadSaid {
        method: Cow::Borrowed(parts.method.as_str()),
        target: redaction.target(parts.target.as_str(), secrets),
        authority: parts.target.authority().map(text),
        version: written_version(parts.version),
        fields: parts.headers.iter().map(line).collect(),
        websocket: parts.websocket,
        client: head.client,
        tls: head.peer.tls,
        subject: head.peer.tls_subject.as_deref().map(text),
        claims: head.claims.as_ref().map(|claims| {
            let mut claims = serde_json::to_string(&**claims).unwrap_or_default();
            secrets.clean(&mut claims);
            Cow::Owned(claims)
        }),
        paths: written_paths(head.paths),
    }
}

fn call(call: &Call, head: &Head, redaction: &Redaction, secrets: &Secrets) -> CallSaid {
    let Call { version, tape, said, reason } = call;
    let mut told = CallSaid {
        policy: Arc::clone(&version.policy),
        version: Arc::clone(&version.version),
        tape: tape.clone(),
        said: said.clone(),
        reason: reason.clone(),
    };
    if secrets.is_empty() {
        return told;
    }
    let reads = told.tape.inputs.iter().any(|name| hides(name, head, redaction, secrets));
    let mut hidden = reads;
    for text in told.tape.texts() {
        if let Some(cleaned) = secrets.take_out(text.as_bytes()) {
            *text = String::from_utf8_lossy(&cleaned).into();
            hidden = true;
        }
    }
    for text in told.said.texts().into_iter().chain([&mut told.reason]) {
        hidden |= secrets.clean(text);
    }
    if secrets.has_short() && (reads || !call.said.cookies().is_empty()) {
        // They cannot be looked for, so nothing is told that could be made of them.
        forget(&mut told);
    }
    told.tape.hidden |= hidden;
    told
}

/// The policy has read something of the request that is not told.
fn hides(name: &str, head: &Head, redaction: &Redaction, secrets: &Secrets) -> bool {
    let says = || read_input(head, name).is_some_and(|value| secrets.take_out(value.as_bytes()).is_some());
    redaction.hides(name, head) || says()
}

/// What the policy has written, in whatever place.
fn forget(call: &mut CallSaid) {
    for text in call.tape.texts() {
        *text = MARK.into();
    }
    call.said.texts().into_iter().chain([&mut call.reason]).for_each(|text| MARK.clone_into(text));
}

fn outcome(record: &Record, took: Duration) -> OutcomeSaid {
    let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    OutcomeSaid {
        status: record.status,
        error: record.error.map(|error| Error::code(error).to_owned()),
        route: record.route.as_deref().map(str::to_owned),
        took_us: us(took),
        end: record.end.name().to_owned(),
        attempts: record
            .attempts
            .iter()
            .map(|attempt| {
                let (status, error) = match attempt.outcome {
                    Ok(status) => (status, None),
                    Err(error) => (0, Some(error.name().to_owned())),
                };
                (attempt.endpoint.id, status, error, us(attempt.took))
            })
            .collect(),
    }
}
