//! The paths that requests are matched with, as text and as regular expressions.

pub(super) mod literal_path;
pub(super) mod path_expression;
