//! The text of a document without white space, commas and comments, so that texts with the same meaning are equal.

use super::lexer::{GraphqlLexer, GraphqlToken};
use super::{DocumentError, DocumentLimits};

/// The tokens of a document, separated by spaces. Block strings keep the form in which they were sent.
pub fn normalized(text: &str, limits: &DocumentLimits) -> Result<String, DocumentError> {
    let mut lexer = GraphqlLexer::new(text, limits.tokens);
    let mut normalized = String::with_capacity(text.len().min(limits.bytes));
    while lexer.next()? != GraphqlToken::End {
        if !normalized.is_empty() {
            normalized.push(' ');
        }
        normalized.push_str(lexer.last_text());
    }
    Ok(normalized)
}
