//! The endpoints of a service that can be picked, as one walk over all of them found them. Good until the health of one
//! of them changes: then whoever wants to pick walks once more.

use super::line::Line;
use super::spill;
use super::zones::Zones;
use crate::service::Endpoint;
use crate::service::endpoint::{Group, Live, ramp};
use std::sync::{Arc, OnceLock};

/// What a walk has found.
#[derive(Debug, Default)]
pub struct Ready {
    /// Changes of health that were counted before the walk.
    pub(crate) seen: u64,
    /// How many are usable, with weight or without.
    pub usable: usize,
    /// How many of them have weight, in whatever tier.
    pub candidates: usize,
    /// How many are put aside for their answers.
    pub ejected: usize,
    /// Those that may be picked: usable ones with weight, of the lowest tier that has any. In a panic, all with weight.
    pub line: Line,
    /// Those of higher tiers, and the part of the traffic that the tiers below leave to each.
    pub others: Vec<Level>,
    zones: OnceLock<Option<Zones>>,
    /// So few are usable that all with weight of the line's tier are on the line.
    pub panic: bool,
    /// Places of those that our own checks, their connects or their answers put aside.
    pub unhealthy: Vec<u32>,
    ramps: Ramps,
    /// The shares of tiers hold until then, ms: while somebody starts slowly, they change. None: they don't.
    pub(super) shares_until_ms: Option<u64>,
}

/// One tier.
#[derive(Debug, Default)]
pub struct Level {
    /// Its usable endpoints with weight.
    pub line: Line,
    /// From 0 to 1.
    pub share: f64,
    /// The weight of all its endpoints.
    weight: u64,
}

/// Who on the line has its whole share when.
#[derive(Debug, Default)]
struct Ramps {
    window_ms: u64,
    /// Since when the one is healthy that is so for longest, ms.
    eldest_ms: u64,
    /// When the last one has its whole share, ms.
    until_ms: u64,
}

impl Ready {
    /// Walks over all of them. `now_ms`: tiers have shares by what those who start slowly can take then; none: as if nobody did,
    /// which holds for nobody who picks.
    pub(super) fn walk(endpoints: &[Arc<Endpoint>], group: &Group, now_ms: Option<u64>) -> Self {
        // Counted before the walk: what changes during it is another change.
        let mut ready = Ready { seen: group.changes(), ..Ready::default() };
        let tiers = tiers(endpoints);
        let mut levels: Vec<Level> = tiers.iter().map(|_| Level::default()).collect();
        let mut with_weight = 0;
        for (place, endpoint) in (0..).zip(endpoints) {
            with_weight += usize::from(endpoint.weight > 0);
            let level = levels.get_mut(tiers.partition_point(|tier| *tier < endpoint.tier).min(tiers.len() - 1));
            let Some(level) = level else { continue };
            level.weight += u64::from(endpoint.weight);
            if !endpoint.healthy() {
                ready.unhealthy.push(place);
                ready.ejected += usize::from(endpoint.live.is_ejected());
            } else if endpoint.source_healthy {
                ready.usable += 1;
                if endpoint.weight == 0 {
                    continue;
                }
                ready.candidates += 1;
                level.line.push(place, endpoint);
            }
        }
        let (capacities, until_ms) = capacities(&levels, endpoints, group.slow_start_ms(), now_ms);
        let health: Vec<_> = levels.iter().zip(capacities).map(|(level, can)| (can, level.weight * 1000)).collect();
        levels.iter_mut().zip(spill::shares(&health)).for_each(|(level, share)| level.share = share);
        levels.retain(|level| !level.line.places.is_empty());
        let mut levels = levels.into_iter();
        ready.line = levels.next().map(|level| level.line).unwrap_or_default();
        ready.others = levels.collect();
        if !ready.others.is_empty() {
            ready.shares_until_ms = until_ms;
        }
        let percent = group.panic_percent();
        if is_below(percent, ready.candidates, with_weight) {
            ready.panic(endpoints, percent);
        }
        ready.line.index_bits(endpoints.len());
        ready.others.iter_mut().for_each(|level| level.line.index_bits(endpoints.len()));
        let others = ready.others.iter().map(|level| &level.line);
        ready.ramps = Ramps::of(&ready.line, others, endpoints, group.slow_start_ms());
        ready
    }

    /// Of all with weight, fewer than `percent` of a hundred are usable. Where that is so in the tier that has the traffic,
    /// too, all of that tier get it.
    fn panic(&mut self, endpoints: &[Arc<Endpoint>], percent: u32) {
        let with_weight = || (0..).zip(endpoints).filter(|(_, endpoint)| endpoint.weight > 0);
        let on_line = self.line.places.first().and_then(|place| endpoints.get(*place as usize));
        let tier = on_line.map(|endpoint| endpoint.tier);
        let Some(tier) = tier.or_else(|| with_weight().map(|(_, endpoint)| endpoint.tier).min()) else { return };
        let all = || with_weight().filter(|(_, endpoint)| endpoint.tier == tier);
        if is_below(percent, self.line.places.len(), all().count()) {
            self.panic = true;
            self.others.clear();
            self.shares_until_ms = None;
            self.line.clear();
            all().for_each(|(place, endpoint)| self.line.push(place, endpoint));
        }
    }

    /// The line by zone; none: zones make no difference. Split when it is first asked for.
    pub fn zones(&self, endpoints: &[Arc<Endpoint>]) -> Option<&Zones> {
        self.zones.get_or_init(|| Zones::split(&self.line, endpoints)).as_ref()
    }

    /// Somebody on the line may have less than its whole share now.
    pub fn ramps(&self, now_ms: u64) -> bool {
        now_ms < self.ramps.until_ms
    }

    /// The share of its weight that one on the line takes now, in thousandths. One that starts slowly is compared with the
    /// one that is healthy for longest, so that nobody does where all are new.
    pub fn ramp_permille(&self, live: &Live, now_ms: u64) -> u32 {
        if !self.ramps(now_ms) {
            return 1000;
        }
        let largest = ramp::permille(self.ramps.eldest_ms, self.ramps.window_ms, now_ms);
        (live.ramp_permille(now_ms) * 1000 / largest).min(1000)
    }
}

/// Shares of tiers are worked out anew after this part of the time in which somebody starts slowly.
const STEPS: u64 = 100;

/// The weight that can be picked of each, in thousandths: of those who start slowly the part that they take at `now_ms`,
/// compared with the one of all tiers that is healthy for longest. A tier that comes back would else have everything at
/// once (envoy#25283). And until when that holds, ms.
fn capacities(
    levels: &[Level],
    endpoints: &[Arc<Endpoint>],
    window_ms: u64,
    now_ms: Option<u64>,
) -> (Vec<u64>, Option<u64>) {
    let all = || levels.iter().map(|level| level.line.length() * 1000).collect();
    if window_ms == 0 {
        return (all(), None);
    }
    let Some(now_ms) = now_ms else { return (all(), Some(0)) };
    let on_line = |level: &Level| {
        let lives = level.line.places.iter().filter_map(|place| endpoints.get(*place as usize));
        lives.map(|endpoint| (endpoint.weight, endpoint.live.healthy_since_ms())).collect::<Vec<_>>()
    };
    let lines: Vec<_> = levels.iter().map(on_line).collect();
    let since = || lines.iter().flatten().map(|(_, since_ms)| *since_ms);
    let permille = |since_ms| u64::from(ramp::permille(since_ms, window_ms, now_ms));
    let largest = permille(since().min().unwrap_or(0));
    let can = |(weight, since_ms): &(u32, u64)| u64::from(*weight) * (permille(*since_ms) * 1000 / largest).min(1000);
    let all_of_it_ms = since().max().map_or(0, |youngest_ms| youngest_ms.saturating_add(window_ms));
    let until_ms = (now_ms < all_of_it_ms).then(|| now_ms.saturating_add((window_ms / STEPS).max(1)));
    (lines.iter().map(|line| line.iter().map(can).sum()).collect(), until_ms)
}

/// More tiers are taken as one with the last of these.
const TIERS: usize = 8;

/// Those that there are, in order.
fn tiers(endpoints: &[Arc<Endpoint>]) -> Vec<u32> {
    let first = endpoints.first().map_or(0, |endpoint| endpoint.tier);
    if endpoints.iter().all(|endpoint| endpoint.tier == first) {
        return vec![first];
    }
    let mut tiers: Vec<u32> = endpoints.iter().map(|endpoint| endpoint.tier).collect();
    tiers.sort_unstable();
    tiers.dedup();
    tiers.truncate(TIERS);
    tiers
}

/// Are `some` of `all` less than `percent` of a hundred?
fn is_below(percent: u32, some: usize, all: usize) -> bool {
    (some as u64) * 100 < u64::from(percent) * all as u64
}

impl Ramps {
    fn of<'a>(
        line: &Line,
        others: impl Iterator<Item = &'a Line>,
        endpoints: &[Arc<Endpoint>],
        window_ms: u64,
    ) -> Self {
        if window_ms == 0 {
            return Ramps::default();
        }
        let since_ms = |place: &u32| Some(endpoints.get(*place as usize)?.live.healthy_since_ms());
        let (mut eldest_ms, mut youngest_ms) = (u64::MAX, 0);
        for since_ms in line.places.iter().filter_map(since_ms) {
            (eldest_ms, youngest_ms) = (since_ms.min(eldest_ms), since_ms.max(youngest_ms));
        }
        let others = others.flat_map(|line| &line.places).filter_map(since_ms);
        let youngest_ms = others.fold(youngest_ms, u64::max);
        Ramps { window_ms, eldest_ms, until_ms: youngest_ms.saturating_add(window_ms) }
    }
}

#[cfg(test)]
mod tests;
