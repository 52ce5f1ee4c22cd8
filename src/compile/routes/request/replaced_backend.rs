//! What a rule cannot have if a plugin takes the place of its backend: nothing is sent to an endpoint then.

use crate::api::gateway::Filter;
use crate::compile::objects::request_route::RequestRouteRule;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::Chain;

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
