//! Regular expressions: the syntax, the size limits, how a pattern is anchored, and how many steps matching takes.
//!
//! Matching takes at most one step for each state of the pattern's automaton and each byte of the value. The number of
//! states is known when a pattern is compiled; [`RegexSteps`] limits the steps of a request.
//!
//! [`RegexSteps`]: super::regex_steps::RegexSteps

use std::collections::BTreeSet;
use std::fmt;

use regex_automata::nfa::thompson::{self, NFA, State, WhichCaptures};
use regex_automata::util::primitives::StateID;
use regex_automata::util::syntax;
use regex_automata::{MatchKind, meta};

/// A regular expression (Rust's syntax) that must match a whole value.
#[derive(Clone)]
pub struct Regex {
    pattern: Box<str>,
    compiled: meta::Regex,
    states: u32,
}

impl Regex {
    /// Compiles the regular expression of a header or query parameter.
    pub fn compile(pattern: &str, limit: RegexLimit) -> Result<Self, RegexError> {
        // `MatchKind::All` instead of leftmost-first, since only matches of the whole value count.
        let (compiled, size) = build_regex(pattern, RegexAnchor::Whole, MatchKind::All, limit)?;
        Ok(Regex { pattern: pattern.into(), compiled, states: size.states })
    }

    /// The pattern as configured.
    pub fn as_str(&self) -> &str {
        &self.pattern
    }

    /// The number of states of its automaton.
    pub(in crate::snapshot) fn states(&self) -> u32 {
        self.states
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
    /// Whether the pattern is valid, but larger than the limit.
    pub is_too_large: bool,
}

/// Compiles the regular expression of a header or a query parameter, without a limit of its states.
pub fn compile_regex(pattern: &str) -> Result<Regex, RegexError> {
    Regex::compile(pattern, RegexLimit::MEMORY_ONLY)
}

/// How large the automaton of one pattern may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegexLimit {
    pub max_states: u32,
}

impl RegexLimit {
    /// Without a limit of states. The limit of memory always applies.
    pub const MEMORY_ONLY: RegexLimit = RegexLimit { max_states: u32::MAX };

    /// The limit of the memory of an automaton, which stops the construction of one with too many states early.
    pub fn max_bytes(self) -> usize {
        let bytes = usize::try_from(self.max_states).unwrap_or(usize::MAX).saturating_mul(BYTES_PER_STATE);
        bytes.min(MAX_COMPILED_BYTES)
    }
}

/// The size of the automaton of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegexSize {
    pub states: u32,
    pub bytes: usize,
}

impl RegexSize {
    /// The size for a pattern that matches at the anchor. Takes a fraction of the time and memory of compiling it.
    pub fn of(pattern: &str, anchor: RegexAnchor, limit: RegexLimit) -> Result<Self, RegexError> {
        Ok(RegexSize::of_automaton(&build_automaton(&wrap(pattern, anchor)?, limit)?))
    }

    /// An error if the automaton has more states than the limit.
    pub fn check(self, limit: RegexLimit) -> Result<(), RegexError> {
        if self.states > limit.max_states { Err(RegexError::too_large(limit)) } else { Ok(()) }
    }

    fn of_automaton(automaton: &NFA) -> Self {
        let states = u32::try_from(automaton.states().len()).unwrap_or(u32::MAX);
        RegexSize { states, bytes: automaton.memory_usage() }
    }
}

/// Where a regular expression has to match in a value, and whether case matters.
#[derive(Clone, Copy, Debug)]
pub enum RegexAnchor {
    /// From the first byte to the last.
    Whole,
    /// From the first byte on.
    Start,
    /// From the first byte on, case-insensitively.
    StartOfAnyCase,
    /// Anywhere, case-insensitively.
    Anywhere,
}

/// Compiles one regular expression that matches at the anchor.
pub(in crate::snapshot) fn build_regex(
    pattern: &str,
    anchor: RegexAnchor,
    match_kind: MatchKind,
    limit: RegexLimit,
) -> Result<(meta::Regex, RegexSize), RegexError> {
    let wrapped = wrap(pattern, anchor)?;
    let size = RegexSize::of_automaton(&build_automaton(&wrapped, limit)?);
    let config = config(MAX_COMPILED_BYTES).match_kind(match_kind);
    let compiled = meta::Builder::new().configure(config).build(&wrapped);
    let compiled = compiled.map_err(|error| match error.size_limit() {
        Some(_) => RegexError::too_large(limit),
        None => RegexError::invalid(error),
    })?;
    Ok((compiled, size))
}

/// Builds one automaton that reports all matching patterns, and returns its number of states.
pub(in crate::snapshot) fn build_regexes(
    patterns: &[&str],
    anchor: RegexAnchor,
) -> Result<(meta::Regex, u32), RegexError> {
    let wrapped = patterns.iter().map(|pattern| wrap(pattern, anchor)).collect::<Result<Vec<_>, _>>()?;
    // Each pattern alone is below the limit, so the sum of the limits, and one more for what joins the patterns,
    // suffices for all of them.
    let limit = MAX_COMPILED_BYTES.saturating_mul(patterns.len().saturating_add(1));
    let automaton = thompson::Compiler::new()
        .configure(thompson::Config::new().nfa_size_limit(Some(limit)).which_captures(WhichCaptures::None))
        .build_many(&wrapped)
        .map_err(RegexError::invalid)?;
    // Searches only report which patterns match. With groups, one would need memory for all groups of all patterns.
    let config = config(limit).match_kind(MatchKind::All).which_captures(WhichCaptures::None);
    let compiled = meta::Builder::new().configure(config).build_many(&wrapped).map_err(RegexError::invalid)?;
    Ok((compiled, RegexSize::of_automaton(&automaton).states))
}

/// The literal bytes with which every value begins that the pattern matches at the start. `None` if it is invalid.
/// Regardless of case, they are ASCII characters in lower case.
pub(in crate::snapshot) fn literal_prefix(pattern: &str, anchor: RegexAnchor) -> Option<Box<[u8]>> {
    literal_prefix_and_states(pattern, anchor).map(|(prefix, _)| prefix)
}

/// The literal prefix of a pattern, and the number of states of its automaton.
pub(in crate::snapshot) fn literal_prefix_and_states(pattern: &str, anchor: RegexAnchor) -> Option<(Box<[u8]>, u32)> {
    let automaton = build_automaton(&wrap(pattern, anchor).ok()?, RegexLimit::MEMORY_ONLY).ok()?;
    let states = RegexSize::of_automaton(&automaton).states;
    let RegexAnchor::StartOfAnyCase = anchor else { return Some((prefix_of_automaton(&automaton), states)) };
    let (prefix, _) = literal_prefix_and_states(pattern, RegexAnchor::Start)?;
    let ascii = prefix.iter().take_while(|byte| byte.is_ascii()).map(u8::to_ascii_lowercase);
    Some((ascii.collect(), states))
}

/// The automaton of a pattern for paths. `None` if it is invalid.
pub(in crate::snapshot) fn path_automaton(pattern: &str, anchor: RegexAnchor) -> Option<NFA> {
    build_automaton(&wrap(pattern, anchor).ok()?, RegexLimit::MEMORY_ONLY).ok()
}

/// The automaton of a wrapped pattern.
fn build_automaton(wrapped: &str, limit: RegexLimit) -> Result<NFA, RegexError> {
    let config = thompson::Config::new().nfa_size_limit(Some(limit.max_bytes()));
    let automaton = thompson::Compiler::new().configure(config).build(wrapped);
    let automaton = automaton.map_err(|error| match error.size_limit() {
        Some(_) => RegexError::too_large(limit),
        None => RegexError::invalid(error),
    })?;
    RegexSize::of_automaton(&automaton).check(limit)?;
    Ok(automaton)
}

impl RegexError {
    fn invalid(error: impl fmt::Display) -> Self {
        RegexError { message: error.to_string(), is_too_large: false }
    }

    fn too_large(limit: RegexLimit) -> Self {
        let states = match limit {
            RegexLimit::MEMORY_ONLY => String::new(),
            RegexLimit { max_states } => format!("{max_states} states or "),
        };
        let message = format!(
            "larger than {states}{} KiB when compiled; use smaller repetition counts, and write [0-9] for \\d and \
             [A-Za-z0-9_] for \\w",
            limit.max_bytes() >> 10
        );
        RegexError { message, is_too_large: true }
    }
}

/// The bytes that are the only possible ones at their position, from the start.
fn prefix_of_automaton(automaton: &NFA) -> Box<[u8]> {
    let mut prefix = Vec::new();
    let mut states = vec![automaton.start_anchored()];
    while prefix.len() < MAX_LITERAL_PREFIX {
        let Some((byte, next)) = only_byte(automaton, &states) else { break };
        prefix.push(byte);
        states = next;
    }
    prefix.into()
}

/// The only byte that can follow in one of these states, with the states after it. `None` if there are several, or if
/// the pattern may end here. Assertions count as met, so the result may only be shorter than possible.
fn only_byte(automaton: &NFA, states: &[StateID]) -> Option<(u8, Vec<StateID>)> {
    let mut found: Option<(u8, Vec<StateID>)> = None;
    let mut visited: BTreeSet<StateID> = states.iter().copied().collect();
    let mut to_visit: Vec<StateID> = states.to_vec();
    while let Some(id) = to_visit.pop() {
        let mut visit = |id: StateID| {
            if visited.insert(id) {
                to_visit.push(id);
            }
        };
        match automaton.state(id) {
            State::ByteRange { trans } if trans.start == trans.end => match &mut found {
                None => found = Some((trans.start, vec![trans.next])),
                Some((byte, next)) if *byte == trans.start => next.push(trans.next),
                Some(_) => return None,
            },
            State::ByteRange { .. } | State::Sparse(_) | State::Dense(_) | State::Match { .. } => return None,
            State::Look { next, .. } | State::Capture { next, .. } => visit(*next),
            State::Union { alternates } => alternates.iter().copied().for_each(visit),
            State::BinaryUnion { alt1, alt2 } => [*alt1, *alt2].into_iter().for_each(visit),
            State::Fail => {}
        }
    }
    found
}

/// Wraps the pattern so that it matches at the anchor.
fn wrap(pattern: &str, anchor: RegexAnchor) -> Result<String, RegexError> {
    check_syntax(pattern)?;
    let (before, after) = match anchor {
        RegexAnchor::Whole => (r"\A(?:", r")\z"),
        RegexAnchor::Start => (r"\A(?:", ")"),
        RegexAnchor::StartOfAnyCase => (r"\A(?i:", ")"),
        RegexAnchor::Anywhere => ("(?i:", ")"),
    };
    let wrapped = format!("{before}{pattern}{after}");
    // With `(?x)`, the pattern may end with a comment, which would include the closing parenthesis.
    Ok(if syntax::parse(&wrapped).is_ok() { wrapped } else { format!("{before}{pattern}\n{after}") })
}

/// Checks the pattern before it is wrapped, since `a)|(b` is invalid but would be valid between parentheses.
fn check_syntax(pattern: &str) -> Result<(), RegexError> {
    let Err(error) = syntax::parse(pattern) else { return Ok(()) };
    // The text consists of the pattern, a caret below the position of the error, and the message after "error: ".
    let text = error.to_string();
    let message = text.lines().rev().find_map(|line| line.strip_prefix("error: ")).unwrap_or(&text);
    let caret = text.lines().find(|line| line.trim_start().starts_with('^')).and_then(|line| line.find('^'));
    let character = caret.and_then(|column| column.checked_sub(PARSER_INDENT)).filter(|_| !pattern.contains('\n'));
    let suffix = character.map(|index| format!(" at character {}", index + 1)).unwrap_or_default();
    Err(RegexError { message: format!("{message}{suffix}"), is_too_large: false })
}

fn config(size_limit: usize) -> meta::Config {
    meta::Config::new().nfa_size_limit(Some(size_limit))
}

/// The memory limit of one compiled pattern, in bytes. `\w{100}` with its Unicode tables exceeds it; usual patterns
/// stay far below.
const MAX_COMPILED_BYTES: usize = 512 << 10;

/// The memory of a state of an automaton, on average: 24 bytes, and 8 for each range of bytes. A character class that
/// is not ASCII has states with several ranges.
const BYTES_PER_STATE: usize = 64;

/// The maximum length of a literal prefix, in bytes. Longer ones do not distinguish more paths.
const MAX_LITERAL_PREFIX: usize = 128;

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
                "larger than 512 KiB when compiled; use smaller repetition counts, and write [0-9] for \\d and \
                 [A-Za-z0-9_] for \\w",
            ),
        ];
        for (pattern, message) in cases {
            assert_eq!(compile_regex(pattern).unwrap_err().message, message, "{pattern}");
        }
    }

    #[test]
    fn limit_of_states() {
        let limit = RegexLimit { max_states: 2_000 };
        let size = |pattern| RegexSize::of(pattern, RegexAnchor::Whole, limit);
        assert!(size(r"/users/[0-9]+/orders/[a-z0-9-]+").unwrap().states < 100);
        assert!(size("/a*a{900}").is_ok());
        for pattern in ["/a*a{10000}", ".{600}", r"\w{100}"] {
            let error = size(pattern).unwrap_err();
            assert!(error.is_too_large, "{error}");
            assert!(error.message.starts_with("larger than 2000 states or 125 KiB when compiled; use"), "{error}");
            assert!(Regex::compile(pattern, limit).is_err_and(|error| error.is_too_large), "{pattern}");
        }
        assert!(!size("(").unwrap_err().is_too_large);
    }

    #[test]
    fn literal_prefixes() {
        let cases = [
            ("/a/b", "/a/b"),
            ("/a/[0-9]+", "/a/"),
            ("/users?", "/user"),
            ("/users*", "/user"),
            ("/users+", "/users"),
            ("/a|/b", "/"),
            ("/ab|/ac", "/a"),
            ("(/a)(/b)?", "/a"),
            (r"^/a\.b", "/a.b"),
            ("(?i)/a", "/"),
            ("(?:/a)?/b", "/"),
            (".*", ""),
            ("", ""),
            ("/é", "/é"),
        ];
        for (pattern, expected) in cases {
            let prefix = literal_prefix(pattern, RegexAnchor::Start).unwrap();
            assert_eq!(String::from_utf8_lossy(&prefix), expected, "{pattern}");
        }
    }

    proptest::proptest! {
        #[test]
        fn matches_begin_with_the_literal_prefix(pattern in "[ab|()?*+.^-]{0,8}", value in "[ab]{0,6}") {
            if let Some(prefix) = literal_prefix(&pattern, RegexAnchor::Whole)
                && compile_regex(&pattern).unwrap().is_match(value.as_bytes())
            {
                proptest::prop_assert!(value.as_bytes().starts_with(&prefix), "{pattern} {value}");
            }
        }

        #[test]
        fn no_pattern_panics(pattern in r"[ab(|)\[\]{}1,9*+?^$\\.#\n xQwd:-]{0,12}", value in "[ab]{0,5}") {
            if let Ok(regex) = compile_regex(&pattern) {
                regex.is_match(value.as_bytes());
            }
        }
    }
}
