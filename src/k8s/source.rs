//! The API server as a source: the supervisor that decides what is watched, and what the control loop holds of it.
//!
//! ```text
//!   discovery ──▶ kinds ──▶ watch.rs, one per kind and namespace ──▶ collect.rs ──▶ Delivery
//!       ▲                        │ health.rs: who fails                  ▲
//!       └── CRDs, failures ◀─────┘                    bodies.rs ─────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::core::ApiResource;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::backoff::Backoff;
use super::bodies::{Bodies, BodySink, FETCHED};
use super::client::{Access, Connection};
use super::collect::{Arrival, Collector, Scope};
use super::delivery::{Delivery, Installed};
use super::discovery::{CrdSink, Crds, discover};
use super::health::{Board, Trouble, Watched};
use super::raw::{Raw, resource};
use super::watch::{Sink, Surroundings, Target, follow};
use crate::api::{Kind, ObjectId, ObjectKey};

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
        let supervisor = Supervisor {
            access,
            server: connection.server,
            namespaces: namespaces.iter().map(|name| Arc::from(name.as_str())).collect(),
            collector: collector.clone(),
            bodies: bodies.clone(),
            board: board.clone(),
            clients,
            candidate: None,
            retry: Arc::default(),
            waiting_for,
            watches: JoinSet::new(),
            running: BTreeMap::new(),
            served: BTreeMap::new(),
            outage: None,
            installed: Installed::default(),
            complete: false,
        };
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
        WatchCounts { events, lists, objects: self.collector.count(kind) }
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Source").field("board", &self.board).finish_non_exhaustive()
    }
}

struct Supervisor {
    access: Access,
    server: String,
    /// Empty for all.
    namespaces: Vec<Arc<str>>,
    collector: Arc<Collector>,
    bodies: Arc<Bodies>,
    board: Arc<Board>,
    clients: watch::Sender<Client>,
    /// Made from credentials that were read anew; it replaces the other when it has proven better.
    candidate: Option<Client>,
    retry: Arc<Notify>,
    waiting_for: watch::Sender<Vec<String>>,
    watches: JoinSet<()>,
    running: BTreeMap<Watched, AbortHandle>,
    served: BTreeMap<Kind, &'static str>,
    outage: Option<Outage>,
    installed: Installed,
    complete: bool,
}

/// The API server does not answer.
struct Outage {
    since: Instant,
    why: String,
}

impl Supervisor {
    async fn run(mut self) {
        let (crds, mut crds_changed) = watch::channel(Crds::default());
        self.watch_crds(CrdSink(crds));
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        let mut looks = Looks::now();
        loop {
            tokio::select! {
                () = sleep_until(looks.next) => {
                    match self.ask().await {
                        Ok(served) => {
                            self.answered();
                            backoff.reset();
                            self.follow(served);
                            looks.went_well(self.board.crds_forbidden());
                        }
                        Err(trouble) => {
                            self.unanswered(trouble).await;
                            looks.at(Instant::now() + backoff.wait());
                        }
                    }
                }
                Ok(()) = crds_changed.changed() => looks.often(),
                () = self.board.changed() => {
                    if self.outage.is_none() && self.board.suspects_outage() {
                        looks.soon();
                    }
                }
            }
            let (bundle_version, channel) = {
                let crds = crds_changed.borrow();
                (crds.bundle_version(), crds.channel())
            };
            self.tell(bundle_version, channel);
        }
    }

    /// What is served; asking also finds out whether the server is there and knows us.
    async fn ask(&self) -> Result<BTreeMap<Kind, &'static str>, Trouble> {
        let client = self.candidate.clone().unwrap_or_else(|| self.clients.borrow().clone());
        match timeout(LONGEST_ASKING, discover(&client)).await {
            Ok(Ok(served)) => Ok(served),
            Ok(Err(error)) => {
                let mut trouble = Trouble::of_request(&error);
                trouble.message = format!("{}; {}", trouble.message, self.access.remedy(&error));
                Err(trouble)
            }
            Err(_) => {
                Err(Trouble::new(format!("no answer within {} s; does the server run?", LONGEST_ASKING.as_secs())))
            }
        }
    }

    fn answered(&mut self) {
        if let Some(client) = self.candidate.take() {
            self.clients.send_replace(client);
        }
        if let Some(outage) = self.outage.take() {
            let seconds = outage.since.elapsed().as_secs();
            info!(server = self.server, seconds, "The API server answers again");
            self.retry.notify_waiters();
        }
    }

    async fn unanswered(&mut self, trouble: Trouble) {
        if self.outage.is_none() {
            let meanwhile = if self.complete { "what was last seen is served" } else { "nothing is served yet" };
            warn!(
                server = self.server,
                error = trouble.message,
                "The API server cannot be used; until then {meanwhile}"
            );
            self.outage = Some(Outage { since: Instant::now(), why: trouble.message.clone() });
        } else if let Some(outage) = &mut self.outage {
            outage.why.clone_from(&trouble.message);
        }
        // A token, a client certificate or a whole kubeconfig may have been exchanged on disk.
        if trouble.unauthorized || self.outage.as_ref().is_some_and(|outage| outage.since.elapsed() > RENEW_AFTER) {
            match self.access.connect().await {
                Ok(connection) => {
                    self.server.clone_from(&connection.server);
                    self.candidate = Some(connection.client);
                }
                Err(error) => tracing::debug!("Cannot read the credentials anew: {error}"),
            }
        }
    }

    fn watch_crds(&mut self, sink: CrdSink) {
        let target = Target { resource: crd(), namespace: None, name: None };
        self.start(Watched::Crds, target, sink);
    }

    /// Watches what is served, in the version that is, and forgets what is not any more.
    fn follow(&mut self, served: BTreeMap<Kind, &'static str>) {
        if served == self.served {
            return;
        }
        for (kind, version) in std::mem::take(&mut self.served) {
            let now = served.get(&kind);
            if now == Some(&version) {
                continue;
            }
            self.stop(kind);
            if now.is_none() {
                info!(%kind, "Not served any more; its objects are forgotten");
                self.collector.forget(kind);
                self.bodies.forget(kind);
            }
        }
        for (kind, version) in &served {
            for scope in self.scopes(*kind) {
                if !self.running.contains_key(&Watched::Objects(scope.clone())) {
                    self.watch(scope, version);
                }
            }
        }
        self.served = served;
    }

    fn scopes(&self, kind: Kind) -> Vec<Scope> {
        // A Namespace is in none, but whoever may only see some namespaces may still see these.
        if self.namespaces.is_empty() || !(kind.namespaced() || kind == Kind::Namespace) {
            return vec![Scope { kind, namespace: None }];
        }
        self.namespaces.iter().map(|namespace| Scope { kind, namespace: Some(namespace.clone()) }).collect()
    }

    fn watch(&mut self, scope: Scope, version: &str) {
        let resource = resource(scope.kind, version);
        let (namespace, name) =
            if scope.kind.namespaced() { (scope.namespace.clone(), None) } else { (None, scope.namespace.clone()) };
        let target = Target { resource, namespace, name };
        let watched = Watched::Objects(scope.clone());
        if FETCHED.contains(&scope.kind) {
            self.start(watched, target, BodySink { bodies: self.bodies.clone(), scope });
        } else {
            self.start(watched, target, ObjectSink { collector: self.collector.clone(), scope });
        }
    }

    fn start<const META: bool>(&mut self, watched: Watched, target: Target, sink: impl Sink<META>) {
        let surroundings = Surroundings { client: self.clients.subscribe(), retry: self.retry.clone() };
        let health = self.board.health(watched.clone());
        let handle = self.watches.spawn(follow(target, surroundings, sink, health));
        self.running.insert(watched, handle);
    }

    fn stop(&mut self, kind: Kind) {
        let of_kind = |watched: &Watched| matches!(watched, Watched::Objects(scope) if scope.kind == kind);
        let ended: Vec<_> = self.running.extract_if(.., |watched, _| of_kind(watched)).collect();
        for (watched, handle) in ended {
            handle.abort();
            self.board.remove(&watched);
        }
        while self.watches.try_join_next().is_some() {}
    }

    /// Tells the control loop what is new about the cluster, and whoever waits what is missing.
    fn tell(&mut self, bundle_version: Option<String>, channel: Option<String>) {
        let mut unreadable = self.board.unreadable();
        if self.outage.is_some() {
            // That is not the fault of single kinds.
            unreadable.retain(|_, trouble| trouble.forbidden);
        }
        let asked = !self.served.is_empty();
        let missing: Vec<_> = self.board.unlisted().into_iter().filter(|kind| !unreadable.contains_key(kind)).collect();
        let complete = asked && self.outage.is_none() && missing.is_empty();

        let versions = self.served.iter().filter(|(kind, _)| !unreadable.contains_key(kind));
        let installed = Installed {
            versions: versions.map(|(kind, version)| (*kind, (*version).to_owned())).collect(),
            unreadable: unreadable.iter().map(|(kind, trouble)| (*kind, sentence(*kind, trouble))).collect(),
            bundle_version,
            channel,
        };
        if asked && installed != self.installed {
            for (kind, why) in &installed.unreadable {
                if !self.installed.unreadable.contains_key(kind) {
                    warn!(%kind, "Cannot be watched: {why}");
                }
            }
            for kind in self.installed.unreadable.keys() {
                if !installed.unreadable.contains_key(kind) {
                    info!(%kind, "Can be watched again");
                }
            }
            self.collector.installed(Arc::new(installed.clone()));
            self.installed = installed;
        }
        if complete && !self.complete {
            self.complete = true;
            self.collector.complete();
        }
        let waiting_for = self.missing(&missing);
        self.waiting_for.send_if_modified(|told| {
            let news = *told != waiting_for;
            *told = waiting_for;
            news
        });
    }

    fn missing(&self, kinds: &[Kind]) -> Vec<String> {
        match &self.outage {
            _ if self.complete => Vec::new(),
            Some(outage) => vec![format!("the API server {}: {}", self.server, outage.why)],
            None if self.served.is_empty() => vec![format!("the API server {}", self.server)],
            None => kinds.iter().map(|kind| format!("the first list of {}", kind.plural())).collect(),
        }
    }
}

/// When to ask next what is served.
struct Looks {
    next: Instant,
    /// Steps that are left of those that follow a change of CRDs: what they define is served a moment later.
    soon: &'static [u64],
}

impl Looks {
    fn now() -> Self {
        Looks { next: Instant::now(), soon: &[] }
    }

    fn at(&mut self, next: Instant) {
        self.next = next;
    }

    fn soon(&mut self) {
        self.next = self.next.min(Instant::now());
    }

    fn often(&mut self) {
        self.soon = AFTER_CRDS;
        self.soon();
    }

    fn went_well(&mut self, blind: bool) {
        let wait = match self.soon {
            [first, rest @ ..] => {
                self.soon = rest;
                Duration::from_millis(*first)
            }
            [] if blind => BLIND,
            [] => NOW_AND_THEN,
        };
        self.next = Instant::now() + wait;
    }
}

/// Where a watch of whole objects puts what it sees.
struct ObjectSink {
    collector: Arc<Collector>,
    scope: Scope,
}

impl Sink<false> for ObjectSink {
    type Item = Arrival;

    fn read(&self, raw: Raw) -> Option<Arrival> {
        Arrival::read(self.scope.kind, raw)
    }

    fn listed(&self, items: Vec<Arrival>) {
        self.collector.listed(&self.scope, items);
    }

    fn applied(&self, item: Arrival) {
        self.collector.applied(&self.scope, item);
    }

    fn deleted(&self, key: ObjectKey) {
        self.collector.deleted(&self.scope, &key);
    }
}

/// Why a kind is not read, and what would help.
fn sentence(kind: Kind, trouble: &Trouble) -> String {
    let (group, resources) = (kind.group(), kind.plural());
    if trouble.forbidden {
        let verbs = if FETCHED.contains(&kind) { "get, list, watch" } else { "list, watch" };
        return format!(
            "{}; add a rule to Portico's ClusterRole: apiGroups [\"{group}\"], resources [\"{resources}\"], verbs [{verbs}]",
            trouble.message
        );
    }
    format!("{}; it is tried again until it works, and everything else is served meanwhile", trouble.message)
}

fn crd() -> ApiResource {
    ApiResource {
        group: "apiextensions.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "apiextensions.k8s.io/v1".to_owned(),
        kind: "CustomResourceDefinition".to_owned(),
        plural: "customresourcedefinitions".to_owned(),
    }
}

const LONGEST_ASKING: Duration = Duration::from_secs(10);
/// In an outage this long, credentials are read anew before each further try.
const RENEW_AFTER: Duration = Duration::from_secs(30);
/// Milliseconds between the looks that follow a change of CRDs.
const AFTER_CRDS: &[u64] = &[100, 200, 400, 800, 1_600, 3_200, 6_400];
const NOW_AND_THEN: Duration = Duration::from_secs(300);
/// For those who may not watch CRDs.
const BLIND: Duration = Duration::from_secs(30);
