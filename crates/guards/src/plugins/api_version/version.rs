//! A version of the API, and what responses say about its end.

use std::time::{SystemTime, UNIX_EPOCH};

use http::header::LINK;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{dates, version_value};
use crate::diagnostic::Diagnostic;

#[derive(Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VersionConfig {
    /// How requests name the version: letters, digits, dots, hyphens and underscores.
    name: String,
    /// The date from which on the version is deprecated, such as `2026-01-01`, or a time as in RFC 3339. It may be in
    /// the future.
    #[serde(default)]
    deprecated: Option<String>,
    /// The date of its end, in the same form, not before `deprecated`.
    #[serde(default)]
    sunset: Option<String>,
    /// What happens to requests after `sunset`.
    #[serde(default)]
    after_sunset: AfterSunset,
    /// The page about the deprecation.
    #[serde(default)]
    deprecation_link: Option<String>,
    /// The page about the end.
    #[serde(default)]
    sunset_link: Option<String>,
    /// The version that replaces this one.
    #[serde(default)]
    successor_link: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum AfterSunset {
    /// They are forwarded as before.
    #[default]
    Serve,
    /// They get 410.
    Gone,
    /// They get 404.
    NotFound,
    /// They get 406.
    NotAcceptable,
}

pub(super) struct Version {
    pub(super) name: String,
    pub(super) value: HeaderValue,
    deprecation: Option<HeaderValue>,
    sunset: Option<HeaderValue>,
    links: Vec<HeaderValue>,
    /// From when on requests are refused, and with which status.
    ends: Option<(SystemTime, StatusCode)>,
}

impl Version {
    pub(super) fn build(config: &VersionConfig, index: usize, invalid: &mut Vec<Diagnostic>) -> Option<Self> {
        let before = invalid.len();
        let field = |name: &str| format!("versions[{index}].{name}");
        let value = version_value(&config.name);
        if value.is_none() {
            let message = format!("{:?} is not a name of a version", config.name);
            let remedy = "use up to 64 letters, digits, dots, hyphens and underscores, such as v1";
            invalid.push(Diagnostic::in_config(field("name"), message, remedy));
        }
        let deprecated = dates::parse(&field("deprecated"), config.deprecated.as_deref(), invalid);
        let sunset = dates::parse(&field("sunset"), config.sunset.as_deref(), invalid);
        if let (Some(deprecated), Some(sunset)) = (deprecated, sunset)
            && sunset < deprecated
        {
            let remedy = "set it to the same date or a later one (RFC 9745, 4)";
            invalid.push(Diagnostic::in_config(field("sunset"), "is before deprecated", remedy));
        }
        let status = match config.after_sunset {
            AfterSunset::Serve => None,
            AfterSunset::Gone => Some(StatusCode::GONE),
            AfterSunset::NotFound => Some(StatusCode::NOT_FOUND),
            AfterSunset::NotAcceptable => Some(StatusCode::NOT_ACCEPTABLE),
        };
        if status.is_some() && config.sunset.is_none() {
            let remedy = "set sunset to the date of the end, or remove after_sunset";
            invalid.push(Diagnostic::in_config(field("after_sunset"), "has no effect without sunset", remedy));
        }
        let mut links = Vec::new();
        for (name, relation, url) in [
            ("deprecation_link", "deprecation", &config.deprecation_link),
            ("sunset_link", "sunset", &config.sunset_link),
            ("successor_link", "successor-version", &config.successor_link),
        ] {
            let Some(url) = url else { continue };
            match link(url, relation) {
                Some(link) => links.push(link),
                None => {
                    let message = format!("{url:?} is not a URL");
                    let remedy = "write a URL such as https://api.example/docs/v1, or a path";
                    invalid.push(Diagnostic::in_config(field(name), message, remedy));
                }
            }
        }
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let text = |text: String| HeaderValue::try_from(text).ok();
        let deprecation = deprecated.and_then(|time| text(format!("@{}", seconds(time))));
        let sunset_field = sunset.and_then(|time| text(httpdate::fmt_http_date(time)));
        let ends = sunset.zip(status);
        let version =
            Version { name: config.name.clone(), value: value?, deprecation, sunset: sunset_field, links, ends };
        (invalid.len() == before).then_some(version)
    }

    /// The status with which requests are refused at this time.
    pub(super) fn refusal(&self, now: SystemTime) -> Option<StatusCode> {
        self.ends.filter(|(end, _)| now >= *end).map(|(_, status)| status)
    }

    /// Whether responses get fields.
    pub(super) fn has_fields(&self) -> bool {
        self.deprecation.is_some() || self.sunset.is_some() || self.has_links()
    }

    pub(super) fn has_links(&self) -> bool {
        !self.links.is_empty()
    }

    pub(super) fn set_fields(&self, headers: &mut HeaderMap) {
        if let Some(value) = &self.deprecation {
            headers.insert(DEPRECATION, value.clone());
        }
        if let Some(value) = &self.sunset {
            headers.insert(SUNSET, value.clone());
        }
        for link in &self.links {
            headers.append(LINK, link.clone());
        }
    }
}

/// A value of `Link` (RFC 8288), if the URL is one.
fn link(url: &str, relation: &str) -> Option<HeaderValue> {
    let uri: Uri = url.parse().ok()?;
    let is_web = matches!(uri.scheme_str(), Some("http" | "https")) || (url.starts_with('/') && uri.scheme().is_none());
    // `Uri` accepts characters that end the URL within `Link`.
    let is_plain = !url.contains(['<', '>', '"', ' ']) && url.is_ascii();
    (is_web && is_plain).then(|| HeaderValue::try_from(format!("<{url}>; rel=\"{relation}\"")).ok()).flatten()
}

pub(super) const DEPRECATION: HeaderName = HeaderName::from_static("deprecation");
pub(super) const SUNSET: HeaderName = HeaderName::from_static("sunset");
