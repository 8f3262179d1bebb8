use super::*;
use proptest::prelude::*;
use proptest::sample::select;

/// What everybody sees and what match rules compare, or that it is refused.
fn read(sent: &str, paths: Paths) -> Option<(String, String)> {
    let normal = normal(sent, paths).ok()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (seen, compared) = (normal.clone().into_owned(), text(&matched(&normal)));
    let path = Path::read(sent, paths).unwrap();
    assert_eq!(path.normal.as_deref().unwrap_or(sent), seen);
    assert_eq!(path.matched.map_or_else(|| seen.clone(), |matched| text(&matched)), compared);
    Some((seen, compared))
}

#[test]
fn a_path_has_one_reading_or_is_refused() {
    // The rows of the table in README.md, each with some of its kind: what everybody sees and what is compared, then the
    // same for `strict` and for `as-sent`.
    let same = |path| Some((path, path));
    let cases = [
        ("/", same("/"), same("/"), same("/")),
        ("/a/.b/c..d/...", same("/a/.b/c..d/..."), same("/a/.b/c..d/..."), same("/a/.b/c..d/...")),
        ("*", same("*"), same("*"), same("*")),
        // Unreserved characters, and escapes that stay.
        ("/%61dmin/x", same("/admin/x"), same("/admin/x"), Some(("/%61dmin/x", "/admin/x"))),
        ("/%7ea%2D_", same("/~a-_"), same("/~a-_"), Some(("/%7ea%2D_", "/~a-_"))),
        ("/a%2cb", Some(("/a%2Cb", "/a,b")), Some(("/a%2Cb", "/a,b")), Some(("/a%2cb", "/a,b"))),
        ("/caf%c3%a9", Some(("/caf%C3%A9", "/café")), Some(("/caf%C3%A9", "/café")), Some(("/caf%c3%a9", "/café"))),
        // Once.
        (
            "/%2561dmin",
            Some(("/%2561dmin", "/%61dmin")),
            Some(("/%2561dmin", "/%61dmin")),
            Some(("/%2561dmin", "/%61dmin")),
        ),
        (
            "/%252e%252e/a",
            Some(("/%252e%252e/a", "/%2e%2e/a")),
            Some(("/%252e%252e/a", "/%2e%2e/a")),
            Some(("/%252e%252e/a", "/%2e%2e/a")),
        ),
        ("/100%", same("/100%"), same("/100%"), same("/100%")),
        (
            "/%%361dmin",
            Some(("/%%361dmin", "/%61dmin")),
            Some(("/%%361dmin", "/%61dmin")),
            Some(("/%%361dmin", "/%61dmin")),
        ),
        (
            "/%6%31dmin",
            Some(("/%6%31dmin", "/%61dmin")),
            Some(("/%6%31dmin", "/%61dmin")),
            Some(("/%6%31dmin", "/%61dmin")),
        ),
        // Dot segments.
        ("/a/./b/../c", same("/a/c"), same("/a/c"), same("/a/c")),
        ("/x/%2e%2E/admin", same("/admin"), same("/admin"), same("/admin")),
        ("/x/.%2e", same("/"), same("/"), same("/")),
        ("/../../a/.", same("/a/"), same("/a/"), same("/a/")),
        // Slashes.
        (
            "//admin//x//",
            Some(("//admin//x//", "/admin/x/")),
            Some(("//admin//x//", "/admin/x/")),
            Some(("//admin//x//", "/admin/x/")),
        ),
        ("/a//./b", Some(("/a//b", "/a/b")), Some(("/a//b", "/a/b")), Some(("/a//b", "/a/b"))),
        ("/a//../admin", None, None, same("/a/admin")),
        // Parameters.
        (
            "/admin;a=b/x;c",
            Some(("/admin;a=b/x;c", "/admin/x")),
            Some(("/admin;a=b/x;c", "/admin/x")),
            Some(("/admin;a=b/x;c", "/admin/x")),
        ),
        (
            "/admin%3ba/x",
            Some(("/admin%3Ba/x", "/admin/x")),
            Some(("/admin%3Ba/x", "/admin/x")),
            Some(("/admin%3ba/x", "/admin/x")),
        ),
        ("/;/admin", Some(("/;/admin", "/admin")), Some(("/;/admin", "/admin")), Some(("/;/admin", "/admin"))),
        ("/a;b/../c", same("/c"), same("/c"), same("/c")),
        ("/x/..;/admin", None, None, Some(("/x/..;/admin", "/x/../admin"))),
        ("/x/%2e%2e;a=b/admin", None, None, Some(("/x/%2e%2e;a=b/admin", "/x/../admin"))),
        ("/x/.;/admin", None, None, Some(("/x/.;/admin", "/x/./admin"))),
        ("/x/;/../admin", None, None, same("/x/admin")),
        // Escaped slashes and backslashes away from a dot segment.
        ("/a%2fb", Some(("/a%2Fb", "/a/b")), None, Some(("/a%2fb", "/a/b"))),
        ("/a%5Cb", Some(("/a%5Cb", "/a/b")), None, Some(("/a%5Cb", "/a/b"))),
        ("/a\\b", Some(("/a\\b", "/a/b")), None, Some(("/a\\b", "/a/b"))),
        ("/a%2f..b", Some(("/a%2F..b", "/a/..b")), None, Some(("/a%2f..b", "/a/..b"))),
        // Beside one.
        ("/x/..%2fadmin", None, None, Some(("/x/..%2fadmin", "/x/../admin"))),
        ("/x%2f../admin", None, None, Some(("/x%2f../admin", "/x/../admin"))),
        ("/x/..%5cadmin", None, None, Some(("/x/..%5cadmin", "/x/../admin"))),
        ("/x\\..\\admin", None, None, Some(("/x\\..\\admin", "/x/../admin"))),
        ("/x/%2e%2e%2Fadmin", None, None, Some(("/x/%2e%2e%2Fadmin", "/x/../admin"))),
        ("/x/..;%2fadmin", None, None, Some(("/x/..;%2fadmin", "/x/../admin"))),
        ("/x/a;%2f../admin", None, None, Some(("/x/a;%2f../admin", "/x/a/../admin"))),
        ("/x/a;b%2fadmin", None, None, Some(("/x/a;b%2fadmin", "/x/a/admin"))),
        ("/x%2fy/../admin", None, None, same("/admin")),
        ("/.%2fadmin", None, None, Some(("/.%2fadmin", "/./admin"))),
    ];
    for (sent, normal, strict, as_sent) in cases {
        for (paths, expected) in [(Paths::Normal, normal), (Paths::Strict, strict), (Paths::AsSent, as_sent)] {
            let expected = expected.map(|(seen, compared)| (seen.to_owned(), compared.to_owned()));
            assert_eq!(read(sent, paths), expected, "{sent} {paths:?}");
        }
    }
}

/// What of a path some server takes for the same as something else.
mod lenient {
    pub(super) fn decode(path: &[u8]) -> Vec<u8> {
        let (mut read, mut rest) = (Vec::new(), path);
        let digit = |byte: u8| char::from(byte).to_digit(16);
        while let [first, more @ ..] = rest {
            (rest, _) = match more {
                [high, low, after @ ..] if *first == b'%' && digit(*high).is_some() && digit(*low).is_some() => {
                    let value = digit(*high).unwrap() * 16 + digit(*low).unwrap();
                    (after, read.push(u8::try_from(value).unwrap()))
                }
                _ => (more, read.push(*first)),
            };
        }
        read
    }

    pub(super) fn turn_backslashes(path: &[u8]) -> Vec<u8> {
        path.iter().map(|byte| if *byte == b'\\' { b'/' } else { *byte }).collect()
    }

    fn segments(path: &[u8]) -> Vec<&[u8]> {
        path.split(|byte| *byte == b'/').skip(1).collect()
    }

    fn whole(segments: &[&[u8]]) -> Vec<u8> {
        segments.iter().flat_map(|segment| [b"/", *segment].concat()).collect()
    }

    pub(super) fn strip(path: &[u8]) -> Vec<u8> {
        let bare = |segment: &'_ [u8]| segment.iter().position(|byte| *byte == b';').unwrap_or(segment.len());
        whole(&segments(path).into_iter().map(|segment| &segment[..bare(segment)]).collect::<Vec<_>>())
    }

    pub(super) fn merge(path: &[u8]) -> Vec<u8> {
        let mut merged = path.to_vec();
        merged.dedup_by(|after, before| (*before, *after) == (b'/', b'/'));
        merged
    }

    pub(super) fn resolve(path: &[u8]) -> Vec<u8> {
        let mut kept = Vec::new();
        let mut trailing = false;
        for segment in segments(path) {
            trailing = matches!(segment, b"." | b"..");
            match segment {
                b"." => {}
                b".." => drop(kept.pop()),
                _ => kept.push(segment),
            }
        }
        if trailing || kept.is_empty() {
            kept.push(b"");
        }
        whole(&kept)
    }
}

/// Servers differ in what they do and in its order.
/// A step that some server takes on its way to what a path means.
type Step = fn(&[u8]) -> Vec<u8>;

fn servers() -> Vec<Vec<Step>> {
    use lenient::{decode, merge, resolve, strip, turn_backslashes};
    vec![
        vec![decode, turn_backslashes, merge, strip, resolve],
        vec![decode, turn_backslashes, strip, merge, resolve],
        vec![strip, decode, turn_backslashes, resolve],
        vec![strip, decode, resolve],
        vec![decode, merge, resolve],
        vec![decode, turn_backslashes, resolve],
        vec![decode, resolve],
    ]
}

fn as_read(path: &str, server: &[Step]) -> String {
    use lenient::{merge, strip, turn_backslashes};
    let read = server.iter().fold(path.as_bytes().to_vec(), |path, step| step(&path));
    // As far as match rules tell paths apart.
    String::from_utf8_lossy(&merge(&strip(&turn_backslashes(&read)))).into_owned()
}

fn pieces() -> impl Strategy<Value = String> {
    let pieces = [
        "/", "/", "/", "//", "\\", "%2f", "%2F", "%5c", "%5C", ".", "..", "%2e", "%2E", ";", "%3b", ";a=b", "a",
        "admin", "%61", "%41", "%25", "%252e", "%252f", "%", "4", "1", "%34", "%31", "%21", "!", "%c3%a9",
    ];
    prop::collection::vec(select(pieces.to_vec()), 0..9).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Two paths that any of these servers reads alike are one to every match rule: what is compared *is* how it reads
    /// them, before the gateway as well as behind it.
    #[test]
    fn what_a_lenient_server_reads_is_what_match_rules_compare(sent in pieces()) {
        for paths in [Paths::Normal, Paths::Strict] {
            let Some((seen, compared)) = read(&sent, paths) else { continue };
            for server in servers() {
                prop_assert_eq!(&as_read(&sent, &server), &compared, "sent {}", sent);
                prop_assert_eq!(&as_read(&seen, &server), &compared, "forwarded {}", seen);
            }
        }
    }

    #[test]
    fn a_normal_path_stays_as_it_is(sent in pieces()) {
        if let Some((seen, compared)) = read(&sent, Paths::Normal) {
            prop_assert!(seen.starts_with('/') && compared.starts_with('/'));
            prop_assert!(!seen.split('/').any(|segment| matches!(segment, "." | "..")));
            prop_assert_eq!(read(&seen, Paths::Normal), Some((seen, compared)));
        }
    }

    #[test]
    fn as_sent_nothing_is_refused_and_only_dot_segments_are_resolved(sent in pieces()) {
        let seen = read(&sent, Paths::AsSent).unwrap().0;
        prop_assert!(seen == sent || sent.contains("/.") || sent.to_ascii_lowercase().contains("/%2e"));
    }

    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,40}", paths in select(vec![Paths::Normal, Paths::Strict, Paths::AsSent])) {
        let _ = Path::read(&text, paths);
        let _ = Path::read(&format!("/{text}"), paths);
    }
}
