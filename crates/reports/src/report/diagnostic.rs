//! Diagnostics from manifests and verdicts in one form, with object and position, for all renderers.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::api::ObjectId;
use crate::diagnostic::{Diagnostic, NO_ENDPOINT, REJECTED, Reason, Topic};
use crate::manifests::{FilePosition, LEFT_OUT, ManifestDiagnostic};
use crate::verdict::{Code, Condition, Verdict};

/// A diagnostic with where it belongs: the position in a file, the object, and the condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedDiagnostic {
    pub diagnostic: Diagnostic,
    /// `None` for objects of a cluster, and before `add_positions` is called.
    pub position: Option<FilePosition>,
    /// The object, if known: `HTTPRoute default/web`.
    pub object: Option<String>,
    /// The object of a verdict, used to find its position; `None` for a diagnostic about a manifest.
    pub id: Option<ObjectId>,
    /// The condition that reports it; `None` for a diagnostic about a manifest, or a remark without a condition.
    pub condition: Option<Code>,
    /// What stays in use meanwhile: a sentence.
    pub meanwhile: Option<String>,
}

impl ReportedDiagnostic {
    /// The reason of the condition, or else of the diagnostic itself.
    pub fn reason(&self) -> &'static str {
        let own_reason = || self.diagnostic.reason.name();
        match (self.condition, &self.id, self.diagnostic.topic) {
            (Some(code), ..) => code.reason(),
            (None, None, _) => own_reason().unwrap_or("Invalid"),
            (None, Some(_), Topic::Plugin) => "PluginNotInEffect",
            (None, Some(_), _) => own_reason().unwrap_or("Remark"),
        }
    }
}

impl ReportedDiagnostic {
    /// Whether it is about a part of a file that a translation left out.
    pub fn is_left_out(&self) -> bool {
        self.diagnostic.reason == Reason::Named(LEFT_OUT)
    }
}

/// Converts a manifest diagnostic.
pub fn from_manifest(diagnostic: &ManifestDiagnostic) -> ReportedDiagnostic {
    ReportedDiagnostic {
        diagnostic: diagnostic.diagnostic.clone(),
        position: Some(diagnostic.position.clone()),
        object: diagnostic.object.clone(),
        id: None,
        condition: None,
        meanwhile: diagnostic.meanwhile.clone(),
    }
}

/// Whether this is only about an object that a controller of a cluster will write, or about endpoints that it will add
/// to a Service. `written_later`: such objects, each as text.
pub fn is_about_later_object(reported: &ReportedDiagnostic, written_later: &HashSet<String>) -> bool {
    match &reported.diagnostic.reason {
        Reason::NotFound(missing) => written_later.contains(missing.as_str()),
        Reason::Named(NO_ENDPOINT) => reported.id.as_ref().is_some_and(|id| written_later.contains(&id.to_string())),
        _ => false,
    }
}

/// The warning about files without any object, which a program that writes them may have left empty.
pub fn no_objects(paths: &[PathBuf]) -> ReportedDiagnostic {
    let message = "nothing was checked: there is no object";
    let empty =
        Diagnostic::of_file("NoObjects", message, "if another program writes the files, check whether it failed");
    let file = paths.first().filter(|path| path.as_os_str() != "-");
    ReportedDiagnostic {
        diagnostic: empty.into_warning(),
        position: file.map(|file| FilePosition::whole_file(Arc::from(&**file))),
        object: None,
        id: None,
        condition: None,
        meanwhile: None,
    }
}

/// The diagnostics of a verdict, without duplicates, although several conditions, listeners and parents may repeat a
/// problem. `add_positions` adds the positions.
pub fn from_verdict(id: &ObjectId, verdict: &Verdict) -> Vec<ReportedDiagnostic> {
    let mut seen = HashSet::new();
    let mut diagnostics = Vec::new();
    for (path, condition) in verdict.all_conditions() {
        diagnostics.extend(from_condition(id, path, condition));
    }
    diagnostics.extend(verdict.diagnostics.iter().map(|diagnostic| reported(id, None, diagnostic.clone())));
    diagnostics
        .retain(|reported| seen.insert((reported.diagnostic.field.clone(), reported.diagnostic.message.clone())));
    // Its source reports the errors of a rejected object, and others follow from these.
    if is_rejected(verdict) {
        return Vec::new();
    }
    // "See the conditions of …" is redundant if the diagnostics of that condition are listed as well.
    let is_cross_reference = |reported: &ReportedDiagnostic| reported.diagnostic.reason == Reason::OtherCondition;
    if !diagnostics.iter().all(is_cross_reference) {
        diagnostics.retain(|reported| !is_cross_reference(reported));
    }
    diagnostics
}

/// Whether the object of the verdict was rejected, so that its source reports its errors.
pub fn is_rejected(verdict: &Verdict) -> bool {
    let of_conditions = verdict.all_conditions().flat_map(|(_, condition)| &condition.diagnostics);
    of_conditions.chain(&verdict.diagnostics).any(|diagnostic| diagnostic.reason == REJECTED)
}

/// Adds the positions of verdict diagnostics, all at once so that each file is read once.
pub fn add_positions(
    diagnostics: &mut [ReportedDiagnostic],
    positions_of: impl FnOnce(&[(&ObjectId, &str)]) -> Vec<Option<FilePosition>>,
) {
    let needs_position = |diagnostic: &&ReportedDiagnostic| diagnostic.position.is_none() && diagnostic.id.is_some();
    let fields: Vec<_> = diagnostics
        .iter()
        .filter(needs_position)
        .filter_map(|diagnostic| Some((diagnostic.id.as_ref()?, diagnostic.diagnostic.field.as_str())))
        .collect();
    let mut positions = positions_of(&fields).into_iter();
    for diagnostic in diagnostics.iter_mut().filter(|diagnostic| needs_position(&&**diagnostic)) {
        diagnostic.position = positions.next().flatten();
    }
}

/// Sorts by position, then by object, field and severity; diagnostics without a position come last.
pub fn sort(diagnostics: &mut [ReportedDiagnostic]) {
    diagnostics.sort_by(|left, right| {
        let by_presence = left.position.is_none().cmp(&right.position.is_none());
        let by_position = by_presence.then_with(|| left.position.cmp(&right.position));
        by_position
            .then_with(|| (&left.object, &left.diagnostic.field).cmp(&(&right.object, &right.diagnostic.field)))
            .then_with(|| left.diagnostic.severity.cmp(&right.diagnostic.severity))
    });
}

fn from_condition(id: &ObjectId, path: String, condition: &Condition) -> Vec<ReportedDiagnostic> {
    let code = condition.code;
    if condition.diagnostics.is_empty() && code.is_error() {
        let sentence = code.sentence().trim_end_matches('.');
        let diagnostic = Diagnostic::error(path, sentence, "").with_severity(code.severity());
        return vec![reported(id, Some(code), diagnostic)];
    }
    condition.diagnostics.iter().map(|diagnostic| reported(id, Some(code), diagnostic.clone())).collect()
}

fn reported(id: &ObjectId, condition: Option<Code>, diagnostic: Diagnostic) -> ReportedDiagnostic {
    ReportedDiagnostic {
        diagnostic,
        position: None,
        object: Some(id.to_string()),
        id: Some(id.clone()),
        condition,
        meanwhile: None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::api::{Kind, ObjectKey};
    use crate::diagnostic::Severity;

    #[test]
    fn missing_plugin_is_reported_once_as_an_error() {
        let id = ObjectId::new(Kind::HttpRoute, ObjectKey::new("default", "web"));
        let broken = Diagnostic::error("metadata.annotations[konghq.com/plugins]", "plugin p cannot be used", "see it");
        let diagnostics = vec![broken.with_topic(Topic::Plugin)];
        let reported = from_verdict(&id, &Verdict { diagnostics, ..Verdict::default() });
        let reported: Vec<_> = reported.iter().map(|found| (found.diagnostic.severity, found.reason())).collect();
        assert_eq!(reported, [(Severity::Error, "PluginNotInEffect")]);
    }

    #[test]
    fn errors_that_follow_from_a_rejection_are_not_reported() {
        let id = ObjectId::new(Kind::BackendPolicy, ObjectKey::new("default", "web"));
        let follows = Diagnostic::error("spec.targetRefs", "no target exists", "create one");
        let rejected = Diagnostic::of_object("it was rejected", "correct it").with_reason(REJECTED);
        let verdict = |diagnostics| Verdict { diagnostics, ..Verdict::default() };
        assert_eq!(from_verdict(&id, &verdict(vec![follows.clone()])).len(), 1);
        assert!(from_verdict(&id, &verdict(vec![follows.clone(), rejected.clone()])).is_empty());
        let conditions = vec![Condition::new(Code::ObjectInvalid, vec![rejected])];
        assert!(from_verdict(&id, &Verdict { conditions, ..verdict(vec![follows]) }).is_empty());
    }

    #[test]
    fn problems_are_reported_once_with_position() {
        let id = ObjectId::new(Kind::GatewayClass, ObjectKey::cluster("portico"));
        let problem = Diagnostic::error("spec.parametersRef", "no ConfigMap x/y", "create it");
        let rejected = Condition::new(Code::ClassInvalidParameters, vec![problem.clone(), problem.clone()]);
        let note = Condition::new(Code::ClassAccepted, vec![Diagnostic::error("spec.description", "long", "cut")]);
        let fine = Condition::without_diagnostics(Code::ClassAccepted);
        let without_diagnostics = Condition::without_diagnostics(Code::ClassInvalidParameters);
        for (conditions, expected) in [
            (vec![fine.clone()], vec![]),
            (vec![rejected.clone(), fine.clone()], vec![(Severity::Error, "spec.parametersRef", "no ConfigMap x/y")]),
            (vec![note], vec![(Severity::Warning, "spec.description", "long")]),
            (vec![without_diagnostics], vec![(Severity::Error, "", "The parameters cannot be used")]),
        ] {
            let verdict = Verdict { conditions, ..Verdict::default() };
            let found = from_verdict(&id, &verdict);
            let found = found.iter().map(|found| &found.diagnostic);
            let found: Vec<_> =
                found.map(|found| (found.severity, found.field.as_str(), found.message.as_str())).collect();
            assert_eq!(found, expected);
        }
        let reference =
            Diagnostic::error("spec.listeners[0]", "listener a is not served", "see the conditions of the listener")
                .with_reason(Reason::OtherCondition);
        let referring = Condition::new(Code::ClassInvalidParameters, vec![reference]);
        let alone = from_verdict(&id, &Verdict { conditions: vec![referring.clone()], ..Verdict::default() });
        assert_eq!(alone.len(), 1, "a reference is kept if it is the only diagnostic");
        let both = from_verdict(&id, &Verdict { conditions: vec![referring, rejected.clone()], ..Verdict::default() });
        assert_eq!((both.len(), both[0].diagnostic.field.as_str()), (1, "spec.parametersRef"));

        let verdict = Verdict {
            conditions: vec![rejected],
            diagnostics: vec![problem, Diagnostic::warning("a", "b", "c")],
            ..Verdict::default()
        };
        let mut diagnostics = from_verdict(&id, &verdict);
        add_positions(&mut diagnostics, |fields| {
            assert_eq!(fields, [(&id, "spec.parametersRef"), (&id, "a")]);
            vec![Some(FilePosition::without_excerpt(Arc::from(Path::new("a.yaml")), 3, 5)), None]
        });
        let lines: Vec<_> =
            diagnostics.iter().map(|reported| reported.position.as_ref().map(|position| position.line)).collect();
        assert_eq!(lines, [Some(3), None]);
        assert_eq!(diagnostics[1].reason(), "Remark");
        diagnostics.reverse();
        sort(&mut diagnostics);
        assert_eq!(diagnostics[1].reason(), "Remark", "diagnostics without a position come last");
    }
}
