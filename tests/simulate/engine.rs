//! Gateways, endpoints and requests on a clock that jumps from event to event. What picks, and what counts loads, is the
//! gateway's own code; chance is seeded, so that each run is the same.

use super::model::{Fault, Met, Model};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use wayside::base::chance::Chance;
use wayside::service::balance::{Balancer, Memory, Wanted};
use wayside::service::plan::{Plan, Strategy};
use wayside::service::{Endpoint, InFlight, Service, Settings};

pub(super) const SECOND: u64 = 1_000_000;
/// An attempt that takes longer has failed.
const TIMEOUT: u64 = 2 * SECOND;

/// What is simulated.
#[derive(Clone)]
pub(super) struct Scene {
    pub settings: Settings,
    pub gateways: usize,
    pub endpoints: Vec<Model>,
    /// Declared, one for each endpoint.
    pub weights: Vec<u32>,
    /// Each endpoint is in one of so many zones, each gateway in one of them, in turn. 0: nobody has a zone.
    pub zones: usize,
    /// Of each endpoint.
    pub tiers: Vec<u32>,
    /// Active checks find an endpoint that takes no connection, or says nothing, so long after it began, and that it ended,
    /// in µs.
    pub checks: Option<u64>,
    /// Of the requests, those with one and the same key; the others' are of 2,000 different ones.
    pub hot: f64,
    /// Requests a second, all gateways together.
    pub rate: f64,
    pub seconds: u64,
    pub attempts: usize,
    pub seed: u64,
    /// Requests count from then on.
    pub from: u64,
}

impl Scene {
    /// So many equal endpoints with slots of so many ms, so busy, for so many seconds of which the first three do not count.
    pub(super) fn of(strategy: Strategy, (count, slots, ms): (usize, usize, u64), busy: f64, seconds: u64) -> Self {
        let capacity = (count * slots) as f64 * 1_000.0 / ms as f64;
        Scene {
            settings: Settings { strategy, ..Settings::of("simulated") },
            gateways: 1,
            endpoints: vec![Model::new(slots, ms as f64 * 1_000.0); count],
            weights: vec![1; count],
            zones: 0,
            tiers: vec![0; count],
            checks: None,
            hot: 0.0,
            rate: busy * capacity,
            seconds,
            attempts: 1,
            seed: 7,
            from: 3 * SECOND,
        }
    }

    /// With something wrong with the first `ill` endpoints.
    pub(super) fn with(mut self, fault: Fault, ill: usize, when: Range<u64>) -> Self {
        for endpoint in &mut self.endpoints[..ill] {
            endpoint.fault = Some((fault, when.start * SECOND..when.end * SECOND));
        }
        self
    }

    pub(super) fn run(&self) -> Outcome {
        Run::new(self).run()
    }
}

/// What came of it.
pub(super) struct Outcome {
    /// Requests that were sent to each endpoint, in each second.
    pub sent: Vec<Vec<u32>>,
    /// Requests that came, from when they count.
    pub asked: u64,
    /// Of those, without a good answer.
    pub lost: u64,
    /// Of those with one, how long each took, in µs and in order.
    pub took: Vec<u64>,
    /// Requests that stayed in their gateway's zone, and all, from when they count.
    pub stayed: (u64, u64),
    /// The most that was in flight to one endpoint, as a part of what each had at that time, from when they count.
    pub most: f64,
}

impl Outcome {
    /// Of how long the good answers took, in ms.
    pub(super) fn percentile(&self, part: f64) -> f64 {
        let at = ((self.took.len() as f64 * part) as usize).min(self.took.len().saturating_sub(1));
        self.took.get(at).map_or(f64::NAN, |us| *us as f64 / 1_000.0)
    }

    pub(super) fn lost(&self) -> f64 {
        self.lost as f64 / self.asked as f64
    }

    /// What an endpoint had in these seconds, as a part of what each would have had of as much for all.
    pub(super) fn share(&self, endpoint: usize, seconds: Range<usize>) -> f64 {
        let sum = |sent: &Vec<u32>| sent[seconds.clone()].iter().map(|count| u64::from(*count)).sum::<u64>() as f64;
        let all: f64 = self.sent.iter().map(sum).sum();
        sum(&self.sent[endpoint]) * self.sent.len() as f64 / all
    }

    /// The least and the largest share.
    pub(super) fn shares(&self, seconds: Range<usize>) -> (f64, f64) {
        let shares = (0..self.sent.len()).map(|endpoint| self.share(endpoint, seconds.clone()));
        shares.fold((f64::MAX, 0.0), |(least, most), share| (share.min(least), share.max(most)))
    }
}

struct Gateway {
    service: Service,
    balancer: Balancer,
}

struct Asked {
    gateway: usize,
    began: u64,
    attempt_began: u64,
    key: String,
    tried: Vec<u32>,
    endpoint: usize,
    /// None: it is over.
    in_flight: Option<InFlight>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Comes,
    /// An endpoint is through with a request's attempt of this number.
    Done(usize, usize),
    Failed(usize),
    TimedOut(usize, usize),
    /// A check has found an endpoint well, or ill.
    Checked(usize, bool),
}

struct Run<'a> {
    scene: &'a Scene,
    chance: Chance,
    gateways: Vec<Gateway>,
    models: Vec<Model>,
    requests: Vec<Asked>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    now: u64,
    outcome: Outcome,
}

/// Different keys of requests.
const KEYS: usize = 2_000;

impl<'a> Run<'a> {
    fn new(scene: &'a Scene) -> Self {
        let endpoint = |gateway: usize, place: usize| {
            let zone = (scene.zones > 0).then(|| place % scene.zones);
            let address = ([10, 0, (place / 250) as u8, (place % 250) as u8], 80).into();
            Arc::new(Endpoint {
                weight: scene.weights[place],
                zone: zone.map(|zone| zone.to_string().into()),
                local: zone.is_none_or(|zone| zone == gateway % scene.zones),
                tier: scene.tiers[place],
                ..Endpoint::of("users", place as u32, address)
            })
        };
        let gateway = |number: usize| Gateway {
            service: Service {
                name: "users".into(),
                settings: Arc::new(scene.settings.clone()),
                endpoints: (0..scene.endpoints.len()).map(|place| endpoint(number, place)).collect(),
                reported: Arc::default(),
                digest: 0,
                tls: None,
                affinity: None,
                live: Arc::default(),
            },
            balancer: Balancer::new(scene.seed + number as u64 * 7_919, Arc::new(Memory::default())),
        };
        Run {
            scene,
            chance: Chance(scene.seed),
            gateways: (0..scene.gateways).map(gateway).collect(),
            models: scene.endpoints.clone(),
            requests: Vec::new(),
            events: BinaryHeap::new(),
            order: 0,
            now: 0,
            outcome: Outcome {
                sent: vec![vec![0; scene.seconds as usize + 1]; scene.endpoints.len()],
                asked: 0,
                lost: 0,
                took: Vec::new(),
                stayed: (0, 0),
                most: 0.0,
            },
        }
    }

    /// When checks find what.
    fn check(&mut self) {
        let Some(later) = self.scene.checks else { return };
        for (place, model) in self.scene.endpoints.iter().enumerate() {
            if let Some((Fault::Refuses | Fault::Hangs, when)) = &model.fault {
                self.at(when.start + later, Event::Checked(place, false));
                self.at(when.end + later, Event::Checked(place, true));
            }
        }
    }

    fn at(&mut self, later: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((self.now + later, self.order, event)));
    }

    /// When the next request comes, after the one before it (Poisson).
    fn next(&mut self) -> u64 {
        let unit = ((self.chance.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        (-unit.ln() / self.scene.rate * SECOND as f64) as u64
    }

    fn run(mut self) -> Outcome {
        self.gateways.iter().for_each(|gateway| wayside::service::balance::prepare(&gateway.service));
        self.check();
        self.at(0, Event::Comes);
        while let Some(Reverse((now, _, event))) = self.events.pop() {
            self.now = now;
            match event {
                Event::Comes if now < self.scene.seconds * SECOND => {
                    let next = self.next();
                    self.at(next, Event::Comes);
                    self.comes();
                }
                Event::Comes => {}
                Event::Done(request, attempt) => self.done(request, attempt),
                Event::Failed(request) => self.over(request, false),
                Event::TimedOut(request, attempt) if self.waits(request, attempt) => self.over(request, false),
                Event::TimedOut(..) => {}
                Event::Checked(place, healthy) => {
                    self.gateways.iter().for_each(|gateway| gateway.service.endpoints[place].live.checked(healthy));
                }
            }
        }
        self.outcome.took.sort_unstable();
        self.outcome
    }

    fn comes(&mut self) {
        if self.now >= self.scene.from {
            self.outcome.asked += 1;
        }
        let gateway = self.chance.below(self.gateways.len());
        let hot = self.scene.hot > 0.0 && self.chance.below(1_000) < (self.scene.hot * 1_000.0) as usize;
        let key = if hot { "hot".to_owned() } else { format!("user-{}", self.chance.below(KEYS)) };
        let (began, attempt_began) = (self.now, self.now);
        self.requests.push(Asked { gateway, began, attempt_began, key, tried: vec![], endpoint: 0, in_flight: None });
        self.attempt(self.requests.len() - 1);
    }

    fn attempt(&mut self, request: usize) {
        let asked = &mut self.requests[request];
        let gateway = &mut self.gateways[asked.gateway];
        let (plan, now_ms) = (Plan::default(), self.now / 1_000);
        let wanted = Wanted { service: &gateway.service, plan: &plan, tried: &asked.tried, key: &asked.key, now_ms };
        let Some(picked) = gateway.balancer.pick(wanted) else { return self.lose(request) };
        asked.tried.push(picked.endpoint.id);
        asked.in_flight = Some(InFlight::enter(&picked.endpoint.live, now_ms));
        (asked.endpoint, asked.attempt_began) = (picked.endpoint.id as usize, self.now);
        let (endpoint, attempt) = (asked.endpoint, asked.tried.len());
        let second = (self.now / SECOND) as usize;
        if let Some(sent) = self.outcome.sent[endpoint].get_mut(second) {
            *sent += 1;
        }
        if self.now >= self.scene.from {
            let service = &self.gateways[self.requests[request].gateway].service;
            self.outcome.stayed.0 += u64::from(service.endpoints[endpoint].local);
            self.outcome.stayed.1 += 1;
            let all: u32 = service.endpoints.iter().map(|endpoint| endpoint.in_flight()).sum();
            let mean = f64::from(all) / service.endpoints.len() as f64;
            // Of a few, one is much.
            if mean >= 2.0 {
                let part = f64::from(service.endpoints[endpoint].in_flight()) / mean;
                self.outcome.most = self.outcome.most.max(part);
            }
        }
        match self.models[endpoint].meets(request, self.now, &mut self.chance) {
            Met::Begins(after) => self.at(after, Event::Done(request, attempt)),
            Met::Fails(after) => return self.at(after, Event::Failed(request)),
            Met::Waits | Met::Never => {}
        }
        self.at(TIMEOUT, Event::TimedOut(request, attempt));
    }

    fn waits(&self, request: usize, attempt: usize) -> bool {
        let asked = &self.requests[request];
        asked.in_flight.is_some() && asked.tried.len() == attempt
    }

    /// An endpoint is through with an attempt, which nobody may wait for any more.
    fn done(&mut self, request: usize, attempt: usize) {
        // Where the attempt went, which the request may have left meanwhile.
        let endpoint = self.requests[request].tried[attempt - 1] as usize;
        let requests = &self.requests;
        let still_wanted = |next: usize| requests[next].in_flight.is_some() && requests[next].endpoint == endpoint;
        if let Some((next, after)) = self.models[endpoint].done(self.now, &mut self.chance, still_wanted) {
            let attempt = self.requests[next].tried.len();
            self.at(after, Event::Done(next, attempt));
        }
        if self.waits(request, attempt) {
            self.over(request, true);
        }
    }

    fn over(&mut self, request: usize, good: bool) {
        let asked = &mut self.requests[request];
        let service = &self.gateways[asked.gateway].service;
        let live = &service.endpoints[asked.endpoint].live;
        let took = Duration::from_micros(self.now - asked.attempt_began);
        asked.in_flight = None;
        if !good {
            live.load.failed(took, &service.live.pace, self.now / 1_000);
            return match asked.tried.len() < self.scene.attempts {
                true => self.attempt(request),
                false => self.lose(request),
            };
        }
        live.load.answered(took, &service.live.pace, self.now / 1_000);
        if asked.began >= self.scene.from {
            self.outcome.took.push(self.now - asked.began);
        }
    }

    fn lose(&mut self, request: usize) {
        self.outcome.lost += u64::from(self.requests[request].began >= self.scene.from);
    }
}
