//! The verdict on each Ingress of ingress-nginx, from what the compiler reports about it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::findings::IngressFindings;
use super::subject::{IngressSet, Subject};
use super::{annotations, differences};
use crate::api::kong::annotations::INGRESS_CLASS;
use crate::api::networking::Ingress;
use crate::api::{Kind, Object, ObjectId};
use crate::diagnostic::Diagnostic;
use crate::report::ReportedDiagnostic;
use crate::report::migration::{FoundProblem, MigratedIngress, MigrationVerdict};

/// The verdict on each Ingress. `config`: the ConfigMap of ingress-nginx.
pub(super) fn evaluate(
    ingresses: &[Arc<Object<Ingress>>],
    reported: &[ReportedDiagnostic],
    config: &BTreeMap<String, Arc<str>>,
) -> Vec<MigratedIngress> {
    let mut by_object: BTreeMap<&ObjectId, Vec<&Diagnostic>> = BTreeMap::new();
    for (id, reported) in reported.iter().filter_map(|reported| Some((reported.id.as_ref()?, reported))) {
        by_object.entry(id).or_default().push(&reported.diagnostic);
    }
    let all = IngressSet::new(ingresses);
    let verdicts = ingresses.iter().map(|ingress| {
        let id = ObjectId::new(Kind::Ingress, ingress.meta.key.clone());
        let diagnostics = by_object.get(&id).into_iter().flatten().copied();
        let subject = Subject { ingress, all: &all, config };
        of_ingress(subject, &IngressFindings::new(diagnostics))
    });
    verdicts.collect()
}

fn of_ingress(subject: Subject<'_>, found: &IngressFindings<'_>) -> MigratedIngress {
    let (annotations, snippets) = annotations::evaluate(subject, found);
    let meta = &subject.ingress.meta;
    let annotated = meta.annotations.get(INGRESS_CLASS).map(|class| class.to_string());
    let mut not_in_input = found.missing();
    not_in_input.extend(missing_main(subject));
    let ingress = MigratedIngress {
        object: meta.key.to_string(),
        class: subject.ingress.spec.ingress_class_name.clone().or(annotated),
        hosts: subject.hosts(),
        annotations,
        snippets,
        differences: differences::of(subject),
        problems: found.diagnostics.iter().filter_map(|problem| of_other_field(subject, problem)).collect(),
        not_in_input,
        ..MigratedIngress::default()
    };
    ingress.with_verdict()
}

/// An error about another field than an annotation. `None` if ingress-nginx does not serve the requests either, or if
/// it is only a warning: those are about conflicts and certificates, which both resolve in the same way.
fn of_other_field(subject: Subject<'_>, problem: &Diagnostic) -> Option<FoundProblem> {
    let field = &problem.field[..];
    if !problem.is_error() || field.starts_with("metadata.annotations[") {
        return None;
    }
    let (verdict, guard) = match field {
        // A canary without a main Ingress gets no requests. The differences list one in another namespace.
        _ if subject.is_canary() && field.ends_with(']') => return None,
        // Both respond with 503 if a Service has no such port.
        _ if field.contains(".backend.service.port") || field.ends_with("Backend.service.port") => return None,
        _ if field.ends_with(".host") || field.ends_with(".pathType") => (MigrationVerdict::Invalid, false),
        // Another Ingress of the host, an object of the Service, or the ConfigMap closes it.
        "" | "spec.rules" => (MigrationVerdict::LeftOut, true),
        _ if field.ends_with(".service.name") => (MigrationVerdict::LeftOut, true),
        _ => (MigrationVerdict::LeftOut, false),
    };
    let Diagnostic { message, remedy, .. } = problem;
    let (field, effect, remedy) = (field.to_owned(), message.clone(), remedy.clone());
    Some(FoundProblem { field, verdict, guard, effect, remedy })
}

/// The main Ingress of a canary, if no Ingress has its path.
fn missing_main(subject: Subject<'_>) -> Option<String> {
    let is_missing = subject.is_canary() && subject.paths().any(|path| subject.main_of(path).is_none());
    is_missing.then(|| format!("the main Ingress of canary {}", subject.ingress.meta.key))
}

/// An Ingress that cannot be read: both reject it.
pub(super) fn of_rejected(reported: &[ReportedDiagnostic]) -> Vec<MigratedIngress> {
    let start = format!("{} ", Kind::Ingress);
    let of_ingresses = reported.iter().filter(|found| found.id.is_none() && found.diagnostic.is_error());
    let of_ingresses = of_ingresses.filter(|found| found.diagnostic.reason.name() != Some("ForeignPolicy"));
    let mut problems: BTreeMap<&str, Vec<FoundProblem>> = BTreeMap::new();
    for found in of_ingresses {
        let Some(object) = found.object.as_deref().and_then(|object| object.strip_prefix(&start)) else { continue };
        let Diagnostic { field, message, remedy, .. } = &found.diagnostic;
        problems.entry(object).or_default().push(FoundProblem {
            field: field.clone(),
            verdict: MigrationVerdict::Invalid,
            guard: false,
            effect: message.clone(),
            remedy: remedy.clone(),
        });
    }
    let rejected = problems.into_iter().map(|(object, problems)| {
        let ingress = MigratedIngress { object: object.to_owned(), problems, ..MigratedIngress::default() };
        ingress.with_verdict()
    });
    rejected.collect()
}

/// The namespaces and names of those that both lists have.
pub(super) fn without(ingresses: &mut Vec<MigratedIngress>, others: &[MigratedIngress]) {
    let names: BTreeSet<&str> = others.iter().map(|other| other.object.as_str()).collect();
    ingresses.retain(|ingress| !names.contains(ingress.object.as_str()));
}
