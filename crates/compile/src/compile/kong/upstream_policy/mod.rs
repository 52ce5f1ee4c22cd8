//! Reads KongUpstreamPolicies and KongIngresses: the load balancing, sessions and health checks of a Service
//! (docs/kong-compatibility.md, 1.7 and 1.8).
//!
//! ```text
//!   KongUpstreamPolicy ─┐                  ┌ load_balancing.rs ─ hash_input.rs
//!   KongIngress ────────┴─ fields.rs ──────┼ sticky_sessions.rs
//!                                          └ active_checks.rs, passive_checks.rs
//!   references.rs: which object a Service names ─ verdict.rs
//! ```

mod active_checks;
mod fields;
mod findings;
mod hash_input;
mod load_balancing;
mod passive_checks;
mod references;
mod sticky_sessions;
#[cfg(test)]
mod tests;
mod verdict;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderValue;

use self::fields::UpstreamFields;
use self::findings::Findings;
use self::references::{kong_ingress_upstream, upstream_policy};
pub(in crate::compile) use self::references::{notes, referenced_policies, referenced_policy};
pub(in crate::compile) use self::verdict::verdict;
use super::policy_conflicts::PolicyConflicts;
use super::{service_annotations, service_facade};
use crate::api::kong::annotations::{HOST_HEADER, OVERRIDE};
use crate::api::names::BALANCE_ANNOTATION;
use crate::api::{Kind, Meta, ObjectKey};
use crate::compile::backend::endpoints;
use crate::store::Store;
use crate::upstream::settings::{Balancing, HealthSettings};
use crate::upstream::{AffinitySettings, BackendTraffic, UpstreamKey};

/// What Kong's objects say about all requests to a Service. `None`: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::compile) struct KongSettings {
    pub balancing: Option<Balancing>,
    pub affinity: Option<Arc<AffinitySettings>>,
    pub health: Option<Arc<HealthSettings>>,
}

impl KongSettings {
    /// Puts these settings in place of others, except the load balancing.
    pub(in crate::compile) fn apply(self, traffic: BackendTraffic) -> BackendTraffic {
        BackendTraffic {
            affinity: self.affinity.or(traffic.affinity),
            health: self.health.or(traffic.health),
            ..traffic
        }
    }
}

/// The settings of the policy to which the facade or Service of an upstream refers. A KongUpstreamPolicy overrides the
/// fields of a KongIngress if the Services of each rule agree on the policy.
pub(in crate::compile) fn policy_settings(
    store: &Store,
    upstream: &UpstreamKey,
    conflicts: &PolicyConflicts,
) -> KongSettings {
    let Some(meta) = settings_source(store, upstream) else { return KongSettings::default() };
    let service = service_key(upstream);
    let policy_applies = upstream.facade.is_some() || conflicts.for_service(&service).is_none();
    let mut ignored = Findings::default();
    let policy = upstream_policy(store, meta).filter(|_| policy_applies);
    let policy = policy.map(|policy| UpstreamFields::of_policy(&policy.spec, &mut ignored));
    let ingress =
        kong_ingress_upstream(store, meta).map(|upstream| UpstreamFields::of_kong_ingress(upstream, &mut ignored));
    let fields = match (policy, ingress) {
        (None, None) => return KongSettings::default(),
        (Some(policy), Some(ingress)) => policy.or(ingress),
        (Some(fields), None) | (None, Some(fields)) => fields,
    };
    let host = fields.host_header.and_then(service_annotations::parse_host);
    let host = host.unwrap_or_else(|| check_host(store, &service, meta));
    build(&fields, &service, &host, &mut ignored)
}

/// The load balancing of an upstream: that in the annotation of its facade or Service, or else that of a policy.
pub(in crate::compile) fn upstream_balance(
    store: &Store,
    upstream: &UpstreamKey,
    conflicts: &PolicyConflicts,
) -> Balancing {
    let balancing = policy_settings(store, upstream, conflicts).balancing.unwrap_or_default();
    let annotated = settings_source(store, upstream).and_then(|meta| endpoints::annotated_balance(meta).ok().flatten());
    match annotated {
        Some(algorithm) => Balancing { algorithm, hash: None, ..balancing },
        None => balancing,
    }
}

/// What sets the blocks of the settings of an upstream: an annotation, a KongUpstreamPolicy or a KongIngress.
pub(in crate::compile) fn sources(
    store: &Store,
    upstream: &UpstreamKey,
    conflicts: &PolicyConflicts,
) -> BTreeMap<&'static str, String> {
    let Some(meta) = settings_source(store, upstream) else { return BTreeMap::new() };
    let service = service_key(upstream);
    let policy_applies = upstream.facade.is_some() || conflicts.for_service(&service).is_none();
    let host = HeaderValue::from_static("localhost");
    let mut ignored = Findings::default();
    let mut sources = BTreeMap::new();
    // Later ones precede.
    if let Some(kong_ingress) = kong_ingress_upstream(store, meta) {
        let fields = UpstreamFields::of_kong_ingress(kong_ingress, &mut ignored);
        let settings = build(&fields, &service, &host, &mut ignored);
        add_sources(&mut sources, &settings, Kind::KongIngress, referenced_policy(meta, OVERRIDE));
    }
    if let Some(policy) = upstream_policy(store, meta).filter(|_| policy_applies) {
        let fields = UpstreamFields::of_policy(&policy.spec, &mut ignored);
        let settings = build(&fields, &service, &host, &mut ignored);
        add_sources(&mut sources, &settings, Kind::KongUpstreamPolicy, Some(policy.meta.key.clone()));
    }
    if endpoints::annotated_balance(meta).is_ok_and(|balance| balance.is_some()) {
        sources.insert("loadBalancing", format!("annotation {BALANCE_ANNOTATION} of {}", meta.key));
    }
    sources
}

fn add_sources(
    sources: &mut BTreeMap<&'static str, String>,
    settings: &KongSettings,
    kind: Kind,
    policy: Option<ObjectKey>,
) {
    let KongSettings { balancing, affinity, health } = settings;
    let Some(policy) = policy else { return };
    for (block, is_set) in [
        ("loadBalancing", balancing.is_some()),
        ("loadBalancing.sessionPersistence", affinity.is_some()),
        ("health.passive", health.is_some()),
        ("health.active", health.as_ref().is_some_and(|health| health.active.is_some())),
    ] {
        if is_set {
            sources.insert(block, format!("{kind} {policy}"));
        }
    }
}

/// Whether a KongIngress sets the `Host` for the Service with this metadata.
pub(in crate::compile) fn sets_host_header(store: &Store, meta: &Meta) -> bool {
    kong_ingress_upstream(store, meta).is_some_and(|upstream| upstream.host_header.is_some())
}

/// The `Host` that a KongIngress sets.
pub(in crate::compile) fn host_header(store: &Store, meta: &Meta) -> Option<HeaderValue> {
    service_annotations::parse_host(kong_ingress_upstream(store, meta)?.host_header.as_deref()?)
}

/// Translates the fields of one object, or of both. `host`: the `Host` of checks.
fn build(
    fields: &UpstreamFields<'_>,
    service: &ObjectKey,
    host: &HeaderValue,
    findings: &mut Findings,
) -> KongSettings {
    let active = fields.active.and_then(|active| active_checks::translate(active, host, fields.notation, findings));
    let passive = fields.passive.and_then(|passive| passive_checks::translate(passive, fields.notation, findings));
    let affinity = sticky_sessions::translate(fields, service, findings);
    let checks_health = active.is_some() || passive.is_some();
    let balancing = load_balancing::translate(fields, checks_health, findings);
    let health = checks_health.then(|| {
        Arc::new(HealthSettings {
            // Kong limits how many endpoints are healthy at least, by the threshold, and not how many are ejected.
            max_ejection_percent: 100,
            // Without a healthy endpoint, Kong responds 503 and does not use the last one that was healthy.
            ejects_last: passive.is_some(),
            passive: passive.unwrap_or_default(),
            active: active.map(Arc::new),
        })
    });
    KongSettings { balancing, affinity, health }
}

/// The facade or Service whose annotations apply to an upstream.
fn settings_source<'s>(store: &'s Store, upstream: &UpstreamKey) -> Option<&'s Meta> {
    let facade = service_facade::of_upstream(store, upstream);
    facade.or_else(|| store.services.get(&service_key(upstream)).map(|service| &service.meta))
}

fn service_key(upstream: &UpstreamKey) -> ObjectKey {
    ObjectKey { namespace: upstream.namespace.clone(), name: upstream.service.clone() }
}

/// The `Host` of checks: that of the annotation, as in Kong, or else the name of the Service in DNS.
fn check_host(store: &Store, key: &ObjectKey, meta: &Meta) -> HeaderValue {
    let annotated = meta.annotations.get(HOST_HEADER).and_then(|text| service_annotations::parse_host(text));
    let external = || {
        let service = store.services.get(key)?;
        let is_external = service.spec.kind.as_deref() == Some("ExternalName");
        service.spec.external_name.as_deref().filter(|_| is_external)
    };
    annotated.unwrap_or_else(|| {
        let name = external().map_or_else(|| format!("{}.{}.svc", key.name, key.namespace), str::to_owned);
        HeaderValue::from_str(name.trim_end_matches('.')).unwrap_or(HeaderValue::from_static("localhost"))
    })
}
