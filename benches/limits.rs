//! What it costs to ask a declared limit that stops nothing, and to find the middleware of a request, by how many of them
//! are declared for other paths.
#![allow(missing_docs, reason = "criterion's macros write functions")]
#![allow(clippy::print_stderr, reason = "whoever runs it reads it")]

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use serde::Deserialize;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use wayside::discovery::store::Stores;
use wayside::http::fields::Fields;
use wayside::http::request::{Head, Peer};
use wayside::service::middleware::{self, Chain};
use wayside::service::rate_limit::{self, Limits};

/// What a configuration says of both.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    rate_limits: Vec<rate_limit::settings::Written>,
    #[serde(default)]
    middleware: Vec<middleware::Written>,
}

/// So many tables, of which the last is about the request.
fn tables(name: &str, keys: &str, count: usize) -> anyhow::Result<File> {
    let table = |n| format!("[[{name}]]\nname = \"{n}\"\nmatch = {{ path_prefix = \"/api/service-{n}\" }}\n{keys}\n");
    Ok(toml::from_str(&(1..=count).map(table).collect::<String>())?)
}

fn head(count: usize) -> anyhow::Result<Arc<Head>> {
    let mut request = http::Request::get(format!("/api/service-{count}/items/42")).header("host", "shop.example");
    for n in 0..8 {
        request = request.header(format!("x-header-{n}"), "some value of usual length");
    }
    Ok(Head::new(request.body(())?.into_parts().0, Peer::new(([203, 0, 113, 7], 4711).into()), &[]))
}

fn all(criterion: &mut Criterion) -> anyhow::Result<()> {
    const COUNTS: [usize; 3] = [1, 100, 1000];
    let mut group = criterion.benchmark_group("a limit that stops nothing");
    for count in COUNTS {
        let file = tables("rate_limits", "rate = \"1000000/s\"\nburst = 4000000000", count)?;
        let declared = rate_limit::settings::check(file.rate_limits, |_| false).map_err(anyhow::Error::msg)?;
        let (limits, stores, head) = (Limits::default().declare(&declared), Stores::default(), head(count)?);
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            let now = Instant::now();
            bencher.iter(|| limits.take(black_box(&head), &stores, now));
        });
        let standing = limits.take(&head, &stores, Instant::now());
        let standing = standing.filter(|standing| !standing.is_refusal());
        let Some(standing) = standing else { anyhow::bail!("it stopped something") };
        if count == 1 {
            group.bench_function("what clients are told", |bencher| {
                bencher.iter(|| {
                    let mut headers = Fields::default();
                    standing.tell(black_box(&mut headers));
                    headers
                });
            });
        }
    }
    group.finish();
    let mut group = criterion.benchmark_group("the last middleware");
    for count in COUNTS {
        let file = tables("middleware", "request_id = {}", count)?;
        let chain = Chain::check(file.middleware, Path::new("/"), |_| false).map_err(anyhow::Error::msg)?;
        let head = head(count)?;
        let fit = |head: &Head| chain.about(head).filter(|one| one.matcher.fits(head)).count();
        anyhow::ensure!(fit(&head) == 1, "others fit as well");
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| bencher.iter(|| fit(black_box(&head))));
    }
    group.finish();
    Ok(())
}

fn run(criterion: &mut Criterion) {
    if let Err(error) = all(criterion) {
        eprintln!("{error:#}");
        std::process::exit(1);
    }
}

criterion_group!(benches, run);
criterion_main!(benches);
