//! Objects and lists: terms that build objects, and patterns that take lists and objects apart.

use super::{ParsedTerm, Parser, described, text_literal};
use crate::jq_language::format::TextFormat;
use crate::jq_language::program::{BindingPattern, Term};
use crate::jq_language::tokens::{SyntaxError, Token};

impl Parser<'_> {
    pub(super) fn pattern(&mut self) -> ParsedTerm<BindingPattern> {
        self.nested(Self::pattern_unchecked)
    }

    fn pattern_unchecked(&mut self) -> ParsedTerm<BindingPattern> {
        if self.take_symbol("[") {
            let mut elements = vec![self.pattern()?];
            while self.take_symbol(",") {
                elements.push(self.pattern()?);
            }
            self.expect_symbol("]")?;
            return Ok(BindingPattern::List(elements));
        }
        if self.take_symbol("{") {
            let mut members = Vec::new();
            loop {
                let (key, variable) = match self.peek().cloned() {
                    Some(Token::Variable(name)) => {
                        self.position += 1;
                        (text_literal(&name), Some(self.names.bind(name)))
                    }
                    _ => (self.object_key()?.0, None),
                };
                let pattern = if self.take_symbol(":") { Some(self.pattern()?) } else { None };
                if variable.is_none() && pattern.is_none() {
                    return Err(self.missing(":"));
                }
                members.push((key, variable, pattern));
                if !self.take_symbol(",") {
                    break;
                }
            }
            self.expect_symbol("}")?;
            return Ok(BindingPattern::Object(members));
        }
        let name = self.variable_name()?;
        Ok(BindingPattern::Variable(self.names.bind(name)))
    }

    pub(super) fn object(&mut self) -> ParsedTerm<Term> {
        let mut members = Vec::new();
        while !self.take_symbol("}") {
            if !members.is_empty() {
                self.expect_symbol(",")?;
                if self.take_symbol("}") {
                    break;
                }
            }
            members.push(self.member()?);
        }
        Ok(Term::Object(members))
    }

    fn member(&mut self) -> ParsedTerm<(Term, Term)> {
        if let Some(Token::Variable(name)) = self.peek().cloned() {
            self.position += 1;
            return Ok((text_literal(&name), self.variable(&name)?));
        }
        let (key, short_value) = self.object_key()?;
        if self.take_symbol(":") {
            let value = self.nested(Self::member_value)?;
            return Ok((key, value));
        }
        short_value.map(|value| (key, value)).ok_or_else(|| self.missing(":"))
    }

    /// Values of members are terms joined by pipes, without commas.
    fn member_value(&mut self) -> ParsedTerm<Term> {
        let left = self.alternative()?;
        if !self.take_symbol("|") {
            return Ok(left);
        }
        let right = self.nested(Self::member_value)?;
        Ok(Term::Pipe(Box::new(left), Box::new(right)))
    }

    /// The key, and the value that `{key}` alone has.
    pub(super) fn object_key(&mut self) -> ParsedTerm<(Term, Option<Term>)> {
        let Some(token) = self.peek().cloned() else { return Err(self.missing("a key")) };
        self.position += 1;
        let field = |key: Term| Term::Index(Box::new(Term::Identity), Box::new(key));
        match token {
            Token::Name(name) => Ok((text_literal(&name), Some(field(text_literal(&name))))),
            Token::Text(pieces) => {
                let key = self.text(pieces.clone(), TextFormat::Text)?;
                let value = field(self.text(pieces, TextFormat::Text)?);
                Ok((key, Some(value)))
            }
            Token::Symbol("(") => {
                let key = self.pipe()?;
                self.expect_symbol(")")?;
                Ok((key, None))
            }
            Token::Number(number) => Err(SyntaxError::new(format!("{number} is not a key; write it in quotes"))),
            token => Err(SyntaxError::new(format!("{} is not a key", described(&token)))),
        }
    }
}
