use super::*;
use crate::base::chance::Chance;

/// What a simulated policy came to.
#[derive(Debug)]
struct Simulated {
    /// Share of all requests that got no decision, in %.
    lost: f64,
    /// Calls that faulted.
    faults: u64,
    suspensions: Vec<u64>,
}

/// Asks for 300 s on one worker: so many requests a second, of which `share` fault, each at this cost in µs.
fn simulate(per_second: u64, share: f64, cost_us: u64, seed: u64) -> Simulated {
    let (mut suspension, mut chance) = (Suspension::new(1), Chance(seed));
    let (mut until_ms, mut calls, mut lost, mut faults) = (0, 0, 0, 0);
    let mut suspensions = Vec::new();
    let requests = per_second * 300;
    for request in 0..requests {
        let now_ms = 1000 + request * 1000 / per_second;
        if until_ms > now_ms {
            lost += 1;
            continue;
        } else if until_ms > 0 {
            suspension.begin_trial(now_ms, calls);
            until_ms = 0;
        }
        calls += 1;
        if chance.next_u64() as f64 / u64::MAX as f64 >= share {
            continue;
        }
        (lost, faults) = (lost + 1, faults + 1);
        if let Some(suspended) = suspension.fault(now_ms, calls, Duration::from_micros(cost_us)) {
            until_ms = suspended.until_ms;
            suspensions.push((until_ms - now_ms) / 1000);
        }
    }
    Simulated { lost: 100.0 * lost as f64 / requests as f64, faults, suspensions }
}

#[test]
fn who_goes_wrong_now_and_then_goes_on_being_asked() {
    // Requests a second, share that faults, cost of one in µs, and how many of all requests get no decision, in %.
    let cases = [
        (1_000, 0.0001, 20, 0.0..=0.02),
        (5_000, 0.0001, 20, 0.005..=0.015),
        (20_000, 0.0001, 20, 0.008..=0.012),
        (1_000, 0.001, 20, 0.08..=0.12),
        (1_000, 0.01, 20, 0.9..=1.1),
        (1_000, 0.2, 20, 19.5..=20.5),
        (20_000, 0.2, 20, 19.9..=20.1),
        (1_000, 0.001, 10_000, 0.08..=0.12),
    ];
    for (per_second, share, cost_us, expected) in cases {
        for seed in 1..=if per_second > 5_000 { 1 } else { 3 } {
            let simulated = simulate(per_second, share, cost_us, seed);
            assert!(expected.contains(&simulated.lost), "{per_second} {share} {cost_us}: {simulated:?}");
            assert!(simulated.suspensions.is_empty(), "{simulated:?}");
        }
    }
}

#[test]
fn who_goes_wrong_most_of_the_time_is_hardly_run() {
    let all = simulate(1_000, 1.0, 20, 1);
    assert_eq!((all.faults, all.lost), (30, 100.0));
    assert_eq!(all.suspensions, [10, 20, 40, 80, 160]);
    for seed in 1..=5 {
        let most = simulate(1_000, 0.6, 20, seed);
        assert!(most.lost > 99.9 && (30..=80).contains(&most.faults), "{most:?}");
    }
}

#[test]
fn who_burns_the_workers_time_is_suspended_for_that() {
    for seed in 1..=3 {
        // 10 % of the time is the bound itself.
        let some = simulate(1_000, 0.01, 10_000, seed);
        assert!((1.0..=90.0).contains(&some.lost), "{some:?}");
        let much = simulate(1_000, 0.2, 10_000, seed);
        assert!((98.0..=99.5).contains(&much.lost), "{much:?}");
    }
}

fn faults(suspension: &mut Suspension, now_ms: u64, calls: &mut u64, count: usize) -> Vec<Option<Suspended>> {
    let fault = |_| {
        *calls += 1;
        suspension.fault(now_ms, *calls, Duration::ZERO)
    };
    (0..count).map(fault).collect()
}

#[test]
fn the_tenth_fault_suspends_if_half_of_the_calls_are_faults() {
    let (mut suspension, mut calls) = (Suspension::new(1), 0);
    let ten = faults(&mut suspension, 1000, &mut calls, 10);
    assert!(ten[..9].iter().all(Option::is_none));
    let suspended = ten[9].clone().unwrap();
    assert_eq!((suspended.until_ms, suspended.in_a_row), (11_000, 1));
    assert!(matches!(suspended.why, Why::Faults { faults, calls } if faults == 10.0 && calls > 9.9), "{suspended:?}");
    // Calls that had begun before do not prolong it.
    assert!(faults(&mut suspension, 1001, &mut calls, 20).iter().all(Option::is_none));

    let (mut suspension, mut calls) = (Suspension::new(1), 11);
    let ten = faults(&mut suspension, 1000, &mut calls, 10);
    assert!(ten.iter().all(Option::is_none), "ten of twenty-one");
    assert!(faults(&mut suspension, 1000, &mut calls, 1)[0].is_some(), "eleven of twenty-two");
}

#[test]
fn faults_far_apart_never_suspend() {
    let (mut suspension, mut calls) = (Suspension::new(1), 0);
    for second in 0..1000 {
        let now_ms = second * 2_000;
        assert!(faults(&mut suspension, now_ms, &mut calls, 1)[0].is_none(), "at {now_ms}");
    }
}

#[test]
fn a_long_good_time_is_soon_forgotten() {
    let mut suspension = Suspension::new(1);
    // A million calls in an hour, then nothing but faults, 300 a second.
    let (mut now_ms, mut calls) = (3_600_000, 1_000_000);
    let suspended = (0..100_000).find_map(|_| {
        (now_ms, calls) = (now_ms + 3, calls + 1);
        suspension.fault(now_ms, calls, Duration::ZERO)
    });
    assert!(suspended.is_some() && now_ms < 3_600_000 + 15_000, "{suspended:?} at {now_ms}");
}

#[test]
fn the_trial_needs_five_faults_in_ten_calls() {
    let (mut suspension, mut calls) = (Suspension::new(1), 0);
    faults(&mut suspension, 0, &mut calls, 10);
    let mut now_ms = 10_000;
    suspension.begin_trial(now_ms, calls);
    // Four, of ten: passed. Later faults are counted as ever, but the next suspension is longer.
    calls += 6;
    assert!(faults(&mut suspension, now_ms, &mut calls, 4).iter().all(Option::is_none));
    calls += 100;
    assert!(faults(&mut suspension, now_ms, &mut calls, 9).iter().all(Option::is_none));
    let last = faults(&mut suspension, now_ms, &mut calls, 200).into_iter().flatten().next().unwrap();
    assert_eq!((last.until_ms - now_ms, last.in_a_row), (20_000, 2));

    now_ms = last.until_ms;
    suspension.begin_trial(now_ms, calls);
    let five = faults(&mut suspension, now_ms, &mut calls, 5);
    assert_eq!(five[4].as_ref().map(|last| (last.until_ms - now_ms, last.why)), Some((40_000, Why::Trial)));
}

#[test]
fn the_back_off_doubles_up_to_ten_minutes_and_starts_anew_after_a_quiet_time() {
    let (mut suspension, mut calls, mut now_ms) = (Suspension::new(1), 0, 0);
    let mut lengths = Vec::new();
    faults(&mut suspension, now_ms, &mut calls, 9);
    for _ in 0..8 {
        let last = faults(&mut suspension, now_ms, &mut calls, 5).into_iter().flatten().next().unwrap();
        lengths.push((last.until_ms - now_ms) / 1000);
        now_ms = last.until_ms;
        suspension.begin_trial(now_ms, calls);
    }
    assert_eq!(lengths, [10, 20, 40, 80, 160, 320, 600, 600]);
    now_ms += QUIET_MS + 1;
    let last = faults(&mut suspension, now_ms, &mut calls, 5).into_iter().flatten().next().unwrap();
    assert_eq!(last.until_ms - now_ms, 10_000);
}

#[test]
fn after_a_restart_it_begins_with_the_trial_at_the_doubled_time() {
    let (mut suspension, mut calls) = (Suspension::new(1), 0);
    suspension.resume(7, 3);
    let five = faults(&mut suspension, 8, &mut calls, 5);
    assert!(five[..4].iter().all(Option::is_none));
    assert_eq!(five[4].as_ref().map(|last| (last.until_ms, last.in_a_row)), Some((80_008, 4)));
}
