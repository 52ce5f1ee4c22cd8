//! The edits of responses that the response transformers have in common: of headers and of JSON bodies.

mod entry;
mod header_edits;
mod json_edits;
mod operations;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED};
use http::{HeaderMap, HeaderName, StatusCode};

use self::entry::ConfigReader;
use self::header_edits::ResponseHeaderEdits;
use self::json_edits::JsonEdits;
use self::operations::OperationStatuses;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::body_filter::{BeyondLimit, BodyFilter, BufferedFilter};
use crate::plugin_api::changed_fields::ChangedFields;
use crate::plugin_api::context::ResponseCx;
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::reply::{Reply, ReplyBody};
use crate::plugin_api::{Plugin, ResponseOutcome};

pub(crate) use operations::{EditOperation, ResponseEditConfig};

/// The edits of a configuration.
pub(crate) struct ResponseEdits {
    headers: ResponseHeaderEdits,
    json: Arc<JsonEdits>,
    statuses: OperationStatuses,
    new_body: Option<Bytes>,
}

impl ResponseEdits {
    pub(crate) fn build(config: &ResponseEditConfig, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut reader = ConfigReader::new(cx);
        let headers = ResponseHeaderEdits::build(config, &mut reader);
        let json = JsonEdits::build(config, &mut reader);
        let statuses = OperationStatuses::build(config, &mut reader);
        if config.new_body.as_ref().is_some_and(|body| body.len() > MAX_BODY_BYTES) {
            reader.error("replace.body", "is longer than 1 MiB", "shorten it");
        }
        reader.finish()?;
        let new_body = config.new_body.clone().map(Bytes::from);
        Ok(ResponseEdits { headers, json: Arc::new(json), statuses, new_body })
    }

    /// Edits the head, and adds a filter of the body if it may change. Returns the reply that replaces the response if
    /// its whole body is replaced.
    fn edit(&self, cx: &mut ResponseCx<'_>) -> Option<Box<Reply>> {
        let active = self.statuses.active(cx.status);
        self.headers.apply(cx.headers, active);
        if let Some(body) = self.new_body.as_ref().filter(|_| active.replace && may_replace_body(cx)) {
            return Some(reply(cx, body.clone()));
        }
        // The media type is read after headers were changed, as in Kong.
        if !self.json.is_empty(active) && is_json(cx.headers) {
            let json = Arc::clone(&self.json);
            cx.push_body_filter(BodyFilter::Buffered(BufferedFilter {
                max_bytes: MAX_BODY_BYTES,
                beyond_limit: BeyondLimit::PassUnchanged,
                reads_text: true,
                transform: Box::new(move |body| json.apply(body, active)),
            }));
        }
        None
    }
}

impl Plugin for ResponseEdits {
    fn declare_fields(&self, fields: &mut ChangedFields) {
        self.headers.declare(&mut fields.response);
        if self.new_body.is_some() {
            fields.response.add_all(BODY_FIELDS);
        }
    }

    fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
        match self.edit(cx) {
            Some(reply) => ResponseOutcome::Replace(reply),
            None => ResponseOutcome::Continue,
        }
    }
}

/// Whether one of the media types is JSON. As in Kong, there may be several, separated by commas.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(content_type) = headers.get(CONTENT_TYPE) else { return false };
    content_type.as_bytes().split(|byte| *byte == b',').any(|one| {
        let media_type = one.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        media_type.eq_ignore_ascii_case(b"application/json") || media_type.to_ascii_lowercase().ends_with(b"+json")
    })
}

/// Size limit of transformed bodies. Each response that is transformed occupies up to this much memory twice.
const MAX_BODY_BYTES: usize = 1 << 20;

/// The fields that describe a body which is replaced. Its media type stays.
static BODY_FIELDS: &[HeaderName] =
    &[CONTENT_LENGTH, CONTENT_ENCODING, CONTENT_RANGE, ETAG, LAST_MODIFIED, ACCEPT_RANGES];

/// Whether the response has a whole body. The messages of gRPC and what follows an upgrade are none.
fn may_replace_body(cx: &ResponseCx<'_>) -> bool {
    const WITHOUT: [StatusCode; 4] =
        [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED, StatusCode::PARTIAL_CONTENT];
    !cx.status.is_informational() && !WITHOUT.contains(&cx.status) && !cx.request.is_call
}

fn reply(cx: &ResponseCx<'_>, body: Bytes) -> Box<Reply> {
    let mut headers = HeaderMap::with_capacity(cx.headers.len());
    for (name, value) in
        cx.headers.iter().filter(|(name, _)| !BODY_FIELDS.contains(name) && !Reply::is_kept_by_proxy(name))
    {
        headers.append(name, value.clone());
    }
    let reason = cx.request.reason.unwrap_or(Reply::NO_REASON);
    Box::new(Reply { status: cx.status, headers, body: ReplyBody::Raw(body), reason })
}
