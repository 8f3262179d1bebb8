//! The `consul` source against a Consul that misbehaves: whatever it answers, no endpoint is lost.

use super::{PATIENCE, SOON, ports};
use crate::support::fake_consul::{Fake, Turn, answer};
use crate::support::watched::{Watched, lookup, source};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// What a good Consul says about so many endpoints.
fn list(endpoints: u16) -> String {
    let entry = |port| json!({"Node": {"Address": "127.0.0.1"}, "Service": {"Port": port}, "Checks": []});
    json!((9001..9001 + endpoints).map(entry).collect::<Vec<_>>()).to_string()
}

fn good(index: u64, endpoints: u16) -> Turn {
    Turn::Good { index: Some(index), body: list(endpoints) }
}

fn table(fake: &Fake, more: &str) -> String {
    let address = fake.address;
    format!(
        "kind = \"consul\"\naddress = \"http://me:hunter2@{address}\"\ntoken = \"s3cret\"\npassing_only = true\n{more}"
    )
}

/// What has to be told.
#[derive(Clone, Copy)]
enum Told {
    /// A problem with this in it.
    Problem(&'static str),
    /// That the answer is held, for a reason with this in it.
    Held(&'static str),
}

#[tokio::test]
async fn whatever_it_answers_no_endpoint_is_lost() {
    use Told::{Held, Problem};
    let bytes = |head, body| Turn::Bytes(answer(head, body));
    let raw = |text: &str| Turn::Bytes(text.as_bytes().to_vec());
    let head = "HTTP/1.1 200 OK\r\nX-Consul-Index: 11\r\n";
    let cases = [
        (
            "no leader",
            bytes("500 Internal Server Error", "No cluster leader"),
            Problem("answered 500: No cluster leader"),
        ),
        ("forbidden", bytes("403 Forbidden", "ACL not found"), Problem("answered 403: ACL not found")),
        ("says the token", bytes("403 Forbidden", "no s3cret here"), Problem("answered 403: no [redacted] here")),
        ("not found", bytes("404 Not Found", ""), Problem("answered 404")),
        ("too many", bytes("429 Too Many Requests", "Your IP is issuing too many"), Problem("answered 429: Your IP")),
        ("no content", raw("HTTP/1.1 204 No Content\r\n\r\n"), Problem("answered 204")),
        ("elsewhere", bytes("301 Moved\r\nLocation: http://127.0.0.1:1/", ""), Problem("answered 301")),
        ("a page", bytes("200 OK", "<html>Welcome</html>"), Problem("the answer is no JSON list")),
        ("an object", bytes("200 OK", "{}"), Problem("the answer is no JSON list")),
        ("null", bytes("200 OK", "null"), Problem("the answer is no JSON list")),
        ("nothing", bytes("200 OK", ""), Problem("the answer is no JSON list")),
        ("only bad entries", bytes("200 OK", "[{}, 7]"), Problem("none of the 2 entries can be used")),
        ("cut", raw(&format!("{head}Content-Length: 999\r\n\r\n[]")), Problem("the exchange failed")),
        (
            "a chunk cut",
            raw(&format!("{head}Transfer-Encoding: chunked\r\n\r\n9\r\n[]")),
            Problem("the exchange failed"),
        ),
        ("hung up", raw(""), Problem("the exchange failed")),
        ("not HTTP", raw("SSH-2.0-OpenSSH_9.2\r\n"), Problem("the exchange failed")),
        (
            "never ends",
            Turn::Endless(format!("{head}\r\n[").into(), vec![b' '; 4096]),
            Problem("larger than 65536 bytes"),
        ),
        ("never starts", Turn::Stuck(vec![]), Problem("no answer in time")),
        ("stops half-way", Turn::Stuck(format!("{head}\r\n[").into()), Problem("no answer in time")),
        (
            "an error that never ends",
            Turn::Endless(b"HTTP/1.1 500 X\r\n\r\n".into(), vec![b'x'; 4096]),
            Problem("answered 500: xxx"),
        ),
        ("an error that gets stuck", Turn::Stuck(b"HTTP/1.1 500 X\r\n\r\n".into()), Problem("answered 500")),
        ("without rights", bytes("200 OK\r\nX-Consul-Results-Filtered-By-ACLs: true", "[]"), Problem("may not read")),
        ("empty", good(11, 0), Held("would take away all 5 endpoints")),
        ("empty, index back", good(3, 0), Held("would take away all 5 endpoints")),
        ("empty, index 0", good(0, 0), Held("would take away all 5 endpoints")),
        ("empty, no index", Turn::Good { index: None, body: list(0) }, Held("would take away all 5 endpoints")),
        ("most are gone", good(11, 2), Held("would take away 3 of 5 endpoints")),
    ];
    let mut all = JoinSet::new();
    for (name, bad, told) in cases {
        all.spawn(async move {
            let mut fake = Fake::start(good(10, 5)).await;
            let table = table(&fake, "wait = \"1s\"\nconfirm_after = \"1h\"\nmax_answer = 65536");
            let mut watched = Watched::start(&table, vec![lookup("users")]);
            watched.until(PATIENCE, |seen| seen.endpoints.len() == 5).await;
            fake.turn(bad);
            match told {
                Problem(text) => {
                    let problem = watched.problem(PATIENCE).await;
                    assert!(problem.contains(text), "{name}: {problem}");
                    // It goes on asking. What is stuck would take too long.
                    if !problem.contains("in time") {
                        let asked = fake.queries().len();
                        fake.asked(asked + 3).await;
                    }
                }
                Held(text) => {
                    let seen = watched.until(PATIENCE, |seen| seen.held.is_some()).await;
                    assert!(seen.held.as_ref().is_some_and(|held| held.contains(text)), "{name}: {seen:?}");
                    assert_eq!(seen.endpoints.len(), 5, "{name}");
                }
            }
            fake.turn(good(12, 6));
            let seen = watched.until(PATIENCE, |seen| seen.endpoints.len() == 6).await;
            assert_eq!((seen.held, seen.revision.as_str()), (None, "12"), "{name}");
            assert_eq!(watched.fewest, Some(5), "{name}");
            // The same problem is told once, however often it was met.
            let mut told = watched.problems.clone();
            told.dedup();
            assert_eq!(told, watched.problems, "{name}");
            let shown = watched.problems.concat();
            assert!(!shown.contains("hunter2") && !shown.contains("s3cret"), "{name}: {shown}");
        });
    }
    while let Some(case) = all.join_next().await {
        case.unwrap();
    }
}

#[tokio::test]
async fn an_index_that_goes_back_starts_again() {
    let mut fake = Fake::start(good(10, 5)).await;
    let mut watched = Watched::start(&table(&fake, "wait = \"30s\""), vec![lookup("users")]);
    watched.until(PATIENCE, |seen| seen.revision == "10").await;
    fake.asked(2).await;
    fake.turn(good(3, 5));
    watched.until(SOON, |seen| seen.revision == "3").await;
    let asked = fake.asked(4).await;
    let waits = "&wait=30000ms";
    assert_eq!(
        asked[..4],
        [
            "passing=1".to_owned(),
            format!("passing=1&index=10{waits}"),
            "passing=1".to_owned(),
            format!("passing=1&index=3{waits}"),
        ]
    );
}

#[tokio::test]
async fn namespace_and_partition_are_asked_for() {
    let mut fake = Fake::start(good(10, 5)).await;
    let more = "namespace = \"team\"\npartition = \"p1\"\nfilter = \"Service.Port > 80\"\nnode_meta = { zone = \"a\" }";
    let mut watched = Watched::start(&table(&fake, more), vec![lookup("users")]);
    watched.until(PATIENCE, |seen| seen.endpoints.len() == 5).await;
    let asked = fake.asked(2).await;
    let wanted = "passing=1&ns=team&partition=p1&filter=Service.Port+%3E+80&node-meta=zone%3Aa";
    assert_eq!(asked[..2], [wanted.to_owned(), format!("{wanted}&index=10&wait=60000ms")]);
}

#[tokio::test]
async fn answers_that_come_at_once_do_not_make_it_spin() {
    // Index 0, or none at all, would never block; nor does a proxy that knows nothing of indexes.
    for head in ["200 OK\r\nX-Consul-Index: 0", "200 OK", "200 OK\r\nX-Consul-Index: 7"] {
        let started = Instant::now();
        let mut fake = Fake::start(Turn::Bytes(answer(head, &list(5)))).await;
        let mut watched = Watched::start(&table(&fake, ""), vec![lookup("users")]);
        // Nobody may wait for room in the channel of reports.
        for _ in 0..8 {
            assert_eq!(watched.next(PATIENCE).await.map(|seen| seen.endpoints.len()), Ok(5));
        }
        assert!(started.elapsed() > Duration::from_millis(1500), "{head:?}: {:?}", started.elapsed());
        // After the first, all of them name an index of at least 1, unless it went back.
        assert!(fake.asked(2).await.iter().all(|query| !query.contains("index=0")));
        // What is new is still seen soon.
        fake.turn(good(20, 6));
        watched.until(SOON, |seen| seen.endpoints.len() == 6).await;
    }
}

#[tokio::test]
async fn an_unchanged_answer_is_reported_again() {
    let fake = Fake::start(good(10, 5)).await;
    let mut watched = Watched::start(&table(&fake, "wait = \"1s\""), vec![lookup("users")]);
    let first = watched.next(PATIENCE).await;
    assert_eq!(watched.next(PATIENCE).await, first);
    assert_eq!(watched.problems, [""; 0]);
}

#[tokio::test]
async fn a_held_answer_is_applied_after_a_read_that_does_not_wait() {
    let fake = Fake::start(good(10, 5)).await;
    let table = table(&fake, "wait = \"30s\"\nconfirm_after = \"300ms\"");
    let mut watched = Watched::start(&table, vec![lookup("users")]);
    watched.until(PATIENCE, |seen| seen.endpoints.len() == 5).await;
    fake.turn(good(11, 1));
    watched.until(SOON, |seen| seen.held.is_some()).await;
    let held_at = Instant::now();
    let seen = watched.until(PATIENCE, |seen| seen.held.is_none()).await;
    assert_eq!(ports(&seen), [9001]);
    assert!(held_at.elapsed() > Duration::from_millis(200), "{:?}", held_at.elapsed());
    let asked = fake.queries();
    assert_eq!(asked[..asked.len().min(4)][3], "passing=1", "{asked:?}");
}

#[tokio::test]
async fn a_watch_that_starts_anew_still_knows_what_counted() {
    let fake = Fake::start(good(10, 5)).await;
    let source = source(&table(&fake, "confirm_after = \"1h\""));
    let mut watched = Watched::over(&*source, vec![lookup("users")]);
    watched.until(PATIENCE, |seen| seen.endpoints.len() == 5).await;
    drop(watched);
    fake.turn(good(11, 0));
    let mut watched = Watched::over(&*source, vec![lookup("users"), lookup("others")]);
    let seen = watched.until(PATIENCE, |seen| seen.held.is_some()).await;
    assert_eq!(seen.endpoints.len(), 5);
}
