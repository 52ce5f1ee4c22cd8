//! `api-version`: determines which version of an API a request is for, announces when versions end, and refuses them
//! afterwards.
//!
//! ```yaml
//! plugin: api-version
//! config:
//!   path: true
//!   header: x-api-version
//!   upstream_header: x-api-version
//!   versions:
//!     - {name: v1, deprecated: "2026-01-01", sunset: "2026-12-31", after_sunset: gone}
//!     - {name: v2}
//!   default_version: v2
//! ```
//!
//! If several places of a request name different versions, or one of them names two, the request gets 400. A version
//! that is not in the list gets 404 if the path names it, 406 if a media type does, and 400 otherwise.
//!
//! Responses of deprecated versions have the fields `Deprecation` (RFC 9745), `Sunset` (RFC 8594) and `Link`. The first
//! two replace those of the backend.
//!
//! The metric `portico_api_version_requests_total` counts requests by version, and so does `/debug/usage` of the admin
//! listener, where the rows of usage plans have the version.

mod dates;
mod media_type;
mod source;
mod version;

use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;

use self::source::{Named, Sources};
use self::version::{DEPRECATION, SUNSET, Version, VersionConfig};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::field_names::WrittenValue;
use crate::plugin_api::{
    AccessOutcome, BuildCx, ChangedFields, Phases, Plugin, PluginKind, Reply, RequestCx, ResponseCx, ResponseOutcome,
};
use crate::plugin_kit::counting::VersionUse;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Whether the first segment of the path after `path_prefix` is the version. The path is forwarded unchanged.
    path: bool,
    /// The path before the version, such as `/api`. Requires `path`.
    path_prefix: String,
    /// The header with the version.
    header: Option<String>,
    /// The parameter of the query with the version.
    query: Option<String>,
    /// The parameter of the media types in `Accept` with the version, as in `application/json;version=2`.
    media_type_parameter: Option<String>,
    /// The versions of the API, up to 64.
    versions: Vec<VersionConfig>,
    /// The version of requests that name none. Without it, these get 400, or 404 if only the path may name the version.
    default_version: Option<String>,
    /// The header with the version for the backend. It replaces that of the client.
    upstream_header: Option<String>,
}

pub(crate) struct ApiVersion {
    sources: Sources,
    versions: Box<[Version]>,
    default: Option<usize>,
    upstream_header: Option<HeaderName>,
    version_use: Arc<VersionUse>,
}

impl PluginKind for ApiVersion {
    const NAME: &'static str = "api-version";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 930;
    const PHASES: Phases = Phases::ACCESS_AND_RESPONSE;
    const FAIL_CLOSED: bool = true;
    type Config = Config;
    type Plugin = ApiVersion;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let sources = Sources::build(&config, &mut invalid);
        if config.versions.is_empty() || config.versions.len() > MAX_VERSIONS {
            let message = format!("has {} versions", config.versions.len());
            invalid.push(Diagnostic::in_config("versions", message, "list 1 to 64 versions"));
            return Err(invalid);
        }
        let mut versions: Vec<Version> = Vec::new();
        for (index, version) in config.versions.iter().enumerate() {
            let Some(version) = Version::build(version, index, &mut invalid) else { continue };
            if versions.iter().any(|other| other.name == version.name) {
                let message = format!("{} is listed twice", version.name);
                let field = format!("versions[{index}].name");
                invalid.push(Diagnostic::in_config(field, message, "remove one of both entries"));
            }
            versions.push(version);
        }
        let default = config.default_version.as_ref().and_then(|name| {
            let found = versions.iter().position(|version| version.name == *name);
            if found.is_none() {
                let message = format!("{name:?} is not one of the versions");
                invalid.push(Diagnostic::in_config("default_version", message, "name one of config.versions"));
            }
            found
        });
        let upstream_header = config.upstream_header.as_deref();
        let upstream_header =
            source::header_name("upstream_header", upstream_header, WrittenValue::Generated, &mut invalid);
        match sources {
            Some(sources) if invalid.is_empty() => {
                let version_use = VersionUse::of(versions.iter().map(|version| &*version.name), cx);
                Ok(ApiVersion { sources, versions: versions.into(), default, upstream_header, version_use })
            }
            _ => Err(invalid),
        }
    }
}

impl Plugin for ApiVersion {
    fn may_wait(&self) -> bool {
        false
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let index = match self.sources.read(cx, &self.versions) {
            Named::Version(index) => Some(index),
            Named::Unknown(status) => {
                return AccessOutcome::Reply(Reply::negotiated(status, "Unknown API version", "unknown_version"));
            }
            Named::Contradiction => {
                let message = "The request names several API versions";
                return AccessOutcome::Reply(Reply::negotiated(StatusCode::BAD_REQUEST, message, "several_versions"));
            }
            Named::Nothing => self.default,
        };
        let Some(index) = index else {
            let status = self.sources.status_without_version();
            return AccessOutcome::Reply(Reply::negotiated(status, "No API version", "no_version"));
        };
        let version = &self.versions[index];
        if version.has_fields() {
            cx.set_plugin_data(index);
        }
        let refusal = version.refusal(cx.now);
        *cx.api_version = Some(Arc::clone(self.version_use.record(index, refusal.is_some())));
        if let Some(status) = refusal {
            return AccessOutcome::Reply(Reply::negotiated(status, "This API version has ended", "version_ended"));
        }
        if let Some(name) = &self.upstream_header {
            cx.head.headers.insert(name, version.value.clone());
        }
        AccessOutcome::Continue
    }

    fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
        if let Some(version) = cx.plugin_data::<usize>().copied().and_then(|index| self.versions.get(index)) {
            version.set_fields(cx.headers);
        }
        ResponseOutcome::Continue
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        fields.request.add_all(&self.upstream_header);
        if self.versions.iter().any(Version::has_fields) {
            fields.response.add_all([&DEPRECATION, &SUNSET]);
        }
        if self.versions.iter().any(Version::has_links) {
            fields.response.add(&http::header::LINK);
        }
    }
}

/// The most versions of one plugin. Each request compares its version with all of them.
const MAX_VERSIONS: usize = 64;

/// The name of a version: up to 64 letters, digits, dots, hyphens and underscores, so that it needs no encoding
/// anywhere.
fn version_value(name: &str) -> Option<HeaderValue> {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_name = (1..=64).contains(&name.len()) && name.bytes().all(is_valid) && !matches!(name, "." | "..");
    HeaderValue::from_str(name).ok().filter(|_| is_name)
}

#[cfg(test)]
mod tests;
