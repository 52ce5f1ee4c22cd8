//! What users write about the access log, parsed before the first request: templates of lines in the notations of nginx,
//! Envoy and Apache, and the rules that select lines.
//!
//! ```text
//!   template.rs: text ─▶ notation ─▶ nginx.rs, envoy.rs or apache.rs ─▶ LineTemplate: constant texts and variables
//!   rules.rs:    text ─▶ LineRules: whether a line is written
//! ```

mod apache;
mod builder;
mod envoy;
mod nginx;
mod rules;
mod template;
mod variable;

pub use rules::{LineFacts, LineRule, LineRules};
pub use template::{LinePart, LineTemplate, TemplateError, ValueForm};
pub use variable::{DurationUnit, LineVariable, SeriesLabel, TimeForm};
