use super::*;
use crate::service::{ServiceLive, Settings as Declared};
use std::path::PathBuf;

const KEYS: &str = "00112233445566778899aabbccddeeff";

fn rule(text: &str, keys: &str) -> Arc<Rule> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("keys"), keys).unwrap();
    let settings: Settings = toml::from_str(&format!("{text}\nkey_file = 'keys'")).unwrap();
    let rule = settings.check(folder.path()).unwrap();
    Arc::new(Rule { keys: Keys { file: PathBuf::new(), ..rule.keys }, ..rule })
}

fn service(rule: &Arc<Rule>, ports: &[u16]) -> Service {
    let endpoint = |port: &u16| {
        let metadata = [("port".to_owned(), port.to_string())].into();
        Arc::new(Endpoint { metadata, ..Endpoint::of("shop", (*port).into(), ([10, 0, 0, 1], *port).into()) })
    };
    let endpoints: Endpoints = ports.iter().map(endpoint).collect();
    Service {
        name: "shop".into(),
        settings: Arc::new(Declared::of("local")),
        affinity: Some(Affinity::after(None, rule, "shop", &endpoints)),
        endpoints,
        reported: Arc::default(),
        digest: 0,
        tls: None,
        live: Arc::<ServiceLive>::default(),
    }
}

fn headers(lines: &[(&str, &str)]) -> Fields {
    let mut headers = Fields::default();
    lines.iter().for_each(|(name, value)| headers.append(name, value.as_bytes()));
    headers
}

/// What a request with these headers is held to, and what its client gets when that endpoint answers with those.
fn carried(
    service: &Service,
    plan: &Plan,
    asked: &Fields,
    (port, good): (u16, bool),
    answer: &Fields,
) -> (Option<u16>, Option<Standing>, Fields) {
    let affinity = service.affinity.as_ref().unwrap();
    let held = affinity.ask(service, plan, asked, 1000).unwrap();
    let first = held.first(&[]).map(|endpoint| endpoint.address.port());
    let mut headers = answer.clone();
    let answered = service.endpoints.by_id(port.into()).unwrap();
    let standing = affinity.tell(&held, asked, (answered, good), &mut headers, 1000);
    (first, standing, headers)
}

fn set(headers: &Fields) -> Option<String> {
    let line = String::from_utf8(headers.only("set-cookie")?.to_vec()).unwrap();
    Some(line.split(';').next().unwrap().to_owned())
}

#[test]
fn a_cookie_names_who_answered_and_is_set_anew_only_where_that_is_another() {
    let (none, plan) = (headers(&[]), Plan::default());
    let shop = service(&rule("cookie = 'at'", KEYS), &[1, 2]);
    let (first, standing, told) = carried(&shop, &plan, &none, (2, true), &none);
    assert_eq!((first, standing), (None, Some(Standing::New)));
    let back = headers(&[("cookie", &format!("a=b; {}", set(&told).unwrap()))]);
    let (first, standing, told) = carried(&shop, &plan, &back, (2, true), &none);
    assert_eq!((first, standing, set(&told)), (Some(2), Some(Standing::Hit), None));
    // It could not answer, and another one did; or answered badly, which binds nobody.
    let (_, standing, told) = carried(&shop, &plan, &back, (1, true), &none);
    assert!(standing == Some(Standing::Gone) && set(&told).is_some());
    let (_, standing, told) = carried(&shop, &plan, &back, (1, false), &none);
    assert_eq!((standing, set(&told)), (Some(Standing::Gone), None));
    // Not usable, not there, not in the subset.
    let (two, _) = (shop.endpoints.by_id(2).unwrap(), ());
    two.live.checked(false);
    assert_eq!(carried(&shop, &plan, &back, (1, true), &none).0, None);
    two.live.checked(true);
    assert_eq!(carried(&shop, &plan, &back, (1, true), &none).0, Some(2));
    let subset = Plan { subset: vec![("port".into(), "1".into())], ..Plan::default() };
    let (first, standing, _) = carried(&shop, &subset, &back, (1, true), &none);
    assert_eq!((first, standing), (None, Some(Standing::Gone)));
    let other = service(&rule("cookie = 'at'", KEYS), &[1, 3]);
    assert_eq!(carried(&other, &plan, &back, (1, true), &none).1, Some(Standing::Gone));
    let made_up = headers(&[("cookie", "at=AAAAAAAAAAAAAAAAAAAAAAAAAAA")]);
    assert_eq!(carried(&shop, &plan, &made_up, (1, true), &none).1, Some(Standing::Forged));
    // Whom a policy names comes first, and who has answered is remembered.
    let named = Plan { endpoints: vec![1], ..Plan::default() };
    let (first, standing, told) = carried(&shop, &named, &back, (1, true), &none);
    assert!(first.is_none() && standing.is_none() && set(&told).is_some());
}

#[test]
fn a_new_key_takes_over_without_losing_anybody() {
    let (none, plan) = (headers(&[]), Plan::default());
    let new = "ffeeddccbbaa99887766554433221100";
    let (_, _, told) = carried(&service(&rule("cookie = 'at'", KEYS), &[1, 2]), &plan, &none, (2, true), &none);
    let back = headers(&[("cookie", &set(&told).unwrap())]);
    let both = service(&rule("cookie = 'at'", &format!("{new}\n{KEYS}")), &[1, 2]);
    let (first, standing, told) = carried(&both, &plan, &back, (2, true), &none);
    assert_eq!((first, standing), (Some(2), Some(Standing::Hit)));
    let back = headers(&[("cookie", &set(&told).unwrap())]);
    let alone = service(&rule("cookie = 'at'", new), &[1, 2]);
    assert_eq!(carried(&alone, &plan, &back, (2, true), &none).0, Some(2));
}

#[test]
fn a_session_is_sealed_and_only_ever_goes_to_its_endpoint() {
    let (none, plan, id) = (headers(&[]), Plan::default(), "mcp-session-id");
    let rule = rule("header = 'Mcp-Session-Id'\nmax_age = '1h'", KEYS);
    let shop = service(&rule, &[1, 2]);
    let answer = headers(&[(id, "inner"), ("a", "b")]);
    let (first, standing, told) = carried(&shop, &plan, &none, (2, true), &answer);
    assert_eq!((first, standing), (None, Some(Standing::New)));
    let sealed = String::from_utf8(told.only(id).unwrap().to_vec()).unwrap();
    assert!(!sealed.contains("inner") && told.has("a"));
    let back = headers(&[(id, &sealed)]);
    let affinity = shop.affinity.as_ref().unwrap();
    let held = affinity.ask(&shop, &plan, &back, 1000).unwrap();
    assert_eq!((held.session(), held.is_bound(), held.first(&[7]).is_none()), (Some(&b"inner"[..]), true, true));
    // A session that goes on keeps its name; a new one is a new one; without any, nothing is said.
    let (first, standing, told) = carried(&shop, &plan, &back, (2, true), &answer);
    assert_eq!((first, standing, told.only(id)), (Some(2), Some(Standing::Hit), Some(sealed.as_bytes())));
    let other = headers(&[(id, "other")]);
    assert_ne!(carried(&shop, &plan, &back, (2, true), &other).2.only(id), Some(sealed.as_bytes()));
    assert!(!carried(&shop, &plan, &back, (2, true), &none).2.has(id));
    // What cannot be sealed is not shown.
    for wrong in [headers(&[(id, "one"), (id, "two")]), headers(&[(id, &"x".repeat(1025))])] {
        assert!(!carried(&shop, &plan, &none, (2, true), &wrong).2.has(id));
    }
    let refused = |service: &Service, plan: &Plan, asked: &Fields, now_s| {
        service.affinity.as_ref().unwrap().ask(service, plan, asked, now_s).unwrap_err()
    };
    let session = |standing| (Error::Session, standing);
    let forged = session(Standing::Forged);
    assert_eq!(refused(&shop, &plan, &headers(&[(id, "inner")]), 1000), forged);
    assert_eq!(refused(&shop, &plan, &headers(&[(id, "")]), 1000), forged);
    assert_eq!(refused(&shop, &plan, &headers(&[(id, &sealed), (id, &sealed)]), 1000), forged);
    assert_eq!(refused(&shop, &plan, &back, 4601), session(Standing::Expired));
    assert_eq!(refused(&service(&rule, &[1]), &plan, &back, 1000), session(Standing::Gone));
    let subset = Plan { subset: vec![("port".into(), "1".into())], ..Plan::default() };
    assert_eq!(refused(&shop, &subset, &back, 1000), session(Standing::Gone));
    shop.endpoints.by_id(2).unwrap().live.checked(false);
    assert_eq!(refused(&shop, &plan, &back, 1000), (Error::NoEndpoint, Standing::Gone));
}

#[test]
fn what_is_worked_out_is_kept_while_it_holds() {
    let (cookie, header) = (rule("cookie = 'at'", KEYS), rule("header = 'at'", KEYS));
    for rule in [&cookie, &header] {
        let shop = service(rule, &[1, 2]);
        let before = shop.affinity.as_ref();
        let again = Affinity::after(before, rule, "shop", &shop.endpoints);
        assert!(Arc::ptr_eq(&again, before.unwrap()));
        let changed = Affinity::after(before, &self::rule("cookie = 'other'", KEYS), "shop", &shop.endpoints);
        assert!(!Arc::ptr_eq(&changed, before.unwrap()));
    }
    let shop = service(&cookie, &[1, 2]);
    let after = Affinity::after(shop.affinity.as_ref(), &cookie, "shop", &service(&cookie, &[2, 3]).endpoints);
    let at = |port| SocketAddr::from(([10, 0, 0, 1], port));
    assert!(after.words.write(at(3)).is_some() && after.words.write(at(1)).is_none());
}
