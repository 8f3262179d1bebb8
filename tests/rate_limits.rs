//! Declared rate limits, with the real program: what clients are told, by HTTP and by gRPC, and what a reload keeps.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::gateway::Gateway;
use crate::support::program::{Program, echo, get, until};
use serde_json::Value;
use std::collections::BTreeMap;
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// By the header; three at once, and the next one in an hour.
const KEYED: &str = "[[rate_limits]]\nname = \"keys\"\nkey = \"header:x-api-key\"\nrate = \"1/h\"\nburst = 3\n";

/// The status of an answer, its headers and its body.
fn parts(answer: &str) -> (u16, BTreeMap<String, String>, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    (status, lines.filter_map(header).collect(), body.to_owned())
}

fn ask(gateway: &Program, key: &str) -> (u16, BTreeMap<String, String>, String) {
    parts(&gateway.get("/x?y", &[("x-api-key", key)]))
}

#[test]
fn a_burst_comes_through_and_what_follows_is_told_when_to_come_again() {
    let gateway = Gateway::with().endpoint(echo()).telemetry("access_log = \"json\"").table(KEYED).start();
    let passed: Vec<_> = (0..3).map(|_| ask(&gateway, "a")).collect();
    assert!(passed.iter().all(|(status, ..)| *status == 200), "{passed:?}");
    // In seconds: an hour for each that was taken, rounded up, less the moment since the first.
    let told =
        |number: usize| passed[number].1["ratelimit"].rsplit_once("t=").map(|(told, t)| (told, t.parse::<u32>()));
    assert_eq!(told(0), Some(("\"keys\";r=2;", Ok(3600))));
    assert!(matches!(told(1), Some(("\"keys\";r=1;", Ok(7100..=7200)))));
    assert!(matches!(told(2), Some(("\"keys\";r=0;", Ok(3500..=3600)))));
    assert!(!passed[0].1.contains_key("ratelimit-policy") && !passed[0].1.contains_key("retry-after"));

    let (status, headers, body) = ask(&gateway, "a");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["error"]["code"]), (429, &"rate_limited".into()));
    let retry_after: u32 = headers["retry-after"].parse().unwrap();
    assert!((3500..=3600).contains(&retry_after), "{retry_after}");
    assert_eq!(headers["ratelimit-policy"], "\"keys\";q=1;w=3600");
    assert_eq!(headers["ratelimit"], format!("\"keys\";r=0;t={retry_after}"));
    assert_eq!(headers["content-type"], "application/json");
    // Another key, and a client without one, have buckets of their own; the admin has none.
    assert_eq!(ask(&gateway, "b").0, 200);
    assert!(gateway.get("/x", &[]).starts_with("HTTP/1.1 200"));
    (0..9).for_each(|_| assert!(gateway.ask("/healthz").contains("alive")));
    assert_eq!(gateway.metric("wayside_rate_limited_total{limit=\"keys\"}"), Some(1.0));
    let (lines, _) = gateway.stop();
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let refused: Vec<&Value> = lines.iter().filter(|line| !line["rate_limit"].is_null()).collect();
    assert!(matches!(refused.as_slice(), [line] if line["rate_limit"] == "keys" && line["error"] == "rate_limited"
        && line["status"] == 429 && line["attempts"] == 0));
}

#[test]
fn nobody_is_asked_where_a_refused_request_goes_and_the_gateways_own_answers_say_what_is_left() {
    let limit = "[[rate_limits]]\nmatch = { path_prefix = \"/none\" }\nkey = \"none\"\nrate = \"1/d\"\nburst = 2\n";
    let gateway = Gateway::with().endpoint(echo()).table(limit).route("match = { path_prefix = \"/some\" }").start();
    let answers: Vec<_> = (0..3).map(|_| parts(&gateway.get("/none/at/all", &[]))).collect();
    assert_eq!(answers.iter().map(|(status, ..)| *status).collect::<Vec<_>>(), [404, 404, 429]);
    assert!(answers[0].1["ratelimit"].starts_with("\"/none/*\";r=1;t="), "{answers:?}");
    let (status, headers, _) = parts(&gateway.get("/some", &[]));
    assert!(status == 200 && !headers.contains_key("ratelimit"), "{headers:?}");
    // What is about the gateway itself is no request of a service.
    let limit = "[[rate_limits]]\nkey = \"none\"\nrate = \"1/d\"\nburst = 1\nheaders = false\n";
    let gateway = Gateway::with().endpoint(echo()).table(limit).start();
    let options = || {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(&gateway.address).unwrap();
        stream.write_all(b"OPTIONS * HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        parts(&answer).0
    };
    assert_eq!([options(), options()], [204, 204]);
    let answers = [(); 2].map(|()| parts(&gateway.get("/", &[])));
    assert_eq!(answers.each_ref().map(|(status, ..)| *status), [200, 429]);
    assert!(answers.iter().all(|(_, headers, _)| headers.keys().all(|name| !name.starts_with("ratelimit"))));
    assert!(answers[1].1.contains_key("retry-after"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_of_grpc_is_told_that_a_resource_is_exhausted() {
    let (_reporter, health) = tonic_health::server::health_reporter();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    tokio::spawn(tonic::transport::Server::builder().add_service(health).serve_with_incoming(incoming));
    let limit = "[[rate_limits]]\nname = \"calls\"\nrate = \"1/h\"\nburst = 2\n";
    let gateway = Gateway::with().endpoint(address).service("protocol = \"h2\"").table(limit).start();
    let channel = Channel::from_shared(format!("http://{}", gateway.address)).unwrap().connect().await.unwrap();
    let mut client = HealthClient::new(channel);
    for _ in 0..2 {
        let answer = client.check(HealthCheckRequest::default()).await.unwrap();
        assert!(answer.metadata().contains_key("ratelimit"));
    }
    let refused = client.check(HealthCheckRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().starts_with("Too many requests"), "{refused:?}");
    let retry_after = refused.metadata().get("retry-after").unwrap().to_str().unwrap().parse::<u32>().unwrap();
    assert!((3500..=3600).contains(&retry_after), "{retry_after}");
}

#[test]
fn a_reload_keeps_what_was_counted_and_a_new_rate_holds_at_once() {
    let gateway = Gateway::with().endpoint(echo()).table(KEYED).start();
    let file = gateway.folder().join("wayside.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let digest = || serde_json::from_str::<Value>(&gateway.ask("/snapshot")).unwrap()["digest"].clone();
    let reload = |burst: &str| {
        let before = digest();
        std::fs::write(&file, text.replace("burst = 3", burst)).unwrap();
        until("it is read again", || digest() != before);
    };
    let granted = || (0..9).filter(|_| get(&gateway.address, "/", &[("x-api-key", "a")]).contains(" 200 ")).count();
    assert_eq!(granted(), 3);
    reload("burst = 3 # the same");
    assert_eq!(granted(), 0);
    reload("burst = 5");
    assert_eq!(granted(), 2);
    reload("burst = 3");
    assert_eq!(granted(), 0);
    assert_eq!(gateway.metric("wayside_rate_limited_total{limit=\"keys\"}"), Some(6.0 + 9.0 + 7.0 + 9.0));
}

#[test]
fn a_limit_that_cannot_be_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("wayside.toml");
    for (limit, problem) in [
        ("rate = \"1/s\"\nstore = \"shared\"", "rate_limits, number 1: `store`: there is no `[stores.shared]`"),
        ("rate = \"fast\"", "line 3: `rate`: `fast` is no rate; write it like \"100/s\""),
    ] {
        std::fs::write(&file, format!("[gateway]\n[[rate_limits]]\n{limit}\n")).unwrap();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_wayside"));
        let checked = command.args(["check", "--config"]).arg(&file).output().unwrap();
        let told = String::from_utf8(checked.stderr).unwrap();
        assert!(told.contains(problem), "{told}");
    }
}
