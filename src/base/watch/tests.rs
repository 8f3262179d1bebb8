use super::*;
use std::os::unix::fs::symlink;

const LONG: Duration = Duration::from_secs(20);

async fn changed(changes: &mut Changes) {
    timeout(LONG, changes.next()).await.expect("a change");
}

/// Nothing more comes. What came before may be told late on a busy machine.
async fn calm(changes: &mut Changes) {
    for _ in 0..5 {
        if timeout(Duration::from_millis(300), changes.next()).await.is_err() {
            return;
        }
    }
    panic!("changes without end");
}

/// Instances of inotify that this process has.
fn instances() -> usize {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let targets = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    targets.filter(|target| target.as_os_str() == "anon_inode:inotify").count()
}

#[tokio::test]
async fn many_watches_need_one_instance_and_each_hears_of_its_own_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut one = files((0..100).map(|n| path(&format!("one-{n}"))));
    let mut two = file(&path("two"));
    let mut all = directory(folder.path());
    for changes in [&mut one, &mut two, &mut all] {
        changes.begun().await;
    }
    assert!(instances() <= 1, "{}", instances());
    // All of them are one change.
    for n in 0..100 {
        std::fs::write(path(&format!("one-{n}")), "x").unwrap();
    }
    changed(&mut one).await;
    changed(&mut all).await;
    calm(&mut two).await;
    calm(&mut one).await;
    std::fs::write(path("new"), "x").unwrap();
    std::fs::rename(path("new"), path("two")).unwrap();
    changed(&mut two).await;
    calm(&mut one).await;
}

#[tokio::test]
async fn a_watch_that_begins_misses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut changes = file(&folder.path().join("a"));
    // Who has not waited for its beginning is told once in any case.
    changed(&mut changes).await;
    calm(&mut changes).await;
}

#[tokio::test]
async fn a_folder_that_goes_and_comes_back_is_still_watched() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().join("folder");
    let (a, new) = (folder.join("a"), temporary.path().join("new"));
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(&a, "1").unwrap();
    let (mut changes, mut all) = (file(&a), directory(&folder));
    changes.begun().await;
    all.begun().await;
    std::fs::remove_dir_all(&folder).unwrap();
    changed(&mut changes).await;
    changed(&mut all).await;
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(&a, "2").unwrap();
    changed(&mut changes).await;
    changed(&mut all).await;
    // Another one in its place.
    std::fs::create_dir(&new).unwrap();
    std::fs::write(new.join("a"), "3").unwrap();
    std::fs::rename(&folder, temporary.path().join("old")).unwrap();
    std::fs::rename(&new, &folder).unwrap();
    changed(&mut changes).await;
    changed(&mut all).await;
    std::fs::write(&a, "4").unwrap();
    changed(&mut changes).await;
    changed(&mut all).await;
}

#[tokio::test]
async fn a_link_is_followed_wherever_it_changes() {
    let temporary = tempfile::tempdir().unwrap();
    let path = |name: &str| temporary.path().join(name);
    for folder in ["mounted", "mounted/..1", "mounted/..2", "other"] {
        std::fs::create_dir(path(folder)).unwrap();
    }
    for file in ["mounted/..1/a", "mounted/..2/a", "other/b"] {
        std::fs::write(path(file), "x").unwrap();
    }
    symlink("..1", path("mounted/..data")).unwrap();
    symlink("..data/a", path("mounted/a")).unwrap();
    symlink("../other/b", path("mounted/b")).unwrap();
    let (mut a, mut b) = (file(&path("mounted/a")), file(&path("mounted/b")));
    a.begun().await;
    b.begun().await;
    symlink("..2", path("mounted/..new")).unwrap();
    std::fs::rename(path("mounted/..new"), path("mounted/..data")).unwrap();
    std::fs::remove_dir_all(path("mounted/..1")).unwrap();
    changed(&mut a).await;
    // Nobody touches the folder of the link.
    std::fs::write(path("other/b"), "y").unwrap();
    changed(&mut b).await;
    std::fs::write(path("mounted/..2/a"), "y").unwrap();
    changed(&mut a).await;
}

#[tokio::test]
async fn the_files_that_are_watched_can_become_others() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let mut changes = file(&a);
    changes.begun().await;
    changes.follow([a.clone()]);
    calm(&mut changes).await;
    changes.follow([b.clone()]);
    // Nobody knows what happened to it until now.
    changed(&mut changes).await;
    std::fs::write(&b, "x").unwrap();
    changed(&mut changes).await;
    std::fs::write(&a, "x").unwrap();
    calm(&mut changes).await;
}

#[tokio::test]
async fn a_wait_that_is_broken_off_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let a = folder.path().join("a");
    let mut changes = file(&a);
    changes.begun().await;
    std::fs::write(&a, "x").unwrap();
    for _ in 0..20 {
        if timeout(Duration::from_millis(20), changes.next()).await.is_ok() {
            return;
        }
    }
    changed(&mut changes).await;
}
