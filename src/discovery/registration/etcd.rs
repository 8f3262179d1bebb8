//! Registration in etcd: a key with a lease, which is kept alive. The answer to that says whether it still is one.

use super::{Instance, Outcome, Registrar, Work};
use crate::discovery;
use crate::discovery::registry::Failure;
use crate::discovery::registry::etcd::messages::{Compare, Operation, PutRequest};
use crate::discovery::registry::etcd::{Client, Session};
use crate::discovery::registry::members;

#[derive(Debug)]
pub(super) struct Etcd {
    client: Client,
    key: Vec<u8>,
    instance: Instance,
    session: Option<Session>,
    /// And how the instance was put under it.
    lease: Option<(i64, bool)>,
}

impl Etcd {
    pub(super) fn registrar(
        table: toml::Table,
        prefix: String,
        instance: Instance,
    ) -> Result<Box<dyn Registrar>, String> {
        let members: members::Settings = discovery::settings(table)?;
        let key = format!("{prefix}{}/{}", instance.service, instance.address).into_bytes();
        Ok(Box::new(Etcd { client: Client::new(members), key, instance, session: None, lease: None }))
    }

    async fn try_keep(&mut self, session: &mut Session, healthy: bool) -> Result<Outcome, Failure> {
        let kept = match self.lease {
            Some((lease, said)) if session.keep(lease).await? => Some((lease, said)),
            _ => None,
        };
        let (lease, outcome, only_if) = match kept {
            // Somebody may have taken the key away though its lease lasts.
            Some((lease, said)) if said == healthy => (lease, Outcome::Kept, vec![self.nothing_there()]),
            Some((lease, _)) => (lease, Outcome::Kept, vec![]),
            None => {
                let seconds = i64::try_from(self.instance.ttl.as_secs().max(1)).unwrap_or(i64::MAX);
                (session.grant(seconds).await?, Outcome::Registered, vec![])
            }
        };
        let asked = !only_if.is_empty();
        let put = PutRequest { key: self.key.clone(), value: self.instance.value(healthy), lease };
        let put = session.transact(only_if, vec![Operation::Put(put)]).await?;
        let outcome = if asked && put.succeeded { Outcome::Registered } else { outcome };
        self.lease = Some((lease, healthy));
        Ok(outcome)
    }

    /// The key is not there: what never was has been changed in revision 0.
    fn nothing_there(&self) -> Compare {
        Compare { result: 0, target: Compare::MOD, key: self.key.clone(), mod_revision: Some(0) }
    }
}

impl Registrar for Etcd {
    fn keep(&mut self, healthy: bool) -> Work<'_, Outcome> {
        Box::pin(async move {
            let mut session = match self.session.take() {
                Some(session) => session,
                None => self.client.connect().await?,
            };
            let outcome = self.try_keep(&mut session, healthy).await;
            match outcome {
                Ok(_) => self.session = Some(session),
                Err(_) => self.client.leave(),
            }
            outcome
        })
    }

    fn leave(&mut self) -> Work<'_, ()> {
        Box::pin(async move {
            let Some((lease, _)) = self.lease.take() else { return Ok(()) };
            let mut session = match self.session.take() {
                Some(session) => session,
                None => self.client.connect().await?,
            };
            session.revoke(lease).await
        })
    }
}
