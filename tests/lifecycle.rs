//! From the first moment of the process to its last: what answers when, what signals do, and what the admin endures.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::program::{Launched, Program, echo, get, launch, until};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// A registry that takes connections and never answers.
fn silent() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// A free port that nobody listens on, for what must be known before it is taken.
fn port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A gateway that waits for a registry which never answers.
fn starting(registry: &TcpListener) -> (Launched, SocketAddr, SocketAddr) {
    let (listen, admin) = (port(), port());
    let config = format!(
        "[gateway]\nworkers = 2\nlisten = [\"{listen}\"]\nadmin = \"{admin}\"\n\
         [sources.prod]\nkind = \"consul\"\naddress = \"http://{}\"\n[services.shop]\nsource = \"prod\"\n",
        registry.local_addr().unwrap()
    );
    let launched = launch(tempfile::tempdir().unwrap(), &config, &[]);
    until("the admin is up", || TcpStream::connect(admin).is_ok());
    (launched, listen, admin)
}

#[test]
fn while_it_starts_the_admin_says_so_and_no_port_listens() {
    let registry = silent();
    let (launched, listen, admin) = starting(&registry);
    let admin = admin.to_string();
    assert!(get(&admin, "/healthz", &[]).starts_with("HTTP/1.1 200"));
    let ready = get(&admin, "/readyz", &[]);
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("\"starting\""), "{ready}");
    assert!(TcpStream::connect(listen).is_err());
    let gateway = launched.ready();
    assert!(get(&admin, "/readyz", &[]).starts_with("HTTP/1.1 200"));
    assert!(gateway.get("/", &[]).starts_with("HTTP/1.1 404"));
    gateway.stop();
}

#[test]
fn a_signal_ends_it_while_it_starts() {
    for name in ["TERM", "INT"] {
        let registry = silent();
        let (mut launched, ..) = starting(&registry);
        launched.signal(name);
        assert!(launched.ended(), "SIG{name}");
    }
}

#[test]
fn user_signals_neither_kill_nor_stop_it() {
    let registry = silent();
    let (launched, ..) = starting(&registry);
    for name in ["USR1", "USR2", "HUP"] {
        launched.signal(name);
    }
    let gateway = launched.ready();
    for name in ["USR1", "USR2"] {
        gateway.signal(name);
        assert!(gateway.get("/", &[]).starts_with("HTTP/1.1 404"), "SIG{name}");
    }
    gateway.stop();
}

#[test]
fn a_second_gateway_on_the_port_fails() {
    let gateway = Program::before(echo(), "", "");
    let config = format!("[gateway]\nlisten = [\"{}\"]\nadmin = \"127.0.0.1:0\"\n", gateway.address);
    let second = launch(tempfile::tempdir().unwrap(), &config, &[]).failed();
    assert!(second.iter().any(|line| line.contains("gateway.listen: cannot listen on")), "{second:?}");
    gateway.stop();
}

#[test]
fn while_it_leaves_it_goes_on_accepting_and_asks_clients_to_go() {
    let gateway = Program::before(echo(), "drain_delay = \"1h\"", "");
    let mut kept = BufReader::new(TcpStream::connect(&gateway.address).unwrap());
    let head = |kept: &mut BufReader<TcpStream>| {
        write!(kept.get_mut(), "GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        let (mut head, mut length) = (String::new(), 0);
        while !head.ends_with("\r\n\r\n") {
            assert!(kept.read_line(&mut head).unwrap() > 0, "{head}");
        }
        for line in head.lines() {
            length = line.strip_prefix("content-length: ").map_or(length, |value| value.parse().unwrap());
        }
        std::io::copy(&mut kept.take(length), &mut std::io::sink()).unwrap();
        head
    };
    assert!(!head(&mut kept).contains("connection: close"));
    gateway.signal("TERM");
    until("it is not ready", || get(&gateway.admin, "/readyz", &[]).starts_with("HTTP/1.1 503"));
    assert!(gateway.ask("/readyz").contains("\"draining\""));
    let last = head(&mut kept);
    assert!(last.starts_with("HTTP/1.1 200") && last.contains("connection: close"), "{last}");
    assert!(gateway.get("/", &[]).starts_with("HTTP/1.1 200"), "a new connection is served");
    // Told again, it does not wait.
    gateway.signal("TERM");
    assert_eq!(gateway.ended(), Some(1));
}

#[test]
fn callers_who_hold_the_admin_hold_neither_traffic_nor_the_admin() {
    let gateway = Program::before(echo(), "", "");
    let half: Vec<TcpStream> = (0..300)
        .map(|_| {
            let mut stream = TcpStream::connect(&gateway.admin).unwrap();
            let _ = stream.write_all(b"GET /services HTTP/1.1\r\nhost: loc");
            stream
        })
        .collect();
    for _ in 0..50 {
        assert!(gateway.get("/", &[]).starts_with("HTTP/1.1 200"));
    }
    // Each is ended after the time for a head, and those that wait get their turn.
    for mut stream in half {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut rest = Vec::new();
        // An end or a reset: it is over.
        let _ = stream.read_to_end(&mut rest);
    }
    assert!(gateway.ask("/healthz").contains("alive"));
    gateway.stop();
}

#[test]
fn the_admin_answers_only_whom_it_should() {
    let gateway = Program::before(echo(), "admin_hosts = [\"gateway.internal\"]", "");
    let ask = |request: &str| {
        let mut stream = TcpStream::connect(&gateway.admin).unwrap();
        write!(stream, "{request}\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    for (request, status) in [
        ("GET /services HTTP/1.1\r\nhost: 127.0.0.1", 200),
        ("GET /services HTTP/1.1\r\nhost: gateway.internal:9901", 200),
        ("GET /services HTTP/1.1\r\nhost: rebound.example", 421),
        ("GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\norigin: http://evil.example", 403),
        ("GET /healthz HTTP/1.1\r\nhost: probe.example", 200),
        ("POST /services HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0", 405),
        ("GET /nowhere HTTP/1.1\r\nhost: localhost", 404),
    ] {
        let answer = ask(request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        assert!(status == 200 || answer.contains("{\"error\":{\"code\":"), "{answer}");
    }
    gateway.stop();
}

#[test]
fn as_many_files_are_open_as_the_system_gives() {
    let gateway = Program::before(echo(), "", "");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", gateway.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[3], words[4], "{line}");
    gateway.stop();
}
