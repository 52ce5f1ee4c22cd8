//! The verdicts on KongUpstreamPolicies and KongIngresses.

use http::HeaderValue;

use super::fields::UpstreamFields;
use super::findings::Findings;
use super::references::referenced_policies;
use super::{build, service_annotations};
use crate::api::kong::annotations::{OVERRIDE, UPSTREAM_POLICY};
use crate::api::{Kind, ObjectId};
use crate::compile::kong::policy_conflicts::PolicyConflicts;
use crate::diagnostic::Diagnostic;
use crate::store::Store;
use crate::verdict::{AncestorReference, AncestorVerdict, Code, Condition, Verdict};

/// The verdict on a KongUpstreamPolicy or KongIngress.
pub(in crate::compile) fn verdict(store: &Store, id: &ObjectId, conflicts: &PolicyConflicts) -> Option<Verdict> {
    let generation = store.meta(id)?.generation;
    let referrers = referrers(store, id);
    let Findings { problems, notes } = findings(store, id)?;
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

/// Problems and notes of the fields of an object; `None` if it does not exist.
fn findings(store: &Store, id: &ObjectId) -> Option<Findings> {
    let mut findings = Findings::default();
    let fields = match id.kind {
        Kind::KongUpstreamPolicy => {
            Some(UpstreamFields::of_policy(&store.kong_upstream_policies.get(&id.key)?.spec, &mut findings))
        }
        Kind::KongIngress => {
            let upstream = store.kong_ingresses.get(&id.key)?.upstream.as_ref();
            upstream.map(|upstream| UpstreamFields::of_kong_ingress(upstream, &mut findings))
        }
        _ => return None,
    };
    if let Some(fields) = fields {
        if let Some(host) = fields.host_header.filter(|host| service_annotations::parse_host(host).is_none()) {
            let message = format!("{host:?} is not a host name, so it has no effect");
            findings.problem("upstream.host_header", message, "write a host name, such as backend.example");
        }
        // The Host of checks differs between the Services that refer to the object, but what is reported does not.
        build(&fields, &id.key, &HeaderValue::from_static("localhost"), &mut findings);
    }
    if id.kind == Kind::KongIngress {
        let remedy = "create a KongUpstreamPolicy and refer to it in konghq.com/upstream-policy of the Service";
        findings.note("kind", "KongIngress is deprecated", remedy);
    }
    Some(findings)
}

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
