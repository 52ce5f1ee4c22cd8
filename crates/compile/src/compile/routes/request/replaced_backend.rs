//! What a rule cannot have if a plugin takes the place of its backend: nothing is sent to an endpoint then.

use crate::api::gateway::Filter;
use crate::compile::objects::request_route::RequestRouteRule;
use crate::diagnostic::Diagnostic;
use crate::plugin_chain::Chain;

/// Diagnostics of a rule.
#[derive(Debug, Default)]
pub(super) struct WithoutBackend {
    /// Because of these, the rule is not served: it would be without what its owner asks for.
    pub(super) dropped: Vec<Diagnostic>,
    pub(super) notes: Vec<Diagnostic>,
}

/// What cannot apply to the rule at `field` because of the plugins of its chain.
pub(super) fn check(raw: &RequestRouteRule<'_>, field: &str, chain: Option<&Chain>) -> WithoutBackend {
    let mut found = WithoutBackend::default();
    let Some(plugin) = chain.and_then(|chain| chain.replacements().next()) else { return found };
    // A redirect comes before the plugin.
    if raw.filters.iter().any(|filter| filter.kind == "RequestRedirect") {
        return found;
    }
    let problem = |field: String, what: &str, remedy: &str| {
        let message = format!("{plugin} takes the place of the backend, so {what}");
        Diagnostic::error(field, message, format!("{remedy}, or detach the plugin from the rule"))
    };
    let backends = raw.backends.iter().enumerate();
    let levels = backends.map(|(index, backend)| (format!("{field}.backendRefs[{index}]"), &*backend.filters));
    for (level, filters) in std::iter::once((field.to_owned(), raw.filters)).chain(levels) {
        for (index, _) in filters.iter().enumerate().filter(|(_, filter)| is_mirror(filter)) {
            let field = format!("{level}.filters[{index}]");
            found.dropped.push(problem(field, "requests cannot be mirrored", "remove the filter"));
        }
    }
    if raw.timeouts.is_some() {
        let field = format!("{field}.timeouts");
        found.dropped.push(problem(field, "the timeouts of the rule cannot apply", "remove the field"));
    }
    if raw.retry.is_some() {
        found.dropped.push(problem(format!("{field}.retry"), "requests are not sent again", "remove the field"));
    }
    if raw.session_persistence.is_some() {
        let problem = problem(format!("{field}.sessionPersistence"), "the rule has no sessions", "remove the field");
        found.notes.push(problem.into_warning());
    }
    found
}

fn is_mirror(filter: &Filter) -> bool {
    filter.kind == "RequestMirror"
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::api::gateway::{HttpRouteRule, SessionPersistence};
    use crate::compile::objects::request_route::UnparsedMatches;
    use crate::plugin_api::instance::PluginInstance;
    use crate::plugin_api::{Phases, Plugin};
    use crate::plugin_chain::chain::{AttachmentPoint, BaseScope, ChainBuilder};
    use crate::plugin_chain::testing::{global_instance, names};

    struct Function;

    impl Plugin for Function {}

    fn chain(phases: Phases) -> Arc<Chain> {
        let mut builder = ChainBuilder::default();
        let instance = PluginInstance { phases, ..global_instance(Arc::new(Function)) };
        builder.add("function", 1, AttachmentPoint::Base(BaseScope::Service), instance);
        builder.build(names()).unwrap()
    }

    /// The fields of the errors and of the notes.
    fn fields(rule: Value, chain: &Chain) -> [Vec<String>; 2] {
        let rule: HttpRouteRule = serde_json::from_value(rule).unwrap();
        let raw = RequestRouteRule {
            name: None,
            matches: UnparsedMatches::Http(&[]),
            filters: &rule.filters,
            backends: &rule.backend_refs,
            timeouts: rule.timeouts.as_ref(),
            retry: rule.retry.as_ref(),
            session_persistence: rule.session_persistence.as_ref() as Option<&SessionPersistence>,
        };
        let WithoutBackend { dropped, notes } = check(&raw, "spec.rules[0]", Some(chain));
        assert!(dropped.iter().all(Diagnostic::is_error) && !notes.iter().any(Diagnostic::is_error));
        [dropped, notes].map(|found| found.into_iter().map(|problem| problem.field).collect())
    }

    #[test]
    fn what_cannot_apply_in_front_of_a_function_is_an_error_of_the_rule() {
        let backend = |filters: Value| json!({"name": "web", "port": 80, "filters": filters});
        let mirror = || json!({"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "web", "port": 80}}});
        let header = json!({"type": "RequestHeaderModifier", "requestHeaderModifier": {"remove": ["x-internal"]}});
        let rewrite = json!({"type": "URLRewrite", "urlRewrite": {"hostname": "a.example"}});
        let redirect = json!({"type": "RequestRedirect", "requestRedirect": {"scheme": "https"}});
        for (rule, errors, notes) in [
            (json!({"filters": [header, rewrite]}), &[][..], &[][..]),
            (json!({"filters": [header, mirror()]}), &["spec.rules[0].filters[1]"], &[]),
            (
                json!({"backendRefs": [backend(json!([])), backend(json!([mirror()]))]}),
                &["spec.rules[0].backendRefs[1].filters[0]"],
                &[],
            ),
            (json!({"timeouts": {"request": "5s"}}), &["spec.rules[0].timeouts"], &[]),
            (json!({"retry": {"codes": [503]}}), &["spec.rules[0].retry"], &[]),
            (
                json!({"sessionPersistence": {"type": "Cookie", "cookie": {}}}),
                &[],
                &["spec.rules[0].sessionPersistence"],
            ),
            // The redirect comes first.
            (json!({"filters": [redirect], "timeouts": {"request": "5s"}}), &[], &[]),
        ] {
            let found = fields(rule.clone(), &chain(Phases::REPLACE_BACKEND));
            assert_eq!(found, [errors, notes], "{rule}");
            let [errors, notes] = fields(rule.clone(), &chain(Phases::BEFORE_FORWARD));
            assert!(errors.is_empty() && notes.is_empty(), "{rule}: a cache changes nothing of that");
        }
    }
}
