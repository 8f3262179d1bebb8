//! Headers on their way up: nothing that belongs to a hop passes it, and there is one host.
#![no_main]

use http::{HeaderName, HeaderValue, Request, header};
use libfuzzer_sys::fuzz_target;
use wayside::config::Gateway;
use wayside::headers;
use wayside::request::{Head, Peer};

/// A request as hyper would give it: the first line says method and target, the others are headers.
fn request(text: &str) -> Option<http::request::Parts> {
    let mut lines = text.lines();
    let (method, target) = lines.next()?.split_once(' ')?;
    let mut request = Request::builder().method(method).uri(target).body(()).ok()?;
    for line in lines.take(100) {
        let (name, value) = line.split_once(':')?;
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        request.headers_mut().append(name, HeaderValue::from_str(value.trim()).ok()?);
    }
    Some(request.into_parts().0)
}

fuzz_target!(|input: &[u8]| {
    let Some((version, text)) = input.split_first() else { return };
    let Some(mut parts) = std::str::from_utf8(text).ok().and_then(request) else { return };
    parts.version = if version % 2 == 0 { http::Version::HTTP_11 } else { http::Version::HTTP_2 };
    if headers::check(&mut parts, &Gateway::default().limits).is_err() {
        return;
    }
    headers::ends_at_this_hop(&mut parts);
    let named: Vec<_> = parts.headers.get_all(header::CONNECTION).iter().cloned().collect();
    let head = Head::new(parts, Peer::new(([127, 0, 0, 1], 80).into()), &[]);
    let mut up = headers::for_upstream(&head, &Gateway::default());
    headers::end_trailers(&mut up.clone());
    for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
        assert!(!up.contains_key(name), "{name} passed");
    }
    // What the gateway says itself may be named by anybody.
    let own = ["via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "te"];
    for line in named {
        for name in line.as_bytes().split(|byte| *byte == b',') {
            let Ok(name) = HeaderName::from_bytes(name.trim_ascii()) else { continue };
            assert!(own.contains(&name.as_str()) || !up.contains_key(&name), "{name} passed");
        }
    }
    assert!(up.get_all(header::HOST).iter().count() <= 1);
    assert_eq!(up.remove("x-forwarded-for").unwrap(), "127.0.0.1");
});
