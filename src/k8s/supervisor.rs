//! Decides what is watched: the kinds that are served, in the namespaces that were asked for, as whoever the API server
//! knows us to be. It finds out when the server is away, and says so once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::core::ApiResource;
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::backoff::Backoff;
use super::bodies::{Bodies, BodySink, FETCHED};
use super::client::Access;
use super::collect::{Collector, ObjectSink, Scope};
use super::delivery::Installed;
use super::discovery::{CrdSink, Crds, discover};
use super::health::{Board, Trouble, Watched};
use super::looks::{BLIND, Looks};
use super::raw::resource;
use super::watch::{Sink, Surroundings, Target, follow};
use crate::api::Kind;
use crate::store::AnyObject;

/// What it works with; the other ends are the control loop's.
pub(super) struct Ends {
    pub(super) access: Access,
    pub(super) server: String,
    /// Empty for all.
    pub(super) namespaces: Vec<Arc<str>>,
    pub(super) collector: Arc<Collector>,
    pub(super) bodies: Arc<Bodies>,
    pub(super) board: Arc<Board>,
    pub(super) clients: watch::Sender<Client>,
    pub(super) waiting_for: watch::Sender<Vec<String>>,
}

pub(super) struct Supervisor {
    ends: Ends,
    /// Made from credentials that were read anew; it replaces the other when it has proven better.
    candidate: Option<Client>,
    back: watch::Sender<()>,
    crds: CrdSink,
    watches: JoinSet<()>,
    running: BTreeMap<Watched, AbortHandle>,
    served: BTreeMap<Kind, &'static str>,
    /// Kinds in `served` of which the server does not say so any more.
    missing_since: BTreeMap<Kind, Instant>,
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
    pub(super) fn new(ends: Ends) -> Self {
        Supervisor {
            ends,
            candidate: None,
            back: watch::Sender::new(()),
            crds: CrdSink(watch::Sender::default()),
            watches: JoinSet::new(),
            running: BTreeMap::new(),
            served: BTreeMap::new(),
            missing_since: BTreeMap::new(),
            outage: None,
            installed: Installed::default(),
            complete: false,
        }
    }

    /// For ever.
    pub(super) async fn run(mut self) {
        let mut crds_changed = self.crds.0.subscribe();
        self.watch_crds();
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        let mut looks = Looks::now();
        let mut blind = false;
        loop {
            tokio::select! {
                () = sleep_until(looks.next) => {
                    match self.ask().await {
                        Ok(served) => {
                            self.answered();
                            backoff.reset();
                            let served = self.with_doubtful(served, &crds_changed.borrow());
                            self.follow(served).await;
                            let unsure = !self.missing_since.is_empty();
                            looks.went_well(unsure, self.ends.board.crds_forbidden().is_some());
                        }
                        Err(trouble) => {
                            self.unanswered(trouble).await;
                            looks.at(Instant::now() + backoff.wait());
                        }
                    }
                }
                Ok(()) = crds_changed.changed() => looks.often(),
                Some(ended) = self.watches.join_next_with_id() => {
                    self.begin_again(ended.map_or_else(|error| error.id(), |(id, ())| id));
                }
                () = self.ends.board.changed() => {
                    if self.outage.is_none() && self.ends.board.suspects_outage() {
                        looks.soon();
                    }
                }
            }
            if let Some(why) = self.ends.board.crds_forbidden().filter(|_| !blind) {
                blind = true;
                // The next look was put off for as long as if CRDs told by themselves.
                looks.soon();
                warn!(
                    "CRDs cannot be watched, so new ones are found within {} s, and their release is not known: {why}; \
                     add a rule to Portico's ClusterRole: apiGroups [\"apiextensions.k8s.io\"], resources \
                     [\"customresourcedefinitions\"], verbs [list, watch]",
                    BLIND.as_secs()
                );
            }
            let (listed, bundle_version, channel) = {
                let crds = crds_changed.borrow();
                (crds.listed(), crds.bundle_version(), crds.channel())
            };
            let release_settled = listed || self.ends.board.crds_forbidden().is_some();
            self.tell(release_settled, bundle_version, channel);
        }
    }

    /// What is served; asking also finds out whether the server is there and knows us.
    async fn ask(&self) -> Result<BTreeMap<Kind, &'static str>, Trouble> {
        let client = self.candidate.clone().unwrap_or_else(|| self.ends.clients.borrow().clone());
        match timeout(LONGEST_ASKING, discover(&client)).await {
            Ok(Ok(served)) => Ok(served),
            Ok(Err(error)) => {
                let mut trouble = Trouble::of_request(&error);
                trouble.message = format!("{}; {}", trouble.message, self.ends.access.remedy(&error));
                Err(trouble)
            }
            Err(_) => {
                Err(Trouble::new(format!("no answer within {} s; does the server run?", LONGEST_ASKING.as_secs())))
            }
        }
    }

    fn answered(&mut self) {
        if let Some(client) = self.candidate.take() {
            self.ends.clients.send_replace(client);
        }
        if let Some(outage) = self.outage.take() {
            let seconds = outage.since.elapsed().as_secs();
            info!(server = self.ends.server, seconds, "The API server answers again");
            self.ends.board.pardon();
            self.back.send_replace(());
        }
    }

    async fn unanswered(&mut self, trouble: Trouble) {
        if self.outage.is_none() {
            let meanwhile = if self.complete { "what was last seen is served" } else { "nothing is served yet" };
            warn!(
                server = self.ends.server,
                error = trouble.message,
                "The API server cannot be used; until then {meanwhile}"
            );
            self.outage = Some(Outage { since: Instant::now(), why: trouble.message.clone() });
        } else if let Some(outage) = &mut self.outage {
            outage.why.clone_from(&trouble.message);
        }
        // A token, a client certificate or a whole kubeconfig may have been exchanged on disk.
        if trouble.unauthorized || self.outage.as_ref().is_some_and(|outage| outage.since.elapsed() > RENEW_AFTER) {
            match self.ends.access.connect().await {
                Ok(connection) => {
                    self.ends.server.clone_from(&connection.server);
                    self.candidate = Some(connection.client);
                }
                Err(error) => tracing::debug!("Cannot read the credentials anew: {error}"),
            }
        }
    }

    fn watch_crds(&mut self) {
        let target = Target { resource: crd(), namespace: None, name: None };
        self.start(Watched::Crds, target, self.crds.clone());
    }

    /// Adds kinds that were served a moment ago. A server that starts, or one of several that is behind, may not know them
    /// yet; to believe it would take back everything that is served.
    fn with_doubtful(&mut self, mut served: BTreeMap<Kind, &'static str>, crds: &Crds) -> BTreeMap<Kind, &'static str> {
        self.missing_since.retain(|kind, _| !served.contains_key(kind));
        for (kind, version) in &self.served {
            if served.contains_key(kind) {
                continue;
            }
            let since = *self.missing_since.entry(*kind).or_insert_with(Instant::now);
            if since.elapsed() >= crds.doubt(*kind) {
                self.missing_since.remove(kind);
            } else {
                served.insert(*kind, version);
            }
        }
        served
    }

    /// Watches what is served, in the version that is, and forgets what is not any more.
    async fn follow(&mut self, served: BTreeMap<Kind, &'static str>) {
        if served == self.served {
            return;
        }
        for (kind, version) in std::mem::take(&mut self.served) {
            let now = served.get(&kind);
            if now == Some(&version) {
                continue;
            }
            self.stop(kind).await;
            if now.is_none() {
                info!(%kind, "Not served any more; its objects are forgotten");
                self.ends.collector.forget(kind);
                self.ends.bodies.forget(kind);
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
        if self.ends.namespaces.is_empty() || !(kind.namespaced() || kind == Kind::Namespace) {
            return vec![Scope { kind, namespace: None }];
        }
        self.ends.namespaces.iter().map(|namespace| Scope { kind, namespace: Some(namespace.clone()) }).collect()
    }

    fn watch(&mut self, scope: Scope, version: &str) {
        let resource = resource(scope.kind, version);
        let (namespace, name) =
            if scope.kind.namespaced() { (scope.namespace.clone(), None) } else { (None, scope.namespace.clone()) };
        let target = Target { resource, namespace, name };
        let watched = Watched::Objects(scope.clone());
        if FETCHED.contains(&scope.kind) {
            self.start(watched, target, BodySink { bodies: self.ends.bodies.clone(), scope });
        } else {
            self.start(watched, target, ObjectSink { collector: self.ends.collector.clone(), scope });
        }
    }

    fn start<const META: bool>(&mut self, watched: Watched, target: Target, sink: impl Sink<META>) {
        let surroundings = Surroundings { client: self.ends.clients.subscribe(), back: self.back.subscribe() };
        let health = self.ends.board.health(watched.clone());
        let handle = self.watches.spawn(follow(target, surroundings, sink, health));
        self.running.insert(watched, handle);
    }

    /// When this returns, nothing more comes of the kind.
    async fn stop(&mut self, kind: Kind) {
        let of_kind = |watched: &Watched| matches!(watched, Watched::Objects(scope) if scope.kind == kind);
        let ended: Vec<_> = self.running.extract_if(.., |watched, _| of_kind(watched)).collect();
        for (watched, handle) in ended {
            handle.abort();
            self.ends.board.remove(&watched);
            while !handle.is_finished() {
                let Some(ended) = self.watches.join_next_with_id().await else { break };
                self.begin_again(ended.map_or_else(|error| error.id(), |(id, ())| id));
            }
        }
    }

    /// A watch has ended that nobody has stopped, which only a fault in it brings about: the kind must not go unwatched.
    fn begin_again(&mut self, ended: Id) {
        let Some(watched) =
            self.running.iter().find(|(_, handle)| handle.id() == ended).map(|(watched, _)| watched.clone())
        else {
            return;
        };
        self.running.remove(&watched);
        warn!(?watched, "A watch ended by itself, which is a fault of Portico; it begins anew");
        match &watched {
            Watched::Crds => self.watch_crds(),
            Watched::Objects(scope) => {
                if let Some(version) = self.served.get(&scope.kind) {
                    self.watch(scope.clone(), version);
                }
            }
        }
    }

    /// Tells the control loop what is new about the cluster, and whoever waits what is missing.
    fn tell(&mut self, release_settled: bool, bundle_version: Option<String>, channel: Option<String>) {
        let mut unreadable = self.ends.board.unreadable();
        if self.outage.is_some() {
            // That is not the fault of single kinds.
            unreadable.retain(|_, trouble| trouble.forbidden);
        }
        let asked = !self.served.is_empty();
        // Without one of these kinds nobody would miss anything; without any other half of a configuration would be served.
        let dispensable = |kind: &Kind| unreadable.contains_key(kind) && !AnyObject::is_served(*kind);
        let missing: Vec<_> = self.ends.board.unlisted().into_iter().filter(|kind| !dispensable(kind)).collect();
        let blind = asked && self.served.keys().all(|kind| unreadable.get(kind).is_some_and(|why| why.forbidden));
        let complete = asked && self.outage.is_none() && missing.is_empty() && !blind;

        let versions = self.served.iter().filter(|(kind, _)| !unreadable.contains_key(kind));
        let installed = Installed {
            versions: versions.map(|(kind, version)| (*kind, (*version).to_owned())).collect(),
            unreadable: unreadable.iter().map(|(kind, trouble)| (*kind, sentence(*kind, trouble))).collect(),
            unknown: self.ends.board.unknown(),
            release_settled,
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
            self.ends.collector.installed(Arc::new(installed.clone()));
            self.installed = installed;
        }
        if complete && !self.complete {
            self.complete = true;
            self.ends.collector.complete();
        }
        let waiting_for = self.missing(&missing, &unreadable, blind);
        self.ends.waiting_for.send_if_modified(|told| {
            let news = *told != waiting_for;
            *told = waiting_for;
            news
        });
    }

    fn missing(&self, kinds: &[Kind], unreadable: &BTreeMap<Kind, Trouble>, blind: bool) -> Vec<String> {
        let first_list = |kind: &Kind| {
            let why = unreadable.get(kind).map(|trouble| format!(" ({})", trouble.message)).unwrap_or_default();
            format!("the first list of {}{why}", kind.plural())
        };
        match &self.outage {
            _ if self.complete => Vec::new(),
            // One that is ready and has nothing would take the place of those that serve, in a rolling update for one.
            None if blind => vec![format!(
                "a right to read anything of the API server {}: grant what manifests/base/cluster-role.yaml lists",
                self.ends.server
            )],
            Some(outage) => vec![format!("the API server {}: {}", self.ends.server, outage.why)],
            None if self.served.is_empty() => vec![format!("the API server {}", self.ends.server)],
            None => kinds.iter().map(first_list).collect(),
        }
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
    format!("{}; it is tried again until it works, and everything that was listed before is served", trouble.message)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn supervisor() -> Supervisor {
        let nobody = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            std::future::pending::<Result<http::Response<kube::client::Body>, std::convert::Infallible>>().await
        });
        let collector = Arc::new(Collector::default());
        Supervisor::new(Ends {
            access: Access::InCluster,
            server: String::new(),
            namespaces: Vec::new(),
            bodies: Bodies::new(collector.clone()),
            collector,
            board: Board::new(),
            clients: watch::Sender::new(Client::new(nobody, "default")),
            waiting_for: watch::Sender::default(),
        })
    }

    #[tokio::test]
    async fn a_watch_that_ends_by_itself_begins_anew() {
        let mut supervisor = supervisor();
        supervisor.follow(BTreeMap::from([(Kind::HttpRoute, "v1"), (Kind::Gateway, "v1")])).await;
        supervisor.watch_crds();
        let handle = |supervisor: &Supervisor, watched: &Watched| supervisor.running[watched].clone();
        let route = Watched::Objects(Scope { kind: Kind::HttpRoute, namespace: None });
        for watched in [&route, &Watched::Crds] {
            let before = handle(&supervisor, watched);
            before.abort();
            let ended = supervisor.watches.join_next_with_id().await.unwrap().unwrap_err().id();
            supervisor.begin_again(ended);
            let after = handle(&supervisor, watched);
            assert!(after.id() != before.id() && !after.is_finished(), "{watched:?}");
        }
        // One that ends just while another kind is given up does so too.
        let before = handle(&supervisor, &route);
        before.abort();
        supervisor.follow(BTreeMap::from([(Kind::HttpRoute, "v1")])).await;
        while let Ok(Some(Err(ended))) = timeout(Duration::ZERO, supervisor.watches.join_next_with_id()).await {
            supervisor.begin_again(ended.id());
        }
        assert!(!handle(&supervisor, &route).is_finished() && supervisor.running.len() == 2);
    }
}
