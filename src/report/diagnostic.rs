//! One thing to tell somebody: what is wrong with which object, where, and what would be right.

use std::collections::HashSet;

use crate::api::ObjectId;
use crate::compile::verdict::{Code, Condition, Problem, Verdict};
use crate::manifests::{Place, Refusal, Severity};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    pub severity: Severity,
    /// None for objects of a cluster, and until `locate` was asked.
    pub place: Option<Place>,
    /// `HTTPRoute default/web`, as far as it is known.
    pub object: Option<String>,
    /// The object of a verdict, by which its place is found.
    pub id: Option<ObjectId>,
    /// Path in the object, or empty.
    pub field: String,
    /// The condition that says so; `None` for what never became an object.
    pub condition: Option<Code>,
    pub reason: &'static str,
    /// A clause without a full stop.
    pub message: String,
    /// A clause without a full stop, or empty.
    pub remedy: String,
    /// What keeps being served meanwhile: a sentence.
    pub meanwhile: Option<String>,
}

/// A refusal is a diagnostic already.
pub fn of_refusal(refusal: &Refusal) -> Diagnostic {
    Diagnostic {
        severity: refusal.severity,
        place: Some(refusal.place.clone()),
        object: refusal.object.clone(),
        id: None,
        field: refusal.field.clone(),
        condition: None,
        reason: refusal.reason,
        message: refusal.message.clone(),
        remedy: refusal.remedy.clone(),
        meanwhile: refusal.meanwhile.clone(),
    }
}

/// What is wrong by a verdict, each problem once, although several conditions, listeners and parents may repeat it.
/// `locate` gives the places.
pub fn of_verdict(id: &ObjectId, verdict: &Verdict) -> Vec<Diagnostic> {
    let mut told = HashSet::new();
    let mut diagnostics = Vec::new();
    for (field, condition) in verdict.every_condition() {
        diagnostics.extend(of_condition(id, field, condition));
    }
    // What somebody wrote down for these requests is not done for them.
    let broken = verdict.broken_plugins.iter();
    diagnostics.extend(broken.map(|problem| of_problem(id, Severity::Error, None, "PluginNotInEffect", problem)));
    let notes = verdict.notes.iter().map(|note| of_problem(id, Severity::Warning, None, "Remark", note));
    diagnostics.extend(notes);
    diagnostics.retain(|diagnostic| told.insert((diagnostic.field.clone(), diagnostic.message.clone())));
    if diagnostics.iter().any(|diagnostic| !only_points(diagnostic)) {
        diagnostics.retain(|diagnostic| !only_points(diagnostic));
    }
    diagnostics
}

/// Whether it sends the reader to another condition of the same object. In a status each condition stands for itself;
/// here what it points to is told as well.
fn only_points(diagnostic: &Diagnostic) -> bool {
    POINTERS.contains(&diagnostic.remedy.as_str())
}

/// What a refused object is missed by: "it does not exist" would send the reader to look for what is there.
pub fn explain_missing(diagnostics: &mut [Diagnostic]) {
    let refused: HashSet<String> = diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.id.is_none() && diagnostic.severity == Severity::Error)
        .filter_map(|diagnostic| diagnostic.object.clone())
        .collect();
    for diagnostic in diagnostics {
        let Some(missing) = diagnostic.message.strip_suffix(" does not exist") else { continue };
        if refused.contains(missing) {
            diagnostic.message = format!("{missing} is refused itself");
            diagnostic.remedy = "correct it as its own error says".to_owned();
        }
    }
}

/// Fills in the places of verdicts, all at once so that each file is read once.
pub fn locate(diagnostics: &mut [Diagnostic], places: impl FnOnce(&[(&ObjectId, &str)]) -> Vec<Option<Place>>) {
    let asked = |diagnostic: &&Diagnostic| diagnostic.place.is_none() && diagnostic.id.is_some();
    let fields: Vec<_> = diagnostics
        .iter()
        .filter(asked)
        .filter_map(|diagnostic| Some((diagnostic.id.as_ref()?, diagnostic.field.as_str())))
        .collect();
    let mut found = places(&fields).into_iter();
    for diagnostic in diagnostics.iter_mut().filter(|diagnostic| asked(&&**diagnostic)) {
        diagnostic.place = found.next().flatten();
    }
}

/// In the order in which people work through them: by place, then what has none by object.
pub fn sort(diagnostics: &mut [Diagnostic]) {
    diagnostics.sort_by(|left, right| {
        let key = |diagnostic: &Diagnostic| (diagnostic.place.is_none(), diagnostic.severity);
        let (left_key, right_key) = (key(left), key(right));
        let by_place = left_key.0.cmp(&right_key.0).then_with(|| left.place.cmp(&right.place));
        by_place
            .then_with(|| (&left.object, &left.field).cmp(&(&right.object, &right.field)))
            .then(left_key.cmp(&right_key))
    });
}

fn of_condition(id: &ObjectId, field: String, condition: &Condition) -> Vec<Diagnostic> {
    let code = condition.code;
    // What is pending is being worked on, by us or by somebody else.
    let severity = if code.is_bad() && code.reason() != "Pending" { Severity::Error } else { Severity::Warning };
    if condition.problems.is_empty() && code.is_bad() {
        let sentence = Problem::new(field, code.sentence().trim_end_matches('.'), "");
        return vec![of_problem(id, severity, Some(code), code.reason(), &sentence)];
    }
    let problems = condition.problems.iter();
    problems.map(|problem| of_problem(id, severity, Some(code), code.reason(), problem)).collect()
}

fn of_problem(
    id: &ObjectId,
    severity: Severity,
    condition: Option<Code>,
    reason: &'static str,
    problem: &Problem,
) -> Diagnostic {
    Diagnostic {
        severity,
        place: None,
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

const POINTERS: &[&str] =
    &["see the conditions of the listener", "see the conditions of the Gateway", "see its condition Accepted"];

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::api::{Kind, ObjectKey};

    #[test]
    fn a_plugin_that_a_route_misses_is_an_error_and_told_once() {
        let id = ObjectId::new(Kind::HttpRoute, ObjectKey::new("default", "web"));
        let broken = Problem::new("metadata.annotations[konghq.com/plugins]", "plugin p cannot be used", "see it");
        let notes = vec![broken.clone()];
        let told = of_verdict(&id, &Verdict { notes, broken_plugins: vec![broken], ..Verdict::default() });
        let told: Vec<_> = told.iter().map(|found| (found.severity, found.reason)).collect();
        assert_eq!(told, [(Severity::Error, "PluginNotInEffect")]);
    }

    #[test]
    fn a_refused_object_is_not_called_missing() {
        let id = ObjectId::new(Kind::Gateway, ObjectKey::new("default", "web"));
        let note = |message: &str| Problem::new("spec", message, "create it");
        let notes = vec![note("Secret default/a does not exist"), note("Secret default/b does not exist")];
        let mut diagnostics = of_verdict(&id, &Verdict { notes, ..Verdict::default() });
        let refused = Diagnostic {
            severity: Severity::Error,
            object: Some("Secret default/a".to_owned()),
            id: None,
            ..diagnostics[0].clone()
        };
        diagnostics.push(refused);
        explain_missing(&mut diagnostics);
        let messages: Vec<_> = diagnostics.iter().map(|diagnostic| diagnostic.message.as_str()).collect();
        assert_eq!(messages[..2], ["Secret default/a is refused itself", "Secret default/b does not exist"]);
    }

    #[test]
    fn a_problem_is_told_once_and_found() {
        let id = ObjectId::new(Kind::GatewayClass, ObjectKey::cluster("portico"));
        let problem = Problem::new("spec.parametersRef", "no ConfigMap x/y", "create it");
        let refused =
            Condition { code: Code::ClassInvalidParameters, problems: vec![problem.clone(), problem.clone()] };
        let remark =
            Condition { code: Code::ClassAccepted, problems: vec![Problem::new("spec.description", "long", "cut")] };
        let fine = Condition { code: Code::ClassAccepted, problems: vec![] };
        let silent = Condition { code: Code::ClassInvalidParameters, problems: vec![] };
        for (conditions, expected) in [
            (vec![fine.clone()], vec![]),
            (vec![refused.clone(), fine.clone()], vec![(Severity::Error, "spec.parametersRef", "no ConfigMap x/y")]),
            (vec![remark], vec![(Severity::Warning, "spec.description", "long")]),
            (vec![silent], vec![(Severity::Error, "", "The parameters cannot be used")]),
        ] {
            let verdict = Verdict { conditions, ..Verdict::default() };
            let found = of_verdict(&id, &verdict);
            let found: Vec<_> =
                found.iter().map(|found| (found.severity, found.field.as_str(), found.message.as_str())).collect();
            assert_eq!(found, expected);
        }
        let pointer =
            Problem::new("spec.listeners[0]", "listener a is not served", "see the conditions of the listener");
        let pointing = Condition { code: Code::ClassInvalidParameters, problems: vec![pointer] };
        let alone = of_verdict(&id, &Verdict { conditions: vec![pointing.clone()], ..Verdict::default() });
        assert_eq!(alone.len(), 1, "with nothing else to say it is said");
        let both = of_verdict(&id, &Verdict { conditions: vec![pointing, refused.clone()], ..Verdict::default() });
        assert_eq!((both.len(), both[0].field.as_str()), (1, "spec.parametersRef"));

        let verdict = Verdict {
            conditions: vec![refused],
            notes: vec![problem, Problem::new("a", "b", "c")],
            ..Verdict::default()
        };
        let mut diagnostics = of_verdict(&id, &verdict);
        locate(&mut diagnostics, |fields| {
            assert_eq!(fields, [(&id, "spec.parametersRef"), (&id, "a")]);
            vec![Some(Place::bare(Arc::from(Path::new("a.yaml")), 3, 5)), None]
        });
        let places: Vec<_> = diagnostics.iter().map(|found| found.place.as_ref().map(|place| place.line)).collect();
        assert_eq!(places, [Some(3), None]);
        assert_eq!(diagnostics[1].reason, "Remark");
        diagnostics.reverse();
        sort(&mut diagnostics);
        assert_eq!(diagnostics[1].reason, "Remark", "what has no place comes last");
    }
}
