//! Entries on their way into a file and back.

use super::entry::{CallSaid, Entry, OutcomeSaid};
use super::frame::HEAD;
use super::reader::{Frame, Reader};
use super::sheet::Sheet;
use super::world::{Lost, MOST_ENDPOINTS, Revision};
use super::*;
use crate::base::time::{Calendar, unix_ms};
use crate::base::trace::TraceContext;
use crate::http::request::{Head, Parts, Peer};
use crate::http::settings::AccessLog;
use crate::service::decision::said::{Edit, Said, Sent};
use crate::service::record::taped::Call;
use crate::service::tape::redaction::MARK;
use crate::service::tape::{Asked, EndpointNow, Got, Tape};
use crate::service::{Endpoint, Service};
use proptest::prelude::*;
use std::io::Read;
use std::time::Instant;

fn catalog(services: &[(&str, u32)]) -> Arc<Catalog> {
    let service = |(name, endpoints): &(&str, u32)| {
        let endpoint = |id: u32| {
            let metadata = [("version".to_owned(), format!("v{id}"))].into();
            let address = ([10, 0, (id >> 8) as u8, id as u8], 80).into();
            Arc::new(Endpoint { metadata, weight: id % 3, zone: Some("a".into()), ..Endpoint::of(name, id, address) })
        };
        Arc::new(Service {
            name: (*name).into(),
            settings: Arc::new(crate::service::Settings::of("test")),
            endpoints: (1..=*endpoints).map(endpoint).collect(),
            reported: Arc::default(),
            digest: 0,
            tls: None,
            affinity: None,
            live: Arc::default(),
        })
    };
    Arc::new(services.iter().map(service).collect())
}

fn head(uri: &str, headers: &[(&str, &str)]) -> Arc<Head> {
    let mut request = http::Request::get(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let parts = Parts::from(request.body(()).unwrap().into_parts().0);
    Head::new(parts, Peer::over_tls(([203, 0, 113, 7], 4711).into(), Some("CN=ada".into())), &[])
}

fn about(policy: &str) -> Arc<About> {
    let limits = serde_json::to_string(&crate::policy::Limits::default()).unwrap();
    let version = "0123456789ab".into();
    Arc::new(About { policy: policy.into(), version, component: "c0".into(), config: "secret-config".into(), limits })
}

/// What a policy like the example `sticky` said: its key is the cookie, and so are its reason and an edit.
fn sticky(sid: &str) -> Call {
    let sent = Sent {
        service: "users".into(),
        strategy: Some(crate::service::plan::Strategy::Sticky),
        key: Some(sid.to_owned()),
        response: vec![Edit::Append("set-cookie".into(), format!("sid={sid}; Path=/"))],
        path: Some(format!("/user/{sid}")),
        ..Sent::default()
    };
    let mut tape = Tape::default();
    tape.saw("cookie sid", Some(sid));
    tape.read(Asked::Get(format!("user:{sid}").into()), &Got::Value(format!("of {}", sid.to_uppercase()).into()));
    Call { version: about("sticky"), tape, said: Said::Forward(Box::new(sent)), reason: format!("sticky by {sid}") }
}

fn entry_of(head: &Arc<Head>, calls: Vec<Call>, rules: &[&str]) -> Option<Vec<u8>> {
    let trace = TraceContext::begin(None, std::iter::empty(), None, &mut Chance(1));
    let mut record = Record::new(Instant::now(), Calendar::look(), trace, AccessLog::Off, Arc::clone(&head.peer));
    (record.number, record.status) = (7, 200);
    let taped = Taped { head: Arc::clone(head), catalog: catalog(&[("users", 3)]), calls: calls.into() };
    let redaction = Redaction::parse(rules).unwrap();
    told::entry(&record, &taped, (1, Duration::from_millis(2)), &redaction).map(|(bytes, _)| bytes)
}

fn item(bytes: Vec<u8>, catalog: &Arc<Catalog>) -> Item {
    Item {
        bytes,
        at_ms: 1000,
        catalog: Arc::clone(catalog),
        versions: [about("sticky")].into_iter().collect(),
        hidden: None,
        coin: 1,
    }
}

/// A file of so many entries.
fn file(entries: usize, hides_config: bool) -> Vec<u8> {
    let opening = Opening { format: 1, seed: 5, ..Opening::default() };
    let mut out = Vec::new();
    let mut sheet = Sheet::begin(&opening, hides_config, 0, &mut out).unwrap();
    let catalog = catalog(&[("users", 3)]);
    let head = head("/a?b=c", &[("host", "shop.example"), ("cookie", "sid=user-7")]);
    for number in 0..entries {
        let bytes = entry_of(&head, vec![sticky("user-7")], &[]).unwrap();
        assert!(sheet.put(&item(bytes, &catalog), number as u64, &mut out).unwrap());
        sheet.flush(&mut out).unwrap();
    }
    out
}

/// Where the frames of a whole file end.
fn ends(bytes: &[u8]) -> Vec<usize> {
    let mut ends = vec![0];
    while let Some(head) = bytes[ends[ends.len() - 1]..].first_chunk::<HEAD>() {
        let head = super::frame::Head::read(head).unwrap();
        ends.push(ends[ends.len() - 1] + HEAD + head.stored);
    }
    ends
}

fn frames(bytes: &[u8]) -> (Vec<Frame>, u64) {
    let mut reader = Reader::new(bytes);
    let mut frames = Vec::new();
    while let Some(frame) = reader.frame().unwrap() {
        frames.push(frame);
    }
    assert_eq!(reader.position, bytes.len() as u64);
    (frames, reader.passed_over)
}

fn count(frames: &[Frame]) -> usize {
    let entries = |frame: &Frame| match frame {
        Frame::Entries(entries) => entries.iter().count(),
        _ => 0,
    };
    frames.iter().map(entries).sum()
}

#[test]
fn what_is_recorded_can_be_read_again() {
    let sent = head("/a/%62?b=c", &[("host", "Shop.example:80"), ("x-a", "1"), ("x-a", "2"), ("cookie", "sid=user-7")]);
    let bytes = entry_of(&sent, vec![sticky("user-7")], &[]).unwrap();
    let entry = Entry::read(&bytes).unwrap();
    assert_eq!((entry.worker, entry.number, entry.outcome.status), (1, 7, 200));
    let CallSaid { tape, said, reason, .. } = &entry.calls[0];
    let call = sticky("user-7");
    assert_eq!(
        (&tape.inputs, &tape.reads, said, reason),
        (&call.tape.inputs, &call.tape.reads, &call.said, &call.reason)
    );
    let read = entry.head.head().unwrap();
    assert_eq!((read.host(), read.path(), read.query()), ("shop.example", "/a/b", Some("b=c")));
    assert_eq!((read.client, read.scheme()), (sent.client, "https"));
    assert_eq!(read.peer.tls_subject.as_deref(), Some("CN=ada"));
    let lines = |head: &Head| head.parts.headers.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect::<Vec<_>>();
    assert_eq!(lines(&read), lines(&sent));
}

#[test]
fn what_is_taken_out_is_nowhere_in_a_record() {
    let sent = head("/user/user-7?b=user-7", &[("cookie", "theme=dark; sid=user-7"), ("x-copy", "is user-7")]);
    for rules in [&["cookie:sid"][..], &["cookie:*"], &["header:cookie"]] {
        let bytes = entry_of(&sent, vec![sticky("user-7")], rules).unwrap();
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        assert!(!text.contains("user-7"), "{rules:?}: {text}");
        let entry = Entry::read(&bytes).unwrap();
        assert!(entry.calls[0].tape.hidden, "{rules:?}");
        assert_eq!(entry.calls[0].said.service(), Some("users"), "where it went is no secret");
    }
    // One whose policy makes the cookie up, which comes back with the next request.
    let bytes = entry_of(&head("/", &[]), vec![sticky("user-7")], &["cookie:sid"]).unwrap();
    assert!(!String::from_utf8_lossy(&bytes).to_ascii_lowercase().contains("user-7"));
    assert!(Entry::read(&bytes).unwrap().calls[0].tape.hidden);
    let bytes = entry_of(&head("/", &[]), vec![sticky("user-7")], &["cookie:other"]).unwrap();
    assert!(!Entry::read(&bytes).unwrap().calls[0].tape.hidden);
    // One that has read nothing of it.
    let harmless = Call { version: about("a"), tape: Tape::default(), said: Said::Next, reason: String::new() };
    let bytes = entry_of(&sent, vec![harmless], &["cookie:*"]).unwrap();
    assert!(!Entry::read(&bytes).unwrap().calls[0].tape.hidden);
}

#[test]
fn what_is_made_of_a_short_secret_is_not_told_at_all() {
    let sent = head("/", &[("cookie", "sid=7")]);
    let bytes = entry_of(&sent, vec![sticky("7")], &["cookie:*"]).unwrap();
    let entry = Entry::read(&bytes).unwrap();
    let Said::Forward(sent) = &entry.calls[0].said else { panic!() };
    assert_eq!((sent.key.as_deref(), entry.calls[0].reason.as_str()), (Some(MARK), MARK));
}

#[test]
fn a_configuration_can_be_left_out() {
    let config = |hides| match &frames(&file(1, hides)).0[2] {
        Frame::Versions(versions) => versions[0].config.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!((config(false).as_str(), config(true).as_str()), ("secret-config", MARK));
}

#[test]
fn a_file_that_was_cut_is_read_to_its_last_whole_frame() {
    let bytes = file(3, false);
    let (all, passed_over) = frames(&bytes);
    assert_eq!((all.len(), count(&all), passed_over), (6, 3, 0));
    let ends = ends(&bytes);
    for cut in 0..bytes.len() {
        let whole = ends.iter().rposition(|end| *end <= cut).unwrap();
        let (left, passed_over) = frames(&bytes[..cut]);
        assert_eq!((&left[..], passed_over), (&all[..whole], (cut - ends[whole]) as u64), "{cut}");
    }
}

#[test]
fn what_is_damaged_is_passed_over_and_what_comes_after_is_read() {
    let bytes = file(3, false);
    let all = frames(&bytes).0;
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        let (left, passed_over) = frames(&damaged);
        assert_eq!(left.len(), all.len() - 1, "{at}");
        assert!(left.iter().all(|frame| all.contains(frame)), "{at}");
        assert!(passed_over >= HEAD as u64, "{at}");
    }
    let noise = [&b"WSR1 WSR1"[..], &bytes, b"WSR", &bytes].concat();
    assert_eq!(frames(&noise).0.len(), 2 * all.len());
}

#[test]
fn a_frame_of_a_newer_gateway_is_passed_over_or_told() {
    let bytes = file(1, false);
    let first = ends(&bytes)[1];
    let of_kind = |kind: u8, flags: u8| {
        let mut frame = bytes[..first].to_vec();
        (frame[4], frame[5]) = (kind, flags);
        let stored = frame[HEAD..].to_vec();
        let sum = xxhash_rust::xxh64::xxh64(&stored, xxhash_rust::xxh64::xxh64(&frame[..HEAD - 8], 0));
        frame[HEAD - 8..HEAD].copy_from_slice(&sum.to_le_bytes());
        [&frame[..], &bytes].concat()
    };
    let read = frames(&of_kind(99, 1));
    assert_eq!((read.0.len(), read.1), (frames(&bytes).0.len(), 0));
    let problem = Reader::new(&of_kind(99, 0)[..]).frame().unwrap_err();
    assert!(problem.to_string().contains("newer gateway"), "{problem}");
    // One that is damaged as well is just that.
    let mut damaged = of_kind(99, 0);
    damaged[HEAD] ^= 1;
    assert_eq!(frames(&damaged).0.len(), frames(&bytes).0.len());
}

#[test]
fn what_is_no_record_file_is_told_so() {
    let noise = b"WSR1".repeat(100_000);
    let mut reader = Reader::new(&noise[..]);
    assert!(std::iter::repeat_with(|| reader.frame()).find_map(Result::err).is_some());
    assert_eq!(frames(&[]), (Vec::new(), 0));
    assert_eq!(frames(&[0; 1 << 20]).1, 1 << 20);
}

#[test]
fn services_are_told_by_what_is_different() {
    let one = catalog(&[("a", 2), ("b", 1)]);
    let mut two = Catalog::clone(&one);
    two.remove("a");
    two.put(Arc::clone(catalog(&[("c", 5)]).service("c").unwrap()));
    let whole = Revision::between(None, &one, 1);
    let read = whole.catalog(&Catalog::default()).unwrap();
    let changed = Revision::between(Some((1, &one)), &two, 2);
    assert_eq!((changed.put.len(), changed.gone.len(), changed.base), (1, 1, 1));
    let read = changed.catalog(&read).unwrap();
    let mut names: Vec<_> = read.services().map(|service| service.name.to_string()).collect();
    names.sort();
    assert_eq!(names, ["b", "c"]);
    let (was, is) = (&two.service("c").unwrap().endpoints[4], &read.service("c").unwrap().endpoints[4]);
    assert_eq!((was.id, was.address, was.weight, &was.metadata), (is.id, is.address, is.weight, &is.metadata));
    assert!(two.service("c").unwrap().endpoints.len() < MOST_ENDPOINTS);
}

#[test]
fn seeds_follow_from_what_a_file_says() {
    let recording = Recording::new(Arc::default());
    let opening = recording.opening(&Settings::default());
    for worker in 0..3 {
        let seed = recording.seed(worker);
        assert_eq!(exchange_seed(opening.seed, worker as u32, 9), Chance::at(seed, 9));
    }
}

#[test]
fn the_share_is_what_is_recorded() {
    let recording = Arc::new(Recording::new(Arc::default()));
    let taken = |share: f64| {
        recording.most.store(threshold(share), Relaxed);
        (0..10_000).filter(|seed| recording.takes(Chance::at(1, *seed))).count()
    };
    assert_eq!((taken(0.0), taken(1.0)), (0, 10_000));
    assert!((50..150).contains(&taken(0.01)));
}

#[test]
fn records_go_to_disk_and_a_full_queue_drops_them() {
    let folder = tempfile::tempdir().unwrap();
    let counters: Arc<Counters> = Arc::default();
    let recording = Arc::new(Recording::new(Arc::clone(&counters)));
    let directory = folder.path().join("records");
    let settings = Settings { sample: 1.0, directory: directory.clone(), ..Settings::default() };
    recording.configure(&Arc::new(settings));
    let catalog = catalog(&[("users", 3)]);
    let head = head("/", &[]);
    let bytes = entry_of(&head, vec![sticky("user-7")], &[]).unwrap();
    for _ in 0..1000 {
        recording.push(item(bytes.clone(), &catalog));
    }
    // More than there is room for, whatever the writer does.
    recording.push(item(vec![0; WAITING_BYTES + 1], &catalog));
    recording.stop(Duration::from_secs(20));
    assert!(!recording.takes(1));
    let mut text = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        std::fs::File::open(entry.unwrap().path()).unwrap().read_to_end(&mut text).unwrap();
    }
    let (frames, passed_over) = frames(&text);
    assert_eq!((count(&frames), passed_over), (1000, 0));
    assert!(frames.iter().any(|frame| matches!(frame, Frame::Lost(Lost { count: 1, .. }))));
    assert_eq!((counters.get(Counter::Recorded), counters.get(Counter::NotRecorded)), (1000, 1));
}

#[test]
fn what_somebody_asks_for_is_recorded_for_a_while_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let recording = Arc::new(Recording::new(Arc::default()));
    let settings = Settings { directory: folder.path().join("records"), ..Settings::default() };
    recording.configure(&Arc::new(settings));
    for (share, time) in [(0.0, 60), (1.5, 60), (f64::NAN, 60), (1.0, 0), (1.0, 3601)] {
        assert!(recording.ask(share, Duration::from_secs(time), unix_ms()).is_err(), "{share} {time}");
    }
    let asked = recording.ask(1.0, Duration::from_secs(60), unix_ms()).unwrap();
    assert!(recording.takes(1) && recording.asked(asked.id).is_some() && recording.asked(7).is_none());
    assert!(recording.ask(1.0, Duration::from_secs(60), unix_ms()).unwrap_err().contains("already"));
    let catalog = catalog(&[("users", 3)]);
    let bytes = entry_of(&head("/", &[]), vec![sticky("user-7")], &[]).unwrap();
    (0..10).for_each(|_| recording.push(item(bytes.clone(), &catalog)));
    let fetched = || {
        let (mut all, mut from) = (Vec::new(), 0);
        loop {
            let part = asked.part(from).unwrap_or_default();
            if part.is_empty() {
                return all;
            }
            from += part.len() as u64;
            all.extend(part);
        }
    };
    until(|| count(&frames(&fetched()).0) == 10);
    assert!(asked.ended().is_none());
    asked.give_up();
    until(|| !asked.path.exists() && recording.asked(asked.id).is_none());
    assert!(!recording.takes(1), "nothing else is recorded");
    recording.stop(Duration::from_secs(20));
}

/// Waits for what the writer does.
#[track_caller]
fn until(so: impl Fn() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < Duration::from_secs(20), "it never happened");
        std::thread::sleep(Duration::from_millis(2));
    }
}

prop_compose! {
    fn any_entry()(
        method in "[A-Z]{1,7}",
        path in "/[ -~]{0,20}",
        lines in prop::collection::vec(("[a-z-]{1,10}", prop::collection::vec(32_u8..255, 0..20)), 0..8),
        numbers in (any::<u32>(), any::<u64>(), any::<u64>()),
        loads in prop::collection::vec((any::<bool>(), any::<u32>(), any::<u32>()), 0..10),
        texts in prop::collection::vec("\\PC{0,12}", 4),
    ) -> (Vec<u8>, String) {
        let fields = lines.iter().map(|(name, value)| (
            bytes::Bytes(name.as_bytes().to_vec().into()), bytes::Bytes(value.clone().into()),
        ));
        let mut tape = Tape::default();
        tape.read(Asked::Get(texts[0].as_str().into()), &Got::Value(texts[1].as_str().into()));
        let loads = loads.into_iter().map(|(usable, in_flight, latency_us)| EndpointNow { usable, in_flight, latency_us });
        tape.read(Asked::Endpoints("users".into()), &Got::Endpoints(loads.collect()));
        let entry = Entry {
            worker: numbers.0,
            number: numbers.1,
            at_ms: numbers.2,
            head: entry::HeadSaid {
                method: method.into(),
                target: path.into(),
                authority: None,
                version: 11,
                fields: fields.collect(),
                websocket: false,
                client: [203, 0, 113, 7].into(),
                tls: false,
                subject: None,
                claims: None,
                paths: 0,
            },
            calls: vec![CallSaid {
                policy: "a".into(),
                version: "b".into(),
                tape,
                said: Said::Forward(Box::new(Sent { key: Some(texts[2].clone()), ..Sent::default() })),
                reason: texts[3].clone(),
            }],
            outcome: OutcomeSaid::default(),
        };
        let shown = format!("{:?}", (&entry.head, &entry.calls[0].said, &entry.calls[0].reason, &entry.calls[0].tape.reads));
        (entry.bytes(), shown)
    }
}

proptest! {
    #[test]
    fn every_entry_is_read_as_it_was_written((bytes, shown) in any_entry(), more in prop::collection::vec(any::<u8>(), 0..9)) {
        // What a later format adds is not looked at.
        let longer = [&bytes[..], &more].concat();
        let entry = Entry::read(&longer).unwrap();
        let (call, head) = (&entry.calls[0], &entry.head);
        prop_assert_eq!(format!("{:?}", (head, &call.said, &call.reason, &call.tape.reads)), shown);
        let _ = head.head();
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(entry) = Entry::read(&bytes) {
            let _ = entry.head.head();
        }
        let mut reader = Reader::new(&bytes[..]);
        while let Ok(Some(_)) = reader.frame() {}
    }

    #[test]
    fn no_damage_makes_it_panic(damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = file(2, false);
        for (at, byte) in &damages {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        let mut reader = Reader::new(&bytes[..]);
        while let Ok(Some(frame)) = reader.frame() {
            if let Frame::Entries(entries) = frame {
                entries.iter().for_each(drop);
            }
        }
        prop_assert!(reader.passed_over <= bytes.len() as u64);
    }
}
