//! The diagnostic for a reference to a Secret or ConfigMap that is not in the store: it does not exist, or it was not
//! fetched yet.

use crate::api::{Kind, ObjectId, ObjectKey};
use crate::diagnostic::Diagnostic;
use crate::store::Store;

/// An error about a reference at `field` to a Secret or ConfigMap that is not in the store.
pub(super) fn missing_object(store: &Store, field: impl Into<String>, kind: Kind, key: &ObjectKey) -> Diagnostic {
    let object = format!("{kind} {key}");
    if store.unfetched().contains(&ObjectId::new(kind, key.clone())) {
        let message = format!("{object} exists, but its content was not fetched yet");
        return Diagnostic::error(field, message, "wait for it; if fetching fails, the log of Portico has the reason");
    }
    Diagnostic::not_found(field, object, "create it or correct the name")
}
