//! Endpoints that are processes of their own are killed, held, slowed down and made to fail in turn, two at a time at most,
//! under load, while the registry loses things: no request that may be repeated is lost. `make chaos` does it for two
//! minutes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on must fail, and tells what it saw"
)]

use crate::support::gateway::Gateway;
use crate::support::program::{Program, until};
use crate::support::servers::{Process, free_ports};
use crate::support::shop::Load;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use wayside::base::chance::Chance;

/// With it, this program is an endpoint that listens on this port.
const PORT: &str = "WAYSIDE_CHAOS_PORT";
const ENDPOINTS: usize = 6;
const CLIENTS: usize = 8;

/// What happens to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// It answers, after a fifth of a second.
    Slow = 1,
    /// 500 to everything but checks.
    Failing,
    /// It resets connections instead of an answer.
    Resetting,
    /// It ends its side instead of an answer.
    HalfClosing,
    /// SIGSTOP: it takes connections, and nothing comes.
    Held,
    /// SIGKILL, and started again later.
    Killed,
    /// The registry loses it.
    Unlisted,
}

const ALL: [Trouble; 7] = [
    Trouble::Slow,
    Trouble::Failing,
    Trouble::Resetting,
    Trouble::HalfClosing,
    Trouble::Held,
    Trouble::Killed,
    Trouble::Unlisted,
];

/// Not a test but an endpoint, as a process of its own.
#[test]
fn an_endpoint() {
    let Ok(port) = std::env::var(PORT) else { return };
    let listener = TcpListener::bind(("127.0.0.1", port.parse().unwrap())).unwrap();
    let trouble = Arc::new(AtomicU8::new(0));
    for stream in listener.incoming() {
        let trouble = Arc::clone(&trouble);
        std::thread::spawn(move || serve(stream.unwrap(), &trouble));
    }
}

fn serve(stream: TcpStream, trouble: &AtomicU8) {
    let mut stream = BufReader::new(stream);
    let _ = stream.get_ref().set_nodelay(true);
    loop {
        let (mut first, mut line) = (String::new(), String::new());
        if !matches!(stream.read_line(&mut first), Ok(read) if read > 0) {
            return;
        }
        while !matches!(line.as_str(), "\r\n") {
            line.clear();
            if !matches!(stream.read_line(&mut line), Ok(read) if read > 0) {
                return;
            }
        }
        if let Some(number) = first.strip_prefix("GET /trouble/").and_then(|rest| rest.split(' ').next()) {
            trouble.store(number.parse().unwrap(), Relaxed);
        }
        let now = trouble.load(Relaxed);
        let is = |one: Trouble| now == one as u8 && first.starts_with("GET /shop ");
        if is(Trouble::Resetting) {
            let _ = socket2::SockRef::from(stream.get_ref()).set_linger(Some(Duration::ZERO));
            return;
        }
        if is(Trouble::HalfClosing) {
            let _ = stream.get_ref().shutdown(std::net::Shutdown::Write);
            return;
        }
        if is(Trouble::Slow) {
            std::thread::sleep(Duration::from_millis(200));
        }
        let status = if is(Trouble::Failing) { "500 Failing" } else { "200 OK" };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok");
        if stream.get_mut().write_all(answer.as_bytes()).is_err() || first.starts_with("GET /trouble/") {
            return;
        }
    }
}

/// The endpoints, and which of them the registry lists.
struct Fleet {
    folder: TempDir,
    ports: [u16; ENDPOINTS],
    processes: Vec<Process>,
    listed: [bool; ENDPOINTS],
    registry: PathBuf,
}

fn run(port: u16, folder: &Path) -> Process {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "chaos::an_endpoint"]).env(PORT, port.to_string());
    let process = Process::start(&mut command, &folder.join(format!("{port}.log")));
    until("an endpoint listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    process
}

impl Fleet {
    fn start() -> Self {
        let (folder, ports) = (tempfile::tempdir().unwrap(), free_ports());
        let processes = ports.iter().map(|port| run(*port, folder.path())).collect();
        Fleet { folder, ports, processes, listed: [true; ENDPOINTS], registry: PathBuf::new() }
    }

    fn address(&self, at: usize) -> SocketAddr {
        ([127, 0, 0, 1], self.ports[at]).into()
    }

    fn tell(&self, at: usize, trouble: u8) {
        let told = crate::support::program::get(&self.address(at).to_string(), &format!("/trouble/{trouble}"), &[]);
        assert!(told.starts_with("HTTP/1.1 200"), "{told}");
    }

    fn list(&self) {
        let listed = (0..ENDPOINTS).filter(|at| self.listed[*at]);
        let entry = |at: usize| format!("[[services.shop.endpoints]]\naddress = \"{}\"\n", self.address(at));
        let aside = self.registry.with_extension("new");
        std::fs::write(&aside, listed.map(entry).collect::<String>()).unwrap();
        std::fs::rename(aside, &self.registry).unwrap();
    }

    fn begin(&mut self, at: usize, trouble: Trouble) {
        match trouble {
            Trouble::Held => self.processes[at].pause(),
            Trouble::Killed => self.processes[at].kill(),
            Trouble::Unlisted => {
                self.listed[at] = false;
                self.list();
            }
            other => self.tell(at, other as u8),
        }
    }

    fn end(&mut self, at: usize, trouble: Trouble) {
        match trouble {
            Trouble::Held => self.processes[at].go_on(),
            Trouble::Killed => self.processes[at] = run(self.ports[at], self.folder.path()),
            Trouble::Unlisted => {
                self.listed[at] = true;
                self.list();
            }
            _ => self.tell(at, 0),
        }
    }
}

fn shop(gateway: &Program) -> Value {
    let shown: Value = serde_json::from_str(&gateway.ask("/services")).unwrap();
    shown["services"][0].clone()
}

#[test]
fn whatever_happens_to_endpoints_no_request_that_may_be_repeated_is_lost() {
    let seconds = std::env::var("WAYSIDE_CHAOS").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    let mut fleet = Fleet::start();
    let gateway = Gateway::with()
        .endpoints((0..ENDPOINTS).map(|at| fleet.address(at)))
        .service("strategy = \"least-request\"\nmax_attempts = 3\nretry_status = [500]\nattempt_timeout = \"1s\"")
        .service("health = { path = \"/health\", interval = \"250ms\", timeout = \"500ms\", unhealthy_after = 2 }")
        .service("outlier = { base = \"1s\", max = \"5s\" }\nslow_start = \"1s\"")
        .start();
    fleet.registry = gateway.folder().join("services.toml");
    let load = Load::asking(&gateway.address, CLIENTS, "GET /shop HTTP/1.1\r\nhost: a\r\n\r\n", PACE, |answer| {
        answer.starts_with("HTTP/1.1 200")
    });
    load.more(1000);
    let healthy = load.latency();
    let (mut chance, began) = (Chance::seeded(), Instant::now());
    println!("chaos: seed {}", chance.0);
    let mut troubles: Vec<(usize, Trouble)> = Vec::new();
    let mut seen = [0; ALL.len()];
    while began.elapsed() < Duration::from_secs(seconds) {
        // Each in its turn, so that a short run has them all.
        let number: usize = seen.iter().sum();
        let trouble = ALL[number % ALL.len()];
        let well = |at: &usize| troubles.iter().all(|(ill, _)| ill != at);
        let candidates: Vec<usize> = (0..ENDPOINTS).filter(well).collect();
        let at = candidates[chance.below(candidates.len())];
        fleet.begin(at, trouble);
        seen[number % ALL.len()] += 1;
        troubles.push((at, trouble));
        // A while in load, not in time.
        load.more(300 + chance.below(600) as u64);
        if troubles.len() == 2 {
            let (at, trouble) = troubles.remove(chance.below(2));
            fleet.end(at, trouble);
        }
        if number % 5 == 4 {
            // The registry is gone for a moment, with everything.
            let aside = fleet.registry.with_extension("gone");
            std::fs::rename(&fleet.registry, &aside).unwrap();
            load.more(100);
            std::fs::rename(&aside, &fleet.registry).unwrap();
        }
    }
    let troubled = load.latency();
    for (at, trouble) in troubles {
        fleet.end(at, trouble);
    }
    until("all are well again", || {
        let shown = shop(&gateway);
        let endpoints = shown["endpoints"].as_array().unwrap();
        endpoints.len() == ENDPOINTS && endpoints.iter().all(|endpoint| endpoint["healthy"] == true)
    });
    load.more(500);
    let after = load.latency();
    let page = gateway.ask("/metrics");
    let told = page.lines().filter(|line| {
        line.starts_with("wayside_endpoint_ejections_total") || line.starts_with("wayside_upstream_attempts_total")
    });
    told.for_each(|line| println!("chaos: {line}"));
    let ms = |(median, p99): (u128, u128)| format!("{:.1}/{:.1} ms", median as f64 / 1e3, p99 as f64 / 1e3);
    let sent = load.end();
    println!(
        "chaos: {sent} requests in {:.0?}, none lost; median/p99 {} before, {} meanwhile, {} after; {seen:?} of {ALL:?}",
        began.elapsed(),
        ms(healthy),
        ms(troubled),
        ms(after)
    );
    until("nothing is in flight", || gateway.metric("wayside_exchanges_in_flight") == Some(0.0));
}

/// Of each client.
const PACE: Duration = Duration::from_millis(8);
