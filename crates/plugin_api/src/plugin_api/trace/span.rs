//! A span: one operation of a trace with its times and attributes.

use std::borrow::Cow;
use std::net::IpAddr;

use super::context::{SpanId, TraceId};

/// One operation of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    pub trace: TraceId,
    pub id: SpanId,
    pub parent: Option<SpanId>,
    pub name: Cow<'static, str>,
    pub kind: SpanKind,
    /// Nanoseconds since 1970.
    pub start: u64,
    pub end: u64,
    pub attributes: Vec<(Cow<'static, str>, AttributeValue)>,
    pub events: Vec<SpanEvent>,
    /// Why the operation failed.
    pub error: Option<Cow<'static, str>>,
}

/// A moment within a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanEvent {
    pub time: u64,
    pub name: Cow<'static, str>,
}

/// The side of the operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    Internal,
    Server,
    Client,
}

#[derive(Clone, Debug, PartialEq)]
pub enum AttributeValue {
    Text(Cow<'static, str>),
    Number(i64),
    Boolean(bool),
}

impl Span {
    pub fn attribute(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<AttributeValue>) {
        self.attributes.push((name.into(), value.into()));
    }
}

impl From<String> for AttributeValue {
    fn from(text: String) -> Self {
        AttributeValue::Text(Cow::Owned(text))
    }
}

impl From<&str> for AttributeValue {
    fn from(text: &str) -> Self {
        AttributeValue::Text(Cow::Owned(text.to_owned()))
    }
}

impl From<Cow<'_, str>> for AttributeValue {
    fn from(text: Cow<'_, str>) -> Self {
        AttributeValue::Text(Cow::Owned(text.into_owned()))
    }
}

impl From<IpAddr> for AttributeValue {
    fn from(address: IpAddr) -> Self {
        AttributeValue::from(address.to_string())
    }
}

impl From<u16> for AttributeValue {
    fn from(number: u16) -> Self {
        AttributeValue::Number(number.into())
    }
}

impl From<u64> for AttributeValue {
    fn from(number: u64) -> Self {
        AttributeValue::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<bool> for AttributeValue {
    fn from(value: bool) -> Self {
        AttributeValue::Boolean(value)
    }
}
