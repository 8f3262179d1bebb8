//! Registration: a service's instance in a registry, kept there while it lives, marked before it goes, and gone when it is
//! gone, also where nobody can say so: whoever stops keeping it loses it after its `ttl`.
//!
//! ```no_run
//! # async fn example() -> Result<(), String> {
//! use wayside::discovery::registration::{Instance, Registration};
//!
//! let instance = Instance::new("users", "10.0.0.7:8080".parse().unwrap());
//! let registration = Registration::begin("etcd://127.0.0.1:2379/services/", instance)?;
//! registration.registered().await;
//! // … serve, until it is time to go:
//! registration.drain().await; // nobody sends new requests
//! registration.leave().await; // and it is out
//! # Ok(())
//! # }
//! ```

mod consul;
mod etcd;
mod nacos;
mod redis;
mod zookeeper;

use super::backoff::Backoff;
use super::keeper::longest_wait;
use super::registry::Failure;
pub use super::registry::place::Place;
use super::{Entry, Metadata};
use serde_json::json;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// How long the registry is waited for when an instance leaves.
const LEAVING: Duration = Duration::from_secs(3);

/// What is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// The service that it is one of.
    pub service: String,
    /// What the registry calls it, where it has names for instances; unique in its service.
    pub id: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Share of traffic.
    pub weight: u32,
    /// What is said of it.
    pub metadata: Metadata,
    /// Tags, where the registry knows them; else in the metadata, as `tags`.
    pub tags: Vec<String>,
    /// How long it stays in the registry when nobody keeps it.
    pub ttl: Duration,
    /// Path of an HTTP check, or none; for registries that check by themselves (Consul).
    pub health: Option<String>,
}

impl Instance {
    /// With weight 1, nothing said of it, and a `ttl` of 15 s.
    pub fn new(service: &str, address: SocketAddr) -> Self {
        Instance {
            service: service.to_owned(),
            id: format!("{service}-{address}"),
            address,
            weight: 1,
            metadata: Metadata::new(),
            tags: Vec::new(),
            ttl: Duration::from_secs(15),
            health: None,
        }
    }

    /// The JSON value that all registries hold which hold values.
    fn value(&self, healthy: bool) -> Vec<u8> {
        let Instance { address, weight, metadata, tags, .. } = self;
        let mut value = json!({"address": address.to_string(), "weight": weight});
        if !metadata.is_empty() {
            value["metadata"] = json!(metadata);
        }
        if !tags.is_empty() {
            value["tags"] = json!(tags);
        }
        if !healthy {
            value["healthy"] = json!(false);
        }
        value.to_string().into_bytes()
    }

    /// As a source will report it.
    pub fn entry(&self) -> Entry {
        let mut metadata = self.metadata.clone();
        if !self.tags.is_empty() {
            metadata.insert("tags".to_owned(), self.tags.join(","));
        }
        Entry { address: self.address, weight: self.weight, healthy: true, metadata }
    }
}

/// What has become of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It is there, and was.
    Kept,
    /// It is there, and was not.
    Registered,
}

/// A future of a registrar.
type Work<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// Speaks to one registry for one instance.
trait Registrar: fmt::Debug + Send {
    /// Makes sure that the instance is there for another `ttl`, as `healthy` or not.
    fn keep(&mut self, healthy: bool) -> Work<'_, Outcome>;
    /// Takes it out.
    fn leave(&mut self) -> Work<'_, ()>;
}

/// An instance that is kept in a registry by a task of its own. Dropped, it is no longer kept, and goes after its `ttl`.
#[derive(Debug)]
pub struct Registration {
    orders: mpsc::Sender<Order>,
    registered: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
enum Order {
    Drain(oneshot::Sender<()>),
    Leave(oneshot::Sender<()>),
}

impl Registration {
    /// Begins to keep an instance in the registry at this place, like `consul://127.0.0.1:8500`. It goes on until it is told
    /// to leave; a registry that is away or has forgotten it is told again as soon as it answers.
    ///
    /// # Errors
    /// What is wrong with the place.
    pub fn begin(place: &str, instance: Instance) -> Result<Self, String> {
        Self::at(&place.parse()?, instance)
    }

    /// The same at a place with credentials.
    ///
    /// # Errors
    /// What is wrong with the place.
    pub fn at(place: &Place, instance: Instance) -> Result<Self, String> {
        let ttl = instance.ttl;
        let registrar = registrar(place, instance)?;
        let (orders, given) = mpsc::channel(4);
        let (tell, registered) = watch::channel(false);
        let task = tokio::spawn(run(registrar, ttl, given, tell));
        Ok(Registration { orders, registered, task })
    }

    /// Waits until it is registered for the first time.
    pub async fn registered(&self) {
        let _ = self.registered.clone().wait_for(|registered| *registered).await;
    }

    /// Marks it, so that it gets no new requests; waits some seconds for the registry at most.
    pub async fn drain(&self) {
        self.order(Order::Drain).await;
    }

    /// Takes it out; waits some seconds for the registry at most.
    pub async fn leave(mut self) {
        self.order(Order::Leave).await;
        let _ = (&mut self.task).await;
    }

    async fn order(&self, order: fn(oneshot::Sender<()>) -> Order) {
        let (done, ended) = oneshot::channel();
        if self.orders.send(order(done)).await.is_ok() {
            let _ = timeout(LEAVING, ended).await;
        }
    }
}

/// Who registers this at that place.
fn registrar(place: &Place, instance: Instance) -> Result<Box<dyn Registrar>, String> {
    match place.kind() {
        "consul" => consul::Consul::registrar(place.with_agent()?, instance),
        "etcd" => etcd::Etcd::registrar(place.with_members()?, place.path_or("/services/"), instance),
        "redis" => {
            let (table, prefix) = place.with_url()?;
            redis::Redis::registrar(table, &prefix, instance)
        }
        "zookeeper" => zookeeper::ZooKeeper::registrar(place.with_members()?, &place.path_or("/services"), instance),
        "nacos" => {
            let (namespace, group) = (place.parameter("namespace"), place.parameter("group"));
            let (namespace, group) = (namespace.unwrap_or("public"), group.unwrap_or("DEFAULT_GROUP"));
            nacos::Nacos::registrar(place.with_members()?, namespace, group, instance)
        }
        kind => Err(format!("nothing can be registered in `{kind}`")),
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    mut registrar: Box<dyn Registrar>,
    ttl: Duration,
    mut orders: mpsc::Receiver<Order>,
    registered: watch::Sender<bool>,
) {
    let (mut backoff, mut healthy, mut failed) = (Backoff::seeded(), true, None::<String>);
    let mut waiting: Option<oneshot::Sender<()>> = None;
    loop {
        let wait = match registrar.keep(healthy).await {
            Ok(outcome) => {
                backoff.reset();
                if failed.take().is_some() || outcome == Outcome::Registered {
                    tracing::info!(healthy, again = *registered.borrow(), "registered");
                }
                registered.send_replace(true);
                if let Some(waiting) = waiting.take() {
                    let _ = waiting.send(());
                }
                ttl / 3
            }
            Err(failure) => {
                if failed.as_ref() != Some(&failure.problem) {
                    tracing::warn!(problem = failure.problem, "cannot register; it is tried again");
                    failed = Some(failure.problem.clone());
                }
                backoff.wait_within(longest_wait(&failure))
            }
        };
        let order = tokio::select! {
            () = sleep(wait) => continue,
            order = orders.recv() => order,
        };
        match order {
            Some(Order::Drain(done)) => (healthy, waiting) = (false, Some(done)),
            Some(Order::Leave(done)) => {
                match timeout(LEAVING, registrar.leave()).await {
                    Ok(Ok(())) => tracing::info!("deregistered"),
                    Ok(Err(Failure { problem, .. })) => tracing::warn!(problem, "cannot deregister; it ends by itself"),
                    Err(_) => tracing::warn!("the registry does not answer; the instance ends by itself"),
                }
                let _ = done.send(());
                return;
            }
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::discovery::listing::instance;

    #[test]
    fn a_source_reads_what_is_registered() {
        let mut said = Instance::new("users", "[::1]:80".parse().unwrap());
        said.weight = 7;
        said.tags = vec!["a".to_owned(), "b".to_owned()];
        said.metadata.insert("zone".to_owned(), "x\"y".to_owned());
        assert_eq!(instance(b"any", &said.value(true)), Ok(said.entry()));
        assert!(!instance(b"any", &said.value(false)).unwrap().healthy);
    }
}
