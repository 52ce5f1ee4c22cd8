//! Expressions that no automaton can match: look-around, backreferences and possessive quantifiers, which nginx has.

use std::fmt;

use fancy_regex::{Regex, RegexBuilder};

use crate::snapshot::regex_steps::{RegexInput, RegexSteps};

/// An expression that is matched by backtracking, regardless of case, within a limit of backtracks.
#[derive(Clone)]
pub struct BacktrackingRegex {
    pattern: Box<str>,
    compiled: Regex,
}

/// The limit of backtracks was reached, so it is not known whether an expression matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManyBacktracks;

impl BacktrackingRegex {
    /// Compiles an expression that may match anywhere. The error is a clause.
    pub(super) fn compile(pattern: &str) -> Result<Self, String> {
        if pattern.len() > MAX_LENGTH {
            return Err(format!(
                "longer than {MAX_LENGTH} bytes, which is too long for an expression with look-around"
            ));
        }
        let mut builder = RegexBuilder::new(pattern);
        builder.case_insensitive(true).backtrack_limit(MAX_BACKTRACKS);
        builder.delegate_size_limit(BYTES_PER_PART).max_prog_size(MAX_PROGRAM);
        let compiled = builder.build().map_err(|error| error.to_string().to_lowercase())?;
        if compiled.captures_len() > MAX_GROUPS {
            return Err(format!("more than {MAX_GROUPS} groups"));
        }
        Ok(BacktrackingRegex { pattern: pattern.into(), compiled })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.pattern
    }

    /// Whether it matches. `None` if the request has no steps left for it, or the limit was reached.
    pub fn is_match(&self, path: &str, steps: &RegexSteps) -> Option<bool> {
        if !steps.admit(STATES, path.len(), RegexInput::Target) {
            return None;
        }
        let matched = self.compiled.is_match(path).ok();
        if matched.is_none() {
            steps.exhaust(RegexInput::Target);
        }
        matched
    }

    /// The groups of the first match, from 0 on. `Ok(None)` without a match.
    pub(super) fn groups<'p>(&self, path: &'p str) -> Result<Option<Vec<Option<&'p str>>>, TooManyBacktracks> {
        let captures = self.compiled.captures(path).map_err(|_| TooManyBacktracks)?;
        let group = |group: Option<fancy_regex::Match<'p>>| group.map(|group| group.as_str());
        Ok(captures.map(|captures| captures.iter().map(group).collect()))
    }
}

impl fmt::Debug for BacktrackingRegex {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pattern.fmt(formatter)
    }
}

/// Expressions with equal text are equal.
impl PartialEq for BacktrackingRegex {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern
    }
}

impl Eq for BacktrackingRegex {}

/// The most backtracks of one match. Expressions of usual size take a few for each byte of a path.
const MAX_BACKTRACKS: usize = 10_000;
/// What a match costs, as a number of states of an automaton: a path of 100 bytes takes as many steps as the most
/// backtracks take time.
pub(super) const STATES: u32 = 1_000;
/// The most bytes of the automaton of a part without look-around.
pub(super) const BYTES_PER_PART: usize = 64 << 10;
const MAX_LENGTH: usize = 4 << 10;
const MAX_GROUPS: usize = 64;
/// Instructions of the compiled expression.
const MAX_PROGRAM: usize = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_what_automata_cannot() {
        let steps = RegexSteps::default();
        for (pattern, path, expected) in [
            ("^/api/(?!internal)", "/api/v1", true),
            ("^/api/(?!internal)", "/API/Internal", false),
            (r"^/(\w+)/\1$", "/a/a", true),
            (r"^/(\w+)/\1$", "/a/b", false),
            ("^/a++b", "/aab", true),
        ] {
            let regex = BacktrackingRegex::compile(pattern).unwrap();
            assert_eq!(regex.is_match(path, &steps), Some(expected), "{pattern} {path}");
        }
    }

    #[test]
    fn exploding_expression_exhausts_the_request() {
        // The backreference is repeated, so that no automaton helps.
        let regex = BacktrackingRegex::compile(r"^/(?:(a+)\1?)+$").unwrap();
        let path = format!("/{}!", "a".repeat(60));
        let steps = RegexSteps::default();
        assert_eq!(regex.is_match(&path, &steps), None);
        assert_eq!(steps.exceeded(), Some(RegexInput::Target));
        assert_eq!(regex.groups(&path), Err(TooManyBacktracks));
        // A long path is not matched at all.
        let steps = RegexSteps::default();
        assert_eq!(regex.is_match(&"/a".repeat(2_000), &steps), None);
    }

    #[test]
    fn invalid_and_large_expressions_are_errors() {
        for pattern in ["(", "(?!a", r"\2(a)", "(?=a){99999}(?:b{1000}){1000}"] {
            assert!(BacktrackingRegex::compile(pattern).is_err(), "{pattern}");
        }
        assert!(BacktrackingRegex::compile(&"(a)(?=b)".repeat(70)).is_err());
        assert!(BacktrackingRegex::compile(&"a(?=b)".repeat(1_000)).is_err());
    }
}
