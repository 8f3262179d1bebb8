//! What is seen of middleware and limits: by operators, in the metrics and in the access log.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on must fail")]

use crate::support::gateway::Gateway;
use crate::support::program::{Program, echo, get_as, until};
use serde_json::{Value, json};

const RULES: &str = "[[middleware]]\nname = \"who\"\nmatch = { path_prefix = \"/in\" }\n\
                     api_key = { file = \"keys\", header = \"x-api-key\" }\n\
                     [[middleware]]\nmatch = { path_prefix = \"/plain\" }\nredirect_https = {}\n\
                     [[middleware]]\nrequest_id = {}\n\
                     [[rate_limits]]\nname = \"keys\"\nmatch = { path_prefix = \"/few\" }\nkey = \"header:x-api-key\"\n\
                     rate = \"1/h\"\nburst = 2\n";

fn asked(gateway: &Program, path: &str) -> Value {
    serde_json::from_str(&gateway.ask(path)).unwrap()
}

#[test]
fn whoever_stops_a_request_is_named_and_counted_over_reloads() {
    let keys = "shop: 0123456789abcdef\n";
    let gateway =
        Gateway::with().endpoint(echo()).file("keys", keys).table(RULES).telemetry("access_log = \"json\"").start();
    let status = |path: &str| get_as(&gateway.address, "a", path, &[]).split(' ').nth(1).unwrap().to_owned();
    let paths = ["/in", "/in/x", "/plain", "/few", "/few", "/few", "/"];
    assert_eq!(paths.map(status), ["401", "401", "308", "200", "200", "429", "200"]);
    let middleware = json!([
        { "name": "who", "kind": "api_key", "matches": "/in/*", "outcomes": { "refused": 2 } },
        { "name": "redirect_https /plain/*", "kind": "redirect_https", "matches": "/plain/*",
          "outcomes": { "answered": 1, "refused": 0 } },
        { "name": "request_id any", "kind": "request_id", "matches": "any", "outcomes": {} },
    ]);
    let limits = json!([{ "name": "keys", "matches": "/few/*", "key": "header:x-api-key", "rate": "1/h", "burst": 2,
                          "store_failing": false, "refused": 1 }]);
    assert_eq!(asked(&gateway, "/middleware")["middleware"], middleware);
    assert_eq!(asked(&gateway, "/rate_limits")["rate_limits"], limits);
    let digest = asked(&gateway, "/snapshot")["digest"].clone();
    std::fs::write(gateway.folder().join("keys"), "shop: 0123456789abcdee\n").unwrap();
    until("the file is read again", || asked(&gateway, "/snapshot")["digest"] != digest);
    assert_eq!(asked(&gateway, "/middleware")["middleware"], middleware);
    let sample = "wayside_middleware_total{middleware=\"who\",kind=\"api_key\",outcome=\"refused\"}";
    assert_eq!(gateway.metric(sample), Some(2.0));
    let (lines, _) = gateway.stop();
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let by: Vec<_> = lines.iter().map(|line| (line["middleware"].as_str(), line["middleware_kind"].as_str())).collect();
    let (key, tls) = ((Some("who"), Some("api_key")), (Some("redirect_https /plain/*"), Some("redirect_https")));
    assert_eq!(by, [key, key, tls, (None, None), (None, None), (None, None), (None, None)]);
}
