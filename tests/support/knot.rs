//! Knot DNS, which serves the zone `test.` of a file, whose text a test writes.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "for tests, each of which uses some of it"
)]

use super::servers::{Process, free_ports, program};
use rustix::process::Signal;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// Somebody else may take a port between our look and the server's bind.
const STARTS: usize = 3;
/// For one answer.
const ANSWER: Duration = Duration::from_millis(500);
const SERVFAIL: u8 = 2;
const REFUSED: u8 = 5;

/// A DNS server for `test.`.
#[derive(Debug)]
pub struct Knot {
    /// For UDP and TCP.
    pub address: SocketAddr,
    /// The server.
    pub process: Process,
    program: PathBuf,
    folder: TempDir,
    serial: AtomicU32,
}

impl Knot {
    /// Serves these records, each a line like `users 1 A 127.0.0.1`; ready after a second.
    pub async fn start(records: &str) -> Self {
        let program = program("knotd");
        let mut problem = String::new();
        for _ in 0..STARTS {
            let folder = tempfile::tempdir().unwrap();
            let [port] = free_ports();
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            configure(folder.path(), port, true);
            write(folder.path(), 1, records);
            let process = run(&program, folder.path());
            let (program, serial) = (program.clone(), AtomicU32::new(1));
            let mut knot = Knot { address, process, program, folder, serial };
            match knot.ready().await {
                Ok(()) => return knot,
                Err(why) => problem = why,
            }
        }
        panic!("knotd: {problem}");
    }

    async fn ready(&mut self) -> Result<(), String> {
        let address = self.address;
        self.process.ready(|| async move { code(address).await == Some(0) }).await
    }

    /// From now on it serves these instead; seen by who asks some milliseconds later.
    pub fn serve(&self, records: &str) {
        self.serve_at_start(records);
        self.process.signal(Signal::HUP);
    }

    /// When it starts the next time, it serves these.
    pub fn serve_at_start(&self, records: &str) {
        write(self.folder.path(), self.serial.fetch_add(1, Relaxed) + 1, records);
    }

    /// From now on it refuses to answer, as one that does not know the zone (false), or answers again.
    pub async fn knows_zone(&mut self, known: bool) {
        configure(self.folder.path(), self.address.port(), known);
        self.process.signal(Signal::HUP);
        self.answers_with(if known { 0 } else { REFUSED }).await;
    }

    /// From now on it answers that it has failed (SERVFAIL), as one that cannot read the zone; `serve` makes it good.
    pub async fn loses_zone(&mut self) {
        // It keeps a zone that it has.
        self.process.kill();
        std::fs::remove_file(self.folder.path().join("test.zone")).unwrap();
        self.process = run(&self.program, self.folder.path());
        self.answers_with(SERVFAIL).await;
    }

    async fn answers_with(&mut self, wanted: u8) {
        let address = self.address;
        self.process.ready(|| async move { code(address).await == Some(wanted) }).await.unwrap();
    }

    /// Starts it again on the same port with the zone as it was.
    pub async fn start_again(&mut self) {
        self.process.kill();
        self.process = run(&self.program, self.folder.path());
        self.ready().await.unwrap();
    }
}

fn run(program: &Path, folder: &Path) -> Process {
    Process::start(Command::new(program).arg("-c").arg(folder.join("knot.conf")), &folder.join("log"))
}

fn configure(folder: &Path, port: u16, known: bool) {
    let at = folder.display();
    let zone = format!(
        "zone:\n  - domain: test.\n    storage: {at}\n    file: test.zone\n    zonefile-sync: -1\n    \
         zonefile-load: whole\n    journal-content: none\n"
    );
    let text = format!(
        "server:\n    rundir: {at}\n    listen: 127.0.0.1@{port}\n    udp-workers: 1\n    tcp-workers: 1\n    \
         background-workers: 1\nlog:\n  - target: stderr\n    any: warning\ndatabase:\n    storage: {at}/db\n{}",
        if known { &zone } else { "" }
    );
    std::fs::create_dir_all(folder.join("db")).unwrap();
    std::fs::write(folder.join("knot.conf"), text).unwrap();
}

/// The zone's file appears at once.
fn write(folder: &Path, serial: u32, records: &str) {
    let head =
        format!("$ORIGIN test.\n@ 1 SOA ns.test. host.test. {serial} 60 60 3600 1\n@ 1 NS ns\nns 1 A 127.0.0.1\n");
    std::fs::write(folder.join("new.zone"), format!("{head}{records}\n")).unwrap();
    std::fs::rename(folder.join("new.zone"), folder.join("test.zone")).unwrap();
}

/// With which code it answers, if it does.
async fn code(address: SocketAddr) -> Option<u8> {
    let question = b"\x07\x07\0\0\0\x01\0\0\0\0\0\0\x02ns\x04test\0\0\x01\0\x01";
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let _ = socket.send_to(question, address).await;
    let mut answer = [0; 512];
    let answered = timeout(ANSWER, socket.recv_from(&mut answer)).await;
    matches!(answered, Ok(Ok((12.., _)))).then_some(answer[3] & 0x0f)
}
