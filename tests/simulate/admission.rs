//! Admission before a modelled service, on a virtual clock: who is let in, who waits and who is refused is the gateway's own
//! code.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::num::NonZero;
use std::time::Duration;
use wayside::base::chance::Chance;
use wayside::service::admission::adaptive;
use wayside::service::admission::queue::{Terms, Who};
use wayside::service::admission::{Admission, Entered, Limits, Place, Waiting};

const SECOND: u64 = 1_000_000;

/// What is simulated: a service that works on so many requests at a time, the others wait there in line.
struct Scene {
    /// By key: requests a second. The rate of all of them changes by a factor from a second on.
    rates: Vec<f64>,
    louder: Vec<(u64, f64)>,
    slots: usize,
    /// From a second on, it works on so many.
    changes: Vec<(u64, usize)>,
    /// Mean time for one, µs, and of its logarithm the deviation.
    mean_us: f64,
    sigma: f64,
    limits: Limits,
    queue: Option<Terms>,
    adaptive: Option<adaptive::Settings>,
    seconds: u64,
    seed: u64,
}

impl Default for Scene {
    fn default() -> Self {
        Scene {
            rates: vec![1_000.0],
            louder: Vec::new(),
            slots: 20,
            changes: Vec::new(),
            mean_us: 10_000.0,
            sigma: 0.3,
            limits: Limits::default(),
            queue: None,
            adaptive: None,
            seconds: 20,
            seed: 7,
        }
    }
}

/// One request, from when it came to its end.
struct Asked {
    key: usize,
    came: u64,
    let_in: u64,
    /// None: it was refused.
    took: Option<u64>,
    place: Option<Place>,
    waiting: Option<Waiting>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Comes(usize),
    Done(usize),
    Late(usize),
    Changes(usize),
}

struct Run<'a> {
    scene: &'a Scene,
    admission: Admission,
    chance: Chance,
    asked: Vec<Asked>,
    outside: Vec<usize>,
    line: VecDeque<usize>,
    busy: usize,
    slots: usize,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    now: u64,
}

impl Scene {
    fn run(&self) -> Vec<Asked> {
        let mut run = Run {
            scene: self,
            admission: Admission::default(),
            chance: Chance(self.seed),
            asked: Vec::new(),
            outside: Vec::new(),
            line: VecDeque::new(),
            busy: 0,
            slots: self.slots,
            events: BinaryHeap::new(),
            order: 0,
            now: 0,
        };
        run.admission.declare(&self.limits, self.adaptive, 0);
        run.run();
        run.asked
    }
}

impl Run<'_> {
    fn at(&mut self, later: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((self.now + later, self.order, event)));
    }

    fn unit(&mut self) -> f64 {
        ((self.chance.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn now_ms(&self) -> u64 {
        self.now / 1_000
    }

    /// Until the next one of this key comes.
    fn next(&mut self, key: usize) -> u64 {
        let second = self.now / SECOND;
        let louder = self.scene.louder.iter().rev().find(|(from, _)| second >= *from).map_or(1.0, |(_, times)| *times);
        (-self.unit().ln() / (self.scene.rates[key] * louder) * SECOND as f64) as u64
    }

    fn run(&mut self) {
        for key in 0..self.scene.rates.len() {
            let first = self.next(key);
            self.at(first, Event::Comes(key));
        }
        for (second, slots) in &self.scene.changes {
            self.at(second * SECOND, Event::Changes(*slots));
        }
        while let Some(Reverse((now, _, event))) = self.events.pop() {
            self.now = now;
            match event {
                Event::Comes(_) if now >= self.scene.seconds * SECOND => {}
                Event::Comes(key) => {
                    let next = self.next(key);
                    self.at(next, Event::Comes(key));
                    self.comes(key);
                }
                Event::Done(request) => self.done(request),
                Event::Late(request) => self.late(request),
                Event::Changes(slots) => self.slots = slots,
            }
            self.look();
            self.work();
        }
    }

    fn comes(&mut self, key: usize) {
        let request = self.asked.len();
        let asked = Asked { key, came: self.now, let_in: 0, took: None, place: None, waiting: None };
        self.asked.push(asked);
        let who = || Who { key: key as u64, weight: 1 };
        match self.admission.places.enter(u32::MAX, self.scene.queue, who, self.now_ms()) {
            Entered::Place(place) => self.let_in(request, place),
            Entered::Refused(_) => {}
            Entered::Waits(waiting) => {
                self.asked[request].waiting = Some(waiting);
                self.outside.push(request);
                let wait = self.scene.queue.unwrap().wait_ms * 1_000;
                self.at(wait, Event::Late(request));
            }
        }
    }

    fn let_in(&mut self, request: usize, place: Place) {
        self.asked[request].place = Some(place);
        self.asked[request].let_in = self.now;
        self.line.push_back(request);
    }

    /// Who waits may have been told something.
    fn look(&mut self) {
        let mut place = 0;
        while let Some(request) = self.outside.get(place).copied() {
            match self.asked[request].waiting.as_mut().and_then(Waiting::so_far) {
                None => place += 1,
                Some(told) => {
                    self.outside.swap_remove(place);
                    self.asked[request].waiting = None;
                    if let Ok(place) = told {
                        self.let_in(request, place);
                    }
                }
            }
        }
    }

    fn late(&mut self, request: usize) {
        if let Some(waiting) = self.asked[request].waiting.take() {
            self.outside.retain(|outside| *outside != request);
            if let Ok(place) = waiting.ends() {
                self.let_in(request, place);
            }
        }
    }

    fn work(&mut self) {
        while self.busy < self.slots
            && let Some(request) = self.line.pop_front()
        {
            self.busy += 1;
            let sigma = self.scene.sigma;
            // Box and Muller; the mean of what comes out is 1.
            let normal = (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos();
            let one = (sigma * normal - sigma * sigma / 2.0).exp();
            self.at((self.scene.mean_us * one) as u64, Event::Done(request));
        }
    }

    fn done(&mut self, request: usize) {
        self.busy -= 1;
        let now_ms = self.now_ms();
        let asked = &mut self.asked[request];
        asked.took = Some(self.now - asked.came);
        let took = self.now - asked.let_in;
        if self.scene.adaptive.is_some() {
            self.admission.answered(Duration::from_micros(took), now_ms);
        }
        let place = asked.place.take().unwrap();
        assert!(self.admission.places.in_flight() > 0);
        place.leave(now_ms);
    }
}

/// Those who came in these seconds.
fn of(asked: &[Asked], seconds: std::ops::Range<u64>) -> impl Iterator<Item = &Asked> {
    asked.iter().filter(move |asked| seconds.contains(&(asked.came / SECOND)))
}

fn served<'a>(asked: impl Iterator<Item = &'a Asked>) -> f64 {
    let (all, served) = asked.fold((0, 0), |(all, served), one| (all + 1, served + u32::from(one.took.is_some())));
    f64::from(served) / f64::from(all)
}

/// Ten tenants that ask for less than their share, and one that asks for twenty times as much as each of them.
fn tenants(keyed: bool) -> Vec<Asked> {
    let mut rates = vec![80.0; 10];
    rates.push(1_600.0);
    let limits = Limits { requests: NonZero::new(20), ..Limits::default() };
    let queue = Some(Terms { depth: 100, wait_ms: 200, keyed });
    Scene { rates, limits, queue, ..Scene::default() }.run()
}

#[test]
fn a_tenant_under_its_share_loses_nothing_to_one_that_is_greedy() {
    let fair = tenants(true);
    let modest = || fair.iter().filter(|asked| asked.key < 10);
    assert_eq!(served(modest()), 1.0);
    let greedy = served(fair.iter().filter(|asked| asked.key == 10));
    assert!((0.70..0.80).contains(&greedy), "{greedy}");
    let mut waits: Vec<u64> = modest().map(|asked| asked.let_in - asked.came).collect();
    waits.sort_unstable();
    let p99 = waits[waits.len() * 99 / 100];
    assert!(p99 < 15_000, "{p99} µs");
    // Without keys, all lose alike.
    let unfair = tenants(false);
    let modest = served(unfair.iter().filter(|asked| asked.key < 10));
    assert!((0.78..0.90).contains(&modest), "{modest}");
}

/// 32 slots of 20 ms, of which 24 are used; then half of them are left; then all again; then twice as much is asked for.
#[test]
fn an_adaptive_limit_finds_what_the_service_can_take() {
    for sigma in [0.3, 1.0] {
        let scene = Scene {
            rates: vec![1_200.0],
            louder: vec![(60, 2.0)],
            slots: 32,
            changes: vec![(20, 16), (40, 32)],
            mean_us: 20_000.0,
            sigma,
            adaptive: Some(adaptive::Settings::default()),
            seconds: 80,
            ..Scene::default()
        };
        let asked = scene.run();
        let good = |seconds| goodput(&asked, seconds);
        let p99 = |seconds: std::ops::Range<u64>| {
            let mut took: Vec<u64> = of(&asked, seconds).filter_map(|one| one.took).collect();
            took.sort_unstable();
            took[took.len() * 99 / 100] as f64 / 1_000.0
        };
        let rest = served(of(&asked, 5..20));
        assert!(rest >= 0.99, "σ {sigma}: {rest} at rest");
        let (halved, back, twice) = (good(25..40), good(45..60), good(65..80));
        assert!(halved >= 0.95 * 800.0, "σ {sigma}: {halved} of 800");
        assert!(back >= 0.98 * 1_200.0, "σ {sigma}: {back} of 1200");
        assert!(twice >= 0.95 * 1_600.0, "σ {sigma}: {twice} of 1600");
        let (before, while_halved) = (p99(5..20), p99(25..40));
        assert!(while_halved <= 3.0 * before, "σ {sigma}: p99 {before} ms, {while_halved} ms while halved");
    }
}

/// Good answers a second.
fn goodput(asked: &[Asked], seconds: std::ops::Range<u64>) -> f64 {
    let count = of(asked, seconds.clone()).filter(|one| one.took.is_some_and(|took| took < 250_000)).count();
    count as f64 / (seconds.end - seconds.start) as f64
}

/// Four slots of 20 ms, of which twice as much is asked for from the first moment on, and a limit of forty: nothing was
/// ever measured that did not wait.
#[test]
fn an_adaptive_limit_that_begins_in_an_overload_comes_down() {
    for (sigma, seed) in [0.3, 1.0].into_iter().flat_map(|sigma| (7..12).map(move |seed| (sigma, seed))) {
        let adaptive = Some(adaptive::Settings { start: 40, ..adaptive::Settings::default() });
        let (rates, slots, mean_us) = (vec![400.0], 4, 20_000.0);
        let scene = Scene { rates, slots, mean_us, sigma, adaptive, seconds: 90, seed, ..Scene::default() };
        let asked = scene.run();
        let middle = |seconds: std::ops::Range<u64>| {
            let mut took: Vec<u64> = of(&asked, seconds).filter_map(|one| one.took).collect();
            took.sort_unstable();
            took[took.len() / 2] as f64 / 1_000.0
        };
        // Forty in flight took 200 ms.
        let (soon, later) = (middle(5..15), middle(60..90));
        assert!(soon < 90.0 && later < 90.0, "σ {sigma}, {seed}: {soon} ms, then {later} ms");
        let good = goodput(&asked, 5..90);
        assert!(good >= 0.95 * 200.0, "σ {sigma}, {seed}: {good} of 200");
    }
}

/// An overload that does not end, in which half of the service is lost, and comes back: what it costs to look for what is
/// unhurried again and again.
#[test]
fn an_adaptive_limit_holds_in_an_overload_that_does_not_end() {
    for (sigma, seed) in [0.3, 1.0].into_iter().flat_map(|sigma| (7..10).map(move |seed| (sigma, seed))) {
        let scene = Scene {
            rates: vec![2_400.0],
            slots: 32,
            changes: vec![(60, 16), (120, 32)],
            mean_us: 20_000.0,
            sigma,
            adaptive: Some(adaptive::Settings::default()),
            seconds: 180,
            seed,
            ..Scene::default()
        };
        let asked = scene.run();
        for (seconds, capacity) in [(5..60, 1_600.0), (65..120, 800.0), (125..180, 1_600.0)] {
            let good = goodput(&asked, seconds.clone());
            assert!(good >= 0.95 * capacity, "σ {sigma}, {seed}, {seconds:?}: {good} of {capacity}");
        }
    }
}
