//! `jwt` with keys and signatures of `openssl`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::gateway::Gateway;
use crate::support::program::{echo, get_as, until};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

pub(super) fn openssl(folder: &Path, arguments: &[&str]) -> Vec<u8> {
    let ran = Command::new("openssl").current_dir(folder).args(arguments).output().unwrap();
    assert!(ran.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    ran.stdout
}

pub(super) fn rsa(folder: &Path, name: &str) -> String {
    openssl(folder, &["genrsa", "-out", name, "2048"]);
    let modulus = String::from_utf8(openssl(folder, &["rsa", "-in", name, "-modulus", "-noout"])).unwrap();
    let hex = modulus.trim().strip_prefix("Modulus=").unwrap();
    let bytes: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    format!(r#"{{"kty":"RSA","kid":"{name}","alg":"RS256","use":"sig","n":"{}","e":"AQAB"}}"#, BASE64.encode(bytes))
}

pub(super) fn ed25519(folder: &Path, name: &str) -> String {
    openssl(folder, &["genpkey", "-algorithm", "ed25519", "-out", name]);
    let der = openssl(folder, &["pkey", "-in", name, "-pubout", "-outform", "DER"]);
    format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"{name}","x":"{}"}}"#, BASE64.encode(&der[der.len() - 32..]))
}

pub(super) fn p256(folder: &Path, name: &str) -> String {
    openssl(folder, &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", name]);
    let der = openssl(folder, &["pkey", "-in", name, "-pubout", "-outform", "DER"]);
    // An uncompressed point at its end (SEC 1 §2.3.3).
    let (x, y) = der[der.len() - 64..].split_at(32);
    let (x, y) = (BASE64.encode(x), BASE64.encode(y));
    format!(r#"{{"kty":"EC","crv":"P-256","kid":"{name}","use":"sig","alg":"ES256","x":"{x}","y":"{y}"}}"#)
}

/// The two numbers of a signature as `openssl` writes them (RFC 3279 §2.2.3), as tokens have them (RFC 7518 §3.4).
fn plain(der: &[u8]) -> Vec<u8> {
    let first = &der[4..4 + usize::from(der[3])];
    let second = &der[6 + first.len()..];
    let number = |bytes: &[u8]| {
        let digits = &bytes[bytes.len().saturating_sub(32)..];
        [vec![0; 32 - digits.len()], digits.to_vec()].concat()
    };
    [number(first), number(second)].concat()
}

pub(super) fn token(folder: &Path, key: &str, algorithm: &str, claims: &str) -> String {
    let header = format!(r#"{{"alg":"{algorithm}","kid":"{key}","typ":"JWT"}}"#);
    let message = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    std::fs::write(folder.join("message"), &message).unwrap();
    let signature = match algorithm {
        "EdDSA" => openssl(folder, &["pkeyutl", "-sign", "-inkey", key, "-rawin", "-in", "message"]),
        "HS256" => openssl(folder, &["dgst", "-sha256", "-hmac", "public", "-binary", "message"]),
        "ES256" => plain(&openssl(folder, &["dgst", "-sha256", "-sign", key, "message"])),
        "none" => Vec::new(),
        _ => openssl(folder, &["dgst", "-sha256", "-sign", key, "message"]),
    };
    format!("{message}.{}", BASE64.encode(signature))
}

pub(super) fn claims(subject: &str, changes: &[(&str, serde_json::Value)]) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let mut claims = serde_json::json!({
        "sub": subject, "iss": "https://id.example", "aud": ["shop", "bank"], "exp": now + 600, "role": ["admin"],
    });
    for (name, value) in changes {
        claims[*name] = value.clone();
    }
    claims.to_string()
}

#[test]
fn a_token_of_the_issuer_opens_and_none_other_does() {
    let gateway = Gateway::with().endpoint(echo()).table(
        "[[middleware]]\nmatch = { path_prefix = \"/api\" }\njwt = { jwks_file = \"keys.json\", issuer = \
         \"https://id.example\", audience = \"shop\", require = [\"role\"], cookie = \"session\", \
         headers = { x-auth-subject = \"sub\", x-auth-role = \"role\" } }\n",
    );
    let keys = tempfile::tempdir().unwrap();
    let folder = keys.path();
    let set = [rsa(folder, "one"), ed25519(folder, "two"), p256(folder, "three")].join(",");
    let set = format!("{{\"keys\":[{set}]}}");
    let other = rsa(folder, "other");
    let gateway = gateway.file("keys.json", &set).start();
    let ask = |headers: &[(&str, &str)]| get_as(&gateway.address, "a", "/api/x", headers).to_ascii_lowercase();
    let with = |token: &str| ask(&[("authorization", &format!("Bearer {token}")), ("x-auth-role", "forged")]);
    for (key, algorithm) in [("one", "RS256"), ("two", "EdDSA"), ("three", "ES256")] {
        let good = token(folder, key, algorithm, &claims("ada", &[]));
        let seen = with(&good);
        assert!(seen.starts_with("http/1.1 200") && seen.contains("x-auth-subject: ada"), "{seen}");
        assert!(seen.contains("x-auth-role: [\"admin\"]") && !seen.contains("forged"), "{seen}");
        assert!(ask(&[("cookie", &format!("a=b; session={good}"))]).starts_with("http/1.1 200"));
    }
    let nobody = ask(&[]);
    assert!(
        nobody.starts_with("http/1.1 401") && nobody.contains("www-authenticate: bearer realm=\"wayside\"\r\n"),
        "{nobody}"
    );
    let signed = |changes: &[(&str, serde_json::Value)]| token(folder, "one", "RS256", &claims("ada", changes));
    let mut broken = signed(&[]);
    let at = broken.len() - 20;
    let other_one = if broken.as_bytes()[at] == b'A' { "B" } else { "A" };
    broken.replace_range(at..=at, other_one);
    for (token, problem) in [
        (signed(&[("exp", 1000.into())]), "the token has expired"),
        (signed(&[("exp", serde_json::Value::Null)]), "lacks a claim"),
        (signed(&[("nbf", 4_000_000_000_u64.into())]), "not valid yet"),
        (signed(&[("iss", "https://evil.example".into())]), "another issuer"),
        (signed(&[("iss", serde_json::Value::Null)]), "lacks a claim"),
        (signed(&[("aud", "else".into())]), "for somebody else"),
        (signed(&[("aud", serde_json::Value::Null)]), "lacks a claim"),
        (signed(&[("role", serde_json::Value::Null)]), "lacks a claim"),
        (token(folder, "other", "RS256", &claims("ada", &[])), "key is not known"),
        // Its own algorithm, and the key's as a secret; and none at all.
        (token(folder, "one", "HS256", &claims("ada", &[])), "algorithm is not allowed"),
        (token(folder, "one", "none", &claims("ada", &[])), "no token that can be read"),
        (token(folder, "two", "EdDSA", &claims("ada", &[])).replace("eyJ", "eyK"), "no token that can be read"),
        (broken, "signature is wrong"),
        ("a.b.c".to_owned(), "no token that can be read"),
    ] {
        let refused = with(&token);
        assert!(
            refused.starts_with("http/1.1 401") && refused.contains("error=\"invalid_token\""),
            "{problem}: {refused}"
        );
        assert!(refused.contains(problem), "{problem}: {refused}");
    }
    // Other keys: whoever has the old ones is out.
    let new = token(folder, "other", "RS256", &claims("eve", &[]));
    std::fs::write(gateway.folder().join("keys.json"), format!("{{\"keys\":[{other}]}}")).unwrap();
    until("the new key opens", || with(&new).starts_with("http/1.1 200"));
    assert!(with(&signed(&[])).starts_with("http/1.1 401"));
    std::fs::write(gateway.folder().join("keys.json"), "{").unwrap();
    until("the file is refused", || gateway.ask("/snapshot").contains("is no JSON Web Key Set"));
    assert!(with(&new).starts_with("http/1.1 200"));
}
