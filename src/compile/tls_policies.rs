//! Verdicts on BackendTLSPolicies: an entry for each Gateway whose routes send requests to a target.

use std::collections::BTreeSet;

use super::backend::policy_validation::ReadValidation;
use super::ca_bundle::AuthorityProblem;
use super::service_policies;
use super::verdict::{Code, Condition, Verdict};
use super::{CompileContext, CompileRun, Compiler};
use crate::api::gateway::BackendTlsPolicy;
use crate::api::{Kind, Object, ObjectId, ObjectKey};
use crate::diagnostic::{Diagnostic, Reason};
use crate::store::{Changes, Store};

impl Compiler {
    /// Whether there may be policies. Nothing is recorded for them otherwise.
    pub(super) fn has_tls_policies(&self, store: &Store) -> bool {
        self.tls_policy_users.may_be_needed::<BackendTlsPolicy>(store) || !store.unparseable_policies.is_empty()
    }

    /// Updates the verdicts on touched policies, on those with the same targets, and on those whose targets are used by
    /// `replanned` routes and Ingresses, or were before.
    pub(super) fn update_tls_policy_verdicts(
        &mut self,
        cx: CompileContext<'_>,
        touched: &Changes,
        replanned: &BTreeSet<ObjectId>,
        run: &mut CompileRun,
    ) {
        for key in self.tls_policy_users.outdated::<BackendTlsPolicy>(cx.store, touched, replanned) {
            let verdict = self.tls_policy_verdict(cx, &key);
            self.set_verdict(ObjectId::new(Kind::BackendTlsPolicy, key), verdict, run);
        }
    }

    /// `None` if the policy does not exist.
    fn tls_policy_verdict(&mut self, cx: CompileContext<'_>, key: &ObjectKey) -> Option<Verdict> {
        let Some(policy) = cx.store.backend_tls_policies.get(key) else {
            let unparseable = cx.store.unparseable_policies.get(key)?;
            let message = "the policy cannot be parsed, so no requests are sent to its targets";
            let diagnostics = vec![Diagnostic::warning("spec", message, "correct the policy")];
            return Some(Verdict { generation: unparseable.meta.generation, diagnostics, ..Verdict::default() });
        };
        let mut users = std::mem::take(&mut self.tls_policy_users);
        let verdict = self.policy_verdict(cx, policy, conditions(cx, policy), notes(policy), &mut users);
        self.tls_policy_users = users;
        Some(verdict)
    }
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
    let accepted = service_policies::accepted(cx.store, policy, problems);
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
