//! Collects constant texts and variables of a template, and decides how each value is escaped.

use super::parts::{LinePart, LineTemplate, LineTemplateError, ValueForm};
use super::variable::LineVariable;

/// The parts that were parsed so far.
#[derive(Default)]
pub(super) struct TemplateBuilder {
    text: String,
    parts: Vec<LinePart>,
}

impl TemplateBuilder {
    /// How many variables the template has so far.
    pub(super) fn variables(&self) -> usize {
        self.parts.len()
    }

    pub(super) fn text(&mut self, character: char) {
        self.text.push(character);
    }

    pub(super) fn variable(&mut self, variable: LineVariable) {
        self.limited_variable(variable, None, MAX_VALUE_BYTES);
    }

    /// `otherwise`: the variable that is written if the first one has no value.
    pub(super) fn limited_variable(
        &mut self,
        variable: LineVariable,
        otherwise: Option<LineVariable>,
        max_bytes: usize,
    ) {
        let before = std::mem::take(&mut self.text).into();
        let max_bytes = max_bytes.min(MAX_VALUE_BYTES);
        self.parts.push(LinePart { before, variable, otherwise, max_bytes, form: ValueForm::Bare });
    }

    /// `missing`: what is written for a variable without a value.
    pub(super) fn finish_text(mut self, missing: &'static str) -> LineTemplate {
        let mut is_quoted = false;
        for part in &mut self.parts {
            is_quoted = toggled(is_quoted, &part.before);
            part.form = if is_quoted { ValueForm::Quoted } else { ValueForm::Bare };
        }
        LineTemplate { parts: self.parts.into(), after: self.text.into(), missing }
    }

    /// `types_values`: a string that consists of one variable becomes a value of its own type, as in Envoy.
    pub(super) fn finish_json(
        mut self,
        missing: &'static str,
        types_values: bool,
    ) -> Result<LineTemplate, LineTemplateError> {
        let mut is_quoted = false;
        for index in 0..self.parts.len() {
            is_quoted = toggled(is_quoted, &self.parts[index].before);
            self.parts[index].form = if is_quoted { ValueForm::JsonText } else { ValueForm::JsonValue };
            if !types_values || !is_quoted {
                continue;
            }
            let (parts, rest) = self.parts.split_at_mut(index + 1);
            let after = rest.first().map_or(&*self.text, |next| &*next.before);
            let part = &mut parts[index];
            let (Some(before), Some(after)) = (part.before.strip_suffix('"'), after.strip_prefix('"')) else {
                continue;
            };
            let after = after.to_owned();
            (part.before, part.form) = (before.into(), ValueForm::JsonValue);
            match rest.first_mut() {
                Some(next) => next.before = after.into(),
                None => self.text = after,
            }
            is_quoted = false;
        }
        let template = LineTemplate { parts: self.parts.into(), after: self.text.into(), missing };
        template.check_json()?;
        Ok(template)
    }
}

/// Whether the text after `text` is in quotes, if the text before it is or not.
fn toggled(mut is_quoted: bool, text: &str) -> bool {
    let mut is_escaped = false;
    for character in text.chars() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ => {}
        }
    }
    is_quoted
}

/// The longest value of a variable. Heads of requests may have 64 KiB, and lines wait in memory.
const MAX_VALUE_BYTES: usize = 8 * 1024;
