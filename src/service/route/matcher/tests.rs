use super::*;
use crate::http::request::Peer;
use std::sync::Arc;

fn head(target: &str, host: &str) -> Arc<Head> {
    let request = http::Request::get(target).header("host", host).body(()).unwrap();
    Head::new(request.into_parts().0, Peer::new(([127, 0, 0, 1], 1).into()), &[])
}

fn under(prefix: &str) -> Match {
    RawMatch { path_prefix: Some(prefix.to_owned()), ..RawMatch::default() }.check().unwrap()
}

fn at(path: &str) -> Match {
    RawMatch { path: Some(path.to_owned()), ..RawMatch::default() }.check().unwrap()
}

#[test]
fn a_guard_is_not_walked_around() {
    let guard = under("/admin");
    for path in [
        "/admin",
        "/admin/",
        "/%61dmin/x",
        "//admin/x",
        "/admin;a=b/x",
        "/;/admin",
        "/admin%2fx",
        "/admin\\x",
        "/x/../admin",
    ] {
        assert!(guard.fits(&head(path, "a")), "{path}");
        assert!(!under("/x").fits(&head(path, "a")), "{path}");
    }
    for path in ["/", "/adminx", "/x/admin", "/admin%20", "/%2561dmin", "/Admin"] {
        assert!(!guard.fits(&head(path, "a")), "{path}");
    }
    // A last slash is one more segment, an empty one.
    assert!(at("/admin").fits(&head("/admin;x", "a")) && !at("/admin").fits(&head("/admin/", "a")));
    assert!(at("/admin/").fits(&head("/admin//", "a")));
}

#[test]
fn rules_fit_however_they_are_written() {
    for written in ["/admin", "/%61dmin", "//admin/", "/x/../admin", "/admin;a=b"] {
        assert!(under(written).fits(&head("/admin/x", "a")), "{written}");
        assert!(!under(written).fits(&head("/x", "a")), "{written}");
        assert_eq!(under(written).label(), "/admin/*");
    }
    assert!(at("/caf%C3%A9").fits(&head("/caf%c3%a9", "a")));
    assert!(at("/café").fits(&head("/caf%c3%a9", "a")));
    assert!(at("/a!").fits(&head("/a%21", "a")) && at("/%2561").fits(&head("/%2561", "a")));
    assert!(under("/").fits(&head("/x", "a")) && under("//").fits(&head("/x", "a")));
    let ambiguous = RawMatch { path_prefix: Some("/a/..%2fb".to_owned()), ..RawMatch::default() };
    assert!(ambiguous.check().unwrap_err().contains("`path_prefix`: `/a/..%2fb` could be read in several ways"));
}

#[test]
fn a_full_name_is_the_same_host() {
    for (rule, host, expected) in [
        ("shop.example", "shop.example.", true),
        ("shop.example", "SHOP.example.:8080", true),
        ("shop.example.", "shop.example", true),
        ("*.example.", "shop.example", true),
        ("*.example", "shop.example.", true),
        ("shop.example", "shop.example..", false),
        ("shop.example", "shop", false),
    ] {
        let rule = RawMatch { host: Some(rule.to_owned()), ..RawMatch::default() }.check().unwrap();
        assert_eq!(rule.fits(&head("/", host)), expected, "{rule:?} {host}");
    }
}
