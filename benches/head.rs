//! What the checks of a request's head cost, for a usual one of 12 headers.
#![allow(missing_docs, reason = "criterion's macros write functions")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use wayside::http::h1::head::Parser;
use wayside::http::request::check::check;
use wayside::http::settings::Gateway;

const HEAD: &[u8] = b"GET /api/users/42/orders?page=2&size=50 HTTP/1.1\r\n\
host: shop.example\r\n\
user-agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
accept-language: en-US,en;q=0.5\r\n\
accept-encoding: gzip, deflate, br, zstd\r\n\
referer: https://shop.example/api/users/42\r\n\
connection: keep-alive\r\n\
cookie: sid=5f8a7c0b9d1e4f32; theme=dark; lang=en\r\n\
sec-fetch-dest: document\r\n\
sec-fetch-mode: navigate\r\n\
sec-fetch-site: same-origin\r\n\
priority: u=0, i\r\n\
\r\n";

fn checks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a head of 12 headers");
    group.throughput(Throughput::Bytes(HEAD.len() as u64));
    group.bench_function("framing", |bencher| {
        bencher.iter(|| {
            let found = Parser::new(64 << 10, 100).read(black_box(HEAD));
            assert!(found.is_ok_and(|found| found.is_some()), "a good head");
        });
    });
    let limits = Gateway::default();
    let mut parts = Parser::new(64 << 10, 100).read(HEAD).ok().flatten().map(|found| found.parts);
    group.bench_function("host, target, method", |bencher| {
        bencher.iter(|| parts.as_mut().map(|parts| check(black_box(parts), &limits).is_ok()));
    });
    group.finish();
}

criterion_group!(benches, checks);
criterion_main!(benches);
