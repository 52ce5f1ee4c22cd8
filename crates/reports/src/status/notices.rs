//! The Kubernetes events about an object: one for each problem, and one when all problems are resolved.

use std::collections::BTreeSet;

use crate::api::Kind;
use crate::api::kind::StatusLayout;
use crate::diagnostic::{Diagnostic, KIND_NOT_SERVED, Reason, Topic};
use crate::k8s::RejectedObject;
use crate::verdict::{ConditionTarget, PLUGINS_RESOLVED, Verdict};

/// One event, without the object that it is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Notice {
    pub(super) warning: bool,
    pub(super) reason: &'static str,
    pub(super) note: String,
    /// The API server forgets events, after an hour by default. This one is written again while its problem lasts,
    /// since no condition says the same.
    pub(super) repeats: bool,
}

/// The reason that Kong's controller uses for objects that it cannot translate; users' alerts match on it.
const TRANSLATION_FAILED: &str = "KongConfigurationTranslationFailed";
/// The reason for a `parentRef` of a route whose Gateway does not exist.
pub(super) const GATEWAY_NOT_FOUND: &str = "GatewayNotFound";
/// The reason for a class that does not exist.
const CLASS_NOT_FOUND: &str = "ClassNotFound";
/// The reason for what another object with the same host prevents.
const CONFLICT: &str = "HostConflict";
/// The reason for a replica that cannot listen for a Gateway and does not lead.
const NOT_LISTENING: &str = "ReplicaNotListening";
/// The reason for a Service or facade with a BackendPolicy.
const POLICY_AFFECTED: &str = "BackendPolicyAffected";
/// The API's limit for the note of an event.
const MAX_NOTE_BYTES: usize = 1024;
/// The maximum number of events of one verdict; the conditions name all problems.
const MAX_NOTICES: usize = 8;

/// The problems in a verdict, up to a limit. Each is included once, although several conditions, listeners and parents
/// may repeat it; missing Gateways only with `is_sole_controller`, because another controller could own them.
/// `kind`: that of the object.
pub(super) fn notices_for_verdict(verdict: &Verdict, is_sole_controller: bool, kind: Kind) -> BTreeSet<Notice> {
    let has_conditions = match kind.status_layout() {
        StatusLayout::Addresses | StatusLayout::NotWritten => false,
        StatusLayout::Ancestors => !verdict.ancestors.is_empty(),
        _ => true,
    };
    let of_condition = |reason, text: &str| Notice { repeats: !has_conditions, ..notice(reason, text) };
    let mut reported: BTreeSet<[&str; 3]> = BTreeSet::new();
    // Each notice is preceded by whether it only points to the conditions of another part of the object.
    let mut notices = Vec::new();
    for (path, condition) in verdict.all_conditions() {
        let code = condition.code;
        if !code.is_error() || code.reason() == "Pending" {
            continue;
        }
        let is_translation = code.target() == ConditionTarget::Object || code.condition() == PLUGINS_RESOLVED;
        let reason = if is_translation { TRANSLATION_FAILED } else { code.reason() };
        if condition.diagnostics.is_empty() {
            notices.push((false, of_condition(reason, &with_path(&path, code.sentence()))));
        }
        for problem in condition.diagnostics.iter().filter(|problem| reported.insert(problem.texts())) {
            notices.push((problem.reason == Reason::OtherCondition, of_condition(reason, &format!("{problem}."))));
        }
    }
    for problem in &verdict.diagnostics {
        let reason = match problem.topic {
            // The KongPlugin has the details of a broken plugin, but only this event reports its effect on the route.
            // A misspelled annotation is in no condition.
            Topic::Plugin | Topic::Annotation => TRANSLATION_FAILED,
            Topic::MissingParent if is_sole_controller => GATEWAY_NOT_FOUND,
            Topic::Conflict => CONFLICT,
            Topic::MissingClass => CLASS_NOT_FOUND,
            Topic::UnservedKind => KIND_NOT_SERVED,
            Topic::MissingParent | Topic::Field | Topic::Listening => continue,
        };
        if reported.insert(problem.texts()) {
            notices.push((false, notice(reason, &format!("{problem}."))));
        }
    }
    // "See the conditions of …" is redundant if another problem is reported.
    if notices.iter().any(|(is_pointer, _)| !is_pointer) {
        notices.retain(|(is_pointer, _)| !is_pointer);
    }
    notices.into_iter().take(MAX_NOTICES).map(|(_, notice)| notice).collect()
}

/// What affects an object whose status does not say it. It is no problem, and its end is not reported.
pub(super) fn facts(verdict: &Verdict) -> BTreeSet<Notice> {
    let fact =
        |fact: &String| Notice { warning: false, repeats: false, ..notice(POLICY_AFFECTED, &format!("{fact}.")) };
    verdict.affected_by.iter().map(fact).collect()
}

/// Where this replica cannot listen for a Gateway. `replica` names it. The status has the results of the leader only.
pub(super) fn notices_for_replica(verdict: &Verdict, replica: &str) -> BTreeSet<Notice> {
    let in_conditions = verdict.all_conditions().flat_map(|(_, condition)| &condition.diagnostics);
    let problems = in_conditions.filter(|problem| problem.topic == Topic::Listening);
    let as_notice = |problem: &Diagnostic| {
        let Diagnostic { field, message, remedy, .. } = problem;
        notice(NOT_LISTENING, &format!("{field}: on {replica}, {message}; {remedy}."))
    };
    let notices: BTreeSet<Notice> = problems.map(as_notice).collect();
    notices.into_iter().take(MAX_NOTICES).collect()
}

pub(super) fn unparsable_object(rejected: &RejectedObject) -> Notice {
    unreadable(&rejected.error.field, &rejected.error.message)
}

fn unreadable(field: &str, message: &str) -> Notice {
    let remedy = "correct it; until then the last valid version is used, if there was one";
    notice("Unreadable", &format!("{field}: {message}; {remedy}."))
}

/// For a status that another controller overwrites each time Portico writes it.
pub(super) fn write_conflict() -> Notice {
    notice(
        "StatusContested",
        "status: another controller keeps overwriting it; let only one controller serve the GatewayClass: give each \
         installation of Portico its own --gateway-controller-name and GatewayClass.",
    )
}

/// For a list in a status that has reached the API's limit; `message` names the list and what was left out.
pub(super) fn full_list(message: &str) -> Notice {
    notice("StatusFull", &format!("{message}; remove unused entries."))
}

pub(super) fn resolved() -> Notice {
    let note = "All reported problems are resolved.".to_owned();
    Notice { warning: false, reason: "Resolved", note, repeats: false }
}

/// A warning, whose text is shortened if the API would refuse it.
pub(super) fn notice(reason: &'static str, text: &str) -> Notice {
    let ellipsis = "…";
    let note = if text.len() <= MAX_NOTE_BYTES {
        text.to_owned()
    } else {
        format!("{}{ellipsis}", &text[..text.floor_char_boundary(MAX_NOTE_BYTES - ellipsis.len())])
    };
    Notice { warning: true, reason, note, repeats: true }
}

fn with_path(path: &str, sentence: &str) -> String {
    if path.is_empty() { sentence.to_owned() } else { format!("{path}: {sentence}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::{Code, Condition, ListenerVerdict, ParentVerdict};

    fn listener(conditions: Vec<Condition>) -> ListenerVerdict {
        ListenerVerdict {
            name: "http".to_owned(),
            port: 80,
            attached_routes: 0,
            supported_kinds: Vec::new(),
            sockets: Vec::new(),
            conditions,
        }
    }

    #[test]
    fn each_problem_is_reported_once_with_field_and_remedy() {
        let port_taken = Diagnostic::error("spec.listeners[0].port", "port 80 is taken", "choose another port");
        let pointer =
            Diagnostic::error("spec.listeners[0]", "listener http is not accepted", "see the conditions of it")
                .with_reason(Reason::OtherCondition);
        let cases = [
            (Verdict::default(), vec![]),
            (
                Verdict {
                    conditions: vec![Condition::without_diagnostics(Code::GatewayAccepted)],
                    ..Verdict::default()
                },
                vec![],
            ),
            (
                Verdict {
                    conditions: vec![Condition::new(Code::GatewayNoListenerValid, vec![pointer.clone()])],
                    listeners: vec![listener(vec![
                        Condition::new(Code::ListenerPortUnavailable, vec![port_taken.clone()]),
                        Condition::new(Code::ListenerNotProgrammed, vec![port_taken.clone()]),
                        Condition::without_diagnostics(Code::ListenerResolvedRefs),
                    ])],
                    ..Verdict::default()
                },
                vec![("PortUnavailable", "spec.listeners[0].port: port 80 is taken; choose another port.")],
            ),
            (
                Verdict {
                    conditions: vec![Condition::new(Code::GatewayNotProgrammed, vec![pointer.clone()])],
                    ..Verdict::default()
                },
                vec![("Invalid", "spec.listeners[0]: listener http is not accepted; see the conditions of it.")],
            ),
            (
                Verdict {
                    listeners: vec![listener(vec![Condition::without_diagnostics(Code::ListenerHostnameConflict)])],
                    ..Verdict::default()
                },
                vec![("HostnameConflict", "spec.listeners[0]: Another listener has this port and hostname.")],
            ),
        ];
        for (verdict, expected) in cases {
            let found: Vec<_> = notices_for_verdict(&verdict, true, Kind::Gateway)
                .into_iter()
                .map(|notice| (notice.reason, notice.note))
                .collect();
            let expected: Vec<_> = expected.into_iter().map(|(reason, note)| (reason, note.to_owned())).collect();
            assert_eq!(found, expected);
        }
    }

    // docs/kong-compatibility.md, 3.11
    #[test]
    fn translation_failures_have_the_reason_that_alerts_match() {
        let unknown = Diagnostic::error("config.lifetime", "there is no such field", "remove it");
        let broken = Diagnostic::error("metadata.annotations[konghq.com/plugins]", "plugin p cannot be used", "see it");
        let events = |verdict: &Verdict| -> Vec<_> {
            notices_for_verdict(verdict, true, Kind::Gateway)
                .into_iter()
                .map(|notice| (notice.warning, notice.reason, notice.note))
                .collect()
        };
        let plugin = |code| Verdict {
            conditions: vec![Condition::new(code, vec![unknown.clone()])],
            diagnostics: vec![Diagnostic::warning("run_on", "it has no effect, as in Kong", "remove it")],
            ..Verdict::default()
        };
        let note = "config.lifetime: there is no such field; remove it.".to_owned();
        assert_eq!(events(&plugin(Code::ObjectInvalid)), [(true, "KongConfigurationTranslationFailed", note)]);
        assert_eq!(events(&plugin(Code::ObjectPending)), []);
        // A misspelled annotation has no condition at all.
        let misspelt =
            Diagnostic::error("metadata.annotations[konghq.com/strip-path]", "\"yes\" cannot be read", "write true");
        let service = Verdict { diagnostics: vec![misspelt.with_topic(Topic::Annotation)], ..Verdict::default() };
        let note = "metadata.annotations[konghq.com/strip-path]: \"yes\" cannot be read; write true.".to_owned();
        assert_eq!(events(&service), [(true, "KongConfigurationTranslationFailed", note)]);
        for code in [Code::RoutePluginNotFound, Code::RoutePluginRefNotPermitted, Code::RouteInvalidPlugin] {
            let route = Verdict {
                parents: vec![ParentVerdict {
                    controller: "c".into(),
                    index: Some(0),
                    parent: serde_json::from_value(serde_json::json!({"name": "web"})).unwrap(),
                    conditions: vec![Condition::new(code, vec![broken.clone()])],
                }],
                ..Verdict::default()
            };
            let note = "metadata.annotations[konghq.com/plugins]: plugin p cannot be used; see it.".to_owned();
            assert_eq!(events(&route), [(true, "KongConfigurationTranslationFailed", note)], "{code:?}");
        }
        let route = Verdict {
            conditions: vec![Condition::new(Code::RouteBackendNotFound, vec![unknown])],
            diagnostics: vec![broken.with_topic(Topic::Plugin)],
            ..Verdict::default()
        };
        let note = "metadata.annotations[konghq.com/plugins]: plugin p cannot be used; see it.".to_owned();
        let events = events(&route);
        assert_eq!(events.len(), 2, "the route has another problem, too");
        assert!(events.contains(&(true, "KongConfigurationTranslationFailed", note.clone())), "{events:?}");
    }

    #[test]
    fn replicas_report_where_they_cannot_listen() {
        let in_use = Diagnostic::error("spec.listeners[0].port", "port 80 is in use", "stop that process")
            .with_topic(Topic::Listening);
        let other = Diagnostic::error("spec.listeners[0].port", "port 80 is taken", "choose another port");
        let listener = listener(vec![
            Condition::new(Code::ListenerPortUnavailable, vec![in_use.clone(), other]),
            Condition::new(Code::ListenerNotProgrammed, vec![in_use]),
        ]);
        let verdict = Verdict { listeners: vec![listener], ..Verdict::default() };
        let note = "spec.listeners[0].port: on Pod p on node n, port 80 is in use; stop that process.".to_owned();
        let expected = Notice { warning: true, reason: "ReplicaNotListening", note, repeats: true };
        assert_eq!(notices_for_replica(&verdict, "Pod p on node n"), BTreeSet::from([expected]));
    }

    #[test]
    fn missing_gateways_are_reported_by_the_sole_controller() {
        let missing = Diagnostic::not_found("spec.parentRefs[0].name", "Gateway a/web", "create it")
            .with_topic(Topic::MissingParent);
        let verdict = Verdict { diagnostics: vec![missing], ..Verdict::default() };
        let events: Vec<_> = notices_for_verdict(&verdict, true, Kind::Gateway)
            .into_iter()
            .map(|notice| (notice.reason, notice.note))
            .collect();
        let expected = "spec.parentRefs[0].name: Gateway a/web does not exist; create it.";
        assert_eq!(events, [("GatewayNotFound", expected.to_owned())]);
        assert!(notices_for_verdict(&verdict, false, Kind::Gateway).is_empty());
    }

    #[test]
    fn objects_without_effect_are_reported_if_they_concern_this_process() {
        let unserved = Diagnostic::warning("spec.targetRefs", "XMesh is not served", "remove it");
        let verdict =
            |topic: Topic| Verdict { diagnostics: vec![unserved.clone().with_topic(topic)], ..Verdict::default() };
        let events: Vec<_> =
            notices_for_verdict(&verdict(Topic::UnservedKind), false, Kind::Gateway).into_iter().collect();
        let note = "spec.targetRefs: XMesh is not served; remove it.".to_owned();
        assert_eq!(events, [Notice { warning: true, reason: "KindNotServed", note, repeats: true }]);
        assert!(notices_for_verdict(&verdict(Topic::Field), false, Kind::Gateway).is_empty());
    }

    #[test]
    fn policies_that_affect_an_object_are_no_problem() {
        let verdict =
            Verdict { affected_by: Some("Affected by BackendPolicy shop/cart".to_owned()), ..Verdict::default() };
        assert!(notices_for_verdict(&verdict, true, Kind::Gateway).is_empty());
        let note = "Affected by BackendPolicy shop/cart.".to_owned();
        let expected = Notice { warning: false, reason: "BackendPolicyAffected", note, repeats: false };
        assert_eq!(facts(&verdict), BTreeSet::from([expected]));
        assert!(facts(&Verdict::default()).is_empty());
    }

    #[test]
    fn notes_have_a_limit_in_length_and_number() {
        let problems =
            |count: usize| (0..count).map(|number| Diagnostic::error(format!("f{number}"), "ü".repeat(600), "r"));
        let condition = Condition::new(Code::GatewayNoListenerValid, problems(20).collect());
        let notices =
            notices_for_verdict(&Verdict { conditions: vec![condition], ..Verdict::default() }, true, Kind::Gateway);
        assert_eq!(notices.len(), MAX_NOTICES);
        assert!(notices.iter().all(|notice| notice.note.len() <= 1024 && notice.note.ends_with('…')));
        assert_eq!(unreadable("spec.rules[0]", &"x".repeat(5000)).note.len(), 1024);
    }
}
