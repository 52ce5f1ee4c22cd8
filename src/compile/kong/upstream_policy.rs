//! Reads KongUpstreamPolicies and KongIngresses: the supported load-balancing settings of a Service
//! (docs/kong-compatibility.md, 1.7 and 1.8).

use std::sync::Arc;

use http::HeaderValue;

use super::policy_conflicts::PolicyConflicts;
use super::{service_annotations, service_facade};
use crate::api::kong::annotations::{OVERRIDE, UPSTREAM_POLICY};
use crate::api::kong::{KongIngress, KongIngressUpstream, KongUpstreamPolicy, UpstreamHealthchecks};
use crate::api::{Kind, Meta, Object, ObjectId, ObjectKey};
use crate::compile::backend::endpoints;
use crate::compile::verdict::{AncestorReference, AncestorVerdict, Code, Condition, Verdict};
use crate::diagnostic::{Diagnostic, Topic};
use crate::store::Store;
use crate::upstream::UpstreamKey;
use crate::upstream::settings::{Balancing, BalancingAlgorithm};

/// The load-balancing algorithm of an upstream: that in the annotation of its facade or Service, or else that of a
/// policy.
pub(in crate::compile) fn upstream_balance(
    store: &Store,
    upstream: &UpstreamKey,
    conflicts: &PolicyConflicts,
) -> Balancing {
    let service = ObjectKey { namespace: upstream.namespace.clone(), name: upstream.service.clone() };
    let facade = service_facade::of_upstream(store, upstream);
    let Some(meta) = facade.or_else(|| store.services.get(&service).map(|service| &service.meta)) else {
        return Balancing::default();
    };
    let policy_applies = facade.is_some() || conflicts.for_service(&service).is_none();
    let annotated = endpoints::annotated_balance(meta).ok().flatten();
    let algorithm = annotated.or_else(|| policy_balance(store, meta, policy_applies)).unwrap_or_default();
    Balancing { algorithm, ..Balancing::default() }
}

/// The load-balancing algorithm for the Service or facade with this metadata; `None` if there is no supported one. A
/// KongUpstreamPolicy overrides a KongIngress if the Services of each rule agree on the policy (`policy_applies`).
fn policy_balance(store: &Store, meta: &Meta, policy_applies: bool) -> Option<BalancingAlgorithm> {
    let policy_algorithm =
        upstream_policy(store, meta).filter(|_| policy_applies).and_then(|policy| policy.spec.algorithm.as_deref());
    let kong_ingress_algorithm = kong_ingress_upstream(store, meta).and_then(|upstream| upstream.algorithm.as_deref());
    match policy_algorithm.or(kong_ingress_algorithm)? {
        "round-robin" => Some(BalancingAlgorithm::RoundRobin),
        "least-connections" => Some(BalancingAlgorithm::LeastRequests),
        _ => None,
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

fn upstream_policy<'s>(store: &'s Store, meta: &Meta) -> Option<&'s Arc<Object<KongUpstreamPolicy>>> {
    store.kong_upstream_policies.get(&referenced_policy(meta, UPSTREAM_POLICY)?)
}

fn kong_ingress_upstream<'s>(store: &'s Store, meta: &Meta) -> Option<&'s KongIngressUpstream> {
    store.kong_ingresses.get(&referenced_policy(meta, OVERRIDE)?)?.upstream.as_ref()
}

pub(in crate::compile) fn referenced_policy(meta: &Meta, annotation: &str) -> Option<ObjectKey> {
    let name = meta.annotations.get(annotation)?.trim();
    Some(ObjectKey { namespace: meta.key.namespace.clone(), name: name.into() })
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

/// The policies that an object refers to, whether they exist or not.
pub(in crate::compile) fn referenced_policies(meta: &Meta) -> impl Iterator<Item = ObjectId> + use<> {
    let policy = referenced_policy(meta, UPSTREAM_POLICY).map(|key| ObjectId::new(Kind::KongUpstreamPolicy, key));
    policy.into_iter().chain(referenced_policy(meta, OVERRIDE).map(|key| ObjectId::new(Kind::KongIngress, key)))
}

/// The verdict on a KongUpstreamPolicy or KongIngress.
pub(in crate::compile) fn verdict(store: &Store, id: &ObjectId, conflicts: &PolicyConflicts) -> Option<Verdict> {
    let generation = store.meta(id)?.generation;
    let referrers = referrers(store, id);
    let (problems, mut notes) = match id.kind {
        Kind::KongUpstreamPolicy => check_upstream_policy(store.kong_upstream_policies.get(&id.key)?),
        Kind::KongIngress => check_kong_ingress(store.kong_ingresses.get(&id.key)?),
        _ => return None,
    };
    if id.kind == Kind::KongIngress {
        notes.push(deprecation_note());
    }
    let condition = if !problems.is_empty() {
        Condition::new(Code::ObjectInvalid, problems)
    } else if referrers.is_empty() {
        let annotation = if id.kind == Kind::KongIngress { OVERRIDE } else { UPSTREAM_POLICY };
        let remedy = format!("refer to it in the annotation {annotation} of a Service");
        Condition::new(Code::ObjectPending, vec![Diagnostic::of_object("no Service refers to it", remedy)])
    } else {
        Condition::without_diagnostics(Code::ObjectProgrammed)
    };
    let ancestors = referrers.into_iter().filter(|_| id.kind == Kind::KongUpstreamPolicy).map(|referrer| {
        let conflict = (referrer.kind == Kind::Service).then(|| conflicts.for_service(&referrer.key)).flatten();
        let conditions = match conflict {
            None => vec![Condition::without_diagnostics(Code::PolicyAccepted), condition.clone()],
            Some(problem) => {
                let conflicted = Condition::new(Code::PolicyConflicted, vec![problem.clone()]);
                vec![conflicted, Condition::new(Code::ObjectPending, vec![problem])]
            }
        };
        let reference = AncestorReference::Referrer(referrer.kind, referrer.key.name);
        AncestorVerdict { reference, controller: None, conditions }
    });
    let ancestors = ancestors.take(MAX_ANCESTORS).collect();
    Some(Verdict {
        generation,
        conditions: vec![condition.clone()],
        ancestors,
        diagnostics: notes,
        ..Verdict::default()
    })
}

/// The maximum number of ancestors in a policy's status, which Gateway API defines.
const MAX_ANCESTORS: usize = 16;

/// The objects that refer to a policy, oldest first.
fn referrers(store: &Store, policy: &ObjectId) -> Vec<ObjectId> {
    let mut referrers: Vec<(Option<i64>, ObjectId)> = Vec::new();
    for id in store.dependency_index().dependents(policy) {
        let Some(meta) = store.meta(id) else { continue };
        if referenced_policies(meta).any(|referenced| referenced == *policy) {
            referrers.push((meta.created, id.clone()));
        }
    }
    referrers.sort();
    referrers.into_iter().map(|(_, id)| id).collect()
}

fn deprecation_note() -> Diagnostic {
    let remedy = "create a KongUpstreamPolicy and refer to it in konghq.com/upstream-policy of the Service";
    Diagnostic::warning("kind", "KongIngress is deprecated", remedy)
}

/// Errors for all fields that are not in effect, and notes for fields that have no effect in Kong either.
fn check_upstream_policy(policy: &KongUpstreamPolicy) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
    let spec = &policy.spec;
    let mut problems = check_algorithm("spec.algorithm", spec.algorithm.as_deref());
    for (is_set, field) in [
        (spec.hash_on.is_some(), "spec.hashOn"),
        (spec.hash_on_fallback.is_some(), "spec.hashOnFallback"),
        (spec.sticky_sessions.is_some(), "spec.stickySessions"),
    ] {
        problems.extend(is_set.then(|| not_in_effect(field)));
    }
    let mut notes = Vec::new();
    if spec.slots.is_some() {
        check_hash_field("spec.slots", is_hashing(spec.algorithm.as_deref()), &mut problems, &mut notes);
    }
    problems.extend(spec.healthchecks.as_ref().map(check_health_checks).unwrap_or_default());
    (problems, notes)
}

/// Reports a field that configures hashing: an error if hashing is enabled; otherwise a note, since it has no effect in
/// Kong either.
fn check_hash_field(
    field: &str,
    is_hashing_enabled: bool,
    problems: &mut Vec<Diagnostic>,
    notes: &mut Vec<Diagnostic>,
) {
    if is_hashing_enabled {
        problems.push(not_in_effect(field));
    } else {
        let message = "it configures hashing, which is not enabled, so it has no effect";
        notes.push(Diagnostic::warning(field, message, "remove it"));
    }
}

fn is_hashing(algorithm: Option<&str>) -> bool {
    algorithm == Some("consistent-hashing")
}

fn check_kong_ingress(object: &KongIngress) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
    let Some(upstream) = &object.upstream else { return Default::default() };
    let mut problems = check_algorithm("upstream.algorithm", upstream.algorithm.as_deref());
    let mut notes = Vec::new();
    if let Some(host) = upstream.host_header.as_deref().filter(|host| service_annotations::parse_host(host).is_none()) {
        let message = format!("{host:?} is not a host name, so it has no effect");
        problems.push(Diagnostic::error("upstream.host_header", message, "write a host name, such as backend.example"));
    }
    // Whether the value names an input of the hash, such as `header`.
    let selects_input = |value: &Option<String>| value.as_deref().is_some_and(|value| value != "none");
    for (is_set, field) in [
        (selects_input(&upstream.hash_on), "upstream.hash_on"),
        (selects_input(&upstream.hash_fallback), "upstream.hash_fallback"),
    ] {
        problems.extend(is_set.then(|| not_in_effect(field)));
    }
    let hashes = is_hashing(upstream.algorithm.as_deref()) || selects_input(&upstream.hash_on);
    let hashes_on_fallback = selects_input(&upstream.hash_fallback);
    for (is_written, field, is_hashing_enabled) in [
        (upstream.slots.is_some(), "slots", hashes),
        (upstream.hash_on_header.is_some(), "hash_on_header", hashes),
        (upstream.hash_on_cookie.is_some(), "hash_on_cookie", hashes),
        (upstream.hash_on_cookie_path.is_some(), "hash_on_cookie_path", hashes),
        (upstream.hash_on_query_arg.is_some(), "hash_on_query_arg", hashes),
        (upstream.hash_on_uri_capture.is_some(), "hash_on_uri_capture", hashes),
        (upstream.hash_fallback_header.is_some(), "hash_fallback_header", hashes_on_fallback),
        (upstream.hash_fallback_query_arg.is_some(), "hash_fallback_query_arg", hashes_on_fallback),
        (upstream.hash_fallback_uri_capture.is_some(), "hash_fallback_uri_capture", hashes_on_fallback),
    ] {
        if is_written {
            check_hash_field(&format!("upstream.{field}"), is_hashing_enabled, &mut problems, &mut notes);
        }
    }
    if let Some(checks) = &upstream.healthchecks {
        let is_any_positive = |numbers: &[Option<i32>]| numbers.iter().flatten().any(|number| *number > 0);
        if checks.threshold.as_ref().is_some_and(|threshold| threshold.as_f64() != Some(0.0)) {
            problems.push(not_in_effect("upstream.healthchecks.threshold"));
        }
        if let Some(active) = &checks.active {
            let healthy = active.healthy.as_ref().and_then(|healthy| healthy.interval);
            let unhealthy = active.unhealthy.as_ref().and_then(|unhealthy| unhealthy.interval);
            problems
                .extend(is_any_positive(&[healthy, unhealthy]).then(|| not_in_effect("upstream.healthchecks.active")));
        }
        if let Some(passive) = &checks.passive {
            let successes = passive.healthy.as_ref().and_then(|healthy| healthy.successes);
            let [failures, refusals, timeouts] = passive
                .unhealthy
                .as_ref()
                .map_or([None; 3], |unhealthy| [unhealthy.http_failures, unhealthy.tcp_failures, unhealthy.timeouts]);
            let is_enabled = is_any_positive(&[successes, failures, refusals, timeouts]);
            problems.extend(is_enabled.then(|| not_in_effect("upstream.healthchecks.passive")));
        }
    }
    (problems, notes)
}

fn check_algorithm(field: &str, algorithm: Option<&str>) -> Vec<Diagnostic> {
    match algorithm {
        None | Some("round-robin" | "least-connections") => Vec::new(),
        Some(other) => {
            let message = format!("{other} is not supported by this version, so round-robin is used");
            vec![Diagnostic::error(field, message, "use round-robin or least-connections")]
        }
    }
}

/// Errors for enabled health checks. Checks with an interval or threshold of 0 are disabled, as in Kong.
fn check_health_checks(checks: &UpstreamHealthchecks) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    let mut report_if_positive = |field: &str, number: Option<i32>| {
        if number.is_some_and(|number| number > 0) {
            problems.push(not_in_effect(&format!("spec.healthchecks.{field}")));
        }
    };
    report_if_positive("threshold", checks.threshold);
    if let Some(active) = &checks.active {
        report_if_positive("active.healthy.interval", active.healthy.as_ref().and_then(|healthy| healthy.interval));
        report_if_positive(
            "active.unhealthy.interval",
            active.unhealthy.as_ref().and_then(|unhealthy| unhealthy.interval),
        );
    }
    if let Some(passive) = &checks.passive {
        report_if_positive("passive.healthy.successes", passive.healthy.as_ref().and_then(|healthy| healthy.successes));
        if let Some(unhealthy) = &passive.unhealthy {
            report_if_positive("passive.unhealthy.httpFailures", unhealthy.http_failures);
            report_if_positive("passive.unhealthy.tcpFailures", unhealthy.tcp_failures);
            report_if_positive("passive.unhealthy.timeouts", unhealthy.timeouts);
        }
    }
    problems
}

fn not_in_effect(field: &str) -> Diagnostic {
    Diagnostic::error(
        field,
        "it is not supported by this version, so it has no effect",
        "remove the field if load balancing without it is acceptable",
    )
}
