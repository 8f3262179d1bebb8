//! `jwt` with keys by URL: of a real server over TLS, and of one that fails, says something else, and changes its mind.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use super::jwt::{claims, ed25519, p256, rsa, token};
use crate::support::certificates::Authority;
use crate::support::gateway::Gateway;
use crate::support::heard::{Heard, response};
use crate::support::program::{Program, echo, get_as, until};
use crate::support::servers::Process;
use serde_json::Value;
use std::fs::File;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

fn gateway(keys: &str) -> Gateway {
    Gateway::with().endpoint(echo()).table(&format!("[[middleware]]\nname = \"who\"\njwt = {{ {keys} }}\n"))
}

fn status(gateway: &Program, token: &str) -> u16 {
    let answer = get_as(&gateway.address, "a", "/", &[("authorization", &format!("Bearer {token}"))]);
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

fn seen(gateway: &Program) -> Value {
    serde_json::from_str::<Value>(&gateway.ask("/middleware")).unwrap()["middleware"][0]["keys"].clone()
}

#[test]
fn keys_of_each_kind_come_over_tls_from_whom_the_authority_knows() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let set = [rsa(folder, "one"), ed25519(folder, "two"), p256(folder, "three")].join(",");
    std::fs::write(folder.join("keys.json"), format!("{{\"keys\":[{set}]}}")).unwrap();
    let authority = Authority::new();
    authority.issue(&["127.0.0.1"], folder, "server");
    let mut server = Command::new("openssl");
    server.current_dir(folder).args(["s_server", "-accept", "127.0.0.1:0", "-WWW"]);
    server.args(["-cert", "server.pem", "-key", "server.key"]);
    let log = folder.join("server.log");
    let server = Process::start(&mut server, &log);
    let port = || {
        std::fs::read_to_string(&log).unwrap().lines().find_map(|line| Some(line.strip_prefix("ACCEPT ")?.to_owned()))
    };
    until("it listens", || port().is_some());
    let keys = format!("jwks_url = \"https://{}/keys.json\", ca = \"ca.pem\"", port().unwrap());
    // Ready only with its keys.
    let trusting = gateway(&keys).file("ca.pem", authority.pem()).start();
    for (key, algorithm) in [("one", "RS256"), ("two", "EdDSA"), ("three", "ES256")] {
        assert_eq!(status(&trusting, &token(folder, key, algorithm, &claims("ada", &[]))), 200, "{algorithm}");
    }
    assert_eq!((&seen(&trusting)["keys"], &seen(&trusting)["problem"]), (&3.into(), &Value::Null));
    let wary = gateway(&keys).file("ca.pem", Authority::new().pem()).start();
    assert_eq!(status(&wary, &token(folder, "one", "RS256", &claims("ada", &[]))), 503);
    let problem = seen(&wary)["problem"].as_str().unwrap().to_owned();
    assert!(problem.contains("certificate"), "{problem}");
    // Its issuer is gone; what was fetched a day ago still opens, and only for those who ask the same.
    drop(server);
    let kept: Vec<_> =
        std::fs::read_dir(trusting.folder().join(".wayside")).unwrap().map(|file| file.unwrap().path()).collect();
    let kept = kept.iter().find(|file| file.file_name().unwrap().to_str().unwrap().starts_with("jwks-")).unwrap();
    let day = Duration::from_secs(86_400);
    File::options().write(true).open(kept).unwrap().set_modified(SystemTime::now() - day).unwrap();
    let again = trusting.restart();
    for (key, algorithm) in [("one", "RS256"), ("two", "EdDSA"), ("three", "ES256")] {
        assert_eq!(status(&again, &token(folder, key, algorithm, &claims("ada", &[]))), 200, "{algorithm}");
    }
    let seen = seen(&again);
    assert!(seen["keys"] == 3 && seen["age_ms"].as_u64() >= Some(86_400_000) && seen["problem"].is_string(), "{seen}");
    assert!(again.metric("wayside_jwks_age_seconds{middleware=\"who\"}") >= Some(86_400.0));
    assert_eq!(again.metric("wayside_jwks_failing{middleware=\"who\"}"), Some(1.0));
    assert!(again.lines_so_far("beginning with the keys that were known last") == 1);
    // Broken on disk, they are as good as none.
    std::fs::write(again.folder().join(".wayside").join(kept.file_name().unwrap()), "{").unwrap();
    let again = again.restart();
    assert_eq!(status(&again, &token(folder, "one", "RS256", &claims("ada", &[]))), 503);
}

#[test]
fn while_fetching_fails_the_last_good_keys_stay_and_a_new_key_is_looked_for_soon() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let said = Arc::new(Mutex::new(response(500, "", "oops")));
    let saying = Arc::clone(&said);
    let server = Heard::answering(move |_| Some(saying.lock().unwrap().clone()));
    let say = |text: String| *said.lock().unwrap() = text;
    let set = |keys: &str| response(200, "content-type: application/json\r\n", &format!("{{\"keys\":[{keys}]}}"));
    let (old, new) = (ed25519(folder, "old"), ed25519(folder, "new"));
    let (ada, eve) =
        (token(folder, "old", "EdDSA", &claims("ada", &[])), token(folder, "new", "EdDSA", &claims("eve", &[])));
    let url = format!("jwks_url = \"http://{}/keys\"", server.address);
    let gateway = gateway(&url).start();
    // Nobody can tell yet; who shows nothing is told so all the same.
    assert_eq!(status(&gateway, &ada), 503);
    assert!(get_as(&gateway.address, "a", "/", &[]).starts_with("HTTP/1.1 401"));
    assert_eq!((&seen(&gateway)["keys"], &seen(&gateway)["problem"]), (&0.into(), &"answered 500".into()));
    assert_eq!(gateway.metric("wayside_jwks_failing{middleware=\"who\"}"), Some(1.0));
    say(set(&old));
    until("the key opens", || status(&gateway, &ada) == 200);
    assert_eq!(gateway.metric("wayside_jwks_failing{middleware=\"who\"}"), Some(0.0));
    // Made-up keys make nobody ask more often, and nothing of what comes is worse than what is known.
    for (said, problem) in [
        ("<html>".to_owned(), "no JSON Web Key Set"),
        (set(""), "no key that can check"),
        (response(302, "location: /other\r\n", ""), "answered 302"),
        (response(200, "", &"x".repeat(2 << 20)), "larger than"),
    ] {
        let before = server.requests().len();
        say(if said.starts_with("HTTP") { said } else { response(200, "", &said) });
        until(problem, || {
            assert_eq!((status(&gateway, &eve), status(&gateway, &ada)), (401, 200));
            seen(&gateway)["problem"].as_str().is_some_and(|seen| seen.contains(problem))
        });
        assert!(server.requests().len() - before <= 20, "{}", server.requests().len() - before);
    }
    say(set(&new));
    until("the new key opens", || status(&gateway, &eve) == 200);
    assert_eq!(status(&gateway, &ada), 401);
    // A reload fetches nothing anew, and another URL does.
    let asked = server.requests().len();
    let (file, digest) = (gateway.folder().join("wayside.toml"), gateway.ask("/snapshot"));
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}\n# the same\n")).unwrap();
    until("it is read again", || gateway.ask("/snapshot") != digest);
    // Beside what the unknown key of a moment ago may cost.
    assert!(status(&gateway, &eve) == 200 && server.requests().len() <= asked + 1);
    std::fs::write(&file, text.replace("/keys\"", "/others\"")).unwrap();
    until("the other URL is asked", || server.requests().iter().any(|(head, _)| head.starts_with("get /others ")));
    until("its keys open", || status(&gateway, &eve) == 200);
}
