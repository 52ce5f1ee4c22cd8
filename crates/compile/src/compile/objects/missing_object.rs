//! The diagnostic for a reference to an object that is not in the store: it does not exist, was not fetched yet, may
//! not be fetched, is larger than an object may be, or was rejected, which the table of verdicts adds.

use crate::api::{Kind, ObjectId, ObjectKey};
use crate::diagnostic::Diagnostic;
use crate::store::Store;

/// An error about a reference at `field` to an object that is not in the store.
pub(in crate::compile) fn missing_object(
    store: &Store,
    field: impl Into<String>,
    kind: Kind,
    key: &ObjectKey,
) -> Diagnostic {
    let object = format!("{kind} {key}");
    let id = ObjectId::new(kind, key.clone());
    if store.oversized.contains_key(&id) {
        let message = format!("{object} is larger than the limit for one object, so it is not used");
        return Diagnostic::error(field, message, format!("make it smaller; the verdict on {object} has its size"));
    }
    if store.forbidden().contains(&id) {
        let message = format!("{object} exists, but Portico may not read its content");
        let (kinds, namespace) = (kind.plural(), &key.namespace);
        let remedy = format!("grant the verb get on {kinds} in namespace {namespace} to the ServiceAccount of Portico");
        return Diagnostic::error(field, message, remedy);
    }
    if store.unfetched().contains(&id) {
        let message = format!("{object} exists, but its content was not fetched yet");
        return Diagnostic::error(field, message, "wait for it; if fetching fails, the log of Portico has the reason");
    }
    Diagnostic::not_found(field, object, "create it or correct the name")
}
