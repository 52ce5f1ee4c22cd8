//! The loop that carries every change on: from files and cluster to the store, the snapshot, the sockets, and to people.

use std::collections::BTreeSet;
use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::announce::{Announcer, Edit};
use super::cluster::Cluster;
use super::control::{Applied, Control, News};
use super::fronts::Fronts;
use super::meters::Meters;
use super::overlap::Overlap;
use super::problem_meters::ProblemMeters;
use super::servers::{Lookup, Troubles};
use super::tell;
use super::views::Question;
use crate::k8s::Delivery;
use crate::manifests::{Changed, Manifests, Refusal, Update, Watcher};
use crate::proxy::{BindState, Binds, Proxy};
use crate::ready::ReadyGuard;
use crate::schema::Channel;
use crate::snapshot::Snapshot;
use crate::status::Bind;
use crate::upstream::Registry;
use crate::upstream::dns::Dns;

/// What the control loop owns, and nobody else writes.
pub(super) struct ControlLoop {
    pub(super) files: Files,
    pub(super) cluster: Option<Cluster>,
    /// Only with a cluster.
    pub(super) fronts: Option<Fronts>,
    /// Only if there are both.
    pub(super) overlap: Option<Overlap>,
    pub(super) control: Control,
    pub(super) announcer: Announcer,
    pub(super) proxy: Arc<Proxy>,
    pub(super) retry: Retry,
    /// Until there is a snapshot.
    pub(super) first: Option<ReadyGuard>,
    pub(super) dns: Dns,
    /// What plugins at work say.
    pub(super) troubles: Arc<Troubles>,
    pub(super) upstreams: Arc<Registry>,
    pub(super) snapshots: Arc<ArcSwap<Snapshot>>,
    pub(super) meters: Meters,
    pub(super) problems: ProblemMeters,
}

/// The files of the command line, and what was last said about them.
pub(super) struct Files {
    manifests: Manifests,
    watcher: Watcher,
    /// Without its batch, which is in the store.
    update: Update,
    /// What of `update` is about the files alone.
    refusals: Vec<Refusal>,
}

impl Files {
    pub(super) fn new(paths: Vec<PathBuf>, channel: Channel, watcher: Watcher) -> Self {
        let manifests = Manifests::new(paths, channel);
        Files { manifests, watcher, update: Update::default(), refusals: Vec::new() }
    }
}

impl ControlLoop {
    /// Never returns by itself.
    pub(super) async fn run(
        mut self,
        mut ticks: mpsc::Receiver<()>,
        mut questions: mpsc::Receiver<Question>,
        mut lookups: mpsc::Receiver<Lookup>,
    ) {
        self.read_files(&Changed::Anything);
        self.carry_on(Instant::now()).await;
        loop {
            tokio::select! {
                Some(()) = ticks.recv() => {
                    let begin = Instant::now();
                    let changed = self.files.watcher.changed();
                    self.read_files(&changed);
                    self.carry_on(begin).await;
                }
                delivery = next(self.cluster.as_ref()) => {
                    let begin = delivery.since.unwrap_or_else(Instant::now);
                    self.take(delivery);
                    self.carry_on(begin).await;
                }
                () = fronts_changed(self.fronts.as_mut()) => self.carry_on(Instant::now()).await,
                () = settled(self.cluster.as_ref()) => self.carry_on(Instant::now()).await,
                () = self.retry.due() => {
                    self.reconcile().await;
                    self.announce_news();
                }
                Some(question) = questions.recv() => question.answer(&self.control),
                () = self.troubles.changed() => {
                    self.control.troubled(self.troubles.said());
                    self.announce_news();
                }
                Some(lookup) = lookups.recv() => lookup.answer(&self.control),
            }
        }
    }

    /// Says what has become of objects that nobody changed.
    fn announce_news(&mut self) {
        let news = self.control.take_news();
        self.tell(&news);
        self.announcer.verdicts(&news, &self.control, &self.files.manifests);
    }

    /// Reads what changed in files and puts it into the store.
    fn read_files(&mut self, changed: &Changed) {
        let mut update = tokio::task::block_in_place(|| self.files.manifests.read_changed(changed));
        let batch = std::mem::take(&mut update.batch);
        let batch = match &mut self.overlap {
            Some(overlap) => overlap.of_files(batch),
            None => batch,
        };
        self.control.put(batch);
        self.files.watcher.follow(self.files.manifests.folders());
        self.files.refusals.clone_from(&update.refusals);
        self.files.update = update;
        self.remark_overlap();
    }

    /// Puts what the cluster says into the store.
    fn take(&mut self, delivery: Delivery) {
        let Some(cluster) = &mut self.cluster else { return };
        let changes_objects = !(delivery.batch.upserts.is_empty() && delivery.batch.removes.is_empty());
        cluster.take(delivery, &mut self.control, self.overlap.as_mut());
        if changes_objects {
            self.remark_overlap();
        }
    }

    /// Says of files what the cluster makes of them.
    fn remark_overlap(&mut self) {
        if let Some(overlap) = &self.overlap {
            let remarks = overlap.refusals(&self.files.manifests);
            self.files.update.refusals = self.files.refusals.iter().cloned().chain(remarks).collect();
        }
    }

    /// Takes what is in the store to the proxy and to people, if enough of it is there. `begin`: when it changed.
    async fn carry_on(&mut self, begin: Instant) {
        if let Some(cluster) = &mut self.cluster
            && !cluster.lets_compile(&self.control, self.first.is_some())
        {
            return;
        }
        if let Some(fronts) = &mut self.fronts {
            if self.first.is_some() {
                // What there is in front of the Gateways is only told for those that have asked.
                self.control.assign();
                if !fronts.let_compile() {
                    return;
                }
            }
            fronts.see(&mut self.control);
        }
        let begin = self.cluster.as_mut().and_then(Cluster::take_since).map_or(begin, |since| since.min(begin));
        let is_first = self.first.is_some();
        // Most events of a cluster are the echo of our own statuses.
        let applied = if is_first || self.control.has_changes() { self.compile() } else { Applied::default() };
        let swapped = applied.swapped;
        let took = begin.elapsed();
        if swapped || is_first {
            if swapped && !is_first {
                self.meters.propagated(took);
            }
            self.reconcile().await;
        } else {
            // A port may serve another Gateway in the same way.
            self.tell_bound();
        }
        let malformed = self.cluster.iter().flat_map(|cluster| &cluster.malformed);
        self.problems.refuse(&self.files.update.refusals, malformed);
        let news = self.control.take_news();
        // What a status says is being served already.
        self.tell(&news);
        if let Some(first) = self.first.take() {
            // Before anything is printed: nobody who does not read it may keep us from being ready.
            drop(first);
            let snapshot = self.snapshots.load_full();
            self.announcer.start(&self.control, &self.files.manifests, &self.files.update, &snapshot);
        } else {
            let edit = Edit { applied, revision: self.meters.revision(), took };
            self.announcer.edit(&edit, &news, &self.control, &self.files.manifests, &self.files.update);
        }
    }

    fn compile(&mut self) -> Applied {
        let compiling = Instant::now();
        let applied = tokio::task::block_in_place(|| self.control.compile());
        if applied.changes > 0 {
            self.meters.compiled(compiling.elapsed(), applied.routers_built, applied.swapped);
        }
        self.follow_names();
        applied
    }

    fn tell(&mut self, news: &News) {
        self.problems.follow(news);
        let Some(cluster) = &mut self.cluster else { return };
        let successors = cluster.take_successors();
        if let Some(desk) = &cluster.desk {
            tell::want(desk, news, self.control.is_alone());
            for id in successors.into_iter().filter(|id| !news.after.contains_key(id)) {
                desk.want(id.clone(), self.control.verdicts().get(&id).cloned());
            }
        }
    }

    /// Asks DNS about the names that endpoints have now. A name that is known already is told to whoever is new to it.
    fn follow_names(&mut self) {
        let upstreams = self.upstreams.all();
        let names: BTreeSet<Arc<str>> = upstreams.iter().flat_map(|upstream| upstream.names()).collect();
        self.dns.follow(&names);
        for upstream in upstreams {
            for name in upstream.names() {
                if let Some(addresses) = self.dns.addresses(&name) {
                    upstream.set_resolved(&name, addresses);
                }
            }
        }
    }

    async fn reconcile(&mut self) {
        let binds = self.proxy.reconcile().await;
        self.retry.after(&binds);
        let binds = binds.into_iter().map(|(address, state)| (address, bind(state))).collect();
        self.control.bound(binds);
        self.tell_bound();
    }

    fn tell_bound(&self) {
        if let Some(fronts) = &self.fronts {
            fronts.tell_bound(&self.control);
        }
    }
}

/// Without a cluster there is never anything to take.
async fn next(cluster: Option<&Cluster>) -> Delivery {
    match cluster {
        Some(cluster) => cluster.next().await,
        None => pending().await,
    }
}

async fn fronts_changed(fronts: Option<&mut Fronts>) {
    match fronts {
        Some(fronts) => fronts.changed().await,
        None => pending().await,
    }
}

async fn settled(cluster: Option<&Cluster>) {
    match cluster {
        Some(cluster) => cluster.settled().await,
        None => pending().await,
    }
}

/// When to try again what could not be bound: it comes alive without an edit.
#[derive(Debug, Default)]
pub(super) struct Retry {
    at: Option<Instant>,
    wait: Duration,
}

impl Retry {
    const FIRST: Duration = Duration::from_millis(500);
    const LONGEST: Duration = Duration::from_secs(15);

    async fn due(&self) {
        match self.at {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    fn after(&mut self, binds: &Binds) {
        if binds.values().all(|state| *state == BindState::Bound) {
            *self = Retry::default();
        } else {
            self.wait = (self.wait * 2).clamp(Self::FIRST, Self::LONGEST);
            self.at = Some(Instant::now() + self.wait);
        }
    }
}

fn bind(state: BindState) -> Bind {
    match state {
        BindState::Bound => Bind::Bound,
        BindState::InUse => Bind::InUse,
        BindState::NotPermitted => Bind::NotPermitted,
        BindState::NotOurs => Bind::NotOurs,
        BindState::Failed(what) => Bind::Failed(what),
    }
}
