//! The lines that a request may go by, the one that is drawn for it first: a priority by its share, and of the first
//! priority a zone by its share. The others are for when nobody is left on that one.

use super::Wanted;
use crate::base::chance::Chance;
use crate::service::endpoints::{Line, Ready};
use crate::service::plan::Strategy;
use smallvec::{SmallVec, smallvec};
use xxhash_rust::xxh64::xxh64;

/// Each with a number for it among those of its service, 0 for the first priority's.
pub(super) type Lanes<'a> = SmallVec<[(u64, &'a Line); 2]>;

/// Numbers of zones begin here.
const ZONES: u64 = 1 << 32;

/// `narrows`: a policy or a route says which endpoints it wants, and zones are its own business.
pub(super) fn lanes<'a>(
    ready: &'a Ready,
    wanted: &Wanted<'_>,
    strategy: Strategy,
    narrows: bool,
    chance: &mut Chance,
) -> Lanes<'a> {
    let zones =
        (wanted.service.settings.zone_aware && !narrows).then(|| ready.zones(&wanted.service.endpoints)).flatten();
    if zones.is_none() && ready.others.is_empty() {
        return smallvec![(0, &ready.line)];
    }
    // A key's priority and zone stay the same while the shares do.
    let mut draw = |what: u64| match strategy.hashes() {
        true => unit(xxh64(wanted.key.as_bytes(), what)),
        false => unit(chance.next_u64()),
    };
    let mut lanes = Lanes::new();
    let mut drawn = draw(1);
    let spilled = (1..).zip(&ready.others).find(|(_, level)| {
        drawn -= level.share;
        drawn < 0.0
    });
    match (spilled, zones) {
        (Some((number, level)), _) => lanes.push((number, &level.line)),
        (None, Some(zones)) => {
            let (number, line) = zones.drawn(draw(2));
            lanes.push((ZONES + number, line));
        }
        (None, None) => {}
    }
    let levels = std::iter::once((0, &ready.line)).chain((1..).zip(ready.others.iter().map(|level| &level.line)));
    let first = lanes.first().map(|(number, _)| *number);
    lanes.extend(levels.filter(|(number, _)| Some(*number) != first));
    lanes
}

/// From 0 to 1.
fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}
