//! The observed state of Gateways' Services, EndpointSlices and Pods, and the steps and views derived from it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod as PodObject, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Resource;
use kube::runtime::watcher::Event;
use tokio::time::Instant;
use tracing::warn;

use super::backend_service::{self, KnownBackendService};
use super::plan::{self, PlanStep, StepTarget};
use super::pod::ReplicaPod;
use super::selection::{self, ListeningPorts, SelectedService};
use super::service::{self, KnownService};
use super::slices::{self, KnownSlice, OwnEndpoint, ReplicaLifecycle};
use super::table::ObservedObjects;
use super::watch::WatchUpdate;
use super::{
    DesiredServices, GatewayExposure, GatewayServiceState, GatewayServicesView, ReconcilerSettings, balancer_class,
};
use crate::api::ObjectKey;
use crate::api::core::ServiceType;
use crate::diagnostic::Diagnostic;

/// The objects that watches and responses to calls have reported, and the latest step for each.
#[derive(Debug)]
pub(super) struct ObservedState {
    services: ObservedObjects<KnownService>,
    backend_services: ObservedObjects<KnownBackendService>,
    slices: ObservedObjects<KnownSlice>,
    pods: ObservedObjects<ReplicaPod>,
    attempts: BTreeMap<(StepTarget, ObjectKey), LastAttempt>,
}

/// The last step for an object, and when it may be repeated.
#[derive(Debug)]
struct LastAttempt {
    /// None if the step succeeded.
    error: Option<Diagnostic>,
    /// The attempted step. A different one for the object need not wait.
    step: PlanStep,
    wait: Duration,
    retry_at: Instant,
}

/// The state of this process.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplicaState<'a> {
    pub(super) leading: bool,
    pub(super) lifecycle: ReplicaLifecycle,
    /// None until it listens for the first time.
    pub(super) listening_ports: Option<&'a ListeningPorts>,
}

/// The state of an object after a step.
#[derive(Debug)]
pub(super) enum StepResult {
    Service(Box<Service>),
    Slice(Box<EndpointSlice>),
    /// The object of this uid is deleted.
    Gone {
        uid: String,
    },
}

impl ObservedState {
    pub(super) fn new(settings: &ReconcilerSettings) -> Self {
        let watches = settings.namespaces.len().max(1);
        let exposed = settings.is_exposed();
        ObservedState {
            services: ObservedObjects::new(watches),
            backend_services: ObservedObjects::new(watches),
            slices: ObservedObjects::new(if exposed { watches } else { 0 }),
            pods: ObservedObjects::new(usize::from(settings.needs_pods())),
            attempts: BTreeMap::new(),
        }
    }

    /// Applies an event, and returns whether anything changed. `watch` is the number of the watch, one for each
    /// namespace in the settings.
    pub(super) fn apply_service_event(&mut self, watch: usize, update: WatchUpdate<Service>) -> bool {
        let backend_changed = apply_event(&mut self.backend_services, watch, update.clone(), KnownBackendService::read);
        apply_event(&mut self.services, watch, update, KnownService::read) || backend_changed
    }

    pub(super) fn apply_slice_event(&mut self, watch: usize, update: WatchUpdate<EndpointSlice>) -> bool {
        apply_event(&mut self.slices, watch, update, KnownSlice::read)
    }

    pub(super) fn apply_pod_event(&mut self, update: WatchUpdate<PodObject>) -> bool {
        apply_event(&mut self.pods, 0, update, ReplicaPod::read)
    }

    /// The view of the Gateways' Services.
    pub(super) fn view(
        &self,
        settings: &ReconcilerSettings,
        desired_services: &Arc<DesiredServices>,
        listening_ports: &ListeningPorts,
    ) -> GatewayServicesView {
        let mut states: BTreeMap<ObjectKey, GatewayServiceState> = BTreeMap::new();
        if let GatewayExposure::Exposed(kind) = settings.exposure {
            let mut nodes: Option<BTreeMap<ObjectKey, BTreeSet<IpAddr>>> = None;
            let selected = selection::select_services(desired_services, self.services.items(), listening_ports);
            for (gateway, SelectedService { service, ports }) in
                selected.into_iter().filter(|(_, selected)| selected.accepts_clients())
            {
                // The type of the existing Service, because the desired one is unknown while it has to stay as it is.
                let kind = service.service_type.unwrap_or(kind);
                let node_ips: Vec<_> = match kind {
                    ServiceType::NodePort => {
                        let nodes = nodes.get_or_insert_with(|| self.nodes());
                        nodes.get(&service.key).into_iter().flatten().copied().collect()
                    }
                    ServiceType::LoadBalancer | ServiceType::ClusterIp => Vec::new(),
                };
                let desired = &desired_services.gateways[gateway];
                let state = GatewayServiceState {
                    name: service.key.name.to_string(),
                    ports,
                    addresses: service::addresses(service, kind, &node_ips),
                    error: balancer_class::difference(service, desired, settings.exposure),
                };
                states.insert(gateway.clone(), state);
            }
        }
        for attempt in self.attempts.values() {
            let Some(service_error) = &attempt.error else { continue };
            let gateway =
                attempt.step.gateway.as_ref().filter(|gateway| desired_services.gateways.contains_key(*gateway));
            if let Some(gateway) = gateway {
                states.entry(gateway.clone()).or_default().error = Some(service_error.clone());
            }
        }
        let pod = settings.pod.as_ref().and_then(|key| self.pods.items().get(key));
        // The kubelet writes the addresses of a Pod a moment after starting it.
        let has_addresses = pod.is_none_or(|pod| !pod.ips.is_empty());
        let ready_addresses =
            settings.on_all_interfaces.then(|| pod.map(|pod| self.ready_addresses(pod)).unwrap_or_default());
        let pod_ips = pod.filter(|_| settings.is_exposed()).map(|pod| pod.ips.clone()).unwrap_or_default();
        // Users who may edit EndpointSlices can set the label with a Pod's uid, but that makes no Pod of another
        // namespace a replica: `pods` has only Pods of Portico's namespace.
        let slice_writers: BTreeSet<&str> = self.slices.items().values().map(|slice| &*slice.pod_uid).collect();
        let replica_pods = self.pods.items().values().filter(|pod| slice_writers.contains(&*pod.uid));
        let replicas = replica_pods.flat_map(|pod| pod.ips.iter().copied()).chain(pod_ips.iter().copied()).collect();
        let complete =
            self.services.is_complete() && self.slices.is_complete() && self.pods.is_complete() && has_addresses;
        GatewayServicesView {
            complete,
            services: states,
            desired: desired_services.clone(),
            pod_ips,
            replicas,
            ready_addresses,
        }
    }

    /// The addresses of the ready Pods that run the same workload as this one.
    fn ready_addresses(&self, own: &ReplicaPod) -> BTreeSet<IpAddr> {
        let replicas = self.pods.items().values().filter(|pod| pod.is_available() && pod.labels == own.labels);
        replicas.flat_map(|pod| pod.client_ips().iter().copied()).collect()
    }

    /// The addresses of the nodes on which each Service has ready endpoints.
    fn nodes(&self) -> BTreeMap<ObjectKey, BTreeSet<IpAddr>> {
        let pods: BTreeMap<&str, &ReplicaPod> = self.pods.items().values().map(|pod| (&*pod.uid, &**pod)).collect();
        let mut nodes: BTreeMap<ObjectKey, BTreeSet<_>> = BTreeMap::new();
        for slice in self.slices.items().values().filter(|slice| slice.ready) {
            if let Some(pod) = pods.get(&*slice.pod_uid) {
                let service = ObjectKey::new(&slice.key.namespace, &slice.service);
                nodes.entry(service).or_default().extend(pod.host_ips.iter().copied());
            }
        }
        nodes
    }

    /// The steps to take now, and when the first of the delayed ones is due.
    pub(super) fn due_steps(
        &mut self,
        settings: &ReconcilerSettings,
        desired_services: &DesiredServices,
        replica: ReplicaState<'_>,
    ) -> (Vec<PlanStep>, Option<Instant>) {
        if !self.services.is_complete() {
            return (Vec::new(), None);
        }
        let mut steps = Vec::new();
        if replica.leading {
            let none = ListeningPorts::new();
            let listening_ports = replica.listening_ports.unwrap_or(&none);
            steps = plan::plan_services(
                desired_services,
                settings.exposure,
                &settings.controllers,
                self.services.items(),
                listening_ports,
            );
            steps.extend(backend_service::plan_backend_services(
                &desired_services.backends,
                self.backend_services.items(),
            ));
        }
        if self.slices.is_complete() && self.pods.is_complete() && settings.is_exposed() {
            steps.extend(self.slice_steps(settings, desired_services, replica));
        }
        // An object that needs no step any more starts again with the shortest delay.
        let planned: BTreeSet<_> = steps.iter().map(|step| (step.target, &step.key)).collect();
        self.attempts.retain(|(target, key), _| planned.contains(&(*target, key)));
        let mut next_retry: Option<Instant> = None;
        let now = Instant::now();
        steps.retain(|step| match self.attempts.get(&(step.target, step.key.clone())) {
            Some(attempt) if attempt.step == *step && attempt.retry_at > now => {
                next_retry = Some(next_retry.map_or(attempt.retry_at, |next_retry| next_retry.min(attempt.retry_at)));
                false
            }
            _ => true,
        });
        (steps, next_retry)
    }

    fn slice_steps(
        &self,
        settings: &ReconcilerSettings,
        desired_services: &DesiredServices,
        replica: ReplicaState<'_>,
    ) -> Vec<PlanStep> {
        let Some(key) = &settings.pod else { return Vec::new() };
        let (services, known_slices) = (self.services.items(), self.slices.items());
        let pod = self.pods.items().get(key);
        let mut steps = Vec::new();
        if let (Some(pod), Some(listening_ports)) = (pod, replica.listening_ports) {
            steps = slices::plan_own_slices(
                &OwnEndpoint { pod, lifecycle: replica.lifecycle, listening_ports },
                desired_services,
                services,
                known_slices,
            );
        }
        // If even this Pod is missing, Portico may lack the permission to list Pods, and others may exist.
        if replica.leading
            && let Some(pod) = pod
        {
            steps.extend(slices::plan_other_slices(
                &key.namespace,
                &pod.uid,
                self.pods.items(),
                services,
                known_slices,
            ));
        }
        steps
    }

    /// Records the result of a step.
    pub(super) fn record_result(
        &mut self,
        settings: &ReconcilerSettings,
        step: PlanStep,
        outcome: Result<StepResult, Diagnostic>,
    ) {
        let target = (step.target, step.key.clone());
        // The object in a response is stored at once, because the next plan may be made before the watch reports it.
        let watch = settings.namespaces.iter().position(|known| **known == *step.key.namespace).unwrap_or_default();
        let service_error = match outcome {
            Ok(StepResult::Service(service)) => {
                let copy = Service::clone(&service);
                store_response(&mut self.backend_services, watch, copy, KnownBackendService::read);
                store_response(&mut self.services, watch, *service, KnownService::read);
                None
            }
            Ok(StepResult::Slice(slice)) => {
                store_response(&mut self.slices, watch, *slice, KnownSlice::read);
                None
            }
            Ok(StepResult::Gone { uid }) => {
                // Another object of the same name may exist by now.
                if self
                    .services
                    .items()
                    .get(&step.key)
                    .is_some_and(|known| step.target == StepTarget::Service && known.uid == uid)
                {
                    self.services.remove(&step.key);
                }
                if self
                    .slices
                    .items()
                    .get(&step.key)
                    .is_some_and(|known| step.target == StepTarget::Slice && known.uid == uid)
                {
                    self.slices.remove(&step.key);
                }
                None
            }
            Err(service_error) => Some(service_error),
        };
        let before = self.attempts.remove(&target);
        // The delay doubles after two failures in a row, and when a step is repeated, even after success: a step that
        // is due again at once would otherwise be repeated all the time.
        let repeated =
            before.as_ref().filter(|before| before.step == step || (before.error.is_some() && service_error.is_some()));
        let wait = repeated.map_or(MIN_RETRY_DELAY, |before| (before.wait * 2).min(MAX_RETRY_DELAY));
        // Errors of a Gateway's Service are reported in its status instead.
        if let Some(service_error) = &service_error
            && step.gateway.is_none()
            && before.is_none_or(|before| before.error.as_ref() != Some(service_error))
        {
            warn!(remedy = service_error.remedy, "{}", service_error.message);
        }
        self.attempts.insert(target, LastAttempt { error: service_error, step, wait, retry_at: Instant::now() + wait });
    }
}

/// Stores the response of a call, unless the watch has already delivered a newer version.
fn store_response<K: Resource, T: PartialEq>(
    table: &mut ObservedObjects<T>,
    watch: usize,
    object: K,
    read: impl Fn(&K) -> Option<T>,
) {
    if !table.has_reached(watch, object.meta().resource_version.as_deref().unwrap_or_default()) {
        table.apply_event(watch, Event::Apply(object), key, read);
    }
}

fn key<K: Resource>(object: &K) -> Option<ObjectKey> {
    let meta = object.meta();
    Some(ObjectKey::new(meta.namespace.as_deref()?, meta.name.as_deref()?))
}

fn apply_event<K: Resource, T: PartialEq>(
    table: &mut ObservedObjects<T>,
    watch: usize,
    update: WatchUpdate<K>,
    read: impl Fn(&K) -> Option<T>,
) -> bool {
    match update {
        WatchUpdate::Event(event) => {
            if let Event::InitApply(object) | Event::Apply(object) | Event::Delete(object) = &event {
                table.record_version(watch, object.meta().resource_version.as_deref().unwrap_or_default());
            }
            table.apply_event(watch, event, key, read)
        }
        WatchUpdate::Forbidden => table.give_up(watch),
    }
}

const MIN_RETRY_DELAY: Duration = Duration::from_millis(500);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::k8s::services::DesiredService;
    use crate::k8s::services::plan::ApiCall;
    use crate::transport_protocol::TransportPort;

    fn service(version: &str, ingress: &str) -> Service {
        let ingress = if ingress.is_empty() { json!([]) } else { json!([{"ip": ingress}]) };
        let object = json!({
            "metadata": {
                "namespace": "ns", "name": "web-c", "uid": "s", "resourceVersion": version,
                "labels": {"app.kubernetes.io/managed-by": "portico"},
                "ownerReferences": [{
                    "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "web", "uid": "g",
                    "controller": true,
                }],
            },
            "spec": {"ports": [{"port": 80, "targetPort": 10_080}]},
            "status": {"loadBalancer": {"ingress": ingress}},
        });
        serde_json::from_value(object).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn responses_do_not_override_newer_watch_events() {
        let settings = ReconcilerSettings {
            namespaces: vec![],
            exposure: GatewayExposure::Exposed(ServiceType::LoadBalancer),
            on_all_interfaces: false,
            controllers: BTreeSet::new(),
            pod: None,
        };
        let gateway = ObjectKey::new("ns", "web");
        let desired =
            DesiredService { uid: "g".into(), ports: [TransportPort::tcp(80)].into(), ..DesiredService::default() };
        let desired_services =
            DesiredServices { gateways: BTreeMap::from([(gateway.clone(), desired)]), ..DesiredServices::default() };
        let desired_services = Arc::new(desired_services);
        let step = || PlanStep {
            target: StepTarget::Service,
            gateway: Some(gateway.clone()),
            key: ObjectKey::new("ns", "web-c"),
            call: ApiCall::Apply(json!({})),
        };
        let mut observed = ObservedState::new(&settings);
        let addresses = |observed: &ObservedState| {
            let view = observed.view(&settings, &desired_services, &ListeningPorts::new());
            view.services.get(&gateway).map(|state| state.addresses.clone())
        };
        observed.record_result(&settings, step(), Ok(StepResult::Service(Box::new(service("9", "")))));
        assert_eq!(addresses(&observed), Some(vec![]), "the watch has not delivered this version yet");
        observed.apply_service_event(0, WatchUpdate::Event(Event::Apply(service("11", "192.0.2.1"))));
        observed.record_result(&settings, step(), Ok(StepResult::Service(Box::new(service("10", "")))));
        assert_eq!(addresses(&observed), Some(vec!["192.0.2.1".to_owned()]));
        observed.apply_service_event(0, WatchUpdate::Event(Event::Delete(service("12", ""))));
        observed.record_result(&settings, step(), Ok(StepResult::Service(Box::new(service("11", "")))));
        assert_eq!(addresses(&observed), None);
    }
}
