//! Decides which watches run: the served kinds, in the configured namespaces, with the current credentials. Detects
//! outages of the API server and logs each once, and again if it rejects the credentials.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::core::ApiResource;
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::backoff::Backoff;
use super::client::Access;
use super::collect::{DeliveryCollector, ObjectSink};
use super::delivery::InstalledApis;
use super::discovery::{CrdSink, Crds, discover};
use super::discovery_schedule::{DiscoverySchedule, INTERVAL_WITHOUT_CRD_WATCH};
use super::first_list::FirstListWait;
use super::raw::api_resource;
use super::referenced::{ReferencedObjects, ReferencedSink};
use super::watch::{WatchContext, WatchSink, WatchTarget, run_watch};
use super::watch_health::{Scope, WatchError, WatchHealth, WatchSubject};
use crate::api::Kind;
use crate::store::LargeObjects;

/// The supervisor's inputs and outputs; the control loop has the other ends of the channels.
pub(super) struct SupervisorParts {
    pub(super) access: Access,
    pub(super) server: String,
    /// Empty for all namespaces.
    pub(super) namespaces: Vec<Arc<str>>,
    pub(super) collector: Arc<DeliveryCollector>,
    pub(super) large_objects: LargeObjects,
    pub(super) referenced: Arc<ReferencedObjects>,
    pub(super) health: Arc<WatchHealth>,
    pub(super) clients: watch::Sender<Client>,
    /// Kinds that need not be readable.
    pub(super) optional_kinds: BTreeSet<Kind>,
    /// How long a complete delivery waits for kinds that cannot be listed, where [`FirstListWait`] limits the wait.
    pub(super) startup_timeout: Duration,
    /// What a complete delivery still needs, for the readiness check.
    pub(super) waiting_for: watch::Sender<Vec<String>>,
}

pub(super) struct Supervisor {
    parts: SupervisorParts,
    /// A client with newly read credentials; it replaces the current one after its first successful request.
    candidate: Option<Client>,
    /// Changes when an outage ends.
    server_back: watch::Sender<()>,
    crds: CrdSink,
    watches: JoinSet<()>,
    running: BTreeMap<WatchSubject, AbortHandle>,
    /// The watched kinds, each with the version in use.
    served: BTreeMap<Kind, &'static str>,
    /// Kinds in `served` that are missing from the latest discovery responses, each since the first of these.
    missing_since: BTreeMap<Kind, Instant>,
    outage: Option<Outage>,
    /// When the API server first returned the served kinds.
    first_discovery: Option<Instant>,
    /// The installed APIs as last published.
    installed: InstalledApis,
    /// Whether the collector was notified that every kind was listed; never false again.
    complete: bool,
}

/// A time in which the API server is unavailable.
struct Outage {
    since: Instant,
    reason: String,
    /// The API server has rejected the credentials, which was logged.
    rejects_credentials: bool,
}

impl Supervisor {
    pub(super) fn new(parts: SupervisorParts) -> Self {
        Supervisor {
            parts,
            candidate: None,
            server_back: watch::Sender::new(()),
            crds: CrdSink(watch::Sender::default()),
            watches: JoinSet::new(),
            running: BTreeMap::new(),
            served: BTreeMap::new(),
            missing_since: BTreeMap::new(),
            outage: None,
            first_discovery: None,
            installed: InstalledApis::default(),
            complete: false,
        }
    }

    /// Never returns.
    pub(super) async fn run(mut self) {
        let mut crds_changed = self.crds.0.subscribe();
        self.watch_crds();
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
        let mut schedule = DiscoverySchedule::due_now();
        let mut crds_forbidden_logged = false;
        loop {
            tokio::select! {
                () = sleep_until(schedule.next) => {
                    match self.query_served().await {
                        Ok(served) => {
                            self.discovery_succeeded();
                            backoff.reset();
                            let served = self.with_recently_served(served, &crds_changed.borrow());
                            self.update_watches(served).await;
                            let kinds_missing = !self.missing_since.is_empty();
                            schedule.succeeded(kinds_missing, self.parts.health.crds_forbidden().is_some());
                        }
                        Err(watch_error) => {
                            let delay = backoff.next_delay().max(watch_error.retry_after);
                            self.discovery_failed(watch_error).await;
                            schedule.set_next(Instant::now() + delay);
                        }
                    }
                }
                Ok(()) = crds_changed.changed() => schedule.start_burst(),
                Some(ended) = self.watches.join_next_with_id() => {
                    self.restart_watch(ended.map_or_else(|error| error.id(), |(id, ())| id));
                }
                () = self.parts.health.changed() => {
                    if self.outage.is_none() && self.parts.health.suspects_outage() {
                        schedule.expedite();
                    }
                }
            }
            if let Some(error) = self.parts.health.crds_forbidden().filter(|_| !crds_forbidden_logged) {
                crds_forbidden_logged = true;
                // The next discovery was scheduled as if the watch of CRDs announced changes.
                schedule.expedite();
                warn!(
                    "CRDs cannot be watched, so new ones are found only after up to {} s, and the release of the \
                     Gateway API is unknown: {error}; add a rule to Portico's ClusterRole: apiGroups \
                     [\"apiextensions.k8s.io\"], resources [\"customresourcedefinitions\"], verbs [list, watch]",
                    INTERVAL_WITHOUT_CRD_WATCH.as_secs()
                );
            }
            let (listed, bundle_version, channel) = {
                let crds = crds_changed.borrow();
                (crds.listed(), crds.bundle_version(), crds.channel())
            };
            let release_settled = listed || self.parts.health.crds_forbidden().is_some();
            self.publish(release_settled, bundle_version, channel);
        }
    }

    /// The kinds that are served. The request also shows whether the server is reachable and accepts the credentials.
    async fn query_served(&self) -> Result<BTreeMap<Kind, &'static str>, WatchError> {
        let client = self.candidate.clone().unwrap_or_else(|| self.parts.clients.borrow().clone());
        match timeout(DISCOVERY_TIMEOUT, discover(&client)).await {
            Ok(Ok(served)) => Ok(served),
            Ok(Err(error)) => {
                let mut watch_error = WatchError::from_request(&error);
                watch_error.message = format!("{}; {}", watch_error.message, self.parts.access.remedy(&error));
                Err(watch_error)
            }
            Err(_) => Err(WatchError::new(format!(
                "no response within {} s; check that the server is running",
                DISCOVERY_TIMEOUT.as_secs()
            ))),
        }
    }

    fn discovery_succeeded(&mut self) {
        self.first_discovery.get_or_insert_with(Instant::now);
        if let Some(client) = self.candidate.take() {
            self.parts.clients.send_replace(client);
        }
        if let Some(outage) = self.outage.take() {
            let seconds = outage.since.elapsed().as_secs();
            info!(server = self.parts.server, seconds, "The API server is available again");
            self.parts.health.clear_failures();
            self.server_back.send_replace(());
        }
    }

    async fn discovery_failed(&mut self, watch_error: WatchError) {
        // Rejected credentials are logged even if the outage began for another reason: they must be renewed.
        let is_logged =
            self.outage.as_ref().is_some_and(|outage| outage.rejects_credentials || !watch_error.unauthorized);
        if !is_logged {
            let meanwhile =
                if self.complete { "the last known configuration is served" } else { "nothing is served yet" };
            warn!(
                server = self.parts.server,
                error = watch_error.message,
                "The API server is unavailable; until it is back, {meanwhile}"
            );
        }
        let outage = self.outage.get_or_insert_with(|| Outage {
            since: Instant::now(),
            reason: String::new(),
            rejects_credentials: false,
        });
        outage.reason.clone_from(&watch_error.message);
        outage.rejects_credentials |= watch_error.unauthorized;
        // A token, a client certificate or the whole kubeconfig may have been replaced on disk.
        if watch_error.unauthorized || outage.since.elapsed() > RELOAD_CREDENTIALS_AFTER {
            match self.parts.access.connect().await {
                Ok(connection) => {
                    self.parts.server.clone_from(&connection.server);
                    self.candidate = Some(connection.client);
                }
                Err(error) => tracing::debug!("Cannot reload the credentials: {error}"),
            }
        }
    }

    fn watch_crds(&mut self) {
        let target = WatchTarget { resource: crd_resource(), namespace: None, name: None };
        self.spawn_watch(WatchSubject::Crds, target, self.crds.clone());
    }

    /// Adds kinds that the API server listed recently. A starting server, or one of its replicas that is not up to
    /// date, may not list them yet; dropping them at once would withdraw all routes.
    fn with_recently_served(
        &mut self,
        mut served: BTreeMap<Kind, &'static str>,
        crds: &Crds,
    ) -> BTreeMap<Kind, &'static str> {
        self.missing_since.retain(|kind, _| !served.contains_key(kind));
        for (kind, version) in &self.served {
            if served.contains_key(kind) {
                continue;
            }
            let since = *self.missing_since.entry(*kind).or_insert_with(Instant::now);
            if since.elapsed() >= crds.removal_grace(*kind) {
                self.missing_since.remove(kind);
            } else {
                served.insert(*kind, version);
            }
        }
        served
    }

    /// Watches the served kinds in their served versions, and removes kinds that are no longer served.
    async fn update_watches(&mut self, served: BTreeMap<Kind, &'static str>) {
        if served == self.served {
            return;
        }
        for (kind, version) in std::mem::take(&mut self.served) {
            let new_version = served.get(&kind);
            if new_version == Some(&version) {
                continue;
            }
            self.stop_watches(kind).await;
            if new_version.is_none() {
                info!(%kind, "The API server no longer serves this kind; its objects are removed");
                self.parts.collector.forget(kind);
                self.parts.referenced.forget(kind);
            }
        }
        for (kind, version) in &served {
            for scope in self.scopes(*kind) {
                if !self.running.contains_key(&WatchSubject::Objects(scope.clone())) {
                    self.watch_scope(scope, version);
                }
            }
        }
        self.served = served;
    }

    fn scopes(&self, kind: Kind) -> Vec<Scope> {
        // Namespace objects are cluster-scoped. Credentials that are limited to some namespaces may still read these
        // objects one by one, so each is watched by name.
        if self.parts.namespaces.is_empty() || !(kind.namespaced() || kind == Kind::Namespace) {
            return vec![Scope { kind, namespace: None }];
        }
        self.parts.namespaces.iter().map(|namespace| Scope { kind, namespace: Some(namespace.clone()) }).collect()
    }

    fn watch_scope(&mut self, scope: Scope, version: &str) {
        let resource = api_resource(scope.kind, version);
        let (namespace, name) =
            if scope.kind.namespaced() { (scope.namespace.clone(), None) } else { (None, scope.namespace.clone()) };
        let target = WatchTarget { resource, namespace, name };
        let subject = WatchSubject::Objects(scope.clone());
        if scope.kind.is_fetched_on_reference() {
            self.spawn_watch(subject, target, ReferencedSink { objects: self.parts.referenced.clone(), scope });
        } else {
            let kind = scope.kind;
            let (collector, large_objects) = (self.parts.collector.clone(), self.parts.large_objects);
            let sink = ObjectSink { collector, scope, large_objects };
            // The schema of these kinds limits the size of what their text becomes.
            if large_objects == LargeObjects::Keep || matches!(kind, Kind::EndpointSlice | Kind::ClusterTrustBundle) {
                self.spawn_watch::<false, true>(subject, target, sink);
            } else {
                self.spawn_watch::<false, false>(subject, target, sink);
            }
        }
    }

    fn spawn_watch<const META: bool, const WHOLE: bool>(
        &mut self,
        subject: WatchSubject,
        target: WatchTarget,
        sink: impl WatchSink<META, WHOLE>,
    ) {
        let context =
            WatchContext { client: self.parts.clients.subscribe(), server_back: self.server_back.subscribe() };
        let health = self.parts.health.reporter(subject.clone());
        let handle = self.watches.spawn(run_watch(target, context, sink, health));
        self.running.insert(subject, handle);
    }

    /// When this returns, no further events of the kind arrive.
    async fn stop_watches(&mut self, kind: Kind) {
        let is_of_kind = |subject: &WatchSubject| matches!(subject, WatchSubject::Objects(scope) if scope.kind == kind);
        let stopped: Vec<_> = self.running.extract_if(.., |subject, _| is_of_kind(subject)).collect();
        for (subject, handle) in stopped {
            handle.abort();
            self.parts.health.remove(&subject);
            while !handle.is_finished() {
                let Some(ended) = self.watches.join_next_with_id().await else { break };
                self.restart_watch(ended.map_or_else(|error| error.id(), |(id, ())| id));
            }
        }
    }

    /// Restarts a watch that ended although it was not stopped. Only a bug ends one; its kind must not stay unwatched.
    fn restart_watch(&mut self, ended: Id) {
        let Some(subject) =
            self.running.iter().find(|(_, handle)| handle.id() == ended).map(|(subject, _)| subject.clone())
        else {
            return;
        };
        self.running.remove(&subject);
        warn!(watched = ?subject, "A watch ended unexpectedly, which is a bug in Portico; it is restarted");
        match &subject {
            WatchSubject::Crds => self.watch_crds(),
            WatchSubject::Objects(scope) => {
                if let Some(version) = self.served.get(&scope.kind) {
                    self.watch_scope(scope.clone(), version);
                }
            }
        }
    }

    /// Publishes the installed APIs to the control loop, and what is still missing to the readiness check.
    fn publish(&mut self, release_settled: bool, bundle_version: Option<String>, channel: Option<String>) {
        let mut unreadable = self.parts.health.unreadable();
        if self.outage.is_some() {
            // In an outage all watches fail for the same reason; only missing permissions concern a single kind.
            unreadable.retain(|_, watch_error| watch_error.forbidden);
        }
        let discovered = !self.served.is_empty();
        let is_startup_over = self.first_discovery.is_some_and(|first| first.elapsed() >= self.parts.startup_timeout);
        let is_dispensable = |kind: &Kind| match FirstListWait::of(*kind) {
            _ if !unreadable.contains_key(kind) => false,
            FirstListWait::Unlimited => false,
            FirstListWait::Limited => is_startup_over,
            FirstListWait::None => true,
        };
        let must_be_readable =
            |kind| FirstListWait::of(kind) == FirstListWait::Unlimited && !self.parts.optional_kinds.contains(&kind);
        let awaited = self.parts.health.awaited(must_be_readable).into_iter();
        let (left_out, awaited): (Vec<_>, Vec<_>) = awaited.partition(is_dispensable);
        let is_forbidden = |kind: &Kind| unreadable.get(kind).is_some_and(|watch_error| watch_error.forbidden);
        let none_readable = discovered && self.served.keys().all(is_forbidden);
        let complete_now = discovered && self.outage.is_none() && awaited.is_empty() && !none_readable;

        let versions = self.served.iter().filter(|(kind, _)| !unreadable.contains_key(kind));
        let installed = InstalledApis {
            versions: versions.map(|(kind, version)| (*kind, (*version).to_owned())).collect(),
            unreadable: unreadable
                .iter()
                .map(|(kind, watch_error)| (*kind, unreadable_message(*kind, watch_error)))
                .collect(),
            unreadable_before_first_list: self.parts.health.unreadable_before_first_list(),
            release_settled,
            bundle_version,
            channel,
        };
        if discovered && installed != self.installed {
            for (kind, message) in &installed.unreadable {
                if !self.installed.unreadable.contains_key(kind) {
                    warn!(%kind, "Cannot be watched: {message}");
                }
            }
            for kind in self.installed.unreadable.keys() {
                if !installed.unreadable.contains_key(kind) {
                    info!(%kind, "Can be watched again");
                }
            }
            self.parts.collector.set_installed(Arc::new(installed.clone()));
            self.installed = installed;
        }
        if complete_now && !self.complete {
            self.complete = true;
            let left_out = left_out.iter().filter(|kind| FirstListWait::of(**kind) == FirstListWait::Limited);
            let left_out: Vec<_> = left_out.map(ToString::to_string).collect();
            if !left_out.is_empty() {
                warn!(
                    kinds = left_out.join(", "),
                    "Serving without kinds that could not be listed within --startup-timeout"
                );
            }
            self.parts.collector.set_complete();
        }
        let waiting_for = self.waiting_for(&awaited, &unreadable, none_readable);
        self.parts.waiting_for.send_if_modified(|published| {
            let changed = *published != waiting_for;
            *published = waiting_for;
            changed
        });
    }

    /// What a complete delivery still needs, for messages; empty once it was complete.
    fn waiting_for(
        &self,
        awaited: &[Kind],
        unreadable: &BTreeMap<Kind, WatchError>,
        none_readable: bool,
    ) -> Vec<String> {
        match &self.outage {
            _ if self.complete => Vec::new(),
            // A replica that is ready without any objects would replace serving replicas, for example in a rolling
            // update.
            None if none_readable => vec![format!(
                "permission to read any kind from the API server {}: grant the rules in \
                 manifests/base/cluster-role.yaml",
                self.parts.server
            )],
            Some(outage) => vec![format!("the API server {}: {}", self.parts.server, outage.reason)],
            None if self.served.is_empty() => vec![format!("the API server {}", self.parts.server)],
            None => missing_lists(awaited, unreadable),
        }
    }
}

/// The lists that a complete delivery needs. Those that fail because of the same unknown role are one entry: that may
/// be all.
fn missing_lists(awaited: &[Kind], unreadable: &BTreeMap<Kind, WatchError>) -> Vec<String> {
    let mut missing = Vec::new();
    let mut by_role: BTreeMap<&str, Vec<Kind>> = BTreeMap::new();
    for kind in awaited {
        let list = format!("the first list of {}", kind.plural());
        let watch_error = unreadable.get(kind);
        if let Some(role) = watch_error.and_then(WatchError::unknown_role) {
            by_role.entry(role).or_default().push(*kind);
            continue;
        }
        missing.push(match watch_error {
            Some(WatchError { forbidden: true, message, .. }) => format!(
                "{list} ({message}: grant the rules in manifests/base/cluster-role.yaml, or set --optional-kinds \
                 {kind} to serve without it)"
            ),
            Some(watch_error) => format!("{list} ({})", watch_error.message),
            None => list,
        });
    }
    missing.extend(by_role.into_iter().map(|(role, kinds)| {
        let lists = match &kinds[..] {
            [kind] => format!("the first list of {}", kind.plural()),
            kinds => format!("the first lists of {} and {} other kinds", kinds[0].plural(), kinds.len() - 1),
        };
        format!("{lists} (403 RBAC: {role}: if it lasts, create this role, or correct the binding that refers to it)")
    }));
    missing
}

/// Why a kind cannot be read, and the remedy.
fn unreadable_message(kind: Kind, watch_error: &WatchError) -> String {
    let (group, resources) = (kind.group(), kind.plural());
    if watch_error.forbidden {
        let verbs = if kind.is_fetched_on_reference() { "get, list, watch" } else { "list, watch" };
        return format!(
            "{}; add a rule to Portico's ClusterRole: apiGroups [\"{group}\"], resources [\"{resources}\"], \
             verbs [{verbs}]",
            watch_error.message
        );
    }
    if watch_error.unknown_role().is_some() {
        return format!(
            "{}; Portico retries, and serves everything that was listed before; if it lasts, create the role that the \
             message names",
            watch_error.message
        );
    }
    format!("{}; Portico retries, and serves everything that was listed before", watch_error.message)
}

fn crd_resource() -> ApiResource {
    ApiResource {
        group: "apiextensions.k8s.io".to_owned(),
        version: "v1".to_owned(),
        api_version: "apiextensions.k8s.io/v1".to_owned(),
        kind: "CustomResourceDefinition".to_owned(),
        plural: "customresourcedefinitions".to_owned(),
    }
}

const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// After an outage of this length, the credentials are read again before each further attempt.
const RELOAD_CREDENTIALS_AFTER: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn supervisor() -> Supervisor {
        let unresponsive = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            std::future::pending::<Result<http::Response<kube::client::Body>, std::convert::Infallible>>().await
        });
        let collector = Arc::new(DeliveryCollector::default());
        Supervisor::new(SupervisorParts {
            access: Access::InCluster,
            server: String::new(),
            namespaces: Vec::new(),
            referenced: ReferencedObjects::new(collector.clone(), LargeObjects::Reduce),
            large_objects: LargeObjects::Reduce,
            collector,
            health: WatchHealth::new(),
            clients: watch::Sender::new(Client::new(unresponsive, "default")),
            optional_kinds: BTreeSet::new(),
            startup_timeout: Duration::ZERO,
            waiting_for: watch::Sender::default(),
        })
    }

    #[tokio::test]
    async fn watches_that_end_unexpectedly_are_restarted() {
        let mut supervisor = supervisor();
        supervisor.update_watches(BTreeMap::from([(Kind::HttpRoute, "v1"), (Kind::Gateway, "v1")])).await;
        supervisor.watch_crds();
        let handle = |supervisor: &Supervisor, subject: &WatchSubject| supervisor.running[subject].clone();
        let route = WatchSubject::Objects(Scope { kind: Kind::HttpRoute, namespace: None });
        for subject in [&route, &WatchSubject::Crds] {
            let before = handle(&supervisor, subject);
            before.abort();
            let ended = supervisor.watches.join_next_with_id().await.unwrap().unwrap_err().id();
            supervisor.restart_watch(ended);
            let after = handle(&supervisor, subject);
            assert!(after.id() != before.id() && !after.is_finished(), "{subject:?}");
        }
        // A watch that ends while another kind is removed is restarted too.
        let before = handle(&supervisor, &route);
        before.abort();
        supervisor.update_watches(BTreeMap::from([(Kind::HttpRoute, "v1")])).await;
        while let Ok(Some(Err(ended))) = timeout(Duration::ZERO, supervisor.watches.join_next_with_id()).await {
            supervisor.restart_watch(ended.id());
        }
        assert!(!handle(&supervisor, &route).is_finished() && supervisor.running.len() == 2);
    }
}
