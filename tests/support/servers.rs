//! Real servers for tests: found or installed by `scripts/servers/`, on free ports, with their data in a folder of
//! their own, and gone when the value is dropped.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "for tests, each of which uses some of it"
)]

use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a server may take until it is ready.
const READY: Duration = Duration::from_secs(30);
/// Between two looks at something that has no signal.
const LOOK: Duration = Duration::from_millis(20);
/// Somebody else may take a port between our look and the server's bind.
const STARTS: usize = 3;

/// The path of a server's program. Panics with the script's own line where it cannot be had.
pub fn program(name: &str) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/servers").join(name);
    let output = Command::new(&script).stderr(Stdio::piped()).output().unwrap();
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}", problem.trim().lines().last().unwrap_or("no program"));
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// Ports of 127.0.0.1 that were free for TCP and UDP a moment ago, all different.
pub fn free_ports<const N: usize>() -> [u16; N] {
    // All are held until all are found.
    let mut held = Vec::new();
    while held.len() < N {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = tcp.local_addr().unwrap().port();
        if let Ok(udp) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push((port, tcp, udp));
        }
    }
    std::array::from_fn(|i| held[i].0)
}

/// A process that ends with this value.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it with its output in `log`.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = std::fs::File::create(log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        Process { child: command.spawn().unwrap(), log: log.to_owned() }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it (SIGKILL) and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Holds it (SIGSTOP): it keeps its sockets and says nothing.
    pub fn pause(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// Lets it go on (SIGCONT).
    pub fn go_on(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_raw(i32::try_from(self.id()).unwrap()).unwrap();
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// Looks until `ready` says so. Err: it ended first, with what it wrote.
    pub async fn ready<F: Future<Output = bool>>(&mut self, ready: impl FnMut() -> F) -> Result<(), String> {
        self.ready_within(READY, ready).await
    }

    /// The same for one that takes longer to start.
    pub async fn ready_within<F: Future<Output = bool>>(
        &mut self,
        within: Duration,
        mut ready: impl FnMut() -> F,
    ) -> Result<(), String> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Err(format!("ended with {status}: {}", std::fs::read_to_string(&self.log).unwrap_or_default()));
            }
            if ready().await {
                return Ok(());
            }
            if started.elapsed() > within {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                panic!("not ready after {within:?}: {log}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A client for the servers' HTTP APIs.
pub fn http() -> reqwest::Client {
    wayside::http::tls::install_provider();
    reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap()
}

/// The token that may do everything where a Consul was started with ACLs.
pub const MANAGEMENT: &str = "b1gs33cr-3t00-4000-8000-000000000001";

/// A Consul agent.
#[derive(Debug)]
pub struct Consul {
    /// Of its HTTP API.
    pub address: SocketAddr,
    /// The agent.
    pub process: Process,
    arguments: Vec<String>,
    program: PathBuf,
    folder: TempDir,
    http: reqwest::Client,
    acl: bool,
}

impl Consul {
    /// In memory only, everybody may do everything; ready after 0.4 s.
    pub async fn start() -> Self {
        Self::with(|_| vec!["-dev".to_owned()], false).await
    }

    /// In memory only, and nobody may do anything without a token (`MANAGEMENT`).
    pub async fn with_acl() -> Self {
        Self::with(
            |version| {
                let name = if version < (1, 11) { "master" } else { "initial_management" };
                let acl =
                    format!(r#"acl {{ enabled = true default_policy = "deny" tokens {{ {name} = "{MANAGEMENT}" }} }}"#);
                vec!["-dev".to_owned(), "-hcl".to_owned(), acl]
            },
            true,
        )
        .await
    }

    /// In memory only, and with so many connections of one address at once.
    pub async fn with_connections(most: usize) -> Self {
        let limit = format!("limits {{ http_max_conns_per_client = {most} }}");
        Self::with(|_| vec!["-dev".to_owned(), "-hcl".to_owned(), limit], false).await
    }

    /// In memory only, on a node with this metadata.
    pub async fn with_node_meta(key: &str, value: &str) -> Self {
        let meta = format!("{key}:{value}");
        Self::with(|_| vec!["-dev".to_owned(), "-node-meta".to_owned(), meta], false).await
    }

    /// Keeps its data on disk, so that it can be started again; ready after 2 s.
    pub async fn durable() -> Self {
        let arguments = "-server -bootstrap-expect 1 -advertise 127.0.0.1 -disable-host-node-id -data-dir data";
        let hcl = ["performance { raft_multiplier = 1 }", r#"check_update_interval = "0s""#];
        let hcl = hcl.into_iter().flat_map(|line| ["-hcl", line]);
        Self::with(|_| arguments.split(' ').chain(hcl).map(str::to_owned).collect(), false).await
    }

    async fn with(arguments: impl FnOnce((u32, u32)) -> Vec<String>, acl: bool) -> Self {
        let program = program("consul");
        let version = version(&program);
        let mut arguments = arguments(version);
        // Both are of no use here.
        arguments.extend("-grpc-port -1 -dns-port -1 -log-level warn".split(' ').map(str::to_owned));
        if version >= (1, 14) {
            arguments.extend(["-grpc-tls-port", "-1"].map(str::to_owned));
        }
        let http = http();
        let mut problem = String::new();
        for _ in 0..STARTS {
            let folder = tempfile::tempdir().unwrap();
            let [api, server, lan, wan] = free_ports();
            let ports = format!(
                "-node n1 -bind 127.0.0.1 -client 127.0.0.1 -http-port {api} -server-port {server} -serf-lan-port {lan} \
                 -serf-wan-port {wan}"
            );
            let all: Vec<String> = arguments.iter().cloned().chain(ports.split(' ').map(str::to_owned)).collect();
            let process = run(&program, &all, folder.path());
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, api));
            let (program, http) = (program.clone(), http.clone());
            let mut consul = Consul { address, process, arguments: all, program, folder, http, acl };
            match consul.ready().await {
                Ok(()) => return consul,
                Err(why) => problem = why,
            }
        }
        panic!("consul: {problem}");
    }

    async fn ready(&mut self) -> Result<(), String> {
        let probe = self.request(reqwest::Method::GET, "/v1/health/service/consul").build().unwrap();
        let http = &self.http;
        let ready = || async {
            // No body, so it can be cloned.
            let response = http.execute(probe.try_clone().unwrap()).await;
            let Ok(response) = response else { return false };
            response.json::<Vec<Value>>().await.is_ok_and(|list| !list.is_empty())
        };
        self.process.ready(ready).await
    }

    /// As a source's `address`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A request to its API, with all rights.
    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, self.url() + path);
        if self.acl { request.header("x-consul-token", MANAGEMENT) } else { request }
    }

    /// PUTs a body and returns what is answered. Panics on anything but success.
    pub async fn put(&self, path: &str, body: &Value) -> String {
        let request = self.request(reqwest::Method::PUT, path).body(body.to_string());
        let response = request.send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert!(status.is_success(), "PUT {path}: {status} {text}");
        text
    }

    /// Registers a service at the agent (or registers it anew): the body of `/v1/agent/service/register`.
    pub async fn register(&self, service: &Value) {
        self.put("/v1/agent/service/register", service).await;
    }

    /// Waits until the registry itself, not only its agent, lists an instance with this id: an agent that has just
    /// started may take seconds to pass on what it was told.
    pub async fn listed(&self, service: &str, id: &str) {
        let started = Instant::now();
        let path = format!("/v1/health/service/{service}");
        loop {
            let response = self.request(reqwest::Method::GET, &path).send().await.unwrap();
            let list: Vec<Value> = response.json().await.unwrap_or_default();
            if list.iter().any(|entry| entry["Service"]["ID"] == id) {
                return;
            }
            assert!(started.elapsed() < READY, "{id} is not listed after {READY:?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Deregisters a service by its id.
    pub async fn deregister(&self, id: &str) {
        self.put(&format!("/v1/agent/service/deregister/{id}"), &Value::Null).await;
    }

    /// Sets a TTL check of a service: `pass`, `warn` or `fail`.
    pub async fn check(&self, id: &str, state: &str) {
        self.put(&format!("/v1/agent/check/{state}/service:{id}"), &Value::Null).await;
    }

    /// Kills it (SIGKILL).
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same ports and data, and waits until it is ready.
    pub async fn start_again(&mut self) {
        self.kill();
        let mut problem = String::new();
        for _ in 0..STARTS {
            self.process = run(&self.program, &self.arguments, self.folder.path());
            match self.ready().await {
                Ok(()) => return,
                Err(why) => problem = why,
            }
        }
        panic!("consul: {problem}");
    }
}

fn run(program: &Path, arguments: &[String], folder: &Path) -> Process {
    Process::start(Command::new(program).arg("agent").args(arguments).current_dir(folder), &folder.join("log"))
}

/// Major and minor version of a Consul: its first line is `Consul v1.8.7`.
fn version(program: &Path) -> (u32, u32) {
    let output = Command::new(program).arg("version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut numbers = text.split_once('v').unwrap().1.split('.').map(|part| part.trim().parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// A Jaeger that keeps traces in memory.
#[derive(Debug)]
pub struct Jaeger {
    /// OTLP over gRPC.
    pub otlp: SocketAddr,
    /// OTLP over HTTP.
    pub otlp_http: SocketAddr,
    /// Its page and query API.
    pub query: SocketAddr,
    process: Process,
    http: reqwest::Client,
    _folder: TempDir,
}

impl Jaeger {
    /// Ready after 0.2 s.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// One that speaks OTLP over TLS alone, with the certificate and key in `server.pem` and `server.key` of a folder,
    /// to clients whose certificate is one of `ca.pem`'s.
    pub async fn over_tls(folder: &Path) -> Self {
        let file = |name: &str| folder.join(name).display().to_string();
        let (chain, key, ca) = (file("server.pem"), file("server.key"), file("ca.pem"));
        let tls = format!(r#", tls: {{ cert_file: "{chain}", key_file: "{key}", client_ca_file: "{ca}" }}"#);
        Self::start_with(&tls).await
    }

    async fn start_with(tls: &str) -> Self {
        let (program, http) = (program("jaeger"), http());
        let mut problem = String::new();
        for _ in 0..STARTS {
            let folder = tempfile::tempdir().unwrap();
            let ports: [u16; 4] = free_ports();
            let [otlp, otlp_http, query, grpc] = ports.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
            let file = folder.path().join("jaeger.yaml");
            std::fs::write(&file, configuration(otlp, otlp_http, query, grpc, tls)).unwrap();
            let log = folder.path().join("log");
            let mut process = Process::start(Command::new(&program).arg("--config").arg(&file), &log);
            let probe = format!("http://{query}/api/services");
            let (url, client) = (&probe, &http);
            let ready = || async { client.get(url).send().await.is_ok_and(|response| response.status().is_success()) };
            match process.ready(ready).await {
                Ok(()) => return Jaeger { otlp, otlp_http, query, process, http, _folder: folder },
                Err(why) => problem = why,
            }
        }
        panic!("jaeger: {problem}");
    }

    /// What the query API answers, for example to `/api/traces/TRACEID`.
    pub async fn get(&self, path: &str) -> Value {
        let response = self.http.get(format!("http://{}{path}", self.query)).send().await.unwrap();
        response.json().await.unwrap()
    }

    /// The newest traces of a service (`traceID`, `spans`, `processes`), as soon as there are any that fit. Panics with
    /// what there is after 10 s: exporters send in batches.
    pub async fn traces(&self, service: &str, fits: impl Fn(&Value) -> bool) -> Vec<Value> {
        let started = Instant::now();
        loop {
            let answer = self.get(&format!("/api/traces?service={service}&limit=1000")).await;
            let all = answer["data"].as_array().cloned().unwrap_or_default();
            let found: Vec<Value> = all.into_iter().filter(&fits).collect();
            if !found.is_empty() {
                return found;
            }
            assert!(started.elapsed() < Duration::from_secs(10), "no such trace of {service}: {answer}");
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn configuration(otlp: SocketAddr, otlp_http: SocketAddr, query: SocketAddr, grpc: SocketAddr, tls: &str) -> String {
    format!(
        r#"service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines: {{ traces: {{ receivers: [otlp], processors: [], exporters: [jaeger_storage_exporter] }} }}
  telemetry: {{ metrics: {{ level: none }}, logs: {{ level: warn }} }}
extensions:
  jaeger_storage: {{ backends: {{ memory: {{ memory: {{ max_traces: 100000 }} }} }} }}
  jaeger_query: {{ storage: {{ traces: memory }}, http: {{ endpoint: "{query}" }}, grpc: {{ endpoint: "{grpc}" }} }}
receivers: {{ otlp: {{ protocols: {{ grpc: {{ endpoint: "{otlp}"{tls} }}, http: {{ endpoint: "{otlp_http}"{tls} }} }} }} }}
exporters: {{ jaeger_storage_exporter: {{ trace_storage: memory }} }}
"#
    )
}
