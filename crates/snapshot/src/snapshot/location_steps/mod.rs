//! What a location does with its requests before any plugin runs, and with its responses, in the order of nginx: the
//! dialect `nginx` of Ingresses puts it first into the chains of its rules.
//!
//! ```text
//!   client certificate ▶ snippet of the host ▶ preflight ▶ snippet ▶ redirect ▶ redirect to HTTPS
//!                                                  ▶ size of the body ▶ guards ▶ plugins
//! ```
//!
//! The order is visible to clients: a preflight request is never redirected, and a request in plain text that is going
//! to be redirected is not denied because of its address. The guards, which need counters, passwords or servers, are
//! plugins of their own.

mod canary;
mod canary_sessions;
mod client_certificates;
mod cookie_value;
mod cross_origin;
mod host_redirect;
mod https_redirect;
mod request_values;
mod snippets;

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, LOCATION, STRICT_TRANSPORT_SECURITY};
use http::{HeaderName, HeaderValue, Method, StatusCode};

pub use self::canary::{CanaryRequests, HeaderCondition};
pub use self::canary_sessions::CanarySessions;
use self::client_certificates::denied;
pub use self::client_certificates::{CertificateMode, CertificateStep, ClientAuthorities, ClientCertificates};
pub use self::cross_origin::{AllowedOrigin, CrossOrigin};
pub use self::host_redirect::HostRedirect;
pub use self::https_redirect::HttpsRedirectOfLocation;
use self::https_redirect::without_port;
pub use self::request_values::{ESCAPED, LocationNames, RequestValues};
pub use self::snippets::LocationSnippets;
use self::snippets::{FieldsOfResponse, KeptRun, LocationRun, forbidden};
use super::location_path::PathReplacement;
use super::location_snippet::{BodyReplacements, LocationSearch, SnippetRun};
use super::redirect::RedirectBase;
use super::regex_steps::RegexSteps;
use crate::plugin_api::assertions::Assertions;
use crate::plugin_api::instance::{ExecutionPlace, PluginInstance};
use crate::plugin_api::{
    AccessOutcome, BeforeForwardCx, BeyondLimit, BodyFilter, BufferedFilter, ChangedFields, ClientInfo, Phases, Plugin,
    Reply, ReplyBody, RequestCx, ResponseCx, ResponseOutcome, ResponseSource, Scheme,
};

/// The steps of one location. The default does nothing.
#[derive(Debug, Default, PartialEq)]
pub struct LocationSteps {
    /// For all requests, before anything else.
    pub host_redirect: Option<HostRedirect>,
    /// For all requests of a host that verifies its clients.
    pub certificates: Option<CertificateStep>,
    pub snippets: Option<LocationSnippets>,
    pub cross_origin: Option<Arc<CrossOrigin>>,
    pub response: Option<FixedResponse>,
    /// What precedes a path as its target.
    pub base: RedirectBase,
    /// Redirects to the URL that replaces the path.
    pub replacement: Option<Arc<PathReplacement>>,
    pub https_redirect: Option<HttpsRedirectOfLocation>,
    /// The largest request body, in bytes.
    pub max_body_bytes: Option<u64>,
    /// `Strict-Transport-Security` of all responses over TLS.
    pub transport_security: Option<HeaderValue>,
    /// Of all responses, in place of those of the endpoint.
    pub response_headers: Box<[(HeaderName, HeaderValue)]>,
    /// The requests for the canary, which is the first backend that plugins may choose.
    pub canary: Option<CanaryRequests>,
    /// The sessions that precede this choice.
    pub canary_sessions: Option<CanarySessions>,
}

/// A response to all requests of a location: a redirect to one URL, unless the status is not one of a redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FixedResponse {
    pub status: StatusCode,
    /// `Location`. A path is one of the host of the request, unless it stays a path.
    pub target: HeaderValue,
}

impl FixedResponse {
    /// `base`: what precedes a path.
    fn reply(&self, client: ClientInfo<'_>, base: RedirectBase) -> Box<Reply> {
        // Of the statuses from 300 to 308, nginx sends only these with a `Location`.
        if !matches!(self.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Reply::new(self.status, ReplyBody::Empty, Reply::NO_REASON);
        }
        let target = match self.target.to_str() {
            Ok(path) if path.starts_with('/') => {
                let host = without_port(client.host).trim_end_matches('.').to_ascii_lowercase();
                let prefix = base.prefix(client.scheme.as_str(), &host, &client.port.to_string());
                HeaderValue::try_from(prefix + path).ok()
            }
            _ => Some(self.target.clone()),
        };
        redirect_to(self.status, target)
    }
}

impl LocationSteps {
    /// Before all plugins. No plugin has the name, so that a plugin of the operator runs, too.
    const PLACE: ExecutionPlace = ExecutionPlace { kind: "location", priority: i32::MAX };

    /// The steps as a part of a chain. `object`: what configures them.
    pub fn into_instance(self: Arc<Self>, scope: Arc<str>, object: Arc<str>) -> (ExecutionPlace, PluginInstance) {
        let instance = PluginInstance {
            phases: self.phases(),
            assertions: self.assertions(),
            plugin: self,
            scope,
            object,
            // The content of the rule includes the annotations.
            configuration_hash: 0,
            first_backend: 0,
        };
        (LocationSteps::PLACE, instance)
    }

    fn phases(&self) -> Phases {
        let edits = |edit: fn(&LocationSnippets) -> bool| self.snippets.as_ref().is_some_and(edit);
        Phases {
            before_forward: edits(LocationSnippets::changes_requests),
            response: self.cross_origin.is_some() || edits(LocationSnippets::changes_responses),
            ..Phases::ACCESS
        }
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        *self == LocationSteps::default()
    }

    fn response_of_location(&self, cx: &RequestCx<'_>) -> Option<Box<Reply>> {
        if let Some(response) = &self.response {
            return Some(response.reply(cx.client, self.base));
        }
        if let Some(replacement) = &self.replacement {
            let path = cx.raw_target.split('?').next().unwrap_or_default();
            let replaced = match replacement.apply(path) {
                Ok(replaced) => replaced,
                Err(_) => return Some(invalid_target()),
            };
            if let Some(mut target) = replaced.map(|replaced| replaced.path) {
                if let Some(query) = cx.query.filter(|query| !query.is_empty()) {
                    target.push('?');
                    target.push_str(query);
                }
                return Some(redirect_to(StatusCode::FOUND, HeaderValue::try_from(target).ok()));
            }
        }
        None
    }

    /// The response to a request that does not go on.
    fn reply(&self, cx: &mut RequestCx<'_>, kept: &mut KeptOfRequest) -> Option<Box<Reply>> {
        if let Some(redirect) = &self.host_redirect {
            return Some(redirect.reply(cx.client, cx.raw_target));
        }
        if let Some(certificates) = &self.certificates {
            if let Err(reply) = certificates.check(cx) {
                return Some(reply);
            }
            if certificates.requires_tls(cx.client) {
                return Some(self.redirect_to_https(cx).unwrap_or_else(denied));
            }
        }
        let certificates = self.certificates.as_ref();
        let run = match &self.snippets {
            Some(snippets) => match snippets.begin(cx, certificates, &mut kept.snippet) {
                Ok(run) => run,
                Err(reply) => return Some(reply),
            },
            None => SnippetRun::default(),
        };
        kept.allow_origin = self.cross_origin.as_ref().and_then(|rules| rules.allow_origin(&cx.head.headers));
        if kept.allow_origin.is_some() && cx.head.method == Method::OPTIONS {
            return Some(cross_origin::preflight_reply());
        }
        let is_denied = match &self.snippets {
            Some(snippets) => match self.run_snippet(snippets, run, cx, kept) {
                Ok(is_denied) => is_denied,
                Err(reply) => return Some(reply),
            },
            None => false,
        };
        if let Some(reply) = self.response_of_location(cx) {
            return Some(reply);
        }
        if let Some(redirect) = self.redirect_to_https(cx) {
            return Some(redirect);
        }
        if is_denied {
            return Some(forbidden());
        }
        if self.chooses_canary(cx) {
            cx.choose_backend(0, true);
        }
        self.limit_body(cx)
    }

    /// Runs the snippet of the location, again for each path to which its rewrites lead. Returns whether it denies the
    /// request.
    fn run_snippet(
        &self,
        snippets: &LocationSnippets,
        mut run: SnippetRun,
        cx: &mut RequestCx<'_>,
        kept: &mut KeptOfRequest,
    ) -> Result<bool, Box<Reply>> {
        let certificates = self.certificates.as_ref();
        loop {
            let (search, rewritten) = match snippets.access(run, cx, certificates, &mut kept.snippet)? {
                LocationRun::Ended { is_denied } => return Ok(is_denied),
                LocationRun::Searches(search, rewritten) => (search, rewritten),
            };
            // In nginx, these are further steps of the location, which run before the search.
            let response = (search == LocationSearch::AfterSteps).then(|| self.response_of_location(cx)).flatten();
            if let Some(reply) = response.or_else(|| self.redirect_to_https(cx)) {
                return Err(reply);
            }
            run = match snippets.search(*rewritten, cx, certificates, &mut kept.snippet) {
                Ok(run) => run,
                Err(reply) => {
                    // A location of the server has nothing of what the Ingress says about other origins.
                    kept.allow_origin = None;
                    return Err(reply);
                }
            };
        }
    }

    fn chooses_canary(&self, cx: &mut RequestCx<'_>) -> bool {
        let Some(canary) = &self.canary else { return false };
        let headers = &cx.head.headers;
        let by_session = self.canary_sessions.as_ref().and_then(|sessions| sessions.is_with_canary(headers));
        by_session.unwrap_or_else(|| canary.contains(headers, cx.regex_steps))
    }

    fn redirect_to_https(&self, cx: &RequestCx<'_>) -> Option<Box<Reply>> {
        let redirect = self.https_redirect?;
        let target = redirect.target(cx.client, cx.raw_target)?;
        Some(redirect_to(redirect.status, HeaderValue::try_from(target).ok()))
    }

    /// Rejects a body that is too large, or lets the proxy count its bytes if its length is unknown.
    fn limit_body(&self, cx: &mut RequestCx<'_>) -> Option<Box<Reply>> {
        let max_bytes = self.max_body_bytes?;
        let length = cx.head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        match length {
            Some(length) if length > max_bytes => {
                let message = "Request size limit exceeded";
                Some(Reply::negotiated(StatusCode::PAYLOAD_TOO_LARGE, message, "body_too_large"))
            }
            // The proxy ensures that the body is not longer than Content-Length.
            Some(_) => None,
            None => {
                let limit = &mut cx.body_changes.limit;
                *limit = Some(limit.map_or(max_bytes, |limit| limit.min(max_bytes)));
                None
            }
        }
    }
}

/// `target`: `None` if it is not a valid header value.
fn redirect_to(status: StatusCode, target: Option<HeaderValue>) -> Box<Reply> {
    match target {
        Some(target) => Reply::new(status, ReplyBody::Empty, "redirected").with_header(LOCATION, target),
        None => invalid_target(),
    }
}

fn invalid_target() -> Box<Reply> {
    Reply::negotiated(StatusCode::INTERNAL_SERVER_ERROR, "An unexpected error occurred", "invalid_rewrite")
}

impl Plugin for LocationSteps {
    fn may_wait(&self) -> bool {
        false
    }

    fn requests_client_certificate(&self) -> bool {
        self.certificates.as_ref().is_some_and(CertificateStep::requests_certificate)
    }

    fn declare_assertions(&self, assertions: &mut Assertions) {
        if self.certificates.is_some() {
            CertificateStep::declare_assertions(assertions);
        }
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        if self.transport_security.is_some() {
            fields.response.add(&STRICT_TRANSPORT_SECURITY);
        }
        for (name, _) in &self.response_headers {
            fields.response.add(name);
        }
        if let Some(snippets) = &self.snippets {
            snippets.declare_fields(fields);
        }
        if self.cross_origin.is_some() {
            fields.response.add_all(&cross_origin::FIELDS);
        }
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        // A proxy in front of Portico that terminates TLS sets the field itself.
        if let (Some(value), Scheme::Https) = (&self.transport_security, cx.client.received.scheme) {
            cx.response_headers.insert(STRICT_TRANSPORT_SECURITY, value.clone());
        }
        for (name, value) in &self.response_headers {
            cx.response_headers.insert(name.clone(), value.clone());
        }
        let mut kept = KeptOfRequest::default();
        let reply = self.reply(cx, &mut kept);
        if kept.allow_origin.is_some() || kept.snippet.is_some() {
            cx.set_plugin_data(kept);
        }
        reply.map_or(AccessOutcome::Continue, AccessOutcome::Reply)
    }

    fn before_forward<'a>(&'a self, cx: &'a mut BeforeForwardCx<'_>) -> AccessOutcome<'a> {
        let mut headers = std::mem::take(&mut cx.head.headers);
        if let Some(KeptOfRequest { snippet: Some(kept), .. }) = cx.stored_in_access() {
            // Now, so that neither guards nor plugins take what the endpoint gets for what the client has sent.
            kept.edit_request(&mut headers);
        }
        cx.head.headers = headers;
        AccessOutcome::Continue
    }

    fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
        let (status, source) = (cx.status, cx.source);
        let mut fields = FieldsOfResponse {
            status,
            source,
            headers: std::mem::take(cx.headers),
            steps: RegexSteps::new(cx.regex_steps.remaining()),
        };
        let kept = cx.plugin_data::<KeptOfRequest>();
        let kept_run = kept.as_ref().and_then(|kept| kept.snippet.as_ref());
        let page = match (&self.snippets, kept_run) {
            (Some(snippets), Some(run)) if source != ResponseSource::Service => snippets.error_page(run, status),
            _ => None,
        };
        // The fields are then those of the redirect, and the error keeps its own until it is replaced.
        let of_error = page.as_ref().map(|page| {
            fields.status = page.status;
            std::mem::replace(&mut fields.headers, page.headers.clone())
        });
        let kept_run = kept.as_ref().and_then(|kept| kept.snippet.as_ref());
        let body = self.snippets.as_ref().and_then(|snippets| snippets.response(kept_run, &mut fields));
        if let (Some(rules), Some(kept)) = (&self.cross_origin, kept)
            && let Some(allow_origin) = kept.allow_origin.take()
        {
            rules.set_fields(allow_origin, &mut fields.headers);
        }
        cx.regex_steps.keep(fields.steps.remaining());
        match page.zip(of_error) {
            Some((mut page, of_error)) => {
                page.headers = fields.headers;
                *cx.headers = of_error;
                ResponseOutcome::Replace(page)
            }
            None => {
                *cx.headers = fields.headers;
                if let Some(body) = body {
                    cx.push_body_filter(BodyFilter::Buffered(BufferedFilter {
                        max_bytes: BodyReplacements::MAX_BODY,
                        beyond_limit: BeyondLimit::PassUnchanged,
                        reads_text: false,
                        transform: Box::new(move |bytes| body.apply(bytes).map(Into::into)),
                    }));
                }
                ResponseOutcome::Continue
            }
        }
    }
}

/// What `access` keeps for the later phases.
#[derive(Default)]
struct KeptOfRequest {
    /// The origin that may read the response.
    allow_origin: Option<HeaderValue>,
    snippet: Option<KeptRun>,
}

#[cfg(test)]
mod tests;
