use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::atomic::AtomicU32;

const TERMS: Terms = Terms { depth: 3, wait_ms: 200, keyed: false };

/// For those that leave by the process's own clock.
const PATIENT: Terms = Terms { wait_ms: 1 << 40, ..TERMS };

fn places(limit: u32) -> Arc<Places> {
    let places = Arc::<Places>::default();
    places.declare(Some(limit), 0);
    places
}

fn enter(places: &Arc<Places>, terms: Option<Terms>, now_ms: u64) -> Entered {
    places.enter(u32::MAX, terms, Who::default, now_ms)
}

fn place(entered: Entered) -> Place {
    match entered {
        Entered::Place(place) => place,
        entered => panic!("{entered:?}"),
    }
}

fn waits(entered: Entered) -> Waiting {
    match entered {
        Entered::Waits(waiting) => waiting,
        entered => panic!("{entered:?}"),
    }
}

fn counts(places: &Places) -> (u32, u32) {
    (places.in_flight(), places.waiting())
}

#[test]
fn what_is_beyond_the_limit_is_refused_or_waits_for_a_place() {
    let places = places(2);
    let (first, second) = (place(enter(&places, None, 0)), place(enter(&places, None, 0)));
    assert!(matches!(enter(&places, None, 0), Entered::Refused(Over::Limit)));
    let mut waiting = [(); 3].map(|()| waits(enter(&places, Some(TERMS), 0)));
    assert_eq!(counts(&places), (2, 3));
    // One too many: of one line, the newest.
    let late = waits(enter(&places, Some(TERMS), 0));
    assert_eq!(late.ends().unwrap_err(), Over::QueueFull);
    first.leave(10);
    let third = waiting[0].so_far().unwrap().unwrap();
    assert!(waiting[1].so_far().is_none());
    assert_eq!(counts(&places), (2, 2));
    // Whoever leaves the queue takes nobody's place with it.
    let [_, one, mut other] = waiting;
    drop(one);
    second.leave(20);
    assert!(other.so_far().unwrap().is_ok());
    drop((third, other));
    assert_eq!(counts(&places), (0, 0));
    assert_eq!(Over::ALL.map(|over| places.refused(over)), [1, 1, 0, 0, 0]);
    assert_eq!(places.queued(), 4);
}

#[test]
fn a_place_that_nobody_takes_is_the_next_ones() {
    let places = places(1);
    let first = place(enter(&places, None, 0));
    let (gone, mut next) = (waits(enter(&places, Some(PATIENT), 0)), waits(enter(&places, Some(PATIENT), 0)));
    first.leave(1);
    assert_eq!(counts(&places), (1, 1));
    // It was handed its place, and has not looked yet.
    drop(gone);
    assert!(next.so_far().unwrap().is_ok());
    assert_eq!(counts(&places), (0, 0));
}

#[test]
fn whoever_waits_for_too_long_is_told_so_and_has_a_place_if_it_was_handed_one() {
    let places = places(1);
    let first = place(enter(&places, None, 0));
    let (late, handed) = (waits(enter(&places, Some(TERMS), 0)), waits(enter(&places, Some(TERMS), 0)));
    assert_eq!(late.ends().unwrap_err(), Over::QueueTimeout);
    first.leave(10);
    assert!(handed.ends().is_ok());
    let (first, mut expired) = (place(enter(&places, None, 10)), waits(enter(&places, Some(TERMS), 10)));
    first.leave(210);
    assert_eq!(expired.so_far().unwrap().unwrap_err(), Over::QueueTimeout);
    assert_eq!((counts(&places), places.refused(Over::QueueTimeout)), ((0, 0), 2));
}

#[test]
fn a_limit_that_grows_lets_in_who_waits() {
    let places = places(1);
    let first = place(enter(&places, None, 0));
    let mut waiting = [(); 3].map(|()| waits(enter(&places, Some(PATIENT), 0)));
    places.declare(Some(3), 0);
    let so_far: Vec<_> = waiting.iter_mut().map(|waiting| waiting.so_far().map(|told| told.is_ok())).collect();
    // A place that is dropped at once is handed on.
    assert_eq!(so_far, [Some(true), Some(true), Some(true)]);
    places.declare(Some(1), 0);
    assert!(matches!(enter(&places, None, 0), Entered::Refused(_)));
    drop(first);
    drop(place(enter(&places, None, 0)));
    // What all endpoints have room for limits it as well.
    let first = place(places.enter(1, None, Who::default, 0));
    assert!(matches!(places.enter(1, None, Who::default, 0), Entered::Refused(_)));
    drop(first);
}

#[test]
fn a_stream_makes_room_for_a_request_and_not_for_more_than_is_declared() {
    let places = places(3);
    places.adapt(Some(1), 0);
    let mut stream = place(enter(&places, None, 0));
    let mut waiting = waits(enter(&places, Some(PATIENT), 0));
    stream.streams();
    stream.streams();
    let request = waiting.so_far().unwrap().unwrap();
    assert_eq!((places.in_flight(), places.requests()), (2, 1));
    assert!(matches!(enter(&places, None, 0), Entered::Refused(_)));
    drop(stream);
    assert_eq!((places.in_flight(), places.requests(), places.limit()), (1, 1, 1));
    drop(request);
}

/// Workers come and go as they like: never more than may, and in the end nobody is in.
#[test]
fn eight_threads_keep_the_limit() {
    let (places, inside, most) = (places(3), AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (places, inside, most) = (&places, &inside, &most);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                for number in 0..2_000_u32 {
                    let entered = match enter(places, Some(Terms { wait_ms: 60_000, ..TERMS }), 0) {
                        Entered::Place(place) => Ok(place),
                        Entered::Refused(over) => Err(over),
                        // Some go away.
                        Entered::Waits(waiting) if (number + thread) % 7 == 0 => {
                            drop(waiting);
                            continue;
                        }
                        Entered::Waits(mut waiting) => runtime.block_on(waiting.told()),
                    };
                    let Ok(place) = entered else { continue };
                    most.fetch_max(inside.fetch_add(1, Relaxed) + 1, Relaxed);
                    std::thread::yield_now();
                    inside.fetch_sub(1, Relaxed);
                    drop(place);
                }
            });
        }
    });
    assert_eq!((counts(&places), most.load(Relaxed)), ((0, 0), 3));
}

proptest! {
    /// Whatever is dropped when, by whoever: never more in flight than may be, never more waiting than may wait, nobody waits
    /// beside a free place, and each place is given back.
    #[test]
    fn every_place_is_given_back(
        limit in 1u32..5,
        depth in 1usize..6,
        steps in prop::collection::vec((0u8..7, 0usize..8, 0u64..100), 1..200),
    ) {
        let (places, mut now_ms) = (places(limit), 0);
        let terms = Terms { depth, ..TERMS };
        let (mut inside, mut outside) = (VecDeque::new(), Vec::new());
        for (what, which, later) in steps {
            now_ms += later;
            match what {
                0..=2 => match places.enter(u32::MAX, (what > 0).then_some(terms), || Who { key: which as u64, weight: 1 }, now_ms) {
                    Entered::Place(place) => inside.push_back(place),
                    Entered::Waits(waiting) => outside.push(waiting),
                    Entered::Refused(_) => {}
                },
                3 => if let Some(place) = inside.pop_front() { place.leave(now_ms) },
                4 => if which < outside.len() { drop(outside.swap_remove(which)) },
                5 => if which < outside.len()
                    && let Ok(place) = outside.swap_remove(which).ends() {
                        inside.push_back(place);
                    },
                _ => for waiting in &mut outside {
                    if let Some(Ok(place)) = waiting.so_far() {
                        inside.push_back(place);
                    }
                },
            }
            prop_assert!(places.in_flight() <= limit && places.waiting() as usize <= depth);
            prop_assert!(places.waiting() == 0 || places.in_flight() == limit);
        }
        drop(outside);
        inside.into_iter().for_each(|place| place.leave(now_ms));
        prop_assert_eq!(counts(&places), (0, 0));
    }
}
