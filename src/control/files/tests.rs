use super::*;

const ALL: &str = "[gateway]\nlisten = [\"127.0.0.1:1\"]\n[sources.local]\nkind = \"file\"\npath = \"a\"\n\
                   [services.a]\nsource = \"local\"\n[services.b]\nsource = \"local\"\n";

fn config(text: &str) -> Config {
    Config::parse(Path::new("wayside.toml"), text).unwrap()
}

fn routes(paths: impl IntoIterator<Item = u32>) -> String {
    paths.into_iter().map(|n| format!("[[routes]]\nmatch = {{ path_prefix = \"/{n}\" }}\nservice = \"a\"\n")).collect()
}

#[test]
fn only_a_configuration_that_lacks_much_is_doubted() {
    let with = |routes: &str| config(&format!("{ALL}{routes}"));
    let running = with(&routes(0..5));
    let listens = |text: &str| config(&format!("{text}{}{}", ALL.split_once("1\"]\n").unwrap().1, routes(0..5)));
    let cases = [
        (with(&routes(0..5)), None),
        (with(&routes(0..3)), Some("it lacks 2 of 5 routes")),
        (with(&routes(2..6)), None),
        (with(&routes(0..5).replace("/4", "/five")), None),
        (config(&format!("{ALL}[policies]\ndirectory = \"p\"\n{}", routes(0..5))), None),
        (with(&routes(3..20)), Some("it lacks 3 of 5 routes")),
        (with(&routes(0..2)), Some("it lacks 3 of 5 routes")),
        (with(""), Some("it declares no routes any more")),
        (config("[gateway]\nlisten = [\"127.0.0.1:1\"]\n"), Some("it declares no sources any more")),
        (
            config(&format!("[sources{}{}", ALL.split_once("[sources").unwrap().1, routes(0..5))),
            Some("it declares no listeners any more"),
        ),
        (listens("[gateway]\nlisten = [\"127.0.0.1:2\"]\n"), None),
    ];
    for (new, expected) in cases {
        assert_eq!(lost(&running, &new).as_deref(), expected);
    }
    let policies = config(&format!("{ALL}[policies]\ndirectory = \"p\"\n{}", routes(0..5)));
    assert_eq!(lost(&policies, &running).as_deref(), Some("it declares no policies any more"));
    // Where nothing was declared, nothing is lost.
    assert_eq!(lost(&config("[gateway]\n"), &running), None);
    assert_eq!(lost(&config("[gateway]\n"), &config("[gateway]\nforwarded = true\n")), None);
}

#[test]
fn what_still_says_so_later_is_taken_over() {
    let lost = |lost: &str| Some(lost.to_owned());
    let mut doubt = Doubt::default();
    let now = Instant::now();
    let (problem, at) = doubt.about(lost("it lacks 4 of 5 routes"), "fewer", now).unwrap();
    assert_eq!(problem, "it lacks 4 of 5 routes; this is taken over if the file still says so 3s later");
    assert_eq!(at, now + CONFIRM_AFTER);
    // Too early; something else in between begins anew; and what is good again is forgotten.
    assert_eq!(doubt.about(lost("a"), "fewer", now + CONFIRM_AFTER / 2).unwrap().1, at);
    let between = now + CONFIRM_AFTER / 2;
    assert_eq!(doubt.about(lost("b"), "none", between).unwrap().1, between + CONFIRM_AFTER);
    assert!(doubt.about(lost("a"), "fewer", at).is_some());
    assert!(doubt.about(None, "all", at).is_none());
    let (_, at) = doubt.about(lost("a"), "fewer", at).unwrap();
    assert!(doubt.about(lost("a"), "fewer", at).is_none());
}

#[test]
fn the_files_that_a_bad_configuration_names_are_known_too() {
    let text = "[policies]\ndirectory = \"/nowhere/policies\"\n[services.a]\nsource = 7\n\
                tls = { ca = \"ca.pem\", certificate = { chain = \"/c.pem\", key = 3 } }\n[services.b.tls]\nca = \"b.pem\"\n";
    let names = named(Path::new("/etc/wayside.toml"), text);
    let expected = ["/c.pem", "/etc/b.pem", "/etc/ca.pem", "/nowhere/policies"];
    assert_eq!(names, expected.map(PathBuf::from).into());
    assert!(named(Path::new("/etc/wayside.toml"), "[services").is_empty());
    assert!(named(Path::new("/etc/wayside.toml"), "services = 3\npolicies = []").is_empty());
}
