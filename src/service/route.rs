//! Declared routes: a match rule and the service that it leads to.

mod index;
mod matcher;

pub use index::Index;
pub use matcher::{Match, RawMatch};

use crate::http::request::Head;
use crate::service::Service;
use crate::service::decision::Forward;
use rustc_hash::FxHashSet;
use std::ops::Deref;
use std::sync::Arc;

/// One declared route of a snapshot.
#[derive(Debug)]
pub struct Route {
    /// How logs, metrics and traces name it: its `name`, else its path or host.
    pub name: Arc<str>,
    /// Which requests it takes.
    pub matcher: Arc<Match>,
    /// Where they go.
    pub forward: Arc<Forward>,
}

impl Route {
    /// The service that it leads to.
    pub fn service(&self) -> &Arc<Service> {
        &self.forward.service
    }
}

/// All of a snapshot, in the configuration's order. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    routes: Arc<[Route]>,
    index: Arc<Index>,
    names: Arc<FxHashSet<Arc<str>>>,
}

impl Routes {
    /// These, of whose rules `index` was made. It outlives snapshots: rules change with the configuration alone, services
    /// with each report.
    pub fn new(routes: Vec<Route>, index: &Arc<Index>) -> Self {
        let index = match index.len() == routes.len() {
            true => Arc::clone(index),
            false => Arc::new(Index::of(routes.iter().map(|route| &*route.matcher))),
        };
        let names = routes.iter().map(|route| Arc::clone(&route.name)).collect();
        Routes { routes: routes.into(), index, names: Arc::new(names) }
    }

    /// The first that takes this request.
    pub fn first(&self, head: &Head) -> Option<&Route> {
        let mut candidates = self.index.candidates(head).filter_map(|number| self.routes.get(number));
        candidates.find(|route| route.matcher.fits(head))
    }

    /// Is a route called so?
    pub fn is_named(&self, name: &str) -> bool {
        self.names.contains(name)
    }
}

impl Deref for Routes {
    type Target = [Route];

    fn deref(&self) -> &Self::Target {
        &self.routes
    }
}
