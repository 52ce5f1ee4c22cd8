//! Reads the context of a trace from header fields. Clients may send anything: a format whose fields are broken,
//! repeated or contradict each other counts as absent.

use http::{HeaderMap, HeaderName};

use super::context::{ParentContext, SpanId, TraceId, parse_hex};
use super::format::{
    AMZN_TRACE_ID, B3, B3_FLAGS, B3_PARENT_SPAN_ID, B3_SAMPLED, B3_SPAN_ID, B3_TRACE_ID, CLOUD_TRACE_CONTEXT,
    DATADOG_PARENT_ID, DATADOG_PRIORITY, DATADOG_TAGS, DATADOG_TRACE_ID, DATADOG_UPPER_BITS, INSTANA_L, INSTANA_S,
    INSTANA_T, OT_SAMPLED, OT_SPAN_ID, OT_TRACE_ID, TRACEPARENT, TraceFormat, UBER_TRACE_ID,
};

/// The context in one format.
pub(super) fn extract(format: TraceFormat, headers: &HeaderMap) -> Option<ParentContext> {
    let context = match format {
        TraceFormat::W3c => traceparent(field(headers, &TRACEPARENT)?),
        TraceFormat::B3 => match headers.contains_key(&B3) {
            true => b3_single(field(headers, &B3)?),
            false => b3(headers),
        },
        TraceFormat::B3Single => b3_single(field(headers, &B3)?),
        TraceFormat::Jaeger => uber_trace_id(field(headers, &UBER_TRACE_ID)?),
        TraceFormat::Ot => ot(headers),
        TraceFormat::Datadog => datadog(headers),
        TraceFormat::Aws => amzn_trace_id(field(headers, &AMZN_TRACE_ID)?),
        TraceFormat::Gcp => cloud_trace_context(field(headers, &CLOUD_TRACE_CONTEXT)?),
        TraceFormat::Instana => instana(headers),
    }?;
    let Context { trace, span, is_sampled } = context;
    // Endpoints get a single field as well.
    let format = if format == TraceFormat::B3 && headers.contains_key(&B3) { TraceFormat::B3Single } else { format };
    Some(ParentContext { format, trace, span, is_sampled })
}

/// The context in the fields `X-B3-…`, also if the request has the single field.
pub(super) fn extract_b3_fields(headers: &HeaderMap) -> Option<ParentContext> {
    let Context { trace, span, is_sampled } = b3(headers)?;
    Some(ParentContext { format: TraceFormat::B3, trace, span, is_sampled })
}

/// Whether the client asks for debugging in the single field of B3, or in its other fields.
pub(super) fn is_debugged(format: TraceFormat, headers: &HeaderMap) -> bool {
    match format {
        TraceFormat::B3 => headers.get(B3_FLAGS).is_some_and(|flags| flags == "1"),
        TraceFormat::B3Single => headers.get(B3).is_some_and(|value| {
            let mut parts = value.as_bytes().split(|byte| *byte == b'-');
            value == "d" || parts.nth(2) == Some(b"d")
        }),
        _ => false,
    }
}

struct Context {
    trace: Option<TraceId>,
    span: Option<SpanId>,
    is_sampled: Option<bool>,
}

impl Context {
    fn new(trace: TraceId, span: Option<SpanId>, is_sampled: Option<bool>) -> Self {
        Context { trace: Some(trace), span, is_sampled }
    }

    /// A decision about a trace that does not exist yet.
    fn decision(is_sampled: bool) -> Self {
        Context { trace: None, span: None, is_sampled: Some(is_sampled) }
    }
}

/// The value of a field that occurs once, up to a length that no context exceeds.
fn field<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.as_bytes();
    (values.next().is_none() && value.len() <= MAX_VALUE).then_some(value)
}

/// The value of a field that may be absent. `Err` if it occurs more than once or is too long.
fn optional<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h [u8]>, Broken> {
    if headers.contains_key(name) { field(headers, name).map(Some).ok_or(Broken) } else { Ok(None) }
}

struct Broken;

/// W3C Trace Context, section 3.2.
fn traceparent(value: &[u8]) -> Option<Context> {
    let is_lower_hex = |text: &[u8]| text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let (head, rest) = value.split_at_checked(TRACEPARENT_LENGTH)?;
    let mut parts = head.split(|&byte| byte == b'-');
    let [version, trace, span, flags] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    let has_lengths = [version.len(), trace.len(), span.len(), flags.len()] == [2, 32, 16, 2];
    if parts.next().is_some() || !has_lengths || ![version, trace, span, flags].into_iter().all(is_lower_hex) {
        return None;
    }
    // Later versions may add parts, version 00 has none.
    let may_continue = version != b"00" && rest.starts_with(b"-");
    if version == b"ff" || !(rest.is_empty() || may_continue) {
        return None;
    }
    let is_sampled = parse_hex(flags)? & 1 == 1;
    Some(Context::new(TraceId::parse(trace)?, Some(SpanId::parse(span)?), Some(is_sampled)))
}

fn b3(headers: &HeaderMap) -> Option<Context> {
    let get = |name: HeaderName| optional(headers, &name).ok();
    let (trace, span) = (get(B3_TRACE_ID)?, get(B3_SPAN_ID)?);
    let (parent, sampled, flags) = (get(B3_PARENT_SPAN_ID)?, get(B3_SAMPLED)?, get(B3_FLAGS)?);
    let is_debug = match flags {
        None | Some(b"0") => false,
        Some(b"1") => true,
        Some(_) => return None,
    };
    let sampled = match sampled {
        None => None,
        Some(value) => Some(decision(value)?),
    };
    // The flag for debugging implies that the trace is recorded.
    if is_debug && sampled == Some(false) {
        return None;
    }
    let sampled = if is_debug { Some(true) } else { sampled };
    match (trace, span) {
        (Some(trace), Some(span)) => {
            // The parent of the client's span is not needed, but has to be valid.
            if let Some(parent) = parent {
                SpanId::parse(parent)?;
            }
            Some(Context::new(TraceId::parse(trace)?, Some(SpanId::parse(span)?), sampled))
        }
        (None, None) if parent.is_none() => sampled.map(Context::decision),
        _ => None,
    }
}

fn b3_single(value: &[u8]) -> Option<Context> {
    match value {
        b"0" => return Some(Context::decision(false)),
        b"1" | b"d" => return Some(Context::decision(true)),
        _ => {}
    }
    let mut parts = value.split(|&byte| byte == b'-');
    let (trace, span) = (TraceId::parse(parts.next()?)?, SpanId::parse(parts.next()?)?);
    let is_sampled = match parts.next() {
        None => None,
        Some(b"1" | b"d") => Some(true),
        Some(b"0") => Some(false),
        Some(_) => return None,
    };
    if let Some(parent) = parts.next() {
        SpanId::parse(parent)?;
    }
    parts.next().is_none().then(|| Context::new(trace, Some(span), is_sampled))
}

/// Leading zeros may be missing, and some clients encode the colons.
fn uber_trace_id(value: &[u8]) -> Option<Context> {
    let text = std::str::from_utf8(value).ok()?;
    let decoded = if text.contains('%') { text.replace("%3A", ":").replace("%3a", ":") } else { text.to_owned() };
    let mut parts = decoded.split(':');
    let [trace, span, parent, flags] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    if parts.next().is_some() || span.len() > 16 || parent.len() > 16 || flags.len() > 2 {
        return None;
    }
    let is_short = trace.len() <= 16;
    let trace = parse_hex(trace.as_bytes())?;
    let trace = if is_short { TraceId::short(trace.try_into().ok()?) } else { TraceId::new(trace) }?;
    let span = SpanId::new(parse_hex(span.as_bytes())?.try_into().ok()?)?;
    parse_hex(parent.as_bytes())?;
    // The flag 2 is for debugging and implies that the trace is recorded.
    let is_sampled = parse_hex(flags.as_bytes())? & 3 != 0;
    Some(Context::new(trace, Some(span), Some(is_sampled)))
}

fn ot(headers: &HeaderMap) -> Option<Context> {
    let (trace, span) = (field(headers, &OT_TRACE_ID)?, field(headers, &OT_SPAN_ID)?);
    let is_sampled = match optional(headers, &OT_SAMPLED).ok()? {
        None => None,
        Some(value) => Some(decision(value)?),
    };
    Some(Context::new(TraceId::parse(trace)?, Some(SpanId::parse(span)?), is_sampled))
}

fn datadog(headers: &HeaderMap) -> Option<Context> {
    let low = parse_decimal(field(headers, &DATADOG_TRACE_ID)?)?;
    let span = match optional(headers, &DATADOG_PARENT_ID).ok()? {
        None => None,
        Some(value) => SpanId::new(parse_decimal(value)?),
    };
    let is_sampled = match optional(headers, &DATADOG_PRIORITY).ok()? {
        None => None,
        Some(b"1" | b"2") => Some(true),
        Some(b"0" | b"-1") => Some(false),
        Some(_) => return None,
    };
    let tags = optional(headers, &DATADOG_TAGS).ok()?.and_then(|tags| std::str::from_utf8(tags).ok());
    let high = tags.and_then(|tags| {
        let mut pairs = tags.split(',').filter_map(|pair| pair.trim().split_once('='));
        let (_, digits) = pairs.find(|(name, _)| *name == DATADOG_UPPER_BITS)?;
        (digits.len() == 16).then(|| parse_hex(digits.as_bytes()))?
    });
    let trace = match high {
        Some(high) if high != 0 => TraceId::new(high << 64 | u128::from(low)),
        _ => TraceId::short(low),
    };
    // Zero stands for no trace.
    TraceId::short(low)?;
    Some(Context::new(trace?, span, is_sampled))
}

/// `Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1`, with further parts in any order.
fn amzn_trace_id(value: &[u8]) -> Option<Context> {
    let text = std::str::from_utf8(value).ok()?;
    let (mut root, mut parent, mut sampled) = (None, None, None);
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=')?;
        let place = match name {
            "Root" => &mut root,
            "Parent" => &mut parent,
            "Sampled" => &mut sampled,
            _ => continue,
        };
        if place.replace(value).is_some() {
            return None;
        }
    }
    let (time, rest) = root?.strip_prefix("1-")?.split_once('-')?;
    if time.len() != 8 || rest.len() != 24 {
        return None;
    }
    let trace = TraceId::new(parse_hex(time.as_bytes())? << 96 | parse_hex(rest.as_bytes())?)?;
    let span = match parent {
        None => None,
        Some(parent) => Some(SpanId::parse(parent.as_bytes())?),
    };
    let is_sampled = match sampled {
        None | Some("?") => None,
        Some("1") => Some(true),
        Some("0") => Some(false),
        Some(_) => return None,
    };
    Some(Context::new(trace, span, is_sampled))
}

/// `105445aa7843bc8bf206b12000100000/1;o=1`, whose span is a decimal number.
fn cloud_trace_context(value: &[u8]) -> Option<Context> {
    let text = std::str::from_utf8(value).ok()?;
    let (ids, options) = text.split_once(';').map_or((text, None), |(ids, options)| (ids, Some(options)));
    let (trace, span) = ids.split_once('/')?;
    if trace.len() != 32 {
        return None;
    }
    let is_sampled = match options.map(|options| options.strip_prefix("o=")) {
        None => None,
        Some(Some("0" | "2")) => Some(false),
        Some(Some("1" | "3")) => Some(true),
        Some(_) => return None,
    };
    let span = SpanId::new(parse_decimal(span.as_bytes())?)?;
    Some(Context::new(TraceId::parse(trace.as_bytes())?, Some(span), is_sampled))
}

fn instana(headers: &HeaderMap) -> Option<Context> {
    let get = |name: HeaderName| optional(headers, &name).ok();
    let (trace, span, level) = (get(INSTANA_T)?, get(INSTANA_S)?, get(INSTANA_L)?);
    // What follows a comma correlates with the page of a browser.
    let level = level.and_then(|level| level.split(|&byte| byte == b',').next());
    let is_sampled = match level {
        None => None,
        Some(b"1") => Some(true),
        Some(b"0") => Some(false),
        Some(_) => return None,
    };
    match (trace, span) {
        (Some(trace), Some(span)) => Some(Context::new(TraceId::parse(trace)?, Some(SpanId::parse(span)?), is_sampled)),
        (None, None) => is_sampled.map(Context::decision),
        _ => None,
    }
}

fn decision(value: &[u8]) -> Option<bool> {
    match value {
        b"1" | b"true" => Some(true),
        b"0" | b"false" => Some(false),
        _ => None,
    }
}

/// Digits only: no sign and no spaces.
fn parse_decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The longest values are those of tags, which Datadog limits to 512 characters.
const MAX_VALUE: usize = 512;
const TRACEPARENT_LENGTH: usize = 55;
