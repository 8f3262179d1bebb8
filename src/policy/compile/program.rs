//! Which program compiles: the very one that runs, whatever lies in its place by now.

use std::path::{Path, PathBuf};

/// The running program itself, also after an upgrade has replaced or deleted its file: code from another build of it
/// would not be loaded.
const RUNNING: &str = "/proc/self/exe";

/// The program that runs, for starting it once more.
///
/// # Errors
/// It cannot be found: there is no `/proc`, and it was started by a name that leads nowhere.
pub fn this_program() -> Result<PathBuf, String> {
    let running = Path::new(RUNNING);
    if running.exists() {
        return Ok(running.to_owned());
    }
    std::env::current_exe().or_else(|error| {
        let named = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
        find(&named, std::env::var_os("PATH").as_deref())
            .ok_or_else(|| format!("the program cannot find itself: {error}"))
    })
}

/// As the shell that started it did.
fn find(named: &Path, path: Option<&std::ffi::OsStr>) -> Option<PathBuf> {
    if named.components().count() > 1 {
        return named.canonicalize().ok();
    }
    let folders = std::env::split_paths(path?).map(|folder| folder.join(named));
    folders.into_iter().find(|candidate| candidate.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_proc_it_is_found_as_a_shell_would() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("wayside");
        std::fs::write(&program, "").unwrap();
        let path = std::env::join_paths([Path::new("/nonexistent"), folder.path()]).unwrap();
        assert_eq!(find(Path::new("wayside"), Some(&path)), Some(program.clone()));
        assert_eq!(find(&program, None), program.canonicalize().ok());
        assert_eq!(find(Path::new("other"), Some(&path)), None);
    }
}
