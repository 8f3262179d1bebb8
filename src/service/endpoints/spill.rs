//! How much of the traffic each priority has: what its health lets it carry, the first ones first. After Envoy's
//! (`priority.rst`), with weights instead of counts.

/// With 71 % of it healthy, a priority still carries all: it is not built to be full.
const SPARE: f64 = 1.4;

/// Of the weight that can be picked and all weight of each priority, the most wanted one first: its share. They add up to 1,
/// but where nobody can be picked.
pub(super) fn shares(levels: &[(u64, u64)]) -> Vec<f64> {
    let health =
        |(usable, all): &(u64, u64)| if *all == 0 { 0.0 } else { (SPARE * *usable as f64 / *all as f64).min(1.0) };
    let total = levels.iter().map(health).sum::<f64>().min(1.0);
    let mut left = 1.0;
    let share = |level: &(u64, u64)| {
        // Where all together can't carry it, each has its part.
        let share = if total > 0.0 { (health(level) / total).min(left) } else { 0.0 };
        left -= share;
        share
    };
    levels.iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_tables_of_envoys_documentation() {
        let shares = |healthy: &[u64]| {
            let shares = shares(&healthy.iter().map(|healthy| (*healthy, 100)).collect::<Vec<_>>());
            shares.iter().map(|share| (100.0 * share).round() as u32).collect::<Vec<_>>()
        };
        for (healthy, expected) in
            [(100, [100, 0]), (72, [100, 0]), (71, [99, 1]), (50, [70, 30]), (25, [35, 65]), (0, [0, 100])]
        {
            assert_eq!(shares(&[healthy, 100]), expected, "{healthy} %");
        }
        assert_eq!(shares(&[25, 25, 100]), [35, 35, 30]);
        assert_eq!(shares(&[25, 25, 20]), [36, 36, 29], "35, 35 and 28 of 98");
        assert_eq!(shares(&[0, 0]), [0, 0]);
    }

    proptest! {
        #[test]
        fn all_is_carried_and_nobody_carries_too_much(levels in prop::collection::vec((0u64..9, 0u64..9), 1..9)) {
            let levels: Vec<_> = levels.iter().map(|(one, two)| (*one, one + two)).collect();
            let shares = shares(&levels);
            let health: Vec<f64> =
                levels.iter().map(|(some, all)| if *all == 0 { 0.0 } else { 1.4 * *some as f64 / *all as f64 }).collect();
            let sum: f64 = shares.iter().sum();
            if health.iter().any(|health| *health > 0.0) {
                prop_assert!((sum - 1.0).abs() < 1e-9);
            }
            for (share, health) in shares.iter().zip(&health) {
                prop_assert!(*share >= 0.0 && (*health > 0.0 || *share == 0.0));
                prop_assert!(health_is_short(&health_of(&levels)) || *share <= health + 1e-9);
            }
        }
    }

    fn health_of(levels: &[(u64, u64)]) -> f64 {
        levels.iter().map(|(some, all)| if *all == 0 { 0.0 } else { (1.4 * *some as f64 / *all as f64).min(1.0) }).sum()
    }

    fn health_is_short(sum: &f64) -> bool {
        *sum < 1.0
    }
}
