//! A server that answers with the status that a test says.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "for tests, each of which uses some of it")]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// An origin that answers with this status, and how often it was asked.
pub struct Saying {
    pub address: SocketAddr,
    status: Arc<AtomicU16>,
    asked: Arc<AtomicUsize>,
}

impl Saying {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, status) = (listener.local_addr().unwrap(), Arc::new(AtomicU16::new(200)));
        let asked = Arc::new(AtomicUsize::new(0));
        let (says, counts) = (Arc::clone(&status), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (says, counts) = (Arc::clone(&says), Arc::clone(&counts));
                std::thread::spawn(move || {
                    let mut stream = BufReader::new(stream.unwrap());
                    let mut head = String::new();
                    while stream.read_line(&mut head).unwrap_or(0) > 2 {}
                    if head.starts_with("GET /health ") {
                        let _ = stream.get_mut().write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");
                        return;
                    }
                    counts.fetch_add(1, Relaxed);
                    while head.starts_with("GET /hold ") && says.load(Relaxed) == 0 {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    let answer = format!(
                        "HTTP/1.1 {} Said\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
                        says.load(Relaxed)
                    );
                    let _ = stream.get_mut().write_all(answer.as_bytes());
                });
            }
        });
        Saying { address, status, asked }
    }

    /// From now on its answers have this status; 0: `/hold` waits.
    pub fn says(&self, status: u16) {
        self.status.store(status, Relaxed);
    }

    /// Requests so far, but for checks.
    pub fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }
}
