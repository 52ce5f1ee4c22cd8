//! What the steps of snippets have changed for a request, and the values of texts.

use std::borrow::Cow;
use std::sync::Arc;

use super::expression::MatchedGroups;
use super::text::{PartValues, TextPart};
use super::variable::{SnippetValues, SnippetVariable};

/// The variables, the groups and the target of a request. It lasts for several snippets.
#[derive(Clone, Debug, Default)]
pub(super) struct RewriteState {
    /// By their names, in lower case.
    variables: Vec<(Arc<str>, String)>,
    /// From group 1 on, of the last expression that was compared. Empty if it did not match.
    groups: Vec<String>,
    /// The decoded path, if it was changed.
    path: Option<String>,
    /// The query, if it was changed.
    args: Option<String>,
    /// How often the location of a new path was searched.
    searches: u8,
}

impl RewriteState {
    pub(super) fn set_variable(&mut self, name: &Arc<str>, value: String) {
        match self.variables.iter_mut().find(|(known, _)| known == name) {
            Some((_, known)) => *known = value,
            None => self.variables.push((Arc::clone(name), value)),
        }
    }

    /// Takes the groups of an expression. There are none after one that does not match.
    pub(super) fn set_groups(&mut self, matched: Option<MatchedGroups>) {
        let MatchedGroups { numbered, named } = matched.unwrap_or_default();
        self.groups = numbered;
        for (name, value) in named {
            self.set_variable(&Arc::from(name), value);
        }
    }

    pub(super) fn set_path(&mut self, path: String) {
        self.path = Some(path);
    }

    pub(super) fn set_args(&mut self, args: String) {
        self.args = Some(args);
    }

    /// Counts a search of the location of a new path. Returns whether it is permitted.
    pub(super) fn count_search(&mut self) -> bool {
        self.searches = self.searches.saturating_add(1);
        self.searches <= MAX_SEARCHES
    }

    /// Whether the request to the endpoint has another target than that of the client.
    pub(super) fn has_changed_target(&self) -> bool {
        self.path.is_some() || self.args.is_some()
    }
}

/// As in nginx, so that rewrites which lead to each other end.
const MAX_SEARCHES: u8 = 10;

/// The values of a request, with what has changed.
pub(super) struct ChangedValues<'r> {
    pub(super) values: &'r dyn SnippetValues,
    pub(super) state: &'r RewriteState,
}

impl<'r> ChangedValues<'r> {
    /// The decoded path.
    pub(super) fn path(&self) -> Cow<'r, str> {
        match &self.state.path {
            Some(path) => Cow::Borrowed(path),
            None => self.values.value(&SnippetVariable::Uri),
        }
    }

    /// The query, without a question mark.
    pub(super) fn args(&self) -> Cow<'r, str> {
        match &self.state.args {
            Some(args) => Cow::Borrowed(args),
            None => self.values.value(&SnippetVariable::Args),
        }
    }

    fn variable(&self, variable: &SnippetVariable) -> Cow<'r, str> {
        match (variable, &self.state.args) {
            (SnippetVariable::Uri, _) => self.path(),
            (SnippetVariable::Args, _) => self.args(),
            (SnippetVariable::IsArgs, Some(args)) => Cow::Borrowed(if args.is_empty() { "" } else { "?" }),
            (SnippetVariable::Parameter(name), Some(args)) => {
                let pairs = args.split('&').filter_map(|pair| pair.split_once('='));
                let mut values = pairs.filter(|(known, _)| known.eq_ignore_ascii_case(name));
                Cow::Borrowed(values.next().map_or("", |(_, value)| value))
            }
            (variable, _) => self.values.value(variable),
        }
    }
}

impl PartValues for ChangedValues<'_> {
    fn part<'v>(&'v self, part: &'v TextPart) -> Cow<'v, str> {
        match part {
            TextPart::Literal(text) => Cow::Borrowed(text),
            TextPart::Request(variable) => self.variable(variable),
            TextPart::Set(name) => {
                let found = self.state.variables.iter().find(|(known, _)| known == name);
                Cow::Borrowed(found.map_or("", |(_, value)| value))
            }
            TextPart::Group(number) => {
                let group = number.checked_sub(1).and_then(|index| self.state.groups.get(index));
                Cow::Borrowed(group.map_or("", String::as_str))
            }
            // Only `OfResponse` has a response.
            TextPart::Response(_) => Cow::Borrowed(""),
        }
    }
}

/// The values for a text whose groups are encoded.
pub(super) struct EncodedGroups<'r> {
    pub(super) values: ChangedValues<'r>,
    pub(super) encode: fn(&str) -> String,
}

impl PartValues for EncodedGroups<'_> {
    fn part<'v>(&'v self, part: &'v TextPart) -> Cow<'v, str> {
        let value = self.values.part(part);
        match part {
            TextPart::Group(_) => Cow::Owned((self.encode)(&value)),
            TextPart::Literal(_) | TextPart::Request(_) | TextPart::Set(_) | TextPart::Response(_) => value,
        }
    }
}
