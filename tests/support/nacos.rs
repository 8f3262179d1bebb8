//! A real Nacos.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "for tests, each of which uses some of it"
)]

use super::servers::{Process, free_ports, http, program};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// It starts in 12 s, and several times as long where others build.
const READY: Duration = Duration::from_secs(120);

/// The user that may do everything, and his password.
pub const USER: &str = "nacos";

/// A standalone server, with its data in a folder of its own, that wants a password.
#[derive(Debug)]
pub struct Nacos {
    /// Of its HTTP API.
    pub address: SocketAddr,
    /// The server.
    pub process: Process,
    program: PathBuf,
    folder: TempDir,
    http: reqwest::Client,
    token: String,
}

impl Nacos {
    /// Ready after 12 s.
    pub async fn start() -> Self {
        let program = program("nacos");
        let mut problem = String::new();
        for _ in 0..3 {
            let folder = tempfile::tempdir().unwrap();
            let port = free_port();
            std::fs::create_dir(folder.path().join("conf")).unwrap();
            std::fs::write(folder.path().join("conf/application.properties"), properties(port, folder.path())).unwrap();
            let process = run(&program, folder.path());
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let program = program.clone();
            let mut nacos = Nacos { address, process, program, folder, http: http(), token: String::new() };
            match nacos.ready().await {
                Ok(()) => return nacos,
                Err(why) => problem = why,
            }
        }
        panic!("nacos: {problem}");
    }

    async fn ready(&mut self) -> Result<(), String> {
        let (http, url) = (&self.http, self.url("/v1/ns/operator/metrics"));
        let ready = || async {
            let Ok(response) = http.get(&url).send().await else { return false };
            response.text().await.is_ok_and(|text| text.contains("UP"))
        };
        self.process.ready_within(READY, ready).await?;
        let form = form(&[("username", USER), ("password", USER)]);
        let response = self.http.post(self.url("/v1/auth/login") + "?" + &form).send().await.unwrap();
        let answer: Value = response.json().await.unwrap();
        self.token = answer["accessToken"].as_str().unwrap().to_owned();
        Ok(())
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/nacos{path}", self.address)
    }

    /// Starts it again on the same ports and data; only what is ephemeral is gone.
    pub async fn start_again(&mut self) {
        self.process.kill();
        self.process = run(&self.program, self.folder.path());
        self.ready().await.unwrap();
    }

    /// A request of its HTTP API with these parameters, which has to succeed.
    pub async fn ask(&self, method: reqwest::Method, path: &str, parameters: &[(&str, &str)]) {
        let mut parameters = parameters.to_vec();
        parameters.push(("accessToken", &self.token));
        let response = self.http.request(method, self.url(path) + "?" + &form(&parameters)).send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert!(status.is_success(), "{path} {parameters:?}: {status} {text}");
    }

    /// Registers an ephemeral instance that nobody has to keep alive, or registers it anew. `more`: parameters.
    pub async fn register(&self, service: &str, ip: &str, port: u16, metadata: &Value, more: &[(&str, &str)]) {
        let mut metadata = metadata.clone();
        for timeout in ["preserved.heart.beat.timeout", "preserved.ip.delete.timeout"] {
            metadata[timeout] = json!("3600000");
        }
        let (port, metadata) = (port.to_string(), metadata.to_string());
        let mut parameters = vec![("serviceName", service), ("ip", ip), ("port", &port), ("metadata", &metadata)];
        parameters.extend_from_slice(more);
        self.ask(reqwest::Method::POST, "/v1/ns/instance", &parameters).await;
    }

    /// Takes one away.
    pub async fn deregister(&self, service: &str, ip: &str, port: u16) {
        let port = port.to_string();
        let parameters = [("serviceName", service), ("ip", ip), ("port", &*port)];
        self.ask(reqwest::Method::DELETE, "/v1/ns/instance", &parameters).await;
    }
}

fn form(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

fn run(program: &Path, folder: &Path) -> Process {
    Process::start(Command::new(program).arg(folder), &folder.join("log"))
}

/// Beside its own port it takes those of gRPC for clients and for servers, and of Raft.
fn free_port() -> u16 {
    loop {
        let [port] = free_ports();
        // Below those that the system gives to clients, who might take one in between.
        let port = 12_000 + port % 18_000;
        let all =
            [port, port + 1000, port + 1001, port - 1000].map(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)));
        if all.iter().all(Result::is_ok) {
            return port;
        }
    }
}

fn properties(port: u16, folder: &Path) -> String {
    let folder = folder.display();
    // The key is 48 bytes.
    let key = "YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFh";
    format!(
        "server.servlet.contextPath=/nacos\nserver.port={port}\nserver.address=127.0.0.1\n\
         nacos.inetutils.ip-address=127.0.0.1\nnacos.standalone=true\n\
         spring.main.allow-bean-definition-overriding=true\nserver.tomcat.basedir={folder}/tomcat\n\
         nacos.core.auth.enabled=true\nnacos.core.auth.caching.enabled=false\nnacos.core.auth.system.type=nacos\n\
         nacos.core.auth.server.identity.key=tests\nnacos.core.auth.server.identity.value=tests\n\
         nacos.core.auth.plugin.nacos.token.secret.key={key}\n\
         nacos.core.auth.plugin.nacos.token.expire.seconds=18000\nnacos.naming.expireInstance=true\n\
         management.metrics.export.elastic.enabled=false\nmanagement.metrics.export.influx.enabled=false\n"
    )
}
