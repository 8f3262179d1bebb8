//! What a request costs: CPU time of the gateway for each request, compared with two bare hyper proxies': the one that
//! most people would write, and the leanest. The runs are interleaved, and what counts is the median of the ratios, so
//! that a machine that is busy with other things for a while does not decide.
//!
//! `cargo bench --bench proxy`, with `-- --quick` for a short one, `-- --workers N` for other than a thread per core,
//! `-- --only NAME` for one row by its name, to profile it.
#![allow(missing_docs, unreachable_pub, reason = "a program of its own, not an interface")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "whoever runs it reads it")]

mod lean;
mod load;
mod origin;
mod pooled;
mod process;
mod serve;

use anyhow::Context as _;
use load::Protocol::{self, H2c, Handshakes, Http1};
use process::{Process, Subject};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// Requests under way at a time.
const CLIENTS: usize = 64;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("origin") => return origin::run(),
        Some("lean") => {
            return lean::run(arguments[1].parse()?, &arguments[2], &arguments[3], &addresses(&arguments[4..])?);
        }
        Some("pooled") => return pooled::run(arguments[1].parse()?, &addresses(&arguments[2..])?),
        _ => {}
    }
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let option = |name: &str| match arguments.iter().position(|argument| argument == name) {
        Some(place) => arguments.get(place + 1).map(Some).with_context(|| format!("{name} needs a value")),
        None => Ok(None),
    };
    let workers = match option("--workers")? {
        Some(workers) => workers.parse()?,
        None => std::thread::available_parallelism()?.get(),
    };
    let only = option("--only")?.map_or("", String::as_str);
    let options = tokio::runtime::LocalOptions::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(options)?;
    let failed = runtime.block_on(measure(workers, only, if quick { (3, 20_000) } else { (5, 100_000) }))?;
    anyhow::ensure!(failed == 0, "{failed} requests failed");
    Ok(())
}

fn addresses(arguments: &[String]) -> Result<Vec<SocketAddr>, std::net::AddrParseError> {
    arguments.iter().map(|address| address.parse()).collect()
}

fn subject<'a>(
    name: &'static str,
    process: &'a Process,
    port: usize,
    protocol: Protocol,
    tls: &Arc<rustls::ClientConfig>,
    baselines: &'static [usize],
) -> Subject<'a> {
    let tls = Arc::clone(tls);
    Subject { name, process, address: process.addresses[port], protocol, tls, baselines, costs: Vec::new() }
}

/// Runs everything, and gives the number of failed requests.
async fn measure(workers: usize, only: &str, (rounds, requests): (usize, usize)) -> anyhow::Result<usize> {
    let this = std::env::current_exe()?;
    let origin = Process::start(&this, &["origin".to_owned()])?;
    let (endpoints, sink) = origin.addresses.split_at(3);
    let folder = tempfile::tempdir()?;
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
    let (chain, key) = (folder.path().join("bench.pem"), folder.path().join("bench.key"));
    std::fs::write(&chain, certified.cert.pem())?;
    std::fs::write(&key, certified.signing_key.serialize_pem())?;
    let tls = load::trusting(certified.cert.der().clone())?;
    let files = [chain.display().to_string(), key.display().to_string()];
    let bare = |kind: &str, files: &[String]| {
        let mut arguments = vec![kind.to_owned(), workers.to_string()];
        arguments.extend_from_slice(files);
        arguments.extend(endpoints.iter().map(SocketAddr::to_string));
        Process::start(&this, &arguments)
    };
    let (lean, pooled) = (bare("lean", &files)?, bare("pooled", &[])?);
    let policy = gateway(&folder.path().join("policy"), workers, endpoints, sink[0], &files, true)?;
    let routes = gateway(&folder.path().join("routes"), workers, endpoints, sink[0], &files, false)?;
    let subject = |name, process, port, protocol, baselines| subject(name, process, port, protocol, &tls, baselines);
    let mut subjects = [
        subject("pooled hyper", &pooled, 0, Http1, &[]),
        subject("lean hyper", &lean, 0, Http1, &[]),
        subject("wayside, Wasm policy", &policy, 0, Http1, &[0, 1]),
        subject("wayside, declared route", &routes, 0, Http1, &[0, 1]),
        subject("pooled hyper, h2c", &pooled, 0, H2c, &[]),
        subject("lean hyper, h2c", &lean, 1, H2c, &[]),
        subject("wayside, policy, h2c", &policy, 0, H2c, &[4, 5]),
        subject("lean hyper, handshake", &lean, 2, Handshakes, &[]),
        subject("wayside, handshake", &policy, 1, Handshakes, &[7]),
    ];
    println!("{workers} worker threads, {CLIENTS} clients; warming up");
    let mut failed = 0;
    let asked = |subject: &&mut Subject<'_>| only.is_empty() || subject.name == only;
    for subject in subjects.iter_mut().filter(asked) {
        failed += subject.run(CLIENTS, requests / 10).await?;
        subject.costs.clear();
    }
    for round in 1..=rounds {
        println!("\nround {round} of {rounds}");
        println!("{:<24} requests failed  CPU µs/req    user  system     req/s  p50 µs  p99 µs", "");
        for subject in subjects.iter_mut().filter(asked) {
            failed += subject.run(CLIENTS, requests).await?;
        }
    }
    if !only.is_empty() {
        return Ok(failed);
    }
    println!("\nCPU time per request as a multiple of another's, median of {rounds} (lowest to highest)");
    for subject in &subjects {
        for baseline in subject.baselines.iter().map(|index| &subjects[*index]) {
            let ratios = subject.ratios(baseline);
            let (lowest, median, highest) = (ratios[0], ratios[ratios.len() / 2], ratios[ratios.len() - 1]);
            println!("{:<24} {median:.3} ({lowest:.3} to {highest:.3}) of {}", subject.name, baseline.name);
        }
    }
    Ok(failed)
}

/// The real program: one service of three endpoints, metrics on, one trace in a hundred sampled and exported. Where a
/// policy decides there is no route, so a policy that fails is a request that fails.
fn gateway(
    folder: &Path,
    workers: usize,
    endpoints: &[SocketAddr],
    sink: SocketAddr,
    [chain, key]: &[String; 2],
    policy: bool,
) -> anyhow::Result<Process> {
    std::fs::create_dir_all(folder.join("policies"))?;
    let endpoints = endpoints.iter().map(|e| format!("[[services.users-v2.endpoints]]\naddress = \"{e}\"\n"));
    std::fs::write(folder.join("services.toml"), endpoints.collect::<String>())?;
    let decides = if policy {
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest-examples/prebuilt/canary.wasm");
        std::fs::copy(&built, folder.join("policies/canary.wasm")).with_context(|| built.display().to_string())?;
        // It reads a header and a cookie, hashes, gives a reason, and sends everybody to users-v2.
        std::fs::write(folder.join("policies/canary.toml"), "config = \"100\"\n")?;
        "[policies]\ndirectory = \"policies\"\ncache = \"cache\"\n"
    } else {
        "[[routes]]\nmatch = { path_prefix = \"/api/users\" }\nservice = \"users-v2\"\n"
    };
    let config = format!(
        "[gateway]\nlisten = [\"127.0.0.1:0\", {{ address = \"127.0.0.1:0\", \
         certificates = [{{ chain = \"{chain}\", key = \"{key}\" }}] }}]\nadmin = \"127.0.0.1:0\"\nworkers = {workers}\n\
         [telemetry]\notlp = \"http://{sink}\"\nsample = 0.01\n\
         [sources.local]\nkind = \"file\"\npath = \"services.toml\"\n\
         [services.users-v2]\nsource = \"local\"\nstrategy = \"round-robin\"\n{decides}"
    );
    let file = folder.join("wayside.toml");
    std::fs::write(&file, config)?;
    let arguments = ["run".to_owned(), "--config".to_owned(), file.display().to_string()];
    Process::start(Path::new(env!("CARGO_BIN_EXE_wayside")), &arguments)
}
