//! Where requests name the version: path, header, query, media types.

use http::header::ACCEPT;
use http::{HeaderName, StatusCode};

use super::version::Version;
use super::{Config, media_type};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::RequestCx;
use crate::plugin_api::field_names::{WrittenValue, refusal};
use crate::plugin_api::fields::UrlEncodedForm;

/// Where requests name the version.
pub(super) struct Sources {
    /// The path before the version, which ends with a slash.
    path_prefix: Option<String>,
    header: Option<HeaderName>,
    query: Option<String>,
    media_type_parameter: Option<String>,
}

/// What a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Nothing,
    /// The index of a version.
    Version(usize),
    /// A version that is not listed, with the status for it.
    Unknown(StatusCode),
    /// Several versions.
    Contradiction,
}

impl Sources {
    pub(super) fn build(config: &Config, invalid: &mut Vec<Diagnostic>) -> Option<Self> {
        let prefix = config.path_prefix.trim_end_matches('/');
        if !config.path && !config.path_prefix.is_empty() {
            let remedy = "set path to true, or remove path_prefix";
            invalid.push(Diagnostic::in_config("path_prefix", "has no effect without path", remedy));
        }
        if !prefix.is_empty() && !prefix.starts_with('/') {
            let remedy = format!("write /{prefix}");
            invalid.push(Diagnostic::in_config("path_prefix", "does not start with a slash", remedy));
        }
        let header = header_name("header", config.header.as_deref(), WrittenValue::Configured, invalid);
        if config.query.as_deref() == Some("") {
            invalid.push(Diagnostic::in_config("query", "is empty", "name a parameter, such as version"));
        }
        if let Some(parameter) = &config.media_type_parameter
            && (HeaderName::from_bytes(parameter.as_bytes()).is_err() || parameter.eq_ignore_ascii_case("q"))
        {
            let message = format!("{parameter:?} cannot be a parameter of a media type with the version");
            invalid.push(Diagnostic::in_config("media_type_parameter", message, "use a name such as version"));
        }
        let is_somewhere =
            config.path || config.header.is_some() || config.query.is_some() || config.media_type_parameter.is_some();
        if !is_somewhere {
            let remedy = "set path, header, query or media_type_parameter";
            invalid.push(Diagnostic::in_config("", "requests cannot name a version", remedy));
        }
        is_somewhere.then(|| Sources {
            path_prefix: config.path.then(|| format!("{prefix}/")),
            header,
            query: config.query.clone(),
            media_type_parameter: config.media_type_parameter.clone(),
        })
    }

    /// The version that all places of the request name which name one.
    pub(super) fn read(&self, cx: &RequestCx<'_>, versions: &[Version]) -> Named {
        let mut named = Named::Nothing;
        let mut add = |value: &[u8], status: StatusCode| {
            let found = versions.iter().position(|version| version.name.as_bytes() == value);
            let found = found.map_or(Named::Unknown(status), Named::Version);
            named = match named {
                Named::Nothing => found,
                same if same == found => same,
                // An unknown version is reported, whatever the other places name.
                unknown @ Named::Unknown(_) => unknown,
                _ if matches!(found, Named::Unknown(_)) => found,
                _ => Named::Contradiction,
            };
        };
        if let Some(prefix) = &self.path_prefix
            && let Some(rest) = cx.path.strip_prefix(prefix.as_str())
        {
            let segment = rest.split('/').next().unwrap_or_default();
            if !segment.is_empty() {
                add(segment.as_bytes(), StatusCode::NOT_FOUND);
            }
        }
        if let Some(name) = &self.header {
            for value in cx.head.headers.get_all(name) {
                add(value.as_bytes(), StatusCode::BAD_REQUEST);
            }
        }
        if let (Some(name), Some(query)) = (&self.query, cx.query) {
            for pair in UrlEncodedForm(query.as_bytes()).pairs().filter(|pair| *pair.name() == *name.as_bytes()) {
                add(&pair.value().unwrap_or_default(), StatusCode::BAD_REQUEST);
            }
        }
        if let Some(name) = &self.media_type_parameter {
            for list in cx.head.headers.get_all(ACCEPT) {
                for value in media_type::parameter_values(list.as_bytes(), name) {
                    add(&value, StatusCode::NOT_ACCEPTABLE);
                }
            }
        }
        named
    }

    /// The status for requests that name no version, without a default.
    pub(super) fn status_without_version(&self) -> StatusCode {
        let has_others = self.header.is_some() || self.query.is_some() || self.media_type_parameter.is_some();
        if has_others { StatusCode::BAD_REQUEST } else { StatusCode::NOT_FOUND }
    }
}

/// The header with the version of requests from clients, or of those to backends.
pub(super) fn header_name(
    field: &str,
    name: Option<&str>,
    value: WrittenValue,
    invalid: &mut Vec<Diagnostic>,
) -> Option<HeaderName> {
    let name = name?;
    let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
    let parsed = parsed.filter(|name| refusal(name, value).is_none());
    if parsed.is_none() {
        let message = format!("{name:?} cannot be a header with the version");
        invalid.push(Diagnostic::in_config(field, message, "use a name such as x-api-version"));
    }
    parsed
}
