//! Heads as they are written.

use crate::http::fields::{Fields, line};
use http::{HeaderMap, StatusCode, Version};

/// Adds the status line, these headers but for what frames the body, and what frames it; not the empty line.
pub fn response(out: &mut Vec<u8>, version: Version, status: StatusCode, headers: &Fields, framing: &Framing) {
    if (version, status) == (Version::HTTP_11, StatusCode::OK) {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    } else {
        let version = if version == Version::HTTP_10 { "HTTP/1.0 " } else { "HTTP/1.1 " };
        for part in [version, status.as_str(), " ", status.canonical_reason().unwrap_or(""), "\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    headers.write(out, |name| match name {
        b"content-length" => *framing != Framing::AsTold,
        b"transfer-encoding" => true,
        _ => false,
    });
    match framing {
        Framing::AsTold => {}
        Framing::Bytes(bytes) => line(out, b"content-length", &[itoa::Buffer::new().format(*bytes).as_bytes()]),
        Framing::Chunked => line(out, b"transfer-encoding", &[b"chunked"]),
        Framing::Nothing | Framing::UntilClose => {}
    }
}

/// What a response says of its body's length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body, and nothing that would say how long one is.
    Nothing,
    /// There is no body; its headers may say how long it would be.
    AsTold,
    /// So many bytes.
    Bytes(u64),
    /// It comes in chunks.
    Chunked,
    /// It ends with the connection.
    UntilClose,
}

/// Adds the line that says how long the chunk is that follows.
pub fn chunk_size(out: &mut Vec<u8>, mut bytes: usize) {
    let (mut digits, mut at) = ([0; 16], 16);
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[bytes & 15];
        bytes >>= 4;
        if bytes == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// Adds the end of a chunked body.
pub fn last_chunk(out: &mut Vec<u8>, trailers: Option<&HeaderMap>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        for (name, value) in trailers {
            line(out, name.as_str().as_bytes(), &[value.as_bytes()]);
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_hexadecimal() {
        for size in [0, 9, 10, 255, 4096, usize::MAX] {
            let mut out = Vec::new();
            chunk_size(&mut out, size);
            assert_eq!(out, format!("{size:x}\r\n").as_bytes());
        }
    }

    #[test]
    fn each_line_of_a_name_is_written() {
        let mut headers = HeaderMap::new();
        headers.append("a", "1".parse().unwrap());
        headers.append("a", "2".parse().unwrap());
        let mut out = Vec::new();
        last_chunk(&mut out, Some(&headers));
        last_chunk(&mut out, None);
        assert_eq!(out, b"0\r\na: 1\r\na: 2\r\n\r\n0\r\n\r\n");
    }
}
