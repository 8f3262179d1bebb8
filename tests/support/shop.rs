//! What the tests of the whole thread share: policies that are built from source, origins that can be killed, and
//! clients that never pause.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "for tests, each of which uses some of it"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const POLICY: &str = r#"//! Sends everything to the shop, and says in each answer who decided.
wit_bindgen::generate!({ path: "wit" });
use exports::wayside::policy::routing::{Decision, Guest};
use wayside::policy::{edit, plan};
struct Policy;
impl Guest for Policy {
    fn init(_: String) -> Result<(), String> {
        Ok(())
    }
    fn decide() -> Result<Decision, String> {
        plan::reason("the shop, says NAME");
        edit::set_response_header("x-policy", "NAME");
        Ok(Decision::Forward("shop".into()))
    }
}
export!(Policy);
"#;

/// Builds a policy as its user would, once for each name; answers bear the name as `x-policy`.
pub fn policies<const N: usize>(names: [&str; N]) -> [Vec<u8>; N] {
    built(names.map(|name| POLICY.replace("NAME", name)))
}

/// Builds a policy as its user would, once for each source.
pub fn built<const N: usize>(sources: [String; N]) -> [Vec<u8>; N] {
    let folder = tempfile::tempdir().unwrap();
    let wayside = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_wayside")).args(arguments).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    wayside(&["policy", "new", "shop"]);
    sources.map(|source| {
        std::fs::write(folder.path().join("shop/src/lib.rs"), source).unwrap();
        wayside(&["policy", "build", "shop", "--out", "shop.wasm"]);
        std::fs::read(folder.path().join("shop.wasm")).unwrap()
    })
}

/// Puts a file where the gateway watches, as it should be done: written aside, then renamed.
pub fn drop_in(file: &Path, bytes: &[u8]) {
    let aside = file.with_file_name(".part");
    std::fs::write(&aside, bytes).unwrap();
    std::fs::rename(aside, file).unwrap();
}

/// A server that says who it is, on connections that are kept. `/health` is answered 200, or 503 where it is sick.
pub struct Origin {
    pub address: SocketAddr,
    /// Requests that it was sent, health checks aside.
    served: Arc<AtomicU64>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    gone: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Origin {
    pub fn start(name: &'static str) -> Self {
        Self::listen(TcpListener::bind("127.0.0.1:0").unwrap(), name, true)
    }

    /// Takes the place of one that was killed, and is sick.
    pub fn sick(address: SocketAddr) -> Self {
        Self::listen(TcpListener::bind(address).unwrap(), "sick", false)
    }

    fn listen(listener: TcpListener, name: &'static str, well: bool) -> Self {
        let address = listener.local_addr().unwrap();
        let (served, gone) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let open = Arc::new(Mutex::new(Vec::new()));
        let (count, kept, ended) = (Arc::clone(&served), Arc::clone(&open), Arc::clone(&gone));
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Relaxed) {
                    return;
                }
                let stream = stream.unwrap();
                let _ = stream.set_nodelay(true);
                kept.lock().unwrap().push(stream.try_clone().unwrap());
                let count = Arc::clone(&count);
                std::thread::spawn(move || serve(stream, name, well, &count));
            }
        });
        Origin { address, served, open, gone, accepting: Some(accepting) }
    }

    pub fn served(&self) -> u64 {
        self.served.load(Relaxed)
    }

    /// As when its process is killed: nobody listens, and every connection breaks.
    pub fn kill(&mut self) {
        self.gone.store(true, Relaxed);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        self.accepting.take().unwrap().join().unwrap();
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

fn serve(stream: TcpStream, name: &str, well: bool, count: &AtomicU64) {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while matches!(stream.read_line(&mut line), Ok(read) if read > 0) {
        let check = line.starts_with("GET /health ");
        let mut body = Vec::new();
        line.clear();
        while matches!(stream.read_line(&mut line), Ok(read) if read > 2) {
            if let Some(length) = line.strip_prefix("content-length: ") {
                body.resize(length.trim().parse().unwrap(), 0);
            }
            line.clear();
        }
        line.clear();
        if stream.read_exact(&mut body).is_err() {
            return;
        }
        if !check {
            count.fetch_add(1, Relaxed);
        }
        let status = if check && !well { "503 Service Unavailable" } else { "200 OK" };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{name}", name.len());
        if stream.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// Clients that send one request after the other without a pause, each on a connection that it keeps.
pub struct Load {
    sent: Arc<AtomicU64>,
    /// How long each request took, µs.
    took: Arc<Mutex<Vec<u128>>>,
    failures: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Asks for the shop: every answer must be good.
    pub fn start(address: &str, clients: usize) -> Self {
        Self::asking(address, clients, "GET /shop HTTP/1.1\r\nhost: a\r\n\r\n", Duration::ZERO, is_ok)
    }

    /// The same with a method that changes something, and with a body.
    pub fn putting(address: &str, clients: usize) -> Self {
        let asked = "PUT /shop HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\norder";
        Self::asking(address, clients, asked, Duration::ZERO, is_ok)
    }

    /// Sends this; each client once in `pace`, or when it can.
    pub fn asking(address: &str, clients: usize, asked: &str, pace: Duration, good: fn(&str) -> bool) -> Self {
        let took = Arc::new(Mutex::new(Vec::new()));
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let failures = Arc::new(Mutex::new(Vec::new()));
        let client = |_| {
            let (address, sent, stop) = (address.to_owned(), Arc::clone(&sent), Arc::clone(&stop));
            let (failures, took, asked) = (Arc::clone(&failures), Arc::clone(&took), asked.to_owned());
            std::thread::spawn(move || {
                let mut connection = connect(&address);
                let mut due = Instant::now();
                while !stop.load(Relaxed) {
                    due += pace;
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    let began = Instant::now();
                    let answer = request(&mut connection, &asked);
                    took.lock().unwrap().push(began.elapsed().as_micros());
                    sent.fetch_add(1, Relaxed);
                    if !answer.as_ref().is_ok_and(|answer| good(answer)) {
                        failures.lock().unwrap().push(format!("{answer:?}"));
                        connection = connect(&address);
                    } else if answer.is_ok_and(|answer| answer.contains("\r\nconnection: close\r\n")) {
                        // After so many requests, the gateway wants another connection.
                        connection = connect(&address);
                    }
                }
            })
        };
        Load { clients: (0..clients).map(client).collect(), sent, took, failures, stop }
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Median and 99th percentile of how long requests have taken since the last look, µs.
    pub fn latency(&self) -> (u128, u128) {
        let mut took = std::mem::take(&mut *self.took.lock().unwrap());
        took.sort_unstable();
        (took[took.len() / 2], took[took.len() * 99 / 100])
    }

    /// Waits until so many more requests were answered.
    pub fn more(&self, requests: u64) {
        let goal = self.sent() + requests;
        super::program::until("the load goes on", || self.sent() >= goal);
    }

    /// Ends it. Gives how many requests were sent; none of them may have failed.
    pub fn end(mut self) -> u64 {
        self.stop.store(true, Relaxed);
        for client in self.clients.drain(..) {
            client.join().unwrap();
        }
        let failures = self.failures.lock().unwrap();
        assert!(
            failures.is_empty(),
            "{} of {} failed: {:?}",
            failures.len(),
            self.sent(),
            &failures[..failures.len().min(5)]
        );
        self.sent()
    }
}

fn is_ok(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200")
}

fn connect(address: &str) -> BufReader<TcpStream> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.set_nodelay(true).unwrap();
    BufReader::new(stream)
}

/// One request on a kept connection: the whole answer.
fn request(connection: &mut BufReader<TcpStream>, asked: &str) -> std::io::Result<String> {
    connection.get_mut().write_all(asked.as_bytes())?;
    let (mut answer, mut length) = (String::new(), 0);
    loop {
        let before = answer.len();
        if connection.read_line(&mut answer)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        match answer[before..].trim() {
            "" => break,
            line => {
                if let Some(value) = line.strip_prefix("content-length: ") {
                    length = value.parse().unwrap();
                }
            }
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body)?;
    answer.push_str(&String::from_utf8_lossy(&body));
    Ok(answer)
}
