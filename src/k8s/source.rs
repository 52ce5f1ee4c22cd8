//! The API server as a source: what the control loop holds of it.
//!
//! ```text
//!   supervisor.rs ──kinds that are served──▶ watch.rs, one per kind and namespace ──▶ collect.rs ──▶ Delivery
//!       ▲                                          │                                      ▲
//!       └── discovery.rs: CRDs ── health.rs ◀──────┘          bodies.rs: Secrets ─────────┘
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::bodies::Bodies;
use super::client::{Access, Connection};
use super::collect::Collector;
use super::delivery::Delivery;
use super::health::Board;
use super::supervisor::{Ends, Supervisor};
use crate::api::{Kind, ObjectId};

/// What the control loop holds. Dropping it ends every watch.
pub struct Source {
    collector: Arc<Collector>,
    bodies: Arc<Bodies>,
    board: Arc<Board>,
    waiting: watch::Receiver<Vec<String>>,
    client: watch::Receiver<Client>,
    _tasks: JoinSet<()>,
}

/// What was counted of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchCounts {
    pub events: u64,
    /// Lists begun, the first included.
    pub lists: u64,
    /// Objects known now.
    pub objects: usize,
    /// How old what is known may be: zero while the watch works. None if the kind is not watched.
    pub age: Option<Duration>,
}

/// Reads `WatchCounts`; outlives nothing and holds nothing up.
#[derive(Clone, Debug)]
pub struct Counters {
    collector: Arc<Collector>,
    board: Arc<Board>,
}

impl Source {
    /// Begins to watch; an API server that cannot be reached is waited for.
    pub fn start(access: Access, connection: Connection, namespaces: Vec<String>) -> Source {
        let collector = Arc::new(Collector::default());
        let bodies = Bodies::new(collector.clone());
        let board = Board::new();
        let (clients, client) = watch::channel(connection.client);
        let (waiting_for, waiting) = watch::channel(vec!["the API server".to_owned()]);
        let mut tasks = JoinSet::new();
        tasks.spawn(bodies.clone().fetch(client.clone()));
        let supervisor = Supervisor::new(Ends {
            access,
            server: connection.server,
            namespaces: namespaces.iter().map(|name| Arc::from(name.as_str())).collect(),
            collector: collector.clone(),
            bodies: bodies.clone(),
            board: board.clone(),
            clients,
            waiting_for,
        });
        tasks.spawn(supervisor.run());
        Source { collector, bodies, board, waiting, client, _tasks: tasks }
    }

    /// Everything that happened since the last call, as soon as something has. May be dropped while it waits.
    pub async fn next(&self) -> Delivery {
        self.collector.next().await
    }

    /// Names the Secrets and ConfigMaps that something refers to. Says whether all that exist are here: if not, they come
    /// with a later delivery.
    pub fn want(&self, wanted: BTreeSet<ObjectId>) -> bool {
        self.bodies.want(wanted);
        self.bodies.settled()
    }

    /// Waits until every body that is wanted and exists was fetched, or tried in vain, and handed over by `next`.
    pub async fn settled(&self) {
        let mut settled = self.bodies.subscribe();
        // The sender lives as long as `bodies` does.
        drop(settled.wait_for(|settled| *settled).await);
        self.collector.taken().await;
    }

    /// What must happen before a delivery is complete, for people; empty when nothing is.
    pub fn waiting_for(&self) -> watch::Receiver<Vec<String>> {
        self.waiting.clone()
    }

    /// The client that is used now; another one replaces it when credentials do.
    pub fn client(&self) -> watch::Receiver<Client> {
        self.client.clone()
    }

    pub fn counters(&self) -> Counters {
        Counters { collector: self.collector.clone(), board: self.board.clone() }
    }
}

impl Counters {
    pub fn of(&self, kind: Kind) -> WatchCounts {
        let (events, lists) = self.board.counts(kind);
        WatchCounts { events, lists, objects: self.collector.count(kind), age: self.board.age(kind) }
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Source").field("board", &self.board).finish_non_exhaustive()
    }
}
