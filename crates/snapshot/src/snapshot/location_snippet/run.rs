//! Runs a snippet for a request.

use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::ControlFlow;

use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::access::SnippetVerdict;
use super::body_edits::BodyReplacements;
use super::program::{
    ReturnContent, ReturnStep, RewriteEffect, RewriteFlag, RewriteStep, SetVariable, SnippetCondition, SnippetStep,
};
use super::request_fields::RequestFieldEdit;
use super::response_fields::SnippetResponseOrigin;
use super::rewrite_state::{ChangedValues, EncodedGroups, RewriteState};
use super::snippet::Snippet;
use super::target_encoding::{encode_argument, encode_in_url, encode_path, encode_query, encode_url};
use super::text::SnippetText;
use super::variable::{SnippetValues, SnippetVariable};
use crate::snapshot::regex_steps::{RegexInput, RegexSteps};

/// What a snippet does with a request, until its response is sent.
#[derive(Clone, Debug, Default)]
pub struct SnippetRun {
    /// The response to the request, which goes to no endpoint.
    pub reply: Option<SnippetReply>,
    /// The request is not served.
    pub failed: Option<SnippetFailure>,
    /// In place of the target of the request, after this snippet and those before it.
    pub target: Option<SnippetTarget>,
    /// A `rewrite` of a location lets nginx search the location of the new path. After the snippet of a server, it is
    /// searched in any case.
    pub(crate) search: Option<LocationSearch>,
    /// The block of the last `if` that was true.
    active: Option<usize>,
    state: RewriteState,
}

/// The response of `return`, or of `rewrite` with a redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnippetReply {
    pub status: StatusCode,
    /// `None` without a text: the response has the page that Portico has for its status.
    pub body: Option<String>,
    /// Of the body. `None` if the snippet has no `default_type`.
    pub content_type: Option<HeaderValue>,
    /// A URL, or a path of the host of the request.
    pub location: Option<String>,
    /// `return 444`: the connection is closed without a response.
    pub closes_connection: bool,
}

/// When the location of a new path is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LocationSearch {
    /// Now: `last` has ended the steps.
    AtOnce,
    /// After all steps of the location, of which the snippet may not be the last.
    AfterSteps,
}

/// Where a request is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnippetTarget {
    /// Begins with a slash, and is percent-encoded.
    pub path: String,
    /// Without the question mark; not empty.
    pub query: Option<String>,
}

/// Why a request is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnippetFailure {
    /// The expressions take more steps than a request has.
    TooManySteps(RegexInput),
    /// The target or the URL cannot be sent, or has dot segments.
    InvalidTarget,
    /// A text is longer than 8 KiB.
    TextTooLong,
    /// Each location has a `rewrite` that leads to another one, or to itself.
    TooManySearches,
}

impl Snippet {
    /// Runs the steps of a snippet that is the first of its request.
    pub fn run(&self, values: &dyn SnippetValues, steps: &RegexSteps) -> SnippetRun {
        self.run_after(SnippetRun::default(), values, steps)
    }

    /// Runs the steps of a snippet after those of another one: that of the server, or that of the location whose
    /// `rewrite` led to this one. Its variables and its changes of the target stay.
    pub(crate) fn run_after(&self, previous: SnippetRun, values: &dyn SnippetValues, steps: &RegexSteps) -> SnippetRun {
        let state = previous.state;
        let mut execution = Execution { snippet: self, values, steps, active: None, state, is_path_new: false };
        let mut run = SnippetRun::default();
        // In nginx, `limit_except` is a block without the other directives of the rewrite module.
        let is_limited = self.outer.access.limits(&values.value(&SnippetVariable::RequestMethod));
        let program = if is_limited { &[][..] } else { &self.program };
        let search = match execution.run(program) {
            ControlFlow::Continue(()) => LocationSearch::AfterSteps,
            ControlFlow::Break(RunEnd::Stopped) => LocationSearch::AtOnce,
            ControlFlow::Break(RunEnd::Reply(reply)) => {
                run.reply = Some(reply);
                return SnippetRun { active: execution.active, state: execution.state, ..run };
            }
            ControlFlow::Break(RunEnd::Failed(failure)) => {
                run.failed = Some(failure);
                return SnippetRun { active: execution.active, state: execution.state, ..run };
            }
        };
        match execution.target() {
            Ok(target) => (run.target, run.search) = (target, execution.is_path_new.then_some(search)),
            Err(failure) => run.failed = Some(failure),
        }
        SnippetRun { active: execution.active, state: execution.state, ..run }
    }
}

impl SnippetRun {
    /// The run with which the location that was found for the new path begins.
    ///
    /// # Errors
    ///
    /// After ten searches, as in nginx.
    pub(crate) fn after_search(mut self) -> Result<Self, SnippetFailure> {
        self.search = None;
        if self.state.count_search() { Ok(self) } else { Err(SnippetFailure::TooManySearches) }
    }

    /// The decoded path, after the steps so far.
    pub(crate) fn path<'r>(&'r self, values: &'r dyn SnippetValues) -> Cow<'r, str> {
        self.values(values).path()
    }
}

/// What the active block says. Each method gets the snippet and the values of the run.
impl SnippetRun {
    /// Whether the rules of the snippet allow a client, before those of annotations.
    pub fn verdict(&self, snippet: &Snippet, address: IpAddr, method: &Method) -> SnippetVerdict {
        snippet.block(self.active).access.verdict(address, method)
    }

    /// The changes of the fields of the request, in order, which guards see, too.
    pub(crate) fn input_edits(&self, snippet: &Snippet, values: &dyn SnippetValues) -> Vec<RequestFieldEdit> {
        snippet.block(self.active).request.input_edits(&self.values(values))
    }

    /// The changes of the fields of the request to the endpoint, after those.
    pub(crate) fn sent_edits(&self, snippet: &Snippet, values: &dyn SnippetValues) -> Vec<RequestFieldEdit> {
        let mut edits = snippet.block(self.active).request.sent_edits(&self.values(values));
        if !snippet.body.is_empty() {
            // A compressed body has none of the texts. What the snippet says about the field has precedence.
            edits.insert(0, RequestFieldEdit::Remove(ACCEPT_ENCODING));
        }
        edits
    }

    /// What replaces texts in the body of a response. It removes fields that are not those of the changed body.
    pub(crate) fn body_replacements(
        &self,
        snippet: &Snippet,
        values: &dyn SnippetValues,
        headers: &mut HeaderMap,
    ) -> Option<BodyReplacements> {
        snippet.body.of_response(&self.values(values), headers)
    }

    /// Changes the fields of a response. `steps`: those that the request has left.
    pub(crate) fn set_response_fields(
        &self,
        snippet: &Snippet,
        values: &dyn SnippetValues,
        (status, origin): (StatusCode, SnippetResponseOrigin),
        headers: &mut HeaderMap,
        steps: &RegexSteps,
    ) {
        let fields = &snippet.block(self.active).response;
        if fields.is_empty() && snippet.rewrites.is_empty() {
            return;
        }
        let seconds = || values.value(&SnippetVariable::Msec).split('.').next().and_then(|text| text.parse().ok());
        let now = fields.expiry.as_ref().and_then(|_| seconds());
        fields.apply(&self.values(values), now, (&snippet.rewrites, steps), (status, origin), headers);
    }

    /// The status and the URL of the redirect in place of an error that no endpoint has sent. A `return` with a text
    /// is none, and neither is one that closes the connection.
    pub(crate) fn error_page(
        &self,
        snippet: &Snippet,
        values: &dyn SnippetValues,
        status: StatusCode,
    ) -> Option<(StatusCode, String)> {
        if self.reply.as_ref().is_some_and(|reply| reply.body.is_some() || reply.closes_connection) {
            return None;
        }
        let mut pages = snippet.block(self.active).response.all_error_pages();
        pages.find(|page| page.is_for(status))?.redirect(&self.values(values))
    }

    fn values<'r>(&'r self, values: &'r dyn SnippetValues) -> ChangedValues<'r> {
        ChangedValues { values, state: &self.state }
    }
}

/// A snippet while it runs.
struct Execution<'r> {
    snippet: &'r Snippet,
    values: &'r dyn SnippetValues,
    steps: &'r RegexSteps,
    active: Option<usize>,
    state: RewriteState,
    /// Whether the last `rewrite` of the path was one without `break`.
    is_path_new: bool,
}

/// Why no further step runs.
enum RunEnd {
    Reply(SnippetReply),
    Failed(SnippetFailure),
    Stopped,
}

impl From<SnippetFailure> for RunEnd {
    fn from(failure: SnippetFailure) -> Self {
        RunEnd::Failed(failure)
    }
}

impl Execution<'_> {
    fn run(&mut self, steps: &[SnippetStep]) -> ControlFlow<RunEnd> {
        for step in steps {
            match self.step(step) {
                Ok(()) => {}
                Err(end) => return ControlFlow::Break(end),
            }
        }
        ControlFlow::Continue(())
    }

    fn step(&mut self, step: &SnippetStep) -> Result<(), RunEnd> {
        match step {
            SnippetStep::Groups(regex) => {
                let path = self.changed().path().into_owned();
                let input = RegexInput::Target;
                let matched =
                    regex.groups(&path, self.steps, input).map_err(|_| SnippetFailure::TooManySteps(input))?;
                self.state.set_groups(matched);
            }
            SnippetStep::Set { variable, value } => {
                let value = self.expand(value)?;
                match variable {
                    SetVariable::Args => self.state.set_args(value),
                    SetVariable::Own(name) => self.state.set_variable(name, value),
                }
            }
            SnippetStep::If { condition, block, steps } => {
                if self.is_true(condition)? {
                    self.active = block.or(self.active);
                    if let ControlFlow::Break(end) = self.run(steps) {
                        return Err(end);
                    }
                }
            }
            SnippetStep::Return(step) => return Err(RunEnd::Reply(self.reply(step)?)),
            SnippetStep::Rewrite(step) => self.rewrite(step)?,
            SnippetStep::Break => {
                self.is_path_new = false;
                return Err(RunEnd::Stopped);
            }
        }
        Ok(())
    }

    fn changed(&self) -> ChangedValues<'_> {
        ChangedValues { values: self.values, state: &self.state }
    }

    fn expand(&self, text: &SnippetText) -> Result<String, SnippetFailure> {
        let values = self.changed();
        Ok(text.expand_parts(&values).ok_or(SnippetFailure::TextTooLong)?.into_owned())
    }

    /// A text whose groups are encoded for their place in it.
    fn expand_encoded(&self, text: &SnippetText, encode: fn(&str) -> String) -> Result<String, SnippetFailure> {
        let values = EncodedGroups { values: self.changed(), encode };
        Ok(text.expand_parts(&values).ok_or(SnippetFailure::TextTooLong)?.into_owned())
    }

    fn is_true(&mut self, condition: &SnippetCondition) -> Result<bool, SnippetFailure> {
        Ok(match condition {
            SnippetCondition::IsSet(text) => {
                let text = self.expand(text)?;
                !text.is_empty() && text != "0"
            }
            SnippetCondition::Equals { text, other, is_negated } => {
                (self.expand(text)? == self.expand(other)?) != *is_negated
            }
            SnippetCondition::Matches { text, regex, is_negated, input } => {
                let text = self.expand(text)?;
                let matched = regex.groups(&text, self.steps, *input);
                let matched = matched.map_err(|_| SnippetFailure::TooManySteps(*input))?;
                let is_match = matched.is_some();
                self.state.set_groups(matched);
                is_match != *is_negated
            }
        })
    }

    fn reply(&self, step: &ReturnStep) -> Result<SnippetReply, SnippetFailure> {
        let has_content = !matches!(step.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let (body, location) = match &step.content {
            ReturnContent::Body(text) if has_content => (Some(self.expand(text)?), None),
            ReturnContent::Location(url) => {
                let url = encode_url(&self.expand(url)?).ok_or(SnippetFailure::InvalidTarget)?;
                (None, Some(url))
            }
            // Below 400, nginx has a page for redirects only.
            ReturnContent::Body(_) | ReturnContent::None => {
                let is_empty = step.status.as_u16() < 300 || step.status == StatusCode::NOT_MODIFIED;
                (is_empty.then(String::new), None)
            }
        };
        Ok(SnippetReply {
            closes_connection: step.status.as_u16() == 444,
            ..self.reply_with(step.status, body, location)
        })
    }

    fn reply_with(&self, status: StatusCode, body: Option<String>, location: Option<String>) -> SnippetReply {
        let default_type = self.snippet.block(self.active).response.default_type.clone();
        let content_type = default_type.filter(|_| body.as_ref().is_some_and(|body| !body.is_empty()));
        SnippetReply { status, body, content_type, location, closes_connection: false }
    }

    fn rewrite(&mut self, step: &RewriteStep) -> Result<(), RunEnd> {
        let path = self.changed().path().into_owned();
        let input = RegexInput::Target;
        let matched = step.regex.groups(&path, self.steps, input).map_err(|_| SnippetFailure::TooManySteps(input))?;
        let is_match = matched.is_some();
        self.state.set_groups(matched);
        if !is_match {
            return Ok(());
        }
        let args = if step.keeps_query { self.changed().args().into_owned() } else { String::new() };
        match &step.effect {
            RewriteEffect::Redirect { status, url, has_query } => {
                let mut url = self.expand_encoded(url, encode_in_url)?;
                if !args.is_empty() {
                    url.push(if *has_query { '&' } else { '?' });
                    url.push_str(&args);
                }
                let url = encode_url(&url).ok_or(SnippetFailure::InvalidTarget)?;
                Err(RunEnd::Reply(self.reply_with(*status, None, Some(url))))
            }
            RewriteEffect::Path { path, query, flag } => {
                let path = self.expand(path)?;
                let query = match query {
                    Some(query) => {
                        let encode = if self.has_encoded_path() { encode_argument } else { str::to_owned };
                        Some(self.expand_encoded(query, encode)?)
                    }
                    None => None,
                };
                // nginx would send a path without a slash.
                self.state.set_path(if path.starts_with('/') { path } else { format!("/{path}") });
                self.state.set_args(match query {
                    Some(query) if args.is_empty() => query,
                    Some(query) => format!("{query}&{args}"),
                    None => args,
                });
                self.is_path_new = *flag != RewriteFlag::Break;
                if *flag == RewriteFlag::None { Ok(()) } else { Err(RunEnd::Stopped) }
            }
        }
    }

    /// Whether nginx encodes groups in queries: the client has encoded a part of the path, or it has a plus sign.
    fn has_encoded_path(&self) -> bool {
        let target = self.values.value(&SnippetVariable::RequestUri);
        target.split('?').next().unwrap_or_default().contains(['%', '+'])
    }

    /// The changed target, as it is sent.
    fn target(&self) -> Result<Option<SnippetTarget>, SnippetFailure> {
        if !self.state.has_changed_target() {
            return Ok(None);
        }
        let values = self.changed();
        let path = encode_path(&values.path()).ok_or(SnippetFailure::InvalidTarget)?;
        let query = encode_query(&values.args());
        if path.len() + query.len() > MAX_TARGET {
            return Err(SnippetFailure::InvalidTarget);
        }
        let query = Some(query).filter(|query| !query.is_empty());
        Ok(Some(SnippetTarget { path, query }))
    }
}

/// In bytes. A query grows with each `rewrite`.
const MAX_TARGET: usize = 64 << 10;
