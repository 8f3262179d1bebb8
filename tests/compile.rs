//! Compiling policies in a child process, and the folder that keeps what came out.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use wayside::base::digest;
use wayside::policy::compile::{Cache, MAX_COMPONENT};

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

#[tokio::test]
async fn a_compiler_that_crashes_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("crash");
    fs::write(&script, "#!/bin/sh\necho gone wrong >&2\nkill -9 $$\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let cache = Cache::open(&folder.path().join("cache"), &script).unwrap();
    let error = compiled(&cache, CANARY).await.unwrap_err();
    assert!(error.contains("crashed") && error.contains("gone wrong"), "{error}");
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
