//! KongUpstreamPolicy and KongIngress: how requests are shared among the endpoints of a Service, as far as that is served
//! (`kong-compat.md` §1.7, §1.8).

use std::sync::Arc;

use http::HeaderValue;

use super::super::verdict::{AncestorVerdict, Code, Condition, Problem, Verdict};
use crate::api::kong::annotations::{OVERRIDE, UPSTREAM_POLICY};
use crate::api::kong::{KongIngress, KongIngressUpstream, KongUpstreamPolicy, UpstreamHealthchecks};
use crate::api::{Kind, Meta, Object, ObjectId, ObjectKey};
use crate::store::Store;
use crate::upstream::Balance;

/// What policies say about the Service, or the facade, with this metadata. None if they say nothing that is served. The
/// newer way of saying it goes before the older.
pub(in crate::compile) fn balance(store: &Store, meta: &Meta) -> Option<Balance> {
    let policy = policy(store, meta).and_then(|policy| policy.spec.algorithm.as_deref());
    let older = overriding(store, meta).and_then(|upstream| upstream.algorithm.as_deref());
    match policy.or(older)? {
        "round-robin" => Some(Balance::RoundRobin),
        "least-connections" => Some(Balance::LeastRequests),
        _ => None,
    }
}

/// The host that a KongIngress wants endpoints to be asked for.
pub(super) fn host_header(store: &Store, meta: &Meta) -> Option<HeaderValue> {
    HeaderValue::from_str(overriding(store, meta)?.host_header.as_deref()?).ok()
}

fn policy<'s>(store: &'s Store, meta: &Meta) -> Option<&'s Arc<Object<KongUpstreamPolicy>>> {
    store.kong_upstream_policies.get(&named(meta, UPSTREAM_POLICY)?)
}

fn overriding<'s>(store: &'s Store, meta: &Meta) -> Option<&'s KongIngressUpstream> {
    store.kong_ingresses.get(&named(meta, OVERRIDE)?)?.upstream.as_ref()
}

fn named(meta: &Meta, annotation: &str) -> Option<ObjectKey> {
    let name = meta.annotations.get(annotation)?.trim();
    Some(ObjectKey { namespace: meta.key.namespace.clone(), name: name.into() })
}

/// What there is to say about the policies that a Service or facade names.
pub(in crate::compile) fn notes(store: &Store, meta: &Meta) -> Vec<Problem> {
    let mut notes = Vec::new();
    for (annotation, kind) in [(UPSTREAM_POLICY, Kind::KongUpstreamPolicy), (OVERRIDE, Kind::KongIngress)] {
        let Some(key) = named(meta, annotation) else { continue };
        if store.meta(&ObjectId::new(kind, key.clone())).is_none() {
            let message = format!("{kind} {key} does not exist");
            let field = format!("metadata.annotations[{annotation}]");
            notes.push(Problem::new(field, message, "create it or correct the name"));
        }
    }
    notes
}

/// The policies that an object names, whether they exist or not.
pub(in crate::compile) fn named_by(meta: &Meta) -> impl Iterator<Item = ObjectId> + use<> {
    let policy = named(meta, UPSTREAM_POLICY).map(|key| ObjectId::new(Kind::KongUpstreamPolicy, key));
    policy.into_iter().chain(named(meta, OVERRIDE).map(|key| ObjectId::new(Kind::KongIngress, key)))
}

/// The verdict on a policy of either kind.
pub(in crate::compile) fn verdict(store: &Store, id: &ObjectId) -> Option<Verdict> {
    let generation = store.meta(id)?.generation;
    let users = users(store, id);
    let (problems, notes) = match id.kind {
        Kind::KongUpstreamPolicy => (of_policy(store.kong_upstream_policies.get(&id.key)?), Vec::new()),
        Kind::KongIngress => (of_override(store.kong_ingresses.get(&id.key)?), vec![deprecated()]),
        _ => return None,
    };
    let condition = if !problems.is_empty() {
        Condition::new(Code::KongInvalid, problems)
    } else if users.is_empty() {
        let annotation = if id.kind == Kind::KongIngress { OVERRIDE } else { UPSTREAM_POLICY };
        let remedy = format!("name it in the annotation {annotation} of a Service");
        Condition::new(Code::KongPending, vec![Problem::new("", "no Service names it", remedy)])
    } else {
        Condition::plain(Code::KongProgrammed)
    };
    let ancestors = users.into_iter().filter(|_| id.kind == Kind::KongUpstreamPolicy).map(|user| AncestorVerdict {
        kind: user.kind,
        name: user.key.name,
        conditions: vec![Condition::plain(Code::PolicyAccepted), condition.clone()],
    });
    let ancestors = ancestors.take(MOST_ANCESTORS).collect();
    Some(Verdict { generation, conditions: vec![condition.clone()], ancestors, notes, ..Verdict::default() })
}

/// As many as a status has room for.
const MOST_ANCESTORS: usize = 16;

/// Who names a policy, the oldest first.
fn users(store: &Store, policy: &ObjectId) -> Vec<ObjectId> {
    let mut users: Vec<(Option<i64>, ObjectId)> = Vec::new();
    for id in store.refs().dependents(policy) {
        let Some(meta) = store.meta(id) else { continue };
        if named_by(meta).any(|named| named == *policy) {
            users.push((meta.created, id.clone()));
        }
    }
    users.sort();
    users.into_iter().map(|(_, id)| id).collect()
}

fn deprecated() -> Problem {
    let remedy = "write a KongUpstreamPolicy and name it in konghq.com/upstream-policy of the Service";
    Problem::new("kind", "KongIngress is deprecated", remedy)
}

/// Every field that somebody may count on and that is not in effect.
fn of_policy(policy: &KongUpstreamPolicy) -> Vec<Problem> {
    let spec = &policy.spec;
    let mut problems = algorithm("spec.algorithm", spec.algorithm.as_deref());
    for (is_set, field) in [
        (spec.hash_on.is_some(), "spec.hashOn"),
        (spec.hash_on_fallback.is_some(), "spec.hashOnFallback"),
        (spec.sticky_sessions.is_some(), "spec.stickySessions"),
    ] {
        problems.extend(is_set.then(|| not_in_effect(field)));
    }
    problems.extend(spec.healthchecks.as_ref().map(health).unwrap_or_default());
    problems
}

fn of_override(object: &KongIngress) -> Vec<Problem> {
    let Some(upstream) = &object.upstream else { return Vec::new() };
    let mut problems = algorithm("upstream.algorithm", upstream.algorithm.as_deref());
    let is_set = |value: &Option<String>| value.as_deref().is_some_and(|value| value != "none");
    for (is_set, field) in
        [(is_set(&upstream.hash_on), "upstream.hash_on"), (is_set(&upstream.hash_fallback), "upstream.hash_fallback")]
    {
        problems.extend(is_set.then(|| not_in_effect(field)));
    }
    if let Some(checks) = &upstream.healthchecks {
        let counts = |numbers: &[Option<i32>]| numbers.iter().flatten().any(|number| *number > 0);
        if checks.threshold.as_ref().is_some_and(|threshold| threshold.as_f64() != Some(0.0)) {
            problems.push(not_in_effect("upstream.healthchecks.threshold"));
        }
        if let Some(active) = &checks.active {
            let healthy = active.healthy.as_ref().and_then(|healthy| healthy.interval);
            let unhealthy = active.unhealthy.as_ref().and_then(|unhealthy| unhealthy.interval);
            problems.extend(counts(&[healthy, unhealthy]).then(|| not_in_effect("upstream.healthchecks.active")));
        }
        if let Some(passive) = &checks.passive {
            let successes = passive.healthy.as_ref().and_then(|healthy| healthy.successes);
            let [failures, refusals, timeouts] = passive
                .unhealthy
                .as_ref()
                .map_or([None; 3], |unhealthy| [unhealthy.http_failures, unhealthy.tcp_failures, unhealthy.timeouts]);
            let counts = counts(&[successes, failures, refusals, timeouts]);
            problems.extend(counts.then(|| not_in_effect("upstream.healthchecks.passive")));
        }
    }
    problems
}

fn algorithm(field: &str, algorithm: Option<&str>) -> Vec<Problem> {
    match algorithm {
        None | Some("round-robin" | "least-connections") => Vec::new(),
        Some(other) => {
            let message = format!("{other} is not served by this version, so each endpoint gets a request in turn");
            vec![Problem::new(field, message, "use round-robin or least-connections")]
        }
    }
}

/// Checks whose intervals or thresholds are 0 are off for Kong, too.
fn health(checks: &UpstreamHealthchecks) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut look = |field: &str, number: Option<i32>| {
        if number.is_some_and(|number| number > 0) {
            problems.push(not_in_effect(&format!("spec.healthchecks.{field}")));
        }
    };
    look("threshold", checks.threshold);
    if let Some(active) = &checks.active {
        look("active.healthy.interval", active.healthy.as_ref().and_then(|healthy| healthy.interval));
        look("active.unhealthy.interval", active.unhealthy.as_ref().and_then(|unhealthy| unhealthy.interval));
    }
    if let Some(passive) = &checks.passive {
        look("passive.healthy.successes", passive.healthy.as_ref().and_then(|healthy| healthy.successes));
        if let Some(unhealthy) = &passive.unhealthy {
            look("passive.unhealthy.httpFailures", unhealthy.http_failures);
            look("passive.unhealthy.tcpFailures", unhealthy.tcp_failures);
            look("passive.unhealthy.timeouts", unhealthy.timeouts);
        }
    }
    problems
}

fn not_in_effect(field: &str) -> Problem {
    Problem::new(
        field,
        "it is not served by this version, so it has no effect",
        "remove it, if requests may be shared without it",
    )
}
