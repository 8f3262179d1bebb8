//! Heads on their way upstream. The input is text: a request line, headers, an empty line, then a policy's edits, each
//! `set`, `append` or `remove` before a header.
#![no_main]

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri, Version};
use libfuzzer_sys::fuzz_target;
use wayside::http::headers::edit::{self, HeaderEdit};
use wayside::http::headers::{cookie, end_trailers};
use wayside::http::request::check::{check, ends_at_this_hop, is_authority};
use wayside::http::request::{Head, Parts, Peer};
use wayside::http::settings::Gateway;
use wayside::proxy::upstream::forwarded::for_upstream;

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let Some(mut parts) = request(&mut lines) else { return };
    let edits: Vec<HeaderEdit> = lines.map_while(read_edit).collect();
    let named = named_by_connection(&parts.headers.to_map());
    if check(&mut parts, &Gateway::default()).is_err() {
        return;
    }
    let hosts: Vec<&[u8]> = parts.headers.all("host").collect();
    assert!(hosts.iter().all(|host| is_authority(host)));
    assert!(hosts.len() == 1 || hosts.is_empty() && parts.version < Version::HTTP_11);
    ends_at_this_hop(&mut parts);
    cookie(&parts.headers, "sid");
    let sent = parts.headers.to_map();
    for trusted in [&[][..], &["10.0.0.0/8".parse().unwrap()]] {
        let head = Head::new(parts.clone(), Peer::new(([10, 0, 0, 1], 4711).into()), trusted);
        let gateway = Gateway { forwarded: true, ..Gateway::default() };
        let mut upstream = for_upstream(&[], &head, &gateway);
        has_passed(&sent, &named, &upstream.to_map(), !trusted.is_empty());
        let mut expected = lines_of(&upstream.to_map());
        edit::apply(&mut upstream, &edits);
        edits.iter().for_each(|edit| apply(&mut expected, edit));
        assert_eq!(by_name(lines_of(&upstream.to_map())), by_name(expected));
        assert!(head.path().starts_with('/') || head.path() == "*");
    }
    let mut trailers = sent;
    end_trailers(&mut trailers);
    assert!(ENDS_HERE.iter().chain(&["host", "content-length"]).all(|name| !trailers.contains_key(*name)));
});

const ENDS_HERE: [&str; 7] =
    ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade", "proxy-authorization"];

/// What the gateway says itself, whatever `Connection` names.
const OWN: [&str; 6] = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded", "via", "te"];

/// What goes upstream, beside what was sent. The upstream's own part adds `Host` where `Connection` took it away.
fn has_passed(sent: &HeaderMap, named: &[HeaderName], upstream: &HeaderMap, trusted: bool) {
    for name in ENDS_HERE.iter().filter(|name| **name != "te") {
        assert!(!upstream.contains_key(*name), "{name}");
    }
    assert!(upstream.get_all(header::TE).iter().all(|te| te == "trailers"));
    for name in named.iter().filter(|name| !OWN.contains(&name.as_str())) {
        assert!(!upstream.contains_key(name), "{name}");
    }
    let hosts: Vec<&HeaderValue> = upstream.get_all(header::HOST).iter().collect();
    assert!(hosts.len() <= 1 && hosts.iter().all(|host| Some(*host) == sent.get(header::HOST)));
    for name in ["x-forwarded-for", "x-forwarded-proto"] {
        assert_eq!(upstream.get_all(name).iter().count(), 1, "{name}");
    }
    assert!(upstream.get_all("x-forwarded-host").iter().count() <= 1);
    // All else passes as it is, in its order.
    for name in sent.keys().filter(|name| !ENDS_HERE.contains(&name.as_str()) && !OWN.contains(&name.as_str())) {
        let stays_out = named.contains(name) || !trusted && only_a_proxy_says(name);
        let passes = if stays_out { 0 } else { sent.get_all(name).iter().count() };
        let goes_on = upstream.get_all(name).iter().eq(sent.get_all(name).iter().take(passes));
        assert!(goes_on || name == "close", "{name}");
    }
}

/// Whatever stands for the dashes.
fn only_a_proxy_says(name: &HeaderName) -> bool {
    let name = name.as_str().replace('_', "-");
    name.starts_with("x-forwarded-") || ["forwarded", "x-real-ip", "x-original-url", "x-rewrite-url"].contains(&&*name)
}

fn request<'a>(lines: &mut impl Iterator<Item = &'a [u8]>) -> Option<Parts> {
    let mut first = lines.next()?.split(|byte| *byte == b' ');
    let mut parts = Request::new(()).into_parts().0;
    parts.method = Method::from_bytes(first.next()?).ok()?;
    parts.uri = Uri::try_from(first.next()?).ok()?;
    parts.version = match first.next()? {
        b"HTTP/1.0" => Version::HTTP_10,
        b"HTTP/1.1" => Version::HTTP_11,
        _ => Version::HTTP_2,
    };
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = field(line)?;
        parts.headers.append(name, value);
    }
    Some(parts.into())
}

fn field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
    let value = line.get(colon + 1..).unwrap_or(b"").trim_ascii();
    Some((HeaderName::from_bytes(&line[..colon]).ok()?, HeaderValue::from_bytes(value).ok()?))
}

fn read_edit(line: &[u8]) -> Option<HeaderEdit> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    let (name, value) = field(&line[space + 1..])?;
    match &line[..space] {
        b"set" => Some(HeaderEdit::Set(name, value)),
        b"append" => Some(HeaderEdit::Append(name, value)),
        b"remove" => Some(HeaderEdit::Remove(name)),
        _ => None,
    }
}

/// Without regard to what is rarely written another way.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let lines = headers.get_all(header::CONNECTION).iter();
    let names = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    let tokens = names.filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok());
    // These say something about the connection, and are no headers.
    tokens.filter(|name| name != "close").collect()
}

type Lines = Vec<(HeaderName, HeaderValue)>;

fn lines_of(headers: &HeaderMap) -> Lines {
    headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn by_name(mut lines: Lines) -> Lines {
    lines.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
    lines
}

fn apply(lines: &mut Lines, edit: &HeaderEdit) {
    match edit {
        HeaderEdit::Remove(name) => lines.retain(|(line, _)| line != name),
        HeaderEdit::Append(name, value) => lines.push((name.clone(), value.clone())),
        HeaderEdit::Set(name, value) => {
            lines.retain(|(line, _)| line != name);
            lines.push((name.clone(), value.clone()));
        }
    }
}
