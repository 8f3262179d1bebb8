//! What a client sent that must not be forwarded, because somebody else could read it differently.

use http::StatusCode;

/// What a client sent that must not be forwarded. Each names its rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// A line that ends in a line feed alone (RFC 9112 §2.2).
    BareLineFeed,
    /// A carriage return inside a line (RFC 9112 §2.2).
    BareCarriageReturn,
    /// More than one empty line before a request (RFC 9112 §2.2).
    EmptyLines,
    /// No method, target and version with single spaces between (RFC 9112 §3).
    RequestLine,
    /// A method that is no token (RFC 9110 §9.1).
    Method,
    /// A control, a byte that is no ASCII, or a fragment in the target, or one of another form than its method takes
    /// (RFC 9112 §3.2).
    Target,
    /// A path that another server could resolve differently (RFC 3986 §6.2.2).
    AmbiguousPath,
    /// A version other than HTTP/1.0 and HTTP/1.1.
    Version,
    /// Neither the target nor the version is one of HTTP: another protocol, or what should have been the preface of
    /// HTTP/2, whose client would not understand an answer (RFC 9113 §3.4).
    NotHttp,
    /// A line that begins with whitespace (RFC 9112 §5.2).
    Folded,
    /// A name that is no token, or whitespace before its colon (RFC 9112 §5.1).
    HeaderName,
    /// A control in a value (RFC 9110 §5.5).
    HeaderValue,
    /// Not one number (RFC 9112 §6.3, RFC 9110 §8.6).
    ContentLength,
    /// Other than `chunked` alone, or with HTTP/1.0 (RFC 9112 §6.1).
    TransferEncoding,
    /// Both lengths (RFC 9112 §6.3).
    BothLengths,
    /// A chunk whose size is no hexadecimal number, or too long a line (RFC 9112 §7.1).
    ChunkSize,
    /// A chunk that goes on past its size (RFC 9112 §7.1).
    ChunkEnd,
    /// None, more than one, or one that is no host and port (RFC 9112 §3.2, RFC 9110 §7.2).
    Host,
    /// HTTP/2: a Host header beside another authority (RFC 9113 §8.3.1).
    Authority,
    /// It broke off before its end.
    Body,
    /// More bytes than the service takes.
    BodyTooLarge,
    /// Nothing more of it came for too long.
    BodyTimeout,
    /// The request line is longer than the head may be.
    TargetTooLong,
    /// More bytes or headers than a head may have.
    HeadTooLarge,
    /// The head did not come in time.
    HeadTimeout,
    /// HTTP/2: many more frames that carry nothing than requests and responses need (CVE-2019-9512, CVE-2019-9515).
    ControlFlood,
    /// HTTP/2: many more requests taken back than left to their end (CVE-2023-44487).
    CancelFlood,
    /// No header of the PROXY protocol where one must be.
    ProxyHeader,
}

impl Malformed {
    /// Each once, in the order of their declaration.
    pub const ALL: [Malformed; 28] = [
        Malformed::BareLineFeed,
        Malformed::BareCarriageReturn,
        Malformed::EmptyLines,
        Malformed::RequestLine,
        Malformed::Method,
        Malformed::Target,
        Malformed::AmbiguousPath,
        Malformed::Version,
        Malformed::NotHttp,
        Malformed::Folded,
        Malformed::HeaderName,
        Malformed::HeaderValue,
        Malformed::ContentLength,
        Malformed::TransferEncoding,
        Malformed::BothLengths,
        Malformed::ChunkSize,
        Malformed::ChunkEnd,
        Malformed::Host,
        Malformed::Authority,
        Malformed::Body,
        Malformed::BodyTooLarge,
        Malformed::BodyTimeout,
        Malformed::TargetTooLong,
        Malformed::HeadTooLarge,
        Malformed::HeadTimeout,
        Malformed::ControlFlood,
        Malformed::CancelFlood,
        Malformed::ProxyHeader,
    ];

    /// As metrics and the log call it.
    pub fn name(self) -> &'static str {
        match self {
            Malformed::BareLineFeed => "bare_line_feed",
            Malformed::BareCarriageReturn => "bare_carriage_return",
            Malformed::EmptyLines => "empty_lines",
            Malformed::RequestLine => "request_line",
            Malformed::Method => "method",
            Malformed::Target => "target",
            Malformed::AmbiguousPath => "ambiguous_path",
            Malformed::Version => "version",
            Malformed::NotHttp => "not_http",
            Malformed::Folded => "folded_header",
            Malformed::HeaderName => "header_name",
            Malformed::HeaderValue => "header_value",
            Malformed::ContentLength => "content_length",
            Malformed::TransferEncoding => "transfer_encoding",
            Malformed::BothLengths => "both_lengths",
            Malformed::ChunkSize => "chunk_size",
            Malformed::ChunkEnd => "chunk_end",
            Malformed::Host => "host",
            Malformed::Authority => "authority",
            Malformed::Body => "body",
            Malformed::BodyTooLarge => "body_too_large",
            Malformed::BodyTimeout => "body_timeout",
            Malformed::TargetTooLong => "target_too_long",
            Malformed::HeadTooLarge => "head_too_large",
            Malformed::HeadTimeout => "head_timeout",
            Malformed::ControlFlood => "control_flood",
            Malformed::CancelFlood => "cancel_flood",
            Malformed::ProxyHeader => "proxy_header",
        }
    }

    /// The status that its client gets.
    pub fn status(self) -> StatusCode {
        match self {
            Malformed::TargetTooLong => StatusCode::URI_TOO_LONG,
            Malformed::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Malformed::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Malformed::HeadTimeout | Malformed::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// Stable, for programs.
    pub fn code(self) -> &'static str {
        match self {
            Malformed::TargetTooLong
            | Malformed::HeadTooLarge
            | Malformed::HeadTimeout
            | Malformed::BodyTooLarge
            | Malformed::BodyTimeout => self.name(),
            _ => "bad_request",
        }
    }

    /// For people.
    pub fn reason(self) -> &'static str {
        match self {
            Malformed::BareLineFeed => "A line of the request ends in a line feed without a carriage return.",
            Malformed::BareCarriageReturn => "A line of the request has a carriage return in it.",
            Malformed::EmptyLines => "There are empty lines before the request.",
            Malformed::RequestLine => "The request's first line is not a method, a target and a version.",
            Malformed::Method => "The request's method has a character that is not allowed.",
            Malformed::Target => {
                "The request's target has a character that is not allowed, or does not fit its method."
            }
            Malformed::AmbiguousPath => {
                "The request's path has a slash, a backslash or parameters next to a dot segment, which servers read differently."
            }
            Malformed::Version => "The request's version is neither HTTP/1.1 nor HTTP/1.0.",
            Malformed::NotHttp => "The connection does not begin with a request.",
            Malformed::Folded => "A header of the request goes on in a second line.",
            Malformed::HeaderName => "A header's name has a character that is not allowed, or no colon follows it.",
            Malformed::HeaderValue => "A header's value has a character that is not allowed.",
            Malformed::ContentLength => "The request's Content-Length is not one number.",
            Malformed::TransferEncoding => "The request's Transfer-Encoding is not just chunked.",
            Malformed::BothLengths => "The request has both Content-Length and Transfer-Encoding.",
            Malformed::ChunkSize => "A chunk's size is not a hexadecimal number.",
            Malformed::ChunkEnd => "A chunk is longer than its size says.",
            Malformed::Host => {
                "The request must have exactly one Host, which is a host name or address with or without a port."
            }
            Malformed::Authority => "The request's Host header and its authority differ.",
            Malformed::Body => "The request's body broke off.",
            Malformed::BodyTooLarge => "The request's body is larger than this service takes.",
            Malformed::BodyTimeout => "The request's body did not come in time.",
            Malformed::TargetTooLong => "The request's target is too long.",
            Malformed::HeadTooLarge => "The request's headers are too many or too long.",
            Malformed::HeadTimeout => "The request's headers did not come in time.",
            Malformed::ControlFlood => "The connection carries far more frames than its requests need.",
            Malformed::CancelFlood => "The connection takes far more requests back than it lets end.",
            Malformed::ProxyHeader => "The connection does not begin with a header of the PROXY protocol.",
        }
    }
}
