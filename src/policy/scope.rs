//! A policy as the data path sees it: which requests it is asked about, and who answers for it.

use super::live::PolicyLive;
use super::release::{Canary, Desk, History};
use super::version::Version;
use crate::http::request::Head;
use crate::service::route::{Index, Match};
use serde::{Deserialize, Serialize};
use std::ops::Deref;
use std::sync::Arc;

/// What follows when a policy faults or cannot be asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFault {
    /// 503.
    #[default]
    Unavailable,
    /// As if it had said `next`.
    Next,
    /// Straight to the declared routes.
    Routes,
}

/// One policy of a snapshot: which requests it is asked about, and the version that answers.
#[derive(Debug)]
pub struct Scope {
    /// The file name without `.wasm`.
    pub name: Arc<str>,
    /// From its sidecar.
    pub matcher: Match,
    /// From its sidecar.
    pub on_fault: OnFault,
    /// Who answers.
    pub standing: Standing,
    /// Who answers a part of the clients, to see how that goes.
    pub canary: Option<Arc<Canary>>,
    /// What belongs to its name.
    pub live: Arc<PolicyLive>,
    /// The newest file is being compiled or readied.
    pub loading: bool,
    /// Why the newest file was rejected.
    pub error: Option<String>,
    /// What is known of its versions.
    pub history: Arc<History>,
    /// Where to say what shall become of them.
    pub desk: Desk,
}

/// All of a snapshot, in the order in which they are asked. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Scopes {
    scopes: Arc<[Arc<Scope>]>,
    index: Arc<Index>,
}

impl Scopes {
    /// Those that are asked about this request, in order.
    pub fn asked(&self, head: &Head) -> impl Iterator<Item = &Arc<Scope>> {
        let candidates = (!self.index.is_empty()).then(|| self.index.candidates(head));
        let candidates = candidates.into_iter().flatten().filter_map(|number| self.scopes.get(number));
        candidates.filter(|scope| !matches!(scope.standing, Standing::Pending) && scope.matcher.fits(head))
    }
}

impl From<Vec<Arc<Scope>>> for Scopes {
    fn from(scopes: Vec<Arc<Scope>>) -> Self {
        let index = Arc::new(Index::of(scopes.iter().map(|scope| &scope.matcher)));
        Scopes { scopes: scopes.into(), index }
    }
}

impl Deref for Scopes {
    type Target = [Arc<Scope>];

    fn deref(&self) -> &Self::Target {
        &self.scopes
    }
}

/// Who answers for a policy.
#[derive(Debug, Clone)]
pub enum Standing {
    /// This version.
    Live(Arc<Version>),
    /// Nobody: it was bad when the gateway started, so its requests get `on_fault`.
    Broken,
    /// Nobody yet: it came while the gateway ran and never loaded, so it is not asked.
    Pending,
}

impl Standing {
    /// The version that answers, if there is one.
    pub fn live(&self) -> Option<&Arc<Version>> {
        match self {
            Standing::Live(version) => Some(version),
            Standing::Broken | Standing::Pending => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::Peer;
    use crate::service::route::RawMatch;

    #[test]
    fn those_that_fit_are_asked_in_order() {
        let scope = |name: &str, prefix: &str, standing: Standing| {
            let rule = RawMatch { path_prefix: Some(prefix.to_owned()), ..RawMatch::default() };
            Arc::new(Scope {
                name: name.into(),
                matcher: rule.check().unwrap(),
                on_fault: OnFault::default(),
                standing,
                canary: None,
                live: Arc::default(),
                loading: false,
                error: None,
                history: Arc::default(),
                desk: Desk::default(),
            })
        };
        let scopes = Scopes::from(vec![
            scope("a", "/a/b", Standing::Broken),
            scope("b", "/", Standing::Broken),
            scope("c", "/a", Standing::Pending),
            scope("d", "/c", Standing::Broken),
            scope("e", "/a", Standing::Broken),
        ]);
        let request = http::Request::get("/a/b/x").body(()).unwrap();
        let head = Head::new(request.into_parts().0, Peer::new(([127, 0, 0, 1], 1).into()), &[]);
        let asked: Vec<&str> = scopes.asked(&head).map(|scope| &*scope.name).collect();
        assert_eq!((asked.as_slice(), scopes.len()), (&["a", "b", "e"][..], 5));
    }
}
