//! The context of a trace: identifiers, and whether the request is recorded.

use std::fmt;
use std::num::{NonZeroU64, NonZeroU128};

use http::HeaderMap;

use super::format::TraceFormat;
use super::inject::replace_parent;
use super::random_ids::RandomIds;
use crate::begun_trace::{BegunTrace, mix};

/// The identifier of a trace, of 64 or 128 bits. It is written with as many digits as it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId {
    value: NonZeroU128,
    is_short: bool,
}

/// The identifier of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(NonZeroU64);

/// What the fields of a request say about the trace that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParentContext {
    pub format: TraceFormat,
    /// `None` if the fields only contain a decision.
    pub trace: Option<TraceId>,
    /// The span of the client that sent the request.
    pub span: Option<SpanId>,
    /// Whether the client records the trace; `None` if it leaves the decision to the server.
    pub is_sampled: Option<bool>,
}

/// The trace of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestTrace {
    pub trace: TraceId,
    /// The span of the client.
    pub parent: Option<SpanId>,
    /// The span of the request.
    pub server_span: SpanId,
    /// The span of the first attempt, which its endpoint gets as the parent.
    pub upstream_span: SpanId,
    pub is_sampled: bool,
    /// The decision of the client, if it has made one.
    pub parent_is_sampled: Option<bool>,
    /// The format of the fields that the request had, if it had any.
    pub format: Option<TraceFormat>,
}

/// The parent that the endpoints of a request get, one attempt after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttemptParent {
    /// The span of the first attempt.
    first: SpanId,
    /// The number of the attempt whose span the fields contain.
    written: u8,
    /// The number of the attempt that begins.
    current: u8,
}

/// What the endpoints of a request get of its trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EndpointTrace {
    /// Nothing that is not in the header already.
    #[default]
    Unchanged,
    /// A span of each attempt, in fields that the header has.
    OfAttempts(AttemptParent),
    /// A field that the header does not have yet.
    Unwritten(BegunTrace),
}

impl EndpointTrace {
    /// Of a trace whose fields the header has.
    pub fn written(trace: &RequestTrace) -> Self {
        AttemptParent::of(trace).map_or(EndpointTrace::Unchanged, EndpointTrace::OfAttempts)
    }

    /// The attempt with this number begins, from 0.
    pub fn begin_attempt(&mut self, number: usize) {
        if let EndpointTrace::OfAttempts(parent) = self {
            parent.begin(number);
        }
    }

    /// Writes the span of the attempt into the header.
    pub fn write_attempt(&mut self, headers: &mut HeaderMap) {
        if let EndpointTrace::OfAttempts(parent) = self {
            parent.write(headers);
        }
    }

    /// What is to be written with the header.
    pub fn unwritten(self) -> Option<BegunTrace> {
        if let EndpointTrace::Unwritten(trace) = self { Some(trace) } else { None }
    }
}

impl AttemptParent {
    /// `None` if attempts are not recorded.
    pub fn of(trace: &RequestTrace) -> Option<Self> {
        trace.is_sampled.then_some(AttemptParent { first: trace.upstream_span, written: 0, current: 0 })
    }

    /// The attempt with this number begins, from 0.
    pub fn begin(&mut self, number: usize) {
        self.current = u8::try_from(number).unwrap_or(u8::MAX);
    }

    /// Writes the span of the attempt into the fields of the request, which contain that of an earlier one or none.
    pub fn write(&mut self, headers: &mut HeaderMap) {
        if self.written != self.current {
            let span = |number: u8| self.first.of_attempt(number.into());
            replace_parent(headers, span(self.written), span(self.current));
            self.written = self.current;
        }
    }
}

impl TraceId {
    /// A random identifier. It is not meant to be secret.
    fn random(is_short: bool, random: &mut RandomIds) -> Self {
        let low = u128::from(random.u64());
        let value = if is_short { low } else { u128::from(random.u64()) << 64 | low };
        TraceId { value: NonZeroU128::new(value).unwrap_or(NonZeroU128::MIN), is_short }
    }

    /// `None` for 0.
    pub fn new(value: u128) -> Option<Self> {
        NonZeroU128::new(value).map(|value| TraceId { value, is_short: false })
    }

    /// An identifier of 64 bits. `None` for 0.
    pub fn short(value: u64) -> Option<Self> {
        NonZeroU128::new(value.into()).map(|value| TraceId { value, is_short: true })
    }

    /// From 16 or 32 hexadecimal digits of any case.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        match text.len() {
            16 => TraceId::short(parse_hex(text)?.try_into().ok()?),
            32 => TraceId::new(parse_hex(text)?),
            _ => None,
        }
    }

    pub fn value(self) -> u128 {
        self.value.get()
    }

    pub fn is_short(self) -> bool {
        self.is_short
    }

    /// The lower 64 bits.
    pub fn low(self) -> u64 {
        let [.., a, b, c, d, e, f, g, h] = self.value().to_be_bytes();
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// The upper 64 bits.
    pub fn high(self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.value().to_be_bytes();
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// With 32 digits.
    pub fn long_text(self) -> String {
        format!("{:032x}", self.value())
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_short {
            write!(formatter, "{:016x}", self.value())
        } else {
            write!(formatter, "{:032x}", self.value())
        }
    }
}

impl SpanId {
    /// A random identifier.
    pub fn random() -> Self {
        RandomIds::with(SpanId::random_of)
    }

    fn random_of(random: &mut RandomIds) -> Self {
        SpanId(NonZeroU64::new(random.u64()).unwrap_or(NonZeroU64::MIN))
    }

    /// `None` for 0.
    pub fn new(value: u64) -> Option<Self> {
        NonZeroU64::new(value).map(SpanId)
    }

    /// From 16 hexadecimal digits of any case.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        if text.len() != 16 {
            return None;
        }
        SpanId::new(parse_hex(text)?.try_into().ok()?)
    }

    pub fn value(self) -> u64 {
        self.0.get()
    }

    /// The identifier of the attempt with this number, from 0, if this one is that of the first attempt. So nothing is
    /// kept of attempts but their order.
    pub fn of_attempt(self, number: usize) -> Self {
        if number == 0 {
            return self;
        }
        SpanId::new(mix(self.value(), number as u64)).unwrap_or(self)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.value())
    }
}

impl RequestTrace {
    /// Continues the trace of the client, or begins one.
    pub fn new(parent: Option<ParentContext>, is_sampled: bool, new_ids_are_short: bool) -> Self {
        RandomIds::with(|random| RequestTrace::with_random(parent, is_sampled, new_ids_are_short, random))
    }

    /// The same with identifiers of this generator.
    pub fn with_random(
        parent: Option<ParentContext>,
        is_sampled: bool,
        new_ids_are_short: bool,
        random: &mut RandomIds,
    ) -> Self {
        let trace = parent.and_then(|parent| parent.trace);
        RequestTrace {
            trace: trace.unwrap_or_else(|| TraceId::random(new_ids_are_short, random)),
            parent: trace.and(parent).and_then(|parent| parent.span),
            server_span: SpanId::random_of(random),
            upstream_span: SpanId::random_of(random),
            is_sampled,
            parent_is_sampled: parent.and_then(|parent| parent.is_sampled),
            format: parent.map(|parent| parent.format),
        }
    }
}

impl From<BegunTrace> for RequestTrace {
    fn from(begun: BegunTrace) -> Self {
        RequestTrace {
            trace: TraceId::new(begun.trace()).expect("the identifier is not 0"),
            parent: None,
            server_span: SpanId(begun.server_span()),
            upstream_span: SpanId(begun.upstream_span()),
            is_sampled: false,
            parent_is_sampled: None,
            format: None,
        }
    }
}

/// A number of at most 32 hexadecimal digits.
pub(super) fn parse_hex(text: &[u8]) -> Option<u128> {
    if text.is_empty() || text.len() > 32 || !text.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u128::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()
}
