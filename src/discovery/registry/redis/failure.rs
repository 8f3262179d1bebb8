//! What a server's errors mean: told apart by their code, as redis.io/docs/latest/develop/reference/protocol-spec has it.

use super::bounded;
use crate::base::secret::Secret;
use crate::discovery::registry::{Failure, Kind};
use crate::http::tls;
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// How much of what a server says is shown, characters.
const SHOWN: usize = 160;

/// What went wrong with the server at this address.
pub(super) fn of(address: &str, error: &RedisError, secret: Option<&Secret>) -> Failure {
    let code = error.code();
    let detail = error.detail().unwrap_or_default();
    let kind = match error.kind() {
        ErrorKind::AuthenticationFailed => Kind::Denied,
        ErrorKind::Server(kind) => match kind {
            ServerErrorKind::NoPerm => Kind::Denied,
            ServerErrorKind::BusyLoading
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::Moved
            | ServerErrorKind::Ask
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ReadOnly => Kind::Unreachable,
            // The one that has no code of its own.
            _ if detail.starts_with("max number of clients") => Kind::Unreachable,
            _ => Kind::BadAnswer,
        },
        ErrorKind::Extension if matches!(code, Some("NOAUTH" | "WRONGPASS" | "DENIED")) => Kind::Denied,
        ErrorKind::Io if error.is_timeout() => Kind::Silent,
        ErrorKind::Io => Kind::Unreachable,
        _ => Kind::BadAnswer,
    };
    let said = match (error.kind(), code) {
        (ErrorKind::AuthenticationFailed, _) | (_, Some("WRONGPASS")) => {
            "refuses the user name or the password".to_owned()
        }
        (_, Some("NOAUTH")) => "wants a password: set `password` (or `password_file`)".to_owned(),
        (_, Some(code)) => format!("{code} {detail}"),
        (ErrorKind::Io, None) if error.is_connection_dropped() => "the connection has ended".to_owned(),
        (ErrorKind::Io, None) if error.is_timeout() => "no answer in time".to_owned(),
        (ErrorKind::Parse, None) => format!("what it says is not Redis' protocol: {detail}"),
        (_, None) => match std::error::Error::source(error).and_then(|source| source.downcast_ref()) {
            Some(io) => tls::problem::in_words(io),
            None => error.to_string(),
        },
    };
    let said = if said.trim().is_empty() { "an error without a word".to_owned() } else { said };
    let said: String = said.chars().take(SHOWN).map(|char| if char.is_control() { ' ' } else { char }).collect();
    let said = secret.map_or_else(|| said.clone(), |secret| secret.redact(&said));
    Failure::new(kind, format!("{address}: {}", said.trim()))
}

/// An answer was larger than is read.
pub(super) fn too_large(address: &str) -> Failure {
    Failure::new(Kind::BadAnswer, format!("{address}: an answer is larger than {} MiB", bounded::MOST >> 20))
}

/// The server does not know RESP3, or refuses everything it is told.
pub(super) fn may_speak_resp2(error: &RedisError) -> bool {
    let unknown =
        matches!(error.kind(), ErrorKind::RESP3NotSupported | ErrorKind::Server(ServerErrorKind::ResponseError));
    unknown || error.code() == Some("NOPROTO")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> Failure {
        let value = redis::parse_redis_value(line.as_bytes()).unwrap();
        let error = value.extract_error().unwrap_err();
        of("h:1", &error, Some(&Secret::new("hunter2")))
    }

    #[test]
    fn denials_are_told_apart_by_their_code() {
        for (line, kind) in [
            ("-NOAUTH Authentication required.\r\n", Kind::Denied),
            ("-WRONGPASS invalid username-password pair hunter2\r\n", Kind::Denied),
            ("-NOPERM this user has no permissions to run the 'scan' command\r\n", Kind::Denied),
            ("-DENIED Redis is running in protected mode\r\n", Kind::Denied),
            ("-LOADING Redis is loading the dataset in memory\r\n", Kind::Unreachable),
            ("-MASTERDOWN Link with MASTER is down\r\n", Kind::Unreachable),
            ("-CLUSTERDOWN The cluster is down\r\n", Kind::Unreachable),
            ("-MOVED 3999 127.0.0.1:6381\r\n", Kind::Unreachable),
            ("-READONLY You can't write against a read only replica.\r\n", Kind::Unreachable),
            ("-ERR max number of clients reached\r\n", Kind::Unreachable),
            ("-ERR unknown command 'SCAN'\r\n", Kind::BadAnswer),
            ("-ODD hunter2\r\n", Kind::BadAnswer),
        ] {
            let failure = told(line);
            assert_eq!(failure.kind, kind, "{line}");
            assert!(failure.problem.starts_with("h:1: ") && !failure.problem.contains("hunter2"), "{failure}");
        }
        assert_eq!(told("-NOPERM no\r\n").problem, "h:1: NOPERM no");
        assert_eq!(told("-\r\n").problem, "h:1: an error without a word");
        let silent = RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        assert_eq!(of("h:1", &silent, None), Failure::new(Kind::Silent, "h:1: no answer in time"));
        let refused = RedisError::from(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        assert_eq!(of("h:1", &refused, None).kind, Kind::Unreachable);
    }
}
