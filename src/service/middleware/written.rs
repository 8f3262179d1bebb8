//! A table of `[[middleware]]` as it is written, and the files that it names.

use super::{Kind, Middleware};
use super::{api_key, basic, compress::Compress, cors, forward_auth::ForwardAuth, jwt, mirror};
use super::{mirror::Mirror, redirect_https::RedirectHttps, request_id::RequestId};
use crate::base::{digest, files};
use crate::service::route::RawMatch;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of a name, which goes into each line of the access log that it is about.
const NAME: usize = 128;

/// A table of `[[middleware]]` as it is written; it has exactly one of the kinds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Written {
    /// For people; none: the kind, and what it matches.
    pub(super) name: Option<String>,
    /// Which requests it fits; default: every one.
    #[serde(rename = "match", default)]
    rule: RawMatch,
    request_id: Option<RequestId>,
    redirect_https: Option<RedirectHttps>,
    cors: Option<cors::Settings>,
    basic: Option<basic::Settings>,
    api_key: Option<api_key::Settings>,
    jwt: Option<jwt::Settings>,
    forward_auth: Option<ForwardAuth>,
    mirror: Option<Mirror>,
    compress: Option<Compress>,
}

/// What is read beside the configuration while it is checked.
#[derive(Debug, Default)]
pub struct Read {
    /// Each file.
    pub files: Vec<PathBuf>,
    /// Digests of what stood in them.
    pub digest: String,
}

impl Read {
    /// The text of a file that `key` names.
    pub(super) fn text(&mut self, key: &str, file: PathBuf, most: u64) -> Result<String, String> {
        let read = files::read_text(&file, most);
        let text = read.map_err(|error| format!("{key} {}: cannot be read: {error}", file.display()))?;
        self.digest.push_str(&digest::short(text.as_bytes()));
        self.files.push(file);
        Ok(text)
    }
}

impl Written {
    pub(super) fn check(
        self,
        folder: &Path,
        read: &mut Read,
        facts: &mut Vec<String>,
        is_service: &impl Fn(&str) -> bool,
    ) -> Result<Middleware, String> {
        let matcher = self.rule.check().map_err(|problem| format!("match.{problem}"))?;
        let mut kinds: Vec<Kind> = Vec::new();
        if let Some(settings) = self.request_id {
            settings.check().map_err(|problem| format!("request_id.{problem}"))?;
            kinds.push(Kind::RequestId(Arc::new(settings)));
        }
        if let Some(settings) = self.redirect_https {
            kinds.push(Kind::RedirectHttps(settings));
        }
        if let Some(settings) = self.cors {
            let cors = settings.check().map_err(|problem| format!("cors.{problem}"))?;
            kinds.push(Kind::Cors(Arc::new(cors)));
        }
        if let Some(settings) = self.basic {
            let basic = settings.check(folder, read).map_err(|problem| format!("basic.{problem}"))?;
            facts.push(basic.header.replace('_', "-"));
            kinds.push(Kind::Basic(Arc::new(basic)));
        }
        if let Some(settings) = self.api_key {
            let api_key = settings.check(folder, read).map_err(|problem| format!("api_key.{problem}"))?;
            facts.push(api_key.subject.replace('_', "-"));
            kinds.push(Kind::ApiKey(Arc::new(api_key)));
        }
        if let Some(settings) = self.jwt {
            let jwt = settings.check(folder, read).map_err(|problem| format!("jwt.{problem}"))?;
            facts.extend(jwt.headers.iter().map(|(header, _)| header.replace('_', "-")));
            kinds.push(Kind::Jwt(Arc::new(jwt)));
        }
        if let Some(settings) = self.forward_auth {
            settings.check(is_service).map_err(|problem| format!("forward_auth.{problem}"))?;
            facts.extend(settings.facts().map(|name| name.replace('_', "-")));
            kinds.push(Kind::ForwardAuth(Arc::new(settings)));
        }
        if let Some(settings) = self.mirror {
            settings.check(is_service).map_err(|problem| format!("mirror.{problem}"))?;
            facts.push(mirror::HEADER.to_owned());
            kinds.push(Kind::Mirror(Arc::new(settings)));
        }
        if let Some(settings) = self.compress {
            settings.check().map_err(|problem| format!("compress.{problem}"))?;
            kinds.push(Kind::Compress(Arc::new(settings)));
        }
        let many = kinds.len();
        let (Some(kind), 1) = (kinds.pop(), many) else {
            return Err(format!(
                "it has {many} kinds and needs exactly one, like `cors = {{ … }}`; write a table for each"
            ));
        };
        let name = match self.name {
            Some(name) if name.is_empty() || name.len() > NAME || name.bytes().any(|byte| byte.is_ascii_control()) => {
                return Err(format!("`name`: expected 1 to {NAME} bytes without control characters"));
            }
            Some(name) => name,
            None => format!("{} {}", kind.name(), matcher.label()),
        };
        Ok(Middleware { name: name.into(), matcher, kind, live: Arc::default() })
    }
}
