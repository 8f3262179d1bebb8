//! Registration in ZooKeeper: an ephemeral node, which lives as long as the session. A connection that broke is followed by one
//! that goes on with the same session; only where that has expired, the node is made anew. Somebody else's node of the same
//! name is the one of a session of ours that is about to expire, and is replaced.

use super::{Instance, Outcome, Registrar, Work};
use crate::discovery;
use crate::discovery::registry::members::{self, Members};
use crate::discovery::registry::zookeeper::message::{Answer, Refusal, Request, Stat, Watch};
use crate::discovery::registry::zookeeper::{Session, Ticket};
use crate::discovery::registry::{Failure, Kind};

#[derive(Debug)]
pub(super) struct ZooKeeper {
    members: Members,
    path: String,
    instance: Instance,
    session: Option<Session>,
    ticket: Option<Ticket>,
    /// What was said last of the node that is there.
    said: Option<bool>,
}

impl ZooKeeper {
    pub(super) fn registrar(table: toml::Table, path: &str, instance: Instance) -> Result<Box<dyn Registrar>, String> {
        let settings: members::Settings = discovery::settings(table)?;
        let path = format!("{}/{}/{}", path.trim_end_matches('/'), instance.service, instance.address);
        let members = Members::new(settings);
        Ok(Box::new(ZooKeeper { members, path, instance, session: None, ticket: None, said: None }))
    }

    async fn session(&mut self) -> Result<Session, Failure> {
        if let Some(session) = self.session.take() {
            return Ok(session);
        }
        let tls = self.members.settings.tls.as_ref();
        let mut session = Session::open(self.members.member(), tls, self.instance.ttl, self.ticket.as_ref()).await?;
        if let Some((user, password)) = self.members.login().await? {
            session.authenticate(&user, &password).await?;
        }
        self.ticket = Some(session.ticket().clone());
        Ok(session)
    }

    async fn try_keep(&mut self, session: &mut Session, healthy: bool) -> Result<Outcome, Failure> {
        match session.ask(Request::Exists(&self.path, Watch::No)).await? {
            Answer::Node(Stat { owner, .. }) if owner == session.ticket().session => {
                if self.said != Some(healthy) {
                    done(session, Request::Set(&self.path, &self.instance.value(healthy)), &[]).await?;
                    self.said = Some(healthy);
                }
                return Ok(Outcome::Kept);
            }
            Answer::Node(_) => done(session, Request::Delete(&self.path), &[Refusal::NoNode]).await?,
            Answer::Refused(Refusal::NoNode) => {
                // What lies above it stays, so it is there nearly always.
                for (slash, _) in self.path.match_indices('/').skip(1) {
                    let above = Request::Create { path: &self.path[..slash], data: b"", ephemeral: false };
                    done(session, above, &[Refusal::Exists]).await?;
                }
            }
            answer => return Err(refused(session, &answer)),
        }
        let data = self.instance.value(healthy);
        done(session, Request::Create { path: &self.path, data: &data, ephemeral: true }, &[]).await?;
        self.said = Some(healthy);
        Ok(Outcome::Registered)
    }
}

/// Asks for something that is done then, or that need not be done.
async fn done(session: &mut Session, request: Request<'_>, needless: &[Refusal]) -> Result<(), Failure> {
    match session.ask(request).await? {
        Answer::Refused(refusal) if !needless.contains(&refusal) => Err(refused(session, &Answer::Refused(refusal))),
        _ => Ok(()),
    }
}

fn refused(session: &Session, answer: &Answer) -> Failure {
    match answer {
        Answer::Refused(Refusal::NotAllowed | Refusal::NotBelieved) => {
            session.failure(Kind::Denied, "it may not be written with this user name and password")
        }
        Answer::Refused(refusal) => session.failure(Kind::Unreachable, refusal),
        _ => session.failure(Kind::BadAnswer, "another answer than to what was asked"),
    }
}

impl Registrar for ZooKeeper {
    fn keep(&mut self, healthy: bool) -> Work<'_, Outcome> {
        Box::pin(async move {
            let outcome = match self.session().await {
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
                self.members.next();
            }
            outcome
        })
    }

    fn leave(&mut self) -> Work<'_, ()> {
        Box::pin(async move {
            // The node goes with its session.
            self.session().await?.close().await
        })
    }
}
