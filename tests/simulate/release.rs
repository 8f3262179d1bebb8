//! Canaries under modelled loads, on a virtual clock: how seldom a good one is rolled back, and how soon a bad one. What
//! judges is the gateway's own code. Each line that is printed is a row of what the README says.

#![allow(clippy::print_stdout, reason = "it tells what it has found")]

use std::num::NonZero;
use std::ops::Range;
use std::time::Duration;
use wayside::base::chance::Chance;
use wayside::policy::release::{CELLS, Cell, Counted, Course, Move, Settings};

/// From one look to the next.
const TICK: Duration = Duration::from_secs(5);
/// What is drawn from at random.
const DRAWS: usize = 1 << 16;
/// A usual time to the head of an answer, ns.
const USUAL_NS: f64 = 5e6;

/// What comes, and how that goes with a version that is no worse than the one before.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    clients: usize,
    /// How unevenly requests come from clients.
    zipf: f64,
    /// The share of answers that are 5xx.
    base: f64,
    /// How unlike clients are in that, and in how long their answers take: σ of a lognormal distribution.
    unlike: (f64, f64),
    /// How unlike answers are in how long they take: the same.
    sigma: f64,
    /// Day and night, in short.
    day: bool,
    outages: Outages,
    /// Clients for whom one answer in two is 5xx, for ever.
    always: usize,
    /// One client sends much more for a minute, and half of that fails: how often.
    storms: usize,
}

#[derive(Clone, Copy, PartialEq)]
enum Outages {
    None,
    /// For 20 s, a quarter of all answers.
    All,
    /// For 20 s, nine in ten answers of one client in ten: their endpoint's.
    Endpoint,
}

const CALM: Load = Load {
    name: "calm",
    clients: 5_000,
    zipf: 0.6,
    base: 0.002,
    unlike: (0.0, 0.0),
    sigma: 0.7,
    day: false,
    outages: Outages::None,
    always: 0,
    storms: 0,
};
const NOISY: Load = Load { name: "noisy", day: true, outages: Outages::All, ..CALM };
const ENDPOINT: Load = Load { name: "one endpoint's outages", outages: Outages::Endpoint, ..CALM };
const STORM: Load = Load { name: "storms", storms: 3, ..CALM };
const UNLIKE: Load = Load { name: "unlike clients", base: 0.02, unlike: (1.0, 0.0), ..CALM };
const ALWAYS: Load = Load { name: "clients that always fail", zipf: 1.0, always: 5, ..CALM };
const VERY_UNLIKE: Load = Load { name: "very unlike clients", zipf: 1.0, unlike: (1.5, 0.5), ..CALM };

/// What is wrong with a canary.
#[derive(Clone, Copy)]
struct Fault {
    /// More answers that are 5xx, as a share of all.
    rise: f64,
    /// How many times longer its answers take.
    slower: f64,
}

const GOOD: Fault = Fault { rise: 0.0, slower: 1.0 };
/// Requests a second, on average.
const RATE: f64 = 200.0;

/// One client.
struct Client {
    /// Its place among all, 0 to 1.
    place: f64,
    base: f64,
    slower: f64,
    endpoint: usize,
}

struct Scene {
    load: Load,
    chance: Chance,
    clients: Vec<Client>,
    /// Who asks, and how long it takes, drawn from at random.
    who: Vec<u32>,
    times: Vec<f64>,
    outages: Vec<(Range<f64>, usize)>,
    storms: Vec<(Range<f64>, usize, f64)>,
    now: f64,
}

fn unit(chance: &mut Chance) -> f64 {
    (chance.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Normally distributed (Box and Muller).
fn normal(chance: &mut Chance) -> f64 {
    let (a, b) = (1.0 - unit(chance), unit(chance));
    (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

impl Scene {
    fn new(load: Load, seed: u64) -> Self {
        let mut chance = Chance(seed);
        let mut clients: Vec<Client> = (0..load.clients)
            .map(|_| {
                let lognormal = |chance: &mut Chance, sigma: f64| (sigma * normal(chance) - sigma * sigma / 2.0).exp();
                let (errors, times) = load.unlike;
                let base = (load.base * lognormal(&mut chance, errors)).min(1.0);
                let slower = lognormal(&mut chance, times);
                Client { place: unit(&mut chance), base, slower, endpoint: chance.below(10) }
            })
            .collect();
        for _ in 0..load.always {
            let who = chance.below(load.clients);
            clients[who].base = 0.5;
        }
        let weights: Vec<f64> = (1..=load.clients).map(|rank| (rank as f64).powf(-load.zipf)).collect();
        let total: f64 = weights.iter().sum();
        let (mut who, mut sum) = (Vec::with_capacity(DRAWS), 0.0);
        for (client, weight) in weights.iter().enumerate() {
            sum += weight / total;
            who.resize((sum * DRAWS as f64).round() as usize, client as u32);
        }
        who.resize(DRAWS, 0);
        let times = (0..DRAWS).map(|_| USUAL_NS * (load.sigma * normal(&mut chance)).exp()).collect();
        let (mut outages, mut at) = (Vec::new(), 0.0);
        while load.outages != Outages::None && at < 4_000.0 {
            at += -180.0 * (1.0 - unit(&mut chance)).ln();
            outages.push((at..at + 20.0, chance.below(10)));
            at += 20.0;
        }
        let storms = (0..load.storms).map(|_| {
            let at = unit(&mut chance) * 900.0;
            (at..at + 60.0, chance.below(load.clients), 0.05 + 0.95 * unit(&mut chance))
        });
        let storms = storms.collect();
        Scene { load, chance, clients, who, times, outages, storms, now: 0.0 }
    }

    /// What comes until the next look, with this canary on so many clients.
    fn tick(&mut self, course: &Course, fault: Fault) -> Counted {
        let mut counted = Counted::default();
        let (share, slow) = (course.share(), course.slow());
        let [q90, q99] = slow.map_or([u64::MAX; 2], |slow| [slow.q90, slow.q99].map(|time| time.as_nanos() as u64));
        let seconds = TICK.as_secs_f64();
        // A day takes ten minutes, and a night has half of the requests, slower ones, and twice the errors.
        let day = if self.load.day { (self.now / 600.0 * std::f64::consts::TAU).sin() } else { 0.0 };
        let (rate, errors, slower) = (RATE * (1.0 + day / 3.0), 2_f64.powf(-day / 2.0), 1.0 - day / 5.0);
        let outage = self.outages.iter().find(|(when, _)| when.contains(&self.now)).map(|(_, endpoint)| *endpoint);
        let mut send = |client: &Client, drawn: u64, mut bad: f64| {
            let canary = client.place < share;
            match (self.load.outages, outage) {
                (Outages::All, Some(_)) => bad += 0.25,
                (Outages::Endpoint, Some(endpoint)) if endpoint == client.endpoint => bad += 0.9,
                _ => {}
            }
            let mut ns = self.times[drawn as usize % DRAWS] * client.slower * slower;
            if canary {
                bad += fault.rise;
                ns *= fault.slower;
            }
            let (side, ns) = (usize::from(canary), ns as u64);
            let cell: &mut Cell = &mut counted.cells[side][(client.place * CELLS as f64) as usize];
            cell.requests += 1;
            cell.bad += u32::from(((drawn >> 32) as f64) < bad * 4_294_967_296.0);
            cell.slow90 += u32::from(ns > q90);
            cell.slow99 += u32::from(ns > q99);
            counted.times[side].count(ns);
        };
        let requests = (rate * seconds + (rate * seconds).sqrt() * normal(&mut self.chance)) as usize;
        for _ in 0..requests {
            let drawn = self.chance.next_u64();
            let client = &self.clients[self.who[(drawn >> 16) as usize % DRAWS] as usize];
            send(client, drawn, client.base * errors);
        }
        for (when, who, part) in &self.storms {
            if when.contains(&self.now) {
                for _ in 0..(part * RATE * seconds) as usize {
                    send(&self.clients[*who], self.chance.next_u64(), 0.5);
                }
            }
        }
        self.now += seconds;
        counted
    }
}

/// Runs a canary. Some: it was rolled back, after so many requests of steps.
fn run(load: Load, settings: &Settings, fault: Fault, seed: u64, most: u64) -> Option<u64> {
    let mut scene = Scene::new(load, seed);
    let mut course = Course::new(settings.clone());
    let mut requests = 0;
    while requests < most {
        let counted = scene.tick(&course, fault);
        if course.progress().step > 0 {
            requests += counted.requests().iter().sum::<u64>();
        }
        match course.tick(&counted, 0, TICK) {
            Move::Stay | Move::Step => {}
            Move::Promote => return None,
            Move::Harmful(_) => return Some(requests),
            Move::Faulty(_) => unreachable!("no call goes wrong"),
        }
    }
    None
}

/// Several of them, each with a seed of its own.
fn runs(load: Load, settings: &Settings, fault: Fault, count: u64, most: u64) -> Vec<Option<u64>> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get) as u64;
    std::thread::scope(|scope| {
        let mine = |thread: u64| {
            let seeds = (0..count).filter(move |seed| seed % threads == thread);
            let all = seeds.map(move |seed| run(load, settings, fault, 0xCA_4A87 + seed * 7_919, most));
            all.collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..threads).map(|thread| scope.spawn(move || mine(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// So many of `count` canaries that are as good as the live version are rolled back.
fn false_alarms(load: Load, count: u64) -> usize {
    let ended = runs(load, &Settings::default(), GOOD, count, u64::MAX);
    let alarms = ended.iter().flatten().count();
    println!("{}: {alarms} of {count} good canaries are rolled back", load.name);
    alarms
}

/// A canary with a tenth of the clients is caught by 19 in 20 within so many requests.
fn is_caught(load: Load, fault: Fault, within: u64) {
    let settings = Settings { steps: vec![0.1], hold: Duration::from_secs(100_000), ..Settings::default() };
    let mut ended: Vec<u64> =
        runs(load, &settings, fault, 40, 100_000).into_iter().map(|caught| caught.unwrap_or(u64::MAX)).collect();
    ended.sort_unstable();
    let Fault { rise, slower } = fault;
    let (half, most) = (ended[ended.len() / 2], ended[ended.len() * 19 / 20 - 1]);
    println!("{}, +{rise} 5xx, × {slower}: half within {half}, 19 of 20 within {most} requests", load.name);
    assert!(most <= within, "{}: 19 of 20 within {most}", load.name);
}

#[test]
fn a_good_canary_is_promoted_whatever_the_load() {
    for load in [NOISY, ENDPOINT, STORM, UNLIKE, ALWAYS] {
        assert!(false_alarms(load, 200) <= 1, "{}", load.name);
    }
}

#[test]
fn a_good_canary_of_very_unlike_clients_is_promoted() {
    assert!(false_alarms(VERY_UNLIKE, 400) <= 2);
}

#[test]
fn one_more_error_in_a_hundred_is_found() {
    is_caught(CALM, Fault { rise: 0.01, ..GOOD }, 30_000);
    is_caught(NOISY, Fault { rise: 0.01, ..GOOD }, 50_000);
    is_caught(ENDPOINT, Fault { rise: 0.01, ..GOOD }, 50_000);
}

#[test]
fn answers_that_take_a_fifth_longer_are_found() {
    is_caught(CALM, Fault { slower: 1.2, ..GOOD }, 50_000);
}
