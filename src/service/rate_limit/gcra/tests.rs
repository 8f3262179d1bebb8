use super::*;
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;
/// Ten in a second, five at once.
const TERMS: Terms = Terms { interval_ns: SECOND / 10, burst: 5 };

fn take(meter: &mut Meter, now_ns: u64) -> bool {
    meter.take(TERMS, now_ns).granted
}

#[test]
fn a_burst_and_then_the_rate() {
    let mut meter = Meter::full(TERMS);
    let left: Vec<u32> = (0..5).map(|_| meter.take(TERMS, SECOND).left).collect();
    assert_eq!(left, [4, 3, 2, 1, 0]);
    let refused = meter.take(TERMS, SECOND);
    assert_eq!(refused, Taken { granted: false, left: 0, wait_ns: SECOND / 10 });
    assert!(!take(&mut meter, SECOND + SECOND / 10 - 1));
    assert!(take(&mut meter, SECOND + SECOND / 10));
    // After half a second, all are there again.
    let again = meter.take(TERMS, 2 * SECOND);
    assert_eq!(again, Taken { granted: true, left: 4, wait_ns: SECOND / 10 });
}

#[test]
fn what_was_given_back_was_never_taken() {
    let mut meter = Meter::full(TERMS);
    for _ in 0..100 {
        assert!(take(&mut meter, SECOND));
        meter.give_back();
    }
    assert_eq!((0..10).filter(|_| take(&mut meter, SECOND)).count(), 5);
}

#[test]
fn other_terms_count_what_was_taken_and_hold_at_once() {
    let slow = Terms { interval_ns: 3600 * SECOND, burst: 10 };
    let mut meter = Meter::full(slow);
    assert_eq!((0..20).filter(|_| meter.take(slow, SECOND).granted).count(), 10);
    // The ten that were taken of a slow bucket are all five of a quick one, which has one more a moment later.
    assert_eq!(meter.take(TERMS, SECOND).wait_ns, SECOND / 10);
    assert!(take(&mut meter, SECOND + SECOND / 10));
    // Two of five are two of ten.
    let mut meter = Meter::full(TERMS);
    assert!(take(&mut meter, SECOND) && take(&mut meter, SECOND));
    assert_eq!(meter.take(slow, SECOND).left, 7);
}

#[test]
fn a_bucket_may_be_told_to_owe_some() {
    for (left, wait) in [(0.0, 1), (-3.0, 4), (0.5, 0), (1.0, 0), (9.0, 0)] {
        let taken = Meter::holding(left, TERMS, SECOND).take(TERMS, SECOND);
        match wait {
            0 => assert_eq!(taken.granted, left >= 1.0),
            _ => assert_eq!(taken.wait_ns, wait * SECOND / 10),
        }
    }
}

fn terms() -> impl Strategy<Value = Terms> {
    (1_u64..100_000, 1_u32..50).prop_map(|(interval_ns, burst)| Terms { interval_ns, burst })
}

proptest! {
    #[test]
    fn in_no_span_are_more_granted_than_it_allows(
        terms in terms(),
        steps in proptest::collection::vec((-20_000_i64..60_000, any::<bool>()), 1..300),
    ) {
        let (mut meter, mut now, mut granted) = (Meter::full(terms), 1_000_000_u64, Vec::new());
        for (step, back) in steps {
            // Exchanges begin on several workers, so their times come out of order.
            now = now.saturating_add_signed(step);
            if meter.take(terms, now).granted {
                match back {
                    true => meter.give_back(),
                    false => granted.push(now),
                }
            }
        }
        granted.sort_unstable();
        for (first, from) in granted.iter().enumerate() {
            for (count, to) in granted[first..].iter().enumerate() {
                let most = (to - from) / terms.interval_ns + u64::from(terms.burst);
                prop_assert!((count as u64) < most, "{} from {from} to {to}, at most {most}", count + 1);
            }
        }
    }

    #[test]
    fn waiting_as_long_as_was_said_is_enough_and_no_less_is(
        terms in terms(),
        steps in proptest::collection::vec(0_u64..60_000, 1..200),
    ) {
        let (mut meter, mut now) = (Meter::full(terms), 0);
        for step in steps {
            now += step;
            let before = meter;
            let taken = meter.take(terms, now);
            if !taken.granted {
                let mut sooner = before;
                prop_assert!(!sooner.take(terms, now + taken.wait_ns - 1).granted);
                prop_assert!(meter.take(terms, now + taken.wait_ns).granted);
                now += taken.wait_ns;
            }
        }
    }

    #[test]
    fn no_numbers_are_too_much(full in any::<u64>(), now in any::<u64>(), interval_ns in 1_u64.., burst in 1_u32..,
                               other in 1_u64.., left in any::<f64>()) {
        let terms = Terms { interval_ns, burst };
        let mut meter = Meter { full_ns: full, terms };
        meter.take(terms, now);
        meter.take(Terms { interval_ns: other, burst }, now);
        meter.give_back();
        Meter::holding(left, terms, now).take(terms, now);
    }
}
