//! One automaton for all path expressions of a host.

use regex_automata::{Input, PatternID, PatternSet, meta};

use super::{PathMatch, RouteMatch};
use crate::snapshot::regex::{RegexAnchor, build_regexes};

/// The regular expressions of all paths of a host.
#[derive(Debug)]
pub(super) struct RegexPaths {
    automaton: meta::Regex,
    /// For each match with a regular expression, in the order of the router's list, the number of its pattern in
    /// `automaton`. Several matches may have the same pattern.
    pattern_numbers: Box<[u32]>,
    /// The number of distinct patterns.
    pattern_count: usize,
    /// The position in the router's list of the first match with a regular expression.
    offset: usize,
}

impl RegexPaths {
    /// `matches` begin at `offset` in the router's list; all their patterns are valid. `None` if there are no matches.
    pub(super) fn build(matches: &[RouteMatch], offset: usize) -> Option<Self> {
        if matches.is_empty() {
            return None;
        }
        let texts = || {
            matches.iter().map(|route_match| match &route_match.path {
                PathMatch::Regex(text) | PathMatch::Exact(text) | PathMatch::Prefix(text) => &**text,
            })
        };
        let mut patterns: Vec<&str> = texts().collect();
        patterns.sort_unstable();
        patterns.dedup();
        let number_of = |text| {
            let number = patterns.binary_search(&text).expect("all texts are in the list");
            u32::try_from(number).expect("fewer than 2^32 patterns fit in memory")
        };
        let pattern_numbers = texts().map(number_of).collect();
        let automaton = build_regexes(&patterns, RegexAnchor::Whole).ok()?;
        Some(RegexPaths { automaton, pattern_numbers, pattern_count: patterns.len(), offset })
    }

    /// Positions in the router's list of the matches whose pattern matches the path, in order.
    pub(super) fn matching(&self, path: &str) -> impl Iterator<Item = usize> {
        let input = Input::new(path);
        let mut matching_patterns = PatternSet::new(self.pattern_count);
        self.automaton.which_overlapping_matches(&input, &mut matching_patterns);
        let pattern_numbers = if matching_patterns.is_empty() { &[][..] } else { &self.pattern_numbers[..] };
        let matching = pattern_numbers
            .iter()
            .enumerate()
            .filter(move |(_, number)| matching_patterns.contains(PatternID::must(**number as usize)));
        matching.map(|(index, _)| self.offset + index)
    }
}
