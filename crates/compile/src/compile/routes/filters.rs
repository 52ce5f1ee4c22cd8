//! Translates the filters of rules and backends to those of the snapshot.

use std::sync::Arc;

use http::header::HOST;
use http::{HeaderName, HeaderValue, StatusCode};

use super::cors;
use super::external_auth;
use super::filter_parts::{FilterBackend, ResolveBackend};
use crate::api::gateway::{
    Filter, HeaderModifier, LocalObjectReference, PathModifier, RequestMirror, RequestRedirect, UrlRewrite,
};
use crate::compile::kong::plugins;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::field_names::is_framing;
use crate::snapshot::rule::{Filters, HeaderEdits, Mirror, PathEdit, RedirectAction, Rewrite, Scheme};
use crate::upstream::Upstream;

/// All filters of one rule or backend.
#[derive(Debug, Default)]
pub(in crate::compile) struct TranslatedFilters {
    pub filters: Filters,
    pub redirect: Option<RedirectAction>,
    /// Valid filters that are not supported, and values that the API's validation rejects. A rule or backend with one
    /// of these must not be served without the filter.
    pub unsupported: Vec<Diagnostic>,
    /// KongPlugins of the route's namespace, each with the path of the field that names it.
    pub extensions: Vec<(String, String)>,
    /// References to extensions that cannot be resolved.
    pub unresolved: Vec<Diagnostic>,
    /// The filters contain ExternalAuth.
    has_external_auth: bool,
    /// An authorization server cannot be used, so the rule or backend must not be served.
    pub lacks_authorization_server: bool,
}

/// Where filters are attached, which decides which types are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::compile) enum FilterLevel {
    Rule,
    Backend,
}

/// Returns the diagnostic at a field about a plugin of this name, if it does not exist.
type MissingPlugin<'a> = &'a dyn Fn(&str, &str) -> Option<Diagnostic>;

/// Translates the filters at `field`.
///
/// `prefix` is the path prefix of the rule's match, if the rule has exactly one match and its type is PathPrefix.
/// `resolve` finds the upstream that a filter refers to, or records why there is none. `missing_plugin` returns the
/// diagnostic at a field if the route's namespace has no KongPlugin of this name.
pub(in crate::compile) fn translate(
    filters: &[Filter],
    level: FilterLevel,
    prefix: Option<&str>,
    field: &str,
    missing_plugin: MissingPlugin<'_>,
    resolve: ResolveBackend<'_>,
) -> TranslatedFilters {
    let mut result = TranslatedFilters::default();
    let mut mirrors = Vec::new();
    for (index, filter) in filters.iter().enumerate() {
        let field = format!("{field}.filters[{index}]");
        let mut translator = FilterTranslator { field, prefix, result: &mut result };
        match &*filter.kind {
            "RequestHeaderModifier" => {
                let edits = filter
                    .request_header_modifier
                    .as_ref()
                    .map(|modifier| translator.header_edits(modifier, HeaderDirection::Request));
                translator.result.filters.request_headers = edits;
            }
            "ResponseHeaderModifier" => {
                let edits = filter
                    .response_header_modifier
                    .as_ref()
                    .map(|modifier| translator.header_edits(modifier, HeaderDirection::Response));
                translator.result.filters.response_headers = edits;
            }
            "URLRewrite" => {
                let rewrite = filter.url_rewrite.as_ref().map(|rewrite| translator.rewrite(rewrite));
                translator.result.filters.rewrite = rewrite;
            }
            "RequestRedirect" if level == FilterLevel::Rule => {
                let redirect = filter.request_redirect.as_ref().map(|redirect| translator.redirect(redirect));
                translator.result.redirect = redirect;
            }
            "RequestMirror" => {
                let Some(mirror) = &filter.request_mirror else { continue };
                let field = format!("{}.requestMirror.backendRef", translator.field);
                let upstream = resolve(&mirror.backend_ref, FilterBackend::Mirror, &field);
                // Without an upstream, the rule is served without this mirror: clients do not depend on the copies.
                mirrors.extend(upstream.map(|upstream| translate_mirror(mirror, upstream)));
            }
            "CORS" => {
                let Some(raw) = &filter.cors else { continue };
                let filter = cors::translate(raw, &translator.field, &mut translator.result.unsupported);
                translator.result.filters.cors = Some(Box::new(filter));
            }
            "ExternalAuth" if translator.result.has_external_auth => {
                let message = "a rule or backend has only one filter ExternalAuth".to_owned();
                translator.unsupported("type", message, "keep one filter, whose server makes all checks");
            }
            "ExternalAuth" => {
                // A definition of the standard channel removes the field from an object of the experimental one.
                let Some(raw) = &filter.external_auth else {
                    let message = "externalAuth is missing, so there is no authorization server".to_owned();
                    let remedy = "set it, with the definition of HTTPRoute from the experimental channel";
                    translator.unsupported("externalAuth", message, remedy);
                    continue;
                };
                let result = &mut *translator.result;
                let filter = external_auth::translate(raw, &translator.field, resolve, &mut result.unsupported);
                result.has_external_auth = true;
                result.lacks_authorization_server |= filter.is_none();
                result.filters.external_auth = filter.map(Box::new);
            }
            "ExtensionRef" => translator.extension(filter.extension_ref.as_ref(), level, missing_plugin),
            "RequestRedirect" => {
                let message = "filter RequestRedirect is not supported on a backend".to_owned();
                translator.unsupported("type", message, "move the filter to the rule");
            }
            kind => {
                let message = format!("filter {kind} is not served by this version");
                translator.unsupported("type", message, "remove the filter, if requests may be served without it");
            }
        }
    }
    result.filters.mirrors = mirrors.into();
    result
}

/// A mirror gets all requests, a percentage, or a fraction whose denominator defaults to 100.
fn translate_mirror(mirror: &RequestMirror, upstream: Arc<Upstream>) -> Mirror {
    let to_u32 = |number: i32| u32::try_from(number).unwrap_or(0);
    let (numerator, denominator) = match (&mirror.percent, &mirror.fraction) {
        (Some(percent), _) => (to_u32(*percent), 100),
        (None, Some(fraction)) => (to_u32(fraction.numerator), to_u32(fraction.denominator.unwrap_or(100)).max(1)),
        (None, None) => (1, 1),
    };
    Mirror { upstream, numerator, denominator }
}

/// Translates one filter into `result`. Its methods take paths of fields within the filter.
struct FilterTranslator<'a> {
    /// The path of the filter.
    field: String,
    /// The path prefix that `ReplacePrefixMatch` replaces.
    prefix: Option<&'a str>,
    result: &'a mut TranslatedFilters,
}

/// Which headers a filter modifies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HeaderDirection {
    Request,
    Response,
}

impl HeaderDirection {
    fn field(self) -> &'static str {
        match self {
            HeaderDirection::Request => "requestHeaderModifier",
            HeaderDirection::Response => "responseHeaderModifier",
        }
    }
}

impl FilterTranslator<'_> {
    fn unsupported(&mut self, subfield: &str, message: String, remedy: &str) {
        let field = format!("{}.{subfield}", self.field);
        self.result.unsupported.push(Diagnostic::error(field, message, remedy));
    }

    /// Adds the KongPlugin that a filter refers to, or a diagnostic.
    fn extension(
        &mut self,
        reference: Option<&LocalObjectReference>,
        level: FilterLevel,
        missing_plugin: MissingPlugin<'_>,
    ) {
        let field = format!("{}.extensionRef", self.field);
        let plugin = reference.filter(|reference| plugins::is_plugin_reference(reference));
        let (message, remedy) = match (reference, plugin) {
            (_, Some(_)) if level == FilterLevel::Backend => {
                ("plugins run for a rule, not for a single backend".to_owned(), "move the filter to the rule")
            }
            (_, Some(plugin)) => {
                match missing_plugin(&field, &plugin.name) {
                    Some(problem) => self.result.unresolved.push(problem),
                    None => self.result.extensions.push((plugin.name.clone(), field)),
                }
                return;
            }
            (Some(reference), None) => (
                format!("extensions of kind {} of group {} are not supported", reference.kind, reference.group),
                "remove the filter, if requests may be served without it",
            ),
            (None, None) => {
                ("extensionRef is missing".to_owned(), "set extensionRef to a KongPlugin of this namespace")
            }
        };
        self.result.unresolved.push(Diagnostic::error(field, message, remedy));
    }

    fn header_edits(&mut self, modifier: &HeaderModifier, direction: HeaderDirection) -> HeaderEdits {
        let mut edits = HeaderEdits::default();
        for (list, entries, target) in [("set", &modifier.set, &mut edits.set), ("add", &modifier.add, &mut edits.add)]
        {
            for (index, header) in entries.iter().enumerate() {
                let field = format!("{}.{list}[{index}]", direction.field());
                let name = self.header_name(&header.name, &format!("{field}.name"));
                let name =
                    if list == "add" { self.reject_host(name, direction, &format!("{field}.name")) } else { name };
                let value = self.header_value(&header.value, &format!("{field}.value"));
                if let (Some(name), Some(value)) = (name, value)
                    // One action per name: the first entry counts, as Gateway API specifies.
                    && !target.iter().any(|(known, _)| *known == name)
                {
                    target.push((name, value));
                }
            }
        }
        for (index, name) in modifier.remove.iter().enumerate() {
            let field = format!("{}.remove[{index}]", direction.field());
            let name = self.header_name(name, &field);
            edits.remove.extend(self.reject_host(name, direction, &field));
        }
        edits
    }

    /// Rejects an edit that adds or removes `Host`. A request has exactly one (RFC 9112, section 3.2); with two,
    /// recipients may disagree on which one counts.
    fn reject_host(
        &mut self,
        name: Option<HeaderName>,
        direction: HeaderDirection,
        subfield: &str,
    ) -> Option<HeaderName> {
        if direction == HeaderDirection::Request && name == Some(HOST) {
            let message = "Host cannot be added or removed, because a request has exactly one".to_owned();
            self.unsupported(subfield, message, "use set, or hostname of a URLRewrite filter, to change it");
            return None;
        }
        name
    }

    fn header_name(&mut self, name: &str, subfield: &str) -> Option<HeaderName> {
        let parsed = HeaderName::try_from(name).ok();
        match &parsed {
            None => {
                self.unsupported(subfield, format!("{name:?} is not a header name"), "use letters, digits and hyphens")
            }
            // The proxy sets these headers itself; a configured value could contradict the body or the connection.
            Some(name) if is_framing(name) => {
                self.unsupported(subfield, format!("the proxy sets {name} itself"), "remove the entry");
                return None;
            }
            Some(_) => {}
        }
        parsed
    }

    fn header_value(&mut self, value: &str, subfield: &str) -> Option<HeaderValue> {
        let parsed = HeaderValue::from_str(value).ok();
        if parsed.is_none() {
            self.unsupported(subfield, "the value has control characters".to_owned(), "remove these characters");
        }
        parsed
    }

    fn rewrite(&mut self, rewrite: &UrlRewrite) -> Rewrite {
        let host = rewrite.hostname.as_deref().and_then(|name| self.header_value(name, "urlRewrite.hostname"));
        let path = rewrite.path.as_ref().and_then(|path| self.path_edit(path, "urlRewrite.path"));
        Rewrite { host, path }
    }

    fn redirect(&mut self, redirect: &RequestRedirect) -> RedirectAction {
        let scheme = redirect.scheme.as_deref().and_then(|scheme| match scheme {
            "http" => Some(Scheme::Http),
            "https" => Some(Scheme::Https),
            other => {
                self.unsupported(
                    "requestRedirect.scheme",
                    format!("scheme {other} is not supported"),
                    "use http or https",
                );
                None
            }
        });
        let path = redirect.path.as_ref().and_then(|path| self.path_edit(path, "requestRedirect.path"));
        let port = redirect.port.and_then(|port| u16::try_from(port).ok());
        let status = match redirect.status_code {
            301 | 302 | 303 | 307 | 308 => StatusCode::from_u16(redirect.status_code).unwrap_or(StatusCode::FOUND),
            other => {
                let remedy = "use 301, 302, 303, 307 or 308";
                self.unsupported("requestRedirect.statusCode", format!("status {other} is not supported"), remedy);
                StatusCode::FOUND
            }
        };
        let host = redirect.hostname.as_deref().map(Box::from);
        RedirectAction { scheme, host, path, port, ..RedirectAction::new(status) }
    }

    fn path_edit(&mut self, modifier: &PathModifier, subfield: &str) -> Option<PathEdit> {
        match &*modifier.kind {
            "ReplaceFullPath" => Some(PathEdit::full(modifier.replace_full_path.as_deref().unwrap_or_default())),
            "ReplacePrefixMatch" => match self.prefix {
                Some(prefix) => {
                    Some(PathEdit::prefix(prefix, modifier.replace_prefix_match.as_deref().unwrap_or_default()))
                }
                None => {
                    let message =
                        "ReplacePrefixMatch needs a rule with exactly one match, of type PathPrefix".to_owned();
                    self.unsupported(&format!("{subfield}.type"), message, "use ReplaceFullPath, or split the rule");
                    None
                }
            },
            other => {
                let message = format!("{other} is not a type of path modifier");
                self.unsupported(&format!("{subfield}.type"), message, "use ReplaceFullPath or ReplacePrefixMatch");
                None
            }
        }
    }
}
