//! A compiled snippet.

use std::sync::Arc;

use http::HeaderName;
use http::header::ACCEPT_ENCODING;

use super::block::SnippetBlock;
use super::body_edits::SubFilters;
use super::endpoint_rewrites::EndpointRewrites;
use super::expression::SnippetRegex;
use super::ignored::IgnoredDirective;
use super::program::SnippetStep;
use super::settings::SnippetSettings;
use super::variable::SnippetVariable;

/// A snippet of a location or of a server, which is evaluated for each request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snippet {
    /// What annotations could have, too.
    pub settings: SnippetSettings,
    /// Locations of the host in addition to those of its Ingresses. Only a snippet of a server has some.
    pub locations: Vec<SnippetLocation>,
    pub(super) program: Box<[SnippetStep]>,
    pub(super) rewrites: EndpointRewrites,
    pub(super) body: SubFilters,
    /// Outside of all `if`s.
    pub(super) outer: SnippetBlock,
    /// Of the `if`s, with what they inherit.
    pub(super) blocks: Box<[SnippetBlock]>,
    /// The names of its own variables and those of the server, in lower case.
    pub(super) variables: Vec<Arc<str>>,
    pub(super) ignored: Vec<IgnoredDirective>,
    pub(super) restricts: bool,
    pub(super) regex_bytes: usize,
    pub(super) later_variables: Box<[SnippetVariable]>,
}

/// A location in a snippet of a server.
#[derive(Clone, Debug, PartialEq)]
pub struct SnippetLocation {
    pub line: usize,
    pub modifier: LocationModifier,
    /// A decoded path, or an expression that matches anywhere in it.
    pub path: Box<str>,
    /// It inherits from the server. Its groups are those of the expression of the location.
    pub snippet: Arc<Snippet>,
    pub(super) regex: Option<SnippetRegex>,
}

/// How a location is matched and selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocationModifier {
    /// The longest prefix, unless an expression matches.
    Prefix,
    /// `^~`: the longest prefix, also if an expression matches.
    PrefixBeforeExpressions,
    /// `=`
    Exact,
    /// `~`
    Expression,
    /// `~*`
    ExpressionOfAnyCase,
}

impl Snippet {
    /// Whether the snippet could restrict access, so that requests must not be served without it.
    pub fn restricts(&self) -> bool {
        self.restricts
    }

    /// The directives without effect, also those in locations.
    pub fn ignored(&self) -> &[IgnoredDirective] {
        &self.ignored
    }

    /// The bytes that its automata take, about, with those of its locations.
    pub fn regex_bytes(&self) -> usize {
        self.regex_bytes
    }

    /// Whether it changes or refuses any request or response. Settings do not count.
    pub fn has_effect(&self) -> bool {
        let has_fields = self.outer != SnippetBlock::default() || !self.rewrites.is_empty();
        !self.program.is_empty() || has_fields || !self.body.is_empty()
    }

    /// The same with further rewrites of responses of endpoints, which precede its own.
    pub fn with_rewrites(mut self, rewrites: &EndpointRewrites) -> Self {
        let own = std::mem::replace(&mut self.rewrites, rewrites.clone());
        self.rewrites.inherit(&own);
        self.complete()
    }

    /// Whether responses may be changed.
    pub(crate) fn edits_responses(&self) -> bool {
        let edits_fields = || self.all_blocks().any(|block| !block.response.is_empty());
        !self.rewrites.is_empty() || !self.body.is_empty() || edits_fields()
    }

    /// The fields of requests that any block sets or removes, except those that it removes by the start of their names.
    pub(crate) fn request_field_names(&self) -> impl Iterator<Item = &HeaderName> {
        let of_body = (!self.body.is_empty()).then_some(&ACCEPT_ENCODING);
        self.all_blocks().flat_map(|block| block.request.names()).chain(of_body)
    }

    /// The fields of responses that any block sets or removes, with the same exception.
    pub(crate) fn response_field_names(&self) -> impl Iterator<Item = &HeaderName> {
        self.all_blocks().flat_map(|block| block.response.names()).chain(self.rewrites.names()).chain(self.body.names())
    }

    pub(super) fn all_blocks(&self) -> impl Iterator<Item = &SnippetBlock> {
        std::iter::once(&self.outer).chain(&self.blocks)
    }

    /// The block of the last `if` that was true.
    pub(super) fn block(&self, active: Option<usize>) -> &SnippetBlock {
        active.and_then(|index| self.blocks.get(index)).unwrap_or(&self.outer)
    }
}
