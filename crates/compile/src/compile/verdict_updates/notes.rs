//! Verdicts on objects that get no conditions: notes for reports and events.

use crate::api::names::{MANAGED_BY, MANAGED_BY_LABEL, SERVICE_NAME_LABEL};
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::backend::forbidden_addresses::ForbiddenAddresses;
use crate::compile::kong::policy_conflicts::PolicyConflicts;
use crate::compile::kong::service_notes;
use crate::diagnostic::Diagnostic;
use crate::store::Store;
use crate::verdict::Verdict;

/// The verdict on an object, or `None` if the object does not exist. For a Service or facade, `is_used` says whether
/// routes use it.
pub(in crate::compile) fn verdict(
    cx: CompileContext<'_>,
    id: &ObjectId,
    forbidden: &ForbiddenAddresses,
    conflicts: &PolicyConflicts,
    is_used: bool,
) -> Option<Verdict> {
    let store = cx.store;
    let generation = store.meta(id)?.generation;
    let diagnostics = match id.kind {
        // Diagnostics of the Services that Portico manages are on their Gateways.
        Kind::Service | Kind::EndpointSlice if is_managed(store, id) => Vec::new(),
        Kind::Service => {
            let service = store.services.get(&id.key)?;
            return Some(service_notes::service_verdict(cx, service, forbidden, conflicts, is_used));
        }
        Kind::EndpointSlice => slice_notes(store, &id.key),
        _ => Vec::new(),
    };
    Some(Verdict { generation, diagnostics, ..Verdict::default() })
}

fn is_managed(store: &Store, id: &ObjectId) -> bool {
    store.meta(id).is_some_and(|meta| meta.labels.get(MANAGED_BY_LABEL).is_some_and(|manager| **manager == *MANAGED_BY))
}

fn slice_notes(store: &Store, key: &ObjectKey) -> Vec<Diagnostic> {
    let Some(slice) = store.endpoint_slices.get(key) else { return Vec::new() };
    let field = format!("metadata.labels[{SERVICE_NAME_LABEL}]");
    match slice.meta.labels.get(SERVICE_NAME_LABEL) {
        None => vec![Diagnostic::warning(
            "metadata.labels",
            format!("label {SERVICE_NAME_LABEL} is missing, so the endpoints do not belong to a Service"),
            "set the label to the name of the Service",
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
