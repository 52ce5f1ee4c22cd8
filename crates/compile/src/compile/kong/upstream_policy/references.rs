//! Which KongUpstreamPolicy and KongIngress a Service or facade refers to.

use std::sync::Arc;

use crate::api::kong::annotations::{OVERRIDE, UPSTREAM_POLICY};
use crate::api::kong::{KongIngressUpstream, KongUpstreamPolicy};
use crate::api::{Kind, Meta, Object, ObjectId, ObjectKey};
use crate::diagnostic::{Diagnostic, Topic};
use crate::store::Store;

pub(super) fn upstream_policy<'s>(store: &'s Store, meta: &Meta) -> Option<&'s Arc<Object<KongUpstreamPolicy>>> {
    store.kong_upstream_policies.get(&referenced_policy(meta, UPSTREAM_POLICY)?)
}

pub(super) fn kong_ingress_upstream<'s>(store: &'s Store, meta: &Meta) -> Option<&'s KongIngressUpstream> {
    store.kong_ingresses.get(&referenced_policy(meta, OVERRIDE)?)?.upstream.as_ref()
}

pub(in crate::compile) fn referenced_policy(meta: &Meta, annotation: &str) -> Option<ObjectKey> {
    let name = meta.annotations.get(annotation)?.trim();
    Some(ObjectKey { namespace: meta.key.namespace.clone(), name: name.into() })
}

/// The policies that an object refers to, whether they exist or not.
pub(in crate::compile) fn referenced_policies(meta: &Meta) -> impl Iterator<Item = ObjectId> + use<> {
    let policy = referenced_policy(meta, UPSTREAM_POLICY).map(|key| ObjectId::new(Kind::KongUpstreamPolicy, key));
    policy.into_iter().chain(referenced_policy(meta, OVERRIDE).map(|key| ObjectId::new(Kind::KongIngress, key)))
}

/// Diagnostics about the policies that a Service or facade refers to, in particular missing ones.
pub(in crate::compile) fn notes(store: &Store, meta: &Meta) -> Vec<Diagnostic> {
    let mut notes = Vec::new();
    for (annotation, kind) in [(UPSTREAM_POLICY, Kind::KongUpstreamPolicy), (OVERRIDE, Kind::KongIngress)] {
        let Some(key) = referenced_policy(meta, annotation) else { continue };
        if store.meta(&ObjectId::new(kind, key.clone())).is_none() {
            let field = format!("metadata.annotations[{annotation}]");
            let missing = Diagnostic::not_found(field, format!("{kind} {key}"), "create it or correct the name");
            notes.push(missing.into_warning().with_topic(Topic::Annotation));
        }
    }
    notes
}
