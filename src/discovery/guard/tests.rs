use super::*;
use crate::discovery::Metadata;
use proptest::prelude::*;

const LATER: Duration = Duration::from_secs(5);

fn observed(ports: &[u16]) -> Observed {
    let entry = |port: &u16| Entry {
        address: SocketAddr::from(([127, 0, 0, 1], *port)),
        weight: 1,
        healthy: true,
        metadata: Metadata::new(),
    };
    Observed { endpoints: ports.iter().map(entry).collect(), ..Observed::default() }
}

fn ports(observed: &Observed) -> Vec<u16> {
    observed.endpoints.iter().map(|entry| entry.address.port()).collect()
}

#[test]
fn only_large_losses_are_doubted() {
    let cases: [(&[u16], &[u16], Option<&str>); 8] = [
        (&[], &[], None),
        (&[], &[1], None),
        (&[1], &[], Some("an empty answer would take away the only endpoint")),
        (&[1, 2], &[], Some("an empty answer would take away all 2 endpoints")),
        (&[1, 2, 3], &[3], None),
        (&[1, 2, 3, 4], &[3, 4], None),
        (&[1, 2, 3, 4], &[4], Some("the answer would take away 3 of 4 endpoints")),
        // As many as before, but others.
        (&[1, 2, 3, 4], &[5, 6, 7, 8], Some("the answer would take away 4 of 4 endpoints")),
    ];
    let now = Instant::now();
    for (before, answer, reason) in cases {
        let mut guard = Guard::new(LATER, false, Some(observed(before)));
        let report = guard.offer(observed(answer), now);
        let expected = reason.map(|reason| format!("{reason}; it is held until a read 5s later agrees"));
        assert_eq!(report.held, expected, "{before:?} then {answer:?}");
        assert_eq!(ports(&report), if reason.is_some() { before } else { answer });
        assert_eq!(guard.confirm_at(), reason.map(|_| now + LATER));
        // The same answer, when its time has come.
        let report = guard.offer(observed(answer), now + LATER);
        assert_eq!((ports(&report), report.held), (answer.to_vec(), None));
        assert_eq!(guard.confirm_at(), None);
    }
}

#[test]
fn the_first_answer_and_an_allowed_empty_one_are_applied() {
    let now = Instant::now();
    assert_eq!(Guard::new(LATER, false, None).offer(observed(&[]), now), observed(&[]));
    let mut guard = Guard::new(LATER, true, Some(observed(&[1, 2, 3, 4, 5])));
    assert_eq!(guard.offer(observed(&[]), now), observed(&[]));
    // A large loss that leaves something is doubted all the same.
    let mut guard = Guard::new(LATER, true, Some(observed(&[1, 2, 3, 4, 5])));
    assert!(guard.offer(observed(&[1]), now).held.is_some());
}

#[test]
fn a_second_look_that_lacks_more_starts_the_time_anew() {
    let now = Instant::now();
    let mut guard = Guard::new(LATER, false, Some(observed(&[1, 2, 3, 4])));
    assert!(guard.offer(observed(&[4]), now).held.is_some());
    // Early agreement changes nothing.
    assert!(guard.offer(observed(&[4]), now + LATER / 2).held.is_some());
    assert_eq!(guard.confirm_at(), Some(now + LATER));
    // That one is gone as well.
    assert!(guard.offer(observed(&[]), now + LATER).held.is_some());
    assert_eq!(guard.confirm_at(), Some(now + LATER * 2));
    // It is back: the others were lacking twice.
    assert_eq!(guard.offer(observed(&[4]), now + LATER * 2), observed(&[4]));
    assert_eq!(guard.confirm_at(), None);
}

#[test]
fn what_came_back_for_a_moment_has_to_be_confirmed_again() {
    let now = Instant::now();
    let mut guard = Guard::new(LATER, false, Some(observed(&[1, 2, 3, 4])));
    assert!(guard.offer(observed(&[]), now).held.is_some());
    assert!(guard.offer(observed(&[1]), now + LATER / 2).held.is_some());
    assert!(guard.offer(observed(&[]), now + LATER).held.is_some());
    // All are back: nothing is held, and the next loss starts from the beginning.
    assert_eq!(guard.offer(observed(&[1, 2, 3, 4]), now + LATER * 2), observed(&[1, 2, 3, 4]));
    assert_eq!(guard.confirm_at(), None);
    assert!(guard.offer(observed(&[]), now + LATER * 3).held.is_some());
}

proptest! {
    /// Whatever is answered: what is reported is the newest answer or what counted before, and a doubted loss is only
    /// ever applied when its endpoints were lacking in all answers of at least the last `confirm_after`.
    #[test]
    fn no_loss_is_applied_on_one_answer(
        answers in prop::collection::vec((prop::collection::btree_set(1u16..9, 0..8), 0u64..4000), 1..40),
        allow_empty: bool,
    ) {
        let mut guard = Guard::new(LATER, allow_empty, None);
        let mut now = Instant::now();
        let mut applied: Option<BTreeSet<u16>> = None;
        let mut history: Vec<(Instant, BTreeSet<u16>)> = Vec::new();
        for (answer, millis) in answers {
            now += Duration::from_millis(millis);
            history.push((now, answer.clone()));
            let list: Vec<u16> = answer.iter().copied().collect();
            let report = guard.offer(observed(&list), now);
            let shown: BTreeSet<u16> = ports(&report).into_iter().collect();
            if let Some(before) = &applied {
                if report.held.is_some() {
                    prop_assert_eq!(&shown, before);
                    prop_assert!(guard.confirm_at().is_some_and(|at| at > now && at <= now + LATER));
                    continue;
                }
                let gone: BTreeSet<u16> = before.difference(&shown).copied().collect();
                let doubted = doubt(before.len(), shown.len(), gone.len(), allow_empty).is_some();
                if doubted {
                    let lacking = history.iter().rev().take_while(|(_, seen)| seen.is_disjoint(&gone));
                    let first = lacking.last().map(|(at, _)| *at);
                    prop_assert!(first.is_some_and(|first| now >= first + LATER), "applied too early");
                }
            }
            prop_assert_eq!(&shown, &answer);
            prop_assert_eq!(guard.confirm_at(), None);
            applied = Some(shown);
        }
    }
}

fn whole(services: &[(&str, &[u16])]) -> BTreeMap<Arc<str>, Observed> {
    services.iter().map(|(name, ports)| (Arc::from(*name), observed(ports))).collect()
}

#[test]
fn a_service_that_is_no_longer_named_is_held_and_then_gone() {
    let now = Instant::now();
    let mut guards = Guards::new(LATER, ["gone".into()].into(), BTreeMap::new());
    let all = whole(&[("users", &[1, 2]), ("gone", &[3]), ("none", &[])]);
    assert_eq!(guards.offer(all.clone(), now), all);
    // One that may be empty, and one that was, are gone at once; the other one's endpoints stay for a while.
    let report = guards.offer(BTreeMap::new(), now);
    assert_eq!(report.keys().map(|name| &**name).collect::<Vec<_>>(), ["users"]);
    assert_eq!((ports(&report["users"]), report["users"].held.is_some()), (vec![1, 2], true));
    assert_eq!(guards.confirm_at(), Some(now + LATER));
    // A service that is new meanwhile is no matter of doubt.
    let report = guards.offer(whole(&[("new", &[7])]), now + LATER / 2);
    assert_eq!((report.len(), ports(&report["new"])), (2, vec![7]));
    let report = guards.offer(whole(&[("new", &[7])]), now + LATER);
    assert_eq!(report, whole(&[("new", &[7])]));
    assert_eq!(guards.confirm_at(), None);
}

#[test]
fn a_half_written_list_takes_nothing_away_and_is_forgotten_once_it_is_whole() {
    let now = Instant::now();
    let all = whole(&[("users", &[1, 2, 3, 4, 5, 6, 7, 8])]);
    let mut guards = Guards::new(LATER, BTreeSet::new(), BTreeMap::new());
    guards.offer(all.clone(), now);
    for (part, after) in [(whole(&[]), 0), (whole(&[("users", &[1])]), 1), (whole(&[("users", &[1, 2, 3])]), 2)] {
        let report = guards.offer(part, now + Duration::from_secs(after));
        assert_eq!(ports(&report["users"]).len(), 8);
    }
    assert_eq!(guards.offer(all.clone(), now + Duration::from_secs(3)), all);
    // What counted outlives the watch.
    let mut guards = Guards::new(LATER, BTreeSet::new(), guards.accepted());
    assert!(guards.offer(whole(&[]), now)["users"].held.is_some());
}
