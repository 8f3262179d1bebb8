//! A real etcd.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "for tests, each of which uses some of it"
)]

use super::servers::{Process, free_ports, http, program};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// One member, with its data in a folder of its own.
#[derive(Debug)]
pub struct Etcd {
    /// Where clients connect.
    pub address: SocketAddr,
    /// The server.
    pub process: Process,
    health: String,
    arguments: Vec<String>,
    program: PathBuf,
    folder: TempDir,
    http: reqwest::Client,
    /// What calls of its JSON gateway are made with.
    pub token: Option<String>,
}

impl Etcd {
    /// Ready after a second.
    pub async fn start() -> Self {
        Self::with(&[], false).await
    }

    /// With more arguments. `tls`: they make it speak TLS.
    pub async fn with(more: &[&str], tls: bool) -> Self {
        let program = program("etcd");
        let mut problem = String::new();
        for _ in 0..3 {
            let folder = tempfile::tempdir().unwrap();
            let [client, peer, metrics] = free_ports();
            let scheme = if tls { "https" } else { "http" };
            let arguments = format!(
                "--name t1 --data-dir {} --listen-client-urls {scheme}://127.0.0.1:{client} --advertise-client-urls \
                 {scheme}://127.0.0.1:{client} --listen-peer-urls http://127.0.0.1:{peer} --initial-advertise-peer-urls \
                 http://127.0.0.1:{peer} --initial-cluster t1=http://127.0.0.1:{peer} --listen-metrics-urls \
                 http://127.0.0.1:{metrics} --logger zap --log-level error --heartbeat-interval 50 --election-timeout 500",
                folder.path().join("data").display()
            );
            let arguments: Vec<String> =
                arguments.split_whitespace().chain(more.iter().copied()).map(str::to_owned).collect();
            let log = folder.path().join("log");
            let process = Process::start(Command::new(&program).args(&arguments), &log);
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, client));
            let health = format!("http://127.0.0.1:{metrics}/health");
            let (program, http) = (program.clone(), http());
            let mut etcd = Etcd { address, process, health, arguments, program, folder, http, token: None };
            match etcd.ready().await {
                Ok(()) => return etcd,
                Err(why) => problem = why,
            }
        }
        panic!("etcd: {problem}");
    }

    async fn ready(&mut self) -> Result<(), String> {
        let (http, health) = (&self.http, &self.health);
        let ready = || async {
            let Ok(response) = http.get(health).send().await else { return false };
            response.text().await.is_ok_and(|text| text.contains("true"))
        };
        self.process.ready(ready).await
    }

    /// Starts it again on the same ports and data.
    pub async fn start_again(&mut self) {
        self.process.kill();
        self.process =
            Process::start(Command::new(&self.program).args(&self.arguments), &self.folder.path().join("log"));
        self.ready().await.unwrap();
    }

    /// Takes its data away while it is down.
    pub fn forget(&mut self) {
        self.process.kill();
        std::fs::remove_dir_all(self.folder.path().join("data")).unwrap();
    }

    /// One call of its JSON gateway. Panics on anything but success.
    pub async fn call(&self, path: &str, body: &Value) -> Value {
        let mut request = self.http.post(format!("http://{}/v3/{path}", self.address)).body(body.to_string());
        if let Some(token) = &self.token {
            request = request.header("authorization", token);
        }
        let response = request.send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Puts a value under a key; `lease`: 0 for none.
    pub async fn put(&self, key: &[u8], value: &[u8], lease: &str) {
        let body = json!({"key": STANDARD.encode(key), "value": STANDARD.encode(value), "lease": lease});
        self.call("kv/put", &body).await;
    }

    /// Deletes all keys with this prefix.
    pub async fn delete(&self, key: &str, prefix: bool) {
        let mut body = json!({"key": STANDARD.encode(key)});
        if prefix {
            let mut end = key.as_bytes().to_vec();
            *end.last_mut().unwrap() += 1;
            body["range_end"] = json!(STANDARD.encode(end));
        }
        self.call("kv/deleterange", &body).await;
    }

    /// Users `root` and `gw` (both with the password `pw`), the latter of whom may read a prefix.
    pub async fn guard(&mut self, prefix: &str) {
        for (user, role) in [("root", "root"), ("gw", "reader")] {
            self.call("auth/user/add", &json!({"name": user, "password": "pw"})).await;
            self.call("auth/role/add", &json!({"name": role})).await;
            self.call("auth/user/grant", &json!({"user": user, "role": role})).await;
        }
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().unwrap() += 1;
        let permission = json!({"permType": "READ", "key": STANDARD.encode(prefix), "range_end": STANDARD.encode(end)});
        self.call("auth/role/grant", &json!({"name": "reader", "perm": permission})).await;
        self.call("auth/enable", &json!({})).await;
        let token = self.call("auth/authenticate", &json!({"name": "root", "password": "pw"})).await;
        self.token = Some(token["token"].as_str().unwrap().to_owned());
    }
}
