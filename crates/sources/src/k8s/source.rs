//! The API server as a source of objects, as the control loop uses it.
//!
//! ```text
//!   discovery.rs ──served kinds──▶ supervisor.rs ──starts──▶ watch.rs, one for each kind and namespace
//!                                       ▲                        │          │            │
//!                                       └──errors── watch_health.rs      objects    metadata of Secrets
//!                                                                           ▼            ▼
//!                                              Delivery ◀── collect.rs ◀── content ── referenced.rs
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::client::{Access, ApiConnection};
use super::collect::DeliveryCollector;
use super::delivery::Delivery;
use super::referenced::{ReferenceChanges, ReferencedObjects};
use super::supervisor::{Supervisor, SupervisorParts};
use super::watch_health::WatchHealth;
use crate::api::{Kind, ObjectId};
use crate::store::LargeObjects;

/// The control loop's handle. Dropping it ends every watch.
pub struct ApiServerSource {
    collector: Arc<DeliveryCollector>,
    referenced: Arc<ReferencedObjects>,
    health: Arc<WatchHealth>,
    waiting_for: watch::Receiver<Vec<String>>,
    client: watch::Receiver<Client>,
    _tasks: JoinSet<()>,
}

/// Counters and gauges of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchCounts {
    pub events: u64,
    /// Lists started, including the first.
    pub lists: u64,
    /// Objects known now.
    pub objects: usize,
    /// For how long the known objects may be out of date: zero while the watch works. None if the kind is not watched.
    pub age: Option<Duration>,
}

/// Reads [`WatchCounts`] without keeping the watches alive.
#[derive(Clone, Debug)]
pub struct WatchCounters {
    collector: Arc<DeliveryCollector>,
    health: Arc<WatchHealth>,
}

impl ApiServerSource {
    /// Starts the watches. They wait for an API server that is unreachable. After `startup_timeout`, deliveries are
    /// complete without some of the kinds that cannot be listed. `optional_kinds` need not be readable at all.
    /// `large_objects`: what happens to objects that are larger than an object may be.
    pub fn start(
        access: Access,
        connection: ApiConnection,
        namespaces: Vec<String>,
        optional_kinds: BTreeSet<Kind>,
        startup_timeout: Duration,
        large_objects: LargeObjects,
    ) -> ApiServerSource {
        let collector = Arc::new(DeliveryCollector::default());
        let referenced = ReferencedObjects::new(collector.clone(), large_objects);
        let health = WatchHealth::new();
        let (clients, client) = watch::channel(connection.client);
        let (waiting_for_sender, waiting_for) = watch::channel(vec!["the API server".to_owned()]);
        let mut tasks = JoinSet::new();
        tasks.spawn(referenced.clone().run_fetcher(client.clone()));
        let supervisor = Supervisor::new(SupervisorParts {
            access,
            server: connection.server,
            namespaces: namespaces.iter().map(|name| Arc::from(name.as_str())).collect(),
            collector: collector.clone(),
            large_objects,
            referenced: referenced.clone(),
            health: health.clone(),
            clients,
            optional_kinds,
            startup_timeout,
            waiting_for: waiting_for_sender,
        });
        tasks.spawn(supervisor.run());
        ApiServerSource { collector, referenced, health, waiting_for, client, _tasks: tasks }
    }

    /// Everything that happened since the last call, as soon as there is something. Cancel-safe.
    pub async fn next(&self) -> Delivery {
        self.collector.next().await
    }

    /// Changes which Secrets and ConfigMaps are wanted, because objects refer to them. Returns whether each of them
    /// that exists was fetched in some version, or its last fetch failed. The others come with a later delivery.
    pub fn change_referenced(&self, changes: &ReferenceChanges) -> bool {
        self.referenced.change_wanted(changes);
        self.referenced.is_settled()
    }

    /// Waits until every wanted object that exists was fetched and returned by `next`, or its last fetch failed. With
    /// `all`, waits for the others, too, except those for which the API server responds 403 or 404.
    pub async fn wait_until_fetched(&self, all: bool) {
        self.referenced.wait_until_fetched(all).await;
        self.collector.wait_until_empty().await;
    }

    /// The wanted objects that exist and were not returned by `next` yet, for example because fetching them fails, and
    /// the revision of this set. An object for which the API server responded 403 or 404 is not one of them. `before`:
    /// the last result.
    pub fn unfetched(&self, before: &BTreeSet<ObjectId>) -> (BTreeSet<ObjectId>, u64) {
        self.referenced.unfetched(before)
    }

    /// The wanted objects that exist, and of which no version was fetched because the API server does not allow `get`.
    pub fn forbidden(&self) -> BTreeSet<ObjectId> {
        self.referenced.forbidden()
    }

    /// Whether a wanted object of this kind was fetched.
    pub fn has_fetched(&self, kind: Kind) -> bool {
        self.referenced.has_fetched(kind)
    }

    /// Waits until `unfetched` may return a set of another revision, or `forbidden` another set, and everything fetched
    /// was returned by `next`.
    pub async fn wait_until_unfetched_changes(&self, revision: u64) {
        self.referenced.wait_until_unfetched_changes(revision).await;
        self.collector.wait_until_empty().await;
    }

    /// What is still missing before a delivery is complete, for messages; empty if nothing is.
    pub fn waiting_for(&self) -> watch::Receiver<Vec<String>> {
        self.waiting_for.clone()
    }

    /// The current client; it is replaced when the credentials change.
    pub fn client(&self) -> watch::Receiver<Client> {
        self.client.clone()
    }

    pub fn counters(&self) -> WatchCounters {
        WatchCounters { collector: self.collector.clone(), health: self.health.clone() }
    }
}

impl WatchCounters {
    pub fn for_kind(&self, kind: Kind) -> WatchCounts {
        let (events, lists) = self.health.counts(kind);
        WatchCounts { events, lists, objects: self.collector.count(kind), age: self.health.age(kind) }
    }
}

impl std::fmt::Debug for ApiServerSource {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ApiServerSource").field("health", &self.health).finish_non_exhaustive()
    }
}
