//! The locations of one path of an Ingress.

use crate::compile::ingress::plan::LocationPrecedence;
use crate::snapshot::location_path::{LocationExpression, LocationPath, literal_part};
use crate::snapshot::regex::{RegexError, RegexLimit};

/// A path as the Ingress has it. An empty one is the root.
pub(super) fn written_path(path: Option<&str>) -> &str {
    path.filter(|path| !path.is_empty()).unwrap_or("/")
}

/// A path with what decides about its locations.
#[derive(Clone, Copy, Debug)]
pub(super) struct IngressPath<'a> {
    pub path: &'a str,
    /// Other paths are prefixes.
    pub is_exact: bool,
    /// Whether all paths of the host are expressions.
    pub has_expressions: bool,
    /// Whether the Ingress itself has made this path an expression, so that it is used as it is written.
    pub is_expression: bool,
    pub limit: RegexLimit,
}

/// The locations of a path, or why its expression cannot be used.
pub(super) type PathLocations = Result<Vec<(LocationPrecedence, LocationPath)>, RegexError>;

impl IngressPath<'_> {
    /// The locations that forward requests, and the one that redirects to the path with a slash at its end.
    pub(super) fn locations(self) -> PathLocations {
        use LocationPrecedence::{AddsSlash, OfPrefix, Written};
        let IngressPath { path, is_exact, has_expressions, is_expression, .. } = self;
        let with_slash = || if path.ends_with('/') { path.to_owned() } else { format!("{path}/") };
        if has_expressions {
            return if is_exact || is_expression || path == "/" {
                Ok(vec![(Written, self.expression(path)?)])
            } else {
                let longer = with_slash();
                match longer == path {
                    true => Ok(vec![(Written, self.expression(path)?)]),
                    false => Ok(vec![(OfPrefix, self.expression(&longer)?), (OfPrefix, self.expression(path)?)]),
                }
            };
        }
        let mut locations = match is_exact {
            true => vec![(Written, LocationPath::Exact(path.into()))],
            false if path.ends_with('/') => vec![(Written, LocationPath::Prefix(path.into()))],
            false => vec![(OfPrefix, LocationPath::Prefix(with_slash().into()))],
        };
        match path.strip_suffix('/') {
            None if !is_exact => locations.push((OfPrefix, LocationPath::Exact(path.into()))),
            Some(shorter) if !shorter.is_empty() => locations.push((AddsSlash, LocationPath::Exact(shorter.into()))),
            _ => {}
        }
        Ok(locations)
    }

    /// The location that responds with an error in place of an expression that cannot be used. If its literal start is
    /// not known, the location is for all paths if it is one of a guard, and there is none otherwise.
    pub(super) fn failing_location(self, is_guard: bool) -> Option<LocationPath> {
        let literal = Some(literal_part(self.path)).filter(|literal| !literal.is_empty()).unwrap_or("/");
        (literal.len() > 1 || is_guard).then(|| LocationPath::Expression {
            path: self.path.into(),
            written: self.path.into(),
            expression: LocationExpression::literal(literal),
        })
    }

    fn expression(self, path: &str) -> Result<LocationPath, RegexError> {
        let expression = LocationExpression::parse(path, self.limit)?;
        Ok(LocationPath::Expression { path: path.into(), written: self.path.into(), expression })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locations(path: &str, is_exact: bool, has_expressions: bool, is_expression: bool) -> Vec<String> {
        let limit = RegexLimit::MEMORY_ONLY;
        let path = IngressPath { path, is_exact, has_expressions, is_expression, limit };
        path.locations().unwrap().iter().map(|(precedence, path)| format!("{precedence:?} {path}")).collect()
    }

    #[test]
    fn paths_have_the_locations_of_nginx() {
        for (path, is_exact, expected) in [
            ("/", false, &["Written /"][..]),
            ("/", true, &["Written = /"]),
            ("/foo", false, &["OfPrefix /foo/", "OfPrefix = /foo"]),
            ("/foo", true, &["Written = /foo"]),
            ("/foo/", false, &["Written /foo/", "AddsSlash = /foo"]),
            ("/foo/", true, &["Written = /foo/", "AddsSlash = /foo"]),
        ] {
            assert_eq!(locations(path, is_exact, false, false), expected, "{path}");
        }
        for (path, is_exact, is_expression, expected) in [
            ("/", false, false, &["Written ~* ^/"][..]),
            ("/foo", false, false, &["OfPrefix ~* ^/foo/", "OfPrefix ~* ^/foo"]),
            ("/foo/", false, false, &["Written ~* ^/foo/"]),
            ("/foo", true, false, &["Written ~* ^/foo"]),
            ("/foo(/|$)(.*)", false, true, &["Written ~* ^/foo(/|$)(.*)"]),
        ] {
            assert_eq!(locations(path, is_exact, true, is_expression), expected, "{path}");
        }
    }

    #[test]
    fn expression_that_cannot_be_used_fails_below_its_literal_start() {
        let limit = RegexLimit::MEMORY_ONLY;
        for (path, expected) in [("/api/(", Some("~* ^/api/(")), ("/(?!v1", None), ("/a[z-a]", Some("~* ^/a[z-a]"))] {
            let path = IngressPath { path, is_exact: false, has_expressions: true, is_expression: true, limit };
            assert!(path.locations().is_err());
            assert_eq!(path.failing_location(false).map(|path| path.to_string()).as_deref(), expected);
            assert!(path.failing_location(true).is_some());
        }
    }
}
