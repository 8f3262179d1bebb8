//! What one call of a policy read and did, by value: with the request and the clock, enough to ask the same again anywhere.
//! Plain data between the policy that notes it and whoever records, replays or explains it.

pub mod redaction;
pub mod settings;

use redaction::MARK;
use serde::{Deserialize, Serialize};

/// Reads, and effects, of one call: of each at most this many.
const MOST: usize = 1024;
/// Bytes of all of them, about.
const MOST_BYTES: usize = 256 << 10;
/// Inputs of one call.
const MOST_INPUTS: usize = 64;

/// What one call read and did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Tape {
    /// What it asked for of the request, each once, as `request.inputs` calls it.
    pub inputs: Vec<Box<str>>,
    /// What it read of the world, in order.
    pub reads: Vec<Read>,
    /// What it changed in its state, in order.
    pub effects: Vec<Effect>,
    /// It has seen something that no record may hold.
    pub hidden: bool,
    /// It read or did more than a tape holds.
    pub cut: bool,
    /// In a replay: what it read that nobody has noted.
    #[serde(skip)]
    pub unknown: Option<Asked>,
    #[serde(skip)]
    bytes: usize,
}

/// One read, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Read {
    /// What was asked.
    pub asked: Asked,
    /// What the policy was told.
    pub got: Got,
}

/// What a policy can ask the world. Two that are equal, and as often asked before, are told the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asked {
    /// `catalog.service` of this name.
    Service(Box<str>),
    /// `catalog.endpoints` of this service: of all of them, whatever the subset.
    Endpoints(Box<str>),
    /// `catalog.least-loaded`.
    LeastLoaded {
        /// Of this service.
        service: Box<str>,
        /// With these pairs.
        subset: Vec<(String, String)>,
        /// Those of the gateway's own zone first.
        local_first: bool,
        /// At most so many.
        count: u32,
    },
    /// `catalog.find`.
    Find {
        /// In this service.
        service: Box<str>,
        /// At this address.
        address: Box<str>,
    },
    /// `catalog.describe` of this number.
    Describe(u32),
    /// `catalog.knowledge-of` this service.
    KnowledgeOf(Box<str>),
    /// `state.add` to this counter.
    Add(Box<str>),
    /// `state.take` from this bucket.
    Take(Box<str>),
    /// `state.get` of this key.
    Get(Box<str>),
    /// `state.get-or-set` of this key.
    GetOrSet(Box<str>),
}

/// What the world said: the part of it that moves. What stands still is in the catalog.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Got {
    /// There is none.
    Nothing,
    /// A service.
    Service(ServiceNow),
    /// Endpoints: all of a service, in its order.
    Endpoints(Vec<EndpointNow>),
    /// Endpoints by number, in order.
    Loaded(Vec<LoadedNow>),
    /// An endpoint.
    Endpoint(EndpointNow),
    /// A description.
    Described(DescribedNow),
    /// How a list is known.
    Known(KnownNow),
    /// A counter's value.
    Counter(i64),
    /// What a bucket gave.
    Taken(TakenNow),
    /// A value.
    Value(Box<str>),
}

/// How a service is at the call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceNow {
    /// Endpoints that the strategies would consider.
    pub usable: u32,
    /// Requests in flight to all.
    pub in_flight: u32,
    /// Age of the list, ms.
    pub age_ms: u32,
    /// Its source is failing or silent.
    pub stale: bool,
}

/// How an endpoint is at the call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointNow {
    /// The strategies would consider it.
    pub usable: bool,
    /// Requests in flight to it.
    pub in_flight: u32,
    /// Moving average, µs.
    pub latency_us: u32,
}

/// A usable endpoint at the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadedNow {
    /// Its number.
    pub id: u32,
    /// Requests in flight to it.
    pub in_flight: u32,
    /// Moving average, µs.
    pub latency_us: u32,
}

/// What moves of a description.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DescribedNow {
    /// By checks and by its source.
    pub healthy: bool,
    /// By its answers.
    pub ejected: bool,
    /// Since it (re)appeared, ms.
    pub age_ms: u32,
}

/// How a service's list is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownNow {
    /// What its source calls this state.
    pub revision: Box<str>,
    /// Some of its sources do not answer.
    pub partial: bool,
    /// A newer answer is held back.
    pub held: bool,
}

/// What a bucket gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenNow {
    /// The tokens are gone.
    pub granted: bool,
    /// Whole tokens left.
    pub left: u32,
    /// Until there are enough, ms.
    pub wait_ms: u32,
}

/// What a call changed in its policy's state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// `state.add`: counter, by how much, time to live in ms.
    Add(Box<str>, i32, u32),
    /// `state.take`: bucket, tokens, tokens a second, burst.
    Take(Box<str>, u32, f64, u32),
    /// `state.set`: key, value, time to live in ms.
    Set(Box<str>, Box<str>, u32),
    /// `state.get-or-set`: key, value, time to live in ms.
    GetOrSet(Box<str>, Box<str>, u32),
    /// `state.remove` of this key.
    Remove(Box<str>),
}

impl Tape {
    /// Notes that the request was asked for this, and what it said.
    pub fn saw(&mut self, input: &str, value: Option<&str>) {
        self.hidden |= value.is_some_and(|value| value.contains(MARK));
        if self.inputs.iter().any(|noted| **noted == *input) {
            return;
        }
        if self.inputs.len() == MOST_INPUTS || !self.fits(input.len()) {
            self.cut = true;
            return;
        }
        self.inputs.push(input.into());
    }

    /// Notes a read.
    pub fn read(&mut self, asked: Asked, got: &Got) {
        let bytes = asked.bytes() + got.bytes();
        if self.reads.len() == MOST || !self.fits(bytes) {
            self.cut = true;
            return;
        }
        self.reads.push(Read { asked, got: got.clone() });
    }

    /// Notes a change.
    pub fn did(&mut self, effect: Effect) {
        let bytes = effect.bytes();
        if self.effects.len() == MOST || !self.fits(bytes) {
            self.cut = true;
            return;
        }
        self.effects.push(effect);
    }

    fn fits(&mut self, bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        self.bytes <= MOST_BYTES
    }

    /// All of its texts that a policy or a client may have written.
    pub fn texts(&mut self) -> impl Iterator<Item = &mut Box<str>> {
        let reads = self.reads.iter_mut().flat_map(|Read { asked, got }| asked.text().into_iter().chain(got.text()));
        let effects = self.effects.iter_mut().flat_map(|effect| {
            let (key, value) = effect.texts();
            std::iter::once(key).chain(value)
        });
        reads.chain(effects)
    }
}

impl Asked {
    fn text(&mut self) -> Option<&mut Box<str>> {
        match self {
            Asked::Service(text)
            | Asked::Endpoints(text)
            | Asked::LeastLoaded { service: text, .. }
            | Asked::Find { address: text, .. }
            | Asked::KnowledgeOf(text)
            | Asked::Add(text)
            | Asked::Take(text)
            | Asked::Get(text)
            | Asked::GetOrSet(text) => Some(text),
            Asked::Describe(_) => None,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Asked::Service(text)
            | Asked::Endpoints(text)
            | Asked::KnowledgeOf(text)
            | Asked::Add(text)
            | Asked::Take(text)
            | Asked::Get(text)
            | Asked::GetOrSet(text) => text.len(),
            Asked::LeastLoaded { service, subset, .. } => {
                service.len() + subset.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
            }
            Asked::Find { service, address } => service.len() + address.len(),
            Asked::Describe(_) => 4,
        }
    }

    /// It is about the catalog, of which a later look may be answered by an earlier one.
    pub fn is_of_catalog(&self) -> bool {
        !matches!(self, Asked::Add(_) | Asked::Take(_) | Asked::Get(_) | Asked::GetOrSet(_))
    }
}

impl Got {
    fn text(&mut self) -> Option<&mut Box<str>> {
        match self {
            Got::Value(value) => Some(value),
            Got::Known(known) => Some(&mut known.revision),
            _ => None,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Got::Endpoints(all) => all.len() * size_of::<EndpointNow>(),
            Got::Loaded(some) => some.len() * size_of::<LoadedNow>(),
            Got::Value(value) => value.len(),
            Got::Known(known) => known.revision.len(),
            _ => 16,
        }
    }
}

impl Effect {
    fn texts(&mut self) -> (&mut Box<str>, Option<&mut Box<str>>) {
        match self {
            Effect::Add(key, ..) | Effect::Take(key, ..) | Effect::Remove(key) => (key, None),
            Effect::Set(key, value, _) | Effect::GetOrSet(key, value, _) => (key, Some(value)),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Effect::Add(key, ..) | Effect::Take(key, ..) | Effect::Remove(key) => key.len(),
            Effect::Set(key, value, _) | Effect::GetOrSet(key, value, _) => key.len() + value.len(),
        }
    }
}
