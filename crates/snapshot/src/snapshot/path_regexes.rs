//! The regular expressions of the paths of one host.
//!
//! ```text
//!   /users/[0-9]+ ┐
//!   /users/me/.*  ┼ grouped by the literal text with which all matching paths begin ─▶ one automaton for each group
//!   /.*\.png      ┘
//! ```
//!
//! Only the groups whose text a path begins with are tried, so that a path costs the work for the patterns that it may
//! match, and not for those of all other routes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use regex_automata::{Input, PatternSet, meta};

use super::regex::{RegexAnchor, build_regexes, literal_prefix};
use super::regex_steps::{RegexInput, RegexSteps};

/// The patterns of entries in a list that is sorted by precedence. A position in this list identifies an entry; several
/// entries may have the same pattern.
pub(in crate::snapshot) struct PathRegexes {
    /// Sorted by prefix.
    groups: Box<[PatternGroup]>,
    /// Whether the prefixes are in lower case, and those of paths are compared so.
    ignores_case: bool,
    /// The lowest of all positions.
    pub(in crate::snapshot) lowest_position: u32,
}

/// A pattern with the ascending positions of its entries.
type PatternEntries<'e> = (&'e str, Vec<u32>);

/// The patterns with one literal prefix.
struct PatternGroup {
    prefix: Box<[u8]>,
    /// The index in `groups` of the longest other prefix that is a prefix of this one; `u32::MAX` if there is none.
    longest_prefix: u32,
    automaton: meta::Regex,
    /// The number of states of the automaton.
    states: u32,
    /// For each pattern of the automaton, the ascending positions of its entries.
    positions: Box<[Box<[u32]>]>,
}

impl PathRegexes {
    /// `entries`: the position and the pattern of each entry, in ascending order. `None` without entries. Patterns that
    /// are not valid match nothing.
    pub(in crate::snapshot) fn build<'e>(
        entries: impl IntoIterator<Item = (u32, &'e str)>,
        anchor: RegexAnchor,
    ) -> Option<Self> {
        let mut by_pattern: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        let mut lowest_position = u32::MAX;
        for (position, pattern) in entries {
            lowest_position = lowest_position.min(position);
            by_pattern.entry(pattern).or_default().push(position);
        }
        let mut by_prefix: BTreeMap<Box<[u8]>, Vec<PatternEntries<'_>>> = BTreeMap::new();
        for (pattern, positions) in by_pattern {
            if let Some(prefix) = literal_prefix(pattern, anchor) {
                by_prefix.entry(prefix).or_default().push((pattern, positions));
            }
        }
        let mut groups: Vec<PatternGroup> = Vec::with_capacity(by_prefix.len());
        for (prefix, patterns) in by_prefix {
            // In sorted order, a prefix of a text comes before the text, and all texts in between have that prefix,
            // too.
            let mut longest_prefix =
                u32::try_from(groups.len()).expect("fewer than 2^32 patterns fit in memory").wrapping_sub(1);
            while let Some(previous) = groups.get(longest_prefix as usize)
                && !prefix.starts_with(&previous.prefix)
            {
                longest_prefix = previous.longest_prefix;
            }
            let (patterns, positions): (Vec<&str>, Vec<Vec<u32>>) = patterns.into_iter().unzip();
            // Each pattern is valid, so this does not fail.
            let Ok((automaton, states)) = build_regexes(&patterns, anchor) else { continue };
            let positions = positions.into_iter().map(Vec::into_boxed_slice).collect();
            groups.push(PatternGroup { prefix, longest_prefix, automaton, states, positions });
        }
        let ignores_case = matches!(anchor, RegexAnchor::StartOfAnyCase);
        (!groups.is_empty()).then(|| PathRegexes { groups: groups.into(), ignores_case, lowest_position })
    }

    /// Passes, for each pattern that matches the path, the ascending positions of its entries. Stops if the request has
    /// no steps left.
    pub(in crate::snapshot) fn for_each_match(&self, path: &str, steps: &RegexSteps, mut visit: impl FnMut(&[u32])) {
        let compared = match self.ignores_case {
            true => Cow::Owned(path.to_ascii_lowercase()),
            false => Cow::Borrowed(path),
        };
        // Each prefix of the path is the last one that does not sort after it, or is reached from that one by
        // `longest_prefix`.
        let count = self.groups.partition_point(|group| *group.prefix <= *compared.as_bytes());
        let mut next = count.checked_sub(1).and_then(|last| self.groups.get(last));
        while let Some(group) = next {
            next = self.groups.get(group.longest_prefix as usize);
            if !compared.as_bytes().starts_with(&group.prefix) {
                continue;
            }
            if !steps.admit(group.states, path.len(), RegexInput::Target) {
                return;
            }
            let mut matching = PatternSet::new(group.positions.len());
            // The patterns in the automaton are anchored themselves.
            group.automaton.which_overlapping_matches(&Input::new(path), &mut matching);
            matching.iter().for_each(|pattern| visit(&group.positions[pattern.as_usize()]));
        }
    }
}

impl fmt::Debug for PathRegexes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let states = self.groups.iter().map(|group| (String::from_utf8_lossy(&group.prefix), group.states));
        formatter.debug_map().entries(states).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::path_regex::PathRegex;

    fn matching(regexes: &PathRegexes, path: &str, steps: &RegexSteps) -> Vec<u32> {
        let mut positions = Vec::new();
        regexes.for_each_match(path, steps, |found| positions.extend_from_slice(found));
        positions.sort_unstable();
        positions
    }

    #[test]
    fn groups_agree_with_single_patterns() {
        let patterns =
            ["/a", "/a$", "/a/b", "/(a|b)+", "", "/[^/]+/b", "(?x) /a # b", "/a|/b$", "/a/[a-z]", "/a/b/.*", "/x"];
        let entries = || (0..).zip(patterns);
        let regexes = PathRegexes::build(entries(), RegexAnchor::Start).unwrap();
        let prefixes: Vec<_> = regexes.groups.iter().map(|group| str::from_utf8(&group.prefix).unwrap()).collect();
        assert_eq!(prefixes, ["", "/", "/a", "/a/", "/a/b", "/a/b/", "/x"]);
        for path in ["/", "/a", "/ab", "/a/b", "/b", "/b/b", "/x/b/c", "", "/aa", "/a/b/c", "/é"] {
            let alone = entries().filter(|(_, text)| PathRegex::compile(text).unwrap().matched_length(path).is_some());
            let alone: Vec<u32> = alone.map(|(position, _)| position).collect();
            assert_eq!(matching(&regexes, path, &RegexSteps::default()), alone, "{path}");
        }
    }

    #[test]
    fn prefixes_are_compared_regardless_of_case() {
        let entries = [(0, "/Api/[a-z]+"), (1, "/API/x"), (2, "/b"), (3, "/é"), (4, "")];
        let regexes = PathRegexes::build(entries, RegexAnchor::StartOfAnyCase).unwrap();
        let prefixes: Vec<_> = regexes.groups.iter().map(|group| str::from_utf8(&group.prefix).unwrap()).collect();
        assert_eq!(prefixes, ["", "/", "/api/", "/api/x", "/b"]);
        for (path, expected) in
            [("/api/X", &[0, 1, 4][..]), ("/aPI/y", &[0, 4]), ("/B", &[2, 4]), ("/É", &[3, 4]), ("/c", &[4])]
        {
            assert_eq!(matching(&regexes, path, &RegexSteps::default()), expected, "{path}");
        }
    }

    /// A search that could fall back to one with capture groups would need gigabytes.
    #[test]
    fn many_patterns_with_groups_need_little() {
        let patterns: Vec<String> = (0..3_000).map(|index| format!("/service-{index:04}(/|$)(.*)")).collect();
        let entries = (0..).zip(patterns.iter().map(String::as_str));
        let regexes = PathRegexes::build(entries, RegexAnchor::StartOfAnyCase).unwrap();
        assert_eq!(matching(&regexes, "/SERVICE-0042/a", &RegexSteps::default()), [42]);
        // Without a common prefix, they are one automaton.
        let patterns: Vec<String> = (0..1_500).map(|index| format!("/[a-z]*-{index:04}(/|$)(.*)")).collect();
        let entries = (0..).zip(patterns.iter().map(String::as_str));
        let regexes = PathRegexes::build(entries, RegexAnchor::StartOfAnyCase).unwrap();
        assert_eq!(matching(&regexes, "/a-0042/a", &RegexSteps::default()), [42]);
    }

    #[test]
    fn patterns_with_another_prefix_take_no_steps() {
        let entries = [(0, "/a/[a-z]{200}"), (1, "/b/[a-z]+"), (2, "/b/[a-z]+")];
        let regexes = PathRegexes::build(entries, RegexAnchor::Whole).unwrap();
        let steps = RegexSteps::new(1_000);
        assert_eq!(matching(&regexes, "/b/c", &steps), [1, 2]);
        assert_eq!(matching(&regexes, "/c", &steps), [0; 0]);
        assert_eq!(steps.exceeded(), None);
        assert_eq!(matching(&regexes, "/a/b", &steps), [0; 0]);
        assert_eq!(steps.exceeded(), Some(RegexInput::Target));
    }
}
