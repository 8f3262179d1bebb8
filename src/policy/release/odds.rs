//! Does one kind of event come more often with the canary than with the live version? An e-process (Ramdas, Grünwald, Vovk,
//! Shafer: "Game-theoretic statistics and safe anytime-valid inference", 2023): given how many events a tick had in all,
//! each is the canary's with a chance that equal versions have whatever the share of events is just then, so an outage
//! that hits both, and day and night, cancel. It may be looked at after each tick: for equal versions, it ever reaches 1/α
//! with a chance of α at most (Ville's inequality).
//!
//! What does not cancel is that clients are not alike, and fail in bundles. Against that: a client counts once a tick,
//! clients that always failed are left out, the odds are divided by how unlike the cells are, and must hold without the
//! canary's worst cell. Calm ticks and bursts are weighed apart, since an outage brings a thousand events that say nothing
//! and would drown ten that do.

use super::cells::{CELLS, Cell};
use std::time::Duration;

/// Rises that are looked for, in shares of the requests.
const RISES: [f64; 6] = [0.003, 0.01, 0.03, 0.1, 0.3, 0.9];
/// After this time, what a calm tick told of the usual share counts half.
const HALF_LIFE: Duration = Duration::from_secs(60);
/// Cells with fewer events are not left out...
const ALWAYS: u32 = 3;
/// ...and none that has not so many times the mean share of events.
const TIMES_THE_MEAN: f64 = 10.0;
/// Numbers of a cell's requests in a tick for which things are worked out once.
const TABLED: usize = 64;

/// One number for each rise that is looked for.
type ByRise = [f64; RISES.len()];

/// The live version's side of what is counted.
const LIVE: usize = 0;
/// The canary's.
const CANARY: usize = 1;

/// Ticks of one sort, which are weighed apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stratum {
    /// No more events than usual.
    Calm,
    /// More.
    Burst,
}

impl Stratum {
    pub(super) const ALL: [Stratum; 2] = [Stratum::Calm, Stratum::Burst];
}

/// A share that follows what comes.
#[derive(Debug, Clone, Default)]
struct Share {
    events: f64,
    requests: f64,
}

impl Share {
    fn get(&self) -> f64 {
        // Never none at all: what has not come yet may come.
        ((self.events + 0.5) / (self.requests + 1.0)).clamp(1e-9, 0.999)
    }

    fn take(&mut self, events: u64, requests: u64, passed: Duration) {
        let left = (-passed.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2();
        self.events = self.events * left + events as f64;
        self.requests = self.requests * left + requests as f64;
    }
}

/// One kind of event, of both sides, within one step of a canary.
#[derive(Debug)]
pub(super) struct Odds {
    events: fn(&Cell) -> u32,
    /// Of both sides, in this step.
    usual: Share,
    /// Of the live version, over all steps.
    live: Share,
    strata: [Weighing; 2],
    /// Cells whose clients always failed, with the live version.
    left_out: Box<[bool]>,
}

/// What ticks of one sort have brought.
#[derive(Debug)]
struct Weighing {
    /// The logarithm of the odds, for each rise.
    log: ByRise,
    /// How much of that is owed to each of the canary's cells.
    owed: Box<[ByRise]>,
    /// Ticks of each cell that had an event, and as many as equal versions would have.
    hits: [Box<[f64]>; 2],
    expected: [Box<[f64]>; 2],
    /// Requests and events, as they came.
    requests: [u64; 2],
    raw: [u64; 2],
}

/// How things stand in one stratum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Weight {
    /// The odds against the canary.
    pub(super) odds: f64,
    /// The same without the canary's cell that has most events.
    pub(super) without_worst: f64,
    /// How unlike the cells are; 1: as chance has it.
    pub(super) unlike: f64,
}

/// A cell that had requests in this tick, and whether one of them brought an event.
struct Busy {
    place: usize,
    requests: usize,
    hit: bool,
}

/// What one tick brought of one kind of event.
#[derive(Default)]
struct Side {
    busy: Vec<Busy>,
    /// How many cells had so many requests, for those that the table has.
    alike: Vec<u32>,
    hits: f64,
    requests: u64,
    raw: u64,
}

impl Side {
    fn of(cells: &[(usize, Cell)], left_out: &[bool], events: fn(&Cell) -> u32) -> Self {
        let mut side = Side { alike: vec![0; TABLED], ..Side::default() };
        for (place, cell) in cells {
            let place = *place;
            if left_out.get(place).is_some_and(|left_out| *left_out) {
                continue;
            }
            let (requests, events) = (cell.requests as usize, events(cell));
            side.requests += u64::from(cell.requests);
            if events > 0 {
                side.raw += u64::from(events);
                side.hits += 1.0;
            }
            if let Some(alike) = side.alike.get_mut(requests) {
                *alike += 1;
            }
            side.busy.push(Busy { place, requests, hit: events > 0 });
        }
        side
    }

    /// The chances of all of its cells, at the usual share and with each rise.
    fn chances(&self, chances: &Chances) -> (f64, ByRise) {
        let mut sum = (0.0, ByRise::default());
        let mut add = |(usual, risen): (f64, ByRise), times: f64| {
            sum.0 += usual * times;
            sum.1.iter_mut().zip(risen).for_each(|(sum, risen)| *sum += risen * times);
        };
        for (requests, alike) in self.alike.iter().enumerate().filter(|(_, alike)| **alike > 0) {
            add(chances.get(requests), f64::from(*alike));
        }
        for busy in self.busy.iter().filter(|busy| busy.requests >= TABLED) {
            add(chances.get(busy.requests), 1.0);
        }
        sum
    }
}

/// Chances that so many requests bring an event, at the usual share and with each rise.
struct Chances {
    share: f64,
    /// That none comes: at the usual share, and with each rise.
    table: Vec<(f64, ByRise)>,
}

impl Chances {
    fn of(share: f64) -> Self {
        let one = ((-share).exp(), RISES.map(|rise| (-(share + rise)).exp()));
        let mut none = (1.0, [1.0; RISES.len()]);
        let mut table = Vec::with_capacity(TABLED);
        for _ in 0..TABLED {
            let (usual, risen) = none;
            table.push((1.0 - usual, risen.map(|none| 1.0 - none)));
            none.0 *= one.0;
            none.1.iter_mut().zip(one.1).for_each(|(none, one)| *none *= one);
        }
        Chances { share, table }
    }

    fn usual(&self, requests: usize) -> f64 {
        self.table.get(requests).map_or_else(|| -(-self.share * requests as f64).exp_m1(), |chances| chances.0)
    }

    fn get(&self, requests: usize) -> (f64, ByRise) {
        self.table.get(requests).copied().unwrap_or_else(|| {
            let n = requests as f64;
            (-(-self.share * n).exp_m1(), RISES.map(|rise| -(-(self.share + rise) * n).exp_m1()))
        })
    }
}

/// What a tick's hits add to the logarithm of the odds: `canary` of `all` of them are the canary's, whose chances add up to
/// `usual` and, with the rise, to `risen`; those of the live version to `live`.
fn gain(canary: f64, all: f64, usual: f64, risen: f64, live: f64) -> f64 {
    if usual <= 0.0 || risen <= 0.0 || all <= 0.0 {
        return 0.0;
    }
    let mine = if canary > 0.0 { canary * (risen / usual).ln() } else { 0.0 };
    mine - all * ((live + risen) / (live + usual)).ln()
}

impl Weighing {
    fn new() -> Self {
        let zeros = || vec![0.0; CELLS].into_boxed_slice();
        Weighing {
            log: ByRise::default(),
            owed: vec![ByRise::default(); CELLS].into_boxed_slice(),
            hits: [zeros(), zeros()],
            expected: [zeros(), zeros()],
            requests: [0; 2],
            raw: [0; 2],
        }
    }

    fn take(&mut self, sides: &[Side; 2], share: f64) {
        let [live, canary] = sides;
        let hits = [live.hits, canary.hits];
        let all: f64 = hits.iter().sum();
        if all == 0.0 {
            return;
        }
        let chances = Chances::of(share);
        let ((live_usual, _), (own_usual, risen)) = (live.chances(&chances), canary.chances(&chances));
        let usual = [live_usual, own_usual];
        let each = all / usual.iter().sum::<f64>();
        for ((side, seen), expected) in sides.iter().zip(&mut self.hits).zip(&mut self.expected) {
            for busy in &side.busy {
                if let Some(expected) = expected.get_mut(busy.place) {
                    *expected += each * chances.usual(busy.requests);
                }
                if busy.hit
                    && let Some(seen) = seen.get_mut(busy.place)
                {
                    *seen += 1.0;
                }
            }
        }
        let gains = risen.map(|risen| gain(hits[CANARY], all, usual[CANARY], risen, usual[LIVE]));
        self.log.iter_mut().zip(gains).for_each(|(log, gain)| *log += gain);
        // What each cell adds depends on how many requests it had, and on whether one of them was hit.
        let mut known = [[None::<ByRise>; 2]; TABLED];
        for busy in &canary.busy {
            let hit = usize::from(busy.hit);
            let owed = || {
                let (own, own_risen) = chances.get(busy.requests);
                let rest = (hits[CANARY] - hit as f64, all - hit as f64, usual[CANARY] - own);
                let mut owed = gains;
                for ((owed, risen), own_risen) in owed.iter_mut().zip(risen).zip(own_risen) {
                    *owed -= gain(rest.0, rest.1, rest.2, risen - own_risen, usual[LIVE]);
                }
                owed
            };
            let owed = match known.get_mut(busy.requests).and_then(|known| known.get_mut(hit)) {
                Some(known) => *known.get_or_insert_with(owed),
                None => owed(),
            };
            if let Some(to) = self.owed.get_mut(busy.place) {
                to.iter_mut().zip(owed).for_each(|(to, owed)| *to += owed);
            }
        }
    }

    /// How unlike the cells are: what their hits vary by, more than chance does; of both sides, the more.
    fn unlike(&self) -> f64 {
        let sides = self.hits.iter().zip(&self.expected);
        sides.map(|(hits, expected)| unlike(hits, expected)).fold(1.0, f64::max)
    }

    fn weight(&self) -> Weight {
        let unlike = self.unlike();
        let worst =
            self.hits[CANARY].iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(place, _)| place);
        let owed = self.owed.get(worst).copied().unwrap_or_default();
        let mut without = self.log;
        without.iter_mut().zip(owed).for_each(|(log, owed)| *log -= owed);
        let odds = |log: ByRise| log.iter().map(|log| (log / unlike).exp()).sum::<f64>() / log.len() as f64;
        Weight { odds: odds(self.log), without_worst: odds(without), unlike }
    }
}

fn unlike(hits: &[f64], expected: &[f64]) -> f64 {
    let (seen, meant): (f64, f64) = (hits.iter().sum(), expected.iter().sum());
    let cells = expected.iter().filter(|expected| **expected > 0.0).count() as f64;
    if cells < 2.0 || seen <= 0.0 || meant <= 0.0 {
        return 1.0;
    }
    let scale = seen / meant;
    let squares = hits.iter().zip(expected).filter(|(_, expected)| **expected > 0.0);
    let squares: f64 = squares.map(|(hits, expected)| (hits - expected * scale).powi(2) / (expected * scale)).sum();
    squares / (cells - 1.0) - ((2.0 + cells / seen) / (cells - 1.0)).sqrt()
}

impl Odds {
    /// Of events that `events` finds in a cell.
    pub(super) fn of(events: fn(&Cell) -> u32) -> Self {
        Odds {
            events,
            usual: Share::default(),
            live: Share::default(),
            strata: [Weighing::new(), Weighing::new()],
            left_out: vec![false; CELLS].into_boxed_slice(),
        }
    }

    /// A step begins: all is weighed anew. `before` is what the live version's cells had lately; those below `moved` are the
    /// canary's already, and stay left out or not.
    pub(super) fn begin(&mut self, before: &[Cell], moved: usize) {
        self.usual = self.live.clone();
        self.strata = [Weighing::new(), Weighing::new()];
        let (mut requests, mut events) = (0_u64, 0_u64);
        for cell in before {
            requests += u64::from(cell.requests);
            events += u64::from((self.events)(cell));
        }
        let mean = if requests > 0 { events as f64 / requests as f64 } else { 0.0 };
        for (left_out, cell) in self.left_out.iter_mut().zip(before).skip(moved) {
            let events = (self.events)(cell);
            let share = f64::from(events) / f64::from(cell.requests.max(1));
            *left_out = events >= ALWAYS && share > TIMES_THE_MEAN * mean;
        }
    }

    /// Takes in a tick, of the cells that had requests. Gives its sort.
    pub(super) fn take(&mut self, cells: &[Vec<(usize, Cell)>; 2], passed: Duration) -> Stratum {
        let sides = cells.each_ref().map(|cells| Side::of(cells, &self.left_out, self.events));
        let (requests, raw) = (sides.each_ref().map(|side| side.requests), sides.each_ref().map(|side| side.raw));
        let (all, events) = (requests.iter().sum::<u64>(), raw.iter().sum::<u64>());
        let usual = self.usual.get();
        let meant = all as f64 * usual;
        let calm = events as f64 <= meant + 3.0 * meant.sqrt() + 3.0;
        let (stratum, share) = match calm {
            true => (Stratum::Calm, usual),
            false => (Stratum::Burst, usual.max(events as f64 / all.max(1) as f64)),
        };
        // As long as nothing is usual, nothing can be weighed.
        if self.usual.requests > 0.0
            && let Some(weighing) = self.strata.get_mut(stratum as usize)
        {
            weighing.take(&sides, share);
            weighing.requests.iter_mut().zip(requests).for_each(|(to, from)| *to += from);
            weighing.raw.iter_mut().zip(raw).for_each(|(to, from)| *to += from);
        }
        if calm {
            self.usual.take(events, all, passed);
            self.live.take(raw[LIVE], requests[LIVE], passed);
        }
        stratum
    }

    /// No weighing gives more than this.
    pub(super) fn most(&self, stratum: Stratum) -> f64 {
        let log = self.weighing(stratum).log;
        log.iter().map(|log| log.max(0.0).exp()).sum::<f64>() / log.len() as f64
    }

    pub(super) fn weight(&self, stratum: Stratum) -> Weight {
        self.weighing(stratum).weight()
    }

    /// The canary's ticks and cells that had an event.
    pub(super) fn hits(&self, stratum: Stratum) -> f64 {
        self.weighing(stratum).hits[CANARY].iter().sum()
    }

    /// Requests and events of the live version and of the canary.
    pub(super) fn counts(&self, stratum: Stratum) -> ([u64; 2], [u64; 2]) {
        let weighing = self.weighing(stratum);
        (weighing.requests, weighing.raw)
    }

    fn weighing(&self, stratum: Stratum) -> &Weighing {
        let [calm, burst] = &self.strata;
        match stratum {
            Stratum::Calm => calm,
            Stratum::Burst => burst,
        }
    }
}
