//! Regular expressions: of a value each on its own, of paths all in one automaton.

use std::fmt;

use regex_automata::meta;
use regex_automata::util::syntax;
use regex_automata::{Input, MatchKind, PatternSet};

use super::{Candidate, PathMatch};

/// A regular expression (Rust's syntax) that must match a whole value.
#[derive(Clone)]
pub struct Regex {
    pattern: Box<str>,
    compiled: meta::Regex,
}

impl Regex {
    /// As the operator wrote it.
    pub fn as_str(&self) -> &str {
        &self.pattern
    }

    pub fn is_match(&self, value: &[u8]) -> bool {
        self.compiled.is_match(value)
    }
}

impl fmt::Debug for Regex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Regex({:?})", self.pattern)
    }
}

/// Identity is the text: equal texts match alike.
impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

impl Eq for Regex {}

/// What is wrong with a regular expression, as a clause: "unclosed group at character 3".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RegexError {
    pub message: String,
}

/// Compiles what an operator wrote for a path, a header or a query parameter.
pub fn compile_regex(pattern: &str) -> Result<Regex, RegexError> {
    // All matches are wanted, not the leftmost: only whole values count.
    let compiled = build_regex(pattern, Fit::Whole, MatchKind::All)?;
    Ok(Regex { pattern: pattern.into(), compiled })
}

/// Where in a value a regular expression has to match.
#[derive(Clone, Copy, Debug)]
pub(in crate::snapshot) enum Fit {
    /// From the first byte to the last.
    Whole,
    /// From the first byte on.
    Start,
    /// Anywhere, and without regard to case.
    Inside,
}

pub(in crate::snapshot) fn build_regex(pattern: &str, fit: Fit, kind: MatchKind) -> Result<meta::Regex, RegexError> {
    let wrapped = wrap(pattern, fit)?;
    let config = config(LARGEST).match_kind(kind);
    meta::Builder::new().configure(config).build(&wrapped).map_err(|error| RegexError {
        message: match error.size_limit() {
            Some(_) => format!(
                "larger than {} KiB when compiled; repeat less often, and write [0-9] for \\d and [A-Za-z0-9_] for \\w",
                LARGEST >> 10
            ),
            None => error.to_string(),
        },
    })
}

/// One automaton that tells all that match.
pub(in crate::snapshot) fn build_regexes(patterns: &[&str], fit: Fit) -> Result<meta::Regex, RegexError> {
    let wrapped = patterns.iter().map(|pattern| wrap(pattern, fit)).collect::<Result<Vec<_>, _>>()?;
    // Each alone is small enough, so the sum of the limits holds for all.
    let limit = LARGEST.saturating_mul(patterns.len().saturating_add(1));
    let config = config(limit).match_kind(MatchKind::All);
    let built = meta::Builder::new().configure(config).build_many(&wrapped);
    built.map_err(|error| RegexError { message: error.to_string() })
}

/// Whether `compile_regex` takes it.
pub(super) fn is_valid(pattern: &str) -> bool {
    compile_regex(pattern).is_ok()
}

/// The regular expressions of all paths.
#[derive(Debug)]
pub(super) struct RegexPaths {
    all: meta::Regex,
    /// Per entry, from the first regular expression in the router's list on, the number of its pattern in `all`:
    /// many entries share one.
    patterns: Box<[u32]>,
    /// How many different ones there are.
    distinct: usize,
    offset: usize,
}

impl RegexPaths {
    /// The entries begin at `offset` in the router's list; all their patterns are valid.
    pub(super) fn build(entries: &[Candidate], offset: usize) -> Option<Self> {
        if entries.is_empty() {
            return None;
        }
        let texts = || {
            entries.iter().map(|entry| match &entry.path {
                PathMatch::Regex(text) | PathMatch::Exact(text) | PathMatch::Prefix(text) => &**text,
            })
        };
        let mut distinct: Vec<&str> = texts().collect();
        distinct.sort_unstable();
        distinct.dedup();
        let number = |text| distinct.binary_search(&text).expect("all texts are in the list");
        let patterns =
            texts().map(|text| u32::try_from(number(text)).expect("fewer than 2^32 patterns fit in memory")).collect();
        let all = build_regexes(&distinct, Fit::Whole).ok()?;
        Some(RegexPaths { all, patterns, distinct: distinct.len(), offset })
    }

    /// Positions in the router's list of the entries whose pattern matches, in order.
    pub(super) fn matching(&self, path: &str) -> impl Iterator<Item = usize> {
        let input = Input::new(path);
        let mut found = PatternSet::new(self.distinct);
        self.all.which_overlapping_matches(&input, &mut found);
        let entries = if found.is_empty() { &[][..] } else { &self.patterns[..] };
        let matching = entries
            .iter()
            .enumerate()
            .filter(move |(_, pattern)| found.contains(regex_automata::PatternID::must(**pattern as usize)));
        matching.map(|(index, _)| self.offset + index)
    }
}

/// The pattern made to match where it has to.
fn wrap(pattern: &str, fit: Fit) -> Result<String, RegexError> {
    parse(pattern)?;
    let (before, behind) = match fit {
        Fit::Whole => (r"\A(?:", r")\z"),
        Fit::Start => (r"\A(?:", ")"),
        Fit::Inside => ("(?i:", ")"),
    };
    let wrapped = format!("{before}{pattern}{behind}");
    // With `(?x)` a comment may end the pattern, which would swallow what follows on its line.
    Ok(if syntax::parse(&wrapped).is_ok() { wrapped } else { format!("{before}{pattern}\n{behind}") })
}

/// On its own, since `a)|(b` is wrong and yet would be right between parentheses.
fn parse(pattern: &str) -> Result<(), RegexError> {
    let Err(error) = syntax::parse(pattern) else { return Ok(()) };
    // The parser draws: the pattern, a caret below the place, and the sentence after "error: ".
    let drawing = error.to_string();
    let sentence = drawing.lines().rev().find_map(|line| line.strip_prefix("error: ")).unwrap_or(&drawing);
    let caret = drawing.lines().find(|line| line.trim_start().starts_with('^')).and_then(|line| line.find('^'));
    let place = caret.and_then(|column| column.checked_sub(INDENT)).filter(|_| !pattern.contains('\n'));
    let place = place.map(|index| format!(" at character {}", index + 1)).unwrap_or_default();
    Err(RegexError { message: format!("{sentence}{place}") })
}

fn config(size_limit: usize) -> meta::Config {
    meta::Config::new().nfa_size_limit(Some(size_limit))
}

/// Bytes that one pattern may take. `\w{100}` with its Unicode tables is above, everything in use is far below.
const LARGEST: usize = 512 << 10;

/// How far the parser indents the pattern that it draws.
const INDENT: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_value_must_match() {
        let cases = [
            ("a|b", "a", true),
            ("a|b", "b", true),
            ("a|b", "ab", false),
            ("a|ab", "ab", true),
            ("ab|a", "a", true),
            ("", "", true),
            ("", "a", false),
            ("^a$", "a", true),
            ("(?i)abc", "ABC", true),
            ("(?m)^a$", "a\nb", false),
            (".*", "a\nb", false),
            ("(?s).*", "a\nb", true),
            ("(?x) a b # why", "ab", true),
            ("(?x) a b # why", "ab\n", false),
            ("a #", "a #", true),
            ("a*?", "aaa", true),
        ];
        for (pattern, value, matches) in cases {
            assert_eq!(compile_regex(pattern).unwrap().is_match(value.as_bytes()), matches, "{pattern} on {value}");
        }
    }

    #[test]
    fn refusals_can_be_read() {
        let cases = [
            ("(", "unclosed group at character 1"),
            ("ab)|(c", "unopened group at character 3"),
            ("a[z-a]", "invalid character class range, the start must be <= the end at character 3"),
            (r"é\q", "unrecognized escape sequence at character 2"),
            (r"(a)\1", "backreferences are not supported at character 4"),
            ("(?=a)", "look-around, including look-ahead and look-behind, is not supported at character 1"),
            (
                r"\w{500}",
                r"larger than 512 KiB when compiled; repeat less often, and write [0-9] for \d and [A-Za-z0-9_] for \w",
            ),
        ];
        for (pattern, message) in cases {
            assert_eq!(compile_regex(pattern).unwrap_err().message, message, "{pattern}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_pattern_makes_it_panic(pattern in r"[ab(|)\[\]{}1,9*+?^$\\.#\n xQwd:-]{0,12}", value in "[ab]{0,5}") {
            if let Ok(regex) = compile_regex(&pattern) {
                regex.is_match(value.as_bytes());
            }
        }
    }
}
