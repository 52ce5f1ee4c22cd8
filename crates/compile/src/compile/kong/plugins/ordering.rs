//! Reads the field `ordering` of a plugin: before and after which others it runs in the access phase.

use std::sync::Arc;

use crate::api::kong::PluginSettings;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::{AnyPluginKind, PluginRegistry};
use crate::plugin_chain::chain::AccessOrdering;

/// The only phase whose order can change, as in Kong.
const ACCESS: &str = "access";

/// The ordering of a plugin of this kind; `None` without the field.
pub(super) fn parse(
    settings: &PluginSettings,
    kind: &dyn AnyPluginKind,
    registry: &PluginRegistry,
) -> Result<Option<Arc<AccessOrdering>>, Vec<Diagnostic>> {
    let Some(ordering) = &settings.ordering else { return Ok(None) };
    let mut problems = Vec::new();
    let mut parsed = AccessOrdering::default();
    for (direction, phases) in [("before", &ordering.before), ("after", &ordering.after)] {
        for (phase, names) in phases {
            let field = format!("ordering.{direction}.{phase}");
            if phase != ACCESS {
                let message = "only the order of the phase access can change";
                problems.push(Diagnostic::error(field, message, format!("write {ACCESS} in place of {phase}")));
                continue;
            }
            for (index, name) in names.iter().enumerate() {
                let field = format!("{field}[{index}]");
                if is_fixed(kind, direction, name, registry) {
                    continue;
                }
                match problem_with(name, kind, registry) {
                    Some((message, remedy)) => problems.push(Diagnostic::error(field, message, remedy)),
                    None if direction == "before" => parsed.before.push(name.clone()),
                    None => parsed.after.push(name.clone()),
                }
            }
        }
    }
    let is_empty = parsed.before.is_empty() && parsed.after.is_empty();
    if !kind.phases().access && problems.is_empty() && !is_empty {
        let message = format!("{} does not run in the phase access, so it cannot be moved there", kind.name());
        problems.push(Diagnostic::error("ordering", message, "remove it"));
    }
    if let Some(both) = parsed.before.iter().find(|name| parsed.after.contains(name)) {
        let message = format!("it is to run both before and after {both}");
        problems.push(Diagnostic::error("ordering", message, "remove one of them"));
    }
    if problems.is_empty() { Ok((!is_empty).then(|| Arc::new(parsed))) } else { Err(problems) }
}

/// Whether this is so in any case: what takes the place of the backend runs after the phase access of all plugins.
fn is_fixed(kind: &dyn AnyPluginKind, direction: &str, name: &str, registry: &PluginRegistry) -> bool {
    let Some(other) = registry.find(name).filter(|other| other.name() != kind.name()) else { return false };
    match direction {
        "before" => kind.phases().access && other.phases().replace_backend,
        _ => kind.phases().replace_backend && other.phases().access,
    }
}

/// Why a plugin of this kind cannot run before or after another one, and what to do.
fn problem_with(name: &str, kind: &dyn AnyPluginKind, registry: &PluginRegistry) -> Option<(String, &'static str)> {
    if name == kind.name() {
        return Some(("a plugin cannot run before or after itself".to_owned(), "remove the name"));
    }
    match registry.find(name) {
        None => Some((format!("there is no plugin {name:?}"), "correct the name, or remove it")),
        Some(other) if !other.phases().access => {
            Some((format!("{name} does not run in the phase access"), "remove the name"))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;
    use crate::api::Kind;
    use crate::plugin_api::{BuildCx, Phases, Plugin, PluginKind, PluginKinds, RegisteredKind};
    use crate::store::AnyObject;

    #[derive(Debug, Default, Deserialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}

    struct Inert;

    impl Plugin for Inert {}

    macro_rules! kinds {
        ($($name:ident = $text:literal in $phases:ident;)*) => {
            $(struct $name;

            impl PluginKind for $name {
                const NAME: &'static str = $text;
                const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 1;
                const PHASES: Phases = Phases::$phases;
                const FAIL_CLOSED: bool = false;
                type Config = Nothing;
                type Plugin = Inert;

                fn build(_: Nothing, _: &BuildCx<'_>) -> Result<Inert, Vec<Diagnostic>> {
                    Ok(Inert)
                }
            })*
            static KINDS: PluginKinds = &[$(&RegisteredKind::<$name>::NEW),*];
        };
    }
    kinds! {
        Acl = "acl" in ACCESS;
        FileLog = "file-log" in LOG;
        Jwt = "jwt" in ACCESS;
        KeyAuth = "key-auth" in ACCESS;
        Mocking = "mocking" in REPLACE_BACKEND;
        RateLimiting = "rate-limiting" in ACCESS;
    }

    /// The names before and after, or the fields and messages of the problems.
    fn parsed(plugin: &str, ordering: Value) -> Result<Vec<String>, Vec<String>> {
        let object = json!({"metadata": {"namespace": "a", "name": "p"}, "plugin": plugin, "ordering": ordering});
        let AnyObject::KongPlugin(object) = AnyObject::parse(Kind::KongPlugin, object).unwrap() else {
            panic!("not a KongPlugin")
        };
        let registry = const { PluginRegistry { kinds: &[&KINDS], internal: &[] } };
        let parsed = parse(&object.settings, registry.find(plugin).unwrap(), &registry);
        let listed = |ordering: Option<Arc<AccessOrdering>>| {
            ordering.iter().flat_map(|ordering| ordering.before.iter().chain(&ordering.after)).cloned().collect()
        };
        parsed.map(listed).map_err(|problems| {
            problems.iter().map(|problem| format!("{}: {}", problem.field, problem.message)).collect()
        })
    }

    // docs/kong-compatibility.md, 1.3
    #[test]
    fn only_the_order_of_the_access_phase_changes() {
        let accepted = parsed("rate-limiting", json!({"before": {"access": ["key-auth", "jwt"]}}));
        assert_eq!(accepted, Ok(vec!["key-auth".to_owned(), "jwt".to_owned()]));
        assert_eq!(parsed("rate-limiting", json!({})), Ok(vec![]));
        // What takes the place of the backend is the last one in any case.
        assert_eq!(parsed("acl", json!({"before": {"access": ["mocking", "jwt"]}})), Ok(vec!["jwt".to_owned()]));
        assert_eq!(parsed("mocking", json!({"after": {"access": ["acl"]}})), Ok(vec![]));
        for (plugin, ordering, expected) in [
            (
                "rate-limiting",
                json!({"after": {"log": ["key-auth"]}}),
                "ordering.after.log: only the order of the phase",
            ),
            (
                "rate-limiting",
                json!({"after": {"access": ["keyauth"]}}),
                "ordering.after.access[0]: there is no plugin",
            ),
            ("acl", json!({"before": {"access": ["acl"]}}), "ordering.before.access[0]: a plugin cannot run before"),
            ("acl", json!({"before": {"access": ["file-log"]}}), "ordering.before.access[0]: file-log does not run in"),
            ("file-log", json!({"before": {"access": ["acl"]}}), "ordering: file-log does not run in the phase"),
            ("mocking", json!({"before": {"access": ["acl"]}}), "ordering: mocking does not run in the phase"),
            ("acl", json!({"after": {"access": ["mocking"]}}), "ordering.after.access[0]: mocking does not run in"),
            (
                "acl",
                json!({"before": {"access": ["jwt"]}, "after": {"access": ["jwt"]}}),
                "ordering: it is to run both",
            ),
        ] {
            let problems = parsed(plugin, ordering.clone()).unwrap_err();
            assert!(problems.len() == 1 && problems[0].starts_with(expected), "{ordering}: {problems:?}");
        }
    }
}
