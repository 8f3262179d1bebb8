//! Does a canary do harm? Answers of 500 and more, and slow ones, of its clients beside those of the live version's at the
//! same time; what the machine had not to give, too. A pure core: it is told what was counted, and how much time that was.

use super::cells::Counted;
use super::odds::{Odds, Stratum};
use super::recent::Recent;
use super::times::Times;
use std::time::Duration;

/// The chance that equal versions are told apart: for each step, of 5xx and of slow answers each.
const ALPHA: f64 = 0.0008;
/// The same of calls for which the machine had too little.
const ALPHA_STARVED: f64 = 0.0001;
/// Calm ticks and bursts share that chance so.
const SHARES: [f64; 2] = [0.8, 0.2];
/// Fewer events than these convict nobody.
const LEAST_BAD: f64 = 5.0;
const LEAST_SLOW: f64 = 20.0;
const LEAST_STARVED: f64 = 3.0;
/// What is slow is said by so many answers at least, of the last minute.
const SAMPLES: u64 = 200;
/// Of the rise of the 99th percentile that is allowed, this part is never held against a canary: a rise of all of it shall be
/// found, and none can be found for sure that has to be all of it.
const SURE: f64 = 0.5;

/// What a canary may do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// How much larger its share of answers of 500 and more may be, 0 to 1.
    pub max_5xx_rise: f64,
    /// How much longer its 99th percentile may be, as a share of the live version's.
    pub max_p99_rise: f64,
}

/// From which time on an answer is slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slow {
    /// Nine in ten were quicker, lately.
    pub q90: Duration,
    /// 99 in a hundred were.
    pub q99: Duration,
}

/// What a canary was found to do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Harm {
    /// More answers of 500 and more.
    Bad,
    /// Slower answers: the 99th percentile of the live version and its own.
    Slow([Duration; 2]),
    /// More calls for which time, memory or stack were too little.
    Starved,
}

/// A canary that was found out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guilt {
    /// What it does.
    pub harm: Harm,
    /// The odds against it.
    pub odds: f64,
    /// How unlike clients were; 1: not at all.
    pub unlike: f64,
    /// Requests of the live version and its own.
    pub requests: [u64; 2],
    /// Those of them that count against each.
    pub events: [u64; 2],
}

/// One step of a canary, and what must be known from before.
#[derive(Debug)]
pub struct Judge {
    bounds: Bounds,
    bad: Odds,
    slow90: Odds,
    slow99: Odds,
    starved: Odds,
    /// How long answers took in this step: calm and not, by side.
    times: [[Times; 2]; 2],
    recent: Recent,
    slow: Option<Slow>,
}

impl Judge {
    /// Nothing is known yet.
    pub fn new(bounds: Bounds) -> Self {
        Judge {
            bounds,
            bad: Odds::of(|cell| cell.bad),
            slow90: Odds::of(|cell| cell.slow90),
            slow99: Odds::of(|cell| cell.slow99),
            starved: Odds::of(|cell| cell.starved),
            times: Default::default(),
            recent: Recent::default(),
            slow: None,
        }
    }

    /// A step begins. Cells below `moved` were the canary's before.
    pub fn begin(&mut self, moved: usize) {
        let before = self.recent.cells();
        for odds in [&mut self.bad, &mut self.slow90, &mut self.slow99, &mut self.starved] {
            odds.begin(&before, moved);
        }
        self.times = Default::default();
    }

    /// What counts as slow in the next tick. None: too little is known.
    pub fn slow(&self) -> Option<Slow> {
        self.slow
    }

    /// Takes in what was counted in so much time. Some: the canary does harm.
    pub fn tick(&mut self, counted: &Counted, passed: Duration) -> Option<Guilt> {
        let busy = counted.busy();
        self.bad.take(&busy, passed);
        self.starved.take(&busy, passed);
        if self.slow.is_some() {
            self.slow90.take(&busy, passed);
            let stratum = self.slow99.take(&busy, passed);
            if let Some(sides) = self.times.get_mut(stratum as usize) {
                sides.iter_mut().zip(&counted.times).for_each(|(to, from)| to.add(from));
            }
        }
        self.recent.take(counted, passed);
        let times = self.recent.times();
        self.slow = (times.total() >= SAMPLES)
            .then(|| Some(Slow { q90: times.quantile(0.9)?, q99: times.quantile(0.99)? }))
            .flatten();
        let bad = |stratum, part| self.by_share(&self.bad, (stratum, part), (ALPHA, LEAST_BAD), Harm::Bad);
        let starved = |stratum, part| {
            self.by_share(&self.starved, (stratum, part), (ALPHA_STARVED, LEAST_STARVED), Harm::Starved)
        };
        Stratum::ALL.into_iter().zip(SHARES).find_map(|(stratum, part)| {
            bad(stratum, part).or_else(|| self.by_time(stratum, part)).or_else(|| starved(stratum, part))
        })
    }

    /// By how many of its requests had such events.
    fn by_share(
        &self,
        odds: &Odds,
        (stratum, part): (Stratum, f64),
        (alpha, least): (f64, f64),
        harm: Harm,
    ) -> Option<Guilt> {
        if part * odds.most(stratum) < 1.0 / alpha || odds.hits(stratum) < least {
            return None;
        }
        let (requests, events) = odds.counts(stratum);
        let [live, canary] = [0, 1].map(|side: usize| share(events.get(side), requests.get(side)));
        let allowed = if harm == Harm::Bad { self.bounds.max_5xx_rise } else { 0.0 };
        let weight = odds.weight(stratum);
        let least_odds = weight.odds.min(weight.without_worst);
        let found = part * least_odds >= 1.0 / alpha && canary - live >= allowed;
        found.then_some(Guilt { harm, odds: least_odds, unlike: weight.unlike, requests, events })
    }

    /// By how long they took: the odds of both quantiles together.
    fn by_time(&self, stratum: Stratum, part: f64) -> Option<Guilt> {
        let both = [&self.slow90, &self.slow99];
        let most = both.iter().map(|odds| odds.most(stratum)).sum::<f64>() / 2.0;
        if part * most < 1.0 / ALPHA || self.slow99.hits(stratum) < LEAST_SLOW {
            return None;
        }
        let [live, canary] = self.times.get(stratum as usize)?;
        let (live, canary) = (live.quantile(0.99)?, canary.quantile(0.99)?);
        if canary.as_secs_f64() < live.as_secs_f64() * (1.0 + self.bounds.max_p99_rise * SURE) {
            return None;
        }
        let [slow90, slow99] = both.map(|odds| odds.weight(stratum));
        let odds = (slow90.odds + slow99.odds) / 2.0;
        let odds = odds.min((slow90.without_worst + slow99.without_worst) / 2.0);
        let (requests, events) = self.slow99.counts(stratum);
        let (harm, unlike) = (Harm::Slow([live, canary]), slow90.unlike.max(slow99.unlike));
        (part * odds >= 1.0 / ALPHA).then_some(Guilt { harm, odds, unlike, requests, events })
    }
}

fn share(events: Option<&u64>, requests: Option<&u64>) -> f64 {
    events.copied().unwrap_or(0) as f64 / requests.copied().unwrap_or(0).max(1) as f64
}
