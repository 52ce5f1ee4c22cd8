//! The annotations of ingress-nginx by name, as its last release has them (version 1.15 of March 2026).

/// The prefix of its annotations, unless an installation has another one.
pub const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// Whether ingress-nginx reads an annotation with this name, which follows [`PREFIX`].
pub fn has(name: &str) -> bool {
    NAMES.contains(&name)
}

/// What only earlier releases have read under this name.
pub fn removed(name: &str) -> Option<&'static RemovedAnnotation> {
    REMOVED.iter().find(|removed| removed.matches(name))
}

/// An annotation that ingress-nginx had once.
#[derive(Debug)]
pub struct RemovedAnnotation {
    /// A `*` at its end stands for any text.
    name: &'static str,
    /// The annotation with the same effect in the last release.
    pub successor: Option<&'static str>,
}

impl RemovedAnnotation {
    fn matches(&self, name: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == self.name,
        }
    }
}

const fn gone(name: &'static str) -> RemovedAnnotation {
    RemovedAnnotation { name, successor: None }
}

const fn replaced(name: &'static str, successor: &'static str) -> RemovedAnnotation {
    RemovedAnnotation { name, successor: Some(successor) }
}

const REMOVED: &[RemovedAnnotation] = &[
    gone("add-base-url"),
    gone("base-url-scheme"),
    gone("enable-influxdb"),
    replaced("enable-opentracing", "enable-opentelemetry"),
    gone("global-rate-limit*"),
    replaced("grpc-backend", "backend-protocol"),
    gone("http2-insecure-port"),
    gone("influxdb-*"),
    replaced("mirror-uri", "mirror-target"),
    replaced("opentracing-operation-name", "opentelemetry-operation-name"),
    replaced("opentracing-trust-incoming-span", "opentelemetry-trust-incoming-span"),
    replaced("secure-backends", "backend-protocol"),
    replaced("secure-verify-ca-secret", "proxy-ssl-secret"),
    gone("session-cookie-hash"),
    gone("upstream-fail-timeout"),
    gone("upstream-max-fails"),
];

/// All names, sorted.
pub const NAMES: &[&str] = &[
    "affinity",
    "affinity-canary-behavior",
    "affinity-mode",
    "allowlist-source-range",
    "app-root",
    "auth-always-set-cookie",
    "auth-cache-duration",
    "auth-cache-key",
    "auth-keepalive",
    "auth-keepalive-requests",
    "auth-keepalive-share-vars",
    "auth-keepalive-timeout",
    "auth-method",
    "auth-proxy-set-headers",
    "auth-realm",
    "auth-request-redirect",
    "auth-response-headers",
    "auth-secret",
    "auth-secret-type",
    "auth-signin",
    "auth-signin-redirect-param",
    "auth-snippet",
    "auth-tls-error-page",
    "auth-tls-match-cn",
    "auth-tls-pass-certificate-to-upstream",
    "auth-tls-secret",
    "auth-tls-verify-client",
    "auth-tls-verify-depth",
    "auth-type",
    "auth-url",
    "backend-protocol",
    "canary",
    "canary-by-cookie",
    "canary-by-header",
    "canary-by-header-pattern",
    "canary-by-header-value",
    "canary-weight",
    "canary-weight-total",
    "client-body-buffer-size",
    "configuration-snippet",
    "connection-proxy-header",
    "cors-allow-credentials",
    "cors-allow-headers",
    "cors-allow-methods",
    "cors-allow-origin",
    "cors-expose-headers",
    "cors-max-age",
    "custom-headers",
    "custom-http-errors",
    "default-backend",
    "denylist-source-range",
    "disable-proxy-intercept-errors",
    "enable-access-log",
    "enable-cors",
    "enable-global-auth",
    "enable-modsecurity",
    "enable-opentelemetry",
    "enable-owasp-core-rules",
    "enable-rewrite-log",
    "fastcgi-index",
    "fastcgi-params-configmap",
    "force-ssl-redirect",
    "from-to-www-redirect",
    "http2-push-preload",
    "limit-allowlist",
    "limit-burst-multiplier",
    "limit-connections",
    "limit-rate",
    "limit-rate-after",
    "limit-rpm",
    "limit-rps",
    "limit-whitelist",
    "load-balance",
    "mirror-host",
    "mirror-request-body",
    "mirror-target",
    "modsecurity-snippet",
    "modsecurity-transaction-id",
    "opentelemetry-operation-name",
    "opentelemetry-trust-incoming-span",
    "permanent-redirect",
    "permanent-redirect-code",
    "preserve-trailing-slash",
    "proxy-body-size",
    "proxy-buffer-size",
    "proxy-buffering",
    "proxy-buffers-number",
    "proxy-busy-buffers-size",
    "proxy-connect-timeout",
    "proxy-cookie-domain",
    "proxy-cookie-path",
    "proxy-http-version",
    "proxy-max-temp-file-size",
    "proxy-next-upstream",
    "proxy-next-upstream-timeout",
    "proxy-next-upstream-tries",
    "proxy-read-timeout",
    "proxy-redirect-from",
    "proxy-redirect-to",
    "proxy-request-buffering",
    "proxy-send-timeout",
    "proxy-ssl-ciphers",
    "proxy-ssl-name",
    "proxy-ssl-protocols",
    "proxy-ssl-secret",
    "proxy-ssl-server-name",
    "proxy-ssl-verify",
    "proxy-ssl-verify-depth",
    "relative-redirects",
    "rewrite-target",
    "satisfy",
    "server-alias",
    "server-snippet",
    "service-upstream",
    "session-cookie-change-on-failure",
    "session-cookie-conditional-samesite-none",
    "session-cookie-domain",
    "session-cookie-expires",
    "session-cookie-max-age",
    "session-cookie-name",
    "session-cookie-path",
    "session-cookie-samesite",
    "session-cookie-secure",
    "ssl-ciphers",
    "ssl-passthrough",
    "ssl-prefer-server-ciphers",
    "ssl-redirect",
    "stream-snippet",
    "temporal-redirect",
    "temporal-redirect-code",
    "upstream-hash-by",
    "upstream-hash-by-subset",
    "upstream-hash-by-subset-size",
    "upstream-vhost",
    "use-port-in-redirects",
    "use-regex",
    "whitelist-source-range",
    "x-forwarded-prefix",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_none_was_removed() {
        assert!(NAMES.is_sorted_by(|one, other| one < other));
        assert_eq!(NAMES.len(), 138);
        for name in NAMES {
            assert!(removed(name).is_none(), "{name}");
        }
        for RemovedAnnotation { successor, .. } in REMOVED {
            assert!(successor.is_none_or(has), "{successor:?}");
        }
    }
}
