//! Clients come back to the endpoint that has answered them: by a signed cookie, and by a sealed session.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::gateway::Gateway;
use crate::support::origin::{Client, Protocol, empty, whole};
use crate::support::program::{Program, until};
use crate::support::raw::{Raw, next_head};
use serde_json::Value;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

const OLD: &str = "00112233445566778899aabbccddeeff";
const NEW: &str = "ffeeddccbbaa99887766554433221100";
const COOKIE: &str = "sticky = { cookie = \"at\", key_file = \"keys\", secure = false }";
const HEADER: &str = "sticky = { header = \"Mcp-Session-Id\", learn = \"response\", key_file = \"keys\" }";

/// An endpoint that tells its name, what cookie it was sent, and what session. `/begin` begins one, `/go-on` names the one
/// that it was sent.
struct Named {
    address: SocketAddr,
    /// 0: it breaks off instead; 1: it waits until something else is said.
    status: Arc<AtomicU16>,
}

impl Named {
    fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, status) = (listener.local_addr().unwrap(), Arc::new(AtomicU16::new(200)));
        let says = Arc::clone(&status);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let says = Arc::clone(&says);
                std::thread::spawn(move || answer(stream.unwrap(), name, &says));
            }
        });
        Named { address, status }
    }
}

fn answer(stream: TcpStream, name: &str, says: &AtomicU16) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let head = next_head(&mut stream)?;
        while says.load(Relaxed) == 1 {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let status = Some(says.load(Relaxed)).filter(|status| *status > 0)?;
        let line = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("none").to_owned();
        let (cookie, session) = (line("cookie: "), line("mcp-session-id: "));
        let told = match head.split(' ').nth(1)? {
            "/begin" => format!("mcp-session-id: {name}-1\r\n"),
            "/go-on" => format!("mcp-session-id: {session}\r\n"),
            _ => String::new(),
        };
        let body = format!("{name} {session} {cookie}");
        let answer = format!("HTTP/1.1 {status} X\r\n{told}content-length: {}\r\n\r\n{body}", body.len());
        stream.get_mut().write_all(answer.as_bytes()).ok()?;
    }
}

/// What follows this in an answer, up to the end of the line.
fn after<'a>(answer: &'a str, what: &str) -> Option<&'a str> {
    let rest = &answer[answer.find(what)? + what.len()..];
    rest.split("\r\n").next()
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

fn name(answer: &str) -> &str {
    body(answer).split(' ').next().unwrap()
}

/// The pair of the cookie that an answer sets.
fn set(answer: &str) -> Option<&str> {
    after(answer, "set-cookie: ")?.split(';').next()
}

fn services(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(|address| format!("[[services.shop.endpoints]]\naddress = \"{address}\"\n")).collect()
}

fn sticky(gateway: &Program) -> Value {
    let shown: Value = serde_json::from_str(&gateway.ask("/services")).unwrap();
    shown["services"][0]["sticky"].clone()
}

#[test]
fn a_cookie_brings_a_client_back_to_the_same_endpoint() {
    let endpoints = ["a", "b", "c"].map(Named::start);
    let addresses = endpoints.each_ref().map(|endpoint| endpoint.address);
    let start = || {
        let gateway = Gateway::with().endpoints(addresses).file("keys", OLD).service(COOKIE);
        gateway.telemetry("access_log = \"json\"").start()
    };
    let (gateway, other) = (start(), start());
    // New ones are anybody's: the strategy picks.
    let names: Vec<String> = (0..3).map(|_| name(&gateway.get("/", &[])).to_owned()).collect();
    assert!(names.iter().all(|name| names.iter().filter(|other| *other == name).count() == 1), "{names:?}");
    let first = gateway.get("/", &[]);
    let line = after(&first, "set-cookie: ").unwrap();
    assert!(line.ends_with("; HttpOnly; SameSite=Lax; Path=/"), "{line}");
    let (cookie, at) = (set(&first).unwrap(), name(&first));
    for gateway in [&gateway, &other] {
        for _ in 0..5 {
            let again = gateway.get("/", &[("cookie", &format!("a=b; {cookie}"))]);
            assert_eq!((name(&again), set(&again)), (at, None), "{again}");
            // The endpoint sees it, as it sees all other cookies.
            assert!(body(&again).ends_with(cookie), "{again}");
        }
    }
    // Made up, also behind the name of a key that is known, at any place after it.
    let another = |byte: u8| if byte == b'A' { b'B' } else { b'A' };
    let changed = [10, 20].map(|place| {
        let mut changed = cookie.as_bytes().to_vec();
        changed["at=".len() + place] = another(changed["at=".len() + place]);
        String::from_utf8(changed).unwrap()
    });
    for forged in ["at=AAAAAAAAAAAAAAAAAAAAAAAAAAA", &changed[0], &changed[1]] {
        assert!(set(&gateway.get("/", &[("cookie", forged)])).is_some());
    }
    assert_eq!(sticky(&gateway)["cookie"], "at");
    assert_eq!(sticky(&gateway), sticky(&other));
    let count =
        |standing: &str| gateway.metric(&format!("wayside_affinity_total{{service=\"shop\",standing=\"{standing}\"}}"));
    assert_eq!(["hit", "new", "forged", "gone"].map(count), [Some(5.0), Some(4.0), Some(3.0), None]);
    let (lines, _) = gateway.stop();
    assert_eq!(lines.iter().filter(|line| line.contains("\"affinity\":\"forged\"")).count(), 3);
    assert_eq!(lines.iter().filter(|line| line.contains("\"affinity\":\"hit\"")).count(), 5);
}

#[test]
fn whoever_cannot_answer_is_replaced_and_the_cookie_names_who_did() {
    let endpoints = ["a", "b", "c"].map(Named::start);
    let keys = format!("{COOKIE}\nretry_on = [\"reset\", \"503\"]\nmax_attempts = 3");
    let addresses = endpoints.each_ref().map(|endpoint| endpoint.address);
    let gateway = Gateway::with().endpoints(addresses).file("keys", OLD).service(&keys).start();
    let first = gateway.get("/", &[]);
    let of = |name: &str| endpoints.iter().zip(["a", "b", "c"]).find(|(_, other)| *other == name).unwrap().0;
    let mut back = (set(&first).unwrap().to_owned(), name(&first).to_owned());
    for status in [503, 0] {
        of(&back.1).status.store(status, Relaxed);
        let answer = gateway.get("/", &[("cookie", &back.0)]);
        assert!(answer.starts_with("HTTP/1.1 200") && name(&answer) != back.1, "{answer}");
        of(&back.1).status.store(200, Relaxed);
        back = (set(&answer).unwrap().to_owned(), name(&answer).to_owned());
        let again = gateway.get("/", &[("cookie", &back.0)]);
        assert_eq!((name(&again), set(&again)), (&*back.1, None));
    }
    // A bad answer binds nobody.
    endpoints.iter().for_each(|endpoint| endpoint.status.store(500, Relaxed));
    assert_eq!(set(&gateway.get("/", &[])), None);
    endpoints.iter().for_each(|endpoint| endpoint.status.store(200, Relaxed));
    // With weight 0 it takes nobody new, and keeps whom it has: so it is emptied.
    let weighted = services(&[of(&back.1).address]) + "weight = 0\n";
    let others: Vec<_> = addresses.into_iter().filter(|address| *address != of(&back.1).address).collect();
    let file = gateway.folder().join("services.toml");
    std::fs::write(&file, weighted + &services(&others)).unwrap();
    until("the weight is known", || gateway.ask("/services").contains("\"weight\":0"));
    assert!((0..6).all(|_| name(&gateway.get("/", &[])) != back.1));
    assert_eq!(name(&gateway.get("/", &[("cookie", &back.0)])), back.1);
    // Gone from the list, somebody else takes over.
    std::fs::write(&file, services(&others)).unwrap();
    until("it is gone", || name(&gateway.get("/", &[("cookie", &back.0)])) != back.1);
    let gone = gateway.metric("wayside_affinity_total{service=\"shop\",standing=\"gone\"}");
    assert!(gone >= Some(3.0), "{gone:?}");
}

#[test]
fn keys_are_changed_without_losing_anybody() {
    let endpoints = ["a", "b", "c", "d"].map(Named::start).map(|endpoint| endpoint.address);
    let gateway = Gateway::with().endpoints(endpoints).file("keys", OLD).service(COOKIE).start();
    let first = gateway.get("/", &[]);
    let at = name(&first);
    let old = set(&first).unwrap().to_owned();
    let file = gateway.folder().join("keys");
    let keys = |text: &str, many: usize| {
        std::fs::write(&file, text).unwrap();
        until("the keys are read", || sticky(&gateway)["keys"].as_array().unwrap().len() == many);
    };
    keys(&format!("{OLD}\n{NEW}\n"), 2);
    let still = gateway.get("/", &[("cookie", &old)]);
    assert_eq!((name(&still), set(&still)), (at, None));
    keys(&format!("{NEW}\n{OLD}\n# more of it\n"), 2);
    let mut new = String::new();
    until("the new key signs", || {
        let answer = gateway.get("/", &[("cookie", &old)]);
        assert_eq!(name(&answer), at);
        new = set(&answer).unwrap_or("").to_owned();
        !new.is_empty()
    });
    // What cannot be used changes nothing.
    std::fs::write(&file, "hunter2!").unwrap();
    until("it is refused", || gateway.ask("/snapshot").contains("line 1: is no key in hex or base64"));
    assert!(!gateway.ask("/snapshot").contains("hunter2"));
    assert_eq!(name(&gateway.get("/", &[("cookie", &old)])), at);
    keys(NEW, 1);
    assert_eq!(name(&gateway.get("/", &[("cookie", &new)])), at);
    assert!(set(&gateway.get("/", &[("cookie", &old)])).is_some());
}

#[tokio::test]
async fn a_cookie_is_the_same_over_http_2_and_for_a_service_that_a_policy_chose() {
    let endpoints = ["a", "b", "c"].map(Named::start).map(|endpoint| endpoint.address);
    let canary = include_bytes!("../guest-examples/prebuilt/canary.wasm");
    let gateway = Gateway::with()
        .named("users-v2")
        .endpoints(endpoints)
        .file("keys", OLD)
        .service(COOKIE)
        .policy("canary.wasm", canary)
        .start();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut client = Client::connect(&gateway.address, protocol).await;
        let response = client.send("GET", "/", &[("x-canary", "1")], empty()).await;
        assert_eq!(response.status(), 200);
        let cookie = response.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        let (at, _) = whole(response).await;
        for _ in 0..4 {
            let response = client.send("GET", "/", &[("x-canary", "1"), ("cookie", &cookie)], empty()).await;
            assert!(!response.headers().contains_key("set-cookie"));
            assert_eq!(whole(response).await.0.split(' ').next(), at.split(' ').next());
        }
    }
}

#[test]
fn a_session_leads_to_its_endpoint_from_every_gateway_and_nowhere_else() {
    let endpoints = ["a", "b", "c"].map(Named::start);
    let addresses = endpoints.each_ref().map(|endpoint| endpoint.address);
    let keys = format!("{HEADER}\nretry_on = [\"reset\", \"503\"]\nmax_attempts = 3");
    let start = || Gateway::with().endpoints(addresses).file("keys", OLD).service(&keys).start();
    let (gateway, other) = (start(), start());
    let begun = gateway.get("/begin", &[]);
    let (at, sealed) = (name(&begun).to_owned(), after(&begun, "mcp-session-id: ").unwrap().to_owned());
    assert!(!begun.contains(&format!("{at}-1")), "{begun}");
    let ask = |gateway: &Program, path: &str, session: &str| gateway.get(path, &[("Mcp-Session-Id", session)]);
    for gateway in [&gateway, &other] {
        for _ in 0..4 {
            let answer = ask(gateway, "/go-on", &sealed);
            assert!(body(&answer).starts_with(&format!("{at} {at}-1 ")), "{answer}");
            assert_eq!(after(&answer, "mcp-session-id: "), Some(&*sealed), "its name stays");
        }
    }
    // Neither what nobody has sealed, nor a bit of it, nor two.
    let mut changed = sealed.clone().into_bytes();
    changed[40] ^= 1;
    let changed = String::from_utf8(changed).unwrap();
    let refused = |answer: &str| answer.starts_with("HTTP/1.1 404") && answer.contains("\"code\":\"session\"");
    for wrong in [&format!("{at}-1"), "x", &changed, &sealed[1..], &"A".repeat(5000)] {
        let answer = ask(&gateway, "/", wrong);
        assert!(refused(&answer), "{answer}");
    }
    let both = gateway.get("/", &[("mcp-session-id", &sealed), ("mcp-session-id", &sealed)]);
    assert!(refused(&both), "{both}");
    // Whatever becomes of its endpoint, nobody else is asked.
    let (endpoint, _) = endpoints.iter().zip(["a", "b", "c"]).find(|(_, name)| *name == at).unwrap();
    for (status, told) in [(503, "HTTP/1.1 503"), (0, "HTTP/1.1 502")] {
        endpoint.status.store(status, Relaxed);
        let answer = ask(&gateway, "/", &sealed);
        assert!(answer.starts_with(told) && !answer.contains("set-cookie"), "{answer}");
    }
    endpoint.status.store(200, Relaxed);
    let others: Vec<_> = addresses.into_iter().filter(|address| *address != endpoint.address).collect();
    std::fs::write(gateway.folder().join("services.toml"), services(&others)).unwrap();
    until("it is gone", || refused(&ask(&gateway, "/", &sealed)));
    assert!(gateway.get("/begin", &[]).starts_with("HTTP/1.1 200"));
    assert_eq!(sticky(&gateway)["header"], "mcp-session-id");
    let gone = gateway.metric("wayside_affinity_total{service=\"shop\",standing=\"gone\"}");
    assert!(gone >= Some(1.0), "{gone:?}");
}

#[test]
fn an_endpoint_without_room_loses_a_client_and_no_session() {
    for (sticky, path, header) in [(COOKIE, "/", "cookie"), (HEADER, "/begin", "mcp-session-id")] {
        let endpoints = ["a", "b"].map(Named::start);
        let keys = format!("{sticky}\nlimits = {{ endpoint_requests = 1 }}");
        let addresses = endpoints.each_ref().map(|endpoint| endpoint.address);
        let gateway = Gateway::with().endpoints(addresses).file("keys", OLD).service(&keys).start();
        let first = gateway.get(path, &[]);
        let (at, back) = (name(&first).to_owned(), set(&first).or_else(|| after(&first, "mcp-session-id: ")).unwrap());
        let (endpoint, _) = endpoints.iter().zip(["a", "b"]).find(|(_, name)| *name == at).unwrap();
        endpoint.status.store(1, Relaxed);
        let mut waiting = Raw::connect(&gateway.address);
        waiting.say(&format!("GET / HTTP/1.1\r\nhost: a\r\n{header}: {back}\r\n\r\n"));
        let shown = || serde_json::from_str::<Value>(&gateway.ask("/services")).unwrap();
        until("it has one", || {
            shown()["services"][0]["endpoints"].as_array().unwrap().iter().any(|endpoint| endpoint["in_flight"] == 1)
        });
        let answer = gateway.get("/", &[(header, back)]);
        if header == "cookie" {
            assert!(name(&answer) != at && set(&answer).is_some(), "{answer}");
        } else {
            assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("\"code\":\"overloaded\""), "{answer}");
        }
        endpoint.status.store(200, Relaxed);
        assert!(waiting.head().starts_with("HTTP/1.1 200"));
        until("there is room", || name(&gateway.get("/", &[(header, back)])) == at);
    }
}

#[test]
fn a_session_waits_for_its_endpoint_and_one_that_nobody_has_does_not_wait() {
    let endpoints = ["a", "b"].map(Named::start);
    let queue = "queue = { wait = \"20s\" }";
    let start = |limits: &str| {
        let keys = format!("{HEADER}\nlimits = {{ {limits} = 1 }}\n{queue}");
        let addresses = endpoints.each_ref().map(|endpoint| endpoint.address);
        Gateway::with().endpoints(addresses).file("keys", OLD).service(&keys).telemetry("access_log = \"json\"").start()
    };
    let queued = |gateway: &Program| {
        let shown: Value = serde_json::from_str(&gateway.ask("/services")).unwrap();
        shown["services"][0]["admission"]["queued"].as_u64()
    };
    for limits in ["requests", "endpoint_requests"] {
        let gateway = start(limits);
        let begun = gateway.get("/begin", &[]);
        let (at, sealed) = (name(&begun).to_owned(), after(&begun, "mcp-session-id: ").unwrap().to_owned());
        let (endpoint, _) = endpoints.iter().zip(["a", "b"]).find(|(_, name)| *name == at).unwrap();
        endpoint.status.store(1, Relaxed);
        let mut waiting: Vec<Raw> = Vec::new();
        for queue in [0, 1] {
            let mut client = Raw::connect(&gateway.address);
            client.say(&format!("GET / HTTP/1.1\r\nhost: a\r\nmcp-session-id: {sealed}\r\n\r\n"));
            waiting.push(client);
            until("it is there, or waits", || {
                queued(&gateway) == Some(queue)
                    && gateway.metric("wayside_service_in_flight{service=\"shop\"}") == Some(1.0)
            });
        }
        // Neither waits, nor takes a place.
        for forged in ["x", &sealed[1..]] {
            let answer = gateway.get("/", &[("mcp-session-id", forged)]);
            assert!(
                answer.starts_with("HTTP/1.1 404") && answer.contains("\"code\":\"session\""),
                "{limits}: {answer}"
            );
        }
        assert_eq!(gateway.metric("wayside_queued_total{service=\"shop\"}"), Some(1.0));
        endpoint.status.store(200, Relaxed);
        for mut client in waiting {
            let (head, body) = client.response();
            assert!(head.starts_with("HTTP/1.1 200") && body.starts_with(&format!("{at} ")), "{limits}: {head}{body}");
        }
        assert_eq!(gateway.metric("wayside_affinity_total{service=\"shop\",standing=\"forged\"}"), Some(2.0));
        let (lines, _) = gateway.stop();
        let line = lines.iter().find(|line| line.contains("\"affinity\":\"forged\"")).unwrap();
        assert!(line.contains("\"error\":\"session\""), "{line}");
    }
}
