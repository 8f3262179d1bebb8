//! A password or token that a registry wants: a value of the configuration, or a file that is read each time, so that a
//! new one needs no restart.

use crate::base::files;
use crate::base::secret::Secret;
use std::path::{Path, PathBuf};

/// None is longer, bytes.
const BYTES: u64 = 64 << 10;

/// Where a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// As the configuration calls it.
    key: &'static str,
    from: From,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum From {
    Value(Secret),
    File(PathBuf),
}

impl Credential {
    /// What `key` says, or `key_file`; one of them at most.
    ///
    /// # Errors
    /// Both are there, or there is nothing in it.
    pub fn of(key: &'static str, value: Option<Secret>, file: Option<PathBuf>) -> Result<Option<Self>, String> {
        match (value, file) {
            (Some(_), Some(_)) => Err(format!("`{key}` and `{key}_file` exclude each other")),
            (Some(value), None) if value.expose().trim().is_empty() => Err(format!("`{key}` is empty")),
            (Some(value), None) => Ok(Some(Credential { key, from: From::Value(value) })),
            (None, Some(file)) => Ok(Some(Credential { key, from: From::File(file) })),
            (None, None) => Ok(None),
        }
    }

    /// The same, where a relative path is relative to this folder.
    pub fn at(mut self, folder: &Path) -> Self {
        if let From::File(file) = &mut self.from {
            *file = folder.join(&*file);
        }
        self
    }

    /// The secret as it is now; white space around that of a file is dropped.
    ///
    /// # Errors
    /// The file cannot be read, or is empty.
    pub async fn read(&self) -> Result<Secret, String> {
        match &self.from {
            From::Value(value) => Ok(value.clone()),
            From::File(file) => {
                let told = |problem: &str| format!("{}_file {}: {problem}", self.key, file.display());
                let text = files::read_text_beside(file, BYTES).await;
                let text = text.map_err(|error| told(&format!("cannot be read: {error}")))?;
                // To ask without one may be answered with an empty list, not with an error.
                if text.trim().is_empty() { Err(told("is empty")) } else { Ok(Secret::new(text.trim())) }
            }
        }
    }
}
