//! Knot DNS, which serves the zone `test.` of a file, whose text a test writes.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "for tests, each of which uses some of it"
)]

use super::servers::{Process, free_ports, program};
use hickory_resolver::proto::op::Message;
use hickory_resolver::proto::rr::RData;
use rustix::process::{Pid, Signal, kill_process};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Somebody else may take a port between our look and the server's bind.
const STARTS: usize = 3;
/// For one answer.
const ANSWER: Duration = Duration::from_millis(500);
const SERVFAIL: u16 = 2;
const REFUSED: u16 = 5;
/// How often it is looked whether it serves what it should.
const REMIND: Duration = Duration::from_millis(100);

/// A DNS server for `test.`.
#[derive(Debug)]
pub struct Knot {
    /// For UDP and TCP.
    pub address: SocketAddr,
    /// The server.
    pub process: Process,
    program: PathBuf,
    folder: TempDir,
    wanted: Arc<Wanted>,
    reminder: JoinHandle<()>,
}

/// What it shall serve, and who it is.
#[derive(Debug)]
struct Wanted {
    serial: AtomicU32,
    process: AtomicU32,
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
            let wanted = Arc::new(Wanted { serial: AtomicU32::new(1), process: AtomicU32::new(process.id()) });
            let zone = folder.path().join("test.zone");
            let reminder = tokio::spawn(remind(address, zone, Arc::clone(&wanted)));
            let mut knot = Knot { address, process, program: program.clone(), folder, wanted, reminder };
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
        write(self.folder.path(), self.wanted.serial.fetch_add(1, Relaxed) + 1, records);
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
        self.run();
        self.answers_with(SERVFAIL).await;
    }

    async fn answers_with(&mut self, wanted: u16) {
        let address = self.address;
        self.process.ready(|| async move { code(address).await == Some(wanted) }).await.unwrap();
    }

    /// Starts it again on the same port with the zone as it was.
    pub async fn start_again(&mut self) {
        self.process.kill();
        self.run();
        self.ready().await.unwrap();
    }

    fn run(&mut self) {
        self.process = run(&self.program, self.folder.path());
        self.wanted.process.store(self.process.id(), Relaxed);
    }
}

impl Drop for Knot {
    fn drop(&mut self) {
        self.reminder.abort();
    }
}

/// A file that is replaced while it is read may count as read: Knot is told again, until it serves it.
async fn remind(address: SocketAddr, zone: PathBuf, wanted: Arc<Wanted>) {
    loop {
        tokio::time::sleep(REMIND).await;
        let behind = serial(address).await.is_some_and(|serial| serial != wanted.serial.load(Relaxed));
        if behind && let Ok(file) = std::fs::File::options().append(true).open(&zone) {
            let _ = file.set_modified(SystemTime::now());
            if let Some(process) = i32::try_from(wanted.process.load(Relaxed)).ok().and_then(Pid::from_raw) {
                let _ = kill_process(process, Signal::HUP);
            }
        }
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
async fn code(address: SocketAddr) -> Option<u16> {
    Some(ask(address).await?.metadata.response_code.into())
}

/// Which zone it serves, if it serves one.
async fn serial(address: SocketAddr) -> Option<u32> {
    ask(address).await?.answers.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(soa.serial),
        _ => None,
    })
}

async fn ask(address: SocketAddr) -> Option<Message> {
    let question = b"\x07\x07\0\0\0\x01\0\0\0\0\0\0\x04test\0\0\x06\0\x01";
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.ok()?;
    socket.send_to(question, address).await.ok()?;
    let mut answer = [0; 512];
    let (read, _) = timeout(ANSWER, socket.recv_from(&mut answer)).await.ok()?.ok()?;
    Message::from_vec(&answer[..read]).ok()
}
