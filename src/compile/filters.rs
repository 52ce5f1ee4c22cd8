//! Translates the filters of rules and backends to those of the snapshot.

use std::sync::Arc;

use http::header::HOST;
use http::{HeaderName, HeaderValue, StatusCode};

use super::cors;
use crate::api::Kind;
use crate::api::gateway::{
    BackendObjectReference, Filter, HeaderModifier, LocalObjectReference, PathModifier, RequestMirror, RequestRedirect,
    UrlRewrite,
};
use crate::api::kind::KONG_GROUP;
use crate::diagnostic::Diagnostic;
use crate::snapshot::rule::{Filters, HeaderEdits, Mirror, PathEdit, RedirectAction, Rewrite, Scheme};
use crate::upstream::Upstream;

/// All filters of one rule or backend.
#[derive(Debug, Default)]
pub(super) struct TranslatedFilters {
    pub filters: Filters,
    pub redirect: Option<RedirectAction>,
    /// Valid filters that are not supported, and values that the API's validation rejects. A rule or backend with one
    /// of these must not be served without the filter.
    pub unsupported: Vec<Diagnostic>,
    /// KongPlugins of the route's namespace, each with the path of the field that names it.
    pub extensions: Vec<(String, String)>,
    /// References that cannot be resolved.
    pub unresolved: Vec<Diagnostic>,
}

/// Where filters are attached, which decides which types are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FilterLevel {
    Rule,
    Backend,
}

/// Translates the filters at `field`.
///
/// `prefix` is the path prefix of the only match of the rule, if it has exactly one, of type PathPrefix. `resolve`
/// finds the upstream of a mirror, or records why there is none; `is_plugin` returns whether the namespace has a
/// KongPlugin of this name.
pub(super) fn translate(
    filters: &[Filter],
    level: FilterLevel,
    prefix: Option<&str>,
    field: &str,
    is_plugin: &dyn Fn(&str) -> bool,
    resolve: &mut dyn FnMut(&BackendObjectReference, &str) -> Option<Arc<Upstream>>,
) -> TranslatedFilters {
    let mut result = TranslatedFilters::default();
    let mut mirrors = Vec::new();
    for (index, filter) in filters.iter().enumerate() {
        let mut one = FilterTranslator { field: format!("{field}.filters[{index}]"), prefix, result: &mut result };
        match &*filter.kind {
            "RequestHeaderModifier" => {
                let edits = filter
                    .request_header_modifier
                    .as_ref()
                    .map(|edits| one.header_edits(edits, "requestHeaderModifier"));
                one.result.filters.request_headers = edits;
            }
            "ResponseHeaderModifier" => {
                let edits = filter
                    .response_header_modifier
                    .as_ref()
                    .map(|edits| one.header_edits(edits, "responseHeaderModifier"));
                one.result.filters.response_headers = edits;
            }
            "URLRewrite" => {
                let rewrite = filter.url_rewrite.as_ref().map(|rewrite| one.rewrite(rewrite));
                one.result.filters.rewrite = rewrite;
            }
            "RequestRedirect" if level == FilterLevel::Rule => {
                let redirect = filter.request_redirect.as_ref().map(|redirect| one.redirect(redirect));
                one.result.redirect = redirect;
            }
            "RequestMirror" => {
                let Some(raw) = &filter.request_mirror else { continue };
                let upstream = resolve(&raw.backend_ref, &format!("{}.requestMirror.backendRef", one.field));
                // Without an upstream, the rule is served without this mirror: clients do not depend on the copies.
                mirrors.extend(upstream.map(|upstream| translate_mirror(raw, upstream)));
            }
            "CORS" => {
                let Some(raw) = &filter.cors else { continue };
                let filter = cors::translate(raw, &one.field, &mut one.result.unsupported);
                one.result.filters.cors = Some(Box::new(filter));
            }
            "ExtensionRef" => one.extension(filter.extension_ref.as_ref(), level, is_plugin),
            kind => {
                let message = format!("filter {kind} is not served by this version");
                one.unsupported("type", message, "remove the filter, if requests may be served without it");
            }
        }
    }
    result.filters.mirrors = mirrors.into();
    result
}

/// All requests, a percentage, or a fraction whose denominator defaults to 100.
fn translate_mirror(raw: &RequestMirror, upstream: Arc<Upstream>) -> Mirror {
    let part = |number: i32| u32::try_from(number).unwrap_or(0);
    let (share, of) = match (&raw.percent, &raw.fraction) {
        (Some(percent), _) => (part(*percent), 100),
        (None, Some(fraction)) => (part(fraction.numerator), part(fraction.denominator.unwrap_or(100)).max(1)),
        (None, None) => (1, 1),
    };
    Mirror { upstream, numerator: share, denominator: of }
}

struct FilterTranslator<'a> {
    field: String,
    prefix: Option<&'a str>,
    result: &'a mut TranslatedFilters,
}

impl FilterTranslator<'_> {
    fn unsupported(&mut self, part: &str, message: String, remedy: &str) {
        let field = format!("{}.{part}", self.field);
        self.result.unsupported.push(Diagnostic::error(field, message, remedy));
    }

    /// The KongPlugin that a filter refers to.
    fn extension(
        &mut self,
        reference: Option<&LocalObjectReference>,
        level: FilterLevel,
        is_plugin: &dyn Fn(&str) -> bool,
    ) {
        let field = format!("{}.extensionRef", self.field);
        let is_kong = |reference: &&LocalObjectReference| {
            reference.group == KONG_GROUP && reference.kind == Kind::KongPlugin.name()
        };
        let (message, remedy) = match (reference, reference.filter(is_kong)) {
            (_, Some(plugin)) if level == FilterLevel::Rule && is_plugin(&plugin.name) => {
                self.result.extensions.push((plugin.name.clone(), field));
                return;
            }
            (_, Some(_)) if level == FilterLevel::Backend => {
                ("plugins run for a rule, not for a single backend".to_owned(), "name it in the filters of the rule")
            }
            (_, Some(plugin)) => (
                format!("KongPlugin {} does not exist in this namespace", plugin.name),
                "create it or correct the name",
            ),
            (Some(reference), None) => (
                format!("extensions of kind {} of group {} are not supported", reference.kind, reference.group),
                "remove the filter, if requests may be served without it",
            ),
            (None, None) => ("extensionRef is missing".to_owned(), "name it under extensionRef"),
        };
        self.result.unresolved.push(Diagnostic::error(field, message, remedy));
    }

    fn header_edits(&mut self, modifier: &HeaderModifier, part: &str) -> HeaderEdits {
        let mut edits = HeaderEdits::default();
        for (list, from, to) in [("set", &modifier.set, &mut edits.set), ("add", &modifier.add, &mut edits.add)] {
            for (index, header) in from.iter().enumerate() {
                let field = format!("{part}.{list}[{index}]");
                let name = self.header_name(&header.name, &format!("{field}.name"));
                let name = if list == "add" { self.reject_host(name, part, &format!("{field}.name")) } else { name };
                let value = self.header_value(&header.value, &format!("{field}.value"));
                if let (Some(name), Some(value)) = (name, value)
                    // One action per name: the first entry counts, as Gateway API specifies.
                    && !to.iter().any(|(known, _)| *known == name)
                {
                    to.push((name, value));
                }
            }
        }
        for (index, name) in modifier.remove.iter().enumerate() {
            let field = format!("{part}.remove[{index}]");
            let name = self.header_name(name, &field);
            edits.remove.extend(self.reject_host(name, part, &field));
        }
        edits
    }

    /// A request has exactly one Host (RFC 9112, section 3.2); with two, recipients may disagree on which one counts.
    fn reject_host(&mut self, name: Option<HeaderName>, part: &str, field: &str) -> Option<HeaderName> {
        if part == "requestHeaderModifier" && name == Some(HOST) {
            let remedy = "use set, or hostname of a URLRewrite filter, to change it";
            self.unsupported(field, "a request has exactly one Host".to_owned(), remedy);
            return None;
        }
        name
    }

    fn header_name(&mut self, name: &str, part: &str) -> Option<HeaderName> {
        let parsed = HeaderName::try_from(name).ok();
        match &parsed {
            None => self.unsupported(part, format!("{name:?} is not a header name"), "use letters, digits and hyphens"),
            // The proxy sets these headers itself; a configured value could contradict the body or the connection.
            Some(name) if is_framing(name) => {
                self.unsupported(part, format!("{name} frames the message and cannot be changed"), "remove the entry");
                return None;
            }
            Some(_) => {}
        }
        parsed
    }

    fn header_value(&mut self, value: &str, part: &str) -> Option<HeaderValue> {
        let parsed = HeaderValue::from_str(value).ok();
        if parsed.is_none() {
            self.unsupported(part, "the value has control characters".to_owned(), "remove them");
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
                self.unsupported("requestRedirect.scheme", format!("{other} is not a scheme"), "use http or https");
                None
            }
        });
        let path = redirect.path.as_ref().and_then(|path| self.path_edit(path, "requestRedirect.path"));
        let port = redirect.port.and_then(|port| u16::try_from(port).ok());
        let status = match redirect.status_code {
            301 | 302 | 303 | 307 | 308 => StatusCode::from_u16(redirect.status_code).unwrap_or(StatusCode::FOUND),
            other => {
                let remedy = "use 301, 302, 303, 307 or 308";
                self.unsupported("requestRedirect.statusCode", format!("{other} is not a redirect"), remedy);
                StatusCode::FOUND
            }
        };
        RedirectAction { scheme, host: redirect.hostname.as_deref().map(Box::from), path, port, status }
    }

    fn path_edit(&mut self, modifier: &PathModifier, part: &str) -> Option<PathEdit> {
        match &*modifier.kind {
            "ReplaceFullPath" => Some(PathEdit::full(modifier.replace_full_path.as_deref().unwrap_or_default())),
            "ReplacePrefixMatch" => match self.prefix {
                Some(prefix) => {
                    Some(PathEdit::prefix(prefix, modifier.replace_prefix_match.as_deref().unwrap_or_default()))
                }
                None => {
                    let message =
                        "ReplacePrefixMatch needs a rule with exactly one match, of type PathPrefix".to_owned();
                    self.unsupported(&format!("{part}.type"), message, "use ReplaceFullPath, or split the rule");
                    None
                }
            },
            other => {
                let message = format!("{other} is not a type of path modifier");
                self.unsupported(&format!("{part}.type"), message, "use ReplaceFullPath or ReplacePrefixMatch");
                None
            }
        }
    }
}

fn is_framing(name: &HeaderName) -> bool {
    use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
    [CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE].contains(name)
}
