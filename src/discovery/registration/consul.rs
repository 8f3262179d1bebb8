//! Registration at an agent of Consul: a service with a check that the agent makes (HTTP, where a path is given) or that is
//! told to it (TTL). Either way it is looked after: an agent that was started anew knows nothing of it.
//! It follows developer.hashicorp.com/consul/api-docs/agent/service and …/agent/check.

use super::{Instance, Outcome, Registrar, Work};
use crate::discovery;
use crate::discovery::registry::consul::{Client, Query, Settings};
use crate::discovery::registry::{Failure, Kind};
use serde_json::json;
use std::time::Duration;

/// Consul takes a service out that was critical for so long, a minute at least.
const GONE_AFTER: &str = "1m";

#[derive(Debug)]
pub(super) struct Consul {
    client: Client,
    instance: Instance,
    /// It is registered, as far as we know; and not drained.
    said: Option<bool>,
}

impl Consul {
    pub(super) fn registrar(table: toml::Table, instance: Instance) -> Result<Box<dyn Registrar>, String> {
        let settings: Settings = discovery::settings(table)?;
        Ok(Box::new(Consul { client: Client::new(settings)?, instance, said: None }))
    }

    fn check_id(&self) -> String {
        format!("service:{}", self.instance.id)
    }

    /// The agent still has it, and knows that it lives.
    async fn beat(&self) -> Result<bool, Failure> {
        let id = self.check_id();
        let answer = match self.instance.health {
            // The agent asks by itself.
            Some(_) => {
                let path = ["agent", "service", &self.instance.id];
                let reply = self.client.find(&Query { path: &path, parameters: &[], index: 0 }).await?;
                return Ok(reply.found);
            }
            None => self.client.put(&["agent", "check", "pass", &id], &[], vec![]).await,
        };
        match answer {
            Ok(_) => Ok(true),
            Err(failure) if matches!(failure.kind, Kind::Silent | Kind::Denied) => Err(failure),
            // "does not have associated TTL" (500), or 404 of a newer one: it does not know the check. Where nobody is
            // there, to register says so.
            Err(_) => Ok(false),
        }
    }

    async fn register(&self) -> Result<(), Failure> {
        let Instance { service, id, address, weight, metadata, tags, ttl, health } = &self.instance;
        let seconds = |time: Duration| format!("{}ms", time.as_millis().max(1000));
        let mut check = json!({"CheckID": self.check_id(), "DeregisterCriticalServiceAfter": GONE_AFTER});
        match health {
            Some(path) => {
                check["HTTP"] = json!(format!("http://{address}{path}"));
                check["Interval"] = json!(seconds(*ttl / 3));
                check["Timeout"] = json!(seconds(*ttl / 3));
            }
            None => check["TTL"] = json!(seconds(*ttl)),
        }
        // It serves already: whoever registers it has seen that.
        check["Status"] = json!("passing");
        let body = json!({
            "Name": service, "ID": id, "Address": address.ip().to_string(), "Port": address.port(), "Tags": tags,
            "Meta": metadata, "Weights": {"Passing": weight, "Warning": 1}, "Check": check
        });
        let replace = [("replace-existing-checks", "true")];
        let path = ["agent", "service", "register"];
        self.client.put(&path, &replace, body.to_string().into_bytes()).await.map(drop)
    }

    async fn mark(&self, healthy: bool) -> Result<(), Failure> {
        let enable = if healthy { "false" } else { "true" };
        let parameters = [("enable", enable), ("reason", "draining")];
        self.client.put(&["agent", "service", "maintenance", &self.instance.id], &parameters, vec![]).await.map(drop)
    }
}

impl Registrar for Consul {
    fn keep(&mut self, healthy: bool) -> Work<'_, Outcome> {
        Box::pin(async move {
            let known = self.said.is_some() && self.beat().await?;
            if !known {
                self.said = None;
                self.register().await?;
                self.said = Some(true);
            }
            if self.said != Some(healthy) {
                self.mark(healthy).await?;
                self.said = Some(healthy);
            }
            Ok(if known { Outcome::Kept } else { Outcome::Registered })
        })
    }

    fn leave(&mut self) -> Work<'_, ()> {
        Box::pin(async move {
            let path = ["agent", "service", "deregister", &self.instance.id];
            self.client.put(&path, &[], vec![]).await.map(drop)
        })
    }
}
