//! The regular expression of a path, in the order by host: its text, and its named groups.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::snapshot::path_regex::{Captures, PathRegex};
use crate::snapshot::regex::{RegexError, RegexLimit};

/// A regular expression that must match the whole path. Dereferences to its text. Which paths match is decided by the
/// automaton of all expressions of a host; this one finds groups.
#[derive(Clone)]
pub struct PathPattern(Arc<Pattern>);

struct Pattern {
    text: Box<str>,
    /// Only if there is a named group: groups that only join alternatives need no memory.
    groups: Option<PathRegex>,
}

impl PathPattern {
    /// Compiles the pattern, if it has named groups.
    pub fn compile(text: &str, limit: RegexLimit) -> Result<Self, RegexError> {
        let has_names = text.contains("(?<") || text.contains("(?P<");
        let groups = has_names.then(|| PathRegex::compile_whole(text, limit)).transpose()?;
        Ok(PathPattern(Arc::new(Pattern { text: text.into(), groups })))
    }

    /// The bytes that its groups take.
    pub fn group_bytes(&self) -> usize {
        self.0.groups.as_ref().map_or(0, PathRegex::memory_usage)
    }

    /// The groups of a path that the pattern matches; none unless it has named ones.
    pub(super) fn captures<'p>(&self, path: &'p str) -> Captures<'p> {
        self.0.groups.as_ref().map_or_else(|| Captures::none(path), |groups| groups.captures(path))
    }
}

/// A pattern whose groups nothing reads.
impl From<&str> for PathPattern {
    fn from(text: &str) -> Self {
        PathPattern(Arc::new(Pattern { text: text.into(), groups: None }))
    }
}

impl From<String> for PathPattern {
    fn from(text: String) -> Self {
        PathPattern(Arc::new(Pattern { text: text.into(), groups: None }))
    }
}

impl Deref for PathPattern {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0.text
    }
}

/// Patterns with equal text are equal.
impl PartialEq for PathPattern {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for PathPattern {}

impl fmt::Debug for PathPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, formatter)
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_the_whole_path_are_found() {
        let pattern = PathPattern::compile(r"/(?<who>[a-z]+?)/(?P<id>[0-9]+)(/.*)?", RegexLimit::MEMORY_ONLY).unwrap();
        let captures = pattern.captures("/ann/12/more");
        assert_eq!(["who", "id", "x"].map(|name| captures.named_group(name)), [Some("ann"), Some("12"), None]);
        assert_eq!((captures.group(3), captures.group(0)), (Some("/more"), Some("/ann/12/more")));
        assert_eq!(pattern.captures("/ann/12x").named_group("who"), None, "the pattern does not match the whole path");
        assert!(pattern.group_bytes() > 0);
    }

    #[test]
    fn patterns_without_names_take_no_memory_for_groups() {
        let pattern = PathPattern::compile("/(a|b)", RegexLimit::MEMORY_ONLY).unwrap();
        assert_eq!((pattern.group_bytes(), pattern.captures("/a").group(1)), (0, None));
        assert_eq!(pattern, PathPattern::from("/(a|b)"));
    }
}
