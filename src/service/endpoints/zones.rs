//! Traffic that stays in the gateway's own zone, as far as that can take it. Gateways are taken to be spread evenly over the
//! zones that have endpoints: then a zone with its share of the capacity keeps all traffic of its gateways, and one with less
//! sends the rest to zones that have more than their share (after Envoy's zone aware routing, which is told where gateways
//! are). That holds for even traffic: a zone with more clients than others loads its endpoints more.

use super::line::Line;
use crate::service::Endpoint;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A line, by zone.
#[derive(Debug)]
pub struct Zones {
    own: Line,
    /// The part of the traffic that stays there.
    stay: f64,
    /// Each other zone that takes some, with the part of the traffic up to which it is taken: the last one up to 1.
    others: Vec<(f64, Line)>,
}

/// With fewer endpoints than these, or fewer of them in the own zone, zones don't count.
const FEWEST: (usize, usize) = (6, 2);

impl Zones {
    /// None: zones make no difference here.
    pub(super) fn split(line: &Line, endpoints: &[Arc<Endpoint>]) -> Option<Zones> {
        let on_line = || line.places.iter().filter_map(|place| Some((*place, &**endpoints.get(*place as usize)?)));
        let (mut own, mut others) = (Line::default(), BTreeMap::<&str, Line>::new());
        for (place, endpoint) in on_line() {
            match endpoint.zone.as_deref().filter(|_| !endpoint.local) {
                None => own.push(place, endpoint),
                Some(zone) => others.entry(zone).or_default().push(place, endpoint),
            }
        }
        if others.is_empty() || line.places.len() < FEWEST.0 || own.places.len() < FEWEST.1 {
            return None;
        }
        let (total, zones) = (line.length() as f64, 1.0 + others.len() as f64);
        let stay = (zones * own.length() as f64 / total).min(1.0);
        let spare = |line: &Line| (line.length() as f64 / total - 1.0 / zones).max(0.0);
        let all_spare: f64 = others.values().map(spare).sum();
        let mut taken = stay;
        let take = |mut line: Line| {
            let part = if all_spare > 0.0 { spare(&line) / all_spare } else { 0.0 };
            taken += (1.0 - stay) * part;
            line.index_bits(endpoints.len());
            (taken, line)
        };
        let others = others.into_values().map(take).collect();
        own.index_bits(endpoints.len());
        Some(Zones { own, stay, others })
    }

    /// Whose turn it is, and its number; `drawn` is from 0 to 1.
    pub(crate) fn drawn(&self, drawn: f64) -> (u64, &Line) {
        if drawn < self.stay {
            return (0, &self.own);
        }
        let mut others = (1..).zip(&self.others);
        others.find(|(_, (upto, _))| drawn < *upto).map_or((0, &self.own), |(number, (_, line))| (number, line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Endpoints of zones with so many of each weight 1, as a gateway in zone `own` sees them.
    fn seen(counts: &[usize], own: usize) -> (Line, Vec<Arc<Endpoint>>) {
        let zones = counts.iter().enumerate().flat_map(|(zone, count)| std::iter::repeat_n(zone, *count));
        let endpoint = |(id, zone): (u32, usize)| {
            let address = ([10, 2, zone as u8, id as u8], 80).into();
            let zone_name = Some(format!("z{zone}").into());
            Arc::new(Endpoint { zone: zone_name, local: zone == own, ..Endpoint::of("users", id, address) })
        };
        let endpoints: Vec<_> = (0..).zip(zones).map(endpoint).collect();
        let mut line = Line::default();
        (0..).zip(&endpoints).for_each(|(place, endpoint)| line.push(place, endpoint));
        (line, endpoints)
    }

    proptest! {
        #[test]
        fn even_traffic_loads_all_alike(counts in prop::collection::vec(2usize..12, 2..6)) {
            let all: usize = counts.iter().sum();
            prop_assume!(all >= 6);
            let mut load = vec![0.0; all];
            for own in 0..counts.len() {
                let (line, endpoints) = seen(&counts, own);
                let zones = Zones::split(&line, &endpoints).unwrap();
                for step in 0..2_000 {
                    let (_, drawn) = zones.drawn((f64::from(step) + 0.5) / 2_000.0);
                    for place in &drawn.places {
                        load[*place as usize] += 1.0 / (2_000.0 * drawn.places.len() as f64);
                    }
                }
            }
            let even = counts.len() as f64 / all as f64;
            prop_assert!(load.iter().all(|load| *load <= 1.05 * even), "{load:?}, even is {even}");
        }
    }

    #[test]
    fn where_zones_are_even_nothing_leaves() {
        let (line, endpoints) = seen(&[4, 4, 4], 1);
        let zones = Zones::split(&line, &endpoints).unwrap();
        assert!([0.0, 0.5, 0.999].iter().all(|drawn| zones.drawn(*drawn).1.places == [4, 5, 6, 7]));
        let (line, endpoints) = seen(&[8, 8, 2], 2);
        let zones = Zones::split(&line, &endpoints).unwrap();
        assert!((zones.stay - 1.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn few_endpoints_have_no_zones() {
        for counts in [&[3, 2][..], &[1, 9], &[9]] {
            let (line, endpoints) = seen(counts, 0);
            assert!(Zones::split(&line, &endpoints).is_none(), "{counts:?}");
        }
    }
}
