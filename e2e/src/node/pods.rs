//! All Pods of the cluster: binds each one to this node and runs a task for its lifecycle.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Status};
use kube::Api;
use kube::api::PostParams;
use kube::runtime::watcher::Event;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::lifecycle::run_pod;
use super::watching::events;
use super::{NODE, NodeContext, RETRY_DELAY};
use crate::progress::report;

/// Watches the API server until dropped. Dropping it ends all Pods.
pub(crate) async fn run(node: Arc<NodeContext>) {
    let mut pods = Pods { node, lifecycles: BTreeMap::new(), tasks: JoinSet::new(), listed: None };
    let mut events = events(Api::<Pod>::all(pods.node.client.clone()));
    loop {
        tokio::select! {
            Some(event) = events.next() => pods.handle(event),
            Some(result) = pods.tasks.join_next() => {
                if let Err(error) = result {
                    report(format_args!("The task of a Pod panicked: {error}"));
                }
            }
        }
    }
}

/// The Pods that are bound to this node.
struct Pods {
    node: Arc<NodeContext>,
    /// Senders of the latest object to the task of each Pod. By UID, because a name can be reused before the previous
    /// Pod has ended.
    lifecycles: BTreeMap<String, watch::Sender<Arc<Pod>>>,
    tasks: JoinSet<()>,
    /// UIDs in the list that is being received.
    listed: Option<BTreeSet<String>>,
}

impl Pods {
    fn handle(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => self.listed = Some(BTreeSet::new()),
            Event::InitApply(pod) => {
                if let Some(listed) = &mut self.listed {
                    listed.extend(pod.metadata.uid.clone());
                }
                self.apply(pod);
            }
            Event::InitDone => {
                let listed = self.listed.take().unwrap_or_default();
                self.lifecycles.retain(|uid, _| listed.contains(uid));
            }
            Event::Apply(pod) => self.apply(pod),
            Event::Delete(pod) => {
                self.lifecycles.remove(pod.metadata.uid.as_deref().unwrap_or_default());
            }
        }
    }

    fn apply(&mut self, pod: Pod) {
        let Some(uid) = pod.metadata.uid.clone() else { return };
        if let Some(lifecycle) = self.lifecycles.get(&uid) {
            // Sending fails for a Pod that has ended, which needs no updates.
            drop(lifecycle.send(Arc::new(pod)));
            return;
        }
        let spec = pod.spec.as_ref();
        match spec.and_then(|spec| spec.node_name.as_deref()) {
            Some(NODE) => {
                let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
                let has_ended = matches!(phase, Some("Succeeded" | "Failed"));
                if has_ended && pod.metadata.deletion_timestamp.is_none() {
                    return;
                }
                let (sender, receiver) = watch::channel(Arc::new(pod));
                self.lifecycles.insert(uid, sender);
                self.tasks.spawn(run_pod(self.node.clone(), receiver));
            }
            Some(_) => {}
            None => {
                let is_gated =
                    spec.and_then(|spec| spec.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty());
                if !is_gated && pod.metadata.deletion_timestamp.is_none() {
                    self.tasks.spawn(bind(self.node.clone(), pod));
                }
            }
        }
    }
}

/// Binds a Pod to this node, like a scheduler with a single node that suits all Pods.
async fn bind(node: Arc<NodeContext>, pod: Pod) {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.clone().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(node.client.clone(), namespace);
    let target =
        ObjectReference { kind: Some("Node".to_owned()), name: Some(NODE.to_owned()), ..ObjectReference::default() };
    let metadata = ObjectMeta { name: Some(name.clone()), uid: pod.metadata.uid.clone(), ..ObjectMeta::default() };
    let binding = Binding { metadata, target };
    loop {
        let result: Result<Status, kube::Error> =
            api.create_subresource("binding", &name, &PostParams::default(), &binding).await;
        match result {
            Ok(_) => return,
            // Already bound, or deleted.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => return,
            // The API server is unavailable or overloaded.
            Err(_) => sleep(RETRY_DELAY).await,
        }
    }
}
