//! The question to the health endpoint, and what is made of its answer. It follows
//! developer.hashicorp.com/consul/api-docs/health#list-service-instances.

use super::answer::{self, Answer};
use super::{Settings, States};
use crate::discovery::Lookup;
use crate::discovery::registry::consul::{Client, Query};
use crate::discovery::registry::{Failure, Kind};

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
    pub(super) answer: Answer,
    /// What is wrong with all of its entries.
    pub(super) unusable: Option<Failure>,
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
        let mut answer = answer::parse(&reply.body).map_err(|problem| reply.failure(Kind::BadAnswer, &problem))?;
        if self.settings.states == States::NotCritical {
            answer.endpoints.retain(|entry| entry.healthy);
        }
        if answer.endpoints.is_empty() && reply.header("x-consul-results-filtered-by-acls") == Some("true") {
            let problem = "the answer is empty because the token may not read the service or its nodes";
            return Err(reply.failure(Kind::Denied, problem));
        }
        let unusable = answer.problem().map(|problem| reply.failure(Kind::BadAnswer, &problem));
        Ok(Reply { index: reply.index, answer, unusable })
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
