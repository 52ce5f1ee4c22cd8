//! Replaces the path of requests for a location, as the `rewrite` directive of nginx does with flag `break`.

use std::fmt;

use super::backtracking::BacktrackingRegex;
use super::decoded_path::decoded_path;
use super::encoded_path::encode_path;
use super::expression::with_literal_braces;
use crate::snapshot::path_regex::TextRegex;
use crate::snapshot::regex::{RegexError, RegexLimit};

/// Replaces the whole path if an expression matches anywhere in it, regardless of case.
#[derive(Clone, Debug, PartialEq)]
pub struct PathReplacement {
    expression: ReplacedExpression,
    target: GroupTemplate,
    /// `X-Forwarded-Prefix`, which may refer to groups of the expression.
    forwarded_prefix: Option<GroupTemplate>,
}

/// Text in which `$1` to `$9` stand for capture groups.
#[derive(Clone, PartialEq, Eq)]
pub struct GroupTemplate {
    configured: Box<str>,
    parts: Box<[Part]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Group(usize),
}

/// A dollar sign that no digit from 1 to 9 follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the dollar sign at character {0} is not followed by the number of a group, 1 to 9")]
pub struct UnknownVariable(pub usize);

/// What a request gets in place of its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplacedPath {
    /// Percent-encoded. Starts with a slash, or is an absolute URL if [`PathReplacement::is_redirect`].
    pub path: String,
    pub forwarded_prefix: Option<String>,
}

impl PathReplacement {
    /// `path`: that of the rule.
    pub fn new(
        path: &str,
        target: GroupTemplate,
        forwarded_prefix: Option<GroupTemplate>,
        limit: RegexLimit,
    ) -> Result<Self, RegexError> {
        let pattern = with_literal_braces(path);
        let expression = match TextRegex::compile(&pattern, limit) {
            Ok(regex) => ReplacedExpression::Automaton(regex),
            Err(error) if error.is_too_large => return Err(error),
            Err(error) => ReplacedExpression::Backtracking(BacktrackingRegex::compile(&pattern).map_err(|_| error)?),
        };
        Ok(PathReplacement { expression, target, forwarded_prefix })
    }

    /// Whether the target is an absolute URL, to which the client is redirected.
    pub fn is_redirect(&self) -> bool {
        ["http://", "https://"].iter().any(|scheme| self.target.configured.starts_with(scheme))
    }

    /// The replacement for a path as the client sent it. `Ok(None)` if the expression does not match, so that the path
    /// stays.
    ///
    /// # Errors
    ///
    /// If the result is too long or has dot segments, which the endpoint could resolve to a path of another location.
    pub fn apply(&self, path: &str) -> Result<Option<ReplacedPath>, InvalidReplacement> {
        let path = decoded_path(path).ok_or(InvalidReplacement)?;
        // A dollar sign of nginx matches before a line break at the end, too.
        let captures = match (self.expression.groups(&path)?, path.strip_suffix('\n')) {
            (None, Some(line)) => self.expression.groups(line)?,
            (captures, _) => captures,
        };
        let Some(captures) = captures else { return Ok(None) };
        let target = self.target.expand(&captures).ok_or(InvalidReplacement)?;
        let path = match self.is_redirect() {
            true => target,
            false if target.starts_with('/') => target,
            false => format!("/{target}"),
        };
        if !self.is_redirect() && path.split('/').any(|segment| segment == "." || segment == "..") {
            return Err(InvalidReplacement);
        }
        let path = encode_path(&path);
        let expand = |template: &GroupTemplate| template.expand(&captures).ok_or(InvalidReplacement);
        let forwarded_prefix = self.forwarded_prefix.as_ref().map(expand).transpose()?;
        Ok(Some(ReplacedPath { path, forwarded_prefix }))
    }
}

/// What is replaced.
#[derive(Clone, Debug, PartialEq)]
enum ReplacedExpression {
    Automaton(TextRegex),
    Backtracking(BacktrackingRegex),
}

impl ReplacedExpression {
    fn as_str(&self) -> &str {
        match self {
            ReplacedExpression::Automaton(regex) => regex.as_str(),
            ReplacedExpression::Backtracking(regex) => regex.as_str(),
        }
    }

    /// The groups of the first match, from 0 on. `Ok(None)` without a match.
    fn groups<'p>(&self, path: &'p str) -> Result<Option<Vec<Option<&'p str>>>, InvalidReplacement> {
        match self {
            ReplacedExpression::Automaton(regex) => {
                let captures = regex.captures(path);
                Ok(captures.map(|captures| (0..=MAX_GROUP).map(|number| captures.group(number)).collect()))
            }
            ReplacedExpression::Backtracking(regex) => regex.groups(path).map_err(|_| InvalidReplacement),
        }
    }
}

/// The highest number of a group that a template refers to.
const MAX_GROUP: usize = 9;

/// The path after the replacement cannot be sent, or is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidReplacement;

/// `/a/(.*) to /$1`
impl fmt::Display for PathReplacement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} to {}", self.expression.as_str(), self.target.configured)
    }
}

impl GroupTemplate {
    pub fn parse(configured: &str) -> Result<Self, UnknownVariable> {
        let mut parts = Vec::new();
        let mut pieces = configured.split('$');
        let first = pieces.next().unwrap_or_default();
        let mut position = first.chars().count() + 1;
        parts.extend((!first.is_empty()).then(|| Part::Text(first.into())));
        for piece in pieces {
            let digit = piece.chars().next().and_then(|digit| digit.to_digit(10)).filter(|digit| *digit > 0);
            let digit = digit.ok_or(UnknownVariable(position))?;
            parts.push(Part::Group(usize::try_from(digit).map_err(|_| UnknownVariable(position))?));
            parts.extend((piece.len() > 1).then(|| Part::Text(piece[1..].into())));
            position += piece.chars().count() + 1;
        }
        Ok(GroupTemplate { configured: configured.into(), parts: parts.into() })
    }

    /// The text with its groups; those that did not take part in the match are empty. `None` if it is too long.
    fn expand(&self, groups: &[Option<&str>]) -> Option<String> {
        let mut text = String::new();
        for part in &self.parts {
            let part = match part {
                Part::Text(part) => &**part,
                Part::Group(number) => groups.get(*number).copied().flatten().unwrap_or_default(),
            };
            // Checked before copying: a group may be referenced many times.
            if text.len() + part.len() > MAX_LENGTH {
                return None;
            }
            text.push_str(part);
        }
        Some(text)
    }
}

impl fmt::Debug for GroupTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.configured.fmt(formatter)
    }
}

/// In bytes, before it is encoded.
const MAX_LENGTH: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn replacement(path: &str, target: &str, prefix: Option<&str>) -> PathReplacement {
        let template = |text: &str| GroupTemplate::parse(text).unwrap();
        PathReplacement::new(path, template(target), prefix.map(template), RegexLimit::MEMORY_ONLY).unwrap()
    }

    #[test]
    fn whole_path_is_replaced() {
        for (path, target, request, expected) in [
            ("/something(/|$)(.*)", "/$2", "/something/new", Some("/new")),
            ("/something(/|$)(.*)", "/$2", "/something", Some("/")),
            ("/something(/|$)(.*)", "/$2", "/SOMETHING/New", Some("/New")),
            ("/foo", "/", "/foo/bar/baz", Some("/")),
            // The expression is not anchored.
            ("/foo", "/bar", "/a/foo/b", Some("/bar")),
            ("/foo/(.*)", "$1", "/foo/x/y", Some("/x/y")),
            ("/foo", "/bar", "/other", None),
            ("/foo(/|$)", "/bar", "/foo%0A", Some("/bar")),
            // Escapes are decoded, and encoded again if they are needed.
            ("/a/(.*)", "/$1", "/a/b%20c%3Fd%2Fe%25", Some("/b%20c%3Fd/e%25")),
            ("/a/(.*)", "/$1", "/a/caf%C3%A9[]", Some("/caf%C3%A9[]")),
            ("/a/(.*)", "/$9$1", "/a/b", Some("/b")),
            ("/a/(.)(.*)", "/$2$1", "/a/%e9b%FF", Some("/b%FF%E9")),
            ("/a/(.*)", "/$1", "/a/%EF%9F%BF%25e9", Some("/%EF%9F%BF%25e9")),
            ("/(?!v1)([a-z]+)/(.*)", "/$1-$2", "/api/b", Some("/api-b")),
            ("/a/(.*)", "https://b.example/$1", "/a/b c", Some("https://b.example/b%20c")),
        ] {
            let replaced = replacement(path, target, None).apply(request).unwrap();
            assert_eq!(replaced.map(|replaced| replaced.path).as_deref(), expected, "{path} {target} {request}");
        }
    }

    #[test]
    fn prefix_refers_to_groups_of_the_path() {
        let replaced = replacement("/(v[0-9]+)/api/(.*)", "/$2", Some("/$1/api")).apply("/v2/api/x").unwrap();
        let expected = ReplacedPath { path: "/x".to_owned(), forwarded_prefix: Some("/v2/api".to_owned()) };
        assert_eq!(replaced, Some(expected));
    }

    #[test]
    fn dot_segments_and_long_results_are_errors() {
        assert_eq!(replacement("/a(.*)", "/$1", None).apply("/a.."), Err(InvalidReplacement));
        let long = format!("/a{}", "b".repeat(MAX_LENGTH / 2));
        assert_eq!(replacement("/a(.*)", "/$1$1$1", None).apply(&long), Err(InvalidReplacement));
    }

    #[test]
    fn dollar_signs_need_a_group() {
        for (text, position) in [("/$", 2), ("/$1/$host", 5), ("/é$0", 3), ("$$1", 1)] {
            assert_eq!(GroupTemplate::parse(text), Err(UnknownVariable(position)), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn result_is_always_a_path(
            path in "(/|[a-c.%é\u{f72e}\u{f72f}]|%2[EeFf]){0,12}",
            target in "[/a.]{0,4}(\\$[1-3][/.]?){0,3}",
        ) {
            let replaced = replacement("/(.)(.*)(.?)", &target, None).apply(&format!("/{path}"));
            if let Ok(Some(ReplacedPath { path, .. })) = replaced {
                proptest::prop_assert!(path.starts_with('/') && path.parse::<http::uri::PathAndQuery>().is_ok());
            }
        }
    }
}
