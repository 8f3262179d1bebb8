use super::*;

fn client(text: &str) -> Client {
    Client::new(toml::from_str::<Settings>(text).unwrap()).unwrap()
}

fn lookup(name: &str, tags: &[&str]) -> Lookup {
    let tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    Lookup { service: "users".into(), registered_as: name.to_owned(), tags, allow_empty: false }
}

#[test]
fn the_url_says_what_is_asked() {
    let plain = client("address = \"http://c:8500\"");
    let url = |client: &Client, lookup: &Lookup, index| {
        client.url(lookup, index, client.settings.wait).map(|url| url.to_string())
    };
    assert_eq!(url(&plain, &lookup("users", &[]), 0).unwrap(), "http://c:8500/v1/health/service/users");
    assert_eq!(
        url(&plain, &lookup("a/b?c d", &[]), 7).unwrap(),
        "http://c:8500/v1/health/service/a%2Fb%3Fc%20d?index=7&wait=60000ms"
    );
    for name in ["", ".", ".."] {
        assert!(plain.url(&lookup(name, &[]), 0, Duration::ZERO).is_err(), "{name:?}");
    }
    let passing = client("address = \"http://c\"\npassing_only = true");
    assert_eq!(url(&passing, &lookup("users", &[]), 0).unwrap(), "http://c/v1/health/service/users?passing=1");
    let full =
        client("address = \"http://c/base/\"\npassing = false\ndatacenter = \"d&1\"\ntags = [\"a\"]\nwait = \"90s\"");
    assert_eq!(
        url(&full, &lookup("users", &["b=c"]), 1).unwrap(),
        "http://c/base/v1/health/service/users?dc=d%261&tag=a&tag=b%3Dc&index=1&wait=90000ms"
    );
}

#[tokio::test]
async fn a_token_file_is_read_each_time_and_never_taken_for_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let client = client(&format!("address = \"http://c\"\ntoken_file = {file:?}"));
    assert!(client.token().await.unwrap_err().contains("cannot be read"));
    std::fs::write(&file, " \n").unwrap();
    assert!(client.token().await.unwrap_err().contains("is empty"));
    for token in ["first", "second"] {
        std::fs::write(&file, format!("{token}\n")).unwrap();
        assert_eq!(client.token().await.unwrap().unwrap().expose(), token);
    }
}
