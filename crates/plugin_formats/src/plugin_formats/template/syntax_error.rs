//! Why a template is not valid, as a diagnostic that quotes the expression.

use std::fmt;

use crate::diagnostic::Diagnostic;

/// An expression that is not supported, or a template that is too long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateSyntaxError {
    /// The start of the expression; `None` if the error is about the whole text.
    expression: Option<String>,
    message: String,
    remedy: &'static str,
}

/// How much of an expression a message quotes.
const MAX_QUOTED_CHARACTERS: usize = 60;

const IN_TEMPLATE: &str = "use headers, query_params, uri_captures and shared with literals, operators, type, tostring, \
                           tonumber and string.sub, upper, lower, len, find, match, gsub and format";
const IN_CHUNK: &str = "write one expression after return, of kong.request.get_header, get_method, get_path and \
                        get_query_arg, kong.client.get_ip, kong.response.get_status and get_header, literals, \
                        operators, and type, tostring, tonumber and functions of string";

impl TemplateSyntaxError {
    pub(super) fn text_too_long() -> Self {
        TemplateSyntaxError { expression: None, message: "is longer than 64KiB".to_owned(), remedy: "shorten it" }
    }

    /// `rest` is the template after `$(`.
    pub(super) fn in_template(rest: &str, message: String) -> Self {
        // Where the expression ends is unknown, because it is not valid; most likely at the parenthesis that balances.
        let mut depth = 1;
        let end = rest.find(|character| {
            depth += match character {
                '(' => 1,
                ')' => -1,
                _ => 0,
            };
            depth == 0
        });
        let expression = &rest[..end.map_or(rest.len(), |end| end + 1)];
        TemplateSyntaxError { expression: Some(format!("$({}", quoted(expression))), message, remedy: IN_TEMPLATE }
    }

    pub(super) fn in_chunk(chunk: &str, message: String) -> Self {
        TemplateSyntaxError { expression: Some(quoted(chunk)), message, remedy: IN_CHUNK }
    }

    /// The diagnostic for the field at `path` below `config`.
    pub fn into_diagnostic(self, path: impl fmt::Display) -> Diagnostic {
        let message = match self.expression {
            Some(expression) => format!("has the expression {expression}, in which {}", self.message),
            None => self.message,
        };
        Diagnostic::in_config(path, message, self.remedy)
    }
}

/// The start of an expression on one line.
fn quoted(expression: &str) -> String {
    let mut characters = expression.chars().map(|character| if character.is_control() { ' ' } else { character });
    let mut start: String = characters.by_ref().take(MAX_QUOTED_CHARACTERS).collect();
    if characters.next().is_some() {
        start.push('…');
    }
    start
}
