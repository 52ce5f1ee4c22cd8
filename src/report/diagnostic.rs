//! A diagnostic: an object, a position, what is wrong, and what would be right.

use std::collections::HashSet;

use crate::api::ObjectId;
use crate::compile::verdict::{Code, Condition, FieldDiagnostic, Verdict};
use crate::manifests::{FilePosition, ManifestDiagnostic, Severity};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// `None` for objects of a cluster, and before `add_positions` is called.
    pub position: Option<FilePosition>,
    /// The object, if known: `HTTPRoute default/web`.
    pub object: Option<String>,
    /// The object of a verdict, used to find its position.
    pub id: Option<ObjectId>,
    /// The path in the object, or empty.
    pub field: String,
    /// The condition that reports it; `None` if the text was not read as an object.
    pub condition: Option<Code>,
    pub reason: &'static str,
    /// A clause without a full stop.
    pub message: String,
    /// A clause without a full stop, or empty.
    pub remedy: String,
    /// What stays in use meanwhile: a sentence.
    pub meanwhile: Option<String>,
}

/// Converts a manifest diagnostic.
pub fn from_manifest(diagnostic: &ManifestDiagnostic) -> Diagnostic {
    Diagnostic {
        severity: diagnostic.severity,
        position: Some(diagnostic.position.clone()),
        object: diagnostic.object.clone(),
        id: None,
        field: diagnostic.field.clone(),
        condition: None,
        reason: diagnostic.reason,
        message: diagnostic.message.clone(),
        remedy: diagnostic.remedy.clone(),
        meanwhile: diagnostic.meanwhile.clone(),
    }
}

/// The diagnostics of a verdict, without duplicates, although several conditions, listeners and parents may repeat a
/// problem. `add_positions` adds the positions.
pub fn from_verdict(id: &ObjectId, verdict: &Verdict) -> Vec<Diagnostic> {
    let mut seen = HashSet::new();
    let mut diagnostics = Vec::new();
    for (field, condition) in verdict.all_conditions() {
        diagnostics.extend(from_condition(id, field, condition));
    }
    // A configured plugin is not applied to these requests, so this is an error.
    let broken = verdict.broken_plugins.iter();
    diagnostics.extend(broken.map(|problem| from_problem(id, Severity::Error, None, "PluginNotInEffect", problem)));
    let notes = verdict.notes.iter().map(|note| from_problem(id, Severity::Warning, None, "Remark", note));
    diagnostics.extend(notes);
    diagnostics.retain(|diagnostic| seen.insert((diagnostic.field.clone(), diagnostic.message.clone())));
    if diagnostics.iter().any(|diagnostic| !is_cross_reference(diagnostic)) {
        diagnostics.retain(|diagnostic| !is_cross_reference(diagnostic));
    }
    diagnostics
}

/// Whether it only refers to another condition of the same object. A status needs such references, since each condition
/// is read separately; here the other condition is listed as well.
fn is_cross_reference(diagnostic: &Diagnostic) -> bool {
    CROSS_REFERENCES.contains(&diagnostic.remedy.as_str())
}

/// Explains references to rejected objects: "does not exist" would be misleading for an object that is in the files.
pub fn explain_missing(diagnostics: &mut [Diagnostic]) {
    let rejected: HashSet<String> = diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.id.is_none() && diagnostic.severity == Severity::Error)
        .filter_map(|diagnostic| diagnostic.object.clone())
        .collect();
    for diagnostic in diagnostics {
        let Some(missing) = diagnostic.message.strip_suffix(" does not exist") else { continue };
        if rejected.contains(missing) {
            diagnostic.message = format!("{missing} was rejected");
            diagnostic.remedy = "fix the error reported for it".to_owned();
        }
    }
}

/// Adds the positions of verdict diagnostics, all at once so that each file is read once.
pub fn add_positions(
    diagnostics: &mut [Diagnostic],
    places: impl FnOnce(&[(&ObjectId, &str)]) -> Vec<Option<FilePosition>>,
) {
    let needs_position = |diagnostic: &&Diagnostic| diagnostic.position.is_none() && diagnostic.id.is_some();
    let fields: Vec<_> = diagnostics
        .iter()
        .filter(needs_position)
        .filter_map(|diagnostic| Some((diagnostic.id.as_ref()?, diagnostic.field.as_str())))
        .collect();
    let mut found = places(&fields).into_iter();
    for diagnostic in diagnostics.iter_mut().filter(|diagnostic| needs_position(&&**diagnostic)) {
        diagnostic.position = found.next().flatten();
    }
}

/// Sorts by position; diagnostics without a position come last, by object.
pub fn sort(diagnostics: &mut [Diagnostic]) {
    diagnostics.sort_by(|left, right| {
        let key = |diagnostic: &Diagnostic| (diagnostic.position.is_none(), diagnostic.severity);
        let (left_key, right_key) = (key(left), key(right));
        let by_place = left_key.0.cmp(&right_key.0).then_with(|| left.position.cmp(&right.position));
        by_place
            .then_with(|| (&left.object, &left.field).cmp(&(&right.object, &right.field)))
            .then(left_key.cmp(&right_key))
    });
}

fn from_condition(id: &ObjectId, field: String, condition: &Condition) -> Vec<Diagnostic> {
    let code = condition.code;
    // A pending condition is expected to resolve without a change by the user.
    let severity = if code.is_bad() && code.reason() != "Pending" { Severity::Error } else { Severity::Warning };
    if condition.diagnostics.is_empty() && code.is_bad() {
        let sentence = FieldDiagnostic::new(field, code.sentence().trim_end_matches('.'), "");
        return vec![from_problem(id, severity, Some(code), code.reason(), &sentence)];
    }
    let problems = condition.diagnostics.iter();
    problems.map(|problem| from_problem(id, severity, Some(code), code.reason(), problem)).collect()
}

fn from_problem(
    id: &ObjectId,
    severity: Severity,
    condition: Option<Code>,
    reason: &'static str,
    problem: &FieldDiagnostic,
) -> Diagnostic {
    Diagnostic {
        severity,
        position: None,
        object: Some(id.to_string()),
        id: Some(id.clone()),
        field: problem.field.clone(),
        condition,
        reason,
        message: problem.message.clone(),
        remedy: problem.remedy.clone(),
        meanwhile: None,
    }
}

const CROSS_REFERENCES: &[&str] =
    &["see the conditions of the listener", "see the conditions of the Gateway", "see its condition Accepted"];

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::api::{Kind, ObjectKey};

    #[test]
    fn missing_plugin_is_reported_once_as_an_error() {
        let id = ObjectId::new(Kind::HttpRoute, ObjectKey::new("default", "web"));
        let broken =
            FieldDiagnostic::new("metadata.annotations[konghq.com/plugins]", "plugin p cannot be used", "see it");
        let notes = vec![broken.clone()];
        let reported = from_verdict(&id, &Verdict { notes, broken_plugins: vec![broken], ..Verdict::default() });
        let reported: Vec<_> = reported.iter().map(|found| (found.severity, found.reason)).collect();
        assert_eq!(reported, [(Severity::Error, "PluginNotInEffect")]);
    }

    #[test]
    fn rejected_objects_are_not_reported_as_missing() {
        let id = ObjectId::new(Kind::Gateway, ObjectKey::new("default", "web"));
        let note = |message: &str| FieldDiagnostic::new("spec", message, "create it");
        let notes = vec![note("Secret default/a does not exist"), note("Secret default/b does not exist")];
        let mut diagnostics = from_verdict(&id, &Verdict { notes, ..Verdict::default() });
        let rejected = Diagnostic {
            severity: Severity::Error,
            object: Some("Secret default/a".to_owned()),
            id: None,
            ..diagnostics[0].clone()
        };
        diagnostics.push(rejected);
        explain_missing(&mut diagnostics);
        let messages: Vec<_> = diagnostics.iter().map(|diagnostic| diagnostic.message.as_str()).collect();
        assert_eq!(messages[..2], ["Secret default/a was rejected", "Secret default/b does not exist"]);
    }

    #[test]
    fn problems_are_reported_once_with_position() {
        let id = ObjectId::new(Kind::GatewayClass, ObjectKey::cluster("portico"));
        let problem = FieldDiagnostic::new("spec.parametersRef", "no ConfigMap x/y", "create it");
        let rejected =
            Condition { code: Code::ClassInvalidParameters, diagnostics: vec![problem.clone(), problem.clone()] };
        let note = Condition {
            code: Code::ClassAccepted,
            diagnostics: vec![FieldDiagnostic::new("spec.description", "long", "cut")],
        };
        let fine = Condition { code: Code::ClassAccepted, diagnostics: vec![] };
        let silent = Condition { code: Code::ClassInvalidParameters, diagnostics: vec![] };
        for (conditions, expected) in [
            (vec![fine.clone()], vec![]),
            (vec![rejected.clone(), fine.clone()], vec![(Severity::Error, "spec.parametersRef", "no ConfigMap x/y")]),
            (vec![note], vec![(Severity::Warning, "spec.description", "long")]),
            (vec![silent], vec![(Severity::Error, "", "The parameters cannot be used")]),
        ] {
            let verdict = Verdict { conditions, ..Verdict::default() };
            let found = from_verdict(&id, &verdict);
            let found: Vec<_> =
                found.iter().map(|found| (found.severity, found.field.as_str(), found.message.as_str())).collect();
            assert_eq!(found, expected);
        }
        let pointer =
            FieldDiagnostic::new("spec.listeners[0]", "listener a is not served", "see the conditions of the listener");
        let pointing = Condition { code: Code::ClassInvalidParameters, diagnostics: vec![pointer] };
        let alone = from_verdict(&id, &Verdict { conditions: vec![pointing.clone()], ..Verdict::default() });
        assert_eq!(alone.len(), 1, "a reference is kept if it is the only diagnostic");
        let both = from_verdict(&id, &Verdict { conditions: vec![pointing, rejected.clone()], ..Verdict::default() });
        assert_eq!((both.len(), both[0].field.as_str()), (1, "spec.parametersRef"));

        let verdict = Verdict {
            conditions: vec![rejected],
            notes: vec![problem, FieldDiagnostic::new("a", "b", "c")],
            ..Verdict::default()
        };
        let mut diagnostics = from_verdict(&id, &verdict);
        add_positions(&mut diagnostics, |fields| {
            assert_eq!(fields, [(&id, "spec.parametersRef"), (&id, "a")]);
            vec![Some(FilePosition::without_excerpt(Arc::from(Path::new("a.yaml")), 3, 5)), None]
        });
        let places: Vec<_> = diagnostics.iter().map(|found| found.position.as_ref().map(|place| place.line)).collect();
        assert_eq!(places, [Some(3), None]);
        assert_eq!(diagnostics[1].reason, "Remark");
        diagnostics.reverse();
        sort(&mut diagnostics);
        assert_eq!(diagnostics[1].reason, "Remark", "diagnostics without a position come last");
    }
}
