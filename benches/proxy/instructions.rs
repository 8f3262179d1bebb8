//! Instructions of a request, which say the same whatever else the machine does: counted by callgrind.

use crate::CLIENTS;
use crate::load::{self, Protocol};
use crate::process::Process;
use crate::programs;
use anyhow::{Context as _, ensure};
use rustls::ClientConfig;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// Requests that are counted, after as many that are not.
const REQUESTS: usize = 5000;

/// Of the program with this configuration, per request. None: valgrind is not installed.
///
/// # Errors
/// It could not be run.
pub async fn count(config: &Path, tls: &Arc<ClientConfig>) -> anyhow::Result<Option<f64>> {
    let found = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if !found("valgrind") || !found("callgrind_control") {
        return Ok(None);
    }
    // A policy is compiled by a process of the gateway's own program, which it cannot find under valgrind; what is compiled
    // already, it finds in its cache.
    programs::gateway(config)?.end()?;
    let counted = config.with_extension("callgrind");
    let arguments = [
        "--tool=callgrind".to_owned(),
        "--instr-atstart=no".to_owned(),
        "--quiet".to_owned(),
        format!("--callgrind-out-file={}", counted.display()),
        env!("CARGO_BIN_EXE_wayside").to_owned(),
        "run".to_owned(),
        "--config".to_owned(),
        config.display().to_string(),
    ];
    let process = Process::start(Path::new("valgrind"), &arguments)?;
    let (address, usual) = (process.addresses[0], Protocol::Http1(load::SMALL));
    load::send(address, usual, tls, CLIENTS, REQUESTS).await?;
    switch("on", process.id())?;
    let seen = load::send(address, usual, tls, CLIENTS, REQUESTS).await?;
    switch("off", process.id())?;
    ensure!(seen.failed == 0, "{} requests failed under valgrind", seen.failed);
    process.end()?;
    let text = std::fs::read_to_string(&counted).with_context(|| counted.display().to_string())?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: ")?.trim().parse::<f64>().ok());
    Ok(Some(total.context("callgrind's file has no `totals:`")? / REQUESTS as f64))
}

fn switch(to: &str, id: u32) -> anyhow::Result<()> {
    let told = Command::new("callgrind_control").args(["-i", to, &id.to_string()]).output()?;
    ensure!(told.status.success(), "callgrind_control: {}", String::from_utf8_lossy(&told.stderr));
    Ok(())
}
