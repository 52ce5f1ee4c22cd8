//! What the snippets of a location and of its host do with requests and responses.
//!
//! ```text
//!   snippet of the server ▶ its locations ▶ preflight ▶ snippet of the location ▶ …  ▶ fields for the endpoint
//!                                 ▲                               │                  ▶ fields of the response
//!                                 └─────── rewrite ◀──────────────┘
//! ```

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{CONNECTION, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::FixedResponse;
use super::client_certificates::CertificateStep;
use super::request_values::{LocationNames, RequestValues};
use crate::plugin_api::fields::replace_target;
use crate::plugin_api::{ChangedFields, Reply, ReplyBody, RequestCx, ResponseSource};
use crate::snapshot::location_snippet::{
    BodyReplacements, LocationSearch, MatchedLocation, RequestFieldEdit, Snippet, SnippetFailure, SnippetReply,
    SnippetResponseOrigin, SnippetRun, SnippetTarget, SnippetValues, SnippetVariable, SnippetVerdict,
};
use crate::snapshot::redirect::RedirectBase;
use crate::snapshot::regex_steps::{RegexInput, RegexSteps};

/// The snippets of one location.
#[derive(Debug, PartialEq)]
pub struct LocationSnippets {
    /// That of the host.
    pub server: Option<Arc<Snippet>>,
    /// That of the location, with what it inherits from the host.
    pub location: Arc<Snippet>,
    pub names: LocationNames,
    /// How requests have found the location, which decides whether one of the server precedes it.
    pub matched: MatchedLocation,
    /// What precedes a path as the target of a redirect of the snippet of the location.
    pub base: RedirectBase,
    /// What of the snippet of the location is for later phases.
    changes_requests: bool,
    changes_responses: bool,
}

/// What the snippet of a location has done with a request that it does not respond to.
pub(super) enum LocationRun {
    /// Whether its rules deny the request, which is known before a redirect and has its effect after it.
    Ended { is_denied: bool },
    /// A `rewrite` leads to the location of another path.
    Searches(LocationSearch, Box<SnippetRun>),
}

/// What is kept of a request until its response.
pub(super) struct KeptRun {
    run: SnippetRun,
    snippet: Arc<Snippet>,
    values: KeptValues,
}

impl KeptRun {
    fn new(run: SnippetRun, snippet: &Arc<Snippet>, values: &RequestValues<'_>) -> Self {
        let variables = snippet.later_variables().iter();
        let values = variables.map(|variable| (variable.clone(), values.value(variable).into_owned()));
        KeptRun { run, snippet: Arc::clone(snippet), values: KeptValues(values.collect()) }
    }

    /// Changes the fields of the request to the endpoint.
    pub(super) fn edit_request(&self, headers: &mut HeaderMap) {
        for edit in self.run.sent_edits(&self.snippet, &self.values) {
            edit.apply(headers);
        }
    }
}

/// The values of the variables that the fields of responses need.
#[derive(Default)]
struct KeptValues(Vec<(SnippetVariable, String)>);

impl SnippetValues for KeptValues {
    fn value(&self, variable: &SnippetVariable) -> Cow<'_, str> {
        let known = self.0.iter().find(|(known, _)| known == variable);
        Cow::Borrowed(known.map_or("", |(_, value)| value))
    }
}

impl LocationSnippets {
    pub fn new(
        server: Option<Arc<Snippet>>,
        location: Arc<Snippet>,
        names: LocationNames,
        matched: MatchedLocation,
    ) -> Self {
        let edits = |snippet: &Snippet| snippet.edits_responses();
        let of_server = |server: &Arc<Snippet>| server.locations.iter().any(|location| edits(&location.snippet));
        LocationSnippets {
            changes_requests: location.edits_sent_requests(),
            changes_responses: server.iter().any(|server| edits(server) || of_server(server)) || edits(&location),
            server,
            location,
            names,
            matched,
            base: RedirectBase::Host,
        }
    }

    pub(super) fn changes_requests(&self) -> bool {
        self.changes_requests
    }

    pub(super) fn changes_responses(&self) -> bool {
        self.changes_responses
    }

    pub(super) fn declare_fields(&self, fields: &mut ChangedFields) {
        let of_server = self.server.iter().flat_map(|server| server.locations.iter().map(|location| &location.snippet));
        for snippet in self.server.iter().chain(of_server).chain([&self.location]) {
            snippet.request_field_names().for_each(|name| fields.request.add(name));
            snippet.response_field_names().for_each(|name| fields.response.add(name));
        }
    }

    /// Runs the snippet of the server, and that of the location of it that precedes this one, which ends the request.
    /// `certificates`: what the location does about those of clients.
    pub(super) fn begin(
        &self,
        cx: &mut RequestCx<'_>,
        certificates: Option<&CertificateStep>,
        kept: &mut Option<KeptRun>,
    ) -> Result<SnippetRun, Box<Reply>> {
        let Some(server) = &self.server else { return Ok(SnippetRun::default()) };
        let steps = RegexSteps::new(cx.regex_steps.remaining());
        let values = RequestValues::of_location(cx, Some(&self.names), certificates);
        let run = server.run(&values, &steps);
        let result = match self.end_of(&run, &values, RedirectBase::Host) {
            Some(reply) => {
                *kept = Some(KeptRun::new(run, server, &values));
                Err(reply)
            }
            None => self.run_server_locations(run, cx, (&values, &steps), kept),
        };
        cx.regex_steps.keep(steps.remaining());
        result.map(|(run, edits)| edit_input(run, &edits, cx))
    }

    /// Searches the location of the path that a `rewrite` of this location has set. The compiler permits such a
    /// `rewrite` only if that is this location, or one of the server.
    pub(super) fn search(
        &self,
        run: SnippetRun,
        cx: &mut RequestCx<'_>,
        certificates: Option<&CertificateStep>,
        kept: &mut Option<KeptRun>,
    ) -> Result<SnippetRun, Box<Reply>> {
        let run = run.after_search().map_err(failed)?;
        let steps = RegexSteps::new(cx.regex_steps.remaining());
        let values = RequestValues::of_location(cx, Some(&self.names), certificates);
        let result = self.run_server_locations(run, cx, (&values, &steps), kept);
        cx.regex_steps.keep(steps.remaining());
        result.map(|(run, edits)| edit_input(run, &edits, cx))
    }

    /// Runs the locations of the server that precede this one for the path. They end the request, unless their
    /// rewrites lead to this one. Then their changes of the fields of the request are part of the result.
    fn run_server_locations(
        &self,
        mut run: SnippetRun,
        cx: &RequestCx<'_>,
        (values, steps): (&RequestValues<'_>, &RegexSteps),
        kept: &mut Option<KeptRun>,
    ) -> Result<(SnippetRun, Vec<RequestFieldEdit>), Box<Reply>> {
        let mut edits = Vec::new();
        let server = self.server.as_ref().filter(|server| !server.locations.is_empty());
        let Some(server) = server else { return Ok((run, edits)) };
        loop {
            let found = server.location_of(&run.path(values), &self.matched, steps);
            let Some(location) = found.map_err(failed)? else { return Ok((run, edits)) };
            run = location.run_after(run, values, steps);
            let end = match self.end_of(&run, values, RedirectBase::Host) {
                None if run.search.is_some() => {
                    edits.extend(run.input_edits(location, values));
                    run = run.after_search().map_err(failed)?;
                    continue;
                }
                None if denies(&run, location, cx) => forbidden(),
                end => end.unwrap_or_else(not_found),
            };
            *kept = Some(KeptRun::new(run, location, values));
            return Err(end);
        }
    }

    /// Runs the snippet of the location after that of the server.
    ///
    /// # Errors
    ///
    /// The response, if the request ends here.
    pub(super) fn access(
        &self,
        server: SnippetRun,
        cx: &mut RequestCx<'_>,
        certificates: Option<&CertificateStep>,
        kept: &mut Option<KeptRun>,
    ) -> Result<LocationRun, Box<Reply>> {
        let steps = RegexSteps::new(cx.regex_steps.remaining());
        let values = RequestValues::of_location(cx, Some(&self.names), certificates);
        let run = self.location.run_after(server, &values, &steps);
        let end = self.end_of(&run, &values, self.base);
        let is_denied = denies(&run, &self.location, cx);
        let input = run.input_edits(&self.location, &values);
        let target = run.target.clone();
        let search = run.search.map(|search| (search, run.clone()));
        if self.changes_responses || self.changes_requests {
            *kept = Some(KeptRun::new(run, &self.location, &values));
        }
        cx.regex_steps.keep(steps.remaining());
        for edit in input {
            edit.apply(&mut cx.head.headers);
        }
        if let Some(end) = end {
            return Err(end);
        }
        if let Some((search, run)) = search {
            return Ok(LocationRun::Searches(search, Box::new(run)));
        }
        if let Some(SnippetTarget { path, query, .. }) = target {
            let query = query.unwrap_or_default();
            if replace_target(cx.head, &path, query.as_bytes()).is_err() {
                return Err(failed(SnippetFailure::InvalidTarget));
            }
        }
        Ok(LocationRun::Ended { is_denied })
    }

    fn end_of(&self, run: &SnippetRun, values: &RequestValues<'_>, base: RedirectBase) -> Option<Box<Reply>> {
        let failure = run.failed.map(failed);
        failure.or_else(|| Some(self.reply(run.reply.as_ref()?, values, base)))
    }

    fn reply(&self, reply: &SnippetReply, values: &RequestValues<'_>, base: RedirectBase) -> Box<Reply> {
        let SnippetReply { status, body, content_type, location, closes_connection } = reply;
        if let Some(target) = location {
            let Ok(target) = HeaderValue::try_from(target) else { return failed(SnippetFailure::InvalidTarget) };
            return FixedResponse { status: *status, target }.reply(values.client, base);
        }
        let mut response = match body {
            Some(body) => Reply::new(*status, ReplyBody::Raw(body.clone().into()), Reply::NO_REASON),
            None => {
                let message = status.canonical_reason().unwrap_or("Refused");
                Reply::negotiated(*status, message, "returned_by_snippet")
            }
        };
        if body.as_ref().is_some_and(|body| !body.is_empty()) {
            let content_type = content_type.clone().unwrap_or(DEFAULT_TYPE);
            response.headers.insert(CONTENT_TYPE, content_type);
        }
        if *closes_connection {
            response.headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// The redirect that replaces an error which no endpoint has sent.
    pub(super) fn error_page(&self, kept: &KeptRun, status: StatusCode) -> Option<Box<Reply>> {
        let KeptRun { run, snippet, values } = kept;
        let (status, url) = run.error_page(snippet, values, status)?;
        let target = HeaderValue::try_from(url).ok()?;
        Some(Reply::new(status, ReplyBody::Empty, "redirected").with_header(LOCATION, target))
    }

    /// Changes the fields of the response, also of a request that has not reached the snippet. Returns what replaces
    /// texts in its body.
    pub(super) fn response(&self, kept: Option<&KeptRun>, cx: &mut FieldsOfResponse) -> Option<BodyReplacements> {
        let FieldsOfResponse { status, source, headers, steps } = cx;
        let origin = match source {
            ResponseSource::Service => SnippetResponseOrigin::Upstream,
            _ => SnippetResponseOrigin::Portico,
        };
        match kept {
            Some(KeptRun { run, snippet, values }) => {
                run.set_response_fields(snippet, values, (*status, origin), headers, steps);
                run.body_replacements(snippet, values, headers)
            }
            None => {
                let run = SnippetRun::default();
                let values = KeptValues::default();
                run.set_response_fields(&self.location, &values, (*status, origin), headers, steps);
                run.body_replacements(&self.location, &values, headers)
            }
        }
    }
}

/// The fields of a response, with what decides about their changes.
pub(super) struct FieldsOfResponse {
    pub status: StatusCode,
    pub source: ResponseSource,
    pub headers: HeaderMap,
    /// What the expressions of the request may still take.
    pub steps: RegexSteps,
}

/// The media type of texts without another one in ingress-nginx.
const DEFAULT_TYPE: HeaderValue = HeaderValue::from_static("text/html");

/// Changes the fields of the request, which the run goes on with.
fn edit_input(run: SnippetRun, edits: &[RequestFieldEdit], cx: &mut RequestCx<'_>) -> SnippetRun {
    for edit in edits {
        edit.apply(&mut cx.head.headers);
    }
    run
}

/// Whether the rules of a snippet deny the client.
fn denies(run: &SnippetRun, snippet: &Snippet, cx: &RequestCx<'_>) -> bool {
    run.verdict(snippet, cx.client.address.to_canonical(), &cx.head.method) == SnippetVerdict::Deny
}

pub(super) fn forbidden() -> Box<Reply> {
    Reply::negotiated(StatusCode::FORBIDDEN, "Forbidden", "denied_by_snippet")
}

/// The reply to a request for which a location of the server has no content.
fn not_found() -> Box<Reply> {
    Reply::negotiated(StatusCode::NOT_FOUND, "Not found", "no_content_in_snippet")
}

fn failed(failure: SnippetFailure) -> Box<Reply> {
    match failure {
        SnippetFailure::TooManySteps(RegexInput::Target) => {
            let message = "The request target is too long to match";
            Reply::negotiated(StatusCode::URI_TOO_LONG, message, "target_too_long_for_snippet")
        }
        SnippetFailure::TooManySteps(RegexInput::Header) => {
            let message = "A request header is too long to match";
            Reply::negotiated(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, message, "header_too_long_for_snippet")
        }
        SnippetFailure::InvalidTarget | SnippetFailure::TextTooLong | SnippetFailure::TooManySearches => {
            let message = "An unexpected error occurred";
            Reply::negotiated(StatusCode::INTERNAL_SERVER_ERROR, message, "invalid_result_of_snippet")
        }
    }
}
