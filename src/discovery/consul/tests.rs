use super::States;
use crate::discovery::registry::credential::Credential;
use crate::discovery::{Lookup, SourceSettings};
use std::path::Path;
use std::time::Duration;

fn parse(text: &str) -> Result<super::Settings, String> {
    super::Settings::read(toml::from_str(text).unwrap(), Path::new("/etc/wayside"))
}

#[test]
fn defaults() {
    let settings = parse("address = \"http://127.0.0.1:8500\"").unwrap();
    assert!(settings.states == States::NotCritical && settings.tags.is_empty() && settings.client.token.is_none());
    assert_eq!((settings.client.wait, settings.confirm_after), (Duration::from_secs(60), Duration::from_secs(5)));
    assert_eq!(settings.client.address.to_string(), "http://127.0.0.1:8500");
    assert!(super::Consul::new(&settings).is_ok());
}

#[test]
fn states_and_relative_paths() {
    let settings = parse("address = \"https://consul/base/\"\ntoken_file = \"token\"\npassing = false").unwrap();
    assert_eq!(settings.client.token, Credential::of("token", None, Some("/etc/wayside/token".into())).unwrap());
    assert_eq!(settings.states, States::All);
    for (key, states) in [
        ("passing = true", States::Passing),
        ("passing_only = true", States::Passing),
        ("passing_only = false", States::NotCritical),
    ] {
        assert_eq!(parse(&format!("address = \"http://c\"\n{key}")).unwrap().states, states, "{key}");
    }
}

#[test]
fn problems_are_told_without_secrets() {
    let good = "address = \"http://127.0.0.1:8500\"\n";
    let cases = [
        ("".to_owned(), "missing field `address`"),
        ("address = \"127.0.0.1:8500\"".to_owned(), "expected a URL"),
        ("address = \"ftp://u:hunter2@h\"".to_owned(), "expected a URL"),
        ("address = \"http://u:hunter2@h:99999\"".to_owned(), "invalid port number"),
        ("address = \"http://h/?token=hunter2\"".to_owned(), "without a query"),
        (format!("{good}token = \"hunter2\"\ntoken_file = \"t\""), "exclude each other"),
        (format!("{good}token = \" \""), "`token` is empty"),
        (format!("{good}token = [\"hunter2\"]"), "must be a string"),
        (format!("{good}tokn = \"hunter2\""), "unknown field `tokn`"),
        (format!("{good}passing = true\npassing_only = true"), "exclude each other"),
        (format!("{good}max_connections = 0"), "0 is not between 1 and 10000"),
        (format!("{good}wait = 5"), "expected a string"),
        (format!("{good}namespace = \" \""), "`namespace` is empty"),
        (format!("{good}node_meta = {{ 'a:b' = 'c' }}"), "`node_meta`: `a:b` is no key"),
        (format!("{good}dns_server = '10.0.0.10'"), "`dns_server` is of use with `resolve_hosts = true` only"),
        (format!("{good}resolve_hosts = true\ndns_server = 'dns'"), "`dns_server`: `dns` is not IP:PORT"),
    ];
    for (text, expected) in cases {
        let problem = parse(&text).unwrap_err();
        assert!(problem.contains(expected), "{text:?} gave {problem:?}");
        assert!(!problem.contains("hunter2"), "{problem}");
    }
}

#[test]
fn nothing_that_is_shown_holds_a_secret() {
    let text = "address = \"http://me:hunter2@[::1]:8500/\"\ntoken = \"s3cret\"";
    let settings = parse(text).unwrap();
    let declared = toml::from_str(&format!("kind = \"consul\"\n{text}")).unwrap();
    let declared = SourceSettings::parse(declared, Path::new("/")).unwrap();
    let source = super::Consul::new(&settings).unwrap();
    let shown = format!("{settings:?} {} {source:?} {:?}", settings.client.address, declared);
    assert!(!shown.contains("hunter2") && !shown.contains("s3cret"), "{shown}");
    assert!(shown.contains("http://[::1]:8500"), "{shown}");
}

fn lookup(name: &str, tags: &[&str]) -> Lookup {
    let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    Lookup { service: "users".into(), registered_as: name.to_owned(), tags, allow_empty: false }
}

#[tokio::test]
async fn the_parameters_say_what_is_asked() {
    let health = |text: &str| super::Consul::new(&parse(text).unwrap()).unwrap().health;
    let plain = health("address = \"http://c:8500\"");
    assert_eq!(plain.parameters(&lookup("users", &[])), []);
    for name in ["", ".", ".."] {
        let problem = plain.query(&lookup(name, &[]), 0).await.unwrap_err().problem;
        assert_eq!(problem, format!("http://c:8500: `{name}` is no name of a service"));
    }
    let passing = health("address = \"http://c\"\npassing_only = true");
    assert_eq!(passing.parameters(&lookup("users", &[])), [("passing", "1")]);
    let full = health("address = \"http://c\"\npassing = false\ndatacenter = \"d&1\"\ntags = [\"a\"]");
    assert_eq!(full.parameters(&lookup("users", &["b=c"])), [("dc", "d&1"), ("tag", "a"), ("tag", "b=c")]);
    let text =
        "namespace = 'team'\npartition = 'p1'\nfilter = 'Service.Port > 80'\nnode_meta = { zone = 'a', rack = '1' }";
    let more = health(&format!("address = \"http://c\"\n{text}"));
    let filter = ("filter", "Service.Port > 80");
    let node = [("node-meta", "rack:1"), ("node-meta", "zone:a")];
    assert_eq!(
        more.parameters(&lookup("users", &["b"])),
        [[("ns", "team"), ("partition", "p1")].as_slice(), &[filter], &node, &[("tag", "b")]].concat()
    );
}
