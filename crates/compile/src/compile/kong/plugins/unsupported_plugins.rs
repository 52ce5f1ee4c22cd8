//! Handles plugins that Portico does not have: whether they may be guards, and the diagnostic.

use crate::diagnostic::Diagnostic;
use crate::plugin_api::{AnyPluginKind, PluginRegistry};

/// Plugins that never reject requests: without them, requests are only processed differently.
const HARMLESS: &[&str] = &[
    "ai-prompt-decorator",
    "ai-prompt-template",
    "confluent",
    "datadog",
    "exit-transformer",
    "file-log",
    "grpc-gateway",
    "grpc-web",
    "kafka-log",
    "loggly",
    "opentelemetry",
    "proxy-cache",
    "proxy-cache-advanced",
    "statsd",
    "statsd-advanced",
    "syslog",
    "tcp-log",
    "udp-log",
    "zipkin",
];

/// Whether the plugin may reject requests, so that routes must not be served without it.
pub(super) fn may_guard(name: &str) -> bool {
    HARMLESS.binary_search(&name).is_err()
}

/// The diagnostic about a plugin that Portico does not have.
pub(super) fn unknown_plugin(name: &str, registry: &PluginRegistry) -> Diagnostic {
    let similar =
        registry.iter().map(AnyPluginKind::name).find(|known| known.replace('-', "") == name.replace(['-', '_'], ""));
    let remedy = match similar {
        Some(similar) => format!("use {similar}"),
        None if registry.iter().next().is_none() => "use a version with this plugin".to_owned(),
        None => format!("use one of {}", registry.iter().map(AnyPluginKind::name).collect::<Vec<_>>().join(", ")),
    };
    let consequence = if may_guard(name) {
        "routes that use it respond with 503"
    } else {
        "routes that use it are served without it"
    };
    Diagnostic::error("plugin", format!("this version has no plugin {name}, so {consequence}"), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    // docs/kong-compatibility.md, 4.2
    // docs/kong-compatibility.md, 4.40
    #[test]
    fn unknown_plugins_may_guard() {
        assert!(HARMLESS.is_sorted());
        for harmless in ["file-log", "ai-prompt-decorator", "ai-prompt-template"] {
            assert!(!may_guard(harmless), "{harmless}");
        }
        let ai = ["ai-proxy", "ai-prompt-guard", "ai-request-transformer", "ai-response-transformer"];
        for guard in ["saml", "vault-auth", "acme", "no-such-plugin", ""].into_iter().chain(ai) {
            assert!(may_guard(guard), "{guard}");
        }
    }
}
