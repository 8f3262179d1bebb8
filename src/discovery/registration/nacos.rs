//! Registration in Nacos 2.x: an ephemeral instance, which lives as long as the connection. So a connection that is a new one
//! registers it anew, and what is asked on it now and then shows whether it is still the same.

use super::{Instance, Outcome, Registrar, Work};
use crate::discovery;
use crate::discovery::registry::Failure;
use crate::discovery::registry::members;
use crate::discovery::registry::nacos::{Client, Session};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// For one answer.
const ANSWER: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(super) struct Nacos {
    client: Client,
    namespace: String,
    group: String,
    instance: Instance,
    session: Option<Session>,
    /// What was said last on this connection.
    said: Option<bool>,
}

impl Nacos {
    pub(super) fn registrar(
        table: toml::Table,
        namespace: &str,
        group: &str,
        instance: Instance,
    ) -> Result<Box<dyn Registrar>, String> {
        let settings: members::Settings = discovery::settings(table)?;
        let client = Client::new(settings, namespace)?;
        let (namespace, group) = (namespace.to_owned(), group.to_owned());
        Ok(Box::new(Nacos { client, namespace, group, instance, session: None, said: None }))
    }

    fn request(&self, kind: &str, enabled: bool) -> Value {
        let entry = self.instance.entry();
        json!({
            "namespace": self.namespace, "serviceName": self.instance.service, "groupName": self.group, "type": kind,
            "instance": {
                "ip": entry.address.ip().to_string(), "port": entry.address.port(), "weight": f64::from(entry.weight),
                "healthy": true, "enabled": enabled, "ephemeral": true, "metadata": entry.metadata,
            },
        })
    }

    async fn try_keep(&mut self, session: &mut Session, healthy: bool) -> Result<Outcome, Failure> {
        // What was pushed meanwhile, such as to go to another member.
        session.heard(Instant::now()).await?;
        self.client.renew(session, false).await?;
        if self.said == Some(healthy) {
            session.ask("HealthCheckRequest", &json!({}), ANSWER).await?;
            return Ok(Outcome::Kept);
        }
        session.ask("InstanceRequest", &self.request("registerInstance", healthy), ANSWER).await?;
        let outcome = if self.said.is_some() { Outcome::Kept } else { Outcome::Registered };
        self.said = Some(healthy);
        Ok(outcome)
    }
}

impl Registrar for Nacos {
    fn keep(&mut self, healthy: bool) -> Work<'_, Outcome> {
        Box::pin(async move {
            let session = match self.session.take() {
                Some(session) => Ok(session),
                None => {
                    self.said = None;
                    self.client.connect().await
                }
            };
            let outcome = match session {
                Ok(mut session) => {
                    let outcome = self.try_keep(&mut session, healthy).await;
                    if outcome.is_ok() {
                        self.session = Some(session);
                    }
                    outcome
                }
                Err(failure) => Err(failure),
            };
            if outcome.is_err() {
                self.client.leave();
            }
            outcome
        })
    }

    fn leave(&mut self) -> Work<'_, ()> {
        Box::pin(async move {
            // Without a connection there is nothing to take out.
            let Some(session) = self.session.take() else { return Ok(()) };
            session.ask("InstanceRequest", &self.request("deregisterInstance", true), ANSWER).await.map(drop)
        })
    }
}
