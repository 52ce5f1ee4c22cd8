//! A row of the table: everything that holds for an annotation on any Ingress.

use super::value::{BadValue, ValueKind};

/// An annotation of ingress-nginx.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NginxAnnotation {
    /// What follows the prefix.
    pub name: &'static str,
    /// Which values are accepted.
    pub value: ValueKind,
    /// What applies without the annotation and without the ConfigMap key of the same name. Empty if nothing does.
    pub default: &'static str,
    /// The most that its value reaches.
    pub scope: AnnotationScope,
    /// What a value of the wrong type or with a forbidden character does.
    pub on_bad: OnBadValue,
    /// What a value of the right type does that makes no sense, such as a number out of range. The same for most.
    pub on_wrong_form: OnBadValue,
    /// What the annotation does, in one sentence for the reference page.
    pub summary: &'static str,
}

impl NginxAnnotation {
    /// What this value does if it is bad. `None` if it is accepted, as an empty one always is.
    pub fn consequence(&self, value: &str) -> Option<OnBadValue> {
        match self.value.fault(value)? {
            BadValue::Type(_) => Some(self.on_bad),
            BadValue::Form(_) => Some(self.on_wrong_form),
        }
    }

    pub(super) const fn wrong_form(mut self, on_wrong_form: OnBadValue) -> Self {
        self.on_wrong_form = on_wrong_form;
        self
    }

    pub(super) const fn says(mut self, summary: &'static str) -> Self {
        self.summary = summary;
        self
    }
}

/// What else than the paths of its own Ingress an annotation changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnotationScope {
    /// All paths of the hosts of its Ingress, also those of other Ingresses.
    Host,
    /// Nothing else.
    Path,
    /// All paths of any Ingress with the same namespace, Service and port.
    Service,
}

/// What a bad value does to its Ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBadValue {
    /// The annotation counts as unset, so that the ConfigMap or the default applies.
    Default,
    /// The Ingress is rejected: admission denies it, and its hosts and paths respond 503.
    Reject,
    /// Every path of the Ingress responds 503.
    Deny503,
    /// All annotations of the same group count as unset. No group that restricts access has it, since such a group
    /// would fail open.
    DropGroup,
}

#[cfg(test)]
mod tests {
    use super::super::{find, table};
    use super::OnBadValue::{Default, Deny503, DropGroup, Reject};

    #[test]
    fn a_bad_value_does_what_its_row_says() {
        let cases = [
            ("auth-url", "http://auth.test;", Some(Reject)),
            ("auth-url", "/verify", Some(Deny503)),
            ("auth-url", "http://auth.test/verify", None),
            ("auth-cache-duration", "5x", Some(Deny503)),
            ("auth-cache-duration", "5m;", Some(Deny503)),
            ("auth-request-redirect", "a;b", Some(Deny503)),
            ("auth-always-set-cookie", "on", Some(Deny503)),
            ("auth-tls-secret", "tls", Some(Deny503)),
            ("auth-tls-secret", "ns/tls;", Some(Reject)),
            ("allowlist-source-range", "10.0.0.0/33", Some(Deny503)),
            ("limit-rps", "ten", Some(Reject)),
            ("limit-rps", "-1", Some(Default)),
            ("permanent-redirect-code", "x", Some(Reject)),
            ("permanent-redirect-code", "400", Some(Default)),
            ("permanent-redirect-code", "308", None),
            ("temporal-redirect-code", "308", Some(Default)),
            ("temporal-redirect", "https://a b", Some(Reject)),
            ("temporal-redirect", "/elsewhere", Some(DropGroup)),
            ("proxy-read-timeout", "60s", Some(Default)),
            ("proxy-body-size", "8b", Some(Default)),
            ("client-body-buffer-size", "8x", Some(Reject)),
            ("client-body-buffer-size", "1g", Some(Default)),
            ("cors-allow-origin", "https://a.test/path;", Some(Default)),
            ("server-snippet", "lua_code {};\n", None),
            ("auth-type", "", None),
        ];
        for (name, value, expected) in cases {
            let annotation = find(name).unwrap();
            assert_eq!(annotation.consequence(value), expected, "{name}: {value:?}");
        }
    }

    #[test]
    fn no_guard_fails_open_with_its_group() {
        for annotation in table::BY_NAME {
            let drops = [annotation.on_bad, annotation.on_wrong_form].contains(&DropGroup);
            assert!(!drops || annotation.name == "temporal-redirect", "{}", annotation.name);
        }
    }
}
