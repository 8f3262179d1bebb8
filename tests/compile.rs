//! Compiling policies in a child process, and the folder that keeps what came out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use wayside::base::digest;
use wayside::policy::compile::{Cache, Error, MAX_COMPONENT, this_program};

const CANARY: &[u8] = include_bytes!("../guest-examples/prebuilt/canary.wasm");

fn open(folder: &Path) -> Result<Cache, String> {
    Cache::open(folder, Path::new(env!("CARGO_BIN_EXE_wayside")))
}

async fn compiled(cache: &Cache, bytes: &[u8]) -> Result<PathBuf, String> {
    cache.compiled(bytes, &digest::full(bytes)).await.map_err(|error| error.to_string())
}

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

#[tokio::test]
async fn code_is_kept_and_used_again() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("made/on/demand");
    let cache = open(&folder).unwrap();
    let first = compiled(&cache, CANARY).await.unwrap();
    assert_eq!(names(&folder).len(), 2, "code and digest, no scratch files: {:?}", names(&folder));

    // A compiler that cannot run shows that the second time needs none.
    let without = Cache::open(&folder, Path::new("/nonexistent/wayside")).unwrap();
    assert_eq!(compiled(&without, CANARY).await.unwrap(), first);
    let error = compiled(&without, b"\0asm something else").await.unwrap_err();
    assert!(error.contains("cannot be started"), "{error}");
}

#[tokio::test]
async fn a_damaged_entry_is_compiled_again() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path()).unwrap();
    let path = compiled(&cache, CANARY).await.unwrap();
    let good = fs::read(&path).unwrap();

    let mut damaged = good.clone();
    damaged[good.len() / 2] ^= 1;
    fs::write(&path, &damaged).unwrap();
    assert_eq!(compiled(&cache, CANARY).await.unwrap(), path);
    assert_ne!(fs::read(&path).unwrap(), damaged);

    fs::write(&path, &good[..good.len() / 2]).unwrap();
    compiled(&cache, CANARY).await.unwrap();
    assert_eq!(fs::read(&path).unwrap().len(), good.len());

    fs::remove_file(path.with_extension("sha256")).unwrap();
    compiled(&cache, CANARY).await.unwrap();
    assert!(path.with_extension("sha256").exists());
}

#[tokio::test]
async fn what_is_no_component_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cache = open(folder.path()).unwrap();
    for bytes in [&b""[..], b"hello", &CANARY[..CANARY.len() / 2]] {
        let error = compiled(&cache, bytes).await.unwrap_err();
        assert!(!error.is_empty() && !error.contains("crashed"), "{error}");
    }
    assert_eq!(names(folder.path()), Vec::<String>::new());
    let big = vec![0; usize::try_from(MAX_COMPONENT).unwrap() + 1];
    assert!(compiled(&cache, &big).await.unwrap_err().contains("larger than 64 MiB"));
}

/// What comes of a compiler that is this script. Written by a shell, since a file that this process has written may still
/// be open in another test's child and so not be startable.
async fn with_compiler(script: &str) -> Error {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("compiler");
    let write = format!("cat > '{0}' <<'END'\n#!/bin/sh\n{script}\nEND\nchmod +x '{0}'", program.display());
    assert!(std::process::Command::new("sh").args(["-c", &write]).status().unwrap().success());
    let cache = Cache::open(&folder.path().join("cache"), &program).unwrap();
    cache.compiled(CANARY, &digest::full(CANARY)).await.unwrap_err()
}

#[tokio::test]
async fn a_compiler_that_crashes_is_the_components_fault_and_one_that_is_killed_is_not() {
    let crashed = with_compiler("echo gone wrong >&2\nkill -SEGV $$").await;
    let Error::Component(said) = &crashed else { panic!("{crashed:?}") };
    assert!(said.contains("crashed") && said.contains("gone wrong"), "{said}");
    for (script, expected) in [
        ("echo half way >&2\nkill -9 $$", "killed"),
        ("kill -TERM $$", "ended"),
        ("echo 'x.scratch: No space left on device' >&2\nexit 3", "No space left"),
        ("exit 127", "could not"),
    ] {
        let error = with_compiler(script).await;
        assert!(matches!(&error, Error::System(said) if said.contains(expected)), "{script}: {error:?}");
    }
}

#[tokio::test]
async fn a_full_disk_is_the_systems_trouble() {
    // As large as files may get in a process: what a full disk does, without one.
    let script = format!("ulimit -f 8; exec '{}' \"$@\"", env!("CARGO_BIN_EXE_wayside"));
    let error = with_compiler(&script).await;
    assert!(matches!(&error, Error::System(_)), "{error:?}");
}

#[tokio::test]
async fn the_running_program_compiles_whatever_lies_in_its_place() {
    let program = this_program().unwrap();
    assert!(program.exists(), "{}", program.display());
    assert_eq!(program.canonicalize().unwrap(), std::env::current_exe().unwrap().canonicalize().unwrap());
}

#[tokio::test]
async fn where_no_folder_can_be_used_there_is_a_private_one() {
    let temporary = tempfile::tempdir().unwrap();
    let shared = temporary.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o2777)).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_wayside"));
    // As an `emptyDir` is, a folder inside of one, where nothing can be made, and where nothing can be written.
    for folder in [shared.clone(), shared.join("cache"), "/proc/cache".into(), "/proc/self/task".into()] {
        let cache = Cache::open_or_temporary(&folder, program).unwrap();
        let compiled = compiled(&cache, CANARY).await.unwrap();
        assert!(!compiled.starts_with(&shared) && !compiled.starts_with("/proc"), "{}", compiled.display());
        let place = compiled.parent().unwrap().to_owned();
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o700);
        drop(cache);
        assert!(!place.exists());
    }
}

#[tokio::test]
async fn what_a_killed_gateway_left_goes_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    // No process has such a number.
    let left = folder.path().join("4199999-0-in.scratch");
    fs::write(&left, CANARY).unwrap();
    open(folder.path()).unwrap();
    assert!(!left.exists());
}

#[tokio::test]
async fn a_folder_that_others_can_write_to_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("cache");
    let cache = open(&folder).unwrap();
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    for mode in [0o770, 0o702, 0o777] {
        fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
        assert!(open(&folder).unwrap_err().contains("chmod 700"));
        // Also when it happens later.
        assert!(compiled(&cache, CANARY).await.unwrap_err().contains("chmod 700"));
    }
}

#[tokio::test]
async fn a_folder_that_others_can_replace_is_refused() {
    let temporary = tempfile::tempdir().unwrap();
    let parent = temporary.path().join("parent");
    fs::create_dir(&parent).unwrap();
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(open(&parent.join("cache")).unwrap_err().contains("may replace"));
    // As /tmp is: what is ours stays ours.
    fs::set_permissions(&parent, fs::Permissions::from_mode(0o1777)).unwrap();
    open(&parent.join("cache")).unwrap();
}

#[tokio::test]
async fn what_nobody_uses_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let path = compiled(&open(folder.path()).unwrap(), CANARY).await.unwrap();
    let age = |age: u64| {
        let file = fs::File::options().append(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
    };
    age(29 * 24 * 3600);
    let before = modified(&path);
    compiled(&open(folder.path()).unwrap(), CANARY).await.unwrap();
    assert!(modified(&path) > before, "used is young again");
    age(31 * 24 * 3600);
    open(folder.path()).unwrap();
    assert!(!path.exists());
}
