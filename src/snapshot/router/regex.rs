//! Regular expressions: values are matched individually, all paths of a host in one automaton.

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
    /// The pattern as configured.
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

/// Patterns with equal text are equal.
impl PartialEq for Regex {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

impl Eq for Regex {}

/// Why a regular expression is invalid, as a clause: "unclosed group at character 3".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RegexError {
    pub message: String,
}

/// Compiles the regular expression of a path, a header or a query parameter.
pub fn compile_regex(pattern: &str) -> Result<Regex, RegexError> {
    // `MatchKind::All` instead of leftmost-first, since only matches of the whole value count.
    let compiled = build_regex(pattern, RegexAnchor::Whole, MatchKind::All)?;
    Ok(Regex { pattern: pattern.into(), compiled })
}

/// Where a regular expression has to match in a value.
#[derive(Clone, Copy, Debug)]
pub(in crate::snapshot) enum RegexAnchor {
    /// From the first byte to the last.
    Whole,
    /// From the first byte on.
    Start,
    /// Anywhere, case-insensitively.
    Anywhere,
}

pub(in crate::snapshot) fn build_regex(
    pattern: &str,
    fit: RegexAnchor,
    kind: MatchKind,
) -> Result<meta::Regex, RegexError> {
    let wrapped = wrap(pattern, fit)?;
    let config = config(MAX_COMPILED_BYTES).match_kind(kind);
    meta::Builder::new().configure(config).build(&wrapped).map_err(|error| RegexError {
        message: match error.size_limit() {
            Some(_) => format!(
                "larger than {} KiB when compiled; repeat less often, and write [0-9] for \\d and [A-Za-z0-9_] for \\w",
                MAX_COMPILED_BYTES >> 10
            ),
            None => error.to_string(),
        },
    })
}

/// Builds one automaton that reports all matching patterns.
pub(in crate::snapshot) fn build_regexes(patterns: &[&str], fit: RegexAnchor) -> Result<meta::Regex, RegexError> {
    let wrapped = patterns.iter().map(|pattern| wrap(pattern, fit)).collect::<Result<Vec<_>, _>>()?;
    // Each pattern alone is below the limit, so the sum of the limits suffices for all of them.
    let limit = MAX_COMPILED_BYTES.saturating_mul(patterns.len().saturating_add(1));
    let config = config(limit).match_kind(MatchKind::All);
    let built = meta::Builder::new().configure(config).build_many(&wrapped);
    built.map_err(|error| RegexError { message: error.to_string() })
}

/// Whether `compile_regex` accepts the pattern.
pub(super) fn is_valid(pattern: &str) -> bool {
    compile_regex(pattern).is_ok()
}

/// The regular expressions of all paths of a host.
#[derive(Debug)]
pub(super) struct RegexPaths {
    all: meta::Regex,
    /// For each entry, from the first regular expression in the router's list on, the number of its pattern in `all`;
    /// several entries may have the same pattern.
    patterns: Box<[u32]>,
    /// The number of distinct patterns.
    distinct: usize,
    offset: usize,
}

impl RegexPaths {
    /// `entries` begin at `offset` in the router's list; all their patterns are valid.
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
        let all = build_regexes(&distinct, RegexAnchor::Whole).ok()?;
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

/// Wraps the pattern so that it matches at the required position.
fn wrap(pattern: &str, fit: RegexAnchor) -> Result<String, RegexError> {
    parse(pattern)?;
    let (before, behind) = match fit {
        RegexAnchor::Whole => (r"\A(?:", r")\z"),
        RegexAnchor::Start => (r"\A(?:", ")"),
        RegexAnchor::Anywhere => ("(?i:", ")"),
    };
    let wrapped = format!("{before}{pattern}{behind}");
    // With `(?x)` a comment may end the pattern and would swallow the closing parenthesis.
    Ok(if syntax::parse(&wrapped).is_ok() { wrapped } else { format!("{before}{pattern}\n{behind}") })
}

/// Parses the pattern before it is wrapped, since `a)|(b` is invalid but would be valid between parentheses.
fn parse(pattern: &str) -> Result<(), RegexError> {
    let Err(error) = syntax::parse(pattern) else { return Ok(()) };
    // The error is drawn: the pattern, a caret below the position, and the message after "error: ".
    let drawing = error.to_string();
    let sentence = drawing.lines().rev().find_map(|line| line.strip_prefix("error: ")).unwrap_or(&drawing);
    let caret = drawing.lines().find(|line| line.trim_start().starts_with('^')).and_then(|line| line.find('^'));
    let place = caret.and_then(|column| column.checked_sub(PARSER_INDENT)).filter(|_| !pattern.contains('\n'));
    let place = place.map(|index| format!(" at character {}", index + 1)).unwrap_or_default();
    Err(RegexError { message: format!("{sentence}{place}") })
}

fn config(size_limit: usize) -> meta::Config {
    meta::Config::new().nfa_size_limit(Some(size_limit))
}

/// The memory limit of one compiled pattern, in bytes. `\w{100}` with its Unicode tables exceeds it; usual patterns
/// stay far below.
const MAX_COMPILED_BYTES: usize = 512 << 10;

/// The indentation of the pattern in the parser's error text.
const PARSER_INDENT: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_value_must_match() {
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
    fn regex_errors_are_readable() {
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
        fn no_pattern_panics(pattern in r"[ab(|)\[\]{}1,9*+?^$\\.#\n xQwd:-]{0,12}", value in "[ab]{0,5}") {
            if let Ok(regex) = compile_regex(&pattern) {
                regex.is_match(value.as_bytes());
            }
        }
    }
}
