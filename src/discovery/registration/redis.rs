//! Registration in Redis or Valkey: a key with a time to live, written anew each time, which also tells whether it was still
//! there.

use super::{Instance, Outcome, Registrar, Work};
use crate::discovery;
use crate::discovery::registry::redis::{Client, Keyed, Settings};

#[derive(Debug)]
pub(super) struct Redis {
    keyed: Keyed,
    key: Vec<u8>,
    instance: Instance,
}

impl Redis {
    pub(super) fn registrar(
        table: toml::Table,
        prefix: &str,
        instance: Instance,
    ) -> Result<Box<dyn Registrar>, String> {
        let settings: Settings = discovery::settings(table)?;
        let key = format!("{prefix}{}:{}", instance.service, instance.address).into_bytes();
        Ok(Box::new(Redis { keyed: Keyed::new(Client::new(settings)), key, instance }))
    }
}

impl Registrar for Redis {
    fn keep(&mut self, healthy: bool) -> Work<'_, Outcome> {
        Box::pin(async move {
            let before = self.keyed.set(&self.key, &self.instance.value(healthy), self.instance.ttl).await?;
            Ok(if before.is_some() { Outcome::Kept } else { Outcome::Registered })
        })
    }

    fn leave(&mut self) -> Work<'_, ()> {
        Box::pin(async move { self.keyed.delete(&self.key).await.map(drop) })
    }
}
