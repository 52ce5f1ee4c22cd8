//! KongUpstreamPolicy and KongIngress: how requests are shared among the endpoints of a Service, as far as that is served
//! (`kong-compat.md` §1.7, §1.8).

use std::sync::Arc;

use http::HeaderValue;

use super::super::verdict::{AncestorVerdict, Code, Condition, Problem, Verdict};
use super::disagreements::Disagreements;
use super::service_settings;
use crate::api::kong::annotations::{OVERRIDE, UPSTREAM_POLICY};
use crate::api::kong::{KongIngress, KongIngressUpstream, KongUpstreamPolicy, UpstreamHealthchecks};
use crate::api::{Kind, Meta, Object, ObjectId, ObjectKey};
use crate::store::Store;
use crate::upstream::Balance;

/// What policies say about the Service, or the facade, with this metadata. None if they say nothing that is served. The
/// newer way of saying it goes before the older, unless it does not count: `agrees`.
pub(in crate::compile) fn balance(store: &Store, meta: &Meta, agrees: bool) -> Option<Balance> {
    let policy = policy(store, meta).filter(|_| agrees).and_then(|policy| policy.spec.algorithm.as_deref());
    let older = overriding(store, meta).and_then(|upstream| upstream.algorithm.as_deref());
    match policy.or(older)? {
        "round-robin" => Some(Balance::RoundRobin),
        "least-connections" => Some(Balance::LeastRequests),
        _ => None,
    }
}

/// Whether a KongIngress wants endpoints of the Service with this metadata to be asked for a host.
pub(super) fn wants_host(store: &Store, meta: &Meta) -> bool {
    overriding(store, meta).is_some_and(|upstream| upstream.host_header.is_some())
}

/// The host that a KongIngress wants endpoints to be asked for.
pub(super) fn host_header(store: &Store, meta: &Meta) -> Option<HeaderValue> {
    service_settings::host(overriding(store, meta)?.host_header.as_deref()?)
}

fn policy<'s>(store: &'s Store, meta: &Meta) -> Option<&'s Arc<Object<KongUpstreamPolicy>>> {
    store.kong_upstream_policies.get(&named(meta, UPSTREAM_POLICY)?)
}

fn overriding<'s>(store: &'s Store, meta: &Meta) -> Option<&'s KongIngressUpstream> {
    store.kong_ingresses.get(&named(meta, OVERRIDE)?)?.upstream.as_ref()
}

pub(super) fn named(meta: &Meta, annotation: &str) -> Option<ObjectKey> {
    let name = meta.annotations.get(annotation)?.trim();
    Some(ObjectKey { namespace: meta.key.namespace.clone(), name: name.into() })
}

/// What there is to say about the policies that a Service or facade names. Nobody else says that there is no such policy.
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
pub(in crate::compile) fn verdict(store: &Store, id: &ObjectId, disagreements: &Disagreements) -> Option<Verdict> {
    let generation = store.meta(id)?.generation;
    let users = users(store, id);
    let (problems, mut notes) = match id.kind {
        Kind::KongUpstreamPolicy => of_policy(store.kong_upstream_policies.get(&id.key)?),
        Kind::KongIngress => of_override(store.kong_ingresses.get(&id.key)?),
        _ => return None,
    };
    if id.kind == Kind::KongIngress {
        notes.push(deprecated());
    }
    let condition = if !problems.is_empty() {
        Condition::new(Code::KongInvalid, problems)
    } else if users.is_empty() {
        let annotation = if id.kind == Kind::KongIngress { OVERRIDE } else { UPSTREAM_POLICY };
        let remedy = format!("name it in the annotation {annotation} of a Service");
        Condition::new(Code::KongPending, vec![Problem::new("", "no Service names it", remedy)])
    } else {
        Condition::plain(Code::KongProgrammed)
    };
    let ancestors = users.into_iter().filter(|_| id.kind == Kind::KongUpstreamPolicy).map(|user| {
        let conflict = (user.kind == Kind::Service).then(|| disagreements.of(&user.key)).flatten();
        let conditions = match conflict {
            None => vec![Condition::plain(Code::PolicyAccepted), condition.clone()],
            Some(problem) => {
                let conflicted = Condition::new(Code::PolicyConflicted, vec![problem.clone()]);
                vec![conflicted, Condition::new(Code::KongPending, vec![problem])]
            }
        };
        AncestorVerdict { kind: user.kind, name: user.key.name, conditions }
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

/// Every field that somebody may count on and that is not in effect; and those that have none in Kong either.
fn of_policy(policy: &KongUpstreamPolicy) -> (Vec<Problem>, Vec<Problem>) {
    let spec = &policy.spec;
    let mut problems = algorithm("spec.algorithm", spec.algorithm.as_deref());
    for (is_set, field) in [
        (spec.hash_on.is_some(), "spec.hashOn"),
        (spec.hash_on_fallback.is_some(), "spec.hashOnFallback"),
        (spec.sticky_sessions.is_some(), "spec.stickySessions"),
    ] {
        problems.extend(is_set.then(|| not_in_effect(field)));
    }
    let mut notes = Vec::new();
    if spec.slots.is_some() {
        of_hashing("spec.slots", hashes(spec.algorithm.as_deref()), &mut problems, &mut notes);
    }
    problems.extend(spec.healthchecks.as_ref().map(health).unwrap_or_default());
    (problems, notes)
}

/// What says more about hashing requests: without that nobody, Kong included, makes anything of it.
fn of_hashing(field: &str, is_asked_for: bool, problems: &mut Vec<Problem>, notes: &mut Vec<Problem>) {
    if is_asked_for {
        problems.push(not_in_effect(field));
    } else {
        let message = "it says how requests are hashed, and they are not, so it has no effect";
        notes.push(Problem::new(field, message, "remove it"));
    }
}

fn hashes(algorithm: Option<&str>) -> bool {
    algorithm == Some("consistent-hashing")
}

fn of_override(object: &KongIngress) -> (Vec<Problem>, Vec<Problem>) {
    let Some(upstream) = &object.upstream else { return Default::default() };
    let mut problems = algorithm("upstream.algorithm", upstream.algorithm.as_deref());
    let mut notes = Vec::new();
    if let Some(host) = upstream.host_header.as_deref().filter(|host| service_settings::host(host).is_none()) {
        let message = format!("{host:?} is no host name, so it has no effect");
        problems.push(Problem::new("upstream.host_header", message, "write a host name, such as backend.example"));
    }
    let is_set = |value: &Option<String>| value.as_deref().is_some_and(|value| value != "none");
    for (is_set, field) in
        [(is_set(&upstream.hash_on), "upstream.hash_on"), (is_set(&upstream.hash_fallback), "upstream.hash_fallback")]
    {
        problems.extend(is_set.then(|| not_in_effect(field)));
    }
    let hashes_first = hashes(upstream.algorithm.as_deref()) || is_set(&upstream.hash_on);
    let hashes_then = is_set(&upstream.hash_fallback);
    for (is_written, field, is_asked_for) in [
        (upstream.slots.is_some(), "slots", hashes_first),
        (upstream.hash_on_header.is_some(), "hash_on_header", hashes_first),
        (upstream.hash_on_cookie.is_some(), "hash_on_cookie", hashes_first),
        (upstream.hash_on_cookie_path.is_some(), "hash_on_cookie_path", hashes_first),
        (upstream.hash_on_query_arg.is_some(), "hash_on_query_arg", hashes_first),
        (upstream.hash_on_uri_capture.is_some(), "hash_on_uri_capture", hashes_first),
        (upstream.hash_fallback_header.is_some(), "hash_fallback_header", hashes_then),
        (upstream.hash_fallback_query_arg.is_some(), "hash_fallback_query_arg", hashes_then),
        (upstream.hash_fallback_uri_capture.is_some(), "hash_fallback_uri_capture", hashes_then),
    ] {
        if is_written {
            of_hashing(&format!("upstream.{field}"), is_asked_for, &mut problems, &mut notes);
        }
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
    (problems, notes)
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
