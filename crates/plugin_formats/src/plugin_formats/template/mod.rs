//! Templates: text with expressions in `$(…)`, which plugins evaluate for each request. The expressions are a subset of
//! those of Lua, so that templates written for Kong work.
//!
//! ```text
//!   "Bearer $(headers.token or 'none')" ──Template::parse──▶ literals and expression trees ──render──▶ bytes
//!   "return kong.request.get_method()"  ──Expression::parse_return──▶ one tree ──evaluate──▶ LuaValue
//! ```
//!
//! Everything is parsed when the configuration changes. Evaluation calls no code except the functions in
//! `functions.rs`, has no loops, and is limited by a [`Budget`].

mod expression;
mod format;
mod functions;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod parse;
mod pattern;
mod script;
mod syntax_error;
mod tokens;
mod variables;

use std::borrow::Cow;

use crate::plugin_api::lua_value::{Budget, EvaluationError, LuaValue};

pub use expression::Expression;
pub use script::{LuaScript, ScriptAction, ScriptArgument, ScriptError, ScriptHost, ScriptSyntaxError};
pub use syntax_error::TemplateSyntaxError;
pub use variables::{Variable, VariableKey, Variables, find_header, host_without_port};

/// The longest text of a template, and the longest value that a template or a function may return.
pub const MAX_VALUE_BYTES: usize = 64 << 10;

/// A parsed template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    segments: Box<[TemplateSegment]>,
}

#[derive(Clone, Debug, PartialEq)]
enum TemplateSegment {
    Literal(Box<str>),
    Expression(Expression),
}

impl Template {
    /// Parses a template. Text without `$(` is a literal.
    pub fn parse(text: &str) -> Result<Template, TemplateSyntaxError> {
        if text.len() > MAX_VALUE_BYTES {
            return Err(TemplateSyntaxError::text_too_long());
        }
        let mut segments = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find("$(") {
            if start > 0 {
                segments.push(TemplateSegment::Literal(rest[..start].into()));
            }
            let (expression, end) = Expression::parse_in_template(&rest[start + 2..])?;
            segments.push(TemplateSegment::Expression(expression));
            rest = &rest[start + 2 + end..];
        }
        if !rest.is_empty() {
            segments.push(TemplateSegment::Literal(rest.into()));
        }
        Ok(Template { segments: segments.into() })
    }

    /// The text, if the template has no expressions.
    pub fn literal(&self) -> Option<&str> {
        match &*self.segments {
            [] => Some(""),
            [TemplateSegment::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The text for one request. `None` if nothing is left because expressions are nil; a nil within other text is
    /// empty.
    pub fn render<'v>(
        &'v self,
        variables: &'v dyn Variables,
        budget: &mut Budget,
    ) -> Result<Option<Cow<'v, [u8]>>, EvaluationError> {
        match &*self.segments {
            [] => return Ok(Some(Cow::Borrowed(b""))),
            [TemplateSegment::Literal(text)] => return Ok(Some(Cow::Borrowed(text.as_bytes()))),
            [TemplateSegment::Expression(expression)] => {
                return match expression.evaluate(variables, budget)? {
                    LuaValue::Nil => Ok(None),
                    value => within_limit(value.into_text()).map(Some),
                };
            }
            _ => {}
        }
        let (mut text, mut has_nil) = (Vec::new(), false);
        for segment in &self.segments {
            match segment {
                TemplateSegment::Literal(literal) => text.extend_from_slice(literal.as_bytes()),
                TemplateSegment::Expression(expression) => match expression.evaluate(variables, budget)? {
                    LuaValue::Nil => has_nil = true,
                    value => text.extend_from_slice(&value.into_text()),
                },
            }
            if text.len() > MAX_VALUE_BYTES {
                return Err(EvaluationError::TooLong);
            }
        }
        Ok(Some(Cow::Owned(text)).filter(|text: &Cow<'_, [u8]>| !(has_nil && text.is_empty())))
    }

    /// The text for one request, in which `escape` has changed the values of expressions, but not the text around them.
    /// `None` if an expression is nil, or `escape` refuses its value.
    pub fn render_escaped(
        &self,
        variables: &dyn Variables,
        budget: &mut Budget,
        escape: impl Fn(&[u8]) -> Option<Vec<u8>>,
    ) -> Result<Option<Vec<u8>>, EvaluationError> {
        let mut text = Vec::new();
        for segment in &self.segments {
            match segment {
                TemplateSegment::Literal(literal) => text.extend_from_slice(literal.as_bytes()),
                TemplateSegment::Expression(expression) => match expression.evaluate(variables, budget)? {
                    LuaValue::Nil => return Ok(None),
                    value => match escape(&value.into_text()) {
                        Some(escaped) => text.extend_from_slice(&escaped),
                        None => return Ok(None),
                    },
                },
            }
            if text.len() > MAX_VALUE_BYTES {
                return Err(EvaluationError::TooLong);
            }
        }
        Ok(Some(text))
    }
}

fn within_limit(text: Cow<'_, [u8]>) -> Result<Cow<'_, [u8]>, EvaluationError> {
    if text.len() > MAX_VALUE_BYTES { Err(EvaluationError::TooLong) } else { Ok(text) }
}

#[cfg(test)]
mod tests;
