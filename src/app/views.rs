//! Data of the status and admin listeners, gathered from the modules that own it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::control::Control;
use super::fingerprint_cache::FingerprintCache;
use super::kong_metrics::KongMetrics;
use super::upstream_views;
use crate::admin::{AdminView, RequestObserver, StatusSource, ViewContent, ViewRequest, Views};
use crate::api::{Meta, ObjectId};
use crate::metrics::{Exposition, Metrics};
use crate::plugin_api::token::published_keys::key_set_of_process;
use crate::plugin_kit::counting::UsageReports;
use crate::plugins::prometheus::ConnectionCounts;
use crate::proxy::ProxyStats;
use crate::proxy::observations::{ObservationMode, ObservedRequests};
use crate::ready::Readiness;
use crate::snapshot::Snapshot;
use crate::status;
use crate::upstream::UpstreamRegistry;
use crate::verdict::Verdicts;

/// A query to the control loop, with the channel for its result.
pub(super) struct ViewQuery {
    request: ViewRequest,
    reply: oneshot::Sender<ViewContent>,
}

/// Views of the admin listener: the snapshot and upstreams directly, everything else through the control loop.
pub(super) struct AdminViews {
    snapshots: Arc<ArcSwap<Snapshot>>,
    upstreams: Arc<UpstreamRegistry>,
    fingerprints: Arc<FingerprintCache>,
    usage: Arc<UsageReports>,
    queries: mpsc::Sender<ViewQuery>,
}

impl AdminViews {
    /// Returns the receiver of queries for the task that owns the control state.
    pub(super) fn new(
        snapshots: Arc<ArcSwap<Snapshot>>,
        upstreams: Arc<UpstreamRegistry>,
        fingerprints: Arc<FingerprintCache>,
        usage: Arc<UsageReports>,
    ) -> (Self, mpsc::Receiver<ViewQuery>) {
        let (queries, receiver) = mpsc::channel(16);
        (AdminViews { snapshots, upstreams, fingerprints, usage, queries }, receiver)
    }
}

impl Views for AdminViews {
    fn view(&self, request: ViewRequest) -> BoxFuture<'_, Option<ViewContent>> {
        async move {
            let upstreams = || Arc::clone(&self.upstreams);
            match request.view {
                AdminView::Upstreams => {
                    let (upstreams, selector) = (upstreams(), request.selector);
                    let content = move || upstream_views::upstreams(&upstreams, selector.as_deref());
                    return Some(Box::new(content) as ViewContent);
                }
                AdminView::Circuits => {
                    let (upstreams, selector) = (upstreams(), request.selector);
                    let content = move || upstream_views::circuits(&upstreams, selector.as_deref());
                    return Some(Box::new(content) as ViewContent);
                }
                AdminView::Snapshot => {
                    let snapshot = self.snapshots.load_full();
                    let content = move || serde_json::to_value(snapshot.dump()).expect("a dump serializes to JSON");
                    return Some(Box::new(content) as ViewContent);
                }
                AdminView::Hash => {
                    let fingerprints = Arc::clone(&self.fingerprints);
                    return Some(Box::new(move || hash_json(&fingerprints)) as ViewContent);
                }
                AdminView::Usage => {
                    let usage = Arc::clone(&self.usage);
                    return Some(Box::new(move || usage.to_json()) as ViewContent);
                }
                AdminView::Policies | AdminView::Store | AdminView::Verdicts => {}
            }
            let (reply, received) = oneshot::channel();
            self.queries.send(ViewQuery { request, reply }).await.ok()?;
            received.await.ok()
        }
        .boxed()
    }
}

impl ViewQuery {
    /// Runs in the control loop and therefore only clones data; the returned closure renders it in another task.
    pub(super) fn run(self, control: &Control) {
        let content: ViewContent = match self.request.view {
            AdminView::Policies => {
                let upstreams = Arc::clone(control.upstreams());
                let sources = control.policy_sources(self.request.selector.as_deref());
                Box::new(move || upstream_views::policies(&upstreams, &sources))
            }
            AdminView::Store => {
                let objects = object_metadata(control);
                Box::new(move || store_json(&objects))
            }
            AdminView::Verdicts => {
                let verdicts = control.verdicts().clone();
                Box::new(move || verdicts_json(&verdicts))
            }
            AdminView::Circuits | AdminView::Hash | AdminView::Snapshot | AdminView::Upstreams | AdminView::Usage => {
                return;
            }
        };
        // The receiver may be gone because the client disconnected.
        drop(self.reply.send(content));
    }
}

/// Observes requests of the proxy for the admin listener.
pub(super) struct ProxyObserver(pub(super) Arc<ObservedRequests>);

impl RequestObserver for ProxyObserver {
    fn observe(&self, token: &str, dry_run: bool) -> BoxFuture<'static, Option<Value>> {
        let mode = if dry_run { ObservationMode::DryRun } else { ObservationMode::Serve };
        let mut awaited = self.0.register(token, mode);
        async move {
            let observation = awaited.observation().await?;
            Some(serde_json::to_value(observation).expect("an observation serializes to JSON"))
        }
        .boxed()
    }
}

/// Data of the status listener. All of it is available without the control loop.
pub(super) struct StatusViews {
    metrics: Metrics,
    kong: KongMetrics,
    ready: Readiness,
    stats: Arc<ProxyStats>,
    fingerprints: Arc<FingerprintCache>,
}

impl StatusViews {
    pub(super) fn new(
        metrics: Metrics,
        kong: KongMetrics,
        ready: Readiness,
        stats: Arc<ProxyStats>,
        fingerprints: Arc<FingerprintCache>,
    ) -> Self {
        StatusViews { metrics, kong, ready, stats, fingerprints }
    }
}

impl StatusSource for StatusViews {
    fn waiting_for(&self) -> Vec<String> {
        self.ready.waiting_for()
    }

    fn metrics(&self, exposition: Exposition) -> Result<String, fmt::Error> {
        let page = self.metrics.encode(exposition)?;
        let connections = ConnectionCounts { accepted: self.stats.accepted(), active: self.stats.connections() };
        Ok(self.kong.append_to(page, exposition, self.stats.requests(), connections))
    }

    fn open_connections(&self) -> u64 {
        self.stats.connections()
    }

    fn accepted_connections(&self) -> u64 {
        self.stats.accepted()
    }

    fn total_requests(&self) -> u64 {
        self.stats.requests()
    }

    fn configuration_hash(&self) -> String {
        self.fingerprints.current().to_string()
    }

    fn signing_keys(&self, namespace: Option<&str>) -> String {
        key_set_of_process(&self.kong.state, namespace)
    }
}

/// The hash of the served snapshot. `number` is the value of the metric `portico_snapshot_hash`.
fn hash_json(fingerprints: &FingerprintCache) -> Value {
    let fingerprint = fingerprints.current();
    json!({"hash": fingerprint.to_string(), "number": fingerprint.as_metric_value()})
}

/// Metadata of an object in the store, never its content.
struct ObjectMetadata {
    id: ObjectId,
    generation: i64,
    labels: BTreeMap<Arc<str>, Arc<str>>,
    mentioned_by: Vec<ObjectId>,
}

fn object_metadata(control: &Control) -> Vec<ObjectMetadata> {
    let metadata = |id: ObjectId| {
        let Meta { generation, labels, .. } = control.store.meta(&id)?;
        let mentioned_by = control.store.dependency_index().dependents(&id).cloned().collect();
        Some(ObjectMetadata { generation: *generation, labels: labels.clone(), mentioned_by, id })
    };
    control.store.everything().into_iter().filter_map(metadata).collect()
}

/// The objects as JSON, grouped by kind.
fn store_json(objects: &[ObjectMetadata]) -> Value {
    let mut kinds: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for ObjectMetadata { id, generation, labels, mentioned_by } in objects {
        let mut object = json!({"name": &*id.key.name, "generation": generation});
        if !id.key.namespace.is_empty() {
            object["namespace"] = json!(&*id.key.namespace);
        }
        if !labels.is_empty() {
            object["labels"] = json!(labels);
        }
        if !mentioned_by.is_empty() {
            object["mentionedBy"] = mentioned_by.iter().map(ObjectId::to_string).collect();
        }
        kinds.entry(id.kind.name()).or_default().push(object);
    }
    json!(kinds)
}

fn verdicts_json(verdicts: &Verdicts) -> Value {
    let describe = |(id, verdict): (&ObjectId, &Arc<_>)| {
        let mut object = json!({"kind": id.kind.name(), "name": &*id.key.name});
        if !id.key.namespace.is_empty() {
            object["namespace"] = json!(&*id.key.namespace);
        }
        object["status"] = status::to_json(verdict);
        object
    };
    verdicts.iter().map(describe).collect()
}
