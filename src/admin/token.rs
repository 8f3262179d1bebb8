//! What proves that somebody may change things: a token in a file that the gateway makes, and that only its own user can
//! read. Whoever can read that could do anything to the gateway anyway.

use crate::base::secret::Secret;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file's name, in `gateway.state_directory`.
pub const FILE: &str = "admin-token";
/// Random bytes of a token, which is their hex digits.
const BYTES: usize = 32;
/// A longer file is no token.
const LONGEST: u64 = 1024;

/// Where the token is, and what it is, as far as there is one.
#[derive(Debug, Clone)]
pub struct Token {
    /// The file.
    pub file: PathBuf,
    /// What is in it; else why nobody can prove anything.
    secret: Result<Secret, String>,
}

impl Token {
    /// The one in this folder, which is made if there is none.
    pub fn open(folder: &Path) -> Self {
        let file = folder.join(FILE);
        let secret = read(&file).and_then(|secret| match secret {
            Some(secret) => Ok(secret),
            None => make(folder, &file),
        });
        Token { secret: secret.map_err(|problem| format!("{}: {problem}", file.display())), file }
    }

    /// Is this it? Takes as long whatever is wrong with it.
    ///
    /// # Errors
    /// There is none that anybody could know.
    pub fn is(&self, given: &str) -> Result<bool, String> {
        let secret = self.secret.as_ref().map_err(Clone::clone)?;
        let same = aws_lc_rs::constant_time::verify_slices_are_equal(secret.expose().as_bytes(), given.as_bytes());
        Ok(same.is_ok())
    }
}

/// The token in a file, which must be ours alone. None: there is no such file.
///
/// # Errors
/// Why it is none.
pub fn read(file: &Path) -> Result<Option<Secret>, String> {
    let opened = match OpenOptions::new().read(true).open(file) {
        Ok(opened) => opened,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("it cannot be read: {error}")),
    };
    let metadata = opened.metadata().map_err(|error| format!("it cannot be read: {error}"))?;
    if !metadata.is_file() {
        return Err("it is no regular file".to_owned());
    }
    if metadata.mode() & 0o077 != 0 {
        return Err("other users may read it; delete it, and restart the gateway, which makes another one".to_owned());
    }
    let mut text = String::new();
    opened.take(LONGEST).read_to_string(&mut text).map_err(|error| format!("it cannot be read: {error}"))?;
    let text = text.trim();
    if text.len() < BYTES || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("it holds no token: that has {BYTES} characters or more, and no blanks among them"));
    }
    Ok(Some(Secret::new(text)))
}

fn make(folder: &Path, file: &Path) -> Result<Secret, String> {
    let failed = |error: std::io::Error| format!("it cannot be made: {error}; see `gateway.state_directory`");
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let mut bytes = [0_u8; BYTES];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "the system has no random numbers".to_owned())?;
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
    writeln!(made, "{text}").map_err(failed)?;
    Ok(Secret::new(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn it_is_made_once_for_us_alone() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("state");
        let token = Token::open(&folder);
        let text = std::fs::read_to_string(folder.join(FILE)).unwrap();
        assert_eq!(token.is(text.trim()), Ok(true));
        for wrong in ["", "x", &text, &text[..63]] {
            assert_eq!(token.is(wrong), Ok(false), "{wrong}");
        }
        assert_eq!(std::fs::metadata(folder.join(FILE)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Token::open(&folder).is(text.trim()), Ok(true), "it stays");
        assert!(!format!("{token:?}").contains(text.trim()));
    }

    #[test]
    fn one_that_others_may_read_proves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        Token::open(folder.path());
        let file = folder.path().join(FILE);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let problem = Token::open(folder.path()).is("x").unwrap_err();
        assert!(problem.contains("other users may read it"), "{problem}");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&file, "short").unwrap();
        assert!(Token::open(folder.path()).is("short").unwrap_err().contains("holds no token"));
        assert!(Token::open(Path::new("/proc/nowhere")).is("x").unwrap_err().contains("cannot be made"));
    }
}
