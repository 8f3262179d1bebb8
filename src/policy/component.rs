//! Looks at a component before it is compiled, and says in plain words what is wrong with it.

use std::borrow::Cow;

/// The version of `wayside:policy` that this gateway speaks.
const OURS: (u64, u64, u64) = (0, 1, 1);
/// WASI packages that policies find here, empty as they are.
const WASI: [&str; 6] = ["cli", "clocks", "filesystem", "io", "random", "sockets"];
const PACKAGE: &str = "wayside:policy/";

/// A component that may be compiled.
pub(super) struct Prepared<'a> {
    /// Made from a core module if need be.
    pub(super) bytes: Cow<'a, [u8]>,
    /// The version of `wayside:policy` that it was built for, if that is a newer one than ours.
    newer: Option<String>,
}

impl Prepared<'_> {
    /// Why it does not link, in our words where we have some.
    pub(super) fn explain(&self, problem: String) -> String {
        let (major, minor, patch) = OURS;
        match &self.newer {
            Some(newer) => format!(
                "was built for wayside:policy@{newer} and uses what this gateway's {major}.{minor}.{patch} does not have: \
                 {problem}"
            ),
            None => problem,
        }
    }
}

/// Looks a component over.
pub(super) fn prepare(bytes: &[u8]) -> Result<Prepared<'_>, String> {
    let component = match bytes.get(..8) {
        Some([0, b'a', b's', b'm', _, _, 1, 0]) => Cow::Borrowed(bytes),
        Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => Cow::Owned(componentize(bytes)?),
        _ => return Err("is not WebAssembly".into()),
    };
    let newer = check(&names(&component)?)?;
    Ok(Prepared { bytes: component, newer })
}

fn componentize(module: &[u8]) -> Result<Vec<u8>, String> {
    let problem = |error: anyhow::Error| format!("cannot be made a component: {error:#}");
    let typed = wit_component::metadata::decode(module).map_err(problem)?.0.is_some();
    if !typed {
        return Err(
            "is a core module without a component type: build it with wit-bindgen, or run `wasm-tools component \
                    embed` and `wasm-tools component new`"
                .into(),
        );
    }
    let encoder = wit_component::ComponentEncoder::default().module(module).map_err(problem)?;
    encoder.validate(true).encode().map_err(problem)
}

/// It imports WASI.
pub(super) fn uses_wasi(component: &wasmtime::component::Component) -> bool {
    component.component_type().imports(component.engine()).any(|(name, _)| name.starts_with("wasi:"))
}

/// Interfaces by name, as `wayside:policy/request@0.1.0`.
#[derive(Debug, Default)]
struct Names {
    imports: Vec<String>,
    exports: Vec<String>,
}

fn names(component: &[u8]) -> Result<Names, String> {
    let problem = |error: anyhow::Error| format!("is no valid component: {error:#}");
    let wit_component::DecodedWasm::Component(resolve, world) = wit_component::decode(component).map_err(problem)?
    else {
        return Err("is a WIT package, not a component".into());
    };
    let world = &resolve.worlds[world];
    Ok(Names {
        imports: world.imports.keys().map(|key| resolve.name_world_key(key)).collect(),
        exports: world.exports.keys().map(|key| resolve.name_world_key(key)).collect(),
    })
}

/// Gives the version of `wayside:policy` that it was built for, if that is newer than ours.
fn check(names: &Names) -> Result<Option<String>, String> {
    let mut newer = None;
    for name in names.imports.iter().chain(&names.exports) {
        let (interface, version) = name.split_once('@').unwrap_or((name, ""));
        if interface.starts_with(PACKAGE) && check_version(version)? {
            newer = Some(version.to_owned());
        }
    }
    for name in &names.imports {
        let (interface, version) = name.split_once('@').unwrap_or((name, ""));
        if interface.starts_with("wasi:http/") {
            return Err(format!(
                "imports `{name}`, but policies do no I/O: with componentize-js, turn it off by `--disable http --disable \
                 fetch-event` (`disableFeatures: ['http', 'fetch-event']`)"
            ));
        }
        let package = interface.split_once('/').map_or(interface, |(package, _)| package);
        let known = match package.strip_prefix("wasi:") {
            Some(wasi) => WASI.contains(&wasi) && version.starts_with("0.2."),
            None => interface.starts_with(PACKAGE),
        };
        if !known {
            return Err(format!("imports `{name}`, which this gateway does not have"));
        }
    }
    let routing = |name: &&String| name.split('@').next() == Some("wayside:policy/routing");
    if names.exports.iter().find(routing).is_none() {
        return Err("does not export `wayside:policy/routing`, so it is no policy".into());
    }
    Ok(newer)
}

/// Within 0.1, a component for an older gateway loads, and one for a newer gateway does if it uses nothing new. True:
/// it is for a newer one.
fn check_version(version: &str) -> Result<bool, String> {
    let (major, minor, patch) = OURS;
    let mut parts = version.split('.').map(|part| part.parse::<u64>().ok());
    let mut part = || parts.next().flatten();
    match (part(), part(), part()) {
        (Some(theirs), Some(their_minor), Some(their_patch)) if (theirs, their_minor) == (major, minor) => {
            Ok(their_patch > patch)
        }
        _ => Err(format!(
            "was built for wayside:policy@{version}, this gateway speaks {major}.{minor}.{patch}: build it with the WIT of \
             this gateway"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(imports: &[&str], exports: &[&str]) -> Names {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Names { imports: owned(imports), exports: owned(exports) }
    }

    const ROUTING: &str = "wayside:policy/routing@0.1.0";

    #[test]
    fn what_is_no_policy_is_told_so() {
        let cases = [
            (names(&["wasi:http/types@0.2.3"], &[ROUTING]), "disableFeatures"),
            (names(&["wayside:policy/request@0.2.0"], &[ROUTING]), "speaks 0.1.1"),
            (names(&["wayside:policy/request@1.1.0"], &[ROUTING]), "speaks 0.1.1"),
            (names(&[], &["wayside:policy/routing@0.2.0"]), "speaks 0.1.1"),
            (names(&["wasi:cli/stdout@0.3.0"], &[ROUTING]), "does not have"),
            (names(&["wasi:nn/tensor@0.2.0"], &[ROUTING]), "does not have"),
            (names(&["env"], &[ROUTING]), "imports `env`"),
            (names(&[], &["run"]), "no policy"),
        ];
        for (names, expected) in cases {
            let problem = check(&names).unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        }
    }

    #[test]
    fn older_newer_and_chatty_components_pass() {
        let exports = [ROUTING, "init", "wasi:cli/run@0.2.3"];
        let names = names(&["wayside:policy/request@0.1.0", "wasi:cli/stdout@0.2.3", "wasi:io/poll@0.2.6"], &exports);
        assert_eq!(check(&names), Ok(None));
        assert_eq!(check_version("0.1.7"), Ok(true));
    }

    #[test]
    fn files_that_are_no_components_are_told_so() {
        assert!(prepare(b"").err().unwrap().contains("not WebAssembly"));
        assert!(prepare(b"#!/bin/sh\necho hello").err().unwrap().contains("not WebAssembly"));
        let module = wat::parse_str("(module)").unwrap();
        assert!(prepare(&module).err().unwrap().contains("core module without a component type"));
        assert!(prepare(&module[..7]).err().unwrap().contains("not WebAssembly"));
        assert!(prepare(b"\0asm\x0d\0\x01\0garbage").err().unwrap().contains("no valid component"));
    }
}
