//! What is known of the cluster as far as Gateways' Services are concerned, and what follows from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod as PodObject, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Resource;
use kube::runtime::watcher::Event;
use tokio::time::Instant;
use tracing::warn;

use super::plan::{self, Step, What};
use super::pod::Pod;
use super::service::{self, Known};
use super::slices::{self, Own, Slice, Stay};
use super::table::Table;
use super::watch::Seen;
use super::{Front, Settings, Shape, Trouble, View, Wants};
use crate::api::ObjectKey;

#[derive(Debug)]
pub(super) struct World {
    services: Table<Known>,
    slices: Table<Slice>,
    pods: Table<Pod>,
    hitches: BTreeMap<(What, ObjectKey), Hitch>,
}

/// What went wrong with an object, and when to try again.
#[derive(Debug)]
struct Hitch {
    trouble: Trouble,
    /// What was tried: if something else is to be tried, there is no reason to wait.
    step: Step,
    wait: Duration,
    again: Instant,
}

/// What this process says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Here<'a> {
    pub(super) leading: bool,
    pub(super) stay: Stay,
    /// The ports that it listens on; None as long as it has not come to that.
    pub(super) bound: Option<&'a BTreeSet<u16>>,
}

/// What a call led to.
#[derive(Debug)]
pub(super) enum Done {
    Service(Box<Service>),
    Slice(Box<EndpointSlice>),
    /// The watch will tell.
    Unknown,
}

impl World {
    pub(super) fn new(settings: &Settings) -> Self {
        let watches = settings.namespaces.len().max(1);
        let exposed = settings.is_exposed();
        World {
            services: Table::of(watches),
            slices: Table::of(if exposed { watches } else { 0 }),
            pods: Table::of(usize::from(exposed && settings.pod.is_some())),
            hitches: BTreeMap::new(),
        }
    }

    pub(super) fn see_services(&mut self, watch: usize, seen: Seen<Service>) -> bool {
        see(&mut self.services, watch, seen, Known::read)
    }

    pub(super) fn see_slices(&mut self, watch: usize, seen: Seen<EndpointSlice>) -> bool {
        see(&mut self.slices, watch, seen, Slice::read)
    }

    pub(super) fn see_pods(&mut self, seen: Seen<PodObject>) -> bool {
        see(&mut self.pods, 0, seen, Pod::read)
    }

    /// What the Services say of the Gateways.
    pub(super) fn view(&self, settings: &Settings, wants: &Arc<Wants>) -> View {
        let mut fronts: BTreeMap<ObjectKey, Front> = BTreeMap::new();
        if let Shape::Exposed(kind) = settings.shape {
            let nodes = self.nodes();
            for service in self.services.items().values().filter(|service| service.serves(wants)) {
                let nodes: Vec<_> = nodes.get(&service.key).into_iter().flatten().copied().collect();
                let front = fronts.entry(service.owner.gateway.clone()).or_default();
                front.name = service.key.name.to_string();
                front.ports.clone_from(&service.ports);
                front.addresses = service::addresses(service, kind, &nodes);
            }
        }
        for hitch in self.hitches.values() {
            let gateway = hitch.step.gateway.as_ref().filter(|gateway| wants.gateways.contains_key(*gateway));
            if let Some(gateway) = gateway {
                fronts.entry(gateway.clone()).or_default().trouble = Some(hitch.trouble.clone());
            }
        }
        let pod = settings.pod.as_ref().and_then(|key| self.pods.items().get(key));
        let pod_ips = pod.map(|pod| pod.ips.clone()).unwrap_or_default();
        // The kubelet writes the addresses of a Pod a moment after it has started it.
        let located = !pod_ips.is_empty() || pod.is_none();
        let complete = self.services.is_complete() && self.slices.is_complete() && self.pods.is_complete() && located;
        View { complete, fronts, of: wants.clone(), pod_ips }
    }

    /// The addresses of the nodes on which each Service has endpoints that are ready.
    fn nodes(&self) -> BTreeMap<ObjectKey, BTreeSet<std::net::IpAddr>> {
        let pods: BTreeMap<&str, &Pod> = self.pods.items().values().map(|pod| (&*pod.uid, &**pod)).collect();
        let mut nodes: BTreeMap<ObjectKey, BTreeSet<_>> = BTreeMap::new();
        for slice in self.slices.items().values().filter(|slice| slice.ready) {
            if let Some(pod) = pods.get(&*slice.pod_uid) {
                let service = ObjectKey::new(&slice.key.namespace, &slice.service);
                nodes.entry(service).or_default().extend(pod.host_ips.iter().copied());
            }
        }
        nodes
    }

    /// The steps to take now, and when to look again at those that failed lately.
    pub(super) fn due(&mut self, settings: &Settings, wants: &Wants, here: Here<'_>) -> (Vec<Step>, Option<Instant>) {
        if !self.services.is_complete() {
            return (Vec::new(), None);
        }
        let mut steps = Vec::new();
        if here.leading {
            steps = plan::services(wants, settings.shape, &settings.controllers, self.services.items());
        }
        if self.slices.is_complete() && self.pods.is_complete() && settings.is_exposed() {
            steps.extend(self.slice_steps(settings, wants, here));
        }
        self.hitches.retain(|subject, _| steps.iter().any(|step| (step.what, &step.key) == (subject.0, &subject.1)));
        let mut again: Option<Instant> = None;
        let now = Instant::now();
        steps.retain(|step| match self.hitches.get(&(step.what, step.key.clone())) {
            Some(hitch) if hitch.step == *step && hitch.again > now => {
                again = Some(again.map_or(hitch.again, |again| again.min(hitch.again)));
                false
            }
            _ => true,
        });
        (steps, again)
    }

    fn slice_steps(&self, settings: &Settings, wants: &Wants, here: Here<'_>) -> Vec<Step> {
        let Some(key) = &settings.pod else { return Vec::new() };
        let (services, known) = (self.services.items(), self.slices.items());
        let pod = self.pods.items().get(key);
        let mut steps = Vec::new();
        if let (Some(pod), Some(bound)) = (pod, here.bound) {
            steps = slices::of_this_pod(&Own { pod, stay: here.stay, bound }, wants, services, known);
        }
        if here.leading {
            let own = pod.map_or("", |pod| &pod.uid);
            steps.extend(slices::of_other_pods(&key.namespace, own, self.pods.items(), services, known));
        }
        steps
    }

    /// Takes note of what a step led to.
    pub(super) fn done(&mut self, settings: &Settings, step: Step, done: Result<Done, Trouble>) {
        let subject = (step.what, step.key.clone());
        // The watch would tell the same in a moment, but the next plan is made before.
        let watch = settings.namespaces.iter().position(|known| **known == *step.key.namespace).unwrap_or_default();
        match done {
            Ok(done) => {
                self.hitches.remove(&subject);
                match done {
                    Done::Service(service) => drop(self.see_services(watch, Seen::Event(Event::Apply(*service)))),
                    Done::Slice(slice) => drop(self.see_slices(watch, Seen::Event(Event::Apply(*slice)))),
                    Done::Unknown => {}
                }
            }
            Err(trouble) => {
                let before = self.hitches.remove(&subject);
                let wait = before.as_ref().map_or(FIRST_WAIT, |before| (before.wait * 2).min(LONGEST_WAIT));
                // What concerns a Gateway is told as its verdict.
                if step.gateway.is_none() && before.is_none_or(|before| before.trouble != trouble) {
                    warn!(remedy = trouble.remedy, "{}", trouble.message);
                }
                self.hitches.insert(subject, Hitch { trouble, step, wait, again: Instant::now() + wait });
            }
        }
    }
}

fn see<K: Resource, T: PartialEq>(
    table: &mut Table<T>,
    watch: usize,
    seen: Seen<K>,
    read: impl Fn(&K) -> Option<T>,
) -> bool {
    let key = |object: &K| {
        let meta = object.meta();
        Some(ObjectKey::new(meta.namespace.as_deref()?, meta.name.as_deref()?))
    };
    match seen {
        Seen::Event(event) => table.take(watch, event, key, read),
        Seen::Forbidden => table.give_up(watch),
    }
}

const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
