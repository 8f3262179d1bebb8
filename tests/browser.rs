//! A real browser behind the gateway: WebSocket over HTTP/1.1 and as a stream of HTTP/2, and server-sent events that
//! come one by one.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::certificates::Authority;
use crate::support::gateway::Gateway;
use crate::support::raw::next_head;
use crate::support::servers;
use crate::support::servers::Process;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha1::{Digest, Sha1};
use std::io::{BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tungstenite::WebSocket;
use tungstenite::protocol::Role;

/// How long a browser may take for anything.
const WAIT: Duration = Duration::from_secs(60);

/// Each event is asked for only when the one before was seen, so a gateway that collects them would hang here.
const PAGE: &str = r"<!doctype html><title>a test</title><script>
const say = what => fetch('/said?' + encodeURIComponent(what));
const socket = new WebSocket(location.origin.replace('http', 'ws') + '/echo');
const words = ['one', 'two', 'x'.repeat(70000)];
socket.onopen = () => socket.send(words[0]);
socket.onmessage = event => {
  const right = event.data === words.shift();
  if (!right) say('websocket-wrong');
  if (words.length) socket.send(words[0]); else socket.close(1000);
};
socket.onclose = event => say('websocket-closed-' + event.code);
const events = new EventSource('/events');
events.onmessage = event => { say('event-' + event.data); if (event.data === '3') events.close(); };
</script>";

/// What the page said: the test's, and the events' that wait for it.
struct Said {
    test: Sender<String>,
    events: Sender<String>,
    heard: Mutex<Receiver<String>>,
}

fn serve(stream: TcpStream, said: &Said) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let head = next_head(&mut stream)?;
        let path = head.split(' ').nth(1)?.to_owned();
        let mut answer = |kind: &str, body: &str| {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.get_mut().write_all(format!("{head}{body}").as_bytes()).ok()
        };
        match path.split_once('?').unwrap_or((&path, "")) {
            ("/", _) => answer("text/html", PAGE)?,
            ("/said", what) => {
                if what.starts_with("event-") {
                    said.events.send(what.to_owned()).ok()?;
                }
                said.test.send(what.to_owned()).ok()?;
                answer("text/plain", "")?;
            }
            ("/echo", _) => return echo(stream, &head),
            ("/events", _) => {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
                stream.get_mut().write_all(head.as_bytes()).ok()?;
                for number in 1..=3 {
                    let event = format!("data: {number}\n\n");
                    stream.get_mut().write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).ok()?;
                    let heard = said.heard.lock().unwrap().recv_timeout(WAIT).ok()?;
                    assert_eq!(heard, format!("event-{number}"));
                }
                stream.get_mut().write_all(b"0\r\n\r\n").ok()?;
            }
            _ => stream.get_mut().write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").ok()?,
        }
    }
}

/// RFC 6455 §4.2.2, and then whatever comes goes back.
fn echo(mut stream: BufReader<TcpStream>, head: &str) -> Option<()> {
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: "))?;
    let digest = Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
    let accept = BASE64_STANDARD.encode(digest);
    let switch = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {accept}\r\n\r\n"
    );
    stream.get_mut().write_all(switch.as_bytes()).ok()?;
    let mut socket = WebSocket::from_raw_socket(stream.into_inner(), Role::Server, None);
    loop {
        let message = socket.read().ok()?;
        if message.is_text() {
            socket.send(message).ok()?;
        }
    }
}

#[test]
fn a_browser_speaks_websocket_and_sees_events_as_they_come() {
    for (tls, protocol) in [(false, "1.1"), (true, "2")] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = listener.local_addr().unwrap();
        let ((test, told), (events, heard)) = (channel(), channel());
        let said = Arc::new(Said { test, events, heard: Mutex::new(heard) });
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let said = Arc::clone(&said);
                std::thread::spawn(move || serve(stream.unwrap(), &said));
            }
        });
        let gateway = Gateway::with().endpoint(origin).telemetry("access_log = \"json\"");
        Authority::new().issue(&["localhost"], gateway.folder(), "a");
        let gateway = if tls { gateway.tls(&["a"], "").start() } else { gateway.start() };
        let profile = tempfile::tempdir().unwrap();
        let scheme = if tls { "https" } else { "http" };
        let mut browser = Command::new(servers::program("chromium"));
        browser
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--no-proxy-server", "--ignore-certificate-errors", "--remote-debugging-port=0"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("{scheme}://{}/", gateway.address));
        let log = gateway.folder().join("browser.log");
        let browser = Process::start(&mut browser, &log);
        let mut all: Vec<String> = Vec::new();
        for _ in 0..4 {
            let said = told.recv_timeout(WAIT);
            all.push(
                said.unwrap_or_else(|_| format!("{all:?}: {}", std::fs::read_to_string(&log).unwrap_or_default())),
            );
        }
        drop(browser);
        all.sort();
        assert_eq!(all, ["event-1", "event-2", "event-3", "websocket-closed-1000"]);
        let (lines, _) = gateway.stop();
        let tunnel = lines.iter().find(|line| line.contains("\"path\":\"/echo\"")).expect("a line of the tunnel");
        assert!(tunnel.contains(&format!("\"protocol\":\"{protocol}\"")), "{tunnel}");
    }
}

/// Asks six times who answers, leaves for another page of the site, and tells what it saw there too. A script must not see the
/// cookie.
const WHO: &str = r"<!doctype html><title>who</title><script>
const who = async () => (await fetch('/who')).text();
const tell = what => fetch('/said?' + encodeURIComponent(what));
(async () => {
  const names = [];
  for (let n = 0; n < 6; n++) names.push(await who());
  const seen = (sessionStorage.seen || '') + names.join('') + '[' + document.cookie + ']';
  if (location.pathname === '/') { sessionStorage.seen = seen; location.href = '/again'; }
  else tell(seen);
})();
</script>";

/// An endpoint that tells its name.
fn serve_named(stream: TcpStream, name: &str, said: &Sender<String>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let head = next_head(&mut stream)?;
        let path = head.split(' ').nth(1)?.to_owned();
        let (kind, body) = match path.split_once('?').unwrap_or((&path, "")) {
            ("/" | "/again", _) => ("text/html", WHO),
            ("/said", what) => {
                said.send(what.to_owned()).ok()?;
                ("text/plain", "")
            }
            _ => ("text/plain", name),
        };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.get_mut().write_all(format!("{head}{body}").as_bytes()).ok()?;
    }
}

#[test]
fn a_browser_comes_back_to_its_endpoint_and_no_script_sees_why() {
    let (test, told) = channel();
    let start = |name: &'static str| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, test) = (listener.local_addr().unwrap(), test.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let test = test.clone();
                std::thread::spawn(move || serve_named(stream.unwrap(), name, &test));
            }
        });
        address
    };
    let sticky = "sticky = { cookie = \"__Host-at\", key_file = \"keys\", ttl = \"1h\" }";
    let gateway = Gateway::with().endpoints(["a", "b", "c"].map(start)).service(sticky);
    let gateway = gateway.file("keys", "00112233445566778899aabbccddeeff");
    Authority::new().issue(&["localhost"], gateway.folder(), "a");
    let gateway = gateway.tls(&["a"], "").telemetry("access_log = \"json\"").start();
    let profile = tempfile::tempdir().unwrap();
    let mut browser = Command::new(servers::program("chromium"));
    browser
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--no-proxy-server", "--ignore-certificate-errors", "--remote-debugging-port=0"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("https://{}/", gateway.address));
    let log = gateway.folder().join("browser.log");
    let browser = Process::start(&mut browser, &log);
    let said = told.recv_timeout(WAIT);
    let said = said.unwrap_or_else(|_| std::fs::read_to_string(&log).unwrap_or_default());
    drop(browser);
    let one = ["a", "b", "c"].map(|name| format!("{0}%5B%5D{0}%5B%5D", name.repeat(6)));
    assert!(one.contains(&said), "{said}");
    let (lines, _) = gateway.stop();
    let hits = lines.iter().filter(|line| line.contains("\"affinity\":\"hit\"")).count();
    assert!(hits >= 13, "{lines:?}");
}
