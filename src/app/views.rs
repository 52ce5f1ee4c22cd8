//! What the status and admin listeners show, gathered from the parts that know it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::control::Control;
use super::fingerprints::Fingerprints;
use super::kong_metrics::KongMetrics;
use crate::admin::{View, Views, Vitals};
use crate::api::ObjectId;
use crate::metrics::{Exposition, Metrics};
use crate::plugins::prometheus::Connections;
use crate::proxy::Stats;
use crate::ready::Ready;
use crate::snapshot::Snapshot;
use crate::status;

/// A question to the control loop, and where the answer goes.
pub(super) struct Question {
    view: View,
    answer: oneshot::Sender<Value>,
}

/// Answers the admin listener: from the snapshot directly, else by asking the control loop.
pub(super) struct Inside {
    snapshots: Arc<ArcSwap<Snapshot>>,
    fingerprints: Arc<Fingerprints>,
    questions: mpsc::Sender<Question>,
}

impl Inside {
    /// Gives the questions to whoever owns the control state.
    pub(super) fn new(
        snapshots: Arc<ArcSwap<Snapshot>>,
        fingerprints: Arc<Fingerprints>,
    ) -> (Self, mpsc::Receiver<Question>) {
        let (questions, receiver) = mpsc::channel(16);
        (Inside { snapshots, fingerprints, questions }, receiver)
    }
}

impl Views for Inside {
    fn view(&self, view: View) -> BoxFuture<'_, Option<Value>> {
        async move {
            match view {
                View::Snapshot => return serde_json::to_value(self.snapshots.load().dump()).ok(),
                View::Hash => return Some(hash(&self.fingerprints)),
                View::Store | View::Verdicts => {}
            }
            let (answer, answered) = oneshot::channel();
            self.questions.send(Question { view, answer }).await.ok()?;
            answered.await.ok()
        }
        .boxed()
    }
}

impl Question {
    pub(super) fn answer(self, control: &Control) {
        let value = match self.view {
            View::Store => store(control),
            View::Verdicts => verdicts(control),
            View::Hash | View::Snapshot => Value::Null,
        };
        // Whoever asked may have gone.
        drop(self.answer.send(value));
    }
}

/// Answers the status listener: everything it shows is at hand.
pub(super) struct Outside {
    metrics: Metrics,
    kong: KongMetrics,
    ready: Ready,
    stats: Arc<Stats>,
    fingerprints: Arc<Fingerprints>,
}

impl Outside {
    pub(super) fn new(
        metrics: Metrics,
        kong: KongMetrics,
        ready: Ready,
        stats: Arc<Stats>,
        fingerprints: Arc<Fingerprints>,
    ) -> Self {
        Outside { metrics, kong, ready, stats, fingerprints }
    }
}

impl Vitals for Outside {
    fn waiting_for(&self) -> Vec<String> {
        self.ready.waiting_for()
    }

    fn metrics(&self, exposition: Exposition) -> Result<String, fmt::Error> {
        let page = self.metrics.encode(exposition)?;
        let connections = Connections { accepted: self.stats.accepted(), active: self.stats.connections() };
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
        self.fingerprints.now().to_string()
    }
}

/// The number is `portico_snapshot_hash`.
fn hash(fingerprints: &Fingerprints) -> Value {
    let fingerprint = fingerprints.now();
    json!({"hash": fingerprint.to_string(), "number": fingerprint.number()})
}

/// Every object by kind: who it is and how old, never what is in it.
fn store(control: &Control) -> Value {
    let mut kinds: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for id in control.store.everything() {
        let Some(meta) = control.store.meta(&id) else { continue };
        let mut object = json!({"name": &*id.key.name, "generation": meta.generation});
        if !id.key.namespace.is_empty() {
            object["namespace"] = json!(&*id.key.namespace);
        }
        if !meta.labels.is_empty() {
            object["labels"] = json!(meta.labels);
        }
        let mentioned_by: Vec<_> = control.store.refs().dependents(&id).map(ObjectId::to_string).collect();
        if !mentioned_by.is_empty() {
            object["mentionedBy"] = json!(mentioned_by);
        }
        kinds.entry(id.kind.name()).or_default().push(object);
    }
    json!(kinds)
}

fn verdicts(control: &Control) -> Value {
    let describe = |(id, verdict): (&ObjectId, &Arc<_>)| {
        let mut object = json!({"kind": id.kind.name(), "name": &*id.key.name});
        if !id.key.namespace.is_empty() {
            object["namespace"] = json!(&*id.key.namespace);
        }
        object["status"] = status::to_json(verdict);
        object
    };
    control.verdicts().iter().map(describe).collect()
}
