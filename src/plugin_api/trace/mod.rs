//! Distributed traces: the context that requests carry in header fields, the decision which requests are recorded, and
//! the messages of OpenTelemetry's protocol.
//!
//! ```text
//!   fields of the client ─extract─▶ ParentContext ─Sampling─▶ RequestTrace ─inject─▶ fields of the endpoint
//!                                                                 └ at the end: Span ─▶ otlp, or JSON of Zipkin
//! ```

pub mod attempts;
pub mod config;
pub mod context;
mod extract;
mod format;
mod inject;
pub mod otlp;
pub mod otlp_json;
pub mod otlp_metrics;
mod propagation;
mod sampling;
pub mod span;
#[cfg(test)]
mod tests;

pub use config::{HeaderType, PropagationConfig};
pub use context::{AttemptParent, ParentContext, RequestTrace, SpanId, TraceId};
pub use format::{InjectedFormat, TraceFormat};
pub use propagation::Propagation;
pub use sampling::{Sampling, SamplingStrategy};
pub use span::{AttributeValue, Span, SpanEvent, SpanKind};
