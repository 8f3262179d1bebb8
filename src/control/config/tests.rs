use super::*;

#[test]
fn a_duration_that_no_clock_can_add_is_refused_with_its_key() {
    let long = "1000000000000years";
    let whole = |text: String| parse(Path::new("/etc/wayside.toml"), &text).unwrap_err();
    let service =
        |key: &str| whole(format!("[sources.a]\nkind = \"file\"\npath = \"a\"\n[services.b]\nsource = \"a\"\n{key}\n"));
    let gateway = [
        "drain_timeout",
        "max_timeout",
        "connection_lifetime",
        "head_timeout",
        "idle_timeout",
        "stall_timeout",
        "upstream_idle_timeout",
        "upstream_lifetime",
        "upgrade_idle_timeout",
        "upgrade_drain_timeout",
    ];
    let of_gateway = gateway.map(|key| (key, whole(format!("[gateway]\n{key} = \"{long}\"\n"))));
    let of_service = ["timeout", "attempt_timeout", "connect_timeout", "sticky_ttl"]
        .map(|key| (key, service(&format!("{key} = \"{long}\""))));
    let of_health =
        ["interval", "timeout"].map(|key| (key, service(&format!("health = {{ path = \"/\", {key} = \"{long}\" }}"))));
    let source =
        |kind: &str, key: &'static str| (key, whole(format!("[sources.a]\nkind = {kind}\n{key} = \"{long}\"\n")));
    let consul = "\"consul\"\naddress = \"http://127.0.0.1:8500\"";
    let of_source =
        [source(consul, "wait"), source(consul, "confirm_after"), source("\"file\"\npath = \"a\"", "confirm_after")];
    for (key, told) in of_gateway.into_iter().chain(of_service).chain(of_health).chain(of_source) {
        assert!(told.contains(&format!("`{key}`: `{long}` is too long")) && told.contains("\"10years\""), "{told}");
    }
}

#[test]
fn what_dns_cannot_look_up_is_refused_with_its_key() {
    let text = "[sources.names]\nkind = \"dns\"\n[services.users]\nsource = \"names\"\n";
    let told = parse(Path::new("/etc/wayside.toml"), text).unwrap_err();
    assert!(told.starts_with("services.users.registered_as: `users` has no port; write `HOST:PORT`"), "{told}");
    parse(Path::new("/etc/wayside.toml"), &format!("{text}registered_as = \"users.internal:80\"\n")).unwrap();
}

#[test]
fn no_store_can_have_the_name_that_means_none() {
    let text = "[stores.local]\nkind = \"redis\"\naddress = \"redis://127.0.0.1:6379\"\n";
    let told = parse(Path::new("/etc/wayside.toml"), text).unwrap_err();
    assert!(told.starts_with("stores.local: this name is taken"), "{told}");
    parse(Path::new("/etc/wayside.toml"), &text.replace("local", "shared")).unwrap();
}
