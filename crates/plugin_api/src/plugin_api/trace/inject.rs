//! Writes the context of a trace into header fields. What the request has in the same fields is replaced.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::context::{RequestTrace, SpanId, TraceId};
use super::extract::is_debugged;
use super::format::{
    AMZN_TRACE_ID, B3, B3_FLAGS, B3_PARENT_SPAN_ID, B3_SAMPLED, B3_SPAN_ID, B3_TRACE_ID, CLOUD_TRACE_CONTEXT,
    DATADOG_PARENT_ID, DATADOG_PRIORITY, DATADOG_TAGS, DATADOG_TRACE_ID, DATADOG_UPPER_BITS, INSTANA_L, INSTANA_S,
    INSTANA_T, OT_SAMPLED, OT_SPAN_ID, OT_TRACE_ID, TRACEPARENT, TRACESTATE, TraceFormat, UBER_TRACE_ID,
};
use crate::hex_digits::hex_digits;

pub(super) fn inject(format: TraceFormat, context: &RequestTrace, headers: &mut HeaderMap) {
    let RequestTrace { trace, server_span, upstream_span: span, is_sampled, .. } = *context;
    let sampled = if is_sampled { "1" } else { "0" };
    // B3's flag for debugging stays, if the decision of the client is respected.
    let is_debugged = is_sampled && context.parent_is_sampled == Some(true) && is_debugged(format, headers);
    match format {
        TraceFormat::W3c => {
            // The states of another trace, or those without a valid context, must not be forwarded.
            if context.format != Some(TraceFormat::W3c) || !is_trace_state(headers) {
                headers.remove(TRACESTATE);
            }
            headers.insert(TRACEPARENT, traceparent(trace, span, is_sampled));
        }
        TraceFormat::B3 => {
            set(headers, B3_TRACE_ID, &trace.to_string());
            set(headers, B3_SPAN_ID, &span.to_string());
            set(headers, B3_PARENT_SPAN_ID, &server_span.to_string());
            if is_debugged {
                // The flag implies the decision.
                headers.remove(B3_SAMPLED);
            } else {
                headers.remove(B3_FLAGS);
                set(headers, B3_SAMPLED, sampled);
            }
        }
        TraceFormat::B3Single => {
            let sampled = if is_debugged { "d" } else { sampled };
            set(headers, B3, &format!("{trace}-{span}-{sampled}-{server_span}"));
        }
        TraceFormat::Jaeger => set(headers, UBER_TRACE_ID, &format!("{trace}:{span}:{server_span}:0{sampled}")),
        TraceFormat::Ot => {
            set(headers, OT_TRACE_ID, &trace.to_string());
            set(headers, OT_SPAN_ID, &span.to_string());
            set(headers, OT_SAMPLED, sampled);
        }
        TraceFormat::Datadog => {
            set(headers, DATADOG_TRACE_ID, &trace.low().to_string());
            set(headers, DATADOG_PARENT_ID, &span.value().to_string());
            set(headers, DATADOG_PRIORITY, sampled);
            set_datadog_tags(context, headers);
        }
        TraceFormat::Aws => {
            let digits = trace.long_text();
            let (time, rest) = digits.split_at(8);
            set(headers, AMZN_TRACE_ID, &format!("Root=1-{time}-{rest};Parent={span};Sampled={sampled}"));
        }
        TraceFormat::Gcp => {
            let value = format!("{}/{};o={sampled}", trace.long_text(), span.value());
            set(headers, CLOUD_TRACE_CONTEXT, &value);
        }
        TraceFormat::Instana => {
            set(headers, INSTANA_T, &trace.to_string());
            set(headers, INSTANA_S, &span.to_string());
            set(headers, INSTANA_L, sampled);
        }
    }
}

/// The value of the field, without the machinery of formatting: most requests that are not recorded get one, too.
fn traceparent(trace: TraceId, span: SpanId, is_sampled: bool) -> HeaderValue {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    text[3..19].copy_from_slice(&hex_digits(trace.high()));
    text[19..35].copy_from_slice(&hex_digits(trace.low()));
    text[36..52].copy_from_slice(&hex_digits(span.value()));
    if is_sampled {
        text[54] = b'1';
    }
    HeaderValue::from_bytes(&text).expect("identifiers are digits")
}

/// Replaces a span that [`inject`] has written as the parent of the endpoint, in all formats.
pub(super) fn replace_parent(headers: &mut HeaderMap, from: SpanId, to: SpanId) {
    let hexadecimal = [TRACEPARENT, B3_SPAN_ID, B3, UBER_TRACE_ID, OT_SPAN_ID, AMZN_TRACE_ID, INSTANA_S];
    let (old, new) = (from.to_string(), to.to_string());
    hexadecimal.into_iter().for_each(|name| replace(headers, &name, &old, &new));
    let (old, new) = (from.value().to_string(), to.value().to_string());
    replace(headers, &DATADOG_PARENT_ID, &old, &new);
    // The identifier of the trace may contain the digits, too.
    replace(headers, &CLOUD_TRACE_CONTEXT, &format!("/{old};"), &format!("/{new};"));
}

fn replace(headers: &mut HeaderMap, name: &HeaderName, old: &str, new: &str) {
    let Some(value) = headers.get_mut(name) else { return };
    let replaced = value.to_str().ok().filter(|text| text.contains(old)).map(|text| text.replacen(old, new, 1));
    if let Some(mut replaced) = replaced.and_then(|text| HeaderValue::try_from(text).ok()) {
        replaced.set_sensitive(value.is_sensitive());
        *value = replaced;
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    headers.insert(name, HeaderValue::from_str(value).expect("identifiers are digits"));
}

/// The upper bits of the trace, with the other tags of the client.
fn set_datadog_tags(context: &RequestTrace, headers: &mut HeaderMap) {
    let others = match headers.get(DATADOG_TAGS).filter(|_| context.format == Some(TraceFormat::Datadog)) {
        Some(tags) if tags.len() <= MAX_DATADOG_TAGS => tags.to_str().unwrap_or_default(),
        _ => "",
    };
    let is_other = |tag: &&str| !tag.is_empty() && tag.split('=').next() != Some(DATADOG_UPPER_BITS);
    let mut tags: Vec<String> = others.split(',').map(str::trim).filter(is_other).map(str::to_owned).collect();
    if context.trace.high() != 0 {
        tags.insert(0, format!("{DATADOG_UPPER_BITS}={:016x}", context.trace.high()));
    }
    if tags.is_empty() {
        headers.remove(DATADOG_TAGS);
        return;
    }
    if let Ok(value) = HeaderValue::from_str(&tags.join(",")) {
        headers.insert(DATADOG_TAGS, value);
    }
}

/// Whether the states are within the limits of W3C Trace Context, section 3.3.
fn is_trace_state(headers: &HeaderMap) -> bool {
    let mut members = 0;
    headers.get_all(TRACESTATE).iter().all(|value| {
        let Ok(text) = value.to_str() else { return false };
        let mut parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.all(|part| {
            members += 1;
            members <= MAX_TRACE_STATES && part.split_once('=').is_some_and(|(name, _)| !name.is_empty())
        })
    })
}

const MAX_TRACE_STATES: usize = 32;
const MAX_DATADOG_TAGS: usize = 512;
