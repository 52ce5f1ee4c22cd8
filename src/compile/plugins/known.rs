//! Plugins that others have and we do not.

use super::super::verdict::Problem;
use crate::plugin::{AnyKind, Registry};

/// Those of which it is known that they let everybody through: what they are configured for is merely not done.
const HARMLESS: &[&str] = &[
    "ai-prompt-decorator",
    "ai-prompt-template",
    "confluent",
    "datadog",
    "exit-transformer",
    "file-log",
    "graphql-proxy-cache-advanced",
    "grpc-gateway",
    "grpc-web",
    "http-log",
    "kafka-log",
    "loggly",
    "opentelemetry",
    "proxy-cache",
    "proxy-cache-advanced",
    "request-transformer",
    "request-transformer-advanced",
    "response-transformer",
    "response-transformer-advanced",
    "statsd",
    "statsd-advanced",
    "syslog",
    "tcp-log",
    "udp-log",
    "zipkin",
];

/// Whether a route may be unguarded without it.
pub(super) fn may_guard(name: &str) -> bool {
    HARMLESS.binary_search(&name).is_err()
}

pub(super) fn unknown(name: &str, registry: &Registry) -> Problem {
    let near = registry.iter().map(AnyKind::name).find(|known| known.replace('-', "") == name.replace(['-', '_'], ""));
    let remedy = match near {
        Some(near) => format!("write {near}"),
        None if registry.0.is_empty() => "use a version that has it".to_owned(),
        None => format!("use one of {}", registry.iter().map(AnyKind::name).collect::<Vec<_>>().join(", ")),
    };
    let then =
        if may_guard(name) { "routes that use it answer 503" } else { "routes that use it are served without it" };
    Problem::new("plugin", format!("this version has no plugin {name}, so {then}"), remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_to_be_harmless_may_guard() {
        assert!(HARMLESS.is_sorted());
        assert!(!may_guard("http-log"));
        for guard in ["openid-connect", "hmac-auth", "ldap-auth", "no-such-plugin", ""] {
            assert!(may_guard(guard), "{guard}");
        }
    }
}
