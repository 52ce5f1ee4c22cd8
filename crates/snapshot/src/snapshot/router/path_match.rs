//! The path of a match, in the order by host.

use std::fmt;

use super::path_pattern::PathPattern;

/// A condition on the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// Escapes of unreserved characters are decoded first (`%7E` is `~`), as in requests and prefixes, and other
    /// escapes written in upper case. Then every byte must be equal, including a trailing slash.
    Exact(Box<str>),
    /// Matches whole segments, with or without trailing slash. The root is the empty string and matches every path.
    Prefix(Box<str>),
    /// Must match the whole path, in which the case of escapes may be another one.
    Regex(PathPattern),
}

/// With the type names of the API: `Exact /a`, `PathPrefix /`, `RegularExpression /a.*`.
impl fmt::Display for PathMatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathMatch::Exact(path) => write!(formatter, "Exact {path}"),
            PathMatch::Prefix(path) if path.is_empty() => formatter.write_str("PathPrefix /"),
            PathMatch::Prefix(path) => write!(formatter, "PathPrefix {path}"),
            PathMatch::Regex(pattern) => write!(formatter, "RegularExpression {pattern}"),
        }
    }
}
