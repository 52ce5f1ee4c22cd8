//! Parses the directives of the rewrite module: `set`, `if`, `return`, `rewrite` and `break`.

use http::StatusCode;

use super::directive_tree::WrittenDirective;
use super::expression::SnippetRegex;
use super::program::{
    ReturnContent, ReturnStep, RewriteEffect, RewriteFlag, RewriteStep, SetVariable, SnippetCondition, SnippetStep,
};
use super::refusal::DirectiveRefusal;
use super::text::{KnownVariables, SnippetText, TextPhase};
use super::variable::SnippetVariable;
use crate::snapshot::regex::RegexLimit;
use crate::snapshot::regex_steps::RegexInput;

/// The step of a directive. `Ok(None)` if it is not of the module, or is an `if`.
pub(super) fn step(
    directive: &WrittenDirective,
    scope: &KnownVariables,
    limit: RegexLimit,
) -> Result<Option<SnippetStep>, DirectiveRefusal> {
    Ok(Some(match &directive.name[..] {
        "set" => {
            let [name, value] = directive.exactly()?;
            let value = SnippetText::parse_in(value, scope, TextPhase::Request)?;
            SnippetStep::Set { variable: variable(name, scope)?, value }
        }
        "return" => SnippetStep::Return(return_step(directive, scope)?),
        "rewrite" => SnippetStep::Rewrite(Box::new(rewrite(directive, scope, limit)?)),
        "break" => {
            let [] = directive.exactly()?;
            SnippetStep::Break
        }
        _ => return Ok(None),
    }))
}

fn variable(written: &str, scope: &KnownVariables) -> Result<SetVariable, DirectiveRefusal> {
    let name = written.strip_prefix('$').unwrap_or_default().to_ascii_lowercase();
    if name == "args" {
        return Ok(SetVariable::Args);
    }
    match scope.set.iter().find(|known| ***known == *name) {
        Some(name) => Ok(SetVariable::Own(name.clone())),
        None => Err(DirectiveRefusal::invalid(format!("has {written:?}, which is no name of a variable"))),
    }
}

fn return_step(directive: &WrittenDirective, scope: &KnownVariables) -> Result<ReturnStep, DirectiveRefusal> {
    let (first, text) = match directive.some_arguments()? {
        [first] => (first, None),
        [status, text] => (status, Some(text)),
        _ => return Err(DirectiveRefusal::invalid("takes a status and a text")),
    };
    let parse = |text: &str| SnippetText::parse_in(text, scope, TextPhase::Request);
    if text.is_none() && is_url(first) {
        return Ok(ReturnStep { status: StatusCode::FOUND, content: ReturnContent::Location(parse(first)?) });
    }
    let code = first.parse::<u16>().ok().filter(|code| (200..=599).contains(code));
    let status = code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or_else(|| DirectiveRefusal::invalid("has no status from 200 to 599"))?;
    let content = match text {
        None => ReturnContent::None,
        Some(text) if is_redirect(status) => ReturnContent::Location(parse(text)?),
        Some(text) => ReturnContent::Body(parse(text)?),
    };
    Ok(ReturnStep { status, content })
}

/// Whether nginx sends a response of this status with `Location`.
pub(super) fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

pub(super) fn is_url(text: &str) -> bool {
    ["http://", "https://", "$scheme", "${scheme}"].iter().any(|start| text.starts_with(start))
}

fn rewrite(
    directive: &WrittenDirective,
    scope: &KnownVariables,
    limit: RegexLimit,
) -> Result<RewriteStep, DirectiveRefusal> {
    let (pattern, target, flag) = match directive.some_arguments()? {
        [pattern, target] => (pattern, target, None),
        [pattern, target, flag] => (pattern, target, Some(&flag[..])),
        _ => return Err(DirectiveRefusal::invalid("takes an expression, a target and a flag")),
    };
    let regex = SnippetRegex::compile(pattern, false, limit)?;
    // A question mark at the end drops the query of the request.
    let (target, keeps_query) = target.strip_suffix('?').map_or((&target[..], true), |target| (target, false));
    if target.is_empty() {
        return Err(DirectiveRefusal::invalid("has an empty target"));
    }
    let parse = |text: &str| SnippetText::parse_in(text, scope, TextPhase::Request);
    let redirect = |status| {
        Ok::<_, DirectiveRefusal>(RewriteEffect::Redirect {
            status,
            url: parse(target)?,
            has_query: target.contains('?'),
        })
    };
    let path = |flag| {
        let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        Ok::<_, DirectiveRefusal>(RewriteEffect::Path {
            path: parse(path)?,
            query: query.map(parse).transpose()?,
            flag,
        })
    };
    let effect = match flag {
        Some("permanent") => redirect(StatusCode::MOVED_PERMANENTLY)?,
        Some("redirect") => redirect(StatusCode::FOUND)?,
        None | Some("last" | "break") if is_url(target) => redirect(StatusCode::FOUND)?,
        None => path(RewriteFlag::None)?,
        Some("last") => path(RewriteFlag::Last)?,
        Some("break") => path(RewriteFlag::Break)?,
        Some(flag) => return Err(DirectiveRefusal::invalid(format!("has the flag `{flag}`"))),
    };
    Ok(RewriteStep { regex, effect, keeps_query })
}

/// The condition of an `if`, whose arguments are in parentheses.
pub(super) fn condition(
    arguments: &[String],
    scope: &KnownVariables,
    limit: RegexLimit,
) -> Result<SnippetCondition, DirectiveRefusal> {
    let words = without_parentheses(arguments).ok_or_else(|| DirectiveRefusal::invalid("has no condition"))?;
    let (variable, comparison) = match words[..] {
        [variable] => (variable, None),
        [check, _] if check.starts_with(['-', '!']) => {
            return Err(DirectiveRefusal::new("checks files, which a proxy has not", "remove the condition"));
        }
        [variable, operator, value] => (variable, Some((operator, value))),
        _ => return Err(DirectiveRefusal::invalid("has a condition that is invalid")),
    };
    let text = SnippetText::parse_in(variable, scope, TextPhase::Request)?;
    if !variable.starts_with('$') || !text.is_one_variable() {
        return Err(DirectiveRefusal::invalid("has a condition that does not begin with a variable"));
    }
    let Some((operator, value)) = comparison else { return Ok(SnippetCondition::IsSet(text)) };
    let (is_negated, operator) = match operator.strip_prefix('!') {
        Some(operator) => (true, operator),
        None => (false, operator),
    };
    match operator {
        "=" => {
            let other = SnippetText::parse_in(value, scope, TextPhase::Request)?;
            Ok(SnippetCondition::Equals { text, other, is_negated })
        }
        "~" | "~*" => {
            let regex = SnippetRegex::compile(value, operator == "~*", limit)?;
            let input = input_of(&text);
            Ok(SnippetCondition::Matches { text, regex, is_negated, input })
        }
        _ => Err(DirectiveRefusal::invalid("has a condition with an unknown operator")),
    }
}

fn without_parentheses(arguments: &[String]) -> Option<Vec<&str>> {
    let mut words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let first = words.first_mut()?;
    *first = first.strip_prefix('(')?;
    let last = words.last_mut()?;
    *last = last.strip_suffix(')')?;
    // Parentheses may be words of their own.
    let is_edge_empty = |word: Option<&&str>| word.is_some_and(|word| word.is_empty());
    if words.len() > 1 && is_edge_empty(words.first()) {
        words.remove(0);
    }
    if words.len() > 1 && is_edge_empty(words.last()) {
        words.pop();
    }
    Some(words)
}

/// The part of the request that a text is, for the response to requests that take too many steps.
fn input_of(text: &SnippetText) -> RegexInput {
    match text.only_variable() {
        Some(SnippetVariable::RequestField(_) | SnippetVariable::Cookie(_)) => RegexInput::Header,
        Some(_) | None => RegexInput::Target,
    }
}
