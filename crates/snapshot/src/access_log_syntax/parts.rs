//! A template of a line as it is used: constant texts and variables, and the error about a text that is none.

use std::fmt;

use super::variable::LineVariable;
use crate::schema::nearest;

/// The layout of a line, compiled once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineTemplate {
    pub parts: Box<[LinePart]>,
    /// The text after the last variable.
    pub after: Box<str>,
    /// What is written for a variable without a value, except for a value of JSON, which is `null`.
    pub missing: &'static str,
}

/// A variable with the text before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinePart {
    pub before: Box<str>,
    pub variable: LineVariable,
    /// The variable that takes its place if it has no value.
    pub otherwise: Option<LineVariable>,
    /// The rest of a longer value is not written.
    pub max_bytes: usize,
    pub form: ValueForm,
}

/// How a value is escaped, by the place that it has in the template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueForm {
    /// In double quotes.
    Quoted,
    /// Outside of quotes, where a space ends the value.
    Bare,
    /// In a string of JSON.
    JsonText,
    /// A whole value of JSON: a number, a string or null.
    JsonValue,
}

/// Why a text is not a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineTemplateError {
    /// The number of the character, from 1 on; `None` if the error concerns the whole text.
    pub position: Option<usize>,
    pub message: String,
    pub remedy: String,
}

impl LineTemplate {
    /// All variables.
    pub fn variables(&self) -> impl Iterator<Item = &LineVariable> {
        self.parts.iter().flat_map(|part| std::iter::once(&part.variable).chain(part.otherwise.as_ref()))
    }

    /// Rejects a template whose lines would be no JSON.
    pub(super) fn check_json(&self) -> Result<(), LineTemplateError> {
        let mut sample = String::new();
        for part in &self.parts {
            sample.push_str(&part.before);
            sample.push(if part.form == ValueForm::JsonText { 'x' } else { '0' });
        }
        sample.push_str(&self.after);
        let parsed: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_str(&sample);
        parsed.map(drop).map_err(|error| {
            let message = format!("with values in place of its variables, the template is no JSON object: {error}");
            LineTemplateError::whole(message, "correct the quotes, commas and brackets around the variables")
        })
    }
}

impl LineTemplateError {
    pub(super) fn whole(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        LineTemplateError { position: None, message: message.into(), remedy: remedy.into() }
    }

    /// `index`: the byte of `text` at which the error is.
    pub(super) fn at(text: &str, index: usize, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        let position = text.get(..index).map(|before| before.chars().count() + 1);
        LineTemplateError { position, message: message.into(), remedy: remedy.into() }
    }

    /// An unknown variable. `written`: how the user wrote it. `spell`: writes a known name in the same notation.
    pub(super) fn unknown(
        (text, index): (&str, usize),
        written: &str,
        name: &str,
        known: impl IntoIterator<Item = &'static str>,
        spell: impl Fn(&str) -> String,
    ) -> Self {
        let remedy = match nearest(name, known) {
            Some(known) => format!("did you mean {}? The page about logs lists all variables", spell(known)),
            None => "remove it; the page about logs lists all variables".to_owned(),
        };
        LineTemplateError::at(text, index, format!("there is no variable {written}"), remedy)
    }

    /// A field that is never written.
    pub(super) fn secret(text: &str, index: usize, written: &str) -> Self {
        let message = format!("{written} may contain credentials, which the access log never contains");
        LineTemplateError::at(text, index, message, "remove it")
    }
}

impl fmt::Display for LineTemplateError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = self.position {
            write!(formatter, "character {position}: ")?;
        }
        write!(formatter, "{}; {}", self.message, self.remedy)
    }
}
