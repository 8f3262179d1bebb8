//! The question to the health endpoint, and what is made of its answer. It follows
//! developer.hashicorp.com/consul/api-docs/health#list-service-instances.

use super::answer;
use super::hosts::Hosts;
use super::{Settings, States};
use crate::discovery::registry::consul::{Client, Query};
use crate::discovery::registry::{Failure, Kind};
use crate::discovery::{Lookup, Observed};
use tokio::time::Instant;

/// Asks one agent for services.
#[derive(Debug)]
pub(super) struct Health {
    pub(super) client: Client,
    pub(super) settings: Settings,
    /// None: names are no addresses.
    pub(super) hosts: Option<Hosts>,
}

/// A good answer.
#[derive(Debug)]
pub(super) struct Reply {
    /// Consul's index; 0: there was none.
    pub(super) index: u64,
    pub(super) observed: Observed,
    /// When names in it are to be looked up again; none: there are none.
    pub(super) again: Option<Instant>,
}

impl Health {
    /// Asks for a service: answered at once with index 0, else when something changed or `wait` is over.
    ///
    /// # Errors
    /// What went wrong, in one line without secrets.
    pub(super) async fn query(&self, lookup: &Lookup, index: u64) -> Result<Reply, Failure> {
        let name = lookup.registered_as.as_str();
        let (path, parameters) = (["health", "service", name], self.parameters(lookup));
        // As path segments, dots would be dropped.
        if matches!(name, "" | "." | "..") {
            let problem = format!("{}: `{name}` is no name of a service", self.settings.client.address);
            return Err(Failure { kind: Kind::BadAnswer, problem });
        }
        let reply = self.client.get(&Query { path: &path, parameters: &parameters, index }).await?;
        let answer = answer::parse(&reply.body, self.settings.tagged_address.as_deref());
        let answer = answer.map_err(|problem| reply.failure(Kind::BadAnswer, &problem))?;
        let (resolved, again) = match &self.hosts {
            None => (None, None),
            Some(hosts) => {
                let (resolved, again) = hosts.resolve(&answer.names()).await;
                (Some(resolved), again)
            }
        };
        let mut observed = answer.observed(resolved.as_ref());
        observed.revision = reply.index.to_string();
        if self.settings.states == States::NotCritical {
            observed.endpoints.retain(|entry| entry.healthy);
        }
        if observed.endpoints.is_empty() && reply.header("x-consul-results-filtered-by-acls") == Some("true") {
            let problem = "the answer is empty because the token may not read the service or its nodes";
            return Err(reply.failure(Kind::Denied, problem));
        }
        Ok(Reply { index: reply.index, observed, again })
    }

    /// What of a service is asked for.
    pub(super) fn parameters<'a>(&'a self, lookup: &'a Lookup) -> Vec<(&'static str, &'a str)> {
        let settings = &self.settings;
        let passing = (settings.states == States::Passing).then_some(("passing", "1"));
        let datacenter = settings.datacenter.as_deref().map(|datacenter| ("dc", datacenter));
        let named = [("ns", &settings.namespace), ("partition", &settings.partition), ("filter", &settings.filter)];
        let named = named.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        let node = settings.node_meta.iter().map(|pair| ("node-meta", pair.as_str()));
        let tags = settings.tags.iter().chain(&lookup.tags).map(|tag| ("tag", tag.as_str()));
        passing.into_iter().chain(datacenter).chain(named).chain(node).chain(tags).collect()
    }
}
