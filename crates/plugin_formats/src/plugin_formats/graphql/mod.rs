//! Executable GraphQL documents, as clients send them over HTTP: a strict parser with limits, and what plugins need of
//! a request.
//!
//! ```text
//!   request ─ request.rs ─▶ text, variables, operationName
//!     text ─ lexer.rs ─▶ tokens ─ parser.rs ─▶ document.rs ─ operations.rs ─▶ the operation, with fragments that end
//!          └ normalized.rs ─▶ the text without what has no meaning
//! ```
//!
//! The grammar is that of the GraphQL specification of September 2025, without type system definitions and without
//! descriptions and variables of fragments. A document that two servers may read differently is rejected.

mod document;
mod lexer;
mod normalized;
mod operations;
mod parser;
mod request;
#[cfg(test)]
mod tests;

pub use document::{
    Argument, Fragment, GraphqlField, GraphqlValue, InlineFragment, Operation, OperationKind, Selection, TypeReference,
    VariableDefinition,
};
pub use lexer::is_name;
pub use normalized::normalized;
pub use operations::CheckedDocument;
pub use request::{GraphqlRequest, GraphqlRequestError, has_graphql_type, upgrade_rejection};

/// The limits of a document. Without them, a short text could cost much time or memory.
#[derive(Clone, Copy, Debug)]
pub struct DocumentLimits {
    pub bytes: usize,
    pub tokens: usize,
    /// The levels of selections, values and types, each for itself. A fragment adds the levels that it has, and one.
    pub depth: usize,
    pub aliases: usize,
}

impl DocumentLimits {
    /// More than the documents of usual clients have.
    pub const USUAL: DocumentLimits = DocumentLimits { bytes: 256 << 10, tokens: 10_000, depth: 64, aliases: 1000 };
}

/// Why a document is not accepted. The message names the line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DocumentError {
    pub message: String,
}

impl DocumentError {
    fn new(message: impl Into<String>) -> Self {
        DocumentError { message: message.into() }
    }
}
