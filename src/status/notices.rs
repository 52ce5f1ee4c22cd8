//! What is told about an object as Kubernetes events: each thing that is wrong with it, and that it is right again.

use std::collections::BTreeSet;

use crate::compile::verdict::{Bearer, Problem, Verdict};
use crate::k8s::Refused;

/// One event, without the object that it is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Notice {
    pub(super) warning: bool,
    pub(super) reason: &'static str,
    pub(super) note: String,
}

/// Kong's controller tells under this name what it cannot use, and alerts wait for it.
const NOT_TRANSLATED: &str = "KongConfigurationTranslationFailed";
/// Of a route's parent.
pub(super) const GATEWAY_NOT_FOUND: &str = "GatewayNotFound";
/// The API's limit, in bytes.
const LONGEST_NOTE: usize = 1024;
/// Whoever has more to correct begins with these; the conditions have all of them.
const MOST: usize = 8;

/// Everything that is wrong by a verdict, each thing once, although several conditions, listeners and parents may repeat it.
/// Of Gateways that do not exist only if no other controller could be meant: `alone`.
pub(super) fn of_verdict(verdict: &Verdict, alone: bool) -> BTreeSet<Notice> {
    let mut told: BTreeSet<&Problem> = BTreeSet::new();
    let mut notices = Vec::new();
    for (place, condition) in verdict.every_condition() {
        let code = condition.code;
        if !code.is_bad() || code.reason() == "Pending" {
            continue;
        }
        let reason = if code.bearer() == Bearer::Kong { NOT_TRANSLATED } else { code.reason() };
        if condition.problems.is_empty() {
            notices.push((false, notice(reason, &at(&place, code.sentence()))));
        }
        for problem in condition.problems.iter().filter(|problem| told.insert(*problem)) {
            notices.push((only_points(problem), notice(reason, &format!("{problem}."))));
        }
    }
    // Each names an object that says more; only here it is said of the route. And a misspelt annotation is seen nowhere else.
    let silent = verdict.broken_plugins.iter().chain(&verdict.unheeded);
    for problem in silent.filter(|problem| told.insert(*problem)) {
        notices.push((false, notice(NOT_TRANSLATED, &format!("{problem}."))));
    }
    for problem in verdict.missing_parents.iter().filter(|_| alone) {
        notices.push((false, notice(GATEWAY_NOT_FOUND, &format!("{problem}."))));
    }
    // What only points to another condition says nothing where that is told as well.
    if notices.iter().any(|(points, _)| !points) {
        notices.retain(|(points, _)| !points);
    }
    notices.into_iter().take(MOST).map(|(_, notice)| notice).collect()
}

pub(super) fn of_refusal(refused: &Refused) -> Notice {
    unreadable(&refused.why.field, &refused.why.message)
}

fn unreadable(field: &str, message: &str) -> Notice {
    let remedy = "correct it: until then the last version that could be read counts, if there was one";
    notice("Unreadable", &format!("{field}: {message}; {remedy}."))
}

/// Of a status that somebody else writes as often as we do.
pub(super) fn of_contest() -> Notice {
    notice(
        "StatusContested",
        "status: another controller writes it as well, again and again; let only one serve the GatewayClass: give each \
         installation of Portico a --gateway-controller-name and a GatewayClass of its own.",
    )
}

/// Of a list that others have filled up.
pub(super) fn of_full_list(what: &str) -> Notice {
    notice("StatusFull", &format!("{what}; remove entries that nobody needs."))
}

pub(super) fn mended() -> Notice {
    Notice { warning: false, reason: "Mended", note: "Everything that was wrong with it is right now.".to_owned() }
}

fn notice(reason: &'static str, text: &str) -> Notice {
    let end = "…";
    let note = if text.len() <= LONGEST_NOTE {
        text.to_owned()
    } else {
        format!("{}{end}", &text[..text.floor_char_boundary(LONGEST_NOTE - end.len())])
    };
    Notice { warning: true, reason, note }
}

fn at(place: &str, sentence: &str) -> String {
    if place.is_empty() { sentence.to_owned() } else { format!("{place}: {sentence}") }
}

fn only_points(problem: &Problem) -> bool {
    problem.remedy.starts_with("see ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::verdict::{Code, Condition, ListenerVerdict};

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
    fn each_thing_is_told_once_with_its_field_and_remedy() {
        let taken = Problem::new("spec.listeners[0].port", "port 80 is taken", "choose another port");
        let points = Problem::new("spec.listeners[0]", "listener http is not accepted", "see the conditions of it");
        let cases = [
            (Verdict::default(), vec![]),
            (Verdict { conditions: vec![Condition::plain(Code::GatewayAccepted)], ..Verdict::default() }, vec![]),
            (
                Verdict {
                    conditions: vec![Condition::new(Code::GatewayNoListenerValid, vec![points.clone()])],
                    listeners: vec![listener(vec![
                        Condition::new(Code::ListenerPortUnavailable, vec![taken.clone()]),
                        Condition::new(Code::ListenerNotProgrammed, vec![taken.clone()]),
                        Condition::plain(Code::ListenerResolvedRefs),
                    ])],
                    ..Verdict::default()
                },
                vec![("PortUnavailable", "spec.listeners[0].port: port 80 is taken; choose another port.")],
            ),
            (
                Verdict {
                    conditions: vec![Condition::new(Code::GatewayNotProgrammed, vec![points.clone()])],
                    ..Verdict::default()
                },
                vec![("Invalid", "spec.listeners[0]: listener http is not accepted; see the conditions of it.")],
            ),
            (
                Verdict {
                    listeners: vec![listener(vec![Condition::plain(Code::ListenerHostnameConflict)])],
                    ..Verdict::default()
                },
                vec![("HostnameConflict", "spec.listeners[0]: Another listener has this port and hostname.")],
            ),
        ];
        for (verdict, expected) in cases {
            let found: Vec<_> =
                of_verdict(&verdict, true).into_iter().map(|notice| (notice.reason, notice.note)).collect();
            let expected: Vec<_> = expected.into_iter().map(|(reason, note)| (reason, note.to_owned())).collect();
            assert_eq!(found, expected);
        }
    }

    // kong-compat §3.11
    #[test]
    fn what_kong_would_not_translate_is_told_by_its_name_on_the_object_and_on_routes() {
        let unknown = Problem::new("config.lifetime", "there is no such field", "remove it");
        let broken = Problem::new("metadata.annotations[konghq.com/plugins]", "plugin p cannot be used", "see it");
        let told = |verdict: &Verdict| -> Vec<_> {
            of_verdict(verdict, true).into_iter().map(|notice| (notice.warning, notice.reason, notice.note)).collect()
        };
        let plugin = |code| Verdict {
            conditions: vec![Condition::new(code, vec![unknown.clone()])],
            notes: vec![Problem::new("run_on", "it has no effect, as in Kong", "remove it")],
            ..Verdict::default()
        };
        let note = "config.lifetime: there is no such field; remove it.".to_owned();
        assert_eq!(told(&plugin(Code::KongInvalid)), [(true, "KongConfigurationTranslationFailed", note)]);
        assert_eq!(told(&plugin(Code::KongPending)), []);
        // A misspelt annotation has no condition at all.
        let misspelt =
            Problem::new("metadata.annotations[konghq.com/strip-path]", "\"yes\" cannot be read", "write true");
        let service = Verdict { notes: vec![misspelt.clone()], unheeded: vec![misspelt], ..Verdict::default() };
        let note = "metadata.annotations[konghq.com/strip-path]: \"yes\" cannot be read; write true.".to_owned();
        assert_eq!(told(&service), [(true, "KongConfigurationTranslationFailed", note)]);
        let route = Verdict {
            conditions: vec![Condition::new(Code::RouteBackendNotFound, vec![unknown])],
            notes: vec![broken.clone()],
            broken_plugins: vec![broken],
            ..Verdict::default()
        };
        let note = "metadata.annotations[konghq.com/plugins]: plugin p cannot be used; see it.".to_owned();
        let told = told(&route);
        assert_eq!(told.len(), 2, "the route has another trouble, too");
        assert!(told.contains(&(true, "KongConfigurationTranslationFailed", note)), "{told:?}");
    }

    #[test]
    fn a_gateway_that_does_not_exist_is_told_where_nobody_else_is_meant() {
        let missing = Problem::new("spec.parentRefs[0].name", "Gateway a/web does not exist", "create it");
        let verdict = Verdict { missing_parents: vec![missing], ..Verdict::default() };
        let told: Vec<_> = of_verdict(&verdict, true).into_iter().map(|notice| (notice.reason, notice.note)).collect();
        let expected = "spec.parentRefs[0].name: Gateway a/web does not exist; create it.";
        assert_eq!(told, [("GatewayNotFound", expected.to_owned())]);
        assert!(of_verdict(&verdict, false).is_empty());
    }

    #[test]
    fn notes_have_a_limit_in_length_and_number() {
        let problems = |count: usize| (0..count).map(|number| Problem::new(format!("f{number}"), "ü".repeat(600), "r"));
        let condition = Condition::new(Code::GatewayNoListenerValid, problems(20).collect());
        let notices = of_verdict(&Verdict { conditions: vec![condition], ..Verdict::default() }, true);
        assert_eq!(notices.len(), MOST);
        assert!(notices.iter().all(|notice| notice.note.len() <= 1024 && notice.note.ends_with('…')));
        assert_eq!(unreadable("spec.rules[0]", &"x".repeat(5000)).note.len(), 1024);
    }
}
