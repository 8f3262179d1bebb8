//! What a connection occupies on which nothing happens.

use crate::load::SMALL;
use crate::process::Process;
use anyhow::ensure;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Open at a time.
pub const CONNECTIONS: usize = 2000;

/// KiB each, of connections that were answered once; those to endpoints, which are fewer, are in it.
///
/// # Errors
/// They could not be opened.
pub async fn of_idle(process: &Process) -> anyhow::Result<f64> {
    let address = process.addresses[0];
    let request = format!("GET {SMALL} HTTP/1.1\r\nhost: {address}\r\nx-tenant: acme-19\r\nx-tier: gold\r\n\r\n");
    let before = process.resident()?;
    let mut connections = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = [0; 4096];
        ensure!(stream.read(&mut answer).await? > 0, "no answer");
        connections.push(stream);
    }
    let after = process.resident()?;
    Ok(after.saturating_sub(before) as f64 / CONNECTIONS as f64)
}
