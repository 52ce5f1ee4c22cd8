//! What becomes of the keys of the ConfigMap of ingress-nginx: the compiler decides, and a table has what takes the
//! place of those that Portico does not read.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::api::ObjectKey;
use crate::api::ingress_nginx::{flag, is_config_key};
use crate::compile::config_map_problem;
use crate::report::migration::{ConfigRow, MigrationVerdict};

/// A row for each key.
pub(super) fn rows(config_map: &ObjectKey, data: &BTreeMap<String, Arc<str>>) -> Vec<ConfigRow> {
    let has_waf = data.get("enable-modsecurity").and_then(|value| flag(value.trim())) == Some(true);
    let rows = data.iter().map(|(key, value)| match &**key {
        "enable-owasp-modsecurity-crs" | "modsecurity-snippet" if !has_waf => ConfigRow {
            key: key.clone(),
            value: value.to_string(),
            verdict: MigrationVerdict::Same,
            guard: false,
            effect: "it needs enable-modsecurity, as in ingress-nginx".to_owned(),
            remedy: String::new(),
            is_unknown: false,
        },
        key => row(config_map, key, value),
    });
    rows.collect()
}

fn row(config_map: &ObjectKey, key: &str, value: &Arc<str>) -> ConfigRow {
    let row = |verdict, effect: &str, remedy: &str| ConfigRow {
        key: key.to_owned(),
        value: value.to_string(),
        verdict,
        guard: false,
        effect: effect.to_owned(),
        remedy: remedy.to_owned(),
        is_unknown: false,
    };
    let known = KEYS.iter().find(|known| known.names.contains(&key));
    let Some(problem) = config_map_problem(config_map, key, value) else {
        return match known {
            Some(KnownKey { default, replacement: KeyReplacement::WithFlag(remedy), .. })
                if !remedy.is_empty() && !is_default(default, value) =>
            {
                row(MigrationVerdict::Differs, "a flag decides about its effect, too", remedy)
            }
            _ => row(MigrationVerdict::Same, "it has its effect, or configures the inside of nginx", ""),
        };
    };
    if !is_config_key(key) {
        let row = row(MigrationVerdict::Same, "ingress-nginx has no such key", &problem.remedy);
        return ConfigRow { is_unknown: true, ..row };
    }
    // Its prefix names the ConfigMap, which the report does once.
    let start = format!("ConfigMap {config_map}, {key}");
    let effect = problem.message.strip_prefix(&start).unwrap_or(&problem.message).trim_start_matches([':', ' ']);
    match known {
        _ if problem.is_error() && problem.remedy == CORRECT => row(MigrationVerdict::Invalid, effect, CORRECT),
        _ if problem.is_error() => ConfigRow { guard: true, ..row(MigrationVerdict::LeftOut, effect, &problem.remedy) },
        _ if problem.remedy == CORRECT => row(MigrationVerdict::Same, "ingress-nginx ignores the value, too", ""),
        Some(known) if is_default(known.default, value) => row(MigrationVerdict::Same, "it is the default", ""),
        // A guard that is switched off.
        None if flag(value.trim()) == Some(false) => row(MigrationVerdict::Same, "it is off in Portico, too", ""),
        Some(KnownKey { replacement: KeyReplacement::Nothing(effect), .. }) => row(MigrationVerdict::Same, effect, ""),
        Some(KnownKey { replacement: KeyReplacement::By(remedy), .. }) => {
            row(MigrationVerdict::Differs, "the ConfigMap does not set it in Portico", remedy)
        }
        Some(KnownKey { replacement: KeyReplacement::WithFlag(_), .. }) => {
            row(MigrationVerdict::Differs, effect, &problem.remedy)
        }
        Some(KnownKey { replacement: KeyReplacement::Unsupported, .. }) | None => {
            row(MigrationVerdict::LeftOut, effect, "")
        }
    }
}

fn is_default(default: &str, value: &str) -> bool {
    let value = value.trim();
    value == default || flag(value).is_some_and(|value| flag(default) == Some(value))
}

/// Keys whose effect depends on flags, or that Portico does not read, and what replaces each.
struct KnownKey {
    names: &'static [&'static str],
    default: &'static str,
    replacement: KeyReplacement,
}

enum KeyReplacement {
    By(&'static str),
    /// Portico reads the key. If the text is not empty, a flag decides about its effect, too; else, some values have
    /// no effect.
    WithFlag(&'static str),
    /// Responses are the same without it.
    Nothing(&'static str),
    /// Only its default changes nothing.
    Unsupported,
}

const fn by(names: &'static [&'static str], default: &'static str, remedy: &'static str) -> KnownKey {
    KnownKey { names, default, replacement: KeyReplacement::By(remedy) }
}

const fn with_flag(names: &'static [&'static str], default: &'static str, remedy: &'static str) -> KnownKey {
    KnownKey { names, default, replacement: KeyReplacement::WithFlag(remedy) }
}

const fn nothing(names: &'static [&'static str], default: &'static str, effect: &'static str) -> KnownKey {
    KnownKey { names, default, replacement: KeyReplacement::Nothing(effect) }
}

const fn unsupported(names: &'static [&'static str], default: &'static str) -> KnownKey {
    KnownKey { names, default, replacement: KeyReplacement::Unsupported }
}

/// The remedy of the compiler for a value that ingress-nginx does not accept either.
const CORRECT: &str = "correct the value";

const KEYS: &[KnownKey] = &[
    by(&["use-forwarded-headers", "enable-real-ip"], "false", "run Portico with --trusted-ips for your load balancer"),
    by(&["proxy-real-ip-cidr"], "0.0.0.0/0", "run Portico with these networks in --trusted-ips"),
    by(&["use-proxy-protocol"], "false", "run Portico with --proxy-protocol-from for your load balancer"),
    by(&["keep-alive"], "75", "run Portico with --client-idle-timeout"),
    by(&["client-header-timeout"], "60", "run Portico with --client-header-timeout"),
    by(&["client-body-timeout"], "60", "run Portico with --client-body-timeout"),
    by(&["large-client-header-buffers"], "4 8k", "run Portico with --client-header-bytes"),
    by(&["http2-max-concurrent-streams"], "128", "run Portico with --client-http2-streams"),
    by(&["use-gzip", "enable-brotli"], "false", "write a global KongClusterPlugin of plugin compression"),
    by(
        &["gzip-level", "gzip-min-length", "gzip-types", "brotli-level", "brotli-min-length", "brotli-types"],
        "",
        "write a global KongClusterPlugin of plugin compression",
    ),
    by(&["custom-http-errors"], "", "write a global KongClusterPlugin of plugin error-pages"),
    by(&["proxy-set-headers"], "", "write a global KongClusterPlugin of plugin request-transformer"),
    by(&["add-headers", "hide-headers"], "", "write a global KongClusterPlugin of plugin response-transformer"),
    with_flag(
        &["log-format-upstream"],
        "",
        "run Portico with --access-log-query-values '*' if lines need the values of queries, which are * otherwise",
    ),
    with_flag(&["log-format-escape-none"], "false", ""),
    with_flag(&["skip-access-log-urls", "opentelemetry-operation-name"], "", ""),
    with_flag(&["enable-opentelemetry"], "false", "run Portico with --trace-otlp-endpoint"),
    by(&["access-log-path", "http-access-log-path"], "/var/log/nginx/access.log", "run Portico with --access-log"),
    by(
        &["otlp-collector-host", "otlp-collector-port"],
        "4317",
        "run Portico with --trace-otlp-endpoint, and for the port 4317 with --otlp-protocol grpc",
    ),
    by(&["otel-sampler", "otel-sampler-ratio"], "", "run Portico with --trace-sampling"),
    by(&["otel-sampler-parent-based"], "", "run Portico with --trusted-ips for clients that decide about their traces"),
    by(&["otel-service-name"], "portico", "select the service portico in the server for traces"),
    by(&["bind-address"], "", "run Portico with --ingress-http-listen and --ingress-https-listen"),
    nothing(&["enable-modsecurity"], "false", "ModSecurity only logs what it finds, unless its rules refuse requests"),
    nothing(&["generate-request-id"], "true", "Portico sends X-Request-ID in any case"),
    nothing(
        &[
            "enable-serial-reloads",
            "enable-aio-write",
            "lua-shared-dicts",
            "map-hash-bucket-size",
            "nginx-status-ipv4-whitelist",
            "nginx-status-ipv6-whitelist",
            "grpc-buffer-size-kb",
            "ssl-session-ticket-key",
            "ssl-session-tickets",
            "ssl-session-timeout",
            "ssl-dh-param",
            "debug-connections",
            "error-log-path",
            "access-log-params",
            "upstream-keepalive-time",
            "disable-ipv6-dns",
            "opentelemetry-config",
        ],
        "",
        "it configures the inside of nginx",
    ),
    unsupported(&["server-tokens", "allow-backend-server-header"], "false"),
    unsupported(&["enable-underscores-in-headers", "compute-full-forwarded-for"], "false"),
    unsupported(&["relative-redirects", "enable-auth-access-log", "use-geoip2"], "false"),
    unsupported(&["ignore-invalid-headers", "use-http2"], "true"),
    unsupported(&["proxy-http-version"], "1.1"),
    unsupported(&["load-balance"], "round_robin"),
    unsupported(&["proxy-redirect-from", "proxy-redirect-to", "proxy-cookie-domain", "proxy-cookie-path"], "off"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_verdicts() {
        let key = ObjectKey::new("ingress-nginx", "controller");
        for (name, value, verdict, guard) in [
            ("proxy-body-size", "8m", MigrationVerdict::Same, false),
            ("worker-processes", "4", MigrationVerdict::Same, false),
            ("generate-request-id", "false", MigrationVerdict::Same, false),
            ("use-gzip", "false", MigrationVerdict::Same, false),
            ("use-gzip", "true", MigrationVerdict::Differs, false),
            ("use-forwarded-headers", "true", MigrationVerdict::Differs, false),
            ("server-tokens", "false", MigrationVerdict::Same, false),
            ("server-tokens", "true", MigrationVerdict::LeftOut, false),
            ("proxy-stream-timeout", "10s", MigrationVerdict::Same, false),
            ("block-cidrs", "192.0.2.0/24", MigrationVerdict::LeftOut, true),
            ("enable-modsecurity", "false", MigrationVerdict::Same, false),
            ("enable-modsecurity", "true", MigrationVerdict::Same, false),
            ("enable-owasp-modsecurity-crs", "true", MigrationVerdict::Same, false),
            ("modsecurity-snippet", "SecRuleEngine On", MigrationVerdict::LeftOut, true),
            ("whitelist-source-range", "office", MigrationVerdict::Invalid, false),
            ("proxy-read-timeout", "60s", MigrationVerdict::Same, false),
            ("proxy-body-sise", "8m", MigrationVerdict::Same, false),
            ("disable-access-log", "true", MigrationVerdict::Same, false),
            ("skip-access-log-urls", "/healthz", MigrationVerdict::Same, false),
            ("skip-access-log-urls", "~^/health", MigrationVerdict::Differs, false),
            ("log-format-upstream", "$remote_addr $status", MigrationVerdict::Differs, false),
            ("log-format-upstream", "$geoip2_city", MigrationVerdict::Differs, false),
            ("log-format-escape-none", "true", MigrationVerdict::Differs, false),
            ("enable-opentelemetry", "true", MigrationVerdict::Differs, false),
            ("enable-opentelemetry", "false", MigrationVerdict::Same, false),
            ("opentelemetry-operation-name", "$request_method", MigrationVerdict::Differs, false),
            ("otlp-collector-host", "collector.example", MigrationVerdict::Differs, false),
            ("otel-max-queuesize", "100", MigrationVerdict::Same, false),
        ] {
            let row = row(&key, name, &Arc::from(value));
            assert_eq!((row.verdict, row.guard), (verdict, guard), "{name}: {value}: {row:?}");
            assert!(!row.effect.contains("ConfigMap ingress-nginx/controller"), "{row:?}");
        }
    }

    #[test]
    fn a_misspelled_key_has_the_nearest_one() {
        let row = row(&ObjectKey::new("ingress-nginx", "controller"), "proxy-body-sise", &Arc::from("8m"));
        assert!(row.is_unknown && row.remedy.starts_with("did you mean proxy-body-size?"), "{row:?}");
    }

    #[test]
    fn keys_of_the_table_exist() {
        for name in KEYS.iter().flat_map(|known| known.names) {
            assert!(is_config_key(name), "{name}");
        }
    }

    #[test]
    fn a_key_is_in_the_table_once() {
        let mut names: Vec<&str> = KEYS.iter().flat_map(|known| known.names.iter().copied()).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }
}
