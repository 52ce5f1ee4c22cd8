//! Policies of other gateways in files, which have no effect: they are reported on what they are about, if Portico
//! serves it.

use super::control::Control;
use crate::api::{Kind, ObjectId};
use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::manifests::{ForeignPolicy, ManifestUpdate};
use crate::report::ReportedDiagnostic;

/// A diagnostic for each target of each policy. One that restricts requests is an error, because the target is served
/// without it; with `ignore_guards` it is a warning.
pub(super) fn problems(control: &Control, update: &ManifestUpdate, ignore_guards: bool) -> Vec<ReportedDiagnostic> {
    let mut problems = Vec::new();
    for (policy, position) in &update.foreign_policies {
        for target in policy.targets.iter().filter(|target| is_served(control, target)) {
            problems.push(ReportedDiagnostic {
                diagnostic: diagnostic(policy, ignore_guards),
                position: Some(position.clone()),
                object: Some(target.to_string()),
                id: None,
                condition: None,
                meanwhile: None,
            });
        }
    }
    problems
}

fn diagnostic(policy: &ForeignPolicy, ignore_guards: bool) -> Diagnostic {
    let ForeignPolicy { group, name, restriction, .. } = policy;
    let (message, remedy) = match restriction {
        Some(field) => {
            let part = if field == "kind" { String::new() } else { format!(" ({field})") };
            let message = format!(
                "{name} of {group} restricts its requests in another gateway{part}, and has no effect here, so they \
                 are served without it"
            );
            (message, "restrict them by a plugin, such as jwt, ip-restriction or rate-limiting, and remove the policy")
        }
        None => (
            format!("{name} of {group} is a policy of another gateway and has no effect here"),
            "write its settings as a BackendPolicy, a plugin or an annotation, and remove the policy",
        ),
    };
    let severity = if restriction.is_some() && !ignore_guards { Severity::Error } else { Severity::Warning };
    Diagnostic::error("", message, remedy).with_reason(Reason::Named("ForeignPolicy")).with_severity(severity)
}

/// Whether Portico serves the object itself, or requests to it.
fn is_served(control: &Control, target: &ObjectId) -> bool {
    match target.kind {
        Kind::Gateway | Kind::Ingress | Kind::ListenerSet => control.verdicts().contains_key(target),
        Kind::Service => control.is_routed_to(target),
        _ => control.verdicts().get(target).is_some_and(|verdict| !verdict.parents.is_empty()),
    }
}
