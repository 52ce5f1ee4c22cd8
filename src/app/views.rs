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
use crate::admin::{Seen, View, Views, Vitals};
use crate::api::{Meta, ObjectId};
use crate::compile::verdict::Verdicts;
use crate::metrics::{Exposition, Metrics};
use crate::plugins::prometheus::Connections;
use crate::proxy::Stats;
use crate::ready::Ready;
use crate::snapshot::Snapshot;
use crate::status;

/// A question to the control loop, and where the answer goes.
pub(super) struct Question {
    view: View,
    answer: oneshot::Sender<Seen>,
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
    fn view(&self, view: View) -> BoxFuture<'_, Option<Seen>> {
        async move {
            match view {
                View::Snapshot => {
                    let snapshot = self.snapshots.load_full();
                    let made =
                        move || serde_json::to_value(snapshot.dump()).expect("a dump is made of words and lists");
                    return Some(Box::new(made) as Seen);
                }
                View::Hash => {
                    let fingerprints = Arc::clone(&self.fingerprints);
                    return Some(Box::new(move || hash(&fingerprints)) as Seen);
                }
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
    /// Changes wait for this, so it takes what there is and leaves it to others to make something of it.
    pub(super) fn answer(self, control: &Control) {
        let seen: Seen = match self.view {
            View::Store => {
                let objects = objects(control);
                Box::new(move || store(&objects))
            }
            View::Verdicts => {
                let verdicts = control.verdicts().clone();
                Box::new(move || verdicts_of(&verdicts))
            }
            View::Hash | View::Snapshot => return,
        };
        // Whoever asked may have gone.
        drop(self.answer.send(seen));
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

/// An object of the store: who it is and how old, never what is in it.
struct Known {
    id: ObjectId,
    generation: i64,
    labels: BTreeMap<Arc<str>, Arc<str>>,
    mentioned_by: Vec<ObjectId>,
}

fn objects(control: &Control) -> Vec<Known> {
    let known = |id: ObjectId| {
        let Meta { generation, labels, .. } = control.store.meta(&id)?;
        let mentioned_by = control.store.refs().dependents(&id).cloned().collect();
        Some(Known { generation: *generation, labels: labels.clone(), mentioned_by, id })
    };
    control.store.everything().into_iter().filter_map(known).collect()
}

/// By kind.
fn store(objects: &[Known]) -> Value {
    let mut kinds: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for Known { id, generation, labels, mentioned_by } in objects {
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

fn verdicts_of(verdicts: &Verdicts) -> Value {
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
