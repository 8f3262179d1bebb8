use super::*;
use crate::discovery::registry::credential::Credential;
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn client(text: &str) -> Client {
    Client::new(toml::from_str::<Settings>(text).unwrap()).unwrap()
}

#[test]
fn defaults_and_bounds() {
    let settings: Settings = toml::from_str("address = \"http://127.0.0.1:8500\"").unwrap();
    assert_eq!(
        (settings.wait, settings.max_answer, settings.max_connections),
        (Duration::from_secs(60), 16 << 20, 150)
    );
    assert!(settings.token.is_none());
    let text = "address = \"https://consul/base/\"\nwait = \"1h\"\ntoken_file = \"token\"";
    let settings = toml::from_str::<Settings>(text).unwrap().at(Path::new("/etc/wayside"));
    assert_eq!(settings.wait, Duration::from_secs(600));
    assert_eq!(settings.token, Credential::of("token", None, Some("/etc/wayside/token".into())).unwrap());
    assert_eq!(settings.address.to_string(), "https://consul/base");
}

#[test]
fn the_url_is_the_address_the_path_and_the_parameters() {
    let url = |address: &str, path: &[&str], parameters: &[(&str, &str)], index| {
        let client = client(&format!("address = {address:?}\nwait = \"90s\""));
        client.url(&Query { path, parameters, index }, client.settings.wait).unwrap().to_string()
    };
    assert_eq!(url("http://c:8500", &["kv", "a/b?c d"], &[], 0), "http://c:8500/v1/kv/a%2Fb%3Fc%20d");
    assert_eq!(url("http://c/base/", &["kv"], &[], 7), "http://c/base/v1/kv?index=7&wait=90000ms");
    let parameters = [("dc", "d&1"), ("tag", "a"), ("tag", "b=c")];
    assert_eq!(
        url("http://c", &["x", "y"], &parameters, 1),
        "http://c/v1/x/y?dc=d%261&tag=a&tag=b%3Dc&index=1&wait=90000ms"
    );
}

#[tokio::test]
async fn a_token_file_is_read_each_time_and_never_taken_for_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let client = client(&format!("address = \"http://c\"\ntoken_file = {file:?}"));
    let token = client.settings.token.clone().unwrap();
    assert!(token.read().await.unwrap_err().contains("cannot be read"));
    std::fs::write(&file, " \n").unwrap();
    assert!(token.read().await.unwrap_err().contains("is empty"));
    let query = Query { path: &["kv"], parameters: &[], index: 0 };
    assert_eq!(client.get(&query).await.unwrap_err().kind, Kind::Denied);
    for written in ["first", "second"] {
        std::fs::write(&file, format!("{written}\n")).unwrap();
        assert_eq!(token.read().await.unwrap().expose(), written);
    }
}

/// What the client makes of an agent that answers this to whatever it is asked, and closes.
async fn ask(answer: &'static str, keys: &str) -> Result<Reply, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            assert!(stream.read_buf(&mut asked).await.unwrap() > 0);
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(asked).unwrap()
    });
    let client = client(&format!("address = \"http://{address}\"\ntoken = \"s3cret\"\n{keys}"));
    let reply = client.get(&Query { path: &["kv", "a"], parameters: &[("raw", "true")], index: 0 }).await;
    let asked = served.await.unwrap();
    assert!(asked.starts_with("GET /v1/kv/a?raw=true HTTP/1.1\r\n") && asked.contains("x-consul-token: s3cret"));
    reply
}

#[tokio::test]
async fn an_answer_is_its_body_headers_and_index() {
    let answer = "HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nx-other: yes\r\ncontent-length: 4\r\n\r\n\0\u{7f}\r\n";
    let reply = ask(answer, "").await.unwrap();
    assert_eq!((reply.index, reply.body.as_slice(), reply.header("x-other")), (7, &b"\0\x7f\r\n"[..], Some("yes")));
    let failure = reply.failure(Kind::BadAnswer, "it quotes s3cret");
    assert!(failure.problem.starts_with("http://127.0.0.1:") && failure.problem.ends_with("it quotes [redacted]"));
    for index in ["", "x-consul-index: x\r\n", "x-consul-index: -1\r\n"] {
        let answer = format!("HTTP/1.1 200 OK\r\n{index}content-length: 0\r\n\r\n");
        assert_eq!(ask(answer.leak(), "").await.unwrap().index, 0, "{index:?}");
    }
}

#[tokio::test]
async fn a_failure_has_its_kind_and_no_secret() {
    let long = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n12345";
    for (answer, keys, kind, problem) in [
        ("HTTP/1.1 403 F\r\ncontent-length: 6\r\n\r\ns3cret", "", Kind::Denied, "answered 403: [redacted]"),
        ("HTTP/1.1 401 U\r\ncontent-length: 0\r\n\r\n", "", Kind::Denied, "answered 401"),
        ("HTTP/1.1 404 N\r\ncontent-length: 0\r\n\r\n", "", Kind::BadAnswer, "answered 404"),
        ("HTTP/1.1 429 T\r\ncontent-length: 0\r\n\r\n", "", Kind::Unreachable, "http_max_conns_per_client"),
        ("HTTP/1.1 500 I\r\ncontent-length: 9\r\n\r\nNo leader", "", Kind::Unreachable, "answered 500: No leader"),
        (long, "max_answer = 4", Kind::BadAnswer, "larger than 4 bytes (`max_answer`)"),
        ("no HTTP at all\r\n\r\n", "", Kind::BadAnswer, "the exchange failed"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n1", "", Kind::Unreachable, "the exchange failed"),
        ("", "", Kind::Unreachable, "the exchange failed"),
    ] {
        let failure = ask(answer, keys).await.unwrap_err();
        assert_eq!(failure.kind, kind, "{answer:?}: {failure}");
        assert!(failure.problem.starts_with("http://127.0.0.1:"), "{failure}");
        assert!(failure.problem.contains(problem) && !failure.problem.contains("s3cret"), "{failure}");
    }
    let query = Query { path: &["kv"], parameters: &[], index: 0 };
    let bound = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    bound.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = bound.local_addr().unwrap().as_socket().unwrap();
    let refused = client(&format!("address = \"http://{address}\"")).get(&query).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Unreachable, "{refused}");
    assert!(refused.problem.contains("cannot connect"), "{refused}");
    let odd = client("address = \"http://c\"\ntoken = \"a\\nb\"").get(&query).await.unwrap_err();
    assert_eq!(odd.kind, Kind::Denied, "{odd}");
}

#[tokio::test]
async fn an_agent_that_says_nothing_is_silent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(&format!("address = \"http://{}\"", listener.local_addr().unwrap()));
    let url = client.url(&Query { path: &["kv"], parameters: &[], index: 0 }, Duration::ZERO).unwrap();
    let silent = failure(&client.http.get(url).timeout(Duration::from_millis(100)).send().await.unwrap_err());
    assert_eq!(silent, Failure::new(Kind::Silent, "no answer in time"));
}
