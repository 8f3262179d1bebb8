//! Real servers of Redis or Valkey: one, a cluster, or one behind sentinels.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "for tests, each of which uses some of it"
)]

use super::servers::{Process, program};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue, Value};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::Mutex;

/// One server, with its data in a folder of its own.
#[derive(Debug)]
pub struct Redis {
    /// Where clients connect.
    pub address: SocketAddr,
    /// The server.
    pub process: Process,
    arguments: Vec<String>,
    program: PathBuf,
    folder: TempDir,
    link: Mutex<Option<MultiplexedConnection>>,
}

/// A port that is free, and so is the one of its cluster's bus, 10,000 above.
fn port() -> u16 {
    loop {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        if port < 55_000 && TcpListener::bind((Ipv4Addr::LOCALHOST, port + 10_000)).is_ok() {
            return port;
        }
    }
}

/// A command of these words.
pub fn words(words: &[&str]) -> Cmd {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command
}

impl Redis {
    /// Keeps its data over a kill (not over one of the machine); ready after 0.1 s.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With more arguments.
    pub async fn with(more: &[&str]) -> Self {
        Self::started(more, false).await
    }

    async fn started(more: &[&str], tls: bool) -> Self {
        let program = program("redis");
        let mut problem = String::new();
        for _ in 0..5 {
            let folder = tempfile::tempdir().unwrap();
            let port = port();
            let listen = if tls { format!("--port 0 --tls-port {port}") } else { format!("--port {port}") };
            let own = format!(
                "--bind 127.0.0.1 {listen} --dir {} --daemonize no --appendonly yes --appendfsync no --loglevel \
                 warning --repl-diskless-sync-delay 0",
                folder.path().display()
            );
            let mut arguments: Vec<String> = own.split_whitespace().map(str::to_owned).collect();
            arguments.extend(["--save", ""].map(str::to_owned));
            arguments.extend(more.iter().map(|word| (*word).to_owned()));
            let process = Process::start(Command::new(&program).args(&arguments), &folder.path().join("log"));
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let (program, link) = (program.clone(), Mutex::default());
            let mut redis = Redis { address, process, arguments, program, folder, link };
            match redis.ready().await {
                Ok(()) => return redis,
                Err(why) => problem = why,
            }
        }
        panic!("redis: {problem}");
    }

    /// One that speaks TLS alone, to clients whose certificate is one of the authority's.
    pub async fn with_tls(chain: &str, key: &str, authority: &str) -> Self {
        let more = ["--tls-cert-file", chain, "--tls-key-file", key, "--tls-ca-cert-file", authority];
        Self::started(&more, true).await
    }

    /// A sentinel that watches this master as `main`. More lines of its configuration.
    pub async fn sentinel(master: SocketAddr, more: &str) -> Self {
        let program = program("redis");
        let folder = tempfile::tempdir().unwrap();
        let (port, file) = (port(), folder.path().join("sentinel.conf"));
        let text = format!(
            "bind 127.0.0.1\nport {port}\ndir {}\nsentinel monitor main 127.0.0.1 {} 1\nsentinel down-after-milliseconds \
             main 500\nsentinel failover-timeout main 2000\n{more}\n",
            folder.path().display(),
            master.port()
        );
        std::fs::write(&file, text).unwrap();
        let arguments = vec![file.display().to_string(), "--sentinel".to_owned()];
        let process = Process::start(Command::new(&program).args(&arguments), &folder.path().join("log"));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut redis = Redis { address, process, arguments, program, folder, link: Mutex::default() };
        redis.ready().await.unwrap();
        redis
    }

    async fn ready(&mut self) -> Result<(), String> {
        let address = self.address;
        let ready = || async move {
            let Ok(mut link) = connect(&format!("redis://{address}")).await else { return false };
            match redis::cmd("PING").query_async::<Value>(&mut link).await {
                Ok(_) => true,
                Err(error) => error.code() == Some("NOAUTH"),
            }
        };
        // One that speaks TLS alone is looked at by who has its authority.
        if self.arguments.iter().any(|argument| argument == "--tls-port") {
            let ready = || async move { tokio::net::TcpStream::connect(address).await.is_ok() };
            return self.process.ready(ready).await;
        }
        self.process.ready(ready).await
    }

    /// Starts it again on the same port and data.
    pub async fn start_again(&mut self) {
        self.process.kill();
        self.process =
            Process::start(Command::new(&self.program).args(&self.arguments), &self.folder.path().join("log"));
        self.ready().await.unwrap();
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it answers to a command of the default user's. Panics on an error.
    pub async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> T {
        let mut kept = self.link.lock().await;
        // The one from before may have ended.
        if let Some(link) = kept.as_mut()
            && redis::cmd("PING").query_async::<Value>(link).await.is_err()
        {
            *kept = None;
        }
        if kept.is_none() {
            *kept = Some(connect(&format!("redis://{}", self.address)).await.unwrap());
        }
        command.query_async(kept.as_mut().unwrap()).await.unwrap()
    }

    /// A command of words without an answer that matters. Panics on an error.
    pub async fn run(&self, line: &[&str]) {
        self.ask::<Value>(&words(line)).await;
    }

    /// A number of `INFO`, or another word of it.
    pub async fn info(&self, key: &str) -> String {
        let text: String = self.ask(&redis::cmd("INFO")).await;
        let found = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        found.unwrap_or_default().trim().to_owned()
    }
}

async fn connect(url: &str) -> redis::RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(2)))
        .set_response_timeout(Some(Duration::from_secs(10)));
    redis::Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await
}

/// A cluster of three masters without replicas, where a master that is gone takes only its own keys along.
pub async fn cluster() -> Vec<Redis> {
    let more = "--cluster-enabled yes --cluster-config-file nodes.conf --cluster-node-timeout 1000 \
                --cluster-require-full-coverage no";
    let more: Vec<&str> = more.split_whitespace().collect();
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(Redis::with(&more).await);
    }
    let ranges = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];
    for (node, (from, to)) in nodes.iter().zip(ranges) {
        node.run(&["CLUSTER", "ADDSLOTSRANGE", from, to]).await;
        let port = nodes[0].address.port().to_string();
        node.run(&["CLUSTER", "MEET", "127.0.0.1", &port]).await;
    }
    until("the cluster is one", async || {
        for node in &nodes {
            let text: String = node.ask(&words(&["CLUSTER", "INFO"])).await;
            if !text.contains("cluster_state:ok") || !text.contains("cluster_slots_ok:16384") {
                return false;
            }
        }
        true
    })
    .await;
    nodes
}

/// Looks until it is so, for half a minute.
pub async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !is().await {
        assert!(started.elapsed() < Duration::from_secs(30), "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
