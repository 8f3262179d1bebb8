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
use std::time::Duration;
use tempfile::TempDir;

/// One member, with its data in a folder of its own.
#[derive(Debug)]
pub struct Etcd {
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where they connect with TLS, if they can.
    pub secure: SocketAddr,
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

    /// With more arguments. `tls`: they make it speak TLS, at a second address.
    pub async fn with(more: &[&str], tls: bool) -> Self {
        let mut problem = String::new();
        for _ in 0..3 {
            let ports = free_ports();
            let mut etcd = Self::member(0, ports, &[ports], more, tls);
            match etcd.ready().await {
                Ok(()) => return etcd,
                Err(why) => problem = why,
            }
        }
        panic!("etcd: {problem}");
    }

    /// Three members of one cluster.
    pub async fn three() -> [Self; 3] {
        let mut problem = String::new();
        for _ in 0..3 {
            let ports: [u16; 12] = free_ports();
            let all = [0, 4, 8].map(|at| [ports[at], ports[at + 1], ports[at + 2], ports[at + 3]]);
            let mut members = [0, 1, 2].map(|number| Self::member(number, all[number], &all, &[], false));
            problem.clear();
            for member in &mut members {
                member.ready().await.unwrap_or_else(|why| problem = why);
            }
            if problem.is_empty() {
                return members;
            }
        }
        panic!("etcd: {problem}");
    }

    /// Ports: of clients, of clients with TLS, of other members, of what it tells of itself.
    fn member(number: usize, ports: [u16; 4], all: &[[u16; 4]], more: &[&str], tls: bool) -> Self {
        let (program, folder) = (program("etcd"), tempfile::tempdir().unwrap());
        let [client, secure, peer, metrics] = ports;
        let mut clients = format!("http://127.0.0.1:{client}");
        if tls {
            clients.push_str(&format!(",https://127.0.0.1:{secure}"));
        }
        let one = |(number, [_, _, peer, _]): (usize, &[u16; 4])| format!("t{number}=http://127.0.0.1:{peer}");
        let cluster = all.iter().enumerate().map(one).collect::<Vec<_>>().join(",");
        let arguments = format!(
            "--name t{number} --data-dir {} --listen-client-urls {clients} --advertise-client-urls {clients} \
             --listen-peer-urls http://127.0.0.1:{peer} --initial-advertise-peer-urls http://127.0.0.1:{peer} \
             --initial-cluster {cluster} --listen-metrics-urls http://127.0.0.1:{metrics} --logger zap --log-level error \
             --heartbeat-interval 50 --election-timeout 500",
            folder.path().join("data").display()
        );
        let arguments: Vec<String> =
            arguments.split_whitespace().chain(more.iter().copied()).map(str::to_owned).collect();
        let process = Process::start(Command::new(&program).args(&arguments), &folder.path().join("log"));
        let [address, secure] = [client, secure].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let health = format!("http://127.0.0.1:{metrics}/health");
        Etcd { address, secure, process, health, arguments, program, folder, http: http(), token: None }
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

    /// Puts an empty value under a key, until it is taken.
    pub async fn put_again(&self, key: &[u8], within: Duration) {
        let body = json!({"key": STANDARD.encode(key)}).to_string();
        let taken = async || {
            let request = self.http.post(format!("http://{}/v3/kv/put", self.address)).body(body.clone());
            request.send().await.is_ok_and(|response| response.status().is_success())
        };
        let all = async {
            while !taken().await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(within, all).await.unwrap();
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
        self.log_in("root", "pw").await;
    }

    /// From now on this user asks.
    pub async fn log_in(&mut self, name: &str, password: &str) {
        self.token = None;
        let token = self.call("auth/authenticate", &json!({"name": name, "password": password})).await;
        self.token = Some(token["token"].as_str().unwrap().to_owned());
    }
}
