//! The question to the health endpoint, and what is made of its answer. It follows
//! developer.hashicorp.com/consul/api-docs/health#list-service-instances.

use super::answer;
use super::{Settings, States};
use crate::discovery::registry::consul::{Client, Query};
use crate::discovery::registry::{Failure, Kind};
use crate::discovery::{Lookup, Observed};

/// Asks one agent for services.
#[derive(Debug)]
pub(super) struct Health {
    pub(super) client: Client,
    pub(super) settings: Settings,
}

/// A good answer.
#[derive(Debug)]
pub(super) struct Reply {
    /// Consul's index; 0: there was none.
    pub(super) index: u64,
    pub(super) observed: Observed,
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
        let observed = answer::parse(&reply.body);
        let mut observed = observed.map_err(|problem| reply.failure(Kind::BadAnswer, &problem))?;
        observed.revision = reply.index.to_string();
        if self.settings.states == States::NotCritical {
            observed.endpoints.retain(|entry| entry.healthy);
        }
        if observed.endpoints.is_empty() && reply.header("x-consul-results-filtered-by-acls") == Some("true") {
            let problem = "the answer is empty because the token may not read the service or its nodes";
            return Err(reply.failure(Kind::Denied, problem));
        }
        Ok(Reply { index: reply.index, observed })
    }

    /// What of a service is asked for.
    pub(super) fn parameters<'a>(&'a self, lookup: &'a Lookup) -> Vec<(&'static str, &'a str)> {
        let settings = &self.settings;
        let passing = (settings.states == States::Passing).then_some(("passing", "1"));
        let datacenter = settings.datacenter.as_deref().map(|datacenter| ("dc", datacenter));
        let tags = settings.tags.iter().chain(&lookup.tags).map(|tag| ("tag", tag.as_str()));
        passing.into_iter().chain(datacenter).chain(tags).collect()
    }
}
