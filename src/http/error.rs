//! Answers that the gateway makes itself when it cannot forward: a stable code for programs, a reason for people.
//! Neither tells a client what is behind the gateway; the log and the trace do.

use crate::http::malformed::Malformed;
use http::StatusCode;

/// Why the gateway answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Error {
    /// The request is one that must not be forwarded.
    Malformed(Malformed),
    /// No TLS where TLS is spoken.
    PlainHttp,
    /// A method that a gateway of this kind does not carry.
    MethodRefused,
    /// The request has come by here too often.
    LoopDetected,
    /// Nothing proves who the client is.
    Unauthenticated,
    /// Who the client is cannot be found out now.
    AuthUnavailable,
    /// A declared limit refuses it: too many have come.
    RateLimited,
    /// No policy and no route took the request.
    NoRoute,
    /// A policy faulted or could not be asked, and says `unavailable`.
    PolicyUnavailable,
    /// No endpoint of the service is usable.
    NoEndpoint,
    /// The client shows a session that is none, or that nobody has any more.
    Session,
    /// Most requests to the service fail, so it is left alone for a while.
    Breaker,
    /// The gateway has more to do than it can.
    Shed,
    /// The service has as many requests as it may.
    Overloaded,
    /// No connection to any endpoint that was tried.
    ConnectFailed,
    /// The connection broke before the response's head, and sending again would not be safe.
    UpstreamReset,
    /// HTTP/2: the endpoint cancelled the request before the response's head.
    UpstreamCancelled,
    /// What came back is no HTTP.
    UpstreamProtocol,
    /// An attempt got no response head in time.
    AttemptTimeout,
    /// The whole exchange ran out of time.
    Timeout,
}

impl Error {
    /// The status that a client sees.
    pub fn status(self) -> StatusCode {
        match self {
            Error::Malformed(malformed) => malformed.status(),
            Error::PlainHttp => StatusCode::BAD_REQUEST,
            Error::MethodRefused => StatusCode::METHOD_NOT_ALLOWED,
            Error::LoopDetected => StatusCode::LOOP_DETECTED,
            Error::Unauthenticated => StatusCode::UNAUTHORIZED,
            Error::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Error::NoRoute | Error::Session => StatusCode::NOT_FOUND,
            Error::AuthUnavailable
            | Error::PolicyUnavailable
            | Error::NoEndpoint
            | Error::Breaker
            | Error::Shed
            | Error::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Error::ConnectFailed | Error::UpstreamReset | Error::UpstreamCancelled | Error::UpstreamProtocol => {
                StatusCode::BAD_GATEWAY
            }
            Error::AttemptTimeout | Error::Timeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Stable, for programs, metrics and traces.
    pub fn code(self) -> &'static str {
        match self {
            Error::Malformed(malformed) => malformed.code(),
            Error::PlainHttp => "plain_http",
            Error::MethodRefused => "method_refused",
            Error::LoopDetected => "loop_detected",
            Error::Unauthenticated => "unauthenticated",
            Error::AuthUnavailable => "auth_unavailable",
            Error::RateLimited => "rate_limited",
            Error::NoRoute => "no_route",
            Error::PolicyUnavailable => "policy_unavailable",
            Error::NoEndpoint => "no_endpoint",
            Error::Session => "session",
            Error::Breaker => "breaker",
            Error::Shed => "shed",
            Error::Overloaded => "overloaded",
            Error::ConnectFailed => "connect_failed",
            Error::UpstreamReset => "upstream_reset",
            Error::UpstreamCancelled => "upstream_cancelled",
            Error::UpstreamProtocol => "upstream_protocol",
            Error::AttemptTimeout => "upstream_timeout",
            Error::Timeout => "timeout",
        }
    }

    /// For people.
    pub fn reason(self) -> &'static str {
        match self {
            Error::Malformed(malformed) => malformed.reason(),
            Error::PlainHttp => "This port speaks HTTPS; use https:// instead of http://.",
            Error::MethodRefused => "This gateway does not carry CONNECT or TRACE requests.",
            Error::LoopDetected => {
                "The request has come by this gateway too often: an endpoint of the service leads back to it."
            }
            Error::Unauthenticated => "The request lacks valid credentials.",
            Error::AuthUnavailable => "Who sent the request cannot be found out now; try again soon.",
            Error::RateLimited => "Too many requests have come; try again after as many seconds as retry-after says.",
            Error::NoRoute => "No route leads from this host and path to a service.",
            Error::PolicyUnavailable => "The routing policy for this request is failing; try again soon.",
            Error::NoEndpoint => "The service has no endpoint that could answer now; try again soon.",
            Error::Session => "There is no such session, or it is over; begin a new one.",
            Error::Breaker => {
                "Most requests to the service fail now, so it is left alone for a while; try again later."
            }
            Error::Shed => "The gateway has more to do than it can; try again soon.",
            Error::Overloaded => "The service has as many requests as it can take; try again soon.",
            Error::ConnectFailed => "The service could not be reached.",
            Error::UpstreamReset => {
                "The service broke the connection before it answered. It may have received the request, so it was not sent again."
            }
            Error::UpstreamCancelled => {
                "The service cancelled the request before it answered. It may have done some of it, so it was not sent again."
            }
            Error::UpstreamProtocol => "The service gave an answer that is not valid HTTP.",
            Error::AttemptTimeout => "The service did not answer in time.",
            Error::Timeout => "The request took longer than it may.",
        }
    }

    /// The JSON that a client gets.
    pub fn body(self) -> String {
        serde_json::json!({ "error": { "code": self.code(), "reason": self.reason() } }).to_string()
    }

    /// The whole answer as HTTP/1.1, after which the connection closes: for what hyper is never shown.
    pub fn closing_answer(self) -> String {
        let (status, body) = (self.status(), self.body());
        format!(
            "HTTP/1.1 {} {}\r\ncontent-type: application/json\r\ncache-control: no-store\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n{body}",
            status.as_u16(),
            status.canonical_reason().unwrap_or(""),
            body.len()
        )
    }
}
