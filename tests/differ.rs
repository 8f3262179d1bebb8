//! Streams of requests that are nearly good, read by the strict parser and by hyper; `make fuzz` looks for more.

#[path = "fuzz/differ.rs"]
#[allow(clippy::unwrap_used, unreachable_pub, reason = "what it says is what a fuzz target needs")]
mod compared;

use compared::compare;
use proptest::prelude::*;

fn nearly_requests() -> impl Strategy<Value = Vec<u8>> {
    let part = |text: &'static [u8]| Just(text.to_vec());
    let piece = prop_oneof![
        8 => part(b"GET / HTTP/1.1\r\n"),
        3 => part(b"POST /a?b HTTP/1.1\r\n"),
        1 => part(b"GET http://a/b HTTP/1.0\r\n"),
        1 => part(b"OPTIONS * HTTP/1.1\r\n"),
        8 => part(b"\r\n"),
        4 => part(b"host: a\r\n"),
        3 => part(b"transfer-encoding: chunked\r\n"),
        3 => part(b"Content-Length: 3\r\n"),
        3 => part(b"3\r\nabc\r\n"),
        3 => part(b"0\r\n\r\n"),
        1 => part(b"0;x=y\r\nx-sum: 1 \r\n\r\n"),
        1 => part(b"connection: keep-alive, x\r\n"),
        1 => part(b"connection: close\r\n"),
        1 => part(b"x-a:\tb c \r\n"),
        1 => part(b" folded\r\n"),
        1 => part(b"\n"),
        2 => part(b"abc"),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_the_strict_parser_takes_hyper_takes_for_the_same(bytes in nearly_requests()) {
        compare(&bytes);
    }
}

#[test]
fn whole_streams_are_read_alike() {
    for (bytes, requests) in [
        (&b"GET / HTTP/1.1\r\nhost: a\r\n\r\nPOST /b HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabcGET /c HTTP/1.1\r\n\r\n"[..], 3),
        (b"\r\nPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nx-sum: 1\r\n\r\nGET /d HTTP/1.0\r\n\r\n", 2),
    ] {
        assert_eq!(compare(bytes), requests);
    }
}
