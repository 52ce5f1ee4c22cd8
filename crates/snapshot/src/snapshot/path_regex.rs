//! Regular expressions that match a part of a value, and the capture groups of paths. Expressions of paths match from
//! the first byte on, those of header values anywhere.

use std::fmt;
use std::hash::{Hash, Hasher};

use regex_automata::util::captures;
use regex_automata::{Anchored, Input, MatchKind, PatternID, meta};

use super::regex::{RegexAnchor, RegexError, RegexLimit, build_regex};

/// A regular expression (Rust's syntax) that matches from the first byte of a path, and not necessarily to its last
/// unless it was compiled so.
#[derive(Clone)]
pub struct PathRegex {
    pattern: Box<str>,
    compiled: meta::Regex,
    states: u32,
}

impl PathRegex {
    /// Compiles a pattern without a limit of its states.
    pub fn compile(pattern: &str) -> Result<Self, RegexError> {
        PathRegex::compile_within(pattern, RegexLimit::MEMORY_ONLY)
    }

    pub(crate) fn compile_within(pattern: &str, limit: RegexLimit) -> Result<Self, RegexError> {
        let (compiled, size) = build_regex(pattern, RegexAnchor::Start, MatchKind::LeftmostFirst, limit)?;
        Ok(PathRegex { pattern: pattern.into(), compiled, states: size.states })
    }

    /// Compiles a pattern that must match the whole path.
    pub(in crate::snapshot) fn compile_whole(pattern: &str, limit: RegexLimit) -> Result<Self, RegexError> {
        let (compiled, size) = build_regex(pattern, RegexAnchor::Whole, MatchKind::LeftmostFirst, limit)?;
        Ok(PathRegex { pattern: pattern.into(), compiled, states: size.states })
    }

    /// The number of states of its automaton.
    pub(in crate::snapshot) fn states(&self) -> u32 {
        self.states
    }

    /// The bytes of its automaton.
    pub(in crate::snapshot) fn memory_usage(&self) -> usize {
        self.compiled.memory_usage()
    }

    /// The pattern as configured, without the tilde.
    pub fn as_str(&self) -> &str {
        &self.pattern
    }

    /// The number of capture groups, without the implicit group 0.
    pub fn group_count(&self) -> usize {
        self.compiled.captures_len().saturating_sub(1)
    }

    /// How many bytes of the path the expression matches. `None` if it does not match.
    pub(crate) fn matched_length(&self, path: &str) -> Option<usize> {
        self.compiled.find(Input::new(path).anchored(Anchored::Yes)).map(|found| found.end())
    }

    /// The capture groups; empty if the path does not match.
    pub fn captures<'p>(&self, path: &'p str) -> Captures<'p> {
        let mut groups = self.compiled.create_captures();
        self.compiled.captures(Input::new(path).anchored(Anchored::Yes), &mut groups);
        Captures { path, groups: Some(groups) }
    }
}

/// The capture groups of a route's regular expression, applied to a path.
#[derive(Clone, Debug)]
pub struct Captures<'p> {
    path: &'p str,
    /// `None` if the route's path is not a regular expression. An expression that does not match has no groups either.
    groups: Option<captures::Captures>,
}

impl<'p> Captures<'p> {
    /// Without groups, for a route path that is not a regular expression.
    pub(in crate::snapshot) fn none(path: &'p str) -> Self {
        Captures { path, groups: None }
    }

    /// The text of a group by its number, from 1 on; 0 is the whole match.
    pub fn group(&self, number: usize) -> Option<&'p str> {
        let span = self.groups.as_ref()?.get_group(number)?;
        self.path.get(span.range())
    }

    /// The text of the group `(?<name>…)`.
    pub fn named_group(&self, name: &str) -> Option<&'p str> {
        let span = self.groups.as_ref()?.get_group_by_name(name)?;
        self.path.get(span.range())
    }

    /// The groups that have names and text.
    pub fn named_groups(&self) -> Vec<(&str, &str)> {
        let Some(groups) = &self.groups else { return Vec::new() };
        let names = groups.group_info().pattern_names(PatternID::ZERO).flatten();
        names.filter_map(|name| Some((name, self.named_group(name)?))).collect()
    }
}

/// A case-insensitive regular expression that matches anywhere in a text.
#[derive(Clone)]
pub struct TextRegex {
    pattern: Box<str>,
    compiled: meta::Regex,
    states: u32,
}

impl TextRegex {
    pub fn compile(pattern: &str, limit: RegexLimit) -> Result<Self, RegexError> {
        let (compiled, size) = build_regex(pattern, RegexAnchor::Anywhere, MatchKind::LeftmostFirst, limit)?;
        Ok(TextRegex { pattern: pattern.into(), compiled, states: size.states })
    }

    /// The number of states of its automaton.
    pub(in crate::snapshot) fn states(&self) -> u32 {
        self.states
    }

    /// The pattern as configured, without `~*`.
    pub fn as_str(&self) -> &str {
        &self.pattern
    }

    pub(in crate::snapshot) fn is_match(&self, text: &[u8]) -> bool {
        self.compiled.is_match(text)
    }

    /// The groups of the first match; `None` without a match.
    pub(in crate::snapshot) fn captures<'t>(&self, text: &'t str) -> Option<Captures<'t>> {
        let mut groups = self.compiled.create_captures();
        self.compiled.captures(text, &mut groups);
        groups.is_match().then_some(Captures { path: text, groups: Some(groups) })
    }
}

/// Patterns with equal text are equal.
impl PartialEq for PathRegex {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

impl Eq for PathRegex {}

impl Hash for PathRegex {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.pattern.hash(state);
    }
}

impl PartialEq for TextRegex {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

impl Eq for TextRegex {}

impl fmt::Debug for PathRegex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PathRegex({:?})", self.pattern)
    }
}

impl fmt::Debug for TextRegex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "TextRegex({:?})", self.pattern)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // docs/kong-compatibility.md, 3.4
    #[test]
    fn groups_by_number_and_by_name() {
        let regex = PathRegex::compile(r"/(?<who>[a-z]+)/(\d+)(x)?").unwrap();
        let captures = regex.captures("/ann/12/more");
        let numbers: Vec<_> = (0..5).map(|number| captures.group(number)).collect();
        assert_eq!(numbers, [Some("/ann/12"), Some("ann"), Some("12"), None, None]);
        assert_eq!((captures.named_group("who"), captures.named_group("what")), (Some("ann"), None));
        assert_eq!(regex.captures("/12").group(0), None);
        assert_eq!(Captures::none("/a").group(0), None);
    }
}
