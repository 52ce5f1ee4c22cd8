//! Verdicts on objects without conditions of their own: notes for reports and events.

use super::endpoints;
use super::forbidden_addresses::ForbiddenAddresses;
use super::ingress::policy_conflicts::PolicyConflicts;
use super::ingress::service_settings::AppProtocol;
use super::ingress::{policy, service_settings, upstream_tls};
use super::plugins;
use super::verdict::Verdict;
use crate::api::names::{MANAGED_BY, MANAGED_BY_LABEL, SERVICE_NAME_LABEL};
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::diagnostic::Diagnostic;
use crate::store::Store;

/// `None` if the object does not exist. `is_used`: whether routes use this Service or facade.
pub(super) fn verdict(
    store: &Store,
    id: &ObjectId,
    forbidden: &ForbiddenAddresses,
    disagreements: &PolicyConflicts,
    is_used: bool,
) -> Option<Verdict> {
    let generation = store.meta(id)?.generation;
    let mut unheeded = Vec::new();
    let notes = match id.kind {
        // Problems of the Services that Portico manages are reported on their Gateways.
        Kind::Service | Kind::EndpointSlice if is_managed(store, id) => None,
        Kind::Service => store.services.get(&id.key).map(|service| {
            let missing: Vec<_> =
                plugins::referenced_plugins(store, id.kind, &service.meta).filter_map(Result::err).collect();
            // Ignored annotations of Services that no route of this controller uses are not reported.
            if is_used {
                let tls_port = service.spec.ports.iter().any(upstream_tls::is_tls_port);
                let settings = service_settings::read(&service.meta, "a Service", tls_port);
                if settings.protocol.map_or(tls_port, AppProtocol::is_tls) {
                    unheeded.extend(upstream_tls::notes(store, &service.meta, &settings.tls));
                }
                unheeded.extend(settings.ignored_annotations);
                unheeded.extend(policy::notes(store, &service.meta));
                unheeded.extend(disagreements.for_service(&id.key));
                unheeded.extend(missing.iter().cloned());
            }
            let mut notes = endpoints::notes(store, service, forbidden, disagreements);
            notes.extend(missing);
            notes
        }),
        Kind::EndpointSlice => Some(slice_notes(store, &id.key)),
        Kind::KongServiceFacade => store.meta(id).map(|meta| {
            let behind = store.kong_service_facades.get(&id.key).map(|facade| &facade.spec.backend_ref.name);
            let behind = behind.and_then(|name| store.services.get(&ObjectKey::new(&id.key.namespace, name)));
            let tls_port = behind.is_some_and(|service| service.spec.ports.iter().any(upstream_tls::is_tls_port));
            let settings = service_settings::read(meta, "a KongServiceFacade", tls_port);
            let missing: Vec<_> = plugins::referenced_plugins(store, id.kind, meta).filter_map(Result::err).collect();
            if is_used {
                unheeded = settings.ignored_annotations;
                unheeded.extend(policy::notes(store, meta));
                unheeded.extend(missing.iter().cloned());
            }
            let mut notes = settings.notes;
            if settings.protocol.map_or(tls_port, AppProtocol::is_tls) {
                let problem = upstream_tls::notes(store, meta, &settings.tls);
                unheeded.extend(problem.clone());
                notes.extend(problem);
            }
            notes.extend(policy::notes(store, meta));
            notes.extend(missing);
            notes
        }),
        Kind::BackendTlsPolicy => Some(vec![Diagnostic::error(
            "spec.targetRefs",
            "BackendTLSPolicy is not supported by this version",
            "requests to the targets get status 500 instead of being sent in plain text",
        )]),
        kind if store.unserved.contains_key(id) => Some(vec![Diagnostic::error(
            "kind",
            format!("{kind}s are validated but not served by this version"),
            "remove it, or route the requests in another way",
        )]),
        _ => None,
    };
    Some(Verdict { generation, notes: notes.unwrap_or_default(), ignored_annotations: unheeded, ..Verdict::default() })
}

fn is_managed(store: &Store, id: &ObjectId) -> bool {
    store.meta(id).is_some_and(|meta| meta.labels.get(MANAGED_BY_LABEL).is_some_and(|by| **by == *MANAGED_BY))
}

fn slice_notes(store: &Store, key: &ObjectKey) -> Vec<Diagnostic> {
    let Some(slice) = store.endpoint_slices.get(key) else { return Vec::new() };
    let field = format!("metadata.labels[{SERVICE_NAME_LABEL}]");
    match slice.meta.labels.get(SERVICE_NAME_LABEL) {
        None => vec![Diagnostic::error(
            "metadata.labels",
            format!("label {SERVICE_NAME_LABEL} is missing, so the endpoints do not belong to a Service"),
            "set it to the name of the Service",
        )],
        Some(name) => {
            let service = ObjectKey { namespace: key.namespace.clone(), name: name.clone() };
            if store.services.contains_key(&service) {
                Vec::new()
            } else {
                let message = format!("Service {service} does not exist");
                vec![Diagnostic::error(field, message, "create it or correct the label")]
            }
        }
    }
}
