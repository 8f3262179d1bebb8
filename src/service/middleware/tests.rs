use super::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct File {
    middleware: Vec<Written>,
}

pub(super) fn chain(text: &str) -> Result<Chain, String> {
    let file: File = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    Chain::check(file.middleware, Path::new("/"), |name| name == "auth")
}

#[test]
fn a_table_has_one_kind_and_nothing_unknown() {
    let named = chain("[[middleware]]\nmatch = { path_prefix = '/api' }\nrequest_id = {}").unwrap();
    assert_eq!(&*named.all[0].name, "request_id /api/*");
    let none = chain("[[middleware]]\nrequest_id = {}\n[[middleware]]\nname = 'a'").unwrap_err();
    assert!(none.starts_with("number 2: it has 0 kinds and needs exactly one"), "{none}");
    let both = chain("[[middleware]]\nrequest_id = {}\nredirect_https = {}").unwrap_err();
    assert!(both.starts_with("number 1: it has 2 kinds"), "{both}");
    let unknown = chain("[[middleware]]\nrequest_ids = {}").unwrap_err();
    assert!(unknown.contains("request_ids"), "{unknown}");
    let path = chain("[[middleware]]\nmatch = { path = 'x' }\nrequest_id = {}").unwrap_err();
    assert!(path.starts_with("number 1: match.`path`: `x` must start with `/`"), "{path}");
    let many = "[[middleware]]\nrequest_id = {}\n".repeat(MOST + 1);
    assert_eq!(chain(&many).unwrap_err(), "there are 1001 tables, and 1000 are the most");
    let twice = "[[middleware]]\nname = 'a'\nrequest_id = {}\n".repeat(2);
    assert!(chain(&twice).unwrap_err().starts_with("number 2: there is another one named `a`"));
}

#[test]
fn what_would_pass_for_a_fact_is_known_in_every_spelling() {
    let chain = Chain { facts: vec!["x-auth-subject".to_owned()], ..Chain::default() };
    for name in ["x-auth-subject", "x_auth_subject", "x-auth_subject"] {
        assert!(chain.is_fact(name.as_bytes()), "{name}");
    }
    for name in ["x-auth-subject2", "x-auth", "", "x.auth.subject"] {
        assert!(!chain.is_fact(name.as_bytes()), "{name}");
    }
}

#[test]
fn each_has_a_name_of_its_own_under_which_it_goes_on_counting() {
    let before = chain(&"[[middleware]]\nrequest_id = {}\n".repeat(3)).unwrap();
    let names = |chain: &Chain| chain.all.iter().map(|one| one.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&before), ["request_id any", "request_id any (2)", "request_id any (3)"]);
    before.all.iter().for_each(|one| one.live.count(Outcome::Answered));
    let text = "[[middleware]]\nname = 'a'\nrequest_id = {}\n[[middleware]]\nrequest_id = { header = 'x-id' }\n\
                [[middleware]]\nname = 'request_id any (2)'\nredirect_https = {}";
    let after = chain(text).unwrap().after(&before);
    assert_eq!(names(&after), ["a", "request_id any", "request_id any (2)"]);
    // The last one is of another kind.
    assert_eq!(after.all.iter().map(|one| one.live.get(Outcome::Answered)).collect::<Vec<_>>(), [0, 1, 0]);
}
