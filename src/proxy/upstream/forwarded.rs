//! What the upstream is told about the client and about the gateway.

use crate::base::trace::TraceContext;
use crate::http::fields::Fields;
use crate::http::headers::{goes_on, wants_trailers};
use crate::http::request::Head;
use crate::http::request::client::X_FORWARDED_FOR;
use crate::http::settings::Gateway;
use std::fmt::Write as _;
use std::net::IpAddr;

const X_FORWARDED_PROTO: &str = "x-forwarded-proto";
const X_FORWARDED_HOST: &str = "x-forwarded-host";

/// The head that goes upstream, after this first line: what was sent without what ends here, with what the gateway says
/// about the client.
pub fn for_upstream(first: &[&str], head: &Head, gateway: &Gateway) -> Fields {
    let goes_on = goes_on(&head.parts.headers);
    // What anybody but a trusted proxy said of the client is replaced below.
    let is_believed = |name: &[u8]| head.peer_is_trusted || !gateway.remove_from_untrusted.has(name);
    let mut headers = Fields::begin(first, &head.parts.headers);
    headers.extend(&head.parts.headers, |name| goes_on(name) && is_believed(name));
    if wants_trailers(&head.parts.headers) {
        headers.append("te", b"trailers");
    }
    introduce(&mut headers, head, gateway);
    if let Some(via) = gateway.via.as_ref() {
        headers.append("via", via.of(head.parts.version).as_bytes());
    }
    headers
}

/// Says who the client is. What a trusted proxy said stays, and the proxy is added to it.
fn introduce(headers: &mut Fields, head: &Head, gateway: &Gateway) {
    let (host, scheme) = (head.parts.headers.get("host"), head.scheme().as_bytes());
    if head.peer_is_trusted {
        // From the head as it came: `Connection` must not take away what it names of these.
        let lines = head.parts.headers.all(X_FORWARDED_FOR).map(without_commas);
        let chain: Vec<&[u8]> = lines.filter(|line| !line.is_empty()).collect();
        let chain = [chain, vec![head.peer.forwarded_for.as_bytes()]].concat().join(&b", "[..]);
        headers.set(X_FORWARDED_FOR, &chain);
        for (name, own) in [(X_FORWARDED_PROTO, Some(scheme)), (X_FORWARDED_HOST, host)] {
            if let Some(value) = head.parts.headers.get(name).or(own) {
                headers.set(name, value);
            }
        }
    } else {
        // Of these, none has gone on.
        headers.append(X_FORWARDED_FOR, head.peer.forwarded_for.as_bytes());
        headers.append(X_FORWARDED_PROTO, scheme);
        if let Some(host) = host {
            headers.append(X_FORWARDED_HOST, host);
        }
    }
    if gateway.forwarded {
        headers.append("forwarded", element(head).as_bytes());
    }
}

/// Says that the attempt's span is the parent of what follows. Where the gateway takes no part in traces, the caller's word
/// passes as it is.
pub(super) fn trace(headers: &mut Fields, trace: &TraceContext, span_id: u64) {
    if trace.takes_part {
        headers.set("traceparent", &trace.parent_of(span_id));
        match &trace.state {
            Some(state) => headers.set("tracestate", state),
            None => headers.remove("tracestate"),
        }
    }
}

/// The same without empty elements at its ends (RFC 9110 §5.6.1).
fn without_commas(mut list: &[u8]) -> &[u8] {
    while let [b',' | b' ' | b'\t', rest @ ..] | [rest @ .., b',' | b' ' | b'\t'] = list {
        list = rest;
    }
    list
}

/// This hop in `Forwarded` (RFC 7239 §4).
fn element(head: &Head) -> String {
    let mut element = match head.peer.ip {
        IpAddr::V4(ip) => format!("for={ip}"),
        IpAddr::V6(ip) => format!("for=\"[{ip}]\""),
    };
    // A host that was checked has nothing in it that would have to be escaped.
    if let Some(host) = head.parts.headers.get("host").and_then(|host| std::str::from_utf8(host).ok()) {
        let _ = write!(element, ";host=\"{host}\"");
    }
    let _ = write!(element, ";proto={}", head.scheme());
    element
}

#[cfg(test)]
mod tests;
