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

use super::choice::{self, Bound, Chosen};
use super::plan::{self, Step, What};
use super::pod::Pod;
use super::service::{self, Known};
use super::slices::{self, Own, Slice, Stay};
use super::table::Table;
use super::watch::Seen;
use super::{Front, Settings, Shape, Trouble, View, Wants};
use crate::api::ObjectKey;
use crate::api::core::ServiceType;

#[derive(Debug)]
pub(super) struct World {
    services: Table<Known>,
    slices: Table<Slice>,
    pods: Table<Pod>,
    hitches: BTreeMap<(What, ObjectKey), Hitch>,
}

/// What was done about an object, and when it may be done again.
#[derive(Debug)]
struct Hitch {
    /// None if it went well, and yet is to be done once more.
    trouble: Option<Trouble>,
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
    /// None as long as it has not come to listening.
    pub(super) bound: Option<&'a Bound>,
}

/// What a call led to.
#[derive(Debug)]
pub(super) enum Done {
    Service(Box<Service>),
    Slice(Box<EndpointSlice>),
    /// The one of this uid is no more.
    Gone {
        uid: String,
    },
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
    pub(super) fn view(&self, settings: &Settings, wants: &Arc<Wants>, bound: &Bound) -> View {
        let mut fronts: BTreeMap<ObjectKey, Front> = BTreeMap::new();
        if let Shape::Exposed(kind) = settings.shape {
            let nodes = if kind == ServiceType::NodePort { self.nodes() } else { BTreeMap::new() };
            let chosen = choice::of_gateways(wants, self.services.items(), bound);
            for (gateway, Chosen { service, ports }) in chosen.into_iter().filter(|(_, chosen)| chosen.serves()) {
                let nodes: Vec<_> = nodes.get(&service.key).into_iter().flatten().copied().collect();
                let front = Front {
                    name: service.key.name.to_string(),
                    ports,
                    addresses: service::addresses(service, kind, &nodes),
                    trouble: None,
                };
                fronts.insert(gateway.clone(), front);
            }
        }
        for hitch in self.hitches.values() {
            let Some(trouble) = &hitch.trouble else { continue };
            let gateway = hitch.step.gateway.as_ref().filter(|gateway| wants.gateways.contains_key(*gateway));
            if let Some(gateway) = gateway {
                fronts.entry(gateway.clone()).or_default().trouble = Some(trouble.clone());
            }
        }
        let pod = settings.pod.as_ref().and_then(|key| self.pods.items().get(key));
        let pod_ips = pod.map(|pod| pod.ips.clone()).unwrap_or_default();
        // The label on a slice may be anybody's, but the Pods that are looked at are of our own namespace.
        let wrote: BTreeSet<&str> = self.slices.items().values().map(|slice| &*slice.pod_uid).collect();
        let others = self.pods.items().values().filter(|pod| wrote.contains(&*pod.uid));
        let replicas = others.flat_map(|pod| pod.ips.iter().copied()).chain(pod_ips.iter().copied()).collect();
        // The kubelet writes the addresses of a Pod a moment after it has started it.
        let located = !pod_ips.is_empty() || pod.is_none();
        let complete = self.services.is_complete() && self.slices.is_complete() && self.pods.is_complete() && located;
        View { complete, fronts, of: wants.clone(), pod_ips, replicas }
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
            let nothing = Bound::new();
            let bound = here.bound.unwrap_or(&nothing);
            steps = plan::services(wants, settings.shape, &settings.controllers, self.services.items(), bound);
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
        // Where not even our own Pod is seen, nothing follows from not seeing the others: we may not list them.
        if here.leading
            && let Some(pod) = pod
        {
            steps.extend(slices::of_other_pods(&key.namespace, &pod.uid, self.pods.items(), services, known));
        }
        steps
    }

    /// Takes note of what a step led to.
    pub(super) fn done(&mut self, settings: &Settings, step: Step, done: Result<Done, Trouble>) {
        let subject = (step.what, step.key.clone());
        // The watch would tell the same in a moment, but the next plan is made before.
        let watch = settings.namespaces.iter().position(|known| **known == *step.key.namespace).unwrap_or_default();
        let trouble = match done {
            Ok(Done::Service(service)) => {
                answered(&mut self.services, watch, *service, Known::read);
                None
            }
            Ok(Done::Slice(slice)) => {
                answered(&mut self.slices, watch, *slice, Slice::read);
                None
            }
            Ok(Done::Gone { uid }) => {
                // Of the same name there may be another by now.
                if self
                    .services
                    .items()
                    .get(&step.key)
                    .is_some_and(|known| step.what == What::Service && known.uid == uid)
                {
                    self.services.remove(&step.key);
                }
                if self.slices.items().get(&step.key).is_some_and(|known| step.what == What::Slice && known.uid == uid)
                {
                    self.slices.remove(&step.key);
                }
                None
            }
            Err(trouble) => Some(trouble),
        };
        let before = self.hitches.remove(&subject);
        // What goes well and has to be done at once again would otherwise be done without end.
        let again =
            before.as_ref().filter(|before| before.step == step || (before.trouble.is_some() && trouble.is_some()));
        let wait = again.map_or(FIRST_WAIT, |before| (before.wait * 2).min(LONGEST_WAIT));
        // What concerns a Gateway is told as its verdict.
        if let Some(trouble) = &trouble
            && step.gateway.is_none()
            && before.is_none_or(|before| before.trouble.as_ref() != Some(trouble))
        {
            warn!(remedy = trouble.remedy, "{}", trouble.message);
        }
        self.hitches.insert(subject, Hitch { trouble, step, wait, again: Instant::now() + wait });
    }
}

/// Takes over what a call was answered with, unless the watch is past that: then it has told what came of it.
fn answered<K: Resource, T: PartialEq>(table: &mut Table<T>, watch: usize, object: K, read: impl Fn(&K) -> Option<T>) {
    if !table.is_past(watch, object.meta().resource_version.as_deref().unwrap_or_default()) {
        table.take(watch, Event::Apply(object), key, read);
    }
}

fn key<K: Resource>(object: &K) -> Option<ObjectKey> {
    let meta = object.meta();
    Some(ObjectKey::new(meta.namespace.as_deref()?, meta.name.as_deref()?))
}

fn see<K: Resource, T: PartialEq>(
    table: &mut Table<T>,
    watch: usize,
    seen: Seen<K>,
    read: impl Fn(&K) -> Option<T>,
) -> bool {
    match seen {
        Seen::Event(event) => {
            if let Event::InitApply(object) | Event::Apply(object) | Event::Delete(object) = &event {
                table.came_to(watch, object.meta().resource_version.as_deref().unwrap_or_default());
            }
            table.take(watch, event, key, read)
        }
        Seen::Forbidden => table.give_up(watch),
    }
}

const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::k8s::services::Want;
    use crate::k8s::services::plan::Call;

    fn service(version: &str, ingress: &str) -> Service {
        let ingress = if ingress.is_empty() { json!([]) } else { json!([{"ip": ingress}]) };
        let object = json!({
            "metadata": {
                "namespace": "ns", "name": "web-c", "uid": "s", "resourceVersion": version,
                "labels": {"app.kubernetes.io/managed-by": "portico"},
                "ownerReferences": [{
                    "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "web", "uid": "g", "controller": true,
                }],
            },
            "spec": {"ports": [{"port": 80, "targetPort": 10_080}]},
            "status": {"loadBalancer": {"ingress": ingress}},
        });
        serde_json::from_value(object).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_to_a_write_takes_back_nothing_that_the_watch_has_told_meanwhile() {
        let settings = Settings {
            namespaces: vec![],
            shape: Shape::Exposed(ServiceType::LoadBalancer),
            controllers: BTreeSet::new(),
            pod: None,
        };
        let gateway = ObjectKey::new("ns", "web");
        let want = Want { uid: "g".into(), ports: [80].into(), ..Want::default() };
        let wants = Wants { gateways: BTreeMap::from([(gateway.clone(), want)]), foreign: BTreeMap::new() };
        let wants = Arc::new(wants);
        let step = || Step {
            what: What::Service,
            gateway: Some(gateway.clone()),
            key: ObjectKey::new("ns", "web-c"),
            call: Call::Apply(json!({})),
        };
        let mut world = World::new(&settings);
        let addresses = |world: &World| {
            let view = world.view(&settings, &wants, &Bound::new());
            view.fronts.get(&gateway).map(|front| front.addresses.clone())
        };
        world.done(&settings, step(), Ok(Done::Service(Box::new(service("9", "")))));
        assert_eq!(addresses(&world), Some(vec![]), "the watch has not come that far");
        world.see_services(0, Seen::Event(Event::Apply(service("11", "192.0.2.1"))));
        world.done(&settings, step(), Ok(Done::Service(Box::new(service("10", "")))));
        assert_eq!(addresses(&world), Some(vec!["192.0.2.1".to_owned()]));
        world.see_services(0, Seen::Event(Event::Delete(service("12", ""))));
        world.done(&settings, step(), Ok(Done::Service(Box::new(service("11", "")))));
        assert_eq!(addresses(&world), None);
    }
}
