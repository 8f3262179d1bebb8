use super::*;
use crate::discovery::SourceSettings;

fn read(text: &str) -> Result<Settings, String> {
    Settings::read(toml::from_str(text).unwrap())
}

#[test]
fn settings_are_read() {
    let settings = read("").unwrap();
    let seconds = Duration::from_secs;
    assert_eq!((settings.min_ttl, settings.max_ttl, settings.confirm_after), (seconds(1), seconds(30), seconds(5)));
    assert_eq!(read("server = '10.0.0.10:53'\nmax_ttl = '5s'").unwrap().max_ttl, seconds(5));
    for (text, problem) in [
        ("min_ttl = '1ms'", "`min_ttl`: 1ms is less than 100ms"),
        ("max_ttl = '500ms'", "`max_ttl`: 500ms is less than `min_ttl` (1s)"),
        ("family = 'ipv5'", "`family`: unknown variant `ipv5`, expected one of `both`, `ipv4`, `ipv6`"),
        ("server = 'a'", "`server`: `a` is not IP:PORT"),
        ("port = 53", "unknown field `port`, expected one of `server`, `timeout`, `family`, `all_priorities`"),
    ] {
        let told = read(text).unwrap_err();
        assert!(told.contains(problem), "{text} gave {told}");
    }
}

#[tokio::test]
async fn a_service_that_cannot_be_looked_up_is_told_with_its_key() {
    let source = SourceSettings::parse(toml::from_str("kind = 'dns'").unwrap(), Path::new("/")).unwrap();
    let registered_as = "users".to_owned();
    let lookup = Lookup { service: "users".into(), registered_as, tags: vec![], allow_empty: false };
    assert!(source.check(&lookup).unwrap_err().starts_with("registered_as: `users` has no port"));
    let source = source.build().unwrap();
    let (to, mut reports) = tokio::sync::mpsc::channel(1);
    let watch = tokio::spawn(source.watch(vec![lookup], Reports { source: "test".into(), to }));
    let (_, report) = reports.recv().await.unwrap();
    watch.abort();
    let crate::discovery::Report::Failed(Some(service), problem) = report else { panic!("{report:?}") };
    assert!(&*service == "users" && problem.contains("has no port"), "{problem}");
}
