//! Verdicts on objects that have no conditions of their own: what somebody who looks should know.

use super::endpoints;
use super::forbidden::Forbidden;
use super::ingress::disagreements::Disagreements;
use super::ingress::service_settings::Speech;
use super::ingress::{policy, service_settings, upstream_tls};
use super::plugins;
use super::verdict::{Problem, Verdict};
use crate::api::names::{MANAGED_BY, MANAGED_BY_LABEL, SERVICE_NAME_LABEL};
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::store::Store;

/// None if there is no such object. `is_used`: requests go there, if it is a Service or stands for one.
pub(super) fn verdict(
    store: &Store,
    id: &ObjectId,
    forbidden: &Forbidden,
    disagreements: &Disagreements,
    is_used: bool,
) -> Option<Verdict> {
    let generation = store.meta(id)?.generation;
    let mut unheeded = Vec::new();
    let notes = match id.kind {
        // Those in front of Gateways are our own; what is wrong with one is said of its Gateway.
        Kind::Service | Kind::EndpointSlice if is_ours(store, id) => None,
        Kind::Service => store.services.get(&id.key).map(|service| {
            let missing: Vec<_> = plugins::named(store, id.kind, &service.meta).filter_map(Result::err).collect();
            // What others make of the Services of others is nothing to us.
            if is_used {
                let tls_port = service.spec.ports.iter().any(upstream_tls::is_tls_port);
                let settings = service_settings::read(&service.meta, "a Service", tls_port);
                if settings.protocol.map_or(tls_port, Speech::is_tls) {
                    unheeded.extend(upstream_tls::notes(store, &service.meta, &settings.tls));
                }
                unheeded.extend(settings.unheeded);
                unheeded.extend(policy::notes(store, &service.meta));
                unheeded.extend(disagreements.of(&id.key));
                unheeded.extend(missing.iter().cloned());
            }
            let mut notes = endpoints::notes(store, service, forbidden, disagreements);
            notes.extend(missing);
            notes
        }),
        Kind::EndpointSlice => Some(slice(store, &id.key)),
        Kind::KongServiceFacade => store.meta(id).map(|meta| {
            let behind = store.kong_service_facades.get(&id.key).map(|facade| &facade.spec.backend_ref.name);
            let behind = behind.and_then(|name| store.services.get(&ObjectKey::new(&id.key.namespace, name)));
            let tls_port = behind.is_some_and(|service| service.spec.ports.iter().any(upstream_tls::is_tls_port));
            let settings = service_settings::read(meta, "a KongServiceFacade", tls_port);
            let missing: Vec<_> = plugins::named(store, id.kind, meta).filter_map(Result::err).collect();
            if is_used {
                unheeded = settings.unheeded;
                unheeded.extend(policy::notes(store, meta));
                unheeded.extend(missing.iter().cloned());
            }
            let mut notes = settings.notes;
            if settings.protocol.map_or(tls_port, Speech::is_tls) {
                let problem = upstream_tls::notes(store, meta, &settings.tls);
                unheeded.extend(problem.clone());
                notes.extend(problem);
            }
            notes.extend(policy::notes(store, meta));
            notes.extend(missing);
            notes
        }),
        Kind::BackendTlsPolicy => Some(vec![Problem::new(
            "spec.targetRefs",
            "TLS towards backends is not served by this version",
            "routes to the targets answer 500 rather than send requests in plain text",
        )]),
        kind if store.unserved.contains_key(id) => Some(vec![Problem::new(
            "kind",
            format!("{kind}s are checked but not served by this version"),
            "nothing is routed by it",
        )]),
        _ => None,
    };
    Some(Verdict { generation, notes: notes.unwrap_or_default(), unheeded, ..Verdict::default() })
}

fn is_ours(store: &Store, id: &ObjectId) -> bool {
    store.meta(id).is_some_and(|meta| meta.labels.get(MANAGED_BY_LABEL).is_some_and(|by| **by == *MANAGED_BY))
}

fn slice(store: &Store, key: &ObjectKey) -> Vec<Problem> {
    let Some(slice) = store.endpoint_slices.get(key) else { return Vec::new() };
    let field = format!("metadata.labels[{SERVICE_NAME_LABEL}]");
    match slice.meta.labels.get(SERVICE_NAME_LABEL) {
        None => vec![Problem::new(
            "metadata.labels",
            format!("label {SERVICE_NAME_LABEL} is missing, so the endpoints belong to no Service"),
            "set it to the name of the Service",
        )],
        Some(name) => {
            let service = ObjectKey { namespace: key.namespace.clone(), name: name.clone() };
            if store.services.contains_key(&service) {
                Vec::new()
            } else {
                let message = format!("Service {service} does not exist");
                vec![Problem::new(field, message, "create it or correct the label")]
            }
        }
    }
}
