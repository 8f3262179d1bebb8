//! The servers of a conversation as they come and go: who is lost is waited for, who is new is connected with.

use super::super::servers::{Server, Way};
use super::super::{Heard, Redis};
use super::{LOOK, LOOK_FOR_MISSING, Run};
use crate::discovery::keeper::Keepers;
use crate::discovery::registry::redis::Master;
use crate::discovery::registry::{Failure, Kind};
use std::sync::PoisonError;
use tokio::time::Instant;

impl Run<'_> {
    /// Connects with those of these that are not connected yet.
    pub(super) async fn connect(&mut self, masters: Vec<Master>, services: &mut Keepers) -> Result<(), Failure> {
        self.servers.retain(|server| masters.iter().any(|master| master.address == server.master.address));
        self.missing.clear();
        for master in masters {
            if let Some(server) = self.servers.iter_mut().find(|server| server.master.address == master.address) {
                server.master = master;
                continue;
            }
            match Server::connect(&self.source.client, master.clone(), &self.names, &self.pushes).await {
                Ok((server, why)) => {
                    self.source.tell(services.source(), &server, &why);
                    self.servers.push(server);
                }
                Err(failure) => self.missing.push((master, failure)),
            }
        }
        self.anybody()
    }

    /// Is there a server left?
    fn anybody(&self) -> Result<(), Failure> {
        match self.missing.first() {
            _ if !self.servers.is_empty() => Ok(()),
            Some((_, failure)) => Err(failure.clone()),
            None => Err(Failure::new(Kind::Unreachable, "no server is left")),
        }
    }

    /// A server is lost: one of a cluster's is waited for while the others go on.
    pub(super) fn lose(&mut self, address: &str, failure: Failure) -> Result<(), Failure> {
        if let Some(at) = self.servers.iter().position(|server| server.master.address == address) {
            let server = self.servers.remove(at);
            self.missing.push((server.master, failure));
            self.look = self.look.min(Instant::now() + LOOK_FOR_MISSING);
        }
        self.anybody()
    }

    /// The same for several, which is told.
    pub(super) async fn lost(&mut self, lost: Vec<(String, Failure)>, services: &mut Keepers) -> Result<(), Failure> {
        let any = !lost.is_empty();
        for (address, failure) in lost {
            self.lose(&address, failure)?;
        }
        if any {
            self.tell_how_it_is(services).await;
        }
        Ok(())
    }

    /// All is told, or all but what is missing.
    pub(super) async fn tell_how_it_is(&self, services: &mut Keepers) {
        match self.missing.first() {
            None => services.whole().await,
            Some((_, failure)) => {
                services
                    .partly(&format!("{}; what it had is kept, the other masters are followed", failure.problem))
                    .await;
            }
        }
    }

    /// A key is elsewhere: it is asked who has it, and again each second as long as that does not help.
    pub(super) fn unsettle(&mut self) {
        self.look = self.look.min(self.looked + LOOK_FOR_MISSING);
        self.unsettled = true;
    }

    /// Asks who the masters are, and follows those.
    pub(super) async fn look(&mut self, services: &mut Keepers) -> Result<(), Failure> {
        let client = &self.source.client;
        let mut masters = None;
        if client.has_sentinels() {
            // Whoever asks them gets no answer as long as they do not agree: then all is as it was.
            masters = client.find().await.ok();
        } else {
            for server in self.servers.iter().filter(|server| !server.master.slots.is_empty()) {
                masters = client.masters(&server.connection).await.ok();
                if masters.is_some() {
                    break;
                }
            }
        }
        let now = |run: &Self| run.servers.iter().map(|server| server.master.clone()).collect::<Vec<_>>();
        let (before, was_missing, started) = (now(self), !self.missing.is_empty(), Instant::now());
        if let Some(masters) = masters {
            self.connect(masters, services).await?;
        }
        self.looked = Instant::now();
        // To wait for who does not answer holds up the others.
        let soon = LOOK_FOR_MISSING.max(started.elapsed() * 3);
        self.look = self.looked + if self.missing.is_empty() { LOOK } else { soon };
        let same = now(self) == before && was_missing != self.missing.is_empty();
        match std::mem::take(&mut self.unsettled) {
            true => self.list(services).await,
            false if same => Ok(()),
            false => self.list_but(&before, services).await,
        }
    }
}

impl Redis {
    /// Says once how a server is followed, and again when that is another way.
    fn tell(&self, source: &str, server: &Server, why: &str) {
        let told = Heard { way: server.way, why: why.to_owned() };
        let mut all = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let address = &server.master.address;
        if all.get(address) != Some(&told) {
            let way = server.way.to_string();
            match server.way {
                Way::Tracking => tracing::info!(source, server = %address, way, "changes are heard of"),
                _ => tracing::warn!(source, server = %address, way, why, "changes are not heard of in the best way"),
            }
            if all.len() < 1_000 {
                all.insert(address.clone(), told);
            }
        }
    }
}
