//! Verdicts on objects without conditions of their own: notes for reports and events.

use super::endpoints;
use super::forbidden_addresses::ForbiddenAddresses;
use super::ingress::policy_conflicts::PolicyConflicts;
use super::ingress::service_settings::AppProtocol;
use super::ingress::{policy, service_settings, upstream_tls};
use super::plugins;
use super::verdict::Verdict;
use crate::api::names::{MANAGED_BY, MANAGED_BY_LABEL, SERVICE_NAME_LABEL};
use crate::api::{Kind, Meta, ObjectId, ObjectKey};
use crate::diagnostic::{Diagnostic, Topic};
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
    let diagnostics = match id.kind {
        // Problems of the Services that Portico manages are reported on their Gateways.
        Kind::Service | Kind::EndpointSlice if is_managed(store, id) => Vec::new(),
        Kind::Service => {
            let service = store.services.get(&id.key)?;
            let mut notes = endpoints::notes(store, service, forbidden, disagreements);
            notes.extend(missing_plugins(store, id.kind, &service.meta));
            if is_used { notes } else { without_events(notes) }
        }
        Kind::EndpointSlice => slice_notes(store, &id.key),
        Kind::KongServiceFacade => facade_notes(store, &id.key, is_used)?,
        Kind::BackendTlsPolicy => vec![Diagnostic::warning(
            "spec.targetRefs",
            "BackendTLSPolicy is not supported by this version",
            "requests to the targets get status 500 instead of being sent in plain text",
        )],
        kind if store.unserved.contains_key(id) => vec![Diagnostic::warning(
            "kind",
            format!("{kind}s are validated but not served by this version"),
            "remove it, or route the requests in another way",
        )],
        _ => Vec::new(),
    };
    Some(Verdict { generation, diagnostics, ..Verdict::default() })
}

/// The notes of an object that gets no requests from this controller: its ignored annotations are no event.
fn without_events(notes: Vec<Diagnostic>) -> Vec<Diagnostic> {
    notes.into_iter().map(|note| note.with_topic(Topic::Field)).collect()
}

fn facade_notes(store: &Store, key: &ObjectKey, is_used: bool) -> Option<Vec<Diagnostic>> {
    let facade = store.kong_service_facades.get(key)?;
    let service = store.services.get(&ObjectKey::new(&key.namespace, &facade.spec.backend_ref.name));
    let tls_port = service.is_some_and(|service| service.spec.ports.iter().any(upstream_tls::is_tls_port));
    let settings = service_settings::read(&facade.meta, "a KongServiceFacade", tls_port);
    let is_tls = settings.protocol.map_or(tls_port, AppProtocol::is_tls);
    let mut others = policy::notes(store, &facade.meta);
    others.extend(missing_plugins(store, Kind::KongServiceFacade, &facade.meta));
    let unless_used = |notes| if is_used { notes } else { without_events(notes) };
    let mut notes = unless_used(settings.notes);
    // With unusable TLS settings, an Ingress may refer to the facade and still not use it.
    notes.extend(upstream_tls::notes(store, &facade.meta, &settings.tls).filter(|_| is_tls));
    notes.extend(unless_used(others));
    Some(notes)
}

/// Warnings about plugins that an annotation names and that cannot be found.
fn missing_plugins<'a>(store: &'a Store, kind: Kind, meta: &'a Meta) -> impl Iterator<Item = Diagnostic> + 'a {
    let missing = plugins::referenced_plugins(store, kind, meta).filter_map(Result::err);
    missing.map(|missing| missing.into_warning().with_topic(Topic::Annotation))
}

fn is_managed(store: &Store, id: &ObjectId) -> bool {
    store.meta(id).is_some_and(|meta| meta.labels.get(MANAGED_BY_LABEL).is_some_and(|by| **by == *MANAGED_BY))
}

fn slice_notes(store: &Store, key: &ObjectKey) -> Vec<Diagnostic> {
    let Some(slice) = store.endpoint_slices.get(key) else { return Vec::new() };
    let field = format!("metadata.labels[{SERVICE_NAME_LABEL}]");
    match slice.meta.labels.get(SERVICE_NAME_LABEL) {
        None => vec![Diagnostic::warning(
            "metadata.labels",
            format!("label {SERVICE_NAME_LABEL} is missing, so the endpoints do not belong to a Service"),
            "set it to the name of the Service",
        )],
        Some(name) => {
            let service = ObjectKey { namespace: key.namespace.clone(), name: name.clone() };
            if store.services.contains_key(&service) {
                Vec::new()
            } else {
                let service = format!("Service {service}");
                vec![Diagnostic::not_found(field, service, "create it or correct the label").into_warning()]
            }
        }
    }
}
