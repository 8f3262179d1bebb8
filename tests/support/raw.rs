//! Bytes in, bytes out: clients and origins that say just what a test wants.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "for tests, each of which uses some of it")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

/// How long anything may take that a test waits for.
const WAIT: Duration = Duration::from_secs(20);

/// The next head on a connection, with its empty line; none: the other side has ended, or does not go on.
pub fn next_head(stream: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

/// An origin that answers the one request of each connection with this.
pub fn answering(answer: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        loop {
            let mut client = Raw::accept(&listener);
            client.head();
            client.say(&answer);
        }
    });
    address
}

/// One end of a connection.
pub struct Raw(BufReader<TcpStream>);

impl Raw {
    /// A client's.
    pub fn connect(address: &str) -> Self {
        Raw::new(TcpStream::connect(address).unwrap())
    }

    /// An origin's.
    pub fn accept(listener: &TcpListener) -> Self {
        Raw::new(listener.accept().unwrap().0)
    }

    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(WAIT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Raw(BufReader::new(stream))
    }

    pub fn say(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// A head with its empty line.
    pub fn head(&mut self) -> String {
        next_head(&mut self.0).unwrap()
    }

    /// This many bytes.
    pub fn bytes(&mut self, many: usize) -> String {
        let mut bytes = vec![0; many];
        self.0.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// A response with a body of a known length: its head and its body.
    pub fn response(&mut self) -> (String, String) {
        let head = self.head();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let body = length.map_or_else(String::new, |length| self.bytes(length.parse().unwrap()));
        (head, body)
    }

    /// All that comes until the other side ends; an error where it is a reset.
    pub fn rest(&mut self) -> io::Result<String> {
        let mut rest = String::new();
        self.0.read_to_string(&mut rest).map(|_| rest)
    }

    /// It says nothing for this long.
    pub fn is_silent(&mut self, wait: Duration) -> bool {
        self.0.get_mut().set_read_timeout(Some(wait)).unwrap();
        let read = self.0.fill_buf().map(<[u8]>::len);
        self.0.get_mut().set_read_timeout(Some(WAIT)).unwrap();
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// It says no more.
    pub fn end(&mut self) {
        self.0.get_mut().shutdown(Shutdown::Write).unwrap();
    }

    /// It is gone, without a goodbye.
    pub fn reset(self) {
        socket2::SockRef::from(self.0.get_ref()).set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// The other side's address.
    pub fn local(&self) -> std::net::SocketAddr {
        self.0.get_ref().local_addr().unwrap()
    }
}
