//! The cluster as a source of the control loop: takes deliveries and decides when the state is complete enough to
//! compile.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::control::Control;
use super::source_overlap::SourceOverlap;
use crate::api::{Kind, ObjectId};
use crate::args::{ClusterAccess, ClusterOptions};
use crate::k8s::{Access, ApiConnection, ApiServerSource, Delivery, InstalledApis, WatchCounters};
use crate::process_log;
use crate::ready::{Readiness, ReadyGuard};
use crate::status::StatusQueue;
use crate::store::{Batch, LargeObjects};

/// A cluster as a source of objects, and what is not compiled yet.
#[derive(Debug)]
pub(super) struct ClusterSource {
    pub(super) source: ApiServerSource,
    /// Queue of status writes for the verdicts on its objects.
    pub(super) status_queue: Option<StatusQueue>,
    /// Which of the supported kinds the cluster has.
    pub(super) installed: Arc<InstalledApis>,
    /// Whether every kind was listed once.
    complete: bool,
    /// Withholds readiness until `complete`.
    initial_sync: InitialSync,
    /// How long the first compilation waits for referenced objects.
    startup_timeout: Duration,
    /// Kinds that need not be readable.
    optional_kinds: BTreeSet<Kind>,
    /// Referenced objects that may not be fetched, and for which the first compilation waits. Empty after it.
    forbidden: BTreeSet<ObjectId>,
    /// Whether it waits for them without end.
    lacks_permission: bool,
    /// Whether the first compilation was permitted.
    is_started: bool,
    /// Deadline for referenced objects; after it, compilation proceeds without them.
    deadline: Option<Instant>,
    /// Revision of the set of unfetched objects in the store.
    unfetched_revision: u64,
    /// Time of the first event that is not compiled yet.
    first_event: Option<Instant>,
    /// Objects that were deleted and recreated under the same name.
    recreated: Vec<ObjectId>,
    /// Objects that cannot be parsed as their kind.
    pub(super) malformed: BTreeSet<ObjectId>,
}

impl ClusterSource {
    /// Connects, logs the server and starts to watch. Readiness waits for the first complete delivery.
    pub(super) async fn start(
        options: &ClusterOptions,
        large_objects: LargeObjects,
        ready: &Readiness,
    ) -> anyhow::Result<ClusterSource> {
        let (access, connection) = connect(&options.access).await?;
        let (namespaces, startup_timeout) = (options.namespaces.clone(), options.startup_timeout);
        let optional = options.optional_kinds.clone();
        let source = ApiServerSource::start(access, connection, namespaces, optional, startup_timeout, large_objects);
        let initial_sync = InitialSync::new(ready.guard("the API server"));
        // The task ends with the source or when readiness is released.
        tokio::spawn(initial_sync.clone().follow(source.waiting_for()));
        Ok(ClusterSource {
            source,
            status_queue: None,
            installed: Arc::default(),
            complete: false,
            initial_sync,
            startup_timeout,
            optional_kinds: options.optional_kinds.clone(),
            forbidden: BTreeSet::new(),
            lacks_permission: false,
            is_started: false,
            deadline: None,
            unfetched_revision: 0,
            first_event: None,
            recreated: Vec::new(),
            malformed: BTreeSet::new(),
        })
    }

    pub(super) fn counters(&self) -> WatchCounters {
        self.source.counters()
    }

    /// Waits for the next delivery. Cancel-safe.
    pub(super) async fn next(&self) -> Delivery {
        self.source.next().await
    }

    /// Applies a delivery; its objects go to the store.
    pub(super) fn apply(&mut self, delivery: Delivery, control: &mut Control, overlap: Option<&mut SourceOverlap>) {
        let Delivery { batch, observed, rejected: rejections, installed, complete, since } = delivery;
        for (id, rejection) in rejections {
            match &rejection {
                Some(rejected) => {
                    let (field, message) = (&rejected.error.field, &rejected.error.message);
                    warn!(
                        object = %id,
                        field,
                        "Invalid object: {message}; its last valid version, if any, stays in use"
                    );
                }
                None => info!(object = %id, "The invalid object was corrected or deleted"),
            }
            match &rejection {
                Some(_) => self.malformed.insert(id.clone()),
                None => self.malformed.remove(&id),
            };
            if let Some(queue) = &self.status_queue {
                queue.set_rejected(id, rejection);
            }
        }
        if let Some(installed) = installed {
            log_installed(&self.installed, &installed);
            control.set_installed(installed.clone());
            if let Some(queue) = &self.status_queue {
                queue.set_installed(installed.clone());
            }
            self.installed = installed;
        }
        control.addressing.observe_statuses(&observed);
        if let Some(queue) = &self.status_queue {
            // Before the verdicts: the queue drops verdicts for an older generation than the observed one.
            let recreated = observed.into_iter().filter(|(id, observed)| queue.observe(id.clone(), observed.clone()));
            self.recreated.extend(recreated.map(|(id, _)| id));
        }
        if complete {
            self.complete = true;
            // Not done in `follow`, because a ready process must serve this delivery.
            self.initial_sync.finish();
        }
        self.first_event = self.first_event.or(since);
        let batch: Batch = match overlap {
            Some(overlap) => overlap.filter_cluster(batch),
            None => batch,
        };
        control.stage(batch);
    }

    /// Whether the store may be compiled now. Waits for referenced objects that exist but are not fetched yet, so that
    /// a Gateway whose Secret arrives late does not appear broken. The wait is bounded so that an object that cannot be
    /// fetched does not block others. The first compilation waits longer and also for failed fetches, because a Pod
    /// that serves without certificates and credentials must not replace one that has them. If no object of a kind was
    /// fetched, it waits without end for the permission. If some were, the others may be those that one object of one
    /// namespace names, which must not keep new Pods from serving all.
    pub(super) fn may_compile(&mut self, control: &mut Control) -> bool {
        let settled = self.source.change_referenced(&control.take_reference_changes());
        let (unfetched, revision) = self.source.unfetched(control.store.unfetched());
        self.unfetched_revision = revision;
        let forbidden = self.source.forbidden();
        self.forbidden = if self.is_started { BTreeSet::new() } else { forbidden.clone() };
        self.forbidden.retain(|id| !self.optional_kinds.contains(&id.kind));
        control.set_unfetched(unfetched, forbidden);
        self.lacks_permission = self.forbidden.iter().any(|id| !self.source.has_fetched(id.kind));
        if !self.complete {
            return false;
        }
        let unfetched = control.store.unfetched();
        if settled && (self.is_started || unfetched.is_empty() && self.forbidden.is_empty()) {
            self.deadline = None;
            self.is_started = true;
            return true;
        }
        let max_wait = if self.is_started { MAX_REFERENCE_WAIT } else { self.startup_timeout };
        let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + max_wait);
        if Instant::now() < deadline || self.lacks_permission {
            return false;
        }
        self.deadline = None;
        if !self.is_started {
            warn!(
                unfetched = unfetched.len() + self.forbidden.len(),
                example = unfetched.first().or(self.forbidden.first()).map(ToString::to_string),
                "Serving without objects that could not be fetched within --startup-timeout"
            );
            self.is_started = true;
            self.forbidden.clear();
        }
        true
    }

    /// Waits until `may_compile` may return another result, or the set of unfetched objects changes, although nothing
    /// was delivered.
    pub(super) async fn wait_for_references(&self) {
        // Neither the deadline nor the other objects end the wait for a permission.
        match self.deadline.filter(|_| !self.lacks_permission) {
            Some(deadline) if self.forbidden.is_empty() => tokio::select! {
                () = self.source.wait_until_fetched(!self.is_started) => {}
                () = sleep_until(deadline) => {}
            },
            // All of them have a response.
            Some(deadline) => tokio::select! {
                () = self.source.wait_until_unfetched_changes(self.unfetched_revision) => {}
                () = sleep_until(deadline) => {}
            },
            None => self.source.wait_until_unfetched_changes(self.unfetched_revision).await,
        }
    }

    /// What the first compilation waits for after everything was listed, for `/readyz`. `None` if it waits for nothing.
    pub(super) fn pending_references(&self, unfetched: &BTreeSet<ObjectId>) -> Option<String> {
        if self.is_started || !self.complete { None } else { pending_references(&self.forbidden, unfetched) }
    }

    /// Recreated objects, whose status must be written even if their verdict did not change.
    pub(super) fn take_recreated(&mut self) -> Vec<ObjectId> {
        std::mem::take(&mut self.recreated)
    }

    /// Time of the first event in the current compilation.
    pub(super) fn take_first_event(&mut self) -> Option<Instant> {
        self.first_event.take()
    }
}

/// Connects, and prints or logs the server before anything else, so that the user can check that this is the intended
/// cluster.
pub(super) async fn connect(access: &ClusterAccess) -> anyhow::Result<(Access, ApiConnection)> {
    let access = match access {
        ClusterAccess::Pod => Access::InCluster,
        ClusterAccess::Kubeconfig { file, context } => {
            Access::Kubeconfig { file: file.clone(), context: context.clone() }
        }
    };
    let connection = access.connect().await.context("cannot use the cluster")?;
    match &connection.context {
        Some(context) => process_log::write_stderr(&format!("Context {context}, server {}\n", connection.server)),
        None => info!(server = connection.server, "Reading objects from the cluster of this Pod"),
    }
    Ok((access, connection))
}

/// Names one of the objects that are waited for, and their number.
fn pending_references(forbidden: &BTreeSet<ObjectId>, unfetched: &BTreeSet<ObjectId>) -> Option<String> {
    let example = match forbidden.first() {
        Some(id) => format!(
            "{id} (which Portico may not read: grant the verb get on {}, or set --optional-kinds {} to serve without \
             it)",
            id.kind.plural(),
            id.kind
        ),
        None => unfetched.first()?.to_string(),
    };
    Some(match forbidden.len() + unfetched.len() {
        1 => format!("the content of {example}"),
        count => format!("the content of {example} and {} other Secrets and ConfigMaps", count - 1),
    })
}

/// Withholds readiness until everything was listed once, and names the pending lists.
#[derive(Clone, Debug)]
struct InitialSync(Arc<Mutex<Option<ReadyGuard>>>);

impl InitialSync {
    fn new(guard: ReadyGuard) -> Self {
        InitialSync(Arc::new(Mutex::new(Some(guard))))
    }

    /// Releases readiness.
    fn finish(&self) {
        self.0.lock().take();
    }

    /// Names the pending lists in the guard until readiness is released.
    async fn follow(self, mut waiting_for: watch::Receiver<Vec<String>>) {
        loop {
            {
                let missing = waiting_for.borrow_and_update();
                match &*self.0.lock() {
                    Some(guard) if missing.is_empty() => guard.rename("the first delivery of the listed objects"),
                    Some(guard) => guard.rename(missing.join(", ")),
                    None => return,
                }
            }
            if waiting_for.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Logs newly watched kinds and a new release of the Gateway API.
fn log_installed(before: &InstalledApis, now: &InstalledApis) {
    let release = |installed: &InstalledApis| (installed.bundle_version.clone(), installed.channel.clone());
    let new = now.versions.iter().filter(|(kind, version)| before.versions.get(*kind) != Some(*version));
    let kinds: Vec<_> = new.map(|(kind, version)| format!("{kind} {version}")).collect();
    if !kinds.is_empty() {
        info!(kinds = kinds.join(", "), "Watching kinds");
    }
    if release(before) != release(now) {
        let (bundle, channel) = release(now);
        info!(bundle, channel, "Found the Gateway API CRDs");
    }
}

const MAX_REFERENCE_WAIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ObjectKey;

    #[test]
    fn pending_references_name_what_needs_a_permission_first() {
        let ids = |names: &[&str]| -> BTreeSet<ObjectId> {
            names.iter().map(|name| ObjectId::new(Kind::Secret, ObjectKey::new("shop", name))).collect()
        };
        let denied = "the content of Secret shop/tls (which Portico may not read: grant the verb get on secrets, or \
                      set --optional-kinds Secret to serve without it)";
        for (forbidden, unfetched, expected) in [
            (&["tls"][..], &["a", "b"][..], Some(format!("{denied} and 2 other Secrets and ConfigMaps"))),
            (&["tls"], &[], Some(denied.to_owned())),
            (&[], &["a"], Some("the content of Secret shop/a".to_owned())),
            (&[], &[], None),
        ] {
            assert_eq!(pending_references(&ids(forbidden), &ids(unfetched)), expected);
        }
    }

    #[tokio::test]
    async fn ready_after_first_complete_delivery_is_applied() {
        let ready = Readiness::new();
        let initial_sync = InitialSync::new(ready.guard("the API server"));
        let (pending_lists, waiting_for) = watch::channel(vec!["the first list of services".to_owned()]);
        let follower = tokio::spawn(initial_sync.clone().follow(waiting_for));
        tokio::task::yield_now().await;
        assert_eq!(ready.waiting_for(), ["the first list of services"]);
        pending_lists.send_replace(Vec::new());
        tokio::task::yield_now().await;
        assert_eq!(ready.waiting_for(), ["the first delivery of the listed objects"], "the delivery is not served yet");
        initial_sync.finish();
        assert!(ready.is_ready(), "no other guard is held");
        drop(pending_lists);
        follower.await.unwrap();
    }
}
