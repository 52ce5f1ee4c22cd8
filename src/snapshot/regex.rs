//! Regular expressions: the syntax, the size limit, and how a pattern is anchored.

use std::fmt;

use regex_automata::MatchKind;
use regex_automata::meta;
use regex_automata::util::syntax;

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

/// Where a regular expression has to match in a value, and whether case matters.
#[derive(Clone, Copy, Debug)]
pub(in crate::snapshot) enum RegexAnchor {
    /// From the first byte to the last.
    Whole,
    /// From the first byte on.
    Start,
    /// Anywhere, case-insensitively.
    Anywhere,
}

/// Compiles one regular expression that matches at the anchor.
pub(in crate::snapshot) fn build_regex(
    pattern: &str,
    anchor: RegexAnchor,
    match_kind: MatchKind,
) -> Result<meta::Regex, RegexError> {
    let wrapped = wrap(pattern, anchor)?;
    let config = config(MAX_COMPILED_BYTES).match_kind(match_kind);
    meta::Builder::new().configure(config).build(&wrapped).map_err(|error| RegexError {
        message: match error.size_limit() {
            Some(_) => format!(
                "larger than {} KiB when compiled; use smaller repetition counts, and write [0-9] for \\d and \
                 [A-Za-z0-9_] for \\w",
                MAX_COMPILED_BYTES >> 10
            ),
            None => error.to_string(),
        },
    })
}

/// Builds one automaton that reports all matching patterns.
pub(in crate::snapshot) fn build_regexes(patterns: &[&str], anchor: RegexAnchor) -> Result<meta::Regex, RegexError> {
    let wrapped = patterns.iter().map(|pattern| wrap(pattern, anchor)).collect::<Result<Vec<_>, _>>()?;
    // Each pattern alone is below the limit, so the sum of the limits, and one more for what joins the patterns,
    // suffices for all of them.
    let limit = MAX_COMPILED_BYTES.saturating_mul(patterns.len().saturating_add(1));
    let config = config(limit).match_kind(MatchKind::All);
    let automaton = meta::Builder::new().configure(config).build_many(&wrapped);
    automaton.map_err(|error| RegexError { message: error.to_string() })
}

/// Whether `compile_regex` accepts the pattern.
pub(in crate::snapshot) fn is_valid(pattern: &str) -> bool {
    compile_regex(pattern).is_ok()
}

/// Wraps the pattern so that it matches at the anchor.
fn wrap(pattern: &str, anchor: RegexAnchor) -> Result<String, RegexError> {
    check_syntax(pattern)?;
    let (before, after) = match anchor {
        RegexAnchor::Whole => (r"\A(?:", r")\z"),
        RegexAnchor::Start => (r"\A(?:", ")"),
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
    Err(RegexError { message: format!("{message}{suffix}") })
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
                "larger than 512 KiB when compiled; use smaller repetition counts, and write [0-9] for \\d and \
                 [A-Za-z0-9_] for \\w",
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
