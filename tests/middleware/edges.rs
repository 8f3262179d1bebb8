//! Ids of requests, redirects to TLS, and pages of other origins, with a real browser.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::gateway::Gateway;
use crate::support::program::{echo, get_as};
use crate::support::raw::next_head;
use crate::support::servers::{self, Process};
use std::io::{BufReader, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::Duration;

fn line<'a>(response: &'a str, name: &str) -> Option<&'a str> {
    response.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[test]
fn a_request_has_one_id_for_its_endpoint_its_client_and_the_log() {
    let rule = "[[middleware]]\nrequest_id = {}\n";
    let gateway = Gateway::with().endpoint(echo()).telemetry("access_log = \"json\"").table(rule).start();
    let forged = get_as(&gateway.address, "a", "/", &[("x-request-id", "forged")]);
    let (head, seen) = forged.split_once("\r\n\r\n").unwrap();
    let id = line(head, "x-request-id").unwrap();
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    assert!(
        seen.to_ascii_lowercase().contains(&format!("x-request-id: {id}")) && !forged.contains("forged"),
        "{forged}"
    );
    // The gateway's own answers have one, too.
    let own = get_as(&gateway.address, "a", "/%2e%2e%5c", &[]);
    assert!(own.starts_with("HTTP/1.1 400") && line(&own, "x-request-id").is_none(), "{own}");
    let (lines, _) = gateway.stop();
    assert!(lines.iter().any(|line| line.contains(&format!("\"request_id\":\"{id}\""))), "{lines:?}");
}

#[test]
fn a_trusted_proxy_names_the_request_and_the_scheme() {
    let rules = "[[middleware]]\nrequest_id = { header = \"x-id\" }\n\
                 [[middleware]]\nmatch = { path_prefix = \"/only\" }\nredirect_https = { port = 8443 }\n";
    let keys = "trusted_proxies = [\"127.0.0.0/8\"]";
    let gateway = Gateway::with().endpoint(echo()).keys(keys).table(rules).start();
    let ask = |path, headers: &[(&str, &str)]| get_as(&gateway.address, "shop.example", path, headers);
    assert_eq!(line(&ask("/", &[("x-id", "their-own")]), "x-id"), Some("their-own"));
    assert_ne!(line(&ask("/", &[("x-id", "not \"plain\"")]), "x-id"), Some("not \"plain\""));
    let sent = ask("/only/a?b=c", &[("x-id", "z")]);
    assert!(sent.starts_with("HTTP/1.1 308"), "{sent}");
    assert_eq!(line(&sent, "location"), Some("https://shop.example:8443/only/a?b=c"));
    assert_eq!(line(&sent, "x-id"), Some("z"));
    assert!(ask("/only/a", &[("x-forwarded-proto", "https")]).starts_with("HTTP/1.1 200"));
    assert!(ask("/.well-known/acme-challenge/x", &[]).starts_with("HTTP/1.1 200"));
}

/// Asks the API of another origin in four ways, and says what came of each.
const PAGE: &str = r"<!doctype html><title>a test</title><script>
const api = 'API';
const ask = async (name, path, options) => {
  try {
    const answer = await fetch(api + path, options);
    return name + '-' + answer.status + '-' + answer.headers.get('x-seen') + '-' + answer.headers.get('x-hidden');
  } catch { return name + '-refused'; }
};
(async () => {
  const said = [
    await ask('plain', '/open', {}),
    await ask('put', '/open', { method: 'PUT', headers: { 'x-mine': '1' }, body: 'a' }),
    await ask('delete', '/open', { method: 'DELETE' }),
    await ask('cookie', '/open', { credentials: 'include' }),
    await ask('other', '/closed', {}),
    await ask('error', '/nowhere', {}),
  ];
  await fetch('/said?' + said.join(','));
})();
</script>";

/// Answers each request on one connection with what `answer` says of its path.
fn serve(listener: TcpListener, answer: impl Fn(&str) -> String + Send + Clone + 'static) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, answer) = (BufReader::new(stream.unwrap()), answer.clone());
            std::thread::spawn(move || {
                loop {
                    let Some(head) = next_head(&mut stream) else { return };
                    let mut length = 0;
                    for line in head.to_ascii_lowercase().lines() {
                        length = line.strip_prefix("content-length: ").map_or(length, |length| length.parse().unwrap());
                    }
                    std::io::Read::read_exact(&mut stream, &mut vec![0; length]).unwrap();
                    let path = head.split(' ').nth(1).unwrap().to_owned();
                    if stream.get_mut().write_all(answer(&path).as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

#[test]
fn a_browser_lets_a_page_read_what_the_rules_say_and_nothing_else() {
    let (page, api) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let origin = format!("http://{}", page.local_addr().unwrap());
    // The endpoint itself would let everybody in.
    serve(api.try_clone().unwrap(), |_| {
        "HTTP/1.1 200 OK\r\naccess-control-allow-origin: *\r\nx-seen: yes\r\nx-hidden: yes\r\ncontent-length: 0\r\n\r\n"
            .to_owned()
    });
    let rules = format!(
        "[[middleware]]\nmatch = {{ path = \"/closed\" }}\ncors = {{ origins = [\"https://other.example\"] }}\n\
         [[middleware]]\nmatch = {{ path = \"/open\" }}\ncors = {{ origins = [\"{origin}\", \"https://*.example.com\"], \
         methods = [\"PUT\"], headers = [\"x-mine\"], expose = [\"x-seen\"], max_age = \"1m\" }}\n\
         [[middleware]]\nmatch = {{ path = \"/nowhere\" }}\ncors = {{ origins = [\"*\"] }}\n"
    );
    let gateway = Gateway::with().endpoint(api.local_addr().unwrap()).table(&rules);
    let gateway = gateway.route("match = { path = \"/open\" }").route("match = { path = \"/closed\" }").start();
    let (to, told) = channel();
    let html = PAGE.replace("API", &format!("http://{}", gateway.address));
    serve(page, move |path| {
        if let Some(said) = path.strip_prefix("/said?") {
            let _ = to.send(said.to_owned());
        }
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n{html}", html.len())
    });
    let profile = tempfile::tempdir().unwrap();
    let mut browser = Command::new(servers::program("chromium"));
    browser
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--no-proxy-server", "--remote-debugging-port=0"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(&origin);
    let log = gateway.folder().join("browser.log");
    let _browser = Process::start(&mut browser, &log);
    let said = told.recv_timeout(Duration::from_secs(60));
    let said = said.unwrap_or_else(|_| std::fs::read_to_string(&log).unwrap_or_default());
    let expected =
        "plain-200-yes-null,put-200-yes-null,delete-refused,cookie-refused,other-refused,error-404-null-null";
    assert_eq!(said, expected);
}

#[test]
fn a_preflight_is_answered_by_the_gateway_and_says_what_it_depends_on() {
    let rule =
        "[[middleware]]\ncors = { origins = [\"https://a.example\"], methods = [\"PUT\"], credentials = true }\n";
    let gateway = Gateway::with().table(rule);
    let gateway = gateway.start();
    let ask = |origin: &str| {
        let mut client = crate::support::raw::Raw::connect(&gateway.address);
        client.say(&format!(
            "OPTIONS / HTTP/1.1\r\nhost: a\r\norigin: {origin}\r\naccess-control-request-method: PUT\r\n\r\n"
        ));
        client.head()
    };
    // There is no endpoint: nobody else answers.
    let allowed = ask("https://a.example");
    assert!(allowed.starts_with("HTTP/1.1 204"), "{allowed}");
    assert_eq!(line(&allowed, "access-control-allow-origin"), Some("https://a.example"));
    assert_eq!(line(&allowed, "access-control-allow-credentials"), Some("true"));
    assert_eq!(line(&allowed, "access-control-allow-methods"), Some("PUT"));
    assert!(allowed.contains("vary: origin"), "{allowed}");
    let stranger = ask("https://b.example");
    assert!(stranger.starts_with("HTTP/1.1 204") && !stranger.contains("access-control-allow"), "{stranger}");
}
