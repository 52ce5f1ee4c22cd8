//! The cookie that keeps each client at one endpoint.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::value_reader::ValueReader;
use crate::api::ingress_nginx;
use crate::upstream::settings::{SameSite, SetCookie};
use crate::upstream::{AffinityCarrier, AffinitySettings, EndpointKeys, KeyAssignment, UpstreamKey};

/// What the annotations say about the cookie.
#[derive(Debug)]
pub(super) struct AffinityCookie {
    /// Whether a client stays at its endpoint when others are added.
    assignment: KeyAssignment,
    name: String,
    /// `None` for the path of the rule.
    path: Option<String>,
    domain: Option<String>,
    max_age: Option<i64>,
    same_site: Option<SameSite>,
    /// With any connection, and not only with TLS.
    is_always_secure: bool,
    /// Clients that do not support `SameSite=None` get the cookie without it.
    is_conditional: bool,
}

impl AffinityCookie {
    /// The cookie of an Ingress; `None` if it asks for none.
    pub(super) fn read(reader: &mut ValueReader<'_>) -> Option<Self> {
        let is_wanted = reader.text("affinity").is_some();
        let assignment = match reader.text("affinity-mode") {
            Some("persistent") => KeyAssignment::Fixed,
            _ => KeyAssignment::Ring,
        };
        // Another endpoint gets each further attempt, and the client its cookie, with any value.
        reader.text("session-cookie-change-on-failure");
        let text = |reader: &mut ValueReader<'_>, name| {
            reader.text(name).map(|value| value.replace(' ', "")).filter(|value| !value.is_empty())
        };
        let same_site = text(reader, "session-cookie-samesite");
        // ingress-nginx compares the value as it is written.
        let is_conditional =
            reader.flag("session-cookie-conditional-samesite-none", false) && same_site.as_deref() == Some("None");
        let same_site = same_site.and_then(|value| match &*value.to_ascii_lowercase() {
            "strict" => Some(SameSite::Strict),
            "lax" => Some(SameSite::Lax),
            "none" => Some(SameSite::None),
            _ => None,
        });
        let expires = reader.number("session-cookie-expires");
        let cookie = AffinityCookie {
            assignment,
            name: text(reader, "session-cookie-name").unwrap_or_else(|| DEFAULT_NAME.to_owned()),
            path: text(reader, "session-cookie-path"),
            domain: text(reader, "session-cookie-domain"),
            // Clients that know it ignore the date.
            max_age: reader.number("session-cookie-max-age").or(expires),
            same_site,
            is_always_secure: reader.text("session-cookie-secure").and_then(ingress_nginx::flag) == Some(true),
            is_conditional,
        };
        if !is_wanted {
            reader.note_without(&DEPENDENT, "affinity");
        }
        is_wanted.then_some(cookie)
    }

    /// The sessions of a rule with cookies as those of ingress-nginx. `path`: that of the rule. `names`: those of its
    /// upstreams in ingress-nginx.
    pub(super) fn settings(&self, path: &str, names: Box<[(UpstreamKey, Arc<str>)]>) -> Arc<AffinitySettings> {
        let path = self.path.as_deref().unwrap_or(path);
        // A path of a rule may have any character.
        let is_path =
            |path: &str| path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';');
        let path = if is_path(path) { path } else { "/" };
        let mut attributes = String::new();
        if let Some(seconds) = self.max_age {
            write!(attributes, "; Max-Age={seconds}").expect("writing to a string cannot fail");
        }
        if let Some(domain) = &self.domain {
            write!(attributes, "; Domain={domain}").expect("writing to a string cannot fail");
        }
        write!(attributes, "; Path={path}; HttpOnly").expect("writing to a string cannot fail");
        attributes.push_str(match self.same_site {
            None => "",
            Some(SameSite::Strict) => "; SameSite=Strict",
            Some(SameSite::Lax) => "; SameSite=Lax",
            Some(SameSite::None) => "; SameSite=None",
        });
        let max_age = self.max_age.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
        let cookie = SetCookie::new(&self.name, path, max_age, self.same_site.unwrap_or_default())
            .with_attributes(attributes, self.is_always_secure)
            .with_conditional_same_site(self.is_conditional);
        Arc::new(AffinitySettings {
            scope: 0,
            carrier: AffinityCarrier::Cookie { cookie, is_permanent: false },
            absolute_timeout: None,
            idle_timeout: None,
            strip: false,
            keys: Some(EndpointKeys { assignment: self.assignment, names }),
        })
    }
}

/// The annotations about the cookie.
const DEPENDENT: [&str; 10] = [
    "affinity-mode",
    "session-cookie-change-on-failure",
    "session-cookie-conditional-samesite-none",
    "session-cookie-domain",
    "session-cookie-expires",
    "session-cookie-max-age",
    "session-cookie-name",
    "session-cookie-path",
    "session-cookie-samesite",
    "session-cookie-secure",
];

const DEFAULT_NAME: &str = "INGRESSCOOKIE";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::ingress_nginx::PREFIX;

    /// The sessions of a rule for `/shop`.
    fn settings(annotations: &[(&str, &str)]) -> Option<Arc<AffinitySettings>> {
        let annotations: serde_json::Map<_, _> =
            annotations.iter().map(|(name, value)| (format!("{PREFIX}{name}"), (*value).into())).collect();
        let meta = serde_json::from_value(json!({"namespace": "a", "name": "b", "annotations": annotations})).unwrap();
        let cookie = AffinityCookie::read(&mut ValueReader::new(&meta))?;
        Some(cookie.settings("/shop", Box::default()))
    }

    fn cookie(annotations: &[(&str, &str)]) -> Option<SetCookie> {
        let settings = settings(annotations)?;
        let AffinityCarrier::Cookie { cookie, .. } = &settings.carrier else { return None };
        Some(cookie.clone())
    }

    /// The field for a client without and with TLS.
    fn fields(annotations: &[(&str, &str)]) -> Option<[String; 2]> {
        let cookie = cookie(annotations)?;
        Some([false, true].map(|is_secure| cookie.with_value("v", None, is_secure)))
    }

    #[test]
    fn new_endpoints_take_clients_over_unless_the_mode_says_otherwise() {
        let assignment =
            |annotations: &[(&str, &str)]| settings(annotations)?.keys.as_ref().map(|keys| keys.assignment);
        assert_eq!(assignment(&[("affinity-mode", "persistent")]), None, "without affinity");
        for (mode, expected) in [("balanced", KeyAssignment::Ring), ("persistent", KeyAssignment::Fixed)] {
            assert_eq!(assignment(&[("affinity", "cookie"), ("affinity-mode", mode)]), Some(expected), "{mode}");
        }
        assert_eq!(assignment(&[("affinity", "cookie")]), Some(KeyAssignment::Ring));
    }

    #[test]
    fn same_site_depends_on_clients_only_for_the_exact_value() {
        for (same_site, condition, expected) in
            [("None", "true", true), ("none", "true", false), ("Lax", "true", false), ("None", "false", false)]
        {
            let annotations = [
                ("affinity", "cookie"),
                ("session-cookie-samesite", same_site),
                ("session-cookie-conditional-samesite-none", condition),
            ];
            let cookie = cookie(&annotations).unwrap();
            assert_eq!(cookie.has_conditional_same_site(), expected, "{same_site} {condition}");
        }
    }

    #[test]
    fn attributes_are_those_of_the_annotations() {
        assert_eq!(fields(&[("session-cookie-name", "route")]), None, "without affinity");
        for (annotations, plain, secure) in [
            (&[][..], "INGRESSCOOKIE=v; Path=/shop; HttpOnly", "; Secure"),
            (
                &[
                    ("session-cookie-name", "route"),
                    ("session-cookie-path", "/"),
                    ("session-cookie-samesite", "strict"),
                ],
                "route=v; Path=/; HttpOnly; SameSite=Strict",
                "; Secure",
            ),
            (
                &[("session-cookie-expires", "60"), ("session-cookie-domain", "a.example")],
                "INGRESSCOOKIE=v; Max-Age=60; Domain=a.example; Path=/shop; HttpOnly",
                "; Secure",
            ),
            (
                &[("session-cookie-max-age", "5"), ("session-cookie-expires", "60"), ("session-cookie-secure", "true")],
                "INGRESSCOOKIE=v; Max-Age=5; Path=/shop; HttpOnly; Secure",
                "",
            ),
        ] {
            let annotations = [&[("affinity", "cookie")], annotations].concat();
            let found = fields(&annotations).unwrap();
            assert_eq!(found, [plain.to_owned(), format!("{plain}{secure}")], "{annotations:?}");
        }
    }
}
