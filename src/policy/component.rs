//! Looks at a component before it is compiled, and says in plain words what is wrong with it.

use std::borrow::Cow;

/// The version of `wayside:policy` that this gateway speaks.
const OURS: (u64, u64, u64) = (0, 1, 0);
/// WASI packages that policies find here, empty as they are.
const WASI: [&str; 6] = ["cli", "clocks", "filesystem", "io", "random", "sockets"];
const PACKAGE: &str = "wayside:policy/";

/// Gives a component that this gateway can link, made from a core module if need be.
pub(super) fn prepare(bytes: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    let component = match bytes.get(..8) {
        Some([0, b'a', b's', b'm', _, _, 1, 0]) => Cow::Borrowed(bytes),
        Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => Cow::Owned(componentize(bytes)?),
        _ => return Err("is not WebAssembly".into()),
    };
    let names = names(&component)?;
    check(&names)?;
    Ok(component)
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

fn check(names: &Names) -> Result<(), String> {
    for name in names.imports.iter().chain(&names.exports) {
        let (interface, version) = name.split_once('@').unwrap_or((name, ""));
        if interface.starts_with(PACKAGE) {
            check_version(version)?;
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
    Ok(())
}

/// Within 0.1, a component for an older gateway loads, and one for a newer gateway might, if it uses nothing new.
fn check_version(version: &str) -> Result<(), String> {
    let (major, minor, patch) = OURS;
    let mut parts = version.split('.').map(|part| part.parse::<u64>().ok());
    let theirs = (parts.next().flatten(), parts.next().flatten());
    if theirs != (Some(major), Some(minor)) {
        return Err(format!(
            "was built for wayside:policy@{version}, this gateway speaks {major}.{minor}.{patch}: build it with the WIT of \
             this gateway"
        ));
    }
    Ok(())
}
