//! Distributed traces: the context that requests carry in header fields, the decision which requests are recorded, and
//! what is recorded of them.
//!
//! ```text
//!   fields of the client ─extract─▶ ParentContext ─Sampling─▶ RequestTrace ─inject─▶ fields of the endpoint
//!                                                                 └ at the end: Span ─▶ otlp_messages, or Zipkin
//! ```

pub mod attempts;
pub mod config;
pub mod context;
mod extract;
mod format;
mod inject;
mod propagation;
mod random_ids;
mod sampling;
pub mod span;
#[cfg(test)]
mod tests;

pub use config::{HeaderType, PropagationConfig};
pub use context::{AttemptParent, EndpointTrace, ParentContext, RequestTrace, SpanId, TraceId};
pub use format::{InjectedFormat, TraceFormat};
pub use propagation::Propagation;
pub use random_ids::RandomIds;
pub use sampling::{Sampling, SamplingStrategy};
pub use span::{AttributeValue, Span, SpanEvent, SpanKind};
