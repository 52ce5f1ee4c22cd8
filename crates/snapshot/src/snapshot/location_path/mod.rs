//! The paths of locations, which are selected as nginx selects them: what they match, and what replaces them.

mod backtracking;
mod decoded_path;
mod encoded_path;
mod expression;
mod replacement;

use std::fmt;

pub use backtracking::BacktrackingRegex;
pub(in crate::snapshot) use decoded_path::{bytes_of, decoded_path};
pub(in crate::snapshot) use encoded_path::{ENCODED_IN_PATHS, encode_text};
pub use expression::{LocationExpression, expression_bytes, literal_part};
pub use replacement::{GroupTemplate, InvalidReplacement, PathReplacement, ReplacedPath, UnknownVariable};

/// What a location matches the decoded path of requests with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocationPath {
    /// The whole path.
    Exact(Box<str>),
    /// The start of the path. It ends with a slash.
    Prefix(Box<str>),
    /// An expression at the start of the path.
    Expression {
        path: Box<str>,
        /// The path of the Ingress, which decides the order. `path` may have a slash more.
        written: Box<str>,
        expression: LocationExpression,
    },
}

impl LocationPath {
    /// The expression, if it is one.
    pub fn expression(&self) -> Option<&LocationExpression> {
        match self {
            LocationPath::Expression { expression, .. } => Some(expression),
            LocationPath::Exact(_) | LocationPath::Prefix(_) => None,
        }
    }
}

/// In the notation of nginx: `= /a`, `/a/`, `~* ^/a`.
impl fmt::Display for LocationPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LocationPath::Exact(path) => write!(formatter, "= {path}"),
            LocationPath::Prefix(path) => formatter.write_str(path),
            LocationPath::Expression { path, .. } => write!(formatter, "~* ^{path}"),
        }
    }
}
