//! The expressions of `if`, `rewrite` and `location`, which match anywhere in a text.

use std::fmt;

use fancy_regex::RegexBuilder;

use super::refusal::DirectiveRefusal;
use crate::snapshot::path_regex::TextRegex;
use crate::snapshot::regex::{RegexAnchor, RegexLimit, RegexSize};
use crate::snapshot::regex_steps::{RegexInput, RegexSteps};

/// A compiled expression.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SnippetRegex {
    compiled: CompiledExpression,
    /// The names of groups, which become variables when the expression matches.
    pub(super) names: Box<[Box<str>]>,
    has_groups: bool,
    /// About, of its automata.
    pub(super) bytes: usize,
}

#[derive(Clone)]
enum CompiledExpression {
    Automaton(TextRegex),
    /// It has look-around or backreferences.
    Backtracking {
        pattern: Box<str>,
        is_any_case: bool,
        regex: fancy_regex::Regex,
    },
}

/// The groups of an expression that matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct MatchedGroups {
    /// From group 1 on. Empty texts for groups that are not a part of the match.
    pub(super) numbered: Vec<String>,
    pub(super) named: Vec<(Box<str>, String)>,
}

/// The request has no steps left, so that it is not known whether an expression matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StepsExhausted;

impl SnippetRegex {
    pub(super) fn compile(pattern: &str, is_any_case: bool, limit: RegexLimit) -> Result<Self, DirectiveRefusal> {
        let refuse = |message: &str| {
            let message = format!("has an invalid expression: {}", message.replace('\n', " "));
            DirectiveRefusal::new(message, "correct the expression")
        };
        let names = group_names(pattern);
        let has_groups = pattern.contains('(');
        let ascii = with_ascii_classes(pattern);
        // Of the pattern as it is written, so that positions in the message are those of the snippet.
        let checked = RegexSize::of(pattern, RegexAnchor::Anywhere, limit);
        let (compiled, bytes) = match checked.and_then(|_| RegexSize::of(&ascii, RegexAnchor::Anywhere, limit)) {
            Ok(size) => {
                let cased = if is_any_case { ascii } else { format!("(?-i){ascii}") };
                let regex = TextRegex::compile(&cased, limit).map_err(|error| refuse(&error.message))?;
                (CompiledExpression::Automaton(regex), 2 * size.bytes)
            }
            Err(error) if error.is_too_large => return Err(refuse(&error.message)),
            Err(error) => {
                let compiled =
                    CompiledExpression::backtracking(&ascii, is_any_case).ok_or_else(|| refuse(&error.message))?;
                (compiled, (1 + pattern.matches("(?").count()) * BYTES_PER_PART)
            }
        };
        Ok(SnippetRegex { compiled, names, has_groups, bytes })
    }

    pub(super) fn has_groups(&self) -> bool {
        self.has_groups
    }

    /// The groups of the first match. `Ok(None)` without a match.
    pub(super) fn groups(
        &self,
        text: &str,
        steps: &RegexSteps,
        input: RegexInput,
    ) -> Result<Option<MatchedGroups>, StepsExhausted> {
        let matched = self.search(text, steps, input)?;
        // A dollar sign of nginx matches before a line break at the end, too, so that `/admin%0A` is `^/admin$`.
        match text.strip_suffix('\n') {
            Some(line) if matched.is_none() => self.search(line, steps, input),
            Some(_) | None => Ok(matched),
        }
    }

    /// Whether the expression matches. Takes no groups.
    pub(super) fn is_match(&self, text: &str, steps: &RegexSteps, input: RegexInput) -> Result<bool, StepsExhausted> {
        let line = text.strip_suffix('\n');
        for text in std::iter::once(text).chain(line) {
            if !steps.admit(self.states(), text.len(), input) {
                return Err(StepsExhausted);
            }
            let is_match = match &self.compiled {
                CompiledExpression::Automaton(regex) => regex.is_match(text.as_bytes()),
                CompiledExpression::Backtracking { regex, .. } => regex.is_match(text).map_err(|_| {
                    steps.exhaust(input);
                    StepsExhausted
                })?,
            };
            if is_match {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn states(&self) -> u32 {
        match &self.compiled {
            CompiledExpression::Automaton(regex) => regex.states(),
            CompiledExpression::Backtracking { .. } => BACKTRACKING_STATES,
        }
    }

    fn search(
        &self,
        text: &str,
        steps: &RegexSteps,
        input: RegexInput,
    ) -> Result<Option<MatchedGroups>, StepsExhausted> {
        if !steps.admit(self.states(), text.len(), input) {
            return Err(StepsExhausted);
        }
        let mut matched = MatchedGroups::default();
        let mut add = |number: Option<&str>| matched.numbered.push(number.unwrap_or_default().to_owned());
        match &self.compiled {
            CompiledExpression::Automaton(regex) if !self.has_groups => {
                return Ok(regex.is_match(text.as_bytes()).then_some(matched));
            }
            CompiledExpression::Automaton(regex) => {
                let Some(captures) = regex.captures(text) else { return Ok(None) };
                (1..=MAX_GROUP).for_each(|number| add(captures.group(number)));
                let named = self.names.iter().map(|name| (name, captures.named_group(name)));
                matched.named = owned(named);
            }
            CompiledExpression::Backtracking { regex, .. } => {
                let Ok(captures) = regex.captures(text) else {
                    steps.exhaust(input);
                    return Err(StepsExhausted);
                };
                let Some(captures) = captures else { return Ok(None) };
                (1..=MAX_GROUP).for_each(|number| add(captures.get(number).map(|group| group.as_str())));
                let named = self.names.iter().map(|name| (name, captures.name(name).map(|group| group.as_str())));
                matched.named = owned(named);
            }
        }
        Ok(Some(matched))
    }
}

/// The pattern with the classes of nginx, which have ASCII characters only.
fn with_ascii_classes(pattern: &str) -> String {
    let mut written = String::with_capacity(pattern.len());
    let mut is_in_class = false;
    let mut characters = pattern.chars();
    while let Some(character) = characters.next() {
        match character {
            '[' if !is_in_class => is_in_class = true,
            ']' if is_in_class => is_in_class = false,
            '\\' => {
                let escaped = characters.next();
                match (escaped.and_then(ascii_class), is_in_class) {
                    (Some(class), true) => written.push_str(class),
                    (Some(class), false) => written.extend(["[", class, "]"]),
                    (None, _) => {
                        written.push('\\');
                        written.extend(escaped);
                    }
                }
                continue;
            }
            _ => {}
        }
        written.push(character);
    }
    written
}

/// The characters of a class that is written as this letter after a backslash.
fn ascii_class(letter: char) -> Option<&'static str> {
    Some(match letter {
        'd' => "0-9",
        's' => "\\t\\n\\x0B\\x0C\\r ",
        'w' => "0-9A-Za-z_",
        'D' => "[^0-9]",
        'S' => "[^\\t\\n\\x0B\\x0C\\r ]",
        'W' => "[^0-9A-Za-z_]",
        _ => return None,
    })
}

fn owned<'g>(named: impl Iterator<Item = (&'g Box<str>, Option<&'g str>)>) -> Vec<(Box<str>, String)> {
    // nginx has no case in the names of variables.
    named.map(|(name, text)| (name.to_ascii_lowercase().into(), text.unwrap_or_default().to_owned())).collect()
}

impl CompiledExpression {
    fn backtracking(pattern: &str, is_any_case: bool) -> Option<Self> {
        let mut builder = RegexBuilder::new(pattern);
        builder.case_insensitive(is_any_case).backtrack_limit(MAX_BACKTRACKS);
        builder.delegate_size_limit(BYTES_PER_PART).max_prog_size(MAX_PROGRAM);
        let regex = builder.build().ok().filter(|regex| regex.captures_len() <= MAX_GROUPS)?;
        Some(CompiledExpression::Backtracking { pattern: pattern.into(), is_any_case, regex })
    }
}

/// The names of the groups of a pattern: `(?<name>`, `(?P<name>`, but not `(?<=`.
pub(super) fn group_names(pattern: &str) -> Box<[Box<str>]> {
    let mut names: Vec<Box<str>> = Vec::new();
    for piece in pattern.split("(?").skip(1) {
        let piece = piece.strip_prefix('P').unwrap_or(piece);
        let Some((name, _)) = piece.strip_prefix('<').and_then(|piece| piece.split_once('>')) else { continue };
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if is_name && !name.is_empty() && !names.iter().any(|known| **known == *name) {
            names.push(name.into());
        }
    }
    names.into()
}

/// Expressions with equal text are equal.
impl PartialEq for CompiledExpression {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (CompiledExpression::Automaton(regex), CompiledExpression::Automaton(other)) => regex == other,
            (
                CompiledExpression::Backtracking { pattern, is_any_case, .. },
                CompiledExpression::Backtracking { pattern: other, is_any_case: other_case, .. },
            ) => (pattern, is_any_case) == (other, other_case),
            (CompiledExpression::Automaton(_), CompiledExpression::Backtracking { .. })
            | (CompiledExpression::Backtracking { .. }, CompiledExpression::Automaton(_)) => false,
        }
    }
}

impl fmt::Debug for CompiledExpression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CompiledExpression::Automaton(regex) => regex.as_str().fmt(formatter),
            CompiledExpression::Backtracking { pattern, .. } => pattern.fmt(formatter),
        }
    }
}

/// The highest number of a group that a text refers to.
const MAX_GROUP: usize = 9;

// The limits of expressions of paths, in `location_path`.
const MAX_BACKTRACKS: usize = 10_000;
const BACKTRACKING_STATES: u32 = 1_000;
const BYTES_PER_PART: usize = 64 << 10;
const MAX_GROUPS: usize = 64;
const MAX_PROGRAM: usize = 20_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(pattern: &str, is_any_case: bool, text: &str) -> Option<Vec<String>> {
        let regex = SnippetRegex::compile(pattern, is_any_case, RegexLimit::MEMORY_ONLY).unwrap();
        let matched = regex.groups(text, &RegexSteps::default(), RegexInput::Target).unwrap()?;
        Some(matched.numbered.into_iter().filter(|group| !group.is_empty()).collect())
    }

    #[test]
    fn case_matters_unless_it_is_ignored() {
        for (pattern, is_any_case, text, expected) in [
            ("^/old/(.*)$", false, "/old/a", Some(&["a"][..])),
            ("^/old/(.*)$", false, "/OLD/a", None),
            ("^/old/(.*)$", true, "/OLD/a", Some(&["a"])),
            ("bot|crawler", false, "a crawler", Some(&[])),
            ("bot|crawler", false, "a Bot", None),
            ("(?i)bot", false, "a Bot", Some(&[])),
            ("^/(?!v1)(.)", false, "/A", Some(&["A"])),
            ("^/(?!v1)(a)", false, "/A", None),
            ("^/(?!V1)(a)", true, "/A", Some(&["A"])),
            ("^/(?!V1)(.)", true, "/v1", None),
            ("(?x) a b # why", false, "ab", Some(&[])),
            ("^/admin(.*)$", false, "/admin/a\n", Some(&["/a"])),
            ("^/admin(?!b)$", false, "/admin\n", Some(&[])),
            ("^/admin$", false, "/admin\n\n", None),
        ] {
            let expected = expected.map(|groups| groups.iter().map(|group| (*group).to_owned()).collect());
            assert_eq!(groups(pattern, is_any_case, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn groups_have_names() {
        let names: &[(&str, &[&str])] =
            &[("(?<a>.)(?P<b_1>.)(?:c)(?<=d)(?<!e)", &["a", "b_1"]), ("(?<a>.)", &["a"]), ("(.)", &[]), ("(?<", &[])];
        for (pattern, expected) in names {
            let expected: Vec<Box<str>> = expected.iter().map(|name| (*name).into()).collect();
            assert_eq!(*group_names(pattern), expected[..], "{pattern}");
        }
        for pattern in ["(?<Who>[a-z]+)", "(?<Who>[a-z]+)(?!1)"] {
            let regex = SnippetRegex::compile(pattern, false, RegexLimit::MEMORY_ONLY).unwrap();
            let matched = regex.groups("ann", &RegexSteps::default(), RegexInput::Target).unwrap().unwrap();
            assert_eq!(matched.named, [("who".into(), "ann".to_owned())]);
        }
    }

    #[test]
    fn invalid_expressions_and_many_steps_are_errors() {
        for pattern in ["(", "a)|(b", "[z-a]", "(?!a"] {
            assert!(SnippetRegex::compile(pattern, false, RegexLimit::MEMORY_ONLY).is_err(), "{pattern}");
        }
        assert!(SnippetRegex::compile("a{900}", false, RegexLimit { max_states: 100 }).is_err());
        let regex = SnippetRegex::compile("a(b)?", false, RegexLimit::MEMORY_ONLY).unwrap();
        assert_eq!(regex.groups("aaa", &RegexSteps::new(3), RegexInput::Target), Err(StepsExhausted));
        let regex = SnippetRegex::compile(r"^(?:(a+)\1?)+$", false, RegexLimit::MEMORY_ONLY).unwrap();
        let text = format!("{}!", "a".repeat(60));
        assert_eq!(regex.groups(&text, &RegexSteps::default(), RegexInput::Target), Err(StepsExhausted));
    }
}
