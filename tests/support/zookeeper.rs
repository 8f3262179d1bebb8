//! A real ZooKeeper.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "for tests, each of which uses some of it"
)]

use super::servers::{Process, free_ports, program};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use wayside::discovery::registry::zookeeper::jute::Writer;

/// There is such a node; there is none.
pub const EXISTS: i32 = -110;
/// See [`EXISTS`].
pub const NO_NODE: i32 = -101;
/// An election lasts some seconds, in which nobody is served.
const TRIES: u32 = 400;
const PAUSE: Duration = Duration::from_millis(50);

/// One server, with its data in a folder of its own.
#[derive(Debug)]
pub struct ZooKeeper {
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where they connect with TLS, if they can.
    pub secure: SocketAddr,
    /// The server.
    pub process: Process,
    program: PathBuf,
    folder: TempDir,
    client: Mutex<Option<TcpStream>>,
}

impl ZooKeeper {
    /// Ready after a second.
    pub async fn start() -> Self {
        Self::with(|_| String::new()).await
    }

    /// With TLS beside it, with the certificate and key in `server.pem` and `server.key` of a folder.
    pub async fn with_tls(folder: &Path) -> Self {
        let [chain, key] = ["server.pem", "server.key"].map(|name| std::fs::read(folder.join(name)).unwrap());
        let pem = folder.join("both.pem");
        std::fs::write(&pem, [key, chain].concat()).unwrap();
        let pem = pem.display().to_string();
        Self::with(|secure| {
            format!(
                "secureClientPort={secure}\nsecureClientPortAddress=127.0.0.1\nssl.keyStore.location={pem}\n\
                 ssl.trustStore.location={pem}\nssl.clientAuth=none\n\
                 serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n"
            )
        })
        .await
    }

    async fn with(more: impl Fn(u16) -> String) -> Self {
        let mut problem = String::new();
        for _ in 0..3 {
            let [port, secure] = free_ports();
            let mut server = Self::member(1, port, secure, &more(secure));
            match server.ready().await {
                Ok(()) => return server,
                Err(why) => problem = why,
            }
        }
        panic!("zookeeper: {problem}");
    }

    /// Three members of one ensemble.
    pub async fn three() -> [Self; 3] {
        let mut problem = String::new();
        for _ in 0..3 {
            let ports: [u16; 9] = free_ports();
            let member = |number: usize| {
                let at = number * 3;
                format!("server.{}=127.0.0.1:{}:{}", number + 1, ports[at + 1], ports[at + 2])
            };
            let all = format!("initLimit=10\nsyncLimit=4\n{}\n", [0, 1, 2].map(member).join("\n"));
            let mut members = [0, 1, 2].map(|number| Self::member(number + 1, ports[number * 3], 0, &all));
            problem.clear();
            for member in &mut members {
                member.ready().await.unwrap_or_else(|why| problem = why);
            }
            if problem.is_empty() {
                return members;
            }
        }
        panic!("zookeeper: {problem}");
    }

    fn member(number: usize, port: u16, secure: u16, more: &str) -> Self {
        let (program, folder) = (program("zookeeper"), tempfile::tempdir().unwrap());
        let data = folder.path().join("data");
        let config = format!(
            "tickTime=500\nminSessionTimeout=1000\nmaxSessionTimeout=60000\ndataDir={}\nclientPort={port}\n\
             clientPortAddress=127.0.0.1\nadmin.enableServer=false\n4lw.commands.whitelist=*\nmaxClientCnxns=0\n\
             forceSync=no\n{more}",
            data.display()
        );
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("myid"), number.to_string()).unwrap();
        std::fs::write(folder.path().join("zoo.cfg"), config).unwrap();
        let process = run(&program, folder.path());
        let [address, secure] = [port, secure].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        ZooKeeper { address, secure, process, program, folder, client: Mutex::new(None) }
    }

    async fn ready(&mut self) -> Result<(), String> {
        let address = self.address;
        self.process.ready(|| async move { said(address, "srvr").await.contains("Mode:") }).await
    }

    /// Starts it again on the same ports and data.
    pub async fn start_again(&mut self) {
        self.process.kill();
        self.process = run(&self.program, self.folder.path());
        self.ready().await.unwrap();
    }

    /// Takes its data away while it is down.
    pub fn forget(&mut self) {
        self.process.kill();
        std::fs::remove_dir_all(self.folder.path().join("data")).unwrap();
    }

    /// Sets what a node holds; it is made where it is not there, with all above it.
    pub async fn put(&self, path: &str, data: &[u8]) {
        let create = |path: &str, data: &[u8]| {
            Writer::default().text(path).buffer(data).int(1).int(31).text("world").text("anyone").int(0)
        };
        let parts = path.match_indices('/').skip(1).map(|(end, _)| end);
        for parent in parts.map(|end| &path[..end]) {
            if self.ask(3, Writer::default().text(parent).bool(false)).await == NO_NODE {
                self.ask(1, create(parent, b"")).await;
            }
        }
        let code = match self.ask(1, create(path, data)).await {
            EXISTS => self.ask(5, Writer::default().text(path).buffer(data).int(-1)).await,
            code => code,
        };
        assert_eq!(code, 0, "{path}");
    }

    /// Deletes a node without children, if it is there.
    pub async fn delete(&self, path: &str) {
        let code = self.ask(2, Writer::default().text(path).int(-1)).await;
        assert!([0, NO_NODE].contains(&code), "{path}: {code}");
    }

    /// Deletes these nodes at once.
    pub async fn delete_all(&self, paths: &[String]) {
        let one = |all: Writer, path: &String| all.int(2).bool(false).int(-1).text(path).int(-1);
        let all = paths.iter().fold(Writer::default(), one).int(-1).bool(true).int(-1);
        assert_eq!(self.ask(14, all).await, 0, "{paths:?}");
    }

    /// Lets only this user do anything with a node.
    pub async fn protect(&self, path: &str, user: &str, password: &str) {
        let digest = STANDARD.encode(Sha1::digest(format!("{user}:{password}")));
        let acl = Writer::default().text(path).int(1).int(31).text("digest").text(&format!("{user}:{digest}")).int(-1);
        assert_eq!(self.ask(7, acl).await, 0, "{path}");
    }

    /// The sessions of clients that are connected, but for the one that asks here.
    pub async fn sessions(&self) -> Vec<i64> {
        let sessions = |line: &str| {
            let (number, _) = line.split_once("sid=0x")?.1.split_once(',')?;
            i64::from_str_radix(number, 16).ok()
        };
        // Our own one is not kept while others are looked for.
        *self.client.lock().await = None;
        said(self.address, "cons").await.lines().filter_map(sessions).filter(|session| *session != 0).collect()
    }

    /// Ends somebody's session, as if it had expired: connects with its password, which a server makes of its number,
    /// and closes it.
    pub async fn end(&self, session: i64) {
        let mut client = connect(self.address, session, &password(session)).await.unwrap();
        ask(&mut client, -11, Writer::default()).await.unwrap();
    }

    /// One request: an operation and what follows it. What is answered: 0 or why not. A connection that ended is made anew.
    async fn ask(&self, operation: i32, body: Writer) -> i32 {
        let mut client = self.client.lock().await;
        let body = body.frame();
        for _ in 0..TRIES {
            if client.is_none() {
                *client = connect(self.address, 0, &[0; 16]).await.ok();
            }
            if let Some(open) = &mut *client
                && let Ok(code) = ask_raw(open, operation, &body[4..]).await
            {
                return code;
            }
            *client = None;
            tokio::time::sleep(PAUSE).await;
        }
        panic!("zookeeper does not answer");
    }
}

fn run(program: &Path, folder: &Path) -> Process {
    Process::start(Command::new(program).arg(folder.join("zoo.cfg")), &folder.join("log"))
}

/// What it says to one of its four-letter words.
async fn said(address: SocketAddr, word: &str) -> String {
    let mut text = String::new();
    let said = async {
        let mut socket = TcpStream::connect(address).await?;
        socket.write_all(word.as_bytes()).await?;
        socket.read_to_string(&mut text).await
    };
    // One that is just starting may take a connection and forget it.
    let _ = tokio::time::timeout(Duration::from_secs(1), said).await;
    text
}

async fn connect(address: SocketAddr, session: i64, password: &[u8]) -> std::io::Result<TcpStream> {
    let mut socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let hello = Writer::default().int(0).long(0).int(60_000).long(session).buffer(password).bool(false);
    socket.write_all(&hello.frame()).await?;
    frame(&mut socket).await?;
    Ok(socket)
}

async fn ask(socket: &mut TcpStream, operation: i32, body: Writer) -> std::io::Result<i32> {
    ask_raw(socket, operation, &body.frame()[4..]).await
}

async fn ask_raw(socket: &mut TcpStream, operation: i32, body: &[u8]) -> std::io::Result<i32> {
    let length = i32::try_from(body.len() + 8).unwrap();
    let head = [length, 1, operation].map(i32::to_be_bytes).concat();
    socket.write_all(&[&head, body].concat()).await?;
    let answer = frame(socket).await?;
    Ok(i32::from_be_bytes(answer[12..16].try_into().unwrap()))
}

async fn frame(socket: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; usize::try_from(socket.read_i32().await?).unwrap()];
    socket.read_exact(&mut frame).await?;
    Ok(frame)
}

/// The password that a server makes of a session's number: sixteen bytes of Java's `Random`.
fn password(session: i64) -> Vec<u8> {
    const FACTOR: i64 = 0x5_DEEC_E66D;
    const MASK: i64 = (1 << 48) - 1;
    let mut seed = (session ^ 0xB341_5C00 ^ FACTOR) & MASK;
    let mut bytes = Vec::new();
    for _ in 0..4 {
        seed = seed.wrapping_mul(FACTOR).wrapping_add(0xB) & MASK;
        bytes.extend_from_slice(&(seed >> 16).to_le_bytes()[..4]);
    }
    bytes
}
