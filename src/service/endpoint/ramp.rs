//! Slow start: the share of its weight that an endpoint has which became healthy a while ago. After Envoy's (`slow_start.rst`)
//! with an aggression of 1: `max(0.1, t / window)`.

/// It begins with this much of its weight, in thousandths: with 1 %, newcomers among many had no traffic to get warm by
/// (envoy#29259).
const FLOOR: u64 = 100;

/// In thousandths, at `now_ms`, of one that is healthy since `since_ms`. A `window_ms` of 0: all of it at once.
pub(in crate::service) fn permille(since_ms: u64, window_ms: u64, now_ms: u64) -> u32 {
    let age = now_ms.saturating_sub(since_ms);
    if age >= window_ms {
        return 1000;
    }
    // Below the window, which is more than 0.
    u32::try_from((age.saturating_mul(1000) / window_ms).max(FLOOR)).unwrap_or(1000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_share_grows_evenly_from_a_tenth() {
        let share = |now_ms| permille(5_000, 30_000, now_ms);
        let shares = [0, 5_000, 7_999, 8_000, 20_000, 34_970, 35_000, 99_000].map(share);
        assert_eq!(shares, [100, 100, 100, 100, 500, 999, 1000, 1000]);
        assert_eq!(permille(5_000, 0, 0), 1000);
    }

    proptest! {
        #[test]
        fn it_never_falls_and_ends_with_the_window(
            since in any::<u64>(), window in any::<u64>(), one in any::<u64>(), two in any::<u64>(),
        ) {
            let (before, after) = (permille(since, window, one.min(two)), permille(since, window, one.max(two)));
            prop_assert!((100..=1000).contains(&before) && before <= after);
            let end = since.checked_add(window);
            prop_assert_eq!(permille(since, window, end.unwrap_or(u64::MAX)) == 1000, end.is_some());
        }
    }
}
