//! Regular expressions as Kong's routes use them: paths from their first byte on, header values anywhere.

use std::fmt;

use regex_automata::util::captures;
use regex_automata::{Anchored, Input, MatchKind, PatternID, PatternSet, meta};

use crate::snapshot::router::{Fit, RegexError, build_regex, build_regexes};

/// A regular expression (Rust's syntax) that matches from the first byte of a path, and not necessarily to its last.
#[derive(Clone)]
pub struct PathRegex {
    pattern: Box<str>,
    compiled: meta::Regex,
}

impl PathRegex {
    pub fn compile(pattern: &str) -> Result<Self, RegexError> {
        let compiled = build_regex(pattern, Fit::Start, MatchKind::LeftmostFirst)?;
        Ok(PathRegex { pattern: pattern.into(), compiled })
    }

    /// As the operator wrote it, without the tilde.
    pub fn as_str(&self) -> &str {
        &self.pattern
    }

    /// How many groups it has, besides all of it.
    pub fn groups(&self) -> usize {
        self.compiled.captures_len().saturating_sub(1)
    }

    /// How many bytes of the path it matches.
    pub fn matched(&self, path: &str) -> Option<usize> {
        self.compiled.find(Input::new(path).anchored(Anchored::Yes)).map(|found| found.end())
    }

    /// What its groups matched; nothing if it does not match.
    pub fn captures<'p>(&self, path: &'p str) -> Captures<'p> {
        let mut groups = self.compiled.create_captures();
        self.compiled.captures(Input::new(path).anchored(Anchored::Yes), &mut groups);
        Captures { path, groups: Some(groups) }
    }
}

/// What the groups of a route's regular expression matched.
#[derive(Clone, Debug)]
pub struct Captures<'p> {
    path: &'p str,
    groups: Option<captures::Captures>,
}

impl<'p> Captures<'p> {
    /// Of a path that was not matched by a regular expression.
    pub(in crate::snapshot) fn none(path: &'p str) -> Self {
        Captures { path, groups: None }
    }

    /// By number, from 1 on; 0 is all that was matched.
    pub fn number(&self, number: usize) -> Option<&'p str> {
        let span = self.groups.as_ref()?.get_group(number)?;
        self.path.get(span.range())
    }

    /// By the name of `(?<name>…)`.
    pub fn name(&self, name: &str) -> Option<&'p str> {
        let span = self.groups.as_ref()?.get_group_by_name(name)?;
        self.path.get(span.range())
    }
}

/// A regular expression that matches anywhere in a text, without regard to case.
#[derive(Clone)]
pub struct TextRegex {
    pattern: Box<str>,
    compiled: meta::Regex,
}

impl TextRegex {
    pub fn compile(pattern: &str) -> Result<Self, RegexError> {
        let compiled = build_regex(pattern, Fit::Inside, MatchKind::LeftmostFirst)?;
        Ok(TextRegex { pattern: pattern.into(), compiled })
    }

    /// As the operator wrote it, without `~*`.
    pub fn as_str(&self) -> &str {
        &self.pattern
    }

    pub(super) fn is_in(&self, text: &[u8]) -> bool {
        self.compiled.is_match(text)
    }
}

/// Many regular expressions of paths in one automaton, and whoever has each of them.
#[derive(Debug)]
pub(super) struct PathRegexes {
    all: meta::Regex,
    /// Positions in the router's list by pattern, ascending.
    lists: Box<[Box<[u32]>]>,
    /// The least of all positions.
    pub(super) first: u32,
}

impl PathRegexes {
    /// Of positions in the router's list, ascending, with the regular expression that stands there.
    pub(super) fn build(entries: &[(u32, &PathRegex)]) -> Option<Self> {
        let first = entries.first()?.0;
        let mut by_pattern: std::collections::BTreeMap<&str, Vec<u32>> = Default::default();
        for (position, regex) in entries {
            by_pattern.entry(regex.as_str()).or_default().push(*position);
        }
        let patterns: Vec<&str> = by_pattern.keys().copied().collect();
        // All of them were compiled before, each for itself.
        let all = build_regexes(&patterns, Fit::Start).ok()?;
        Some(PathRegexes { all, lists: by_pattern.into_values().map(Vec::into_boxed_slice).collect(), first })
    }

    /// The lists of all patterns that match.
    pub(super) fn matching(&self, path: &str) -> impl Iterator<Item = &[u32]> {
        let mut found = PatternSet::new(self.lists.len());
        self.all.which_overlapping_matches(&Input::new(path), &mut found);
        let lists = self.lists.iter().enumerate();
        lists.filter(move |(at, _)| found.contains(PatternID::must(*at))).map(|(_, list)| &**list)
    }
}

/// Identity is the text: equal texts match alike.
impl PartialEq for PathRegex {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

impl Eq for PathRegex {}

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

    // kong-compat §3.4
    #[test]
    fn groups_by_number_and_by_name() {
        let regex = PathRegex::compile(r"/(?<who>[a-z]+)/(\d+)(x)?").unwrap();
        let captures = regex.captures("/ann/12/more");
        let numbers: Vec<_> = (0..5).map(|number| captures.number(number)).collect();
        assert_eq!(numbers, [Some("/ann/12"), Some("ann"), Some("12"), None, None]);
        assert_eq!((captures.name("who"), captures.name("what")), (Some("ann"), None));
        assert_eq!(regex.captures("/12").number(0), None);
        assert_eq!(Captures::none("/a").number(0), None);
    }

    #[test]
    fn the_automaton_and_each_alone_agree() {
        let patterns = ["/a", "/a$", "/a/b", "/(a|b)+", "", "/[^/]+/b", "(?x) /a # b", "/a|/b$"];
        let regexes: Vec<_> = patterns.iter().map(|pattern| PathRegex::compile(pattern).unwrap()).collect();
        let entries: Vec<_> = (0..).zip(&regexes).collect();
        let all = PathRegexes::build(&entries).unwrap();
        for path in ["/", "/a", "/ab", "/a/b", "/b", "/b/b", "/x/b/c", "", "/aa"] {
            let mut together: Vec<u32> = all.matching(path).flatten().copied().collect();
            together.sort_unstable();
            let alone: Vec<u32> =
                entries.iter().filter(|(_, regex)| regex.matched(path).is_some()).map(|(at, _)| *at).collect();
            assert_eq!(together, alone, "{path}");
        }
    }
}
