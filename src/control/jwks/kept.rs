//! A set of keys as it was fetched last, on disk: a gateway that starts while the issuer is away goes on verifying. One
//! private file for each URL, written beside and renamed; its time is when the set was confirmed. Public keys are no
//! secret, but whoever could change them could sign: what lies there must be ours alone to write.

use crate::base::{digest, files};
use crate::service::middleware::jwt::{BYTES, Remote};
use serde::{Deserialize, Serialize};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The largest file, bytes: as text, a set takes somewhat more than by itself.
const LARGEST: u64 = 4 * BYTES as u64;

/// What is in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    url: String,
    /// Of the authorities that its server was trusted by: by others, nothing is known.
    ca: Option<String>,
    /// As they were fetched.
    keys: String,
}

/// One set's file.
#[derive(Debug, Clone)]
pub(super) struct KeptKeys {
    file: PathBuf,
    of: Record,
    /// It could not be written, which was told.
    failing: bool,
}

impl KeptKeys {
    /// In this folder, which is made when there is something to keep.
    pub(super) fn of(folder: &Path, remote: &Remote) -> Self {
        let ca = remote.ca.as_ref().map(|pem| digest::full(pem.as_bytes()));
        let name = format!("{}\0{}", remote.url, ca.as_deref().unwrap_or(""));
        let file = folder.join(format!("jwks-{}.json", digest::short(name.as_bytes())));
        KeptKeys { file, of: Record { url: remote.url.clone(), ca, keys: String::new() }, failing: false }
    }

    /// The set, and when it was confirmed. None: there is none that can be read, which is as good as none.
    pub(super) async fn read(&mut self) -> Option<(String, SystemTime)> {
        let file = self.file.clone();
        let read = move || Some((files::read(&file, LARGEST).ok()?, std::fs::metadata(&file).ok()?.modified().ok()?));
        let (bytes, confirmed) = tokio::task::spawn_blocking(read).await.ok()??;
        let kept: Record = serde_json::from_slice(&bytes).ok()?;
        if (&kept.url, &kept.ca) != (&self.of.url, &self.of.ca) {
            return None;
        }
        self.of.keys.clone_from(&kept.keys);
        Some((kept.keys, confirmed))
    }

    /// These were fetched just now. Written where they are others than on disk; else their time is.
    pub(super) async fn keep(&mut self, keys: &str) {
        let is_new = self.of.keys != keys;
        if is_new {
            keys.clone_into(&mut self.of.keys);
        }
        let (file, of) = (self.file.clone(), is_new.then(|| self.of.clone()));
        let written = tokio::task::spawn_blocking(move || match of {
            Some(of) => write(&file, &of),
            None => files::confirm(&file, SystemTime::now()),
        });
        match written.await.map_err(io::Error::other).flatten() {
            Ok(()) => self.failing = false,
            Err(problem) => {
                // All of it is written the next time.
                self.of.keys.clear();
                if !std::mem::replace(&mut self.failing, true) {
                    let (url, file) = (&self.of.url, self.file.display());
                    tracing::warn!(url, %file, %problem, "keys cannot be kept for the next start; see `gateway.state_directory`");
                }
            }
        }
    }
}

fn write(file: &Path, of: &Record) -> io::Result<()> {
    if let Some(folder) = file.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    files::put(file, &serde_json::to_vec(of).map_err(io::Error::other)?, SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    fn remote(url: &str, ca: Option<&str>) -> Remote {
        Remote { url: url.to_owned(), ca: ca.map(str::to_owned), refresh: Duration::from_secs(600) }
    }

    #[tokio::test]
    async fn what_was_fetched_is_read_by_whoever_trusts_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("state");
        let of = |url, ca| KeptKeys::of(&folder, &remote(url, ca));
        let mut kept = of("https://a/keys", None);
        assert_eq!(kept.read().await, None);
        kept.keep("one \"set\"").await;
        let (keys, confirmed) = of("https://a/keys", None).read().await.unwrap();
        assert_eq!(keys, "one \"set\"");
        assert!(confirmed.elapsed().unwrap() < Duration::from_secs(3600));
        for mut other in [of("https://b/keys", None), of("https://a/keys", Some("pem"))] {
            assert_eq!(other.read().await, None);
            // Not even under its name.
            std::fs::copy(&kept.file, &other.file).unwrap();
            assert_eq!(other.read().await, None);
        }
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&kept.file), mode(&folder)), (0o600, 0o700));
        // Confirmed later, by one that has read it; then another set.
        files::confirm(&kept.file, SystemTime::UNIX_EPOCH).unwrap();
        let mut again = of("https://a/keys", None);
        assert_eq!(again.read().await, Some((keys.clone(), SystemTime::UNIX_EPOCH)));
        again.keep(&keys).await;
        assert!(of("https://a/keys", None).read().await.unwrap().1 > SystemTime::UNIX_EPOCH);
        again.keep("another").await;
        assert_eq!(of("https://a/keys", None).read().await.unwrap().0, "another");
        // Gone meanwhile, all of it is written the next time.
        std::fs::remove_file(&again.file).unwrap();
        again.keep("another").await;
        again.keep("another").await;
        assert_eq!(of("https://a/keys", None).read().await.unwrap().0, "another");
    }

    proptest! {
        #[test]
        fn whatever_lies_there_is_a_set_or_none(bytes: Vec<u8>, cut in 0..80_usize) {
            let folder = tempfile::tempdir().unwrap();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut kept = KeptKeys::of(folder.path(), &remote("https://a/keys", None));
            let good = serde_json::to_vec(&Record { keys: "a set".into(), ..kept.of.clone() }).unwrap();
            for bytes in [&bytes[..], &good[..cut.min(good.len())]] {
                std::fs::write(&kept.file, bytes).unwrap();
                let keys = runtime.block_on(kept.read()).map(|(keys, _)| keys);
                prop_assert_eq!(keys.is_some(), bytes == good);
            }
        }
    }
}
