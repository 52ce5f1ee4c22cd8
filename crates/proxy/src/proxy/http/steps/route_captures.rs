//! The groups of a route's regular expression for plugins. They are computed when a plugin first reads one.

use std::cell::OnceCell;

use crate::plugin_api::UriCaptures;
use crate::snapshot::path_regex::Captures;
use crate::snapshot::router::MatchedPath;

pub(super) struct RouteCaptures<'r> {
    matched: MatchedPath<'r>,
    /// The path that was matched.
    path: &'r str,
    captures: OnceCell<Captures<'r>>,
}

impl<'r> RouteCaptures<'r> {
    pub(super) fn new(matched: MatchedPath<'r>, path: &'r str) -> Self {
        RouteCaptures { matched, path, captures: OnceCell::new() }
    }

    fn captures(&self) -> &Captures<'r> {
        self.captures.get_or_init(|| self.matched.captures(self.path))
    }
}

impl UriCaptures for RouteCaptures<'_> {
    fn group(&self, number: usize) -> Option<&str> {
        self.captures().group(number)
    }

    fn named_group(&self, name: &str) -> Option<&str> {
        self.captures().named_group(name)
    }

    fn named_groups(&self) -> Vec<(&str, &str)> {
        self.captures().named_groups()
    }
}
