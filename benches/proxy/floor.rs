//! The floor: what must be done for a request on any account, and nothing else. One thread asks the kernel what is
//! readable, reads a head, finds its lines, writes it to an endpoint with a line added, and hands the answer back. Each
//! client has an endpoint's connection of its own; what is sent is taken for whole heads, as the load sends them.

use crate::serve::until_closed;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

/// Of a head.
const LINES: usize = 32;
const LISTENER: Token = Token(usize::MAX);

/// A client and its endpoint, on tokens one behind the other.
struct Pair {
    client: TcpStream,
    endpoint: TcpStream,
    /// Of the response in progress, bytes of its body.
    left: usize,
}

/// Runs until standard input ends.
///
/// # Errors
/// A socket cannot be had.
pub fn run(endpoints: Vec<SocketAddr>) -> anyhow::Result<()> {
    let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let address = listener.local_addr()?;
    let poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    std::thread::spawn(move || serve(poll, &listener, &endpoints));
    until_closed(&[address]);
    Ok(())
}

fn serve(mut poll: Poll, listener: &TcpListener, endpoints: &[SocketAddr]) -> io::Result<()> {
    let (mut pairs, mut events) = (Vec::<Option<Pair>>::new(), Events::with_capacity(1024));
    let (mut buffer, mut out) = (vec![0; 64 << 10], Vec::with_capacity(4096));
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((client, _)) = listener.accept() {
                    let endpoint = std::net::TcpStream::connect(endpoints[pairs.len() % endpoints.len()])?;
                    endpoint.set_nonblocking(true)?;
                    let mut pair = Pair { client, endpoint: TcpStream::from_std(endpoint), left: 0 };
                    let token = pairs.len() * 2;
                    for (stream, token) in [(&mut pair.client, token), (&mut pair.endpoint, token + 1)] {
                        stream.set_nodelay(true)?;
                        poll.registry().register(stream, Token(token), Interest::READABLE)?;
                    }
                    pairs.push(Some(pair));
                }
                continue;
            }
            let Token(token) = event.token();
            let place = &mut pairs[token / 2];
            let Some(pair) = place else { continue };
            let upward = token % 2 == 0;
            // A short read has read all that is there.
            while let Ok(read) = if upward { pair.client.read(&mut buffer) } else { pair.endpoint.read(&mut buffer) } {
                let passed = match upward {
                    true => pair.request(&buffer[..read], &mut out),
                    false => pair.response(&buffer[..read]),
                };
                if read == 0 || passed.is_err() {
                    *place = None;
                    break;
                }
                if read < buffer.len() {
                    break;
                }
            }
        }
    }
}

impl Pair {
    fn request(&mut self, read: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let mut lines = [httparse::EMPTY_HEADER; LINES];
        let mut head = httparse::Request::new(&mut lines);
        head.parse(read).map_err(io::Error::other)?;
        out.clear();
        for part in
            [head.method.unwrap_or(""), " ", head.path.unwrap_or(""), " HTTP/1.1\r\nx-forwarded-for: 127.0.0.1\r\n"]
        {
            out.extend_from_slice(part.as_bytes());
        }
        for line in head.headers.iter() {
            for part in [line.name.as_bytes(), b": ", line.value, b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
        out.extend_from_slice(b"\r\n");
        write(&mut self.endpoint, out)
    }

    fn response(&mut self, read: &[u8]) -> io::Result<()> {
        if self.left > 0 {
            self.left = self.left.saturating_sub(read.len());
            return write(&mut self.client, read);
        }
        let mut lines = [httparse::EMPTY_HEADER; LINES];
        let mut head = httparse::Response::new(&mut lines);
        let bytes = match head.parse(read).map_err(io::Error::other)? {
            httparse::Status::Complete(bytes) => bytes,
            httparse::Status::Partial => return Err(ErrorKind::InvalidData.into()),
        };
        let length = head.headers.iter().find(|line| line.name.eq_ignore_ascii_case("content-length"));
        let length = length.and_then(|line| std::str::from_utf8(line.value).ok()?.parse::<usize>().ok());
        self.left = (bytes + length.unwrap_or(0)).saturating_sub(read.len());
        write(&mut self.client, read)
    }
}

/// All of it, however often that has to be asked for.
fn write(stream: &mut TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
