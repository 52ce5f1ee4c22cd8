//! The cookie that keeps each client at one endpoint.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::value_reader::ValueReader;
use crate::api::ingress_nginx;
use crate::compile::policies::session_persistence;
use crate::upstream::settings::{SameSite, SetCookie};
use crate::upstream::{AffinityCarrier, AffinitySettings, UpstreamKey};

/// What the annotations say about the cookie.
#[derive(Debug)]
pub(super) struct AffinityCookie {
    name: String,
    /// `None` for the path of the rule.
    path: Option<String>,
    domain: Option<String>,
    max_age: Option<i64>,
    same_site: Option<SameSite>,
    /// With any connection, and not only with TLS.
    is_always_secure: bool,
}

impl AffinityCookie {
    /// The cookie of an Ingress; `None` if it asks for none.
    pub(super) fn read(reader: &mut ValueReader<'_>) -> Option<Self> {
        let is_wanted = reader.text("affinity").is_some();
        // Both keep a client at its endpoint here, until that is gone.
        reader.text("affinity-mode");
        let text = |reader: &mut ValueReader<'_>, name| {
            reader.text(name).map(|value| value.replace(' ', "")).filter(|value| !value.is_empty())
        };
        let same_site = text(reader, "session-cookie-samesite").and_then(|value| match &*value.to_ascii_lowercase() {
            "strict" => Some(SameSite::Strict),
            "lax" => Some(SameSite::Lax),
            "none" => Some(SameSite::None),
            _ => None,
        });
        let expires = reader.number("session-cookie-expires");
        let cookie = AffinityCookie {
            name: text(reader, "session-cookie-name").unwrap_or_else(|| DEFAULT_NAME.to_owned()),
            path: text(reader, "session-cookie-path"),
            domain: text(reader, "session-cookie-domain"),
            // Clients that know it ignore the date.
            max_age: reader.number("session-cookie-max-age").or(expires),
            same_site,
            is_always_secure: reader.text("session-cookie-secure").and_then(ingress_nginx::flag) == Some(true),
        };
        if !is_wanted {
            reader.note_without(&DEPENDENT, "affinity");
        }
        is_wanted.then_some(cookie)
    }

    /// The sessions of a rule. `path`: that of the rule.
    pub(super) fn settings(&self, route: &str, path: &str, upstream: &UpstreamKey) -> Arc<AffinitySettings> {
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
            .with_attributes(attributes, self.is_always_secure);
        let owner = format!("{route}/{}/{}:{}", upstream.namespace, upstream.service, upstream.port);
        Arc::new(AffinitySettings {
            scope: session_persistence::scope(&owner),
            carrier: AffinityCarrier::Cookie { cookie, is_permanent: false },
            absolute_timeout: None,
            idle_timeout: None,
            strip: false,
        })
    }
}

/// The annotations about the cookie.
const DEPENDENT: [&str; 8] = [
    "affinity-mode",
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

    /// The cookie of a rule for `/shop`, without and with TLS.
    fn fields(annotations: &[(&str, &str)]) -> Option<[String; 2]> {
        let annotations: serde_json::Map<_, _> =
            annotations.iter().map(|(name, value)| (format!("{PREFIX}{name}"), (*value).into())).collect();
        let meta = serde_json::from_value(json!({"namespace": "a", "name": "b", "annotations": annotations})).unwrap();
        let cookie = AffinityCookie::read(&mut ValueReader::new(&meta))?;
        let settings = cookie.settings("Ingress/a/b", "/shop", &UpstreamKey::default());
        let AffinityCarrier::Cookie { cookie, .. } = &settings.carrier else { return None };
        Some([false, true].map(|is_secure| cookie.with_value("v", None, is_secure)))
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
