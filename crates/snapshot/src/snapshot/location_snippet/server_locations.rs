//! The locations of a server's snippet, among those of the Ingresses of its host.

use std::sync::Arc;

use super::run::SnippetFailure;
use super::snippet::{LocationModifier, Snippet, SnippetLocation};
use crate::snapshot::regex_steps::{RegexInput, RegexSteps};

/// How a request has found the location of an Ingress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MatchedLocation {
    Exact,
    /// By a prefix that ends with a slash, or is followed by one: the path without that one is an exact path.
    Prefix(Box<str>),
    Expression,
}

impl MatchedLocation {
    /// The length of the prefix; `None` for an exact path.
    fn prefix_length(&self, path: &str) -> Option<usize> {
        match self {
            MatchedLocation::Exact => None,
            MatchedLocation::Prefix(prefix) if prefix.ends_with('/') => Some(prefix.len()),
            MatchedLocation::Prefix(prefix) => (**prefix != *path).then_some(prefix.len() + 1),
            MatchedLocation::Expression => Some(0),
        }
    }
}

impl Snippet {
    /// The snippet of the location that nginx would select in place of that of the Ingress. `path`: decoded.
    ///
    /// # Errors
    ///
    /// If the expressions take too many steps.
    pub(crate) fn location_of(
        &self,
        path: &str,
        matched: &MatchedLocation,
        steps: &RegexSteps,
    ) -> Result<Option<&Arc<Snippet>>, SnippetFailure> {
        let of_kind = |modifier| self.locations.iter().filter(move |location| location.modifier == modifier);
        let length = matched.prefix_length(path);
        // nginx accepts no second location with the same path. Here, one that restricts requests has precedence.
        if let Some(location) = of_kind(LocationModifier::Exact).find(|location| *location.path == *path)
            && (length.is_some() || location.snippet.restricts())
        {
            return Ok(Some(&location.snippet));
        }
        let Some(length) = length else { return Ok(None) };
        let prefixes = of_kind(LocationModifier::Prefix).chain(of_kind(LocationModifier::PrefixBeforeExpressions));
        let longest = prefixes
            .filter(|location| path.starts_with(&*location.path))
            .filter(|location| {
                let own_length = location.path.len();
                own_length > length || own_length == length && location.snippet.restricts()
            })
            .max_by_key(|location| location.path.len());
        if let Some(location) =
            longest.filter(|location| location.modifier == LocationModifier::PrefixBeforeExpressions)
        {
            return Ok(Some(&location.snippet));
        }
        for location in &self.locations {
            if location.matches(path, steps)? {
                return Ok(Some(&location.snippet));
            }
        }
        // An expression of an Ingress precedes prefixes.
        let longest = longest.filter(|_| *matched != MatchedLocation::Expression);
        Ok(longest.map(|location| &location.snippet))
    }
}

impl SnippetLocation {
    /// Whether its expression, if it has one, matches.
    fn matches(&self, path: &str, steps: &RegexSteps) -> Result<bool, SnippetFailure> {
        let Some(regex) = &self.regex else { return Ok(false) };
        let is_match = regex.is_match(path, steps, RegexInput::Target);
        is_match.map_err(|_| SnippetFailure::TooManySteps(RegexInput::Target))
    }
}

#[cfg(test)]
mod tests {
    use super::super::SnippetPlace;
    use super::*;
    use crate::snapshot::regex::RegexLimit;

    const LOCATIONS: &str = "
        location = /status { return 200; }
        location /metrics { deny all; }
        location /metrics/public { allow all; }
        location ^~ /static/ { return 404; }
        location = /health { deny all; }
        location ~ \\.php$ { return 403; }
        location ~* ^/ADMIN$ { return 401; }
    ";

    /// The line of the location that is selected.
    fn line(path: &str, matched: &MatchedLocation) -> Option<usize> {
        let snippet = Snippet::parse(LOCATIONS, SnippetPlace::Server, RegexLimit::MEMORY_ONLY).unwrap();
        let selected = snippet.location_of(path, matched, &RegexSteps::default()).unwrap()?;
        let line = snippet.locations.iter().find(|location| Arc::ptr_eq(&location.snippet, selected));
        line.map(|location| location.line)
    }

    #[test]
    fn the_order_is_that_of_nginx() {
        let prefix = |text: &str| MatchedLocation::Prefix(text.into());
        for (path, matched, expected) in [
            ("/status", prefix("/"), Some(2)),
            ("/status", MatchedLocation::Expression, Some(2)),
            ("/status", MatchedLocation::Exact, None),
            ("/status", prefix("/status"), None),
            ("/metrics", prefix("/"), Some(3)),
            ("/metricsx", prefix("/"), Some(3)),
            ("/metrics/a", prefix("/metrics"), None),
            ("/metrics/public/a", prefix("/metrics"), Some(4)),
            ("/metrics", MatchedLocation::Expression, None),
            ("/static/a.php", prefix("/"), Some(5)),
            ("/static/a.php", MatchedLocation::Expression, Some(5)),
            ("/static/a.php", prefix("/static/a"), Some(7)),
            ("/a.php", prefix("/a.php"), None),
            ("/b/a.php", prefix("/b"), Some(7)),
            ("/a.PHP", prefix("/"), None),
            ("/admin", MatchedLocation::Expression, Some(8)),
            ("/admin\n", prefix("/"), Some(8)),
            ("/health", MatchedLocation::Exact, Some(6)),
            ("/metrics/a", prefix("/metrics/"), None),
            ("/static/a", prefix("/static"), Some(5)),
            ("/", prefix("/"), None),
        ] {
            assert_eq!(line(path, &matched), expected, "{path:?} {matched:?}");
        }
    }

    #[test]
    fn expressions_pay_with_steps() {
        let snippet = Snippet::parse(LOCATIONS, SnippetPlace::Server, RegexLimit::MEMORY_ONLY).unwrap();
        let found = snippet.location_of("/a", &MatchedLocation::Expression, &RegexSteps::new(1));
        assert_eq!(found.unwrap_err(), SnippetFailure::TooManySteps(RegexInput::Target));
    }
}
