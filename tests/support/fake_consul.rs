//! A Consul that misbehaves on demand: HTTP by hand, so that nothing keeps it from writing nonsense. How the real one
//! behaves is tested against the real one.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "for tests, each of which uses some of it")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How it answers, until it is told otherwise.
#[derive(Debug, Clone)]
pub enum Turn {
    /// As Consul does: a query with this index or a higher one waits for the next turn, or for its `wait` to end.
    Good {
        /// `X-Consul-Index`; none: no such header.
        index: Option<u64>,
        /// The answer.
        body: String,
    },
    /// These bytes at once, whatever is asked, and the connection ends.
    Bytes(Vec<u8>),
    /// These bytes, then this again and again for as long as somebody reads.
    Endless(Vec<u8>, Vec<u8>),
    /// These bytes, then nothing more until the next turn.
    Stuck(Vec<u8>),
}

/// Serves until it is dropped.
#[derive(Debug)]
pub struct Fake {
    /// Where.
    pub address: SocketAddr,
    turn: watch::Sender<Turn>,
    asked: watch::Receiver<Vec<String>>,
    task: JoinHandle<()>,
}

impl Fake {
    /// Starts on a port of its own.
    pub async fn start(turn: Turn) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (turn, turns) = watch::channel(turn);
        let (ask, asked) = watch::channel(Vec::new());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(stream, turns.clone(), ask.clone()));
            }
        });
        Fake { address, turn, asked, task }
    }

    /// From now on it answers like this.
    pub fn turn(&self, turn: Turn) {
        self.turn.send_replace(turn);
    }

    /// The queries so far (`passing=1&index=7&wait=1000ms`), oldest first.
    pub fn queries(&self) -> Vec<String> {
        self.asked.borrow().clone()
    }

    /// Waits until so many queries have come. Panics when they have not after 30 s.
    pub async fn asked(&mut self, times: usize) -> Vec<String> {
        let enough = self.asked.wait_for(|asked| asked.len() >= times);
        tokio::time::timeout(Duration::from_secs(30), enough).await.unwrap().unwrap().clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A whole answer that ends with its connection.
pub fn answer(head: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// One query for each connection. An error means that the client has gone.
async fn serve(
    mut stream: TcpStream,
    mut turns: watch::Receiver<Turn>,
    ask: watch::Sender<Vec<String>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.split_whitespace().nth(1).unwrap_or_default();
    let query = target.split_once('?').unwrap_or_default().1;
    // That it is asked whether it lives is not a query.
    if !target.ends_with("/v1/status/leader") {
        ask.send_modify(|asked| asked.push(query.to_owned()));
    }
    let number = |key: &str| {
        let value = query.split('&').find_map(|pair| pair.strip_prefix(key))?;
        value.trim_end_matches("ms").parse::<u64>().ok()
    };
    let mut turn = turns.borrow_and_update().clone();
    if let (Some(asked), Some(wait), Turn::Good { index, .. }) = (number("index="), number("wait="), &turn)
        && index.is_none_or(|index| asked >= index)
    {
        let _ = tokio::time::timeout(Duration::from_millis(wait), turns.changed()).await;
        turn = turns.borrow_and_update().clone();
    }
    match turn {
        Turn::Good { index, body } => {
            let index = index.map_or_else(String::new, |index| format!("\r\nX-Consul-Index: {index}"));
            stream.write_all(&answer(&format!("200 OK{index}"), &body)).await
        }
        Turn::Bytes(bytes) => stream.write_all(&bytes).await,
        Turn::Endless(first, then) => {
            stream.write_all(&first).await?;
            loop {
                stream.write_all(&then).await?;
            }
        }
        Turn::Stuck(bytes) => {
            stream.write_all(&bytes).await?;
            let _ = turns.changed().await;
            Ok(())
        }
    }
}
