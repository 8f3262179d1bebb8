//! What matching costs when the last of so many routes fits: prefix, host, method and a header each.
#![allow(missing_docs, reason = "criterion's macros write functions")]
#![allow(clippy::print_stderr, reason = "whoever runs it reads it")]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;
use wayside::http::request::{Head, Peer};
use wayside::service::route::{Index, Match, RawMatch};

fn rule(number: usize) -> Result<Match, String> {
    RawMatch {
        host: Some("shop.example".into()),
        path_prefix: Some(format!("/api/service-{number}")),
        methods: vec!["GET".into(), "HEAD".into()],
        headers: [("x-tier".to_owned(), "gold".to_owned())].into(),
        ..RawMatch::default()
    }
    .check()
}

fn head(last: usize) -> http::Result<Arc<Head>> {
    let mut request = http::Request::get(format!("/api/service-{last}/items/42?page=2"));
    request = request.header("host", "shop.example:8080").header("x-tier", "gold");
    for n in 0..8 {
        request = request.header(format!("x-header-{n}"), "some value of usual length");
    }
    Ok(Head::new(request.body(())?.into_parts().0, Peer::new(([203, 0, 113, 7], 4711).into()), &[]))
}

fn matches(criterion: &mut Criterion) {
    let mut run = || -> anyhow::Result<()> {
        let mut group = criterion.benchmark_group("the last route");
        for count in [1, 100, 1_000, 10_000] {
            let rules: Vec<Match> = (0..count).map(rule).collect::<Result<_, _>>().map_err(anyhow::Error::msg)?;
            let head = head(count - 1)?;
            let index = Index::of(&rules);
            let first = |head: &Head| index.candidates(head).find(|number| rules[*number].fits(head));
            anyhow::ensure!(first(&head) == Some(count - 1), "another route fits");
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                bencher.iter(|| first(black_box(&head)));
            });
        }
        group.finish();
        Ok(())
    };
    if let Err(error) = run() {
        eprintln!("{error:#}");
        std::process::exit(1);
    }
}

criterion_group!(benches, matches);
criterion_main!(benches);
