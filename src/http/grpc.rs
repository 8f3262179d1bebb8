//! What gRPC's clients expect of whoever answers them: a deadline that is kept, and errors that they can read.
//! After gRPC's "gRPC over HTTP2" and "HTTP to gRPC Status Code Mapping".

use crate::http::error::Error;
use crate::http::fields::Fields;
use crate::http::malformed::Malformed;
use crate::http::request::Head;
use http::Version;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Is this a gRPC call? gRPC-Web, which has a content type of its own, is plain HTTP to a gateway.
pub fn is_call(head: &Head) -> bool {
    let content_type = || head.parts.headers.get("content-type")?.strip_prefix(b"application/grpc");
    head.parts.version == Version::HTTP_2 && matches!(content_type(), Some([] | [b'+' | b';', ..]))
}

/// How long the client waits: `grpc-timeout`, up to 8 digits and a unit. None: as long as it takes, or it cannot be read.
pub fn timeout(head: &Head) -> Option<Duration> {
    let text = head.parts.headers.get("grpc-timeout")?;
    let (unit, digits) = text.split_last()?;
    let good = (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let number = digits.iter().fold(0, |number, digit| number * 10 + u64::from(digit.wrapping_sub(b'0')));
    good.then_some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Does this head of a response, which has no body then ("trailers-only"), say that the server is not well:
/// RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE? All other statuses are about the call.
pub fn is_failure(headers: &Fields) -> bool {
    matches!(headers.only("grpc-status"), Some(b"8" | b"13" | b"14"))
}

/// The same of what comes after a response's body.
pub fn is_failure_after(trailers: &HeaderMap) -> bool {
    trailers.get(GRPC_STATUS).is_some_and(|status| matches!(status.as_bytes(), b"8" | b"13" | b"14"))
}

/// The status in the head of a response which has no body then ("trailers-only").
pub fn status_of(headers: &Fields) -> Option<u8> {
    std::str::from_utf8(headers.only("grpc-status")?).ok()?.parse().ok()
}

/// When a server wants to be asked again, ms; negative: not at all (gRPC's A6, "client retries").
pub fn pushback_ms(headers: &Fields) -> Option<i64> {
    // What cannot be read means: not at all.
    let text = std::str::from_utf8(headers.only("grpc-retry-pushback-ms")?).unwrap_or("");
    Some(text.parse().unwrap_or(-1))
}

/// The status of gRPC that says what this error says.
fn status(error: Error) -> u16 {
    match error {
        Error::UpstreamCancelled => 1,                                       // CANCELLED
        Error::AttemptTimeout | Error::Timeout => 4,                         // DEADLINE_EXCEEDED
        Error::Session => 5,                                                 // NOT_FOUND
        Error::NoRoute | Error::MethodRefused => 12,                         // UNIMPLEMENTED
        Error::RateLimited | Error::Malformed(Malformed::BodyTooLarge) => 8, // RESOURCE_EXHAUSTED
        Error::Malformed(_) | Error::PlainHttp | Error::LoopDetected | Error::UpstreamProtocol => 13, // INTERNAL
        Error::Unauthenticated => 16,                                        // UNAUTHENTICATED
        Error::AuthUnavailable
        | Error::PolicyUnavailable
        | Error::NoEndpoint
        | Error::Breaker
        | Error::Overloaded
        | Error::Shed
        | Error::ConnectFailed
        | Error::UpstreamReset => 14, // UNAVAILABLE
    }
}

/// What tells a client of an error after a body.
pub fn trailers(error: Error) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert(GRPC_STATUS, HeaderValue::from(status(error)));
    // The reasons have nothing in them that would have to be escaped.
    trailers.insert(GRPC_MESSAGE, HeaderValue::from_static(error.reason()));
    trailers
}

/// The headers of an answer that tells a client of an error where nothing was sent yet ("trailers-only").
pub fn headers(error: Error) -> Fields {
    let mut headers = Fields::of_map(&trailers(error));
    headers.append("content-type", b"application/grpc");
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::Peer;

    fn head(version: Version, headers: &[(&str, &str)]) -> std::sync::Arc<Head> {
        let mut request = http::Request::post("http://a/s/m").version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let parts = request.body(()).unwrap().into_parts().0;
        Head::new(parts, Peer::new(([127, 0, 0, 1], 1).into()), &[])
    }

    #[test]
    fn a_server_that_is_not_well_is_known_by_its_status() {
        for (status, expected) in [("0", false), ("5", false), ("8", true), ("13", true), ("14", true), ("141", false)]
        {
            let mut headers = Fields::of_map(&HeaderMap::new());
            headers.append("grpc-status", status.as_bytes());
            assert_eq!(is_failure(&headers), expected, "{status}");
            assert_eq!(is_failure_after(&headers.to_map()), expected, "{status}");
        }
        assert!(!is_failure(&Fields::of_map(&HeaderMap::new())));
    }

    #[test]
    fn calls_are_known_by_their_content_type() {
        for (content_type, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/grpc-web+proto", false),
            ("application/json", false),
        ] {
            assert_eq!(is_call(&head(Version::HTTP_2, &[("content-type", content_type)])), expected, "{content_type}");
            assert!(!is_call(&head(Version::HTTP_11, &[("content-type", content_type)])));
        }
        assert!(!is_call(&head(Version::HTTP_2, &[])));
    }

    #[test]
    fn timeouts_have_up_to_eight_digits_and_a_unit() {
        let cases = [
            ("1H", Some(Duration::from_secs(3600))),
            ("99999999H", Some(Duration::from_secs(99_999_999 * 3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("0m", Some(Duration::ZERO)),
            ("250m", Some(Duration::from_millis(250))),
            ("7u", Some(Duration::from_micros(7))),
            ("8n", Some(Duration::from_nanos(8))),
            ("", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("+1S", None),
            ("-1S", None),
            ("1.5S", None),
            ("100000000n", None),
        ];
        for (text, expected) in cases {
            assert_eq!(timeout(&head(Version::HTTP_2, &[("grpc-timeout", text)])), expected, "{text}");
        }
    }

    #[test]
    fn reasons_can_stand_in_a_header_as_they_are() {
        // "gRPC over HTTP2": everything but printable ASCII, and the percent sign, would have to be escaped.
        let good = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'%');
        assert!(Malformed::ALL.iter().all(|malformed| good(malformed.reason())));
        for error in [
            Error::PlainHttp,
            Error::MethodRefused,
            Error::LoopDetected,
            Error::Unauthenticated,
            Error::AuthUnavailable,
            Error::RateLimited,
            Error::NoRoute,
            Error::PolicyUnavailable,
            Error::NoEndpoint,
            Error::Session,
            Error::ConnectFailed,
            Error::UpstreamReset,
            Error::UpstreamCancelled,
            Error::UpstreamProtocol,
            Error::AttemptTimeout,
            Error::Timeout,
        ] {
            assert!(good(error.reason()), "{error:?}");
        }
    }
}
