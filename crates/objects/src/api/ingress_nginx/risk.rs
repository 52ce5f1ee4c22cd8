//! How risky annotations are in ingress-nginx: the ConfigMap says up to which risk they are accepted.

use std::fmt::{self, Display, Formatter};

/// How much an annotation could do to the controller and to other Ingresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AnnotationRisk {
    /// It changes the own requests only.
    Low,
    /// Its value becomes part of the configuration, from a small set of characters.
    Medium,
    /// It names other servers or hosts, or has variables or expressions.
    High,
    /// It is configuration.
    Critical,
}

impl AnnotationRisk {
    /// The risk with this name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Low, Self::Medium, Self::High, Self::Critical].into_iter().find(|risk| risk.name() == text)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Low => "Low",
            Self::Medium => "Medium",
            Self::High => "High",
            Self::Critical => "Critical",
        }
    }
}

impl Display for AnnotationRisk {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The risk of the annotation with this name, which follows the prefix. `None` if ingress-nginx has no such annotation.
pub fn risk(name: &str) -> Option<AnnotationRisk> {
    super::find(name)?;
    Some(match name {
        name if CRITICAL.contains(&name) => AnnotationRisk::Critical,
        name if HIGH.contains(&name) => AnnotationRisk::High,
        name if MEDIUM.contains(&name) => AnnotationRisk::Medium,
        _ => AnnotationRisk::Low,
    })
}

const CRITICAL: &[&str] =
    &["auth-snippet", "configuration-snippet", "modsecurity-snippet", "server-snippet", "stream-snippet"];

const HIGH: &[&str] = &[
    "auth-signin",
    "auth-tls-error-page",
    "auth-tls-match-cn",
    "auth-url",
    "mirror-host",
    "mirror-target",
    "modsecurity-transaction-id",
    "proxy-ssl-name",
    "server-alias",
    "upstream-hash-by",
];

const MEDIUM: &[&str] = &[
    "affinity-mode",
    "allowlist-source-range",
    "app-root",
    "auth-cache-duration",
    "auth-cache-key",
    "auth-proxy-set-headers",
    "auth-realm",
    "auth-request-redirect",
    "auth-response-headers",
    "auth-secret",
    "auth-signin-redirect-param",
    "auth-tls-secret",
    "auth-tls-verify-client",
    "canary-by-cookie",
    "canary-by-header",
    "canary-by-header-pattern",
    "canary-by-header-value",
    "cors-allow-headers",
    "cors-allow-methods",
    "cors-allow-origin",
    "cors-expose-headers",
    "custom-headers",
    "denylist-source-range",
    "fastcgi-index",
    "fastcgi-params-configmap",
    "force-ssl-redirect",
    "opentelemetry-operation-name",
    "permanent-redirect",
    "preserve-trailing-slash",
    "proxy-body-size",
    "proxy-cookie-domain",
    "proxy-cookie-path",
    "proxy-next-upstream",
    "proxy-redirect-from",
    "proxy-redirect-to",
    "proxy-ssl-ciphers",
    "proxy-ssl-secret",
    "rewrite-target",
    "session-cookie-domain",
    "session-cookie-expires",
    "session-cookie-max-age",
    "session-cookie-name",
    "session-cookie-path",
    "temporal-redirect",
    "whitelist-source-range",
    "x-forwarded-prefix",
];

#[cfg(test)]
mod tests {
    use super::super::{find, names};
    use super::*;

    #[test]
    fn lists_have_known_annotations_once() {
        let listed: Vec<&str> = [CRITICAL, HIGH, MEDIUM].into_iter().flatten().copied().collect();
        for (index, name) in listed.iter().enumerate() {
            assert!(find(name).is_some(), "{name}");
            assert!(!listed[..index].contains(name), "{name}");
        }
        for name in names().filter(|name| name.ends_with("-snippet")) {
            assert_eq!(risk(name), Some(AnnotationRisk::Critical), "{name}");
        }
    }

    #[test]
    fn risks_have_names_and_an_order() {
        for (name, expected) in [
            ("use-regex", Some(AnnotationRisk::Low)),
            ("rewrite-target", Some(AnnotationRisk::Medium)),
            ("auth-url", Some(AnnotationRisk::High)),
            ("other", None),
        ] {
            assert_eq!(risk(name), expected, "{name}");
        }
        assert!(AnnotationRisk::Low < AnnotationRisk::Medium && AnnotationRisk::High < AnnotationRisk::Critical);
        assert_eq!(AnnotationRisk::parse("Medium"), Some(AnnotationRisk::Medium));
        assert_eq!(AnnotationRisk::parse("medium"), None);
    }
}
