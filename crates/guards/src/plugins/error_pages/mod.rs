//! `error-pages`: replaces the bodies of errors by pages.
//!
//! ```yaml
//! plugin: error-pages
//! config:
//!   pages:
//!     - statuses: [404, "500-504"]
//!       from: both
//!       bodies:
//!         - content_type: text/html; charset=utf-8
//!           template: "<h1>{{status}} {{title}}</h1><p>Request {{request_id}}</p>"
//!         - content_type: application/problem+json
//!           template: '{"title": "{{title}}", "status": {{status}}, "instance": "{{path}}"}'
//! ```
//!
//! The first page that fits the status, the host and the source of a response replaces its body. `Accept` of the
//! request selects the format. The status stays, and so do all header fields except those that describe the former
//! body: fields whose names begin with `Content-`, `ETag`, `Last-Modified`, `Accept-Ranges` and digests. Without a
//! `Cache-Control`, that of the field `cache_control` is set. The response to HEAD has the length of the page.
//!
//! Variables in templates are `{{status}}`, `{{title}}` (the phrase of the status), `{{reason}}` (the reason of an
//! error of Portico or a plugin, as in the access log, empty for backends), `{{request_id}}`, `{{host}}` and `{{path}}`
//! (as the client sent them, without the query). Their values are escaped for HTML, XML or JSON; in JSON, a variable
//! stands inside of a string in quotes, except `{{status}}`. Two opening braces always begin a variable.
//!
//! Attached globally, by a KongClusterPlugin with the label `global: "true"`, the plugin also replaces the 404 of
//! requests that no route matches, and other errors of requests before they have a route. Errors for which Portico
//! cannot read the head of a request have no pages.
//!
//! Calls of gRPC never get a page. The access log and the metrics keep the reason of the replaced error; that of a
//! replaced response of a backend is `error_page`.

mod page;
mod page_template;
#[cfg(test)]
mod tests;

use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName, LAST_MODIFIED, TRAILER, TRANSFER_ENCODING, VARY,
};
use http::{HeaderMap, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use self::page::{Page, PageBody, PageConfig};
use self::page_template::PageValues;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::content_coding::DIGESTS;
use crate::plugin_api::media_type::is_grpc;
use crate::plugin_api::{
    BuildCx, ChangedFields, Phases, Plugin, PluginKind, Reply, ReplyBody, ResponseCx, ResponseOutcome, Scopes,
};
use crate::plugin_kit::weighted_list::weighted_members;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The pages. The first one that fits a response replaces its body.
    pages: Vec<PageConfig>,
    /// The value of `Cache-Control` for pages in place of responses without one. Empty to set none; caches may then
    /// store a 404 for a while.
    cache_control: String,
}

impl Default for Config {
    fn default() -> Self {
        Config { pages: Vec::new(), cache_control: "no-store".to_owned() }
    }
}

pub(crate) struct ErrorPages {
    pages: Box<[Page]>,
    cache_control: Option<HeaderValue>,
}

impl PluginKind for ErrorPages {
    const NAME: &'static str = "error-pages";
    // After all others, which may change the status of a response or replace it.
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 1;
    const PHASES: Phases = Phases::RESPONSE;
    const FAIL_CLOSED: bool = false;
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    type Config = Config;
    type Plugin = ErrorPages;

    fn build(config: Config, _cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut problems = Vec::new();
        if config.pages.is_empty() {
            problems.push(Diagnostic::in_config("pages", "is empty", "add a page with statuses and bodies"));
        }
        if config.pages.len() > MAX_PAGES {
            let message = format!("has {} pages, more than {MAX_PAGES}", config.pages.len());
            problems.push(Diagnostic::in_config("pages", message, "use ranges of statuses"));
        }
        let bytes: usize = config.pages.iter().map(Page::template_bytes).sum();
        if bytes > MAX_TEMPLATE_BYTES {
            let message = format!("the templates have {bytes} bytes together, more than {MAX_TEMPLATE_BYTES}");
            problems.push(Diagnostic::in_config("pages", message, "serve images and styles from another place"));
        }
        let cache_control = match HeaderValue::from_str(&config.cache_control) {
            Ok(value) => Some(value).filter(|value| !value.is_empty()),
            Err(_) => {
                let remedy = "use a value such as no-store";
                problems.push(Diagnostic::in_config("cache_control", "is no value of a header", remedy));
                None
            }
        };
        let mut hidden = Vec::new();
        let build = |(index, page)| Page::build(&format!("pages[{index}]"), page, &mut problems);
        let pages: Box<[Page]> = config.pages.into_iter().enumerate().map(build).collect();
        for (index, page) in pages.iter().enumerate().filter(|_| problems.is_empty()) {
            if let Some(earlier) = pages[..index].iter().position(|earlier| page.is_covered_by(earlier)) {
                let message = format!("never applies, because pages[{earlier}] applies to the same responses");
                let remedy = "remove it, or move it before that one";
                hidden.push(Diagnostic::in_config(format!("pages[{index}]"), message, remedy));
            }
        }
        problems.append(&mut hidden);
        if problems.is_empty() { Ok(ErrorPages { pages, cache_control }) } else { Err(problems) }
    }
}

impl Plugin for ErrorPages {
    fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
        let status = cx.status.as_u16();
        if status < 400 || cx.request.is_call || is_grpc(cx.headers) {
            return ResponseOutcome::Continue;
        }
        let line = cx.request.line;
        let host = line.and_then(|line| line.host.as_ref()).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let name = host_name(host).to_ascii_lowercase();
        let Some(page) = self.pages.iter().find(|page| page.applies_to(status, cx.source, &name)) else {
            return ResponseOutcome::Continue;
        };
        let accepted = cx.request.accept.map(|accept| weighted_members([accept])).unwrap_or_default();
        let Some(body) = page.best_body(&accepted) else { return ResponseOutcome::Continue };
        let text = body.render(&PageValues {
            status,
            title: cx.status.canonical_reason().unwrap_or("Error"),
            reason: cx.request.reason.unwrap_or_default(),
            request_id: &String::from_utf8_lossy(cx.id.as_bytes()),
            host,
            path: line.map_or("", |line| line.target.path()),
        });
        let mut reply = Reply::new(cx.status, ReplyBody::Raw(text.into()), "error_page");
        if let Some(reason) = cx.request.reason {
            reply.reason = reason;
        }
        reply.headers = self.page_headers(cx.headers, body, page.is_negotiated());
        ResponseOutcome::Replace(reply)
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        for name in [&CONTENT_TYPE, &CACHE_CONTROL, &VARY, &ETAG, &LAST_MODIFIED, &ACCEPT_RANGES] {
            fields.response.add(name);
        }
    }

    fn reads_request_line(&self) -> bool {
        true
    }

    fn serves_unmatched(&self) -> bool {
        true
    }
}

impl ErrorPages {
    /// The fields of the page: those of the response that it replaces, and its own.
    fn page_headers(&self, former: &HeaderMap, body: &PageBody, is_negotiated: bool) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(former.len() + 2);
        for (name, value) in former.iter().filter(|(name, _)| !describes_body(name) && !Reply::is_kept_by_proxy(name)) {
            headers.append(name, value.clone());
        }
        headers.insert(CONTENT_TYPE, body.content_type.clone());
        if let Some(cache_control) = &self.cache_control {
            headers.entry(CACHE_CONTROL).or_insert_with(|| cache_control.clone());
        }
        if is_negotiated {
            headers.append(VARY, HeaderValue::from_static("Accept"));
        }
        headers
    }
}

/// Whether a field is about the body that the page replaces.
fn describes_body(name: &HeaderName) -> bool {
    let is_content_field = name.as_str().starts_with("content-") && !name.as_str().starts_with("content-security-");
    is_content_field
        || [ETAG, LAST_MODIFIED, ACCEPT_RANGES, TRAILER, TRANSFER_ENCODING].contains(name)
        || DIGESTS.contains(name)
}

/// The host without its port.
fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.contains(':') => name,
        _ => host,
    }
}

const MAX_PAGES: usize = 100;

/// Each process keeps the templates of all plugins in memory.
const MAX_TEMPLATE_BYTES: usize = 1 << 20;
