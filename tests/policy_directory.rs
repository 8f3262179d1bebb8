//! The policy directory, from outside: files come, change and go; the list of policies follows.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::mpsc;
use wayside::base::digest;
use wayside::policy::directory::Directory;
use wayside::policy::{Engine, EngineSettings, OnFault, Scope, Standing, sidecar};

const CANARY: &[u8] = include_bytes!("../guest-examples/prebuilt/canary.wasm");
const STICKY: &[u8] = include_bytes!("../guest-examples/prebuilt/sticky.wasm");
const LEAST_LOADED: &[u8] = include_bytes!("../guest-examples/prebuilt/least-loaded.wasm");

/// A directory that is being watched.
struct Watched {
    folder: PathBuf,
    lists: mpsc::Receiver<Vec<Arc<Scope>>>,
    task: tokio::task::JoinHandle<()>,
    _temporary: TempDir,
}

/// Puts files into a new directory, then begins to watch it.
fn watch(files: &[(&str, &[u8])]) -> Watched {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("policies");
    fs::create_dir(&folder).unwrap();
    for (name, content) in files {
        fs::write(folder.join(name), content).unwrap();
    }
    let cache = folder.join(".cache");
    watch_folder(temporary, folder, &cache)
}

fn watch_folder(temporary: TempDir, folder: PathBuf, cache: &Path) -> Watched {
    let program = Path::new(env!("CARGO_BIN_EXE_wayside"));
    let engine = Engine::new(EngineSettings::for_workers(1)).unwrap();
    let directory = Directory::open(&folder, cache, program, engine).unwrap();
    let (out, lists) = mpsc::channel(1);
    let task = tokio::spawn(directory.watch(out));
    Watched { folder, lists, task, _temporary: temporary }
}

impl Watched {
    async fn next(&mut self) -> Vec<Arc<Scope>> {
        let next = tokio::time::timeout(Duration::from_secs(60), self.lists.recv()).await;
        next.expect("a list within a minute").expect("the watch goes on")
    }

    /// The first list that fits.
    async fn until(&mut self, fits: impl Fn(&[Arc<Scope>]) -> bool) -> Vec<Arc<Scope>> {
        loop {
            let list = self.next().await;
            if fits(&list) {
                return list;
            }
        }
    }

    /// The first list in which nothing is loading and this policy is live with this content.
    async fn until_live(&mut self, name: &str, component: &[u8], toml: &str) -> Vec<Arc<Scope>> {
        let id = version(component, toml);
        let live = |scope: &Arc<Scope>| &*scope.name == name && live(scope) == Some(&id) && !scope.loading;
        self.until(|list| list.iter().any(live)).await
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.folder.join(name), content).unwrap();
    }

    /// As if the gateway had ended and started anew.
    async fn restart(self) -> Watched {
        let Watched { folder, lists, task, _temporary: temporary } = self;
        drop(lists);
        task.await.unwrap();
        let cache = folder.join(".cache");
        watch_folder(temporary, folder, &cache)
    }

    /// The way that is recommended.
    fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        let part = self.folder.join(format!(".{name}.part"));
        fs::write(&part, content).unwrap();
        fs::rename(part, self.folder.join(name)).unwrap();
    }
}

fn version(component: &[u8], toml: &str) -> String {
    sidecar::parse(toml).unwrap().version(&digest::full(component)).to_string()
}

fn live(scope: &Scope) -> Option<&str> {
    match &scope.standing {
        Standing::Live(version) => Some(&version.id),
        Standing::Broken | Standing::Pending => None,
    }
}

fn error(scope: &Scope) -> &str {
    scope.error.as_deref().unwrap_or("")
}

#[tokio::test]
async fn the_first_list_has_everything_tried_in_name_order() {
    let mut watched = watch(&[
        ("b-good.wasm", CANARY),
        ("b-good.toml", b"config = '5'\nmatch = { path_prefix = '/api' }"),
        ("a-no-component.wasm", b"hello"),
        ("a-no-component.toml", b"on_fault = 'next'\nmatch = { path_prefix = '/a' }"),
        ("c-bad-config.wasm", CANARY),
        ("c-bad-config.toml", b"config = 'xyz'"),
        ("d-bad-sidecar.wasm", CANARY),
        ("d-bad-sidecar.toml", b"on_fault = 'routes'\nconfg = '5'"),
        (".hidden.wasm", CANARY),
        ("alone.toml", b"config = '5'"),
        ("notes.txt", b""),
    ]);
    let list = watched.next().await;
    let names: Vec<&str> = list.iter().map(|scope| &*scope.name).collect();
    assert_eq!(names, ["a-no-component", "b-good", "c-bad-config", "d-bad-sidecar"]);
    assert!(list.iter().all(|scope| !scope.loading));

    assert!(matches!(list[0].standing, Standing::Broken) && list[0].error.is_some());
    assert_eq!((list[0].on_fault, list[0].matcher.label().as_str()), (OnFault::Next, "/a/*"));
    let expected = version(CANARY, "config = '5'\nmatch = { path_prefix = '/api' }");
    assert_eq!((live(&list[1]), error(&list[1])), (Some(expected.as_str()), ""));
    assert!(matches!(list[2].standing, Standing::Broken) && error(&list[2]).contains("xyz"), "{:?}", list[2]);
    // What cannot be read says nothing about which requests it is for: all of them fail closed.
    assert!(matches!(list[3].standing, Standing::Broken));
    assert!(error(&list[3]).contains("d-bad-sidecar.toml") && error(&list[3]).contains("line 2"), "{:?}", list[3]);
    assert_eq!((list[3].on_fault, list[3].matcher.label().as_str()), (OnFault::Unavailable, "any"));
}

#[tokio::test]
async fn a_policy_comes_and_goes() {
    let mut watched = watch(&[]);
    assert!(watched.next().await.is_empty());
    watched.put("canary.wasm", CANARY);
    let loading = watched.until(|list| !list.is_empty()).await;
    assert!(loading[0].loading && matches!(loading[0].standing, Standing::Pending));
    watched.until_live("canary", CANARY, "").await;
    watched.put("canary.toml", "config = '5'");
    let list = watched.until_live("canary", CANARY, "config = '5'").await;
    assert_eq!(error(&list[0]), "");
    fs::remove_file(watched.folder.join("canary.wasm")).unwrap();
    watched.until(<[_]>::is_empty).await;
}

#[tokio::test]
async fn what_a_policy_keeps_outlives_its_versions_and_a_version_its_last_user() {
    let mut watched = watch(&[("p.wasm", CANARY)]);
    let used = watched.next().await;
    watched.put("p.wasm", STICKY);
    let list = watched.until_live("p", STICKY, "").await;
    let (Standing::Live(old), Standing::Live(new)) = (&used[0].standing, &list[0].standing) else { panic!("{list:?}") };
    assert!(Arc::ptr_eq(&old.live, &new.live), "what it remembers belongs to the name");

    let old = Arc::downgrade(old);
    assert_eq!(old.strong_count(), 2, "ours, and one more: it is not for us to tear it down");
    drop(used);
    let gone = async {
        while old.strong_count() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), gone).await.expect("torn down by the watch");
}

#[tokio::test]
async fn a_bad_version_never_replaces_a_good_one() {
    let good = "match = { path_prefix = '/good' }\non_fault = 'next'";
    let mut watched = watch(&[("p.wasm", CANARY), ("p.toml", good.as_bytes())]);
    let id = version(CANARY, good);
    assert_eq!(live(&watched.next().await[0]), Some(id.as_str()));

    let bad: [(&str, &[u8], &str); 4] = [
        ("p.wasm", b"\0asm junk", ""),
        ("p.toml", b"config = 'xyz'\nmatch = { path_prefix = '/bad' }", ""),
        ("p.toml", b"nonsense", "line 1"),
        ("p.toml", b"match = { path = 'x' }", "match"),
    ];
    for (name, content, expected) in bad {
        watched.put(name, content);
        let list = watched.until(|list| list[0].error.is_some() && !list[0].loading).await;
        assert_eq!(live(&list[0]), Some(id.as_str()));
        assert!(error(&list[0]).contains(expected), "{:?}", list[0]);
        assert_eq!((list[0].on_fault, list[0].matcher.label().as_str()), (OnFault::Next, "/good/*"));
        // Back to the good one: nothing is loaded, the error goes.
        watched.put("p.wasm", CANARY);
        watched.put("p.toml", good);
        let list = watched.until(|list| list[0].error.is_none()).await;
        assert_eq!(live(&list[0]), Some(id.as_str()));
    }
}

#[tokio::test]
async fn what_comes_later_and_never_loads_is_pending() {
    let mut watched = watch(&[]);
    watched.next().await;
    watched.put("late.wasm", "junk");
    let list = watched.until(|list| list.iter().any(|scope| scope.error.is_some())).await;
    assert!(matches!(list[0].standing, Standing::Pending));
    watched.put("late.wasm", CANARY);
    let list = watched.until_live("late", CANARY, "").await;
    assert_eq!(error(&list[0]), "");
}

#[tokio::test]
async fn half_a_file_is_no_error() {
    let mut watched = watch(&[("p.wasm", STICKY)]);
    watched.next().await;
    watched.write("p.wasm", &CANARY[..CANARY.len() / 2]);
    let list = watched.until(|list| list[0].loading).await;
    assert_eq!(live(&list[0]), Some(version(STICKY, "").as_str()));
    watched.write("p.wasm", CANARY);
    let id = version(CANARY, "");
    let list = watched.until(|list| list[0].error.is_some() || live(&list[0]) == Some(&id)).await;
    assert_eq!(error(&list[0]), "");
}

#[tokio::test]
async fn of_two_hundred_quick_swaps_the_last_one_stays() {
    let mut watched = watch(&[("p.wasm", CANARY)]);
    watched.next().await;
    let components = [CANARY, STICKY, LEAST_LOADED, b"\0asm junk"];
    for i in 0..200 {
        // Both ways to put a file there, and its going away in between.
        match i % 5 {
            0 => watched.write("p.wasm", components[i % 4]),
            1 => fs::remove_file(watched.folder.join("p.wasm")).unwrap(),
            _ => watched.put("p.wasm", components[i % 4]),
        }
        tokio::task::yield_now().await;
        while watched.lists.try_recv().is_ok() {}
    }
    watched.put("p.wasm", LEAST_LOADED);
    let list = watched.until_live("p", LEAST_LOADED, "").await;
    assert_eq!(error(&list[0]), "");
}

#[tokio::test]
async fn a_directory_that_goes_away_takes_no_policy_along() {
    let mut watched = watch(&[("p.wasm", CANARY)]);
    watched.next().await;
    let aside = watched.folder.with_extension("aside");
    fs::rename(&watched.folder, &aside).unwrap();
    let list = watched.until(|list| list[0].error.is_some()).await;
    assert_eq!(live(&list[0]), Some(version(CANARY, "").as_str()));
    assert!(error(&list[0]).contains("cannot be read"), "{:?}", list[0]);

    fs::create_dir(&watched.folder).unwrap();
    watched.put("p.wasm", STICKY);
    let list = watched.until_live("p", STICKY, "").await;
    assert_eq!(error(&list[0]), "");
    // The new directory is the one that is watched now.
    watched.put("p.wasm", CANARY);
    watched.until_live("p", CANARY, "").await;
}

#[tokio::test]
async fn a_directory_that_an_empty_one_replaces_at_once_takes_no_policy_along() {
    let temporary = tempfile::tempdir().unwrap();
    let path = |name: &str| temporary.path().join(name);
    for (folder, component) in [("one", Some(CANARY)), ("two", Some(STICKY)), ("empty", None)] {
        fs::create_dir(path(folder)).unwrap();
        if let Some(component) = component {
            fs::write(path(folder).join("p.wasm"), component).unwrap();
        }
    }
    let (link, next) = (path("policies"), path("next"));
    let switch = |folder: &str| {
        std::os::unix::fs::symlink(folder, &next).unwrap();
        fs::rename(&next, &link).unwrap();
    };
    switch("one");
    let cache = path("cache");
    let mut watched = watch_folder(temporary, link.clone(), &cache);
    watched.next().await;
    switch("empty");
    let list = watched.until(|list| list.is_empty() || list[0].error.is_some()).await;
    assert!(error(&list[0]).contains("another directory"), "{:?}", list[0]);
    assert_eq!(live(&list[0]), Some(version(CANARY, "").as_str()));
    // And one that leads nowhere.
    switch("nowhere");
    let list = watched.until(|list| list.is_empty() || error(&list[0]).contains("cannot be read")).await;
    assert_eq!(live(&list[0]), Some(version(CANARY, "").as_str()));
    switch("two");
    let list = watched.until_live("p", STICKY, "").await;
    assert_eq!(error(&list[0]), "");
}

#[tokio::test]
async fn a_link_whose_target_is_gone_takes_no_policy_along() {
    let good = b"match = { path_prefix = '/good' }";
    let mut watched = watch(&[(".c", CANARY), (".s", good)]);
    assert!(watched.next().await.is_empty());
    let path = |name: &str| watched.folder.join(name);
    let (component, sidecar) = (path(".c"), path(".s"));
    std::os::unix::fs::symlink(&sidecar, path("p.toml")).unwrap();
    std::os::unix::fs::symlink(&component, path("p.wasm")).unwrap();
    let toml = std::str::from_utf8(good).unwrap();
    watched.until_live("p", CANARY, toml).await;
    for target in [&component, &sidecar] {
        let aside = target.with_extension("aside");
        fs::rename(target, &aside).unwrap();
        let list = watched.until(|list| list.is_empty() || list[0].error.is_some()).await;
        assert!(error(&list[0]).contains("a link to a file that is not there"), "{:?}", list[0]);
        assert_eq!(
            (live(&list[0]), list[0].matcher.label().as_str()),
            (Some(version(CANARY, toml).as_str()), "/good/*")
        );
        fs::rename(&aside, target).unwrap();
        let list = watched.until(|list| list[0].error.is_none()).await;
        assert_eq!(live(&list[0]), Some(version(CANARY, toml).as_str()));
    }
}

#[tokio::test]
async fn what_is_no_file_is_told_by_its_kind_and_takes_no_policy_along() {
    for name in ["p.wasm", "p.toml"] {
        let mut watched = watch(&[("p.wasm", CANARY)]);
        watched.until_live("p", CANARY, "").await;
        let (path, fifo) = (watched.folder.join(name), watched.folder.join(".fifo"));
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        fs::rename(&fifo, &path).unwrap();
        let list = watched.until(|list| list.is_empty() || list[0].error.is_some()).await;
        assert!(error(&list[0]).starts_with(&format!("{name}: it is a FIFO")), "{:?}", list[0]);
        assert_eq!(live(&list[0]), Some(version(CANARY, "").as_str()));
    }
}

#[tokio::test]
async fn two_halves_of_a_delivery_are_taken_together() {
    let (old, new) = ("match = { path = '/a' }", "match = { path = '/b' }");
    for component_first in [true, false] {
        let mut watched = watch(&[("p.wasm", CANARY), ("p.toml", old.as_bytes())]);
        watched.next().await;
        let halves: [(&str, &[u8]); 2] = [("p.wasm", STICKY), ("p.toml", new.as_bytes())];
        let [first, second] = if component_first { halves } else { [halves[1], halves[0]] };
        watched.put(first.0, first.1);
        let list = watched.until(|list| list[0].loading || list[0].error.is_some()).await;
        assert_eq!(live(&list[0]), Some(version(CANARY, old).as_str()), "it waits");
        watched.put(second.0, second.1);
        loop {
            let list = watched.next().await;
            if live(&list[0]) == Some(version(STICKY, new).as_str()) {
                break;
            }
            assert_eq!(live(&list[0]), Some(version(CANARY, old).as_str()), "{:?}", list[0]);
        }
    }
}

#[tokio::test]
async fn after_a_restart_the_same_files_mean_the_same() {
    let toml = "match = { path_prefix = '/good' }\non_fault = 'next'";
    let mut watched = watch(&[("p.wasm", CANARY), ("p.toml", toml.as_bytes()), ("q.wasm", b"junk")]);
    watched.next().await;
    let bad: [(&str, &[u8], &str); 3] =
        [("p.wasm", b"\0asm junk", ""), ("p.toml", b"nonsense", "line 1"), ("p.wasm", b"no component at all", "")];
    for (name, content, expected) in bad {
        watched.put(name, content);
        let list = watched.until(|list| list[0].error.is_some() && !list[0].loading).await;
        let before = error(&list[0]).to_owned();
        let mut again = watched.restart().await;
        let list = again.next().await;
        assert_eq!(live(&list[0]), Some(version(CANARY, toml).as_str()));
        assert_eq!((error(&list[0]), list[0].loading), (before.as_str(), false));
        assert!(before.contains(expected), "{before}");
        assert_eq!((list[0].on_fault, list[0].matcher.label().as_str()), (OnFault::Next, "/good/*"));
        // There never was a good one.
        assert!(matches!(list[1].standing, Standing::Broken));
        again.put("p.wasm", CANARY);
        again.put("p.toml", toml);
        again.until(|list| list[0].error.is_none() && !list[0].loading).await;
        watched = again;
    }
    // A deleted file is forgotten, and so is its last good version.
    fs::remove_file(watched.folder.join("p.wasm")).unwrap();
    watched.until(|list| list.len() == 1).await;
    watched.write("p.wasm", "junk");
    let mut again = watched.restart().await;
    assert!(matches!(again.next().await[0].standing, Standing::Broken));
}

#[tokio::test]
async fn trouble_of_the_system_is_tried_again_by_itself() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("policies");
    fs::create_dir(&folder).unwrap();
    let (program, full) = (temporary.path().join("compiler"), temporary.path().join("full"));
    // A compiler that is killed, as if for lack of memory, for as long as there is a file.
    let script = format!(
        "cat > '{0}' <<'END'\n#!/bin/sh\n[ -e '{1}' ] && kill -9 $$\nexec '{2}' \"$@\"\nEND\nchmod +x '{0}'; : > '{1}'",
        program.display(),
        full.display(),
        env!("CARGO_BIN_EXE_wayside")
    );
    assert!(std::process::Command::new("sh").args(["-c", &script]).status().unwrap().success());
    fs::write(folder.join("p.wasm"), CANARY).unwrap();
    let engine = Engine::new(EngineSettings::for_workers(1)).unwrap();
    let directory = Directory::open(&folder, &folder.join(".cache"), &program, engine).unwrap();
    let (out, lists) = mpsc::channel(1);
    let task = tokio::spawn(directory.watch(out));
    let mut watched = Watched { folder, lists, task, _temporary: temporary };
    let list = watched.next().await;
    assert!(matches!(list[0].standing, Standing::Broken) && error(&list[0]).contains("killed"), "{:?}", list[0]);
    fs::remove_file(full).unwrap();
    // Nobody touches the directory.
    let list = watched.until_live("p", CANARY, "").await;
    assert_eq!(error(&list[0]), "");
}

#[tokio::test]
async fn a_hundred_and_fifty_policies_have_room_and_forty_are_replaced_at_once() {
    let names: Vec<String> = (0..150).map(|number| format!("p{number:03}")).collect();
    let files: Vec<String> = names.iter().map(|name| format!("{name}.wasm")).collect();
    let mut watched = watch(&files.iter().map(|name| (name.as_str(), CANARY)).collect::<Vec<_>>());
    let list = watched.next().await;
    assert!(list.len() == 150 && list.iter().all(|scope| live(scope).is_some() && error(scope).is_empty()));
    for file in &files[..40] {
        watched.put(file, STICKY);
    }
    let id = version(STICKY, "");
    let replaced = |list: &[Arc<Scope>]| list[..40].iter().all(|scope| live(scope) == Some(&id));
    let list = watched.until(|list| list.iter().any(|scope| scope.error.is_some()) || replaced(list)).await;
    assert!(replaced(&list), "{:?}", list.iter().find(|scope| scope.error.is_some()));
}

#[tokio::test]
async fn one_policy_more_than_may_be_is_told_so_and_the_others_can_still_be_replaced() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("policies");
    fs::create_dir(&folder).unwrap();
    for name in ["a.wasm", "b.wasm", "c.wasm"] {
        fs::write(folder.join(name), CANARY).unwrap();
    }
    let engine = Engine::new(EngineSettings { versions: 2, ..EngineSettings::for_workers(1) }).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_wayside"));
    let directory = Directory::open(&folder, &folder.join(".cache"), program, engine).unwrap();
    let (out, lists) = mpsc::channel(1);
    let task = tokio::spawn(directory.watch(out));
    let mut watched = Watched { folder, lists, task, _temporary: temporary };
    let list = watched.next().await;
    assert!(live(&list[1]).is_some() && error(&list[2]).contains("policies.max_versions"), "{list:?}");
    watched.put("a.wasm", STICKY);
    watched.put("b.wasm", STICKY);
    let id = version(STICKY, "");
    watched.until(|list| list[..2].iter().all(|scope| live(scope) == Some(&id))).await;
    // There is room for it now, which nobody has to tell it.
    fs::remove_file(watched.folder.join("a.wasm")).unwrap();
    watched.until(|list| list.len() == 2 && live(&list[1]).is_some()).await;
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_an_error() {
    let temporary = tempfile::tempdir().unwrap();
    let missing = temporary.path().join("policies");
    let error = Directory::open(
        &missing,
        &missing.join(".cache"),
        Path::new("wayside"),
        Engine::new(EngineSettings::for_workers(1)).unwrap(),
    )
    .unwrap_err();
    assert!(!missing.exists());
    assert!(error.contains("policies") && error.contains("create it"), "{error}");
}

#[tokio::test]
async fn the_watch_ends_with_its_receiver() {
    let mut watched = watch(&[("p.wasm", CANARY)]);
    watched.next().await;
    drop(watched.lists);
    tokio::time::timeout(Duration::from_secs(10), watched.task).await.expect("ended").unwrap();
}

#[tokio::test]
async fn a_slow_compiler_holds_up_nobody_else() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("policies");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("a.wasm"), CANARY).unwrap();
    // A compiler that takes a minute for some. Written by a shell, since a file that this process has written may still
    // be open in another test's child and so not be startable.
    let program = temporary.path().join("compiler");
    let script = format!(
        "cat > '{0}' <<'END'\n#!/bin/sh\ngrep -q slow-marker \"$2\" && exec sleep 60\nexec '{1}' \"$@\"\nEND\nchmod +x '{0}'",
        program.display(),
        env!("CARGO_BIN_EXE_wayside")
    );
    assert!(std::process::Command::new("sh").args(["-c", &script]).status().unwrap().success());
    let engine = Engine::new(EngineSettings::for_workers(1)).unwrap();
    let directory = Directory::open(&folder, &folder.join(".cache"), &program, engine).unwrap();
    let (out, lists) = mpsc::channel(1);
    let task = tokio::spawn(directory.watch(out));
    let mut watched = Watched { folder, lists, task, _temporary: temporary };
    watched.next().await;

    let begun = std::time::Instant::now();
    let slow = [CANARY, b"\0\x0c\x0bslow-marker"].concat();
    watched.put("m-slow.wasm", slow);
    watched.until(|list| list.iter().any(|scope| &*scope.name == "m-slow" && scope.loading)).await;
    // Another one goes.
    fs::remove_file(watched.folder.join("a.wasm")).unwrap();
    watched.until(|list| list.len() == 1 && list[0].loading).await;
    // Another version of the slow one comes: the old one is given up, and with it its compiler.
    watched.put("m-slow.wasm", STICKY);
    watched.until_live("m-slow", STICKY, "").await;
    assert!(begun.elapsed() < Duration::from_secs(50), "waited for the compiler");
}
