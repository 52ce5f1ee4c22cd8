//! Regular expressions that match a part of a value, and the capture groups of paths. Expressions of paths match from
//! the first byte on, those of header values anywhere.

use std::fmt;
use std::hash::{Hash, Hasher};

use regex_automata::util::captures;
use regex_automata::{Anchored, Input, MatchKind, PatternID, PatternSet, meta};

use super::regex::{RegexAnchor, RegexError, build_regex, build_regexes};

/// A regular expression (Rust's syntax) that matches from the first byte of a path, and not necessarily to its last.
#[derive(Clone)]
pub struct PathRegex {
    pattern: Box<str>,
    compiled: meta::Regex,
}

impl PathRegex {
    pub fn compile(pattern: &str) -> Result<Self, RegexError> {
        let compiled = build_regex(pattern, RegexAnchor::Start, MatchKind::LeftmostFirst)?;
        Ok(PathRegex { pattern: pattern.into(), compiled })
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
    pub fn matched_length(&self, path: &str) -> Option<usize> {
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
}

/// A case-insensitive regular expression that matches anywhere in a text.
#[derive(Clone)]
pub struct TextRegex {
    pattern: Box<str>,
    compiled: meta::Regex,
}

impl TextRegex {
    pub fn compile(pattern: &str) -> Result<Self, RegexError> {
        let compiled = build_regex(pattern, RegexAnchor::Anywhere, MatchKind::LeftmostFirst)?;
        Ok(TextRegex { pattern: pattern.into(), compiled })
    }

    /// The pattern as configured, without `~*`.
    pub fn as_str(&self) -> &str {
        &self.pattern
    }

    pub(in crate::snapshot) fn is_match(&self, text: &[u8]) -> bool {
        self.compiled.is_match(text)
    }
}

/// Many path patterns in one automaton. The router has a list of entries, sorted by precedence (see
/// `router/by_conditions`), of which several may have the same pattern. A position in this list identifies an entry.
#[derive(Debug)]
pub(in crate::snapshot) struct PathRegexes {
    automaton: meta::Regex,
    /// For each pattern, the ascending positions of its entries.
    positions: Box<[Box<[u32]>]>,
    /// The lowest of all positions.
    pub(in crate::snapshot) lowest_position: u32,
}

impl PathRegexes {
    /// `entries`: the position and the regular expression of each entry, in ascending order. `None` without entries.
    pub(in crate::snapshot) fn build(entries: &[(u32, &PathRegex)]) -> Option<Self> {
        let lowest_position = entries.first()?.0;
        let mut by_pattern: std::collections::BTreeMap<&str, Vec<u32>> = Default::default();
        for (position, regex) in entries {
            by_pattern.entry(regex.as_str()).or_default().push(*position);
        }
        let patterns: Vec<&str> = by_pattern.keys().copied().collect();
        // Each pattern has been compiled separately before, so this does not fail.
        let automaton = build_regexes(&patterns, RegexAnchor::Start).ok()?;
        Some(PathRegexes {
            automaton,
            positions: by_pattern.into_values().map(Vec::into_boxed_slice).collect(),
            lowest_position,
        })
    }

    /// For each pattern that matches the path, the ascending positions of its entries.
    pub(in crate::snapshot) fn matching(&self, path: &str) -> impl Iterator<Item = &[u32]> {
        let mut matching_patterns = PatternSet::new(self.positions.len());
        // The patterns in the automaton are anchored themselves.
        self.automaton.which_overlapping_matches(&Input::new(path), &mut matching_patterns);
        let numbered = self.positions.iter().enumerate();
        numbered
            .filter(move |(number, _)| matching_patterns.contains(PatternID::must(*number)))
            .map(|(_, positions)| &**positions)
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

    #[test]
    fn automaton_agrees_with_single_patterns() {
        let patterns = ["/a", "/a$", "/a/b", "/(a|b)+", "", "/[^/]+/b", "(?x) /a # b", "/a|/b$"];
        let regexes: Vec<_> = patterns.iter().map(|pattern| PathRegex::compile(pattern).unwrap()).collect();
        let entries: Vec<_> = (0..).zip(&regexes).collect();
        let automaton = PathRegexes::build(&entries).unwrap();
        for path in ["/", "/a", "/ab", "/a/b", "/b", "/b/b", "/x/b/c", "", "/aa"] {
            let mut together: Vec<u32> = automaton.matching(path).flatten().copied().collect();
            together.sort_unstable();
            let alone: Vec<u32> = entries
                .iter()
                .filter(|(_, regex)| regex.matched_length(path).is_some())
                .map(|(position, _)| *position)
                .collect();
            assert_eq!(together, alone, "{path}");
        }
    }
}
