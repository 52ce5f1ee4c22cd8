//! The life of one Pod, from being bound to this node until its object is gone.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::container::Container;
use super::health;
use super::log::Key;
use super::mounted::Mounted;
use super::plan::{Ending, Plan};
use super::program::{Running, wind_down};
use super::sandbox::Sandbox;
use super::status::{Seen, State, Writer};
use super::{Host, RETRY};

/// Lives the life of a Pod. `updates` has the latest of the object and ends with it.
pub(crate) async fn live(host: Arc<Host>, updates: watch::Receiver<Arc<Pod>>) {
    let pod = updates.borrow().clone();
    if pod.metadata.deletion_timestamp.is_some() {
        // Of an earlier run of this node, or never started: there is nothing to end.
        return delete(&host, &pod).await;
    }
    let (seen, receiver) = watch::channel(Seen::first(&pod));
    let writer = Writer::new(host.client.clone(), &pod);
    let life = Life { host: &host, pod: &pod, seen, sandbox: None, running: None };
    // What is seen last is written before the object goes.
    let ((end, sandbox), ()) = tokio::join!(life.live(updates), writer.write(receiver));
    let removed = spawn_blocking(move || drop(sandbox));
    if end == End::Asked {
        delete(&host, &pod).await;
    }
    host.logs.forget(&key(&pod), pod.metadata.uid.as_deref().unwrap_or_default());
    // It panics never, and says itself what it could not remove.
    drop(removed.await);
}

struct Life<'a> {
    host: &'a Arc<Host>,
    pod: &'a Arc<Pod>,
    seen: watch::Sender<Seen>,
    // What there is of it so far.
    sandbox: Option<Sandbox>,
    running: Option<Running>,
}

/// Why a Pod ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Its object waits for us to delete it.
    Asked,
    /// Its object is gone already.
    Gone,
}

impl Life<'_> {
    /// Runs what the Pod asks for until it is to end, and ends it. What is left is for the caller to remove.
    async fn live(mut self, mut updates: watch::Receiver<Arc<Pod>>) -> (End, Option<Sandbox>) {
        let plan = match Plan::of(self.pod, &self.host.images) {
            Ok(plan) => plan,
            Err(refusal) => {
                self.seen.send_if_modified(|seen| seen.wait("CreateContainerConfigError", refusal));
                return (end(&mut updates).await, None);
            }
        };
        let end = tokio::select! {
            biased;
            end = end(&mut updates) => end,
            () = self.work(&plan) => end(&mut updates).await,
        };
        if let Some(mut running) = self.running.take() {
            if end == End::Asked
                && let Some(sandbox) = &self.sandbox
            {
                let ending = requested(&updates.borrow(), plan.ending);
                let id = running.identity.id;
                tokio::select! {
                    () = wind_down(&mut running, ending) => {}
                    () = gone(&mut updates) => {}
                    // A Pod that ends says itself whether it takes requests, to the last.
                    never = health::ready(&plan.probes, sandbox, id, &self.seen) => never,
                }
            }
            let ended = running.kill().await;
            // Of one that ends at once, nobody reads how it ended: one write less before it is gone.
            if let Ok(ended) = ended
                && plan.ending != Ending::AtOnce
            {
                self.seen.send_modify(|seen| seen.end(State::Ended(ended)));
            }
        }
        (end, self.sandbox)
    }

    /// Everything before the end. Comes back when the container has ended for good.
    async fn work(&mut self, plan: &Plan) {
        let sandbox = loop {
            match self.make(plan).await {
                Ok(sandbox) => break self.sandbox.insert(sandbox),
                Err(error) => {
                    let error = format!("{error:#}");
                    self.seen.send_if_modified(|seen| seen.wait("FailedCreatePodSandBox", error));
                }
            }
            sleep(RETRY).await;
        };
        self.seen.send_modify(|seen| seen.address = Some(sandbox.address));
        let mut mounted = Mounted::new(self.host, self.pod, plan, sandbox);
        while let Err(error) = mounted.mount().await {
            self.seen.send_if_modified(|seen| seen.wait("ContainerCreating", error));
            sleep(RETRY).await;
        }
        let container =
            Container { host: self.host, pod: self.pod, plan, sandbox, seen: &self.seen, key: key(self.pod) };
        tokio::select! {
            () = container.run(&mut self.running) => {}
            never = mounted.refresh() => never,
        }
    }

    async fn make(&self, plan: &Plan) -> Result<Sandbox> {
        let (host, pod) = (self.host.clone(), self.pod.clone());
        let (image, settings) = (plan.image.clone(), plan.settings.clone());
        let made = spawn_blocking(move || {
            let sandbox = Sandbox::make(&host, &pod)?;
            image.fill(&sandbox.root())?;
            sandbox.set(&settings)?;
            Ok(sandbox)
        });
        made.await?
    }
}

/// Waits until the Pod is to end.
async fn end(updates: &mut watch::Receiver<Arc<Pod>>) -> End {
    loop {
        if updates.borrow_and_update().metadata.deletion_timestamp.is_some() {
            return End::Asked;
        }
        if updates.changed().await.is_err() {
            return End::Gone;
        }
    }
}

/// Waits until the object is gone, for whoever forces it, against the Pod's wishes.
async fn gone(updates: &mut watch::Receiver<Arc<Pod>>) {
    while updates.changed().await.is_ok() {}
}

/// How a Pod ends with the time that whoever deleted it gives it.
fn requested(pod: &Pod, ending: Ending) -> Ending {
    let given = pod.metadata.deletion_grace_period_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    match (ending, given) {
        (Ending::InOrder { pause, .. }, Some(seconds)) => {
            Ending::InOrder { pause, grace: Duration::from_secs(seconds) }
        }
        _ => ending,
    }
}

/// Takes the object away, now that nothing runs any more.
async fn delete(host: &Host, pod: &Pod) {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(host.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
    let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
    let parameters = DeleteParams::default().grace_period(0).preconditions(preconditions);
    loop {
        match api.delete(name, &parameters).await {
            Ok(_) => return,
            // Gone, or another of the same name.
            Err(kube::Error::Api(refusal)) if matches!(refusal.code, 404 | 409) => return,
            Err(_) => sleep(RETRY).await,
        }
    }
}

fn key(pod: &Pod) -> Key {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
    Key {
        namespace: text(&pod.metadata.namespace),
        pod: text(&pod.metadata.name),
        container: container.map_or_else(String::new, |container| container.name.clone()),
    }
}
