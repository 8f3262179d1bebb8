//! Hashes of passwords as files list them: bcrypt, and SHA-crypt as `crypt(3)` writes it (`$5$`, `$6$`).

use std::collections::HashMap;

/// The most of what one verification may cost: bcrypt's cost, and rounds of SHA.
const COST: u32 = 14;
const ROUNDS: u32 = 1_000_000;

/// What a password is verified against.
#[derive(Clone)]
pub(super) enum Hash {
    Bcrypt(String),
    Sha(String),
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The hashes of a file, by name.
pub(super) fn users(text: &str) -> Result<HashMap<String, Hash>, String> {
    let mut users = HashMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
    {
        let at = |problem: &str| format!("line {}: {problem}", number + 1);
        let (name, hash) = line.trim().split_once(':').ok_or_else(|| at("is not `NAME:HASH`"))?;
        // It goes into a header.
        if name.is_empty() || name.len() > 255 || name.bytes().any(|byte| byte.is_ascii_control()) {
            return Err(at("the name is empty, too long, or has control characters"));
        }
        let hash = Hash::parse(hash).map_err(|problem| at(&problem))?;
        if users.insert(name.to_owned(), hash).is_some() {
            return Err(at("the name stands there twice"));
        }
    }
    Ok(users)
}

impl Hash {
    pub(super) fn parse(hash: &str) -> Result<Self, String> {
        let kind = hash.split('$').nth(1).unwrap_or_default();
        match kind {
            "2a" | "2b" | "2y" => {
                let parts = hash.parse::<bcrypt::HashParts>().map_err(|_| "is no hash of bcrypt".to_owned())?;
                if !(4..=COST).contains(&parts.get_cost()) {
                    return Err(format!("its cost is {}, and {COST} is the most", parts.get_cost()));
                }
                Ok(Hash::Bcrypt(hash.to_owned()))
            }
            "5" | "6" => {
                let rounds = hash.split('$').nth(2).and_then(|part| part.strip_prefix("rounds="));
                let rounds =
                    rounds.map_or(Ok(5000), str::parse::<u32>).map_err(|_| "`rounds=` needs a number".to_owned())?;
                if !(1000..=ROUNDS).contains(&rounds) {
                    return Err(format!("its rounds are {rounds}, and {ROUNDS} are the most"));
                }
                sha_crypt::PasswordHash::new(hash).map_err(|_| "is no hash of SHA-crypt".to_owned())?;
                Ok(Hash::Sha(hash.to_owned()))
            }
            "apr1" | "1" => Err("MD5 is too weak; write it again with `htpasswd -B`".to_owned()),
            _ => Err("is no hash that is taken (bcrypt, `$5$`, `$6$`); write it with `htpasswd -B`".to_owned()),
        }
    }

    /// In constant time, as far as the algorithm is.
    pub(super) fn verify(&self, password: &[u8]) -> bool {
        match self {
            Hash::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Hash::Sha(hash) => {
                use sha_crypt::PasswordVerifier;
                sha_crypt::ShaCrypt::default().verify_password(password, hash.as_str()).is_ok()
            }
        }
    }
}
