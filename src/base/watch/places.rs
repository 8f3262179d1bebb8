//! Where it shows that a path leads to another file now: in the folder of each link on the way, and in the file's own.

use super::is_hidden;
use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

/// As many links as Linux itself follows.
const LINKS: usize = 40;

/// Names by the folder that they stand in.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Places(HashMap<PathBuf, Names>);

#[derive(Debug, PartialEq, Eq)]
enum Names {
    These(HashSet<OsString>),
    /// All that are not hidden.
    Visible,
}

impl Places {
    /// What leads to this file. Where something on the way is missing, that is what is waited for.
    pub(super) fn add(&mut self, file: &Path) {
        // An error: there is no current folder any more, and no path from there.
        let Ok(file) = std::path::absolute(file) else { return };
        let mut rest: VecDeque<OsString> = parts(&file);
        let (mut folder, mut links) = (PathBuf::from("/"), 0);
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                folder.pop();
                continue;
            }
            let path = folder.join(&name);
            let link = match std::fs::symlink_metadata(&path) {
                Ok(found) if found.is_symlink() && links < LINKS => std::fs::read_link(&path).ok(),
                Ok(_) if !rest.is_empty() => {
                    folder = path;
                    continue;
                }
                _ => None,
            };
            self.insert(&folder, &name);
            let Some(target) = link else { return };
            links += 1;
            if target.is_absolute() {
                folder = PathBuf::from("/");
            }
            let mut parts = parts(&target);
            parts.append(&mut rest);
            rest = parts;
        }
    }

    /// What leads to this folder, and all visible names in it.
    pub(super) fn add_all_in(&mut self, folder: &Path) {
        self.add(folder);
        if let Ok(folder) = std::fs::canonicalize(folder) {
            self.0.insert(folder, Names::Visible);
        }
    }

    fn insert(&mut self, folder: &Path, name: &OsStr) {
        let names = self.0.entry(folder.to_owned()).or_insert_with(|| Names::These(HashSet::new()));
        if let Names::These(names) = names {
            names.insert(name.to_owned());
        }
    }

    /// The folders to watch.
    pub(super) fn folders(&self) -> impl Iterator<Item = &PathBuf> {
        self.0.keys()
    }

    /// Is what happened at this path of interest?
    pub(super) fn care(&self, path: &Path) -> bool {
        // The folder itself: it was moved or removed.
        self.0.contains_key(path)
            || match (path.parent().and_then(|folder| self.0.get(folder)), path.file_name()) {
                (Some(Names::These(names)), Some(name)) => names.contains(name),
                // Kubernetes swaps all files of a folder by renaming a `..data` link in it.
                (Some(Names::Visible), Some(name)) => !is_hidden(name) || name == "..data",
                _ => false,
            }
    }
}

/// What a path consists of, but for its root.
fn parts(path: &Path) -> VecDeque<OsString> {
    let part = |component: Component<'_>| match component {
        Component::Normal(_) | Component::ParentDir => Some(component.as_os_str().to_owned()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
    };
    path.components().filter_map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn of(file: &Path) -> Places {
        let mut places = Places::default();
        places.add(file);
        places
    }

    #[test]
    fn each_link_on_the_way_and_the_file_itself_are_of_interest() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().canonicalize().unwrap();
        // As Kubernetes mounts it.
        std::fs::create_dir(root.join("..2026")).unwrap();
        std::fs::write(root.join("..2026/a.toml"), "").unwrap();
        symlink("..2026", root.join("..data")).unwrap();
        symlink("..data/a.toml", root.join("a.toml")).unwrap();
        let places = of(&root.join("a.toml"));
        for name in ["a.toml", "..data", "..2026/a.toml"] {
            assert!(places.care(&root.join(name)), "{name}");
        }
        assert!(!places.care(&root.join("b.toml")) && !places.care(&root.join("..2026/b.toml")));
        assert_eq!(places.folders().count(), 2);
    }

    #[test]
    fn the_first_part_that_is_missing_is_waited_for() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().canonicalize().unwrap();
        let places = of(&root.join("new/folder/a.toml"));
        assert!(places.care(&root.join("new")) && !places.care(&root.join("new/folder")));
        // Also behind a link that leads nowhere, and on a way that goes up again.
        symlink("gone/a.toml", root.join("link")).unwrap();
        let places = of(&root.join("link"));
        assert!(places.care(&root.join("link")) && places.care(&root.join("gone")));
        std::fs::create_dir(root.join("sub")).unwrap();
        assert!(of(&root.join("sub/../a.toml")).care(&root.join("a.toml")));
    }

    #[test]
    fn links_in_a_circle_end() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().canonicalize().unwrap();
        symlink("b", root.join("a")).unwrap();
        symlink("a", root.join("b")).unwrap();
        let places = of(&root.join("a"));
        assert!(places.care(&root.join("a")) && places.care(&root.join("b")));
    }

    #[test]
    fn in_a_folder_all_but_hidden_names_are_of_interest() {
        let temporary = tempfile::tempdir().unwrap();
        let root = temporary.path().canonicalize().unwrap();
        let mut places = Places::default();
        places.add_all_in(&root);
        assert!(places.care(&root) && places.care(&root.join("a.wasm")) && places.care(&root.join("..data")));
        assert!(!places.care(&root.join(".a.wasm.part")));
    }
}
