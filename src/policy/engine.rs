//! Stub.
#![allow(missing_docs, clippy::missing_errors_doc, reason = "stub")]

use super::{Limits, State, Version};
use std::path::Path;
use std::sync::Arc;

#[derive(Debug, Clone)]
pub struct Engine;

impl Engine {
    pub fn new(_workers: usize) -> anyhow::Result<Engine> {
        Ok(Engine)
    }
    pub fn fingerprint() -> String {
        "stub".into()
    }
    pub fn precompile(bytes: &[u8]) -> Result<Vec<u8>, String> {
        let engine = wasmtime::Engine::default();
        engine.precompile_component(bytes).map_err(|e| format!("{e:#}"))
    }
    pub fn componentize(core_module: &[u8]) -> Result<Vec<u8>, String> {
        let mut encoder =
            wit_component::ComponentEncoder::default().module(core_module).map_err(|e| format!("{e:#}"))?;
        encoder.encode().map_err(|e| format!("{e:#}"))
    }
    pub fn load(
        &self,
        path: &Path,
        id: Arc<str>,
        _name: Arc<str>,
        config: String,
        _limits: Limits,
        _state: Arc<State>,
    ) -> Result<Arc<Version>, String> {
        std::fs::read(path).map_err(|e| e.to_string())?;
        if config == "xyz" { Err("config `xyz`".into()) } else { Ok(Arc::new(Version { id })) }
    }
}

impl Version {
    #[allow(missing_docs, reason = "stub")]
    pub fn decide(&self, _worker: usize, question: super::Question) -> (super::Question, super::Called) {
        let called = super::Called { outcome: super::Outcome::Next, reason: String::new(), logs: Vec::new() };
        (question, called)
    }
}
