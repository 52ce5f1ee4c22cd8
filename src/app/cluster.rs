//! The cluster as the control loop sees it: what it says, and when enough of it is there to compile.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::control::Control;
use super::overlap::Overlap;
use crate::api::ObjectId;
use crate::args::{ClusterAccess, ClusterOptions};
use crate::k8s::{Access, Counters, Delivery, Installed, Source};
use crate::ready::{Ready, ReadyGuard};
use crate::status::Desk;
use crate::store::Batch;
use crate::telemetry;

/// A cluster that is a source of objects, and what is pending of it.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) source: Source,
    /// Where verdicts on its objects are told.
    pub(super) desk: Option<Desk>,
    /// What is installed, as far as is known.
    pub(super) installed: Arc<Installed>,
    /// Every kind was listed once.
    complete: bool,
    /// Held until then.
    missing: Missing,
    /// Until then what is referred to may come; after that things are compiled without it.
    patience: Option<Instant>,
    /// The first event that was not compiled yet.
    since: Option<Instant>,
    /// Objects that were deleted and made anew under their names.
    successors: Vec<ObjectId>,
    /// Objects that cannot be read as their kind.
    pub(super) malformed: BTreeSet<ObjectId>,
}

impl Cluster {
    /// Connects, says to what, and begins to watch. Readiness waits for the first complete delivery.
    pub(super) async fn start(options: &ClusterOptions, ready: &Ready) -> anyhow::Result<Cluster> {
        let access = match &options.access {
            ClusterAccess::Pod => Access::InCluster,
            ClusterAccess::Kubeconfig { file, context } => {
                Access::Kubeconfig { file: file.clone(), context: context.clone() }
            }
        };
        let connection = access.connect().await.context("cannot use the cluster")?;
        match &connection.context {
            // For people, and before anything else happens: this is the cluster that is meant, or it is not.
            Some(context) => telemetry::tell(&format!("Context {context}, server {}\n", connection.server)),
            None => info!(server = connection.server, "Reads objects from the cluster that this Pod is in"),
        }
        let source = Source::start(access, connection, options.namespaces.clone());
        let missing = Missing::new(ready.guard("the API server"));
        // On its own, since it ends with the source, or when there is nothing more to say.
        tokio::spawn(missing.clone().say(source.waiting_for()));
        Ok(Cluster {
            source,
            desk: None,
            installed: Arc::default(),
            complete: false,
            missing,
            patience: None,
            since: None,
            successors: Vec::new(),
            malformed: BTreeSet::new(),
        })
    }

    pub(super) fn counters(&self) -> Counters {
        self.source.counters()
    }

    /// Waits for news. May be dropped while it waits.
    pub(super) async fn next(&self) -> Delivery {
        self.source.next().await
    }

    /// Takes a delivery over, and what it says about objects to the store.
    pub(super) fn take(&mut self, delivery: Delivery, control: &mut Control, overlap: Option<&mut Overlap>) {
        let Delivery { batch, observed, refused, installed, complete, since } = delivery;
        for (id, refused) in refused {
            match &refused {
                Some(refused) => {
                    let (field, why) = (&refused.why.field, &refused.why.message);
                    warn!(object = %id, field, "Cannot be read: {why}; its last good version counts, if there was one");
                }
                None => info!(object = %id, "Can be read again, or is gone"),
            }
            match &refused {
                Some(_) => self.malformed.insert(id.clone()),
                None => self.malformed.remove(&id),
            };
            if let Some(desk) = &self.desk {
                desk.refuse(id, refused);
            }
        }
        if let Some(installed) = installed {
            tell_installed(&self.installed, &installed);
            control.installed(installed.clone());
            if let Some(desk) = &self.desk {
                desk.installed(installed.clone());
            }
            self.installed = installed;
        }
        control.addressing.observe(&observed);
        if let Some(desk) = &self.desk {
            // Before the verdicts: one that speaks of an older generation than was seen is not told.
            let others = observed.into_iter().filter(|(id, observed)| desk.observe(id.clone(), observed.clone()));
            self.successors.extend(others.map(|(id, _)| id));
        }
        if complete {
            self.complete = true;
            // Here and not where it is said what is missing: whoever reads that we serve must find us ready.
            self.missing.end();
        }
        self.since = self.since.or(since);
        let batch: Batch = match overlap {
            Some(overlap) => overlap.of_cluster(batch),
            None => batch,
        };
        control.put(batch);
    }

    /// Whether what is in the store may be compiled now. What is referred to and exists is waited for, but not for ever: a
    /// Gateway whose Secret is a moment late must not look broken, and one that never comes must not stop the others.
    pub(super) fn lets_compile(&mut self, control: &Control, is_first: bool) -> bool {
        let settled = self.source.want(control.wanted_bodies());
        if !self.complete {
            return false;
        }
        if settled {
            self.patience = None;
            return true;
        }
        let longest = if is_first { LONGEST_AT_START } else { LONGEST };
        let until = *self.patience.get_or_insert_with(|| Instant::now() + longest);
        if until <= Instant::now() {
            self.patience = None;
            return true;
        }
        false
    }

    /// Waits until it makes sense to ask `lets_compile` again although nothing was delivered.
    pub(super) async fn settled(&self) {
        match self.patience {
            Some(until) => tokio::select! {
                () = self.source.settled() => {}
                () = sleep_until(until) => {}
            },
            None => pending().await,
        }
    }

    /// Objects that have to be told what was compiled now, even if the same was thought of others of their names.
    pub(super) fn take_successors(&mut self) -> Vec<ObjectId> {
        std::mem::take(&mut self.successors)
    }

    /// When the first of what is compiled now happened.
    pub(super) fn take_since(&mut self) -> Option<Instant> {
        self.since.take()
    }
}

/// Holds readiness back until everything was listed once, and names what was not yet.
#[derive(Clone, Debug)]
struct Missing(Arc<Mutex<Option<ReadyGuard>>>);

impl Missing {
    fn new(guard: ReadyGuard) -> Self {
        Missing(Arc::new(Mutex::new(Some(guard))))
    }

    /// Nothing is missing any more.
    fn end(&self) {
        self.0.lock().take();
    }

    async fn say(self, mut waiting_for: watch::Receiver<Vec<String>>) {
        loop {
            {
                let missing = waiting_for.borrow_and_update();
                match &*self.0.lock() {
                    Some(guard) if missing.is_empty() => guard.rename("the first delivery of what was listed"),
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

fn tell_installed(before: &Installed, now: &Installed) {
    let marks = |installed: &Installed| (installed.bundle_version.clone(), installed.channel.clone());
    let new = now.versions.iter().filter(|(kind, version)| before.versions.get(*kind) != Some(*version));
    let kinds: Vec<_> = new.map(|(kind, version)| format!("{kind} {version}")).collect();
    if !kinds.is_empty() {
        info!(kinds = kinds.join(", "), "Watches");
    }
    if marks(before) != marks(now) {
        let (bundle, channel) = marks(now);
        info!(bundle, channel, "The Gateway API that is installed");
    }
}

const LONGEST: Duration = Duration::from_secs(1);
const LONGEST_AT_START: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_once_the_first_complete_delivery_is_taken_and_not_when_that_is_told() {
        let ready = Ready::new();
        let missing = Missing::new(ready.guard("the API server"));
        let (lists, waiting_for) = watch::channel(vec!["the first list of services".to_owned()]);
        let saying = tokio::spawn(missing.clone().say(waiting_for));
        tokio::task::yield_now().await;
        assert_eq!(ready.waiting_for(), ["the first list of services"]);
        lists.send_replace(Vec::new());
        tokio::task::yield_now().await;
        assert_eq!(ready.waiting_for(), ["the first delivery of what was listed"], "it is not served yet");
        missing.end();
        assert!(ready.is_ready(), "nobody else has to come first");
        drop(lists);
        saying.await.unwrap();
    }
}
