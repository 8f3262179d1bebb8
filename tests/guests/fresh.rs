//! A prebuilt component names the sources that it was built from; scripts/guests writes that down the same way.

use std::fs;
use std::path::{Path, PathBuf};
use wayside::base::digest;

/// As the section begins: id 0, 80 bytes, a name of 15 bytes.
const SECTION: &[u8] = b"\0\x50\x0fwayside:sources";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    entries.flat_map(|entry| files(&entry.unwrap().path())).collect()
}

/// SHA-256 over one line `DIGEST  PATH` for each file.
fn digest_of(paths: &[String]) -> String {
    let mut names: Vec<String> = paths
        .iter()
        .flat_map(|path| files(&root().join(path)))
        .map(|file| file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    let line = |name: &String| format!("{}  {name}\n", digest::full(&fs::read(root().join(name)).unwrap()));
    digest::full(names.iter().map(line).collect::<String>().as_bytes())
}

fn assert_fresh(component: &str, sources: &[String]) {
    let bytes =
        fs::read(root().join(component)).unwrap_or_else(|e| panic!("{component}: {e}; run scripts/guests --prebuilt"));
    let end = bytes.len() - SECTION.len() - 64;
    assert_eq!(
        &bytes[end..end + SECTION.len()],
        SECTION,
        "{component} names no sources; run scripts/guests --prebuilt"
    );
    let named = std::str::from_utf8(&bytes[end + SECTION.len()..]).unwrap();
    assert_eq!(named, digest_of(sources), "{component} is older than its sources; run scripts/guests --prebuilt");
}

#[test]
fn prebuilt_examples_are_as_new_as_their_sources() {
    for name in ["canary", "tenant", "sticky", "least-loaded"] {
        let sources = ["Cargo.toml", "Cargo.lock", &format!("{name}/Cargo.toml"), &format!("{name}/src")]
            .map(|path| format!("guest-examples/{path}"));
        let sources = [vec!["wit/policy.wit".to_owned()], sources.to_vec()].concat();
        assert_fresh(&format!("guest-examples/prebuilt/{name}.wasm"), &sources);
    }
}

#[test]
fn guests_for_tests_are_as_new_as_their_sources() {
    for (name, parts) in [
        ("hostile", &["Cargo.toml", "Cargo.lock", "src", "wit"][..]),
        ("obedient", &["Cargo.toml", "Cargo.lock", "src"]),
    ] {
        let sources = parts.iter().map(|path| format!("tests/guests/{name}/{path}"));
        let sources: Vec<String> = std::iter::once("wit/policy.wit".to_owned()).chain(sources).collect();
        assert_fresh(&format!("tests/guests/{name}.wasm"), &sources);
    }
}

#[test]
fn every_example_has_a_good_sidecar() {
    for name in ["canary", "tenant", "sticky", "least-loaded"] {
        let text = fs::read_to_string(root().join(format!("guest-examples/{name}/{name}.toml"))).unwrap();
        wayside::policy::sidecar::parse(&text).unwrap_or_else(|e| panic!("{name}.toml: {e}"));
    }
}
