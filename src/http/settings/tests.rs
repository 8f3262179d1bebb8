use super::*;

fn config(text: &str) -> Result<Gateway, String> {
    let gateway: Gateway = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    gateway.check().map(|()| gateway.at(Path::new("/etc/wayside")))
}

#[test]
fn a_listener_is_an_address_or_a_table() {
    let gateway = config(
        r#"listen = ["127.0.0.1:80", { address = "127.0.0.1:443", proxy_protocol = true, certificates = [{ chain = "a.pem", key = "/keys/a.pem" }],
             client_ca = "ca.pem", client_certificates = "optional" }]"#,
    );
    let listen = gateway.unwrap().listen;
    assert_eq!(listen[0], Listen { address: ([127, 0, 0, 1], 80).into(), proxy_protocol: false, tls: None });
    let tls = server::Settings {
        certificates: vec![Pair { chain: "/etc/wayside/a.pem".into(), key: "/keys/a.pem".into() }],
        client_ca: Some("/etc/wayside/ca.pem".into()),
        client_required: false,
    };
    assert_eq!(listen[1], Listen { address: ([127, 0, 0, 1], 443).into(), proxy_protocol: true, tls: Some(tls) });
}

#[test]
fn what_is_no_listener_is_named() {
    let pair = "certificates = [{ chain = 'a', key = 'b' }]";
    for (listen, problem) in [
        ("['127.0.0.1']".to_owned(), "`127.0.0.1` is no address with a port, like `127.0.0.1:8080`"),
        ("['127.0.0.1:80', 3]".to_owned(), "expected an address, or a table with one"),
        ("[{}]".to_owned(), "missing field `address`"),
        ("[{ address = '127.0.0.1:80', tsl = 1 }]".to_owned(), "unknown field `tsl`"),
        ("[{ address = '127.0.0.1:80', certificates = [{ chain = 'a' }] }]".to_owned(), "missing field `key`"),
        ("[{ address = '127.0.0.1:80', client_ca = 'a' }]".to_owned(), "need `certificates`"),
        (format!("[{{ address = '127.0.0.1:80', {pair}, client_certificates = 'required' }}]"), "needs `client_ca`"),
        (
            format!("[{{ address = '127.0.0.1:80', {pair}, client_ca = 'c', client_certificates = 'maybe' }}]"),
            "unknown variant `maybe`, expected `required` or `optional`",
        ),
    ] {
        let told = config(&format!("listen = {listen}")).unwrap_err();
        assert!(told.contains(problem), "{listen}: {told}");
    }
}

#[test]
fn what_is_read_of_a_path_and_taken_from_whom_has_a_default_and_is_named_where_it_is_wrong() {
    let default = config("").unwrap();
    assert_eq!((default.paths, default.remove_from_untrusted), (Paths::Normal, Untrusted::default()));
    let chosen = config("paths = 'as-sent'\nremove_from_untrusted = ['X-Client-IP', 'x-my-*']").unwrap();
    assert_eq!(chosen.paths, Paths::AsSent);
    let names = ["x-client-ip", "x_client_ip", "x-my-own", "x_forwarded_for", "x-real-ip"];
    let removed = names.map(|name| chosen.remove_from_untrusted.has(name.as_bytes()));
    assert_eq!(removed, [true, true, true, true, false]);
    for (text, problem) in [
        ("paths = 'loose'", "unknown variant `loose`, expected one of `normal`, `strict`, `as-sent`"),
        ("remove_from_untrusted = ['*']", "`*` is no name of a header, like `x-real-ip` or `x-forwarded-*`"),
        ("remove_from_untrusted = 'x-a'", "expected a sequence"),
    ] {
        let told = config(text).unwrap_err();
        assert!(told.contains(problem), "{text}: {told}");
    }
}
