//! gRPC balanced call by call: calls of one connection go to several of grpc-go's interop servers, whatever kind they are of, and
//! a server that says that it does not serve gets none.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::gateway::Gateway;
use crate::support::program::{Program, until};
use crate::support::servers::{self, Process};
use prost::Message;
use serde_json::Value;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Status};
use tonic_health::ServingStatus;
use tonic_prost::ProstCodec;

// Of grpc/testing/messages.proto, what is used here.
#[derive(Clone, PartialEq, Message)]
struct Payload {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(bytes = "vec", tag = "2")]
    body: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct EchoStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// A `SimpleRequest`.
#[derive(Clone, PartialEq, Message)]
struct Asked {
    #[prost(int32, tag = "2")]
    response_size: i32,
    #[prost(message, optional, tag = "7")]
    response_status: Option<EchoStatus>,
}

/// A `StreamingInputCallRequest`; each answer but the sum begins so, too.
#[derive(Clone, PartialEq, Message)]
struct Piece {
    #[prost(message, optional, tag = "1")]
    payload: Option<Payload>,
}

#[derive(Clone, PartialEq, Message)]
struct Sum {
    #[prost(int32, tag = "1")]
    bytes: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Wanted {
    #[prost(int32, tag = "1")]
    size: i32,
    #[prost(int32, tag = "2")]
    interval_us: i32,
}

/// A `StreamingOutputCallRequest`.
#[derive(Clone, PartialEq, Message)]
struct Stream {
    #[prost(message, repeated, tag = "2")]
    wanted: Vec<Wanted>,
    #[prost(message, optional, tag = "7")]
    response_status: Option<EchoStatus>,
}

fn stream(sizes: &[i32], interval: Duration) -> Stream {
    let interval_us = interval.as_micros().try_into().unwrap();
    Stream { wanted: sizes.iter().map(|size| Wanted { size: *size, interval_us }).collect(), response_status: None }
}

fn failing(code: Code) -> Option<EchoStatus> {
    Some(EchoStatus { code: code as i32, message: "said so".into() })
}

fn path(method: &str) -> PathAndQuery {
    format!("/grpc.testing.TestService/{method}").parse().unwrap()
}

/// The one connection of a client.
#[derive(Clone)]
struct Caller(Grpc<Channel>);

impl Caller {
    async fn connect(gateway: &Program) -> Self {
        let channel = Channel::from_shared(format!("http://{}", gateway.address)).unwrap().connect().await.unwrap();
        Caller(Grpc::new(channel))
    }

    async fn unary(&mut self, asked: Asked) -> Result<Piece, Status> {
        self.0.ready().await.unwrap();
        let codec: ProstCodec<Asked, Piece> = ProstCodec::default();
        self.0.unary(Request::new(asked), path("UnaryCall"), codec).await.map(tonic::Response::into_inner)
    }

    async fn server_stream(&mut self, asked: Request<Stream>) -> Result<tonic::Streaming<Piece>, Status> {
        self.0.ready().await.unwrap();
        let codec: ProstCodec<Stream, Piece> = ProstCodec::default();
        let answer = self.0.server_streaming(asked, path("StreamingOutputCall"), codec).await?;
        Ok(answer.into_inner())
    }

    async fn client_stream(&mut self, sizes: &'static [usize]) -> Sum {
        self.0.ready().await.unwrap();
        let piece = |size: &usize| Piece { payload: Some(Payload { kind: 0, body: vec![0; *size] }) };
        let pieces = futures_util::stream::iter(sizes.iter().map(piece));
        let codec: ProstCodec<Piece, Sum> = ProstCodec::default();
        let answer = self.0.client_streaming(Request::new(pieces), path("StreamingInputCall"), codec).await;
        answer.unwrap().into_inner()
    }

    async fn both(&mut self, asked: Vec<Stream>) -> Result<tonic::Streaming<Piece>, Status> {
        self.both_within(asked, Duration::from_secs(60)).await
    }

    async fn both_within(&mut self, asked: Vec<Stream>, time: Duration) -> Result<tonic::Streaming<Piece>, Status> {
        self.0.ready().await.unwrap();
        let mut asked = Request::new(futures_util::stream::iter(asked));
        asked.set_timeout(time);
        let codec: ProstCodec<Stream, Piece> = ProstCodec::default();
        let answer = self.0.streaming(asked, path("FullDuplexCall"), codec).await?;
        Ok(answer.into_inner())
    }
}

/// The sizes of what comes, and how it ends.
async fn all(mut answers: tonic::Streaming<Piece>) -> (Vec<usize>, Result<(), Status>) {
    let mut sizes = Vec::new();
    loop {
        match answers.message().await {
            Ok(Some(piece)) => sizes.push(piece.payload.unwrap_or_default().body.len()),
            Ok(None) => return (sizes, Ok(())),
            Err(status) => return (sizes, Err(status)),
        }
    }
}

/// Three of grpc-go's interop servers.
struct Interop {
    servers: Vec<Process>,
    addresses: Vec<SocketAddr>,
    _folder: TempDir,
}

impl Interop {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = servers::program("grpc-interop-server");
        let ports = servers::free_ports::<3>();
        let start = |port: &u16| {
            let mut command = Command::new(&program);
            Process::start(command.arg(format!("--port={port}")), &folder.path().join(format!("{port}.log")))
        };
        let servers = ports.iter().map(start).collect();
        let addresses: Vec<SocketAddr> = ports.iter().map(|port| ([127, 0, 0, 1], *port).into()).collect();
        for address in &addresses {
            until("the server listens", || TcpStream::connect(address).is_ok());
        }
        Interop { servers, addresses, _folder: folder }
    }

    fn gateway(&self, keys: &str) -> Program {
        let gateway = Gateway::with().endpoints(&self.addresses).telemetry("access_log = \"json\"");
        gateway.service(&format!("protocol = \"h2\"\nstrategy = \"round-robin\"\n{keys}")).start()
    }
}

/// How many calls of this method each endpoint had, in order, after its gateway has ended.
fn shares(gateway: Program, method: &str) -> Vec<usize> {
    let (lines, _) = gateway.stop();
    let mut shares = std::collections::BTreeMap::new();
    for line in lines {
        let line: Value = serde_json::from_str(&line).unwrap();
        if line["path"].as_str().unwrap().ends_with(method) {
            *shares.entry(line["endpoint"].as_str().unwrap().to_owned()).or_insert(0) += 1;
        }
    }
    let mut shares: Vec<usize> = shares.into_values().collect();
    shares.sort_unstable();
    shares
}

fn endpoints(gateway: &Program) -> Vec<Value> {
    let shown: Value = serde_json::from_str(&gateway.ask("/services")).unwrap();
    shown["services"][0]["endpoints"].as_array().unwrap().clone()
}

fn nothing_is_left(gateway: &Program) {
    until("no call is left", || gateway.metric("wayside_exchanges_in_flight") == Some(0.0));
    until("nor at any endpoint", || endpoints(gateway).iter().all(|endpoint| endpoint["in_flight"] == 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_call_of_a_connection_goes_its_own_way_whatever_kind_it_is_of() {
    let interop = Interop::start();
    for method in ["UnaryCall", "StreamingOutputCall", "StreamingInputCall", "FullDuplexCall"] {
        let gateway = interop.gateway("");
        let caller = Caller::connect(&gateway).await;
        // All at once, on one connection.
        let call = |mut caller: Caller| async move {
            let soon = Duration::from_millis(1);
            match method {
                "UnaryCall" => {
                    let answer = caller.unary(Asked { response_size: 314, response_status: None }).await.unwrap();
                    assert_eq!(answer.payload.unwrap().body.len(), 314);
                }
                "StreamingOutputCall" => {
                    let asked = Request::new(stream(&[31_415, 9, 2_653], soon));
                    let (sizes, end) = all(caller.server_stream(asked).await.unwrap()).await;
                    assert!(sizes == [31_415, 9, 2_653] && end.is_ok(), "{sizes:?} {end:?}");
                }
                "StreamingInputCall" => {
                    assert_eq!(caller.client_stream(&[27_182, 8, 1_828, 45_904]).await.bytes, 74_922);
                }
                _ => {
                    let asked = [31_415, 9, 2_653].iter().map(|size| stream(&[*size], soon)).collect();
                    let (sizes, end) = all(caller.both(asked).await.unwrap()).await;
                    assert!(sizes == [31_415, 9, 2_653] && end.is_ok(), "{sizes:?} {end:?}");
                }
            }
        };
        let calls: Vec<_> = (0..12).map(|_| tokio::spawn(call(caller.clone()))).collect();
        for called in calls {
            called.await.unwrap();
        }
        nothing_is_left(&gateway);
        assert_eq!(shares(gateway, method), [4, 4, 4], "{method}");
    }
}

#[test]
fn the_official_client_soaks_one_connection_and_each_server_has_its_share() {
    let interop = Interop::start();
    let gateway = interop.gateway("");
    let port = gateway.address.rsplit(':').next().unwrap();
    let told = Command::new(servers::program("grpc-interop-client"))
        .args(["--server_host=127.0.0.1", &format!("--server_port={port}"), "--test_case=rpc_soak"])
        .args(["--soak_iterations=30", "--soak_max_failures=0", "--soak_overall_timeout_seconds=60"])
        .args(["--soak_per_iteration_max_acceptable_latency_ms=20000"])
        .output()
        .unwrap();
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let shares = shares(gateway, "UnaryCall");
    assert!(shares.len() == 3 && shares.iter().all(|share| *share >= 10), "{shares:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_and_a_cancel_end_a_call_at_its_server() {
    let interop = Interop::start();
    let gateway = interop.gateway("");
    let mut caller = Caller::connect(&gateway).await;
    let slow = || stream(&[1, 1], Duration::from_secs(1800));
    // While the head is waited for: tonic's client looks at the clock, too, and takes its call back.
    let mut asked = Request::new(slow());
    asked.set_timeout(Duration::from_millis(300));
    let over = match caller.server_stream(asked).await {
        Err(status) => status,
        Ok(answers) => all(answers).await.1.unwrap_err(),
    };
    assert!(matches!(over.code(), Code::DeadlineExceeded | Code::Cancelled), "{over:?}");
    nothing_is_left(&gateway);
    // After it, the gateway alone does.
    let asked = vec![stream(&[7], Duration::ZERO), slow()];
    let (sizes, end) = all(caller.both_within(asked, Duration::from_millis(500)).await.unwrap()).await;
    assert_eq!((sizes, end.unwrap_err().code()), (vec![7], Code::DeadlineExceeded));
    nothing_is_left(&gateway);
    // Three streams that stand still, on all servers; then nobody wants them any more.
    let asked = || vec![stream(&[7], Duration::ZERO), slow()];
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut answers = caller.both(asked()).await.unwrap();
        assert_eq!(answers.message().await.unwrap().unwrap().payload.unwrap().body.len(), 7);
        open.push(answers);
    }
    until("each server has one", || endpoints(&gateway).iter().all(|endpoint| endpoint["in_flight"] == 1));
    drop(open);
    nothing_is_left(&gateway);
    // Neither speaks against a server.
    assert!(endpoints(&gateway).iter().all(|endpoint| endpoint["healthy"] == true && endpoint["failures"].is_null()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_counts_whether_it_comes_alone_or_after_messages() {
    let interop = Interop::start();
    let gateway = interop.gateway("outlier = { consecutive = 3 }");
    let mut caller = Caller::connect(&gateway).await;
    // Of the call's own doing: alone in the head ("trailers-only"), and after a message. It speaks against nobody.
    for _ in 0..9 {
        let asked = Asked { response_size: 0, response_status: failing(Code::NotFound) };
        let status = caller.unary(asked).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::NotFound, "said so"));
        let told = Stream { response_status: failing(Code::NotFound), ..stream(&[], Duration::ZERO) };
        let asked = vec![stream(&[5], Duration::ZERO), told];
        let (sizes, end) = all(caller.both(asked).await.unwrap()).await;
        assert_eq!((sizes, end.unwrap_err().code()), (vec![5], Code::NotFound));
    }
    let failures = || endpoints(&gateway).iter().filter(|endpoint| !endpoint["failures"].is_null()).count();
    assert_eq!(failures(), 0);
    // Three bad ones of one server, each after a message whose head was a good one.
    let told = Stream { response_status: failing(Code::Unavailable), ..stream(&[], Duration::ZERO) };
    for _ in 0..9 {
        let asked = vec![stream(&[5], Duration::ZERO), told.clone()];
        let (_, end) = all(caller.both(asked).await.unwrap()).await;
        assert_eq!(end.unwrap_err().code(), Code::Unavailable);
    }
    let ejections = "wayside_endpoint_ejections_total{service=\"shop\",cause=\"consecutive\"}";
    until("one is put aside", || gateway.metric(ejections) >= Some(1.0));
    assert!(failures() >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_costs_no_further_call() {
    let mut interop = Interop::start();
    let gateway = interop.gateway("max_attempts = 3");
    let mut caller = Caller::connect(&gateway).await;
    for _ in 0..3 {
        caller.unary(Asked::default()).await.unwrap();
    }
    interop.servers[0].kill();
    until("it is gone", || TcpStream::connect(interop.addresses[0]).is_err());
    // The gateway may learn of its connection's end by the first of them.
    let mut failed = 0;
    for _ in 0..12 {
        failed += usize::from(caller.unary(Asked::default()).await.is_err());
    }
    assert!(failed <= 1, "{failed}");
    nothing_is_left(&gateway);
}

/// A server with nothing but gRPC's health service.
async fn health() -> (SocketAddr, tonic_health::server::HealthReporter) {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("shop", ServingStatus::Serving).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(Server::builder().add_service(health).serve_with_incoming(TcpIncoming::from(listener)));
    (address, reporter)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_says_that_it_does_not_serve_gets_no_calls_of_an_open_connection() {
    let servers = [health().await, health().await, health().await];
    let check = "health = { kind = \"grpc\", service = \"shop\", interval = \"50ms\", timeout = \"5s\", unhealthy_after = 1, healthy_after = 1 }";
    let gateway = Gateway::with().endpoints(servers.iter().map(|(address, _)| address));
    let gateway = gateway.service(&format!("protocol = \"h2\"\n{check}")).telemetry("access_log = \"json\"").start();
    let healthy = |many: usize| {
        until("the checks have seen it", || {
            endpoints(&gateway).iter().filter(|endpoint| endpoint["healthy"] == true).count() == many
        });
    };
    healthy(3);
    let channel = Channel::from_shared(format!("http://{}", gateway.address)).unwrap().connect().await.unwrap();
    let mut client = tonic_health::pb::health_client::HealthClient::new(channel);
    let ask = || tonic_health::pb::HealthCheckRequest { service: "shop".into() };
    for (status, many) in [(ServingStatus::NotServing, 2), (ServingStatus::Serving, 3)] {
        servers[1].1.set_service_status("shop", status).await;
        healthy(many);
        for _ in 0..6 {
            let answer = client.check(ask()).await.unwrap().into_inner();
            assert_eq!(answer.status(), tonic_health::pb::health_check_response::ServingStatus::Serving);
        }
    }
    // Six to two of them, and six to all three.
    assert_eq!(shares(gateway, "Check"), [2, 5, 5]);
}
