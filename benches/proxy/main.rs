//! What a request costs: CPU time of the gateway for each request, compared with two bare hyper proxies': the one that
//! most people would write, and the leanest; with nginx's, where that is installed; and with the floor. The runs are
//! interleaved, and what counts is the median of the ratios, so that a machine that is busy with other things for a while
//! does not decide. Then what an idle connection occupies, and, where valgrind is installed, how many instructions a
//! request takes.
//!
//! `cargo bench --bench proxy`, with `-- --quick` for a short one, `-- --workers N` for more than one thread,
//! `-- --only NAME` for rows whose name begins so.
#![allow(missing_docs, unreachable_pub, reason = "a program of its own, not an interface")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "whoever runs it reads it")]

mod floor;
mod instructions;
mod lean;
mod load;
mod memory;
mod origin;
mod pooled;
mod process;
mod programs;
mod serve;

use anyhow::Context as _;
use load::Protocol::{Fresh, H2c, Handshakes, Http1};
use load::{LARGE, SMALL};
use process::{Process, Rows};
use programs::{Decides, configure, gateway, nginx};
use std::net::SocketAddr;

/// Requests under way at a time.
const CLIENTS: usize = 64;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("origin") => return origin::run(),
        Some("lean") => {
            return lean::run(arguments[1].parse()?, &arguments[2], &arguments[3], &addresses(&arguments[4..])?);
        }
        Some("floor") => return floor::run(addresses(&arguments[1..])?),
        Some("pooled") => return pooled::run(arguments[1].parse()?, &addresses(&arguments[2..])?),
        _ => {}
    }
    // For thousands of connections; what is started has it as well.
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let all = rustix::process::Rlimit { current: most, maximum: most };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, all)?;
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let option = |name: &str| match arguments.iter().position(|argument| argument == name) {
        Some(place) => arguments.get(place + 1).map(Some).with_context(|| format!("{name} needs a value")),
        None => Ok(None),
    };
    let workers = match option("--workers")? {
        Some(workers) => workers.parse()?,
        None => 1,
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
    let bare = |arguments: &[&str]| {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned());
        let arguments: Vec<String> = arguments.chain(endpoints.iter().map(SocketAddr::to_string)).collect();
        Process::start(&this, &arguments)
    };
    let configured = |name: &str, workers: usize, decides: Decides| {
        configure(&folder.path().join(name), workers, endpoints, sink[0], &files, decides)
    };
    let started = |name: &str, decides: Decides| gateway(&configured(name, workers, decides)?);
    let threads = workers.to_string();
    let (lean, pooled) = (bare(&["lean", &threads, &files[0], &files[1]])?, bare(&["pooled", &threads])?);
    let (floor, nginx) = (bare(&["floor"])?, nginx(&folder.path().join("nginx"), endpoints)?);
    let (route, routes) = (started("route", Decides::Route)?, started("routes", Decides::Routes)?);
    let many = started("endpoints", Decides::Endpoints)?;
    let (canary, tenant) = (started("canary", Decides::Canary)?, started("tenant", Decides::Tenant)?);
    let (limit, middleware) = (started("limit", Decides::Limit)?, started("middleware", Decides::Middleware)?);
    let twice = gateway(&configured("twice", 2 * workers, Decides::Route)?)?;
    let mut table = Rows::new(&tls);
    table.row("pooled hyper", &pooled, 0, Http1(SMALL), &[]);
    table.row("lean hyper", &lean, 0, Http1(SMALL), &[]);
    table.row("floor", &floor, 0, Http1(SMALL), &["pooled hyper"]);
    if let Some(nginx) = &nginx {
        table.row("nginx", nginx, 0, Http1(SMALL), &["pooled hyper"]);
    }
    table.row("declared route", &route, 0, Http1(SMALL), &["pooled hyper", "lean hyper"]);
    table.row("policy canary", &canary, 0, Http1(SMALL), &["pooled hyper", "lean hyper"]);
    table.row("policy tenant", &tenant, 0, Http1(SMALL), &["pooled hyper", "lean hyper"]);
    table.row("a rate limit", &limit, 0, Http1(SMALL), &["declared route"]);
    table.row("middleware", &middleware, 0, Http1(SMALL), &["declared route"]);
    table.row("10,000 endpoints", &many, 0, Http1(SMALL), &["declared route"]);
    table.row("1,000 routes", &routes, 0, Http1(SMALL), &["declared route"]);
    table.row("twice the workers", &twice, 0, Http1(SMALL), &["declared route"]);
    table.row("64 KiB, pooled hyper", &pooled, 0, Http1(LARGE), &[]);
    if let Some(nginx) = &nginx {
        table.row("64 KiB, nginx", nginx, 0, Http1(LARGE), &["64 KiB, pooled hyper"]);
    }
    table.row("64 KiB", &route, 0, Http1(LARGE), &["64 KiB, pooled hyper"]);
    table.row("new connection, pooled hyper", &pooled, 0, Fresh, &[]);
    if let Some(nginx) = &nginx {
        table.row("new connection, nginx", nginx, 0, Fresh, &["new connection, pooled hyper"]);
    }
    table.row("new connection", &route, 0, Fresh, &["new connection, pooled hyper"]);
    table.row("h2c, pooled hyper", &pooled, 0, H2c, &[]);
    table.row("h2c, lean hyper", &lean, 1, H2c, &[]);
    table.row("h2c", &route, 0, H2c, &["h2c, pooled hyper", "h2c, lean hyper"]);
    table.row("h2c, policy canary", &canary, 0, H2c, &["h2c, pooled hyper", "h2c, lean hyper"]);
    table.row("handshake, lean hyper", &lean, 2, Handshakes, &[]);
    table.row("handshake", &route, 1, Handshakes, &["handshake, lean hyper"]);
    let mut subjects = table.rows;
    subjects.retain(|subject| subject.name.starts_with(only));
    println!("{workers} worker threads, {CLIENTS} clients; warming up");
    let mut failed = 0;
    for subject in &mut subjects {
        failed += subject.run(CLIENTS, requests / 10).await?;
        subject.costs.clear();
    }
    for round in 1..=rounds {
        println!("\nround {round} of {rounds}");
        println!("{:<28} requests failed  CPU µs/req    user  system     req/s  p50 µs  p99 µs", "");
        for subject in &mut subjects {
            failed += subject.run(CLIENTS, requests).await?;
        }
    }
    println!("\nCPU time per request as a multiple of another's, median of {rounds} (lowest to highest)");
    for subject in &subjects {
        for baseline in subjects.iter().filter(|other| subject.baselines.contains(&other.name)) {
            let ratios = subject.ratios(baseline);
            let (lowest, median, highest) = (ratios[0], ratios[ratios.len() / 2], ratios[ratios.len() - 1]);
            println!("{:<28} {median:.3} ({lowest:.3} to {highest:.3}) of {}", subject.name, baseline.name);
        }
    }
    if !only.is_empty() {
        return Ok(failed);
    }
    println!("\nKiB of an idle connection that was answered once, of {}", memory::CONNECTIONS);
    let idle = [("pooled hyper", Some(&pooled)), ("nginx", nginx.as_ref()), ("wayside", Some(&twice))];
    for (name, process) in idle.into_iter().filter_map(|(name, process)| Some((name, process?))) {
        println!("{name:<28} {:.1}", memory::of_idle(process).await?);
    }
    println!("\ninstructions of a request, by callgrind");
    for (name, decides) in [
        ("declared route", Decides::Route),
        ("a rate limit", Decides::Limit),
        ("middleware", Decides::Middleware),
        ("policy canary", Decides::Canary),
        ("policy tenant", Decides::Tenant),
    ] {
        let config = configured(&format!("counted {name}"), 1, decides)?;
        // Not all that a policy's call does is possible under every valgrind.
        match instructions::count(&config, &tls).await {
            Ok(Some(count)) => println!("{name:<28} {count:.0}"),
            Ok(None) => println!("{name:<28} not counted: valgrind is not installed"),
            Err(error) => println!("{name:<28} not counted: {error:#}"),
        }
    }
    Ok(failed)
}
