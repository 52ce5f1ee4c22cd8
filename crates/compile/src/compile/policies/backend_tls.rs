//! BackendTLSPolicies: their targets, and the verdicts on them.

use super::acceptance;
use super::target::{TargetKind, TargetReference, TargetedPolicy};
use super::users::Findings;
use crate::api::gateway::BackendTlsPolicy;
use crate::api::{Kind, Object, ObjectId, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::affected::BackendChange;
use crate::compile::certificates::ca_bundle::AuthorityProblem;
use crate::compile::certificates::endpoint_trust::ReadValidation;
use crate::diagnostic::{Diagnostic, Reason};
use crate::store::{ObjectTable, Store};
use crate::verdict::{Code, Condition, Verdict};

impl TargetedPolicy for BackendTlsPolicy {
    const TARGETS: &'static [TargetKind] = &[TargetKind::Service];
    const USERS: &'static [Kind] =
        &[Kind::HttpRoute, Kind::GrpcRoute, Kind::TlsRoute, Kind::TcpRoute, Kind::Ingress, Kind::TcpIngress];
    const CHANGE: BackendChange = BackendChange::Policy;

    fn table(store: &Store) -> &ObjectTable<Self> {
        &store.backend_tls_policies
    }

    fn target_references(&self) -> impl Iterator<Item = TargetReference<'_>> {
        self.spec.target_refs.iter().map(|target| TargetReference {
            group: &target.group,
            kind: &target.kind,
            name: &target.name,
            section: target.section_name.as_deref(),
        })
    }
}

/// What the verdict on a policy says; `None` if the policy does not exist.
pub(in crate::compile) fn findings(cx: CompileContext<'_>, key: &ObjectKey) -> Option<Findings> {
    let Some(policy) = cx.store.backend_tls_policies.get(key) else {
        let unparseable = cx.store.unparseable.get(&ObjectId::new(Kind::BackendTlsPolicy, key.clone()))?;
        let message = "the policy cannot be parsed, so no requests are sent to its targets";
        let diagnostics = vec![Diagnostic::warning("spec", message, "correct the policy")];
        let generation = unparseable.meta.generation;
        return Some(Findings::Verdict(Verdict { generation, diagnostics, ..Verdict::default() }));
    };
    let (conditions, diagnostics) = (conditions(cx, policy), notes(policy));
    Some(Findings::Conditions { generation: policy.meta.generation, conditions, diagnostics })
}

/// Accepted and ResolvedRefs. They are the same for all Gateways.
fn conditions(cx: CompileContext<'_>, policy: &Object<BackendTlsPolicy>) -> Vec<Condition> {
    let ReadValidation { trust, invalid, unresolved } = ReadValidation::of_policy(cx, policy);
    let problems = if !invalid.is_empty() {
        Some((Code::ServicePolicyInvalid, invalid))
    } else if trust.is_none() {
        let message = "no reference leads to a certificate, so no requests are sent to the targets";
        let remedy = "correct the references; the condition ResolvedRefs has the reasons";
        let problem = Diagnostic::error("spec.validation.caCertificateRefs", message, remedy);
        Some((Code::TlsPolicyNoValidCaCertificate, vec![problem.with_reason(Reason::OtherCondition)]))
    } else {
        None
    };
    let accepted = acceptance::accepted(cx.store, policy, problems);
    let mut resolved_refs = Condition::without_diagnostics(Code::TlsPolicyResolvedRefs);
    for problem in unresolved {
        match problem {
            AuthorityProblem::Kind(problem) => resolved_refs.add(Code::TlsPolicyInvalidKind, problem),
            AuthorityProblem::Object(problem) => resolved_refs.add(Code::TlsPolicyInvalidCaCertificateRef, problem),
        }
    }
    vec![accepted, resolved_refs]
}

/// Warnings about fields without effect.
fn notes(policy: &Object<BackendTlsPolicy>) -> Vec<Diagnostic> {
    let names = policy.spec.options.keys();
    let notes = names.map(|name| {
        let message = "Portico has no option with this name, so it has no effect";
        Diagnostic::warning(format!("spec.options[{name}]"), message, "remove it if only Portico uses the policy")
    });
    notes.collect()
}
