//! Replaces the part of a value that a pattern matches: of a URL by `proxy_redirect`, and of attributes of cookies by
//! `proxy_cookie_path` and `proxy_cookie_domain`.

use std::borrow::Cow;
use std::sync::Arc;

use super::expression::{MatchedGroups, SnippetRegex, StepsExhausted};
use super::refusal::DirectiveRefusal;
use super::text::{KnownVariables, PartValues, SnippetText, TextPart, TextPhase};
use crate::snapshot::regex::RegexLimit;
use crate::snapshot::regex_steps::{RegexInput, RegexSteps};

/// A pattern, and what replaces its match.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ValueRewrite {
    pattern: ValuePattern,
    replacement: SnippetText,
}

#[derive(Clone, Debug, PartialEq)]
enum ValuePattern {
    /// A text with which the value begins. The rest of the value stays.
    Prefix(SnippetText),
    /// A whole domain in any case. A dot before it stays.
    Domain(SnippetText),
    /// An expression that matches anywhere, so that the whole value is replaced.
    Expression(SnippetRegex),
}

/// It is not known what a value becomes: an expression takes too many steps, or the text is too long.
pub(super) struct UnknownValue;

impl From<StepsExhausted> for UnknownValue {
    fn from(StepsExhausted: StepsExhausted) -> Self {
        UnknownValue
    }
}

impl ValueRewrite {
    /// Of a URL or a path. An expression begins with `~`, or with `~*` if case does not matter.
    pub(super) fn of_prefix(
        [pattern, replacement]: [&str; 2],
        scope: &KnownVariables,
        limit: RegexLimit,
    ) -> Result<Self, DirectiveRefusal> {
        match pattern.strip_prefix('~') {
            Some(expression) => {
                let any_case = expression.strip_prefix('*');
                let regex = SnippetRegex::compile(any_case.unwrap_or(expression), any_case.is_some(), limit)?;
                ValueRewrite::of_expression(regex, replacement, scope)
            }
            None => Ok(ValueRewrite {
                pattern: ValuePattern::Prefix(parse(pattern, scope)?),
                replacement: parse(replacement, scope)?,
            }),
        }
    }

    /// Of a domain, where case never matters.
    pub(super) fn of_domain(
        [pattern, replacement]: [&str; 2],
        scope: &KnownVariables,
        limit: RegexLimit,
    ) -> Result<Self, DirectiveRefusal> {
        match pattern.strip_prefix('~') {
            Some(expression) => {
                ValueRewrite::of_expression(SnippetRegex::compile(expression, true, limit)?, replacement, scope)
            }
            None => Ok(ValueRewrite {
                pattern: ValuePattern::Domain(parse(without_dot(pattern), scope)?),
                replacement: parse(without_dot(replacement), scope)?,
            }),
        }
    }

    /// The replacement may have the named groups of the expression, which are no variables elsewhere.
    fn of_expression(regex: SnippetRegex, replacement: &str, scope: &KnownVariables) -> Result<Self, DirectiveRefusal> {
        let own = regex.names.iter().map(|name| Arc::from(name.to_ascii_lowercase()));
        let scope = KnownVariables { set: own.chain(scope.set.iter().cloned()).collect() };
        Ok(ValueRewrite { replacement: parse(replacement, &scope)?, pattern: ValuePattern::Expression(regex) })
    }

    /// The new value. `Ok(None)` if the pattern does not match.
    fn apply(
        &self,
        value: &[u8],
        values: &dyn PartValues,
        steps: &RegexSteps,
    ) -> Result<Option<Vec<u8>>, UnknownValue> {
        match &self.pattern {
            ValuePattern::Prefix(prefix) => {
                let prefix = expand(prefix, values)?;
                let Some(rest) = value.strip_prefix(prefix.as_bytes()) else { return Ok(None) };
                let replacement = expand(&self.replacement, values)?;
                Ok(Some([replacement.as_bytes(), rest].concat()))
            }
            ValuePattern::Domain(domain) => {
                let (dot, own) = value.split_at(usize::from(value.starts_with(b".")));
                if !own.eq_ignore_ascii_case(expand(domain, values)?.as_bytes()) {
                    return Ok(None);
                }
                let replacement = expand(&self.replacement, values)?;
                Ok(Some([dot, replacement.as_bytes()].concat()))
            }
            ValuePattern::Expression(regex) => {
                let Ok(text) = std::str::from_utf8(value) else { return Ok(None) };
                let Some(matched) = regex.groups(text, steps, RegexInput::Header)? else { return Ok(None) };
                let values = WithGroups { values, matched: &matched };
                Ok(Some(expand(&self.replacement, &values)?.into_owned().into_bytes()))
            }
        }
    }

    /// The texts that are expanded.
    pub(super) fn texts(&self) -> impl Iterator<Item = &SnippetText> {
        let pattern = match &self.pattern {
            ValuePattern::Prefix(text) | ValuePattern::Domain(text) => Some(text),
            ValuePattern::Expression(_) => None,
        };
        pattern.into_iter().chain([&self.replacement])
    }

    pub(super) fn regex_bytes(&self) -> usize {
        match &self.pattern {
            ValuePattern::Expression(regex) => regex.bytes,
            ValuePattern::Prefix(_) | ValuePattern::Domain(_) => 0,
        }
    }
}

/// The value after the first rewrite that matches it. `None` if it stays as it is.
pub(super) fn rewritten(
    rewrites: &[ValueRewrite],
    value: &[u8],
    values: &dyn PartValues,
    steps: &RegexSteps,
) -> Option<Vec<u8>> {
    for rewrite in rewrites {
        match rewrite.apply(value, values, steps) {
            Ok(None) => {}
            Ok(rewritten) => return rewritten,
            Err(UnknownValue) => return None,
        }
    }
    None
}

fn without_dot(domain: &str) -> &str {
    domain.strip_prefix('.').unwrap_or(domain)
}

fn parse(text: &str, scope: &KnownVariables) -> Result<SnippetText, DirectiveRefusal> {
    SnippetText::parse_in(text, scope, TextPhase::Response)
}

pub(super) fn expand<'v>(text: &'v SnippetText, values: &'v dyn PartValues) -> Result<Cow<'v, str>, UnknownValue> {
    text.expand_parts(values).ok_or(UnknownValue)
}

/// The values for a text behind an expression, whose groups it may have.
struct WithGroups<'r> {
    values: &'r dyn PartValues,
    matched: &'r MatchedGroups,
}

impl PartValues for WithGroups<'_> {
    fn part<'v>(&'v self, part: &'v TextPart) -> Cow<'v, str> {
        let MatchedGroups { numbered, named } = self.matched;
        match part {
            TextPart::Group(number) => {
                let group = number.checked_sub(1).and_then(|index| numbered.get(index));
                Cow::Borrowed(group.map_or("", String::as_str))
            }
            TextPart::Set(name) => match named.iter().find(|(known, _)| **known == **name) {
                Some((_, value)) => Cow::Borrowed(value),
                None => self.values.part(part),
            },
            TextPart::Literal(_) | TextPart::Request(_) | TextPart::Response(_) => self.values.part(part),
        }
    }
}
