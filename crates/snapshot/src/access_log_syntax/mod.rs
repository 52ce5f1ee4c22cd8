//! What users write about the access log, parsed before the first request: templates of lines in the notations of
//! nginx, Envoy and Apache, and the rules that select lines.
//!
//! ```text
//!   template.rs: text ─▶ notation ─▶ nginx.rs, envoy.rs or apache.rs ─▶ LineTemplate: constant texts and variables
//!   rules.rs:    text ─▶ LineRules: whether a line is written
//!   sampling.rs: text ─▶ SamplingRules: the same rules, for traces
//! ```

mod apache;
mod builder;
mod envoy;
mod fields;
mod nginx;
mod parts;
mod rules;
mod sampling;
mod template;
mod variable;

pub use fields::AccessLogField;
pub use parts::{LinePart, LineTemplate, LineTemplateError, ValueForm};
pub use rules::{LineFacts, LineRule, LineRules};
pub use sampling::{SamplingRate, SamplingRule, SamplingRules};
pub use variable::{DurationUnit, LineVariable, SeriesLabel, TimeForm};
