//! Applies the body filters of plugins to a response, before its head is sent.
//!
//! ```text
//!   filters ─▶ may this body be filtered? ─▶ Streaming: wraps the body
//!              (HEAD, 204, 304, 206, …)    ├▶ Buffered: collect ─▶ decode ─▶ transform ─▶ lengths, ETag, digests
//!                                          │             └ too large, unknown coding: unchanged, and counted
//!                                          └▶ Coding: after all others, wraps the body
//! ```

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use http::header::{ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, TRAILER};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Frame;
use tokio::time::Instant;

use super::early_exit::EarlyExit;
use super::reply_response::reply_response;
use super::request_context::RequestContext;
use super::request_record::RequestRecord;
use crate::http1::JoinedData;
use crate::plugin_api::body_filter::PluginBodyFilter;
use crate::plugin_api::content_coding::{ContentCoding, DIGESTS, DecodingError};
use crate::plugin_api::media_type::is_grpc;
use crate::plugin_api::{
    BeyondLimit, BodyCheck, BodyCoding, BodyConversion, BodyFilter, BodyTransform, BufferedFilter, CheckOfBody,
    CodedHead, ConvertBody, Reply, ResponseSource,
};
use crate::proxy::buffer_budget::{BufferUse, BufferedBytes};
use crate::proxy::http::exchange::activity::until_timed_out;
use crate::proxy::http::exchange::body_source::{BodySource, ResponseBodyError};
use crate::proxy::http::exchange::filtered_body::FilteredBody;
use crate::proxy::http::record::request_error::RequestError;
use crate::proxy::http::record::request_facts::RequestFacts;
use crate::proxy::telemetry::stats::UnfilteredBody;
use crate::turn_clock;

/// Applies the filters in order. The source changes if the response is replaced.
pub(in crate::proxy) async fn apply(
    cx: &mut RequestContext<'_>,
    response: &mut Response<BodySource>,
    source: &mut ResponseSource,
    filters: Vec<PluginBodyFilter>,
) {
    let is_coding = |filter: &PluginBodyFilter| matches!(filter.filter, BodyFilter::Coding(_));
    let (codings, filters): (Vec<_>, Vec<_>) = filters.into_iter().partition(is_coding);
    if !may_filter(response) {
        // Nothing is encoded, but the head may say that other responses of the same resource are.
        if !matches!(response.body(), BodySource::Upgraded(..)) {
            codings.into_iter().for_each(|coding| drop(choose_coding(response, None, coding.filter)));
        }
        return;
    }
    if cx.error_format.is_head() {
        prepare_head_response(response.headers_mut(), &filters);
        for coding in codings {
            let length = announced_length(response.headers());
            if let Some(coding) = choose_coding(response, length, coding.filter) {
                announce_coding(response.headers_mut(), coding.name);
            }
        }
        return;
    }
    for PluginBodyFilter { plugin, filter } in filters {
        let taken = std::mem::replace(response, Response::new(BodySource::Local(Bytes::new())));
        let whole = match filter {
            BodyFilter::Streaming(filter) => {
                *response = taken.map(|body| FilteredBody::streaming(body, filter));
                if matches!(response.body(), BodySource::Filtered(body) if body.changes_bytes()) {
                    remove_body_metadata(response.headers_mut());
                }
                continue;
            }
            BodyFilter::Buffered(filter) => WholeBodyFilter::changing(filter),
            BodyFilter::Checked(check) => WholeBodyFilter::checking(check),
            BodyFilter::Converted(conversion) => WholeBodyFilter::converting(conversion),
            // They are the last ones.
            BodyFilter::Coding(_) => {
                *response = taken;
                continue;
            }
        };
        match apply_buffered(cx, plugin, whole, taken).await {
            Ok(filtered) => *response = filtered,
            // The filters that follow were added for the response that is replaced.
            Err(replacement) => {
                (*response, *source) = replace(cx, *replacement);
                return;
            }
        }
    }
    for PluginBodyFilter { plugin, filter } in codings {
        let length = response.body().size_hint().exact();
        if let Some(coding) = choose_coding(response, length, filter) {
            encode(cx, plugin, coding, response);
        }
    }
}

fn choose_coding(response: &mut Response<BodySource>, length: Option<u64>, filter: BodyFilter) -> Option<BodyCoding> {
    let BodyFilter::Coding(choose) = filter else { return None };
    choose(CodedHead { status: response.status(), headers: response.headers_mut(), length })
}

/// Encodes the body while it is sent, if the process may keep what the encoder needs.
fn encode(cx: &mut RequestContext<'_>, plugin: &'static str, coding: BodyCoding, response: &mut Response<BodySource>) {
    let namespace = cx.rule.map_or("", |rule| rule.id.namespace());
    let worker = cx.record.exchange.worker();
    let mut kept = cx.record.exchange.buffered(BufferUse::Response, namespace);
    let encoder = if kept.try_grow(coding.memory_bytes).is_ok() { (coding.start)() } else { None };
    let Some(encoder) = encoder else {
        worker.counters.count_unfiltered_body(plugin, UnfilteredBody::BufferLimit);
        return;
    };
    if let Some(run) = &mut cx.record.plugin_run {
        run.kept_encoders.push(kept);
        cx.record.exchange.activity.keeps_body.set(true);
    }
    let body = std::mem::replace(response.body_mut(), BodySource::Local(Bytes::new()));
    *response.body_mut() = FilteredBody::streaming(body, encoder);
    announce_coding(response.headers_mut(), coding.name);
}

fn announce_coding(headers: &mut HeaderMap, name: HeaderValue) {
    remove_body_metadata(headers);
    headers.insert(CONTENT_ENCODING, name);
}

/// A filter that needs the whole body.
struct WholeBodyFilter {
    max_bytes: usize,
    beyond_limit: BeyondLimit,
    reads_text: bool,
    /// Whether `beyond_limit` also applies to bodies that cannot be decoded.
    must_decode: bool,
    work: Work,
}

enum Work {
    Change(BodyTransform),
    Check(CheckOfBody),
    Convert(ConvertBody),
}

impl WholeBodyFilter {
    fn changing(filter: BufferedFilter) -> Self {
        let BufferedFilter { max_bytes, beyond_limit, reads_text, transform } = filter;
        WholeBodyFilter { max_bytes, beyond_limit, reads_text, must_decode: false, work: Work::Change(transform) }
    }

    fn checking(filter: BodyCheck) -> Self {
        let BodyCheck { max_bytes, unreadable, check } = filter;
        let work = Work::Check(check);
        WholeBodyFilter { max_bytes, beyond_limit: unreadable, reads_text: true, must_decode: true, work }
    }

    fn converting(conversion: BodyConversion) -> Self {
        let BodyConversion { max_bytes, too_large, convert } = conversion;
        let (beyond_limit, work) = (BeyondLimit::Replace(too_large), Work::Convert(convert));
        WholeBodyFilter { max_bytes, beyond_limit, reads_text: false, must_decode: false, work }
    }
}

/// What replaces a response whose body cannot be filtered, and the headers of that response.
struct Replacement {
    by: ReplacedBy,
    former: HeaderMap,
}

enum ReplacedBy {
    Reply(Box<Reply>),
    Error(RequestError),
}

fn replace(cx: &mut RequestContext<'_>, replacement: Replacement) -> (Response<BodySource>, ResponseSource) {
    let Replacement { by, mut former } = replacement;
    let (mut response, source) = match by {
        ReplacedBy::Reply(reply) => {
            cx.record.facts.set_reply(&reply);
            (reply_response(*reply, &cx.error_format, &cx.record.facts.request_id), ResponseSource::Plugin)
        }
        ReplacedBy::Error(error) => (EarlyExit::Error(error).into_response(cx), ResponseSource::Proxy),
    };
    if let Some(run) = &cx.record.plugin_run {
        run.keep_headers(&mut former, response.headers_mut());
    }
    (response, source)
}

async fn apply_buffered(
    cx: &mut RequestContext<'_>,
    plugin: &'static str,
    filter: WholeBodyFilter,
    response: Response<BodySource>,
) -> Result<Response<BodySource>, Box<Replacement>> {
    let WholeBodyFilter { max_bytes, beyond_limit, reads_text, must_decode, work } = filter;
    if is_message_stream(response.headers()) && !matches!(work, Work::Convert(_)) {
        return Ok(response);
    }
    let exchange = Rc::clone(&cx.record.exchange);
    let count = |reason| exchange.worker().counters.count_unfiltered_body(plugin, reason);
    let coding = if reads_text { ContentCoding::from_headers(response.headers()) } else { ContentCoding::Identity };
    if coding == ContentCoding::Unknown && !must_decode {
        count(UnfilteredBody::UnknownEncoding);
        return Ok(response);
    }
    let (mut head, body) = response.into_parts();
    let not_filtered = |head: Parts, body, reason| {
        count(reason);
        match beyond_limit {
            BeyondLimit::PassUnchanged => Ok(Response::from_parts(head, body)),
            BeyondLimit::Replace(reply) => {
                Err(Box::new(Replacement { by: ReplacedBy::Reply(reply), former: head.headers }))
            }
        }
    };
    if coding == ContentCoding::Unknown {
        return not_filtered(head, body, UnfilteredBody::UnknownEncoding);
    }
    let namespace = cx.rule.map_or("", |rule| rule.id.namespace());
    let (data, mut trailers, mut kept) = match collect(body, max_bytes, namespace, cx.record).await {
        Ok(Collected::Whole { data, trailers, kept }) => (data, trailers, kept),
        Ok(Collected::Partly(body, reason)) => return not_filtered(head, body, reason),
        Err(error) => return Err(Box::new(Replacement { by: ReplacedBy::Error(error), former: head.headers })),
    };
    let started_at = Instant::now();
    let decoded = match coding.decode(&data, max_bytes) {
        Ok(decoded) => decoded,
        Err(error) => {
            keep_until_sent(cx.record, kept);
            let (body, reason) = (FilteredBody::complete(data, trailers), unfiltered(&error));
            if error == DecodingError::TooLarge || must_decode {
                return not_filtered(head, body, reason);
            }
            count(reason);
            return Ok(Response::from_parts(head, body));
        }
    };
    let (changed, replacement) = match work {
        Work::Change(transform) => (transform(&decoded), None),
        Work::Check(check) => (None, check(&decoded)),
        Work::Convert(convert) => {
            let converted = convert(&decoded, trailers.as_ref());
            (head.status, trailers) = (converted.status, None);
            (Some(converted.body), None)
        }
    };
    // What follows counts from now on: decoding and filtering may take long.
    let ended_at = turn_clock::refresh();
    if let Some(run) = &mut cx.record.plugin_run {
        run.record_body_filter(plugin, ended_at - started_at);
    }
    if let Some(reply) = replacement {
        return Err(Box::new(Replacement { by: ReplacedBy::Reply(reply), former: head.headers }));
    }
    // Decoding and filtering can make a body many times as large.
    let counted = cx.record.bytes_of_body();
    let has_room = changed.as_ref().is_none_or(|changed| kept.resize(changed.len().saturating_sub(counted)));
    keep_until_sent(cx.record, kept);
    if !has_room {
        return not_filtered(head, FilteredBody::complete(data, trailers), UnfilteredBody::BufferLimit);
    }
    let body = match changed {
        None => FilteredBody::complete(data, trailers),
        Some(changed) => {
            remove_body_metadata(&mut head.headers);
            if coding != ContentCoding::Identity {
                head.headers.remove(CONTENT_ENCODING);
            }
            let trailers = trailers.map(without_digests);
            if trailers.is_none() {
                head.headers.remove(TRAILER);
                head.headers.insert(CONTENT_LENGTH, HeaderValue::from(changed.len()));
            }
            FilteredBody::complete(changed, trailers)
        }
    };
    Ok(Response::from_parts(head, body))
}

fn unfiltered(error: &DecodingError) -> UnfilteredBody {
    match error {
        DecodingError::TooLarge => UnfilteredBody::TooLarge,
        DecodingError::Invalid => UnfilteredBody::InvalidEncoding,
    }
}

/// Whether filters may change the body of the response. A range is a part of a body, which a filter cannot read.
fn may_filter(response: &Response<BodySource>) -> bool {
    const WITHOUT: [StatusCode; 4] =
        [StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED, StatusCode::PARTIAL_CONTENT];
    !matches!(response.body(), BodySource::Upgraded(..))
        && !WITHOUT.contains(&response.status())
        && !response.status().is_informational()
        && !response.headers().contains_key(CONTENT_RANGE)
}

/// Whether the body consists of messages that the client must get as they arrive.
fn is_message_stream(headers: &HeaderMap) -> bool {
    let Some(content_type) = headers.get(CONTENT_TYPE) else { return false };
    let media_type = content_type.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    media_type.trim_ascii().eq_ignore_ascii_case(b"text/event-stream") || is_grpc(headers)
}

/// The response to HEAD has no body to transform, so the headers of the response to GET are not known, unless that one
/// passes unchanged.
fn prepare_head_response(headers: &mut HeaderMap, filters: &[PluginBodyFilter]) {
    let length = announced_length(headers);
    let may_change = filters.iter().any(|filter| match &filter.filter {
        BodyFilter::Buffered(filter) => {
            let has_unknown_coding =
                filter.reads_text && ContentCoding::from_headers(headers) == ContentCoding::Unknown;
            let is_too_large = length.is_some_and(|length| exceeds(length, filter.max_bytes));
            !is_message_stream(headers) && !has_unknown_coding && !is_too_large
        }
        BodyFilter::Checked(_) => false,
        BodyFilter::Converted(_) => true,
        BodyFilter::Streaming(filter) => !filter.keeps_bytes(),
        BodyFilter::Coding(_) => false,
    });
    if may_change {
        remove_body_metadata(headers);
    }
}

fn announced_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn exceeds(length: u64, max_bytes: usize) -> bool {
    usize::try_from(length).map_or(true, |length| length > max_bytes)
}

/// Removes or weakens the headers that describe the bytes of a body, which differ from those of the endpoint.
fn remove_body_metadata(headers: &mut HeaderMap) {
    headers.remove(CONTENT_LENGTH);
    // Ranges of the new body cannot be requested from the endpoint.
    headers.remove(ACCEPT_RANGES);
    for name in &DIGESTS {
        headers.remove(name);
    }
    if let Some(tag) = headers.get_mut(ETAG)
        && !tag.as_bytes().starts_with(b"W/")
    {
        let weak = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat());
        *tag = weak.expect("a valid header value after two ASCII characters is a valid header value");
    }
}

fn without_digests(mut trailers: HeaderMap) -> HeaderMap {
    for name in &DIGESTS {
        trailers.remove(name);
    }
    trailers
}

/// The outcome of collecting a body.
enum Collected {
    Whole {
        data: Bytes,
        trailers: Option<HeaderMap>,
        /// The bytes of `data`, without those that count for a reply or another filter already.
        kept: BufferedBytes,
    },
    /// The body, of which nothing is lost, and why not all of it was collected.
    Partly(BodySource, UnfilteredBody),
}

/// Reads a body up to `max_bytes`, and while the process may keep more bytes for the namespace. The timeouts of the
/// rule apply, and an incomplete body is an error.
async fn collect(
    mut body: BodySource,
    max_bytes: usize,
    namespace: &str,
    record: &mut RequestRecord,
) -> Result<Collected, RequestError> {
    if exceeds(body.size_hint().lower(), max_bytes) {
        return Ok(Collected::Partly(body, UnfilteredBody::TooLarge));
    }
    // A plugin or another filter has made the body, and its bytes count already.
    let counted = record.bytes_of_body();
    let mut data = JoinedData::default();
    let mut kept = record.exchange.buffered(BufferUse::Response, namespace);
    let mut trailers = None;
    while !body.is_end_stream() {
        let Some(frame) = next_frame(&mut body, record).await? else { break };
        match frame.into_data() {
            Ok(part) => {
                data.push(part);
                let missing = data.len().saturating_sub(counted + kept.bytes());
                let has_room = missing == 0 || kept.grow(missing).await.is_ok();
                if !has_room {
                    keep_until_sent(record, kept);
                    let body = FilteredBody::partly_read(data.take(), body);
                    return Ok(Collected::Partly(body, UnfilteredBody::BufferLimit));
                }
            }
            Err(frame) => {
                trailers = frame.into_trailers().ok();
                break;
            }
        }
        if data.len() > max_bytes {
            keep_until_sent(record, kept);
            let body = FilteredBody::partly_read(data.take(), body);
            return Ok(Collected::Partly(body, UnfilteredBody::TooLarge));
        }
    }
    body.release();
    Ok(Collected::Whole { data: data.take(), trailers, kept })
}

/// The bytes of a body count until the client has it.
fn keep_until_sent(record: &mut RequestRecord, kept: BufferedBytes) {
    if let Some(run) = &mut record.plugin_run {
        run.kept_body.add(kept);
        record.exchange.activity.keeps_body.set(true);
    }
}

async fn next_frame(body: &mut BodySource, record: &mut RequestRecord) -> Result<Option<Frame<Bytes>>, RequestError> {
    let RequestRecord { exchange, facts: RequestFacts { deadline, .. }, .. } = record;
    let activity = &exchange.activity;
    let polled = poll_fn(|cx| {
        if let Some(error) = deadline.as_mut().and_then(|deadline| deadline.poll_error(cx)) {
            return Poll::Ready(Err(error));
        }
        body.poll_next(Some(activity), cx).map(|frame| match frame {
            None => Ok(None),
            Some(Ok(frame)) => Ok(Some(frame)),
            Some(Err(ResponseBodyError::Timeout)) => Err(RequestError::ResponseTimeout),
            Some(Err(ResponseBodyError::Invalid(_) | ResponseBodyError::Reset | ResponseBodyError::Reply(_))) => {
                Err(RequestError::InvalidResponse)
            }
        })
    });
    let frame = until_timed_out(activity, polled).await.unwrap_or(Err(RequestError::ResponseTimeout))?;
    activity.record_progress();
    if let Some(timeout) = &mut *activity.read_timeout.borrow_mut() {
        timeout.stop();
    }
    Ok(frame)
}
