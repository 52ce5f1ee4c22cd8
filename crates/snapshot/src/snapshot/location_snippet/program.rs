//! The directives of the rewrite module of nginx in compiled form. They run in order.

use std::sync::Arc;

use http::StatusCode;

use super::expression::SnippetRegex;
use super::text::SnippetText;
use crate::snapshot::regex_steps::RegexInput;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum SnippetStep {
    /// Matches the path with the expression of the location, for its groups.
    Groups(SnippetRegex),
    Set {
        variable: SetVariable,
        value: SnippetText,
    },
    If {
        condition: SnippetCondition,
        /// The block that becomes active, in the snippet's list. `None` for an `if` of a server.
        block: Option<usize>,
        steps: Box<[SnippetStep]>,
    },
    Return(ReturnStep),
    Rewrite(Box<RewriteStep>),
    /// Ends the steps.
    Break,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SetVariable {
    /// `$args`: the query of the request to the endpoint.
    Args,
    Own(Arc<str>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum SnippetCondition {
    /// The text is neither empty nor `0`.
    IsSet(SnippetText),
    Equals {
        text: SnippetText,
        other: SnippetText,
        is_negated: bool,
    },
    Matches {
        text: SnippetText,
        regex: SnippetRegex,
        is_negated: bool,
        input: RegexInput,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct ReturnStep {
    pub(super) status: StatusCode,
    pub(super) content: ReturnContent,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum ReturnContent {
    None,
    Body(SnippetText),
    Location(SnippetText),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct RewriteStep {
    pub(super) regex: SnippetRegex,
    pub(super) effect: RewriteEffect,
    /// Whether the query of the request is added to that of the target.
    pub(super) keeps_query: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum RewriteEffect {
    Redirect {
        status: StatusCode,
        url: SnippetText,
        /// Whether the URL has a question mark.
        has_query: bool,
    },
    Path {
        path: SnippetText,
        query: Option<SnippetText>,
        flag: RewriteFlag,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RewriteFlag {
    /// The following steps run, and the location of the new path is searched after them.
    None,
    /// The location of the new path is searched.
    Last,
    /// The location stays.
    Break,
}
