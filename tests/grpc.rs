//! gRPC through the real program, with tonic's clients and servers: every kind of call, deadlines, and errors that the
//! gateway makes itself.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::gateway::Gateway;
use crate::support::origin::{Client, Protocol, empty};
use crate::support::program::{Program, nobody, until};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus as Answered;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::HealthReporter;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

/// gRPC's health service, of which `shop` stands as the reporter says, and its reflection service.
async fn server(status: ServingStatus) -> (SocketAddr, HealthReporter) {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_service_status("shop", status).await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = Server::builder().add_service(health).add_service(reflection);
    tokio::spawn(serving.serve_with_incoming(TcpIncoming::from(listener)));
    (address, reporter)
}

fn gateway(endpoints: &[SocketAddr]) -> Program {
    Gateway::with()
        .endpoints(endpoints)
        .service("protocol = \"h2\"\nstrategy = \"round-robin\"")
        .route("match = { path_prefix = \"/grpc.health.v1.Health\" }")
        .route("match = { path_prefix = \"/grpc.reflection.v1.ServerReflection\" }")
        .start()
}

async fn channel(gateway: &Program) -> Channel {
    Channel::from_shared(format!("http://{}", gateway.address)).unwrap().connect().await.unwrap()
}

fn shop() -> HealthCheckRequest {
    HealthCheckRequest { service: "shop".into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_call_passes_message_by_message() {
    let (address, reporter) = server(ServingStatus::Serving).await;
    let gateway = gateway(&[address]);
    let channel = channel(&gateway).await;

    let mut health = HealthClient::new(channel.clone());
    assert_eq!(health.check(shop()).await.unwrap().get_ref().status(), Answered::Serving);
    // The server's own errors, with their details, are no business of the gateway.
    let unknown = health.check(HealthCheckRequest { service: "unknown".into() }).await.unwrap_err();
    assert_eq!((unknown.code(), unknown.message()), (Code::NotFound, "service not registered"));

    let mut watched = health.watch(shop()).await.unwrap().into_inner();
    for (set, seen) in [(ServingStatus::NotServing, Answered::NotServing), (ServingStatus::Serving, Answered::Serving)]
        .into_iter()
        .cycle()
        .take(6)
    {
        assert_ne!(watched.message().await.unwrap().unwrap().status(), seen);
        reporter.set_service_status("shop", set).await;
    }

    // Each question is only asked when the answer before it has come.
    let (ask, questions) = tokio::sync::mpsc::channel(1);
    let questions =
        futures_util::stream::unfold(questions, |mut questions| async { Some((questions.recv().await?, questions)) });
    let mut reflection = ServerReflectionClient::new(channel);
    let list = || ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    ask.send(list()).await.unwrap();
    let mut answers = reflection.server_reflection_info(questions).await.unwrap().into_inner();
    for _ in 0..3 {
        let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
        let MessageResponse::ListServicesResponse(services) = answer else { panic!("{answer:?}") };
        assert!(services.service.iter().any(|service| service.name == "grpc.health.v1.Health"), "{services:?}");
        ask.send(list()).await.unwrap();
    }
    drop(ask);
    answers.message().await.unwrap();
    assert!(answers.message().await.unwrap().is_none());
    drop(watched);
    until("no call is left", || gateway.metric("wayside_exchanges_in_flight") == Some(0.0));
}

#[tokio::test]
async fn calls_of_one_connection_go_to_all_endpoints() {
    let (serving, _) = server(ServingStatus::Serving).await;
    let (other, _) = server(ServingStatus::NotServing).await;
    let gateway = gateway(&[serving, other]);
    let mut health = HealthClient::new(channel(&gateway).await);
    let mut serving = 0;
    for _ in 0..10 {
        serving += u32::from(health.check(shop()).await.unwrap().get_ref().status() == Answered::Serving);
    }
    assert_eq!(serving, 5);
}

#[tokio::test]
async fn the_gateways_own_errors_are_ones_of_grpc() {
    let gateway = gateway(&[nobody().address]);
    let channel = channel(&gateway).await;
    let unreachable = HealthClient::new(channel.clone()).check(shop()).await.unwrap_err();
    assert_eq!((unreachable.code(), unreachable.message()), (Code::Unavailable, "The service could not be reached."));

    let mut client = Client::connect(&gateway.address, Protocol::Http2).await;
    let response = client.send("POST", "/shop.Cart/Add", &[("content-type", "application/grpc+proto")], empty()).await;
    assert_eq!(response.status(), 200);
    assert!(http_body::Body::is_end_stream(response.body()), "trailers-only: one HEADERS frame that ends the stream");
    let headers = response.headers();
    assert_eq!(
        (&headers["grpc-status"], &headers["content-type"]),
        (&"12".parse().unwrap(), &"application/grpc".parse().unwrap())
    );

    // gRPC-Web is HTTP like any other.
    let response = client.send("POST", "/shop.Cart/Add", &[("content-type", "application/grpc-web")], empty()).await;
    assert_eq!(
        (response.status(), &response.headers()["content-type"]),
        (404.try_into().unwrap(), &"application/json".parse().unwrap())
    );
    // Whoever looks at the metrics sees what failed, whatever the status of HTTP said.
    let failed = gateway.metric("wayside_requests_total{route=\"none\",service=\"none\",code=\"4xx\"}");
    assert_eq!(failed, Some(2.0));
}

#[tokio::test]
async fn a_deadline_ends_a_call_before_and_after_its_first_message() {
    let (address, _reporter) = server(ServingStatus::Serving).await;
    let before = gateway(&[address]);
    let mut watch = Request::new(shop());
    watch.set_timeout(Duration::from_millis(300));
    // tonic's client looks at the clock until the head is there; from then on it is the gateway that ends this.
    let mut watched = HealthClient::new(channel(&before).await).watch(watch).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), Answered::Serving);
    let over = watched.message().await.unwrap_err();
    assert_eq!((over.code(), over.message()), (Code::DeadlineExceeded, "The request took longer than it may."));

    // Connects and is never answered.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = gateway(&[silent.local_addr().unwrap()]);
    let mut client = Client::connect(&gateway.address, Protocol::Http2).await;
    let headers = [("content-type", "application/grpc"), ("grpc-timeout", "50m")];
    let response = client.send("POST", "/grpc.health.v1.Health/Check", &headers, empty()).await;
    assert_eq!(
        (response.status(), &response.headers()["grpc-status"]),
        (200.try_into().unwrap(), &"4".parse().unwrap())
    );

    // That its clients are in a hurry is not the service's fault.
    let breaker = "breaker = { min_requests = 2, window = \"60s\" }";
    let gateway = Gateway::with().endpoint(silent.local_addr().unwrap());
    let gateway = gateway.service(&format!("protocol = \"h2\"\n{breaker}")).start();
    let mut client = Client::connect(&gateway.address, Protocol::Http2).await;
    for _ in 0..4 {
        let response = client.send("POST", "/grpc.health.v1.Health/Check", &headers, empty()).await;
        assert_eq!(response.headers()["grpc-status"], "4");
    }
    assert_eq!(gateway.metric(r#"wayside_breaker_open{service="shop"}"#), Some(0.0));
}
