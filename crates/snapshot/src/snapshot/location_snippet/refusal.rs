//! Why a snippet is refused. One directive that cannot be compiled refuses the whole snippet.

use std::fmt;

/// The first directive of a snippet that is not supported, or that nginx would not accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedSnippet {
    /// From 1 on.
    pub line: usize,
    /// Its name. Empty if the text as a whole is refused.
    pub directive: String,
    /// A clause, whose subject is the directive: `is not supported`.
    pub message: String,
    /// What to use instead.
    pub remedy: String,
    /// Whether any part of the text could restrict access, so that requests must not be served without it.
    pub restricts: bool,
}

/// `line 3: root is not supported; serve files with a backend`
impl fmt::Display for RefusedSnippet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let directive = if self.directive.is_empty() { "the snippet" } else { &self.directive };
        write!(formatter, "line {}: {directive} {}; {}", self.line, self.message, self.remedy)
    }
}

impl std::error::Error for RefusedSnippet {}

/// The reason without its place, which the caller of a parser knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DirectiveRefusal {
    pub(super) message: String,
    pub(super) remedy: String,
}

impl DirectiveRefusal {
    pub(super) fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        DirectiveRefusal { message: message.into(), remedy: remedy.into() }
    }

    /// Arguments that nginx itself does not accept.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        DirectiveRefusal::new(message, "correct it as the documentation of nginx describes")
    }

    pub(super) fn at(self, line: usize, directive: &str, restricts: bool) -> RefusedSnippet {
        let DirectiveRefusal { message, remedy } = self;
        RefusedSnippet { line, directive: directive.to_owned(), message, remedy, restricts }
    }
}
