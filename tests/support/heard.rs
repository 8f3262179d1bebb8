//! A server that keeps what it was sent, and answers what a test says.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "for tests, each of which uses some of it")]

use super::raw::next_head;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

/// What it was sent so far: heads in lower case, and bodies that say how long they are.
pub struct Heard {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<(String, String)>>>,
}

impl Heard {
    /// Answers each request by its head with this: a whole response, or nothing at all.
    pub fn answering(answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, answer) = (Arc::<Mutex<Vec<_>>>::default(), Arc::new(answer));
        let heard = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (heard, answer) = (Arc::clone(&heard), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let mut stream = BufReader::new(stream.unwrap());
                    loop {
                        let Some(head) = next_head(&mut stream) else { return };
                        let lower = head.to_ascii_lowercase();
                        let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
                        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
                        if stream.read_exact(&mut body).is_err() {
                            return;
                        }
                        heard.lock().unwrap().push((lower, String::from_utf8(body).unwrap()));
                        match answer(&head) {
                            Some(said) if stream.get_mut().write_all(said.as_bytes()).is_err() => return,
                            Some(_) => {}
                            // Until the other side has enough of it.
                            None => drop(stream.read(&mut [0])),
                        }
                    }
                });
            }
        });
        Heard { address, requests }
    }

    /// The same with a status, headers that end in line ends, and a body.
    pub fn saying(status: u16, headers: &str, body: &str) -> Self {
        let answer = response(status, headers, body);
        Heard::answering(move |_| Some(answer.clone()))
    }

    pub fn requests(&self) -> Vec<(String, String)> {
        self.requests.lock().unwrap().clone()
    }
}

/// A whole response.
pub fn response(status: u16, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} Said\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}
