use super::*;
use crate::base::chance::Chance;
use proptest::prelude::*;
use std::time::Duration;

const TICK: Duration = Duration::from_secs(5);

/// So many requests of each side, dealt to all cells below and above the share, so many of them answered with 5xx.
fn counted(share: f64, requests: [u32; 2], bad: [u32; 2]) -> Counted {
    let mut counted = Counted::default();
    let first = (share * CELLS as f64) as usize;
    for (side, places) in [(0, first..CELLS), (1, 0..first)] {
        if places.is_empty() {
            continue;
        }
        for number in 0..requests[side] {
            let cell = &mut counted.cells[side][places.start + number as usize % places.len()];
            cell.requests += 1;
            cell.bad += u32::from(number < bad[side]);
            counted.times[side].count(1_000_000 + u64::from(number) * 1_000);
        }
    }
    counted
}

fn settings() -> Settings {
    Settings { mode: Mode::Canary, ..Settings::default() }
}

/// Ticks with so many requests a tick until it moves; how many they were.
fn until_it_moves(course: &mut Course, requests: u32, bad: [u32; 2]) -> (u32, Move) {
    for tick in 1..10_000 {
        let own = (f64::from(requests) * course.share()) as u32;
        match course.tick(&counted(course.share(), [requests - own, own], bad), 0, TICK) {
            Move::Stay => {}
            moved => return (tick, moved),
        }
    }
    panic!("it does not move");
}

#[test]
fn it_goes_step_by_step_and_then_is_live() {
    let mut course = Course::new(settings());
    assert_eq!((course.share(), until_it_moves(&mut course, 1_000, [2, 0])), (0.0, (12, Move::Step)));
    for share in [0.01, 0.1, 0.5] {
        assert_eq!(course.share(), share);
        let moved = if share < 0.5 { Move::Step } else { Move::Promote };
        assert_eq!(until_it_moves(&mut course, 1_000, [2, 0]), (60, moved), "5 minutes of 5 s");
    }
}

#[test]
fn a_step_waits_for_its_requests_and_time_stands_still_without_any() {
    let mut course = Course::new(settings());
    until_it_moves(&mut course, 1_000, [0, 0]);
    for _ in 0..100 {
        assert_eq!(course.tick(&counted(0.01, [0, 0], [0, 0]), 0, TICK), Move::Stay);
    }
    assert_eq!(course.progress().held_ms, 0);
    assert!(course.notes().iter().any(|note| note.contains("time stands still")), "{:?}", course.notes());
    // One request of the canary's each tick: 200 ticks.
    let mut ticks = 1;
    while course.tick(&counted(0.01, [99, 1], [0, 0]), 0, TICK) == Move::Stay {
        ticks += 1;
        if ticks == 100 {
            let notes = course.notes().join("; ");
            assert!(notes.contains("waits for 101 more requests") && notes.contains("groups of clients"), "{notes}");
        }
    }
    assert_eq!(ticks, 200);
}

#[test]
fn a_call_too_many_that_goes_wrong_ends_it() {
    let mut course = Course::new(Settings { max_faults: 1, ..settings() });
    until_it_moves(&mut course, 1_000, [0, 0]);
    assert_eq!(course.tick(&counted(0.01, [990, 10], [0, 0]), 1, TICK), Move::Stay);
    assert_eq!(course.tick(&counted(0.01, [990, 10], [0, 0]), 2, TICK), Move::Faulty(2));
}

#[test]
fn one_that_always_fails_is_found_within_ten_ticks_of_the_first_step() {
    let mut course = Course::new(settings());
    until_it_moves(&mut course, 1_000, [2, 0]);
    let (ticks, moved) = until_it_moves(&mut course, 1_000, [2, 10]);
    let Move::Harmful(guilt) = moved else { panic!("{moved:?}") };
    assert!(ticks <= 10 && guilt.harm == Harm::Bad && guilt.events[1] == guilt.requests[1], "{ticks} {guilt:?}");
    let evidence = Evidence::of_guilt(&guilt, course.progress(), course.share(), [Vec::new(), Vec::new()]);
    assert!(evidence.told.contains("100.00 % of its answers are 5xx, against 0.20 %"), "{}", evidence.told);
    let text = serde_json::to_string(&evidence).unwrap();
    assert_eq!(serde_json::from_str::<Evidence>(&text).unwrap(), evidence);
}

#[test]
fn an_outage_that_hits_both_speaks_against_neither() {
    let mut course = Course::new(Settings { steps: vec![0.5], ..settings() });
    until_it_moves(&mut course, 1_000, [2, 0]);
    for tick in 0..50 {
        let bad = if tick % 10 < 4 { [125, 125] } else { [1, 1] };
        assert_eq!(course.tick(&counted(0.5, [500, 500], bad), 0, TICK), Move::Stay, "{tick}");
    }
}

#[test]
fn after_a_restart_it_stands_where_it_stood_but_the_third_begins_the_step_anew() {
    let mut course = Course::new(settings());
    until_it_moves(&mut course, 1_000, [0, 0]);
    until_it_moves(&mut course, 1_000, [0, 0]);
    for _ in 0..30 {
        course.tick(&counted(0.1, [900, 100], [0, 0]), 0, TICK);
    }
    let mut progress = course.progress();
    assert_eq!((progress.step, progress.held_ms, progress.requests), (2, 150_000, [27_000, 3_000]));
    for restarts in [1, 2, 0] {
        let course = Course::resume(settings(), &progress);
        assert_eq!(course.share(), 0.1);
        let resumed = course.progress();
        let (held, requests) = if restarts > 0 { (150_000, [27_000, 3_000]) } else { (0, [0, 0]) };
        assert_eq!((resumed.restarts, resumed.held_ms, resumed.requests), (restarts, held, requests));
        progress = resumed;
    }
    // Fewer steps than before a restart.
    let fewer = Course::resume(Settings { steps: vec![0.2], ..settings() }, &progress);
    assert_eq!(fewer.share(), 0.2);
}

/// Over canaries that are no worse, the odds ever reach 20 in one of 20 at most, however long they are looked at: that is
/// what makes them an e-process (Ville's inequality). Of those that are worse, they do in most.
#[test]
fn odds_against_equal_versions_seldom_get_large_and_others_do() {
    let mut chance = Chance(11);
    let mut large = |rise: usize| {
        let runs = (0..300).filter(|_| {
            let mut odds = odds::Odds::of(|cell| cell.bad);
            let mut tick = |share: f64| {
                let mut counted = Counted::default();
                for _ in 0..300 {
                    let place = chance.below(CELLS);
                    let side = usize::from((place as f64) < share * CELLS as f64);
                    let cell = &mut counted.cells[side][place];
                    cell.requests += 1;
                    cell.bad += u32::from(chance.below(1_000) < 5 + side * rise);
                }
                odds.take(&counted.busy(), TICK);
                odds.weight(odds::Stratum::Calm).odds >= 20.0
            };
            for _ in 0..12 {
                tick(0.0);
            }
            (0..30).any(|_| tick(0.3))
        });
        runs.count()
    };
    let (equal, worse) = (large(0), large(20));
    assert!(equal <= 15 && worse >= 270, "{equal} {worse}");
}

proptest! {
    /// Whatever is counted, the judge neither panics nor gives numbers that are none.
    #[test]
    fn no_counts_make_it_panic(
        ticks in prop::collection::vec(prop::collection::vec((0..2_usize, 0..CELLS, 0..3_000_000_u32, any::<u32>(), any::<u64>()), 0..20), 1..12),
        share in 0.001..0.99_f64,
    ) {
        let mut course = Course::new(Settings { steps: vec![share], min_requests: 0, ..settings() });
        for tick in ticks {
            let mut counted = Counted::default();
            for (side, place, requests, bad, ns) in tick {
                let events = bad % requests.max(1);
                counted.cells[side][place] =
                    Cell { requests, bad: events, slow90: events / 2, slow99: events / 3, starved: events / 7 };
                counted.times[side].count(ns);
            }
            match course.tick(&counted, 0, TICK * 20) {
                Move::Harmful(guilt) => {
                    prop_assert!(!guilt.odds.is_nan() && guilt.unlike >= 1.0, "{guilt:?}");
                    break;
                }
                Move::Promote => break,
                Move::Stay | Move::Step | Move::Faulty(_) => {}
            }
        }
    }
}
