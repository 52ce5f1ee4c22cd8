//! JSON Schema: schemas are compiled once, and JSON values are validated against them within a limit of steps.
//!
//! ```text
//!   document ──JsonSchemaCompiler──▶ nodes with keywords ──SchemaSet──▶ validate(value, budget) ─▶ valid, the first
//!      $ref ───resolve.rs──────▶ edges between nodes                                          error, or too costly
//! ```
//!
//! Schemas come from the authors of plugins and values from clients, and both may be hostile: a small schema can
//! require exponential work. Each keyword therefore takes steps from a [`ValidationBudget`], and a value that exceeds
//! them is neither valid nor invalid. References lead to parts of the same document only; nothing is ever fetched.

mod compile;
mod evaluate;
mod format;
mod keyword;
mod number;
mod pattern;
mod resolve;
#[cfg(test)]
mod tests;
mod uri;

use std::fmt;

use serde_json::Value;

use crate::plugin_api::plugin_regex::RemainingRegexSteps;
pub use compile::JsonSchemaCompiler;
use keyword::CompiledNode;

/// The rules by which a schema is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SchemaDialect {
    Draft4,
    /// The Schema Object of `OpenAPI` 3.0 and Swagger 2.0, which extends a part of draft 4.
    OpenApi30,
    Draft6,
    Draft7,
    Draft201909,
    /// Also the Schema Object of `OpenAPI` 3.1.
    Draft202012,
}

/// Whether values belong to requests or to responses. Required members that are `readOnly` may be absent in a request,
/// and those that are `writeOnly` in a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Any,
    Request,
    Response,
}

/// Compiled schemas of one document.
#[derive(Debug)]
pub struct SchemaSet {
    nodes: Box<[CompiledNode]>,
    /// The nodes with `$dynamicAnchor`, by resource.
    dynamic_anchors: Box<[Vec<DynamicAnchor>]>,
}

/// The name of an anchor, and its node.
type DynamicAnchor = (Box<str>, usize);

/// A schema of a [`SchemaSet`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaId(usize);

/// How much work the validation of one request may cause.
pub struct ValidationBudget<'r> {
    steps: u64,
    regex_steps: &'r mut RemainingRegexSteps,
}

impl<'r> ValidationBudget<'r> {
    pub fn new(regex_steps: &'r mut RemainingRegexSteps) -> Self {
        ValidationBudget { steps: MAX_STEPS, regex_steps }
    }
}

/// The steps of one request: about 50 ms of CPU time. A body of 1 MiB with 100,000 numbers takes 400,000.
pub const MAX_STEPS: u64 = 1_000_000;

/// Why a value is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    Invalid(InvalidValue),
    /// The validation needs more steps than the budget has, or recursion that is too deep.
    TooCostly,
}

/// The first error that was found in a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidValue {
    /// JSON Pointer (RFC 6901) of the part of the value; empty for the whole value.
    pub pointer: String,
    /// The clause after the pointer, such as `must be a string`.
    pub message: String,
}

impl fmt::Display for InvalidValue {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.pointer.is_empty() {
            write!(formatter, "{}: ", self.pointer)?;
        }
        formatter.write_str(&self.message)
    }
}

impl SchemaSet {
    /// Validates a value, which must not be nested more deeply than `serde_json` parses by default.
    pub fn validate(
        &self,
        schema: SchemaId,
        value: &Value,
        budget: &mut ValidationBudget<'_>,
    ) -> Result<(), Violation> {
        evaluate::validate(self, schema.0, value, budget)
    }
}

/// An error in a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaError {
    /// JSON Pointer of the schema or keyword.
    pub pointer: String,
    pub message: String,
    pub remedy: &'static str,
}
