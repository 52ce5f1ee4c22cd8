//! Parses the paths of an Ingress of the dialect `kubernetes`.

use crate::diagnostic::Diagnostic;
use crate::snapshot::router::PathMatch;

/// The match of one path.
#[derive(Debug)]
pub(super) struct ParsedPath {
    pub path: PathMatch,
    /// Why requests that match must not be forwarded.
    pub problem: Option<Diagnostic>,
    pub note: Option<Diagnostic>,
}

/// Parses a path. An error if no request can match it. `field`: the entry of `http.paths`.
pub(super) fn parse(path: Option<&str>, kind: Option<&str>, field: &str) -> Result<ParsedPath, Diagnostic> {
    let path = path.filter(|path| !path.is_empty()).unwrap_or("/");
    if !path.starts_with('/') {
        let message = format!("{path:?} does not start with a slash, so no request matches it");
        return Err(Diagnostic::error(format!("{field}.path"), message, format!("write /{path}")));
    }
    let prefix = || PathMatch::Prefix(path.strip_suffix('/').unwrap_or(path).into());
    Ok(match kind {
        Some("Exact") => ParsedPath { path: PathMatch::Exact(path.into()), problem: None, note: None },
        Some("Prefix") => ParsedPath { path: prefix(), problem: None, note: None },
        None | Some("ImplementationSpecific") => {
            let note = looks_like_pattern(path).then(|| {
                let message = format!("{path} is not a regular expression in dialect kubernetes, but a literal prefix");
                Diagnostic::warning(format!("{field}.path"), message, "write the prefix without special characters")
            });
            ParsedPath { path: prefix(), problem: None, note }
        }
        Some(other) => {
            let message = format!("{other} is not a supported path type, so requests below the path get status 500");
            let remedy = "use Exact, Prefix or ImplementationSpecific";
            let problem = Diagnostic::error(format!("{field}.pathType"), message, remedy);
            ParsedPath { path: prefix(), problem: Some(problem), note: None }
        }
    })
}

/// Whether other controllers may treat the path as a regular expression.
fn looks_like_pattern(path: &str) -> bool {
    path.starts_with("/~") || path.contains(['\\', '(', '[', '*', '+', '?', '^', '$', '|'])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::{HeaderMap, Method};

    use super::*;
    use crate::snapshot::router::{HostRouter, RouteMatch, RoutingRequest, TieBreaker};
    use crate::snapshot::rule::{Action, Filters, RouteFailure, RouteRule, RuleId};

    /// The path that a request matches, of these paths and types. `None`: the default backend.
    fn matched<'p>(paths: &[(&'p str, &'p str)], request: &str) -> Option<(&'p str, &'p str)> {
        let matches = paths.iter().zip(0..).map(|((path, kind), index)| {
            let id = RuleId { route: "Ingress/a/b".into(), rule: index.to_string().into() };
            let action = Action::Fail(RouteFailure::NoService);
            let rule = RouteRule { id, filters: Filters::default(), plugins: None, action, options: None };
            let parsed = parse(Some(path), Some(kind), "field").unwrap();
            assert!(parsed.problem.is_none());
            RouteMatch {
                path: parsed.path,
                method: None,
                headers: Vec::new(),
                query: Vec::new(),
                call: None,
                server_names: Arc::default(),
                tie_breaker: TieBreaker { created: None, route: "a/b".into(), rule: 0, index },
                rule: Arc::new(rule),
            }
        });
        let router = HostRouter::build(matches.collect());
        let headers = HeaderMap::new();
        let request = RoutingRequest::plaintext(request, None, &Method::GET, &headers);
        router.find(&request).map(|matched| paths[matched.rule.id.rule.parse::<usize>().unwrap()])
    }

    /// The table of examples in the documentation of Ingress, "Path types", row by row.
    #[test]
    fn paths_match_as_in_the_table_of_the_specification() {
        type Row = (&'static [(&'static str, &'static str)], &'static [&'static str], Option<usize>);
        let rows: &[Row] = &[
            (&[("/", "Prefix")], &["/", "/a", "/a/b/", "//"], Some(0)),
            (&[("/foo", "Exact")], &["/foo"], Some(0)),
            (&[("/foo", "Exact")], &["/bar"], None),
            (&[("/foo", "Exact")], &["/foo/"], None),
            (&[("/foo/", "Exact")], &["/foo"], None),
            (&[("/foo", "Prefix")], &["/foo", "/foo/"], Some(0)),
            (&[("/foo/", "Prefix")], &["/foo", "/foo/"], Some(0)),
            (&[("/aaa/bb", "Prefix")], &["/aaa/bbb"], None),
            (&[("/aaa/bbb", "Prefix")], &["/aaa/bbb"], Some(0)),
            (&[("/aaa/bbb/", "Prefix")], &["/aaa/bbb"], Some(0)),
            (&[("/aaa/bbb", "Prefix")], &["/aaa/bbb/"], Some(0)),
            (&[("/aaa/bbb", "Prefix")], &["/aaa/bbb/ccc"], Some(0)),
            (&[("/aaa/bbb", "Prefix")], &["/aaa/bbbxyz"], None),
            (&[("/", "Prefix"), ("/aaa", "Prefix")], &["/aaa/ccc"], Some(1)),
            (&[("/", "Prefix"), ("/aaa", "Prefix"), ("/aaa/bbb", "Prefix")], &["/aaa/bbb"], Some(2)),
            (&[("/", "Prefix"), ("/aaa", "Prefix"), ("/aaa/bbb", "Prefix")], &["/ccc"], Some(0)),
            (&[("/aaa", "Prefix")], &["/ccc"], None),
            (&[("/foo", "Prefix"), ("/foo", "Exact")], &["/foo"], Some(1)),
            // Not in the table: for ImplementationSpecific, Portico uses the semantics of Prefix.
            (&[("/foo", "ImplementationSpecific")], &["/foo", "/foo/", "/foo/a"], Some(0)),
            (&[("/foo", "ImplementationSpecific")], &["/foobar", "/FOO"], None),
            (&[("", "ImplementationSpecific")], &["/", "/a"], Some(0)),
        ];
        for (paths, requests, expected) in rows {
            for request in *requests {
                assert_eq!(matched(paths, request), expected.map(|index| paths[index]), "{request} among {paths:?}");
            }
        }
    }

    #[test]
    fn invalid_paths_and_types_are_reported() {
        let relative = parse(Some("foo"), Some("Prefix"), "p").unwrap_err();
        assert_eq!(
            relative.to_string(),
            "p.path: \"foo\" does not start with a slash, so no request matches it; write /foo"
        );
        // Requests below the path must not reach the backend of a shorter path.
        let unknown = parse(Some("/a"), Some("Glob"), "p").unwrap();
        assert_eq!(unknown.path, PathMatch::Prefix("/a".into()));
        assert!(unknown.problem.is_some_and(|problem| problem.field == "p.pathType"));
        for (path, has_note) in [("/a", false), ("/a.b~c", false), ("/~/a", true), ("/a(/|$)(.*)", true), ("/a*", true)]
        {
            let parsed = parse(Some(path), Some("ImplementationSpecific"), "p").unwrap();
            assert_eq!(parsed.note.is_some(), has_note, "{path}");
            assert!(parse(Some(path), Some("Prefix"), "p").unwrap().note.is_none(), "{path}");
        }
    }
}
