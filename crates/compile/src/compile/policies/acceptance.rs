//! Whether a policy is accepted: its targets exist, and no other policy has precedence.

use super::precedence::first_policy;
use super::target::TargetedPolicy;
use crate::api::Object;
use crate::api::kind::CORE_GROUP;
use crate::diagnostic::Diagnostic;
use crate::store::Store;
use crate::verdict::{Code, Condition};

/// The condition Accepted. `invalid`: why the policy is not used, with the code of the first of these diagnostics.
pub(super) fn accepted<P: TargetedPolicy>(
    store: &Store,
    policy: &Object<P>,
    invalid: Option<(Code, Vec<Diagnostic>)>,
) -> Condition {
    let conflicts = conflicts(store, policy);
    let targets = target_problems(store, policy);
    if !conflicts.is_empty() {
        Condition::new(Code::ServicePolicyConflicted, conflicts)
    } else if let Some((code, invalid)) = invalid {
        Condition::new(code, invalid)
    } else if targets.len() == policy.target_references().count() {
        Condition::new(Code::ServicePolicyTargetNotFound, targets)
    } else {
        Condition::new(Code::ServicePolicyAccepted, targets)
    }
}

/// The targets for which another policy has precedence.
fn conflicts<P: TargetedPolicy>(store: &Store, policy: &Object<P>) -> Vec<Diagnostic> {
    let namespace = &policy.meta.key.namespace;
    let references = policy.target_references().enumerate();
    let conflicts = references.filter_map(|(index, reference)| {
        let target = reference.target::<P>(namespace)?;
        let first = first_policy::<P>(store, &target).map(|first| &first.meta.key);
        let first = first.filter(|first| **first != policy.meta.key)?;
        let noun = target.kind.section_noun();
        let section = target.section.map_or_else(String::new, |section| format!("{noun} {section} of "));
        let message = format!("{} {first} is older and applies to {section}{}", P::KIND, target.object_id());
        Some(Diagnostic::error(format!("spec.targetRefs[{index}]"), message, "remove the target from one of them"))
    });
    conflicts.collect()
}

/// The targets that do not exist, or that the policy cannot apply to.
fn target_problems<P: TargetedPolicy>(store: &Store, policy: &Object<P>) -> Vec<Diagnostic> {
    let mut problems = Vec::new();
    for (index, reference) in policy.target_references().enumerate() {
        let field = |subfield: &str| format!("spec.targetRefs[{index}].{subfield}");
        let Some(target) = reference.target::<P>(&policy.meta.key.namespace) else {
            let slash = if reference.group == CORE_GROUP { "" } else { "/" };
            let message =
                format!("the policy does not apply to objects of kind {}{slash}{}", reference.group, reference.kind);
            let kinds: Vec<&str> = P::TARGETS.iter().map(|target| target.kind().name()).collect();
            problems.push(Diagnostic::error(field("kind"), message, format!("refer to a {}", kinds.join(" or "))));
            continue;
        };
        let object = target.object_id();
        let Some(sections) = target.kind.sections(store, &target.key) else {
            problems.push(Diagnostic::not_found(field("name"), object.to_string(), "create it or correct the name"));
            continue;
        };
        if let Some(section) = target.section.filter(|section| !sections.contains(section)) {
            let noun = target.kind.section_noun();
            let message = format!("{object} has no {noun} with the name {section}");
            let remedy = format!("use the name of one of its {noun}s");
            problems.push(Diagnostic::error(field("sectionName"), message, remedy));
        }
    }
    problems
}
