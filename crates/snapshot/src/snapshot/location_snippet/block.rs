//! What applies to a request in one block of a snippet: outside of all `if`s, or in one of them.

use super::access::SnippetAccess;
use super::request_fields::SnippetRequestFields;
use super::response_fields::SnippetResponseFields;

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SnippetBlock {
    pub(super) request: SnippetRequestFields,
    pub(super) response: SnippetResponseFields,
    pub(super) access: SnippetAccess,
}

impl SnippetBlock {
    /// Adds what this block has from the block around it, as nginx merges them: some directives are added up, and
    /// others replace those around them.
    pub(super) fn inherit(&mut self, outer: &SnippetBlock) {
        self.request.inherit(&outer.request);
        self.response.inherit(&outer.response);
        self.access.inherit(&outer.access);
    }

    /// Computes what is the same for all requests, once the block is complete.
    pub(super) fn complete(mut self) -> Self {
        self.response.complete();
        self
    }
}
