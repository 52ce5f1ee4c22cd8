//! The headless Services of XBackends that select Pods. Kubernetes writes their EndpointSlices, which are the endpoints
//! of the XBackend. Nothing connects to such a Service itself, and it is deleted with its XBackend.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use super::applied;
use super::plan::{ApiCall, PlanStep, StepTarget};
use super::service::owner;
use crate::api::names::{MANAGED_BY, MANAGED_BY_LABEL, x_backend_service_name};
use crate::api::{Kind, ObjectKey};

/// The Service that an XBackend needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredBackendService {
    /// The uid of the XBackend.
    pub uid: Arc<str>,
    /// The labels of its Pods.
    pub selector: BTreeMap<String, String>,
    pub port: u16,
}

/// The Service of an XBackend, as it exists.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct KnownBackendService {
    is_terminating: bool,
    /// The complete object, to compare with the desired one.
    object: Value,
}

impl KnownBackendService {
    /// None if Portico did not make the Service for an XBackend.
    pub(super) fn read(service: &Service) -> Option<KnownBackendService> {
        owner(&service.metadata, Kind::XBackend)?;
        let is_terminating = service.metadata.deletion_timestamp.is_some();
        Some(KnownBackendService { is_terminating, object: serde_json::to_value(service).ok()? })
    }
}

/// The steps for the Services of XBackends: at most one for each, and none if its Service is as it should be.
pub(super) fn plan_backend_services(
    desired: &BTreeMap<ObjectKey, DesiredBackendService>,
    known: &BTreeMap<ObjectKey, Arc<KnownBackendService>>,
) -> Vec<PlanStep> {
    let steps = desired.iter().filter_map(|(backend, desired)| {
        let key = ObjectKey::new(&backend.namespace, &x_backend_service_name(&desired.uid));
        let object = desired_service(backend, desired, &key.name);
        let is_settled = known
            .get(&key)
            .is_some_and(|known| known.is_terminating || applied::is_applied(&object, &known.object, MANAGED_BY));
        let step = PlanStep { target: StepTarget::Service, gateway: None, key, call: ApiCall::Apply(object) };
        (!is_settled).then_some(step)
    });
    steps.collect()
}

fn desired_service(backend: &ObjectKey, desired: &DesiredBackendService, name: &str) -> Value {
    let DesiredBackendService { uid, selector, port } = desired;
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": &*backend.namespace,
            "labels": {MANAGED_BY_LABEL: MANAGED_BY},
            // For garbage collection, as for the Services of Gateways.
            "ownerReferences": [{
                "apiVersion": format!("{}/{}", Kind::XBackend.group(), Kind::XBackend.versions()[0]),
                "kind": Kind::XBackend.name(),
                "name": &*backend.name,
                "uid": &**uid,
                "controller": true,
            }],
        },
        "spec": {
            "clusterIP": "None",
            "selector": selector,
            "ports": [{"port": port, "protocol": "TCP", "targetPort": port}],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(object: &Value, owner_kind: &str) -> Option<KnownBackendService> {
        let mut whole = object.clone();
        whole["metadata"]["ownerReferences"][0]["kind"] = json!(owner_kind);
        let fields = json!({
            "f:metadata": {
                "f:labels": {format!("f:{MANAGED_BY_LABEL}"): {}}, "f:ownerReferences": {"k:{\"uid\":\"u\"}": {}},
            },
            "f:spec": {
                "f:clusterIP": {}, "f:selector": {},
                "f:ports": {"k:{\"port\":8080,\"protocol\":\"TCP\"}": {
                    ".": {}, "f:port": {}, "f:protocol": {}, "f:targetPort": {},
                }},
            },
        });
        whole["metadata"]["managedFields"] = json!([{"manager": MANAGED_BY, "operation": "Apply", "fieldsV1": fields}]);
        KnownBackendService::read(&serde_json::from_value(whole).unwrap())
    }

    #[test]
    fn services_are_applied_until_they_are_as_desired() {
        let backend = ObjectKey::new("shop", "payments");
        let selector = BTreeMap::from([("app".to_owned(), "payments".to_owned())]);
        let service = DesiredBackendService { uid: "u".into(), selector, port: 8080 };
        let desired = BTreeMap::from([(backend, service.clone())]);
        let steps = plan_backend_services(&desired, &BTreeMap::new());
        let [PlanStep { key, call: ApiCall::Apply(object), .. }] = &steps[..] else {
            panic!("one Service is applied");
        };
        assert_eq!(key, &ObjectKey::new("shop", "xbackend-u"));
        assert_eq!(object["spec"]["selector"], json!({"app": "payments"}));
        assert_eq!(object["spec"]["ports"][0]["targetPort"], 8080);

        let existing = known(object, "XBackend").unwrap();
        let services = BTreeMap::from([(key.clone(), Arc::new(existing.clone()))]);
        assert!(plan_backend_services(&desired, &services).is_empty());
        let moved = DesiredBackendService { port: 8081, ..service };
        let changed = BTreeMap::from([(ObjectKey::new("shop", "payments"), moved)]);
        assert_eq!(plan_backend_services(&changed, &services).len(), 1);
        let terminating = KnownBackendService { is_terminating: true, ..existing };
        let terminating = BTreeMap::from([(key.clone(), Arc::new(terminating))]);
        assert!(plan_backend_services(&changed, &terminating).is_empty(), "it is deleted first");
        assert!(known(object, "Gateway").is_none());
    }
}
