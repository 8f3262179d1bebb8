//! The house: every import runs down the wings, no files of a wing import each other in a circle, and `lib.rs` declares
//! the wings in their order. Reads the text of `src/`; what only tests use is not looked at.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on must fail")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// From the top down. Files beside `lib.rs` that are no wing stand on top of all.
const WINGS: [&str; 12] = [
    "cli",
    "gateway",
    "admin",
    "proxy",
    "control",
    "telemetry",
    "snapshot",
    "policy",
    "service",
    "discovery",
    "http",
    "base",
];
/// They stand side by side.
const APART: [&str; 2] = ["control", "telemetry"];

/// A module's path, such as `["http", "tls", "client"]`.
type Module = Vec<String>;

/// One import: where it stands, and the module that it takes something from.
struct Import {
    file: String,
    line: usize,
    from: Module,
    to: Module,
}

fn sources() -> BTreeMap<Module, PathBuf> {
    fn collect(folder: &Path, module: &Module, found: &mut BTreeMap<Module, PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if name == "tests" || name == "lib" || name == "main" {
                continue;
            }
            let module: Module = module.iter().cloned().chain([name]).collect();
            if path.is_dir() {
                collect(&path, &module, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.insert(module, path);
            }
        }
    }
    let mut found = BTreeMap::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &Module::new(), &mut found);
    found
}

/// Every path that begins with `crate`, `super` or `self`, or with a module declared in the same file: each with its line.
fn paths(text: &str) -> Vec<(usize, String)> {
    let text = text.split("#[cfg(test)]").next().unwrap();
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap();
        for (at, _) in code.match_indices("::") {
            let begins = |c: char| !(c.is_alphanumeric() || c == '_' || c == ':');
            let start = code[..at].rfind(begins).map_or(0, |i| i + 1);
            let first = &code[start..at];
            if first.contains(':') {
                continue;
            }
            let end = code[start..].find(begins).map_or(code.len(), |i| start + i);
            found.push((number + 1, code[start..end].to_owned()));
            // `use crate::http::{self, tls::client}`: what stands in the braces is taken from there as well.
            if let Some(inner) = code[end..].strip_prefix('{') {
                let inner = inner.split('}').next().unwrap();
                found
                    .extend(inner.split(',').map(|name| (number + 1, format!("{}{}", &code[start..end], name.trim()))));
            }
        }
    }
    found
}

fn imports(sources: &BTreeMap<Module, PathBuf>) -> Vec<Import> {
    let mut imports = Vec::new();
    for (module, path) in sources {
        let text = std::fs::read_to_string(path).unwrap();
        for (line, path_text) in paths(&text) {
            let mut parts: Vec<&str> = path_text.split("::").filter(|part| !part.is_empty()).collect();
            let mut base: Module = match parts.first() {
                Some(&"crate") => Module::new(),
                Some(&"super") => module[..module.len() - 1].to_vec(),
                Some(&"self") => module.clone(),
                Some(first) if sources.contains_key(&[module.as_slice(), &[(*first).to_owned()]].concat()) => {
                    parts.insert(0, "self");
                    module.clone()
                }
                _ => continue,
            };
            for part in &parts[1..] {
                if *part == "super" {
                    base.pop();
                    continue;
                }
                let next: Module = base.iter().cloned().chain([(*part).to_owned()]).collect();
                if !sources.contains_key(&next) {
                    break;
                }
                base = next;
            }
            if !base.is_empty() && base != *module {
                let file = path.display().to_string();
                imports.push(Import { file, line, from: module.clone(), to: base });
            }
        }
    }
    imports
}

fn place(module: &Module) -> usize {
    WINGS.iter().position(|wing| *wing == module[0]).unwrap_or_else(|| panic!("{} is in no wing", module.join("::")))
}

#[test]
fn every_import_runs_down_the_wings() {
    let sources = sources();
    let mut wrong = Vec::new();
    for Import { file, line, from, to } in imports(&sources) {
        let apart = APART.contains(&&*from[0]) && APART.contains(&&*to[0]) && from[0] != to[0];
        if place(&from) > place(&to) || apart {
            wrong.push(format!("{file}:{line}: {} imports {}", from[0], to.join("::")));
        }
    }
    assert!(wrong.is_empty(), "imports that run up:\n{}", wrong.join("\n"));
}

/// A parent and the files of its own folder are one room: they may name each other. Anything longer is a circle.
#[test]
fn no_files_import_each_other_in_a_circle() {
    let sources = sources();
    let mut edges: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for Import { from, to, .. } in imports(&sources) {
        if from.starts_with(&to) || to.starts_with(&from) {
            continue;
        }
        edges.entry(from).or_default().insert(to);
    }
    let mut over = BTreeSet::new();
    for start in edges.keys() {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&Module> = edges[start].iter().collect();
        while let Some(module) = open.pop() {
            if module == start {
                over.insert(start.join("::"));
                break;
            }
            if seen.insert(module) {
                open.extend(edges.get(module).into_iter().flatten());
            }
        }
    }
    assert!(over.is_empty(), "in circles: {over:?}");
}

#[test]
fn the_map_declares_the_wings_in_their_order() {
    let lib = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let declared: Vec<&str> = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert_eq!(declared, WINGS);
}
