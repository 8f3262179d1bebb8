//! `wayside policy`: begins a policy in Rust, and builds one, wherever a compiler for it can be had; and what a running
//! gateway has of versions.

mod versions;

use super::out;
use crate::policy::Engine;
use anyhow::{Context, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Knows how to get a Rust compiler for WebAssembly; `make guests` runs the same file.
const TOOLCHAIN: &str = include_str!("../../scripts/wasm-toolchain");

/// What a new policy is made of, NAME standing for its name.
const TEMPLATE: [(&str, &str); 6] = [
    ("Cargo.toml", include_str!("policy/template/Cargo.toml.txt")),
    ("src/lib.rs", include_str!("policy/template/lib.rs.txt")),
    ("NAME.toml", include_str!("policy/template/sidecar.toml.txt")),
    ("wit/policy.wit", include_str!("../../wit/policy.wit")),
    ("README.md", include_str!("policy/template/README.md.txt")),
    (".gitignore", "/target\n*.wasm\n"),
];

/// Write and build policies, and see to the versions of a running gateway.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Begin a policy in Rust: a crate in a new folder
    New {
        /// Names the folder, the crate and the component
        name: String,
    },
    /// Build a policy in Rust into a component
    Build {
        /// The crate's folder
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// Where the component goes [default: NAME.wasm in the crate's folder]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Show the policies of a running gateway, and which versions answer
    List(versions::Asked),
    /// Show one policy and all its versions that are known, with when they answered and why they must not
    #[command(after_help = versions::SEMANTICS)]
    Show(versions::Named),
    /// Let a version answer: the canary that is under way, what the directory holds, or VERSION
    #[command(after_help = versions::SEMANTICS)]
    Promote(versions::Promote),
    /// Let the good version before this one answer, or end the canary that is under way
    #[command(after_help = versions::SEMANTICS)]
    Rollback(versions::Rollback),
    /// Never let VERSION answer again, however often it is copied into the directory
    #[command(after_help = versions::SEMANTICS)]
    Quarantine(versions::Quarantine),
}

/// Runs the command; what it did goes to standard output, progress to standard error.
///
/// # Errors
/// What went wrong, with the file, and what to do.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::New { name } => {
            create(Path::new(&name), &name)?;
            out::say(format_args!(
                "{name}/src/lib.rs is your policy, {name}/wit/policy.wit says what it can ask and do"
            ));
            out::say(format_args!("next: wayside policy build {name}"));
        }
        Command::Build { dir, out: to } => {
            let built = build(&dir, to.as_deref())?;
            out::say(format_args!("{} {} bytes", built.display(), fs::metadata(&built)?.len()));
            let sidecar = built.with_extension("toml");
            let also = if sidecar.exists() { format!("{} and ", sidecar.display()) } else { String::new() };
            out::say(format_args!("next: copy {also}{} to the gateway's policy directory", built.display()));
        }
        Command::List(asked) => versions::list(&asked)?,
        Command::Show(named) => versions::show(&named)?,
        Command::Promote(promote) => versions::promote(promote)?,
        Command::Rollback(rollback) => versions::rollback(rollback)?,
        Command::Quarantine(quarantine) => versions::quarantine(quarantine)?,
    }
    Ok(())
}

/// Writes a crate that builds into `folder`.
fn create(folder: &Path, name: &str) -> anyhow::Result<()> {
    let good = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_');
    ensure!(
        good,
        "`{name}` cannot name a policy: use lower-case letters, digits, `-` and `_`, beginning with a letter"
    );
    ensure!(!folder.exists(), "{} is there already; choose another name", folder.display());
    for (path, text) in TEMPLATE {
        let path = folder.join(path.replace("NAME", name));
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).with_context(|| format!("{} cannot be made", parent.display()))?;
        // The interface is not a template.
        let text = if path.ends_with("policy.wit") { text.to_owned() } else { text.replace("NAME", name) };
        fs::write(&path, text).with_context(|| format!("{} cannot be written", path.display()))?;
    }
    Ok(())
}

/// Builds the crate in `dir`. Gives the component's path.
fn build(dir: &Path, to: Option<&Path>) -> anyhow::Result<PathBuf> {
    let name = package_name(dir)?;
    let script = std::process::Command::new("bash")
        .args(["-c", TOOLCHAIN, "wayside policy build"])
        .arg(dir)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("bash cannot be started; `wayside policy build` needs it, and cargo")?;
    ensure!(script.status.success(), "{} was not built; the reason stands above", dir.display());
    let said = String::from_utf8_lossy(&script.stdout);
    let stem = name.replace('-', "_");
    let built = said.lines().map(Path::new).find(|path| path.file_stem().is_some_and(|s| *s == *stem));
    let Some(built) = built else {
        bail!(
            "{} gives no component; it needs `[lib]` with `crate-type = [\"cdylib\"]`",
            dir.join("Cargo.toml").display()
        )
    };
    let bytes = fs::read(built).with_context(|| format!("{} cannot be read", built.display()))?;
    let component = Engine::componentize(&bytes).map_err(|e| anyhow::anyhow!("{}: {e}", built.display()))?;
    let to = to.map_or_else(|| dir.join(format!("{name}.wasm")), Path::to_owned);
    place(&to, &component).with_context(|| format!("{} cannot be written", to.display()))?;
    Ok(to)
}

/// By rename: `to` may lie in a directory that a gateway watches.
fn place(to: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let name = to.file_name().context("it names no file")?.to_string_lossy();
    let part = to.with_file_name(format!(".{name}.part"));
    fs::write(&part, bytes)?;
    Ok(fs::rename(part, to)?)
}

fn package_name(dir: &Path) -> anyhow::Result<String> {
    let path = dir.join("Cargo.toml");
    let text = fs::read_to_string(&path)
        .with_context(|| format!("{} cannot be read; `wayside policy new NAME` makes a crate", path.display()))?;
    let manifest: toml::Table = toml::from_str(&text).with_context(|| format!("{} is no TOML", path.display()))?;
    let name = manifest.get("package").and_then(|package| package.get("name")).and_then(|name| name.as_str());
    name.map(str::to_owned).with_context(|| format!("{} has no `package.name`; name a crate's folder", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_policy_is_a_crate_with_a_good_sidecar() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = temporary.path().join("my-policy");
        create(&folder, "my-policy").unwrap();
        assert_eq!(package_name(&folder).unwrap(), "my-policy");
        let sidecar = fs::read_to_string(folder.join("my-policy.toml")).unwrap();
        assert_eq!(crate::policy::sidecar::parse(&sidecar).unwrap().config, "users-v2");
        // What is commented out is right, too.
        let all = sidecar.replace("\n# ", "\n");
        crate::policy::sidecar::parse(&all).unwrap();
        for file in ["src/lib.rs", "README.md"] {
            assert!(fs::read_to_string(folder.join(file)).unwrap().contains("my-policy.toml"), "{file}");
        }
        assert!(create(&folder, "my-policy").unwrap_err().to_string().contains("is there already"));
    }

    #[test]
    fn names_that_cargo_would_refuse_are_refused() {
        for name in ["", "My", "a b", "../x", "1st", ".x"] {
            assert!(create(Path::new("/nonexistent"), name).unwrap_err().to_string().contains("cannot name"));
        }
    }
}
