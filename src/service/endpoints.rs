//! The endpoints of a service as one snapshot lists them: found by number, by address and by what their metadata says,
//! without a walk over all of them, and those ready that can be picked.

mod bits;
mod labels;
mod line;
mod ready;
mod spill;
mod table;
mod zones;

pub use line::Line;
pub use ready::Ready;
pub use table::{Layout, Table, number};
pub use zones::Zones;

use super::Endpoint;
use super::endpoint::Group;
use super::plan::Plan;
use super::subset::Subset;
use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use labels::{Labels, Values};
use rustc_hash::FxHashMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

/// A list of endpoints, in the source's order, and what makes looking into it cheap. Clones share all of it.
#[derive(Debug, Clone, Default)]
pub struct Endpoints(Arc<List>);

#[derive(Debug, Default)]
struct List {
    endpoints: Vec<Arc<Endpoint>>,
    places: Arc<Places>,
    /// What they share.
    group: Arc<Group>,
    ready: ArcSwap<Ready>,
    labels: ArcSwap<Labels>,
    tables: Tables,
}

/// Those that somebody has asked for.
#[derive(Debug, Default)]
struct Tables {
    maglev: ArcSwapOption<Table>,
    race: ArcSwapOption<Table>,
}

/// What stands differently in two lists: all but what they begin and end with alike. With few changes next to each other
/// that is little, and found without a look at the endpoints.
pub fn changed<'a>(
    before: &'a [Arc<Endpoint>],
    after: &'a [Arc<Endpoint>],
) -> (&'a [Arc<Endpoint>], &'a [Arc<Endpoint>]) {
    let same = |(one, two): &(&Arc<Endpoint>, &Arc<Endpoint>)| Arc::ptr_eq(one, two);
    let first = before.iter().zip(after).take_while(same).count();
    let (before, after) = (&before[first..], &after[first..]);
    let last = before.iter().rev().zip(after.iter().rev()).take_while(same).count();
    (&before[..before.len() - last], &after[..after.len() - last])
}

/// Where in the list each endpoint stands.
#[derive(Debug, Default)]
struct Places {
    by_id: FxHashMap<u32, u32>,
    by_address: FxHashMap<SocketAddr, u32>,
}

impl Endpoints {
    /// This list, which comes after another one: what that knows and is still true is taken over, and what it was asked
    /// for is made ready.
    pub fn after(before: &Endpoints, endpoints: Vec<Arc<Endpoint>>) -> Self {
        let same = |(one, two): (&Arc<Endpoint>, &Arc<Endpoint>)| Arc::ptr_eq(one, two) || one.id == two.id;
        let places = match before.len() == endpoints.len() && before.iter().zip(&endpoints).all(same) {
            true => Arc::clone(&before.0.places),
            false => Arc::new(Places::of(&endpoints)),
        };
        let mut labels = Labels::default();
        for key in before.0.labels.load().keys() {
            labels = labels.with(key, &Arc::new(Values::walk(&endpoints, key))).unwrap_or(labels);
        }
        let tables = before.0.tables.of(&before.0.endpoints, &endpoints);
        Self::new(endpoints, places, labels, tables)
    }

    fn new(endpoints: Vec<Arc<Endpoint>>, places: Arc<Places>, labels: Labels, tables: Tables) -> Self {
        let group = endpoints.iter().find_map(|endpoint| endpoint.live.group()).cloned().unwrap_or_default();
        endpoints.iter().for_each(|endpoint| endpoint.live.join(&group));
        let ready = ArcSwap::from_pointee(Ready::walk(&endpoints, &group, None));
        Endpoints(Arc::new(List { endpoints, places, group, ready, labels: ArcSwap::from_pointee(labels), tables }))
    }

    /// Where the endpoint with this number stands.
    pub fn place(&self, id: u32) -> Option<u32> {
        self.0.places.by_id.get(&id).copied()
    }

    /// The endpoint with this number.
    pub fn by_id(&self, id: u32) -> Option<&Arc<Endpoint>> {
        self.get(self.place(id)? as usize)
    }

    /// Where the endpoint at this address stands.
    pub fn place_at(&self, address: SocketAddr) -> Option<u32> {
        self.0.places.by_address.get(&address).copied()
    }

    /// The endpoint at this address.
    pub fn by_address(&self, address: SocketAddr) -> Option<&Arc<Endpoint>> {
        self.get(self.place_at(address)? as usize)
    }

    /// Those that can be picked now. A walk over all of them only after the health of one has changed.
    pub fn ready(&self) -> Guard<Arc<Ready>> {
        let ready = self.0.ready.load();
        if ready.seen == self.0.group.changes() {
            return ready;
        }
        self.walk(None)
    }

    /// The same for whoever picks at `now_ms`, with the shares that tiers have then.
    pub fn ready_at(&self, now_ms: u64) -> Guard<Arc<Ready>> {
        let ready = self.0.ready.load();
        if ready.seen == self.0.group.changes() && ready.shares_until_ms.is_none_or(|until_ms| now_ms < until_ms) {
            return ready;
        }
        self.walk(Some(now_ms))
    }

    fn walk(&self, now_ms: Option<u64>) -> Guard<Arc<Ready>> {
        let walked = Arc::new(Ready::walk(self, &self.0.group, now_ms));
        // Should others walk at the same time, the last one stays, and is looked for again if it is not the newest.
        self.0.ready.store(Arc::clone(&walked));
        Guard::from_inner(walked)
    }

    /// The table with this layout and this many slots. It is laid when it is first asked for, which takes some ms, and from
    /// then on by whoever makes the list that comes after this one.
    pub fn table(&self, layout: Layout, size: u32) -> Guard<Option<Arc<Table>>> {
        let kept = self.0.tables.kept(layout);
        let table = kept.load();
        if table.as_ref().is_some_and(|table| table.size() == size as usize) {
            return table;
        }
        kept.store(Some(Arc::new(Table::new(layout, size.max(1), self))));
        kept.load()
    }

    /// Makes `left` the line of those on `line`, but for the ones that were tried, that the service's declared subset, and the
    /// plan's subset and preferences leave. `wish` is a buffer.
    pub fn narrow(
        &self,
        line: &Line,
        (declared, plan): (Option<&Subset>, &Plan),
        tried: &[u32],
        left: &mut Line,
        wish: &mut Vec<u64>,
    ) {
        left.bits.clone_from(&line.bits);
        for place in tried.iter().filter_map(|id| self.place(*id)) {
            if let Some(word) = left.bits.get_mut(place as usize / 64) {
                *word &= !(1 << (place % 64));
            }
        }
        let must = declared.filter(|declared| declared.is_must()).map(|declared| &declared.metadata);
        let wished = declared.filter(|declared| !declared.is_must()).map(|declared| &declared.metadata);
        let musts = must.into_iter().flatten().chain(&plan.subset);
        musts.for_each(|(key, value)| self.keep(key, value, &mut left.bits));
        for pairs in wished.into_iter().chain(&plan.prefer) {
            wish.clone_from(&left.bits);
            pairs.iter().for_each(|(key, value)| self.keep(key, value, wish));
            if wish.iter().any(|word| *word != 0) {
                std::mem::swap(&mut left.bits, wish);
            }
        }
        left.refill(self);
    }

    /// Takes out of `words`, which are bits of places, all that do not have this pair in their metadata.
    fn keep(&self, key: &str, value: &str, words: &mut [u64]) {
        if let Some(values) = self.0.labels.load().values(key) {
            return values.keep(value, words);
        }
        let values = Arc::new(Values::walk(self, key));
        values.keep(value, words);
        self.0.labels.rcu(|labels| labels.with(key, &values).map_or_else(|| Arc::clone(labels), Arc::new));
    }
}

impl Tables {
    fn kept(&self, layout: Layout) -> &ArcSwapOption<Table> {
        match layout {
            Layout::Maglev => &self.maglev,
            Layout::Race => &self.race,
        }
    }

    /// The same for the list that comes `after`; laid anew where others are in it, or weigh something else.
    fn of(&self, before: &[Arc<Endpoint>], after: &[Arc<Endpoint>]) -> Tables {
        let tables = Tables::default();
        let same =
            |(one, two): (&Arc<Endpoint>, &Arc<Endpoint>)| (one.address, one.weight) == (two.address, two.weight);
        let same = || before.len() == after.len() && before.iter().zip(after).all(same);
        for layout in [Layout::Maglev, Layout::Race] {
            let Some(table) = self.kept(layout).load_full() else { continue };
            let size = u32::try_from(table.size()).unwrap_or(u32::MAX);
            let next = if same() { table } else { Arc::new(Table::new(layout, size, after)) };
            tables.kept(layout).store(Some(next));
        }
        tables
    }
}

impl Places {
    fn of(endpoints: &[Arc<Endpoint>]) -> Self {
        let mut places = Places::default();
        places.by_id.reserve(endpoints.len());
        places.by_address.reserve(endpoints.len());
        for (place, endpoint) in (0..).zip(endpoints) {
            places.by_id.entry(endpoint.id).or_insert(place);
            places.by_address.entry(endpoint.address).or_insert(place);
        }
        places
    }
}

impl Deref for Endpoints {
    type Target = [Arc<Endpoint>];

    fn deref(&self) -> &Self::Target {
        &self.0.endpoints
    }
}

impl<'a> IntoIterator for &'a Endpoints {
    type Item = &'a Arc<Endpoint>;
    type IntoIter = std::slice::Iter<'a, Arc<Endpoint>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl FromIterator<Arc<Endpoint>> for Endpoints {
    fn from_iter<T: IntoIterator<Item = Arc<Endpoint>>>(endpoints: T) -> Self {
        Endpoints::after(&Endpoints::default(), endpoints.into_iter().collect())
    }
}

#[cfg(test)]
mod tests;
