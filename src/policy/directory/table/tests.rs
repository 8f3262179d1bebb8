use super::*;
use crate::policy::directory::found::{Candidate, Digests, scan};
use crate::policy::scope::OnFault;
use crate::policy::sidecar;

/// What a directory with these files holds; always the same one.
fn found(files: &[(&str, &str)]) -> Scan {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    Scan { directory: (1, 1), ..scan(folder.path(), &mut Digests::default()).unwrap() }
}

fn bad() -> Error {
    Error::Component("bad".into())
}

fn errors(table: &Table) -> Vec<Option<String>> {
    table.scopes().iter().map(|scope| scope.error.clone()).collect()
}

fn names(to_try: &[Found]) -> Vec<&str> {
    to_try.iter().map(|found| &*found.name).collect()
}

fn after(start: Instant, ms: u64) -> Instant {
    start + Duration::from_millis(ms)
}

/// A table that was started without a policy, and the time.
fn started() -> (Table, Instant) {
    let (mut table, now) = (Table::default(), Instant::now());
    table.found(&found(&[]), now).unwrap();
    table.started(now);
    (table, now)
}

/// What the table does about these files: what it tries, all of which is taken for good. Versions are not loaded.
fn tries(table: &mut Table, files: &[(&str, &str)], now: Instant) -> Vec<String> {
    let to_try = table.found(&found(files), now).unwrap();
    let tried = to_try.iter().map(|found| {
        let entry = table.policies.get_mut(&found.name).unwrap();
        let candidate = found.candidate.as_ref().unwrap();
        (entry.good, entry.before) = (Some((found.pair.clone(), candidate.good())), None);
        entry.settle();
        entry.rejected = Some(found.key.clone());
        format!("{}{}", candidate.component_digest[..2].to_owned(), candidate.text.as_deref().unwrap_or(""))
    });
    tried.collect()
}

fn version(component: &str, sidecar: &str) -> String {
    format!("{}{sidecar}", &crate::base::digest::full(component.as_bytes())[..2])
}

const A: (&str, &str) = ("p.wasm", "A");
const B: (&str, &str) = ("p.wasm", "B");
const FOR_A: (&str, &str) = ("p.toml", "config = 'a'");
const FOR_B: (&str, &str) = ("p.toml", "config = 'b'");

#[test]
fn a_pair_that_arrives_in_two_steps_is_taken_together() {
    let pair_a = version(A.1, FOR_A.1);
    let pair_b = version(B.1, FOR_B.1);
    // What is there 0, 1.2 and 1.3 s, and 3.5 s after the pair A; what was tried in all.
    type Files = &'static [(&'static str, &'static str)];
    let cases: [(&str, [Files; 3], &[&String]); 6] = [
        ("component first", [&[B, FOR_A], &[B, FOR_B], &[B, FOR_B]], &[&pair_b]),
        ("sidecar first", [&[A, FOR_B], &[B, FOR_B], &[B, FOR_B]], &[&pair_b]),
        ("sidecar gone and back", [&[A], &[A, FOR_A], &[A, FOR_A]], &[]),
        ("sidecar gone, then the new pair", [&[A], &[B, FOR_B], &[B, FOR_B]], &[&pair_b]),
        ("component gone, then the new pair", [&[FOR_A], &[B, FOR_B], &[B, FOR_B]], &[&pair_b]),
        ("both gone, then the new pair", [&[], &[B, FOR_B], &[B, FOR_B]], &[&pair_b]),
    ];
    for (what, [first, second, third], expected) in cases {
        let (mut table, now) = started();
        assert_eq!(
            tries(&mut table, &[A, FOR_A], now),
            std::slice::from_ref(&pair_a),
            "{what}: a new pair is complete"
        );
        let mut tried = Vec::new();
        for (files, ms) in [(first, 0), (first, 1_200), (second, 1_210), (second, 1_300), (third, 3_500)] {
            // Good is what is in the directory again.
            tried.extend(tries(&mut table, files, after(now, ms)).into_iter().filter(|tried| *tried != pair_a));
            assert_eq!(table.policies.len(), 1, "{what}: never gone");
        }
        assert_eq!(tried.iter().collect::<Vec<_>>(), expected, "{what}");
    }
}

#[test]
fn a_new_component_waits_for_its_sidecar() {
    let (mut table, now) = started();
    assert!(tries(&mut table, &[A], now).is_empty());
    assert!(table.scopes()[0].loading && matches!(table.scopes()[0].standing, Standing::Pending));
    assert!(tries(&mut table, &[A], after(now, 1_200)).is_empty());
    assert_eq!(tries(&mut table, &[A, FOR_A], after(now, 1_250)), [version(A.1, FOR_A.1)]);

    // There is none: it waited for nothing, and only once.
    let (mut table, now) = started();
    assert!(tries(&mut table, &[A], now).is_empty());
    assert_eq!(table.due(), Some(now + DELIVERY));
    assert_eq!(tries(&mut table, &[A], now + DELIVERY), [version(A.1, "")]);
    assert_eq!(tries(&mut table, &[B], now + DELIVERY), [version(B.1, "")], "it never had one");
    assert_eq!(table.due(), None);
}

#[test]
fn half_a_change_is_taken_in_the_end() {
    let (mut table, now) = started();
    tries(&mut table, &[A, FOR_A], now);
    assert!(tries(&mut table, &[B, FOR_A], now).is_empty());
    assert_eq!(tries(&mut table, &[B, FOR_A], now + DELIVERY), [version(B.1, FOR_A.1)]);
    assert!(tries(&mut table, &[B], now + DELIVERY).is_empty());
    assert_eq!(tries(&mut table, &[B], now + 2 * DELIVERY), [version(B.1, "")], "the sidecar was deleted");
}

#[test]
fn what_ripened_stays_so_until_it_was_tried() {
    let (mut table, now) = started();
    let files = found(&[A]);
    assert!(table.found(&files, now).unwrap().is_empty());
    for ms in [2_000, 2_001, 5_000] {
        assert_eq!(table.found(&files, after(now, ms)).unwrap().len(), 1);
        assert_eq!(table.due(), None);
    }
}

#[test]
fn a_component_that_is_deleted_is_removed_after_a_while() {
    let (mut table, now) = started();
    tries(&mut table, &[A, FOR_A], now);
    table.found(&found(&[FOR_A]), now).unwrap();
    assert_eq!((table.scopes().len(), table.due()), (1, Some(now + DELIVERY)));
    table.found(&found(&[FOR_A]), now + DELIVERY).unwrap();
    assert_eq!((table.scopes().len(), table.due()), (0, None));
    assert!(table.wanted().is_empty(), "nothing is kept of it");
}

#[test]
fn another_directory_is_taken_as_a_whole_unless_it_is_empty() {
    let (mut table, now) = started();
    tries(&mut table, &[A, FOR_A, ("q.wasm", "Q"), ("q.toml", "")], now);
    let another = |files: &[(&str, &str)]| Scan { directory: (2, 2), ..found(files) };
    let error = table.found(&another(&[]), now).unwrap_err();
    assert!(error.contains("another directory"), "{error}");
    assert_eq!(table.scopes().len(), 2);
    table.lost(error);
    assert!(errors(&table).iter().all(Option::is_some));
    // Half of a pair has changed, and a policy is gone: all of that is meant.
    let to_try = table.found(&another(&[B, FOR_A]), now).unwrap();
    assert_eq!((names(&to_try), table.scopes().len()), (vec!["p"], 1));
    assert_eq!(errors(&table), [None]);
    // From now on it is the one that counts.
    table.found(&another(&[]), now).unwrap();
    assert_eq!(table.scopes().len(), 1, "for a while");
    table.found(&another(&[]), now + DELIVERY).unwrap();
    assert_eq!(table.scopes().len(), 0);
}

#[test]
fn content_is_tried_once() {
    let (mut table, now) = (Table::default(), Instant::now());
    let first = found(&[("a.wasm", "1"), ("b.wasm", "1")]);
    let to_try = table.found(&first, now).unwrap();
    assert_eq!(to_try.len(), 2);
    assert!(table.scopes().iter().all(|scope| scope.loading));
    table.rejected(&to_try[0], &bad(), now);
    // b was not settled, so it is tried again; a only when it changes, by whichever file.
    assert_eq!(names(&table.found(&first, now).unwrap()), ["b"]);
    assert_eq!(errors(&table), [Some("bad".into()), None]);
    let both = |a: &str, toml: Option<&str>| {
        let toml = toml.map(|toml| ("a.toml", toml));
        found(&[Some(("a.wasm", a)), toml, Some(("b.wasm", "1"))].into_iter().flatten().collect::<Vec<_>>())
    };
    assert_eq!(names(&table.found(&both("2", None), now).unwrap()), ["a", "b"]);
    assert_eq!(names(&table.found(&both("1", Some("config = 'x'")), now).unwrap()), ["a", "b"]);
    // The same content in other words is the same.
    assert_eq!(names(&table.found(&both("1", Some("# nothing")), now).unwrap()), ["b"]);
}

#[test]
fn what_the_system_refused_is_tried_again_later_and_later() {
    let (mut table, mut now) = (Table::default(), Instant::now());
    let files = found(&[("a.wasm", "1")]);
    let mut waits = Vec::new();
    for _ in 0..30 {
        let to_try = table.found(&files, now).unwrap();
        assert_eq!(to_try.len(), 1);
        assert_eq!(table.due(), None, "it is being tried");
        table.rejected(&to_try[0], &Error::System("disk full".into()), now);
        assert_eq!(errors(&table), [Some("disk full".into())]);
        assert!(table.found(&files, now).unwrap().is_empty(), "not at once");
        let due = table.due().unwrap();
        waits.push(due.saturating_duration_since(now));
        now = due;
    }
    assert!(waits[0] <= Duration::from_millis(100) && waits.iter().all(|wait| *wait <= RETRY), "{waits:?}");
    assert!(waits.iter().any(|wait| *wait > Duration::from_secs(10)), "{waits:?}");
    // What changes is tried at once.
    assert_eq!(table.found(&found(&[("a.wasm", "2")]), now).unwrap().len(), 1);
}

#[test]
fn what_is_bad_at_the_start_is_broken_and_later_pending() {
    let (mut table, now) = (Table::default(), Instant::now());
    let sidecar = ("a.toml", "match = { path = '/a' }\non_fault = 'next'");
    for file in table.found(&found(&[("a.wasm", "1"), sidecar]), now).unwrap() {
        table.rejected(&file, &bad(), now);
    }
    table.started(now);
    for file in
        table.found(&found(&[("a.wasm", "1"), ("a.toml", "wrong"), ("b.wasm", "1"), ("b.toml", "")]), now).unwrap()
    {
        table.rejected(&file, &bad(), now);
    }
    let scopes = table.scopes();
    assert!(matches!(scopes[0].standing, Standing::Broken));
    assert!(matches!(scopes[1].standing, Standing::Pending));
    // The last sidecar that could be read still says which requests fail.
    assert_eq!((scopes[0].matcher.label().as_str(), scopes[0].on_fault), ("/a", OnFault::Next));
}

#[test]
fn a_lost_directory_is_told_once_and_changes_nothing() {
    let (mut table, now) = (Table::default(), Instant::now());
    let files = found(&[("a.wasm", "1")]);
    let to_try = table.found(&files, now).unwrap();
    assert!(table.lost("gone".into()));
    assert!(!table.lost("gone".into()));
    assert_eq!(errors(&table), [Some("gone".into())]);
    table.rejected(&to_try[0], &bad(), now);
    assert_eq!(errors(&table), [Some("bad".into())]);
    table.found(&files, now).unwrap();
    assert_eq!(errors(&table), [Some("bad".into())]);
    assert!(table.lost("gone".into()), "news again");
}

#[test]
fn after_a_restart_half_a_delivery_waits_as_it_would_have_before() {
    let (folder, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let put = |name: &str, content: &str| std::fs::write(folder.path().join(name), content).unwrap();
    put(A.0, A.1);
    let (mut table, now) = started();
    tries(&mut table, &[A, FOR_A], now);
    let mut store = LastGood::open(kept.path().to_owned(), folder.path());
    store.keep(kept.path().to_owned(), table.wanted(), false).unwrap();

    let mut table = Table::default();
    table.remember(&LastGood::open(kept.path().to_owned(), folder.path()));
    assert!(table.found(&found(&[B]), now).unwrap().is_empty(), "its sidecar is on its way");
    assert_eq!(table.unanswered(), [("p".into(), None)]);
    let mut table = Table::default();
    table.remember(&LastGood::open(kept.path().to_owned(), folder.path()));
    assert_eq!(table.found(&found(&[A, FOR_A]), now).unwrap().len(), 1, "as it was");
}

#[test]
fn a_key_is_the_versions_id_where_there_is_one() {
    let files = found(&[("a.wasm", "1"), ("a.toml", "config = 'x'"), ("b.wasm", "1"), ("b.toml", "wrong")]).found;
    let Ok(Candidate { component_digest, .. }) = &files[0].candidate else { unreachable!() };
    assert_eq!(files[0].key, sidecar::parse("config = 'x'").unwrap().version(component_digest));
    assert!(files[1].key.starts_with("bad ") && files[1].candidate.is_err());
}

#[test]
fn a_link_that_leads_nowhere_is_no_deleted_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("a.wasm"), "1").unwrap();
    std::os::unix::fs::symlink("/nonexistent/a.toml", path("a.toml")).unwrap();
    std::os::unix::fs::symlink("/nonexistent/b.wasm", path("b.wasm")).unwrap();
    std::fs::create_dir(path("c.wasm")).unwrap();
    let files = scan(folder.path(), &mut Digests::default()).unwrap().found;
    for (found, expected) in files.iter().zip(["a.toml", "b.wasm", "c.wasm"]) {
        let Err(Error::System(said)) = &found.candidate else { panic!("{found:?}") };
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn there_is_room_for_as_many_policies_as_may_be() {
    let (mut table, now) = started();
    tries(&mut table, &[A, FOR_A], now);
    assert_eq!(table.room("p", 1, now), Room::Here);
    assert_eq!(table.room("p", 0, now), Room::None);
}

#[test]
fn a_replaced_version_is_asked_until_a_while_after_control_was_told() {
    let now = Instant::now();
    // However long the disk took before.
    assert!(!nobody_asks(None, after(now, 3_600_000)));
    assert!(!nobody_asks(Some(now), after(now, 1_900)));
    assert!(nobody_asks(Some(now), after(now, 2_000)));
}
