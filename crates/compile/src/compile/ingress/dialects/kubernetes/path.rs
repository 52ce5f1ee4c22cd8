//! Parses the paths of an Ingress of the dialect `kubernetes`.

use crate::compile::paths::literal_path::{CheckedPath, UnusablePath, pattern_note};
use crate::diagnostic::Diagnostic;
use crate::request_target::path_encoding::path_in_requests;
use crate::snapshot::router::PathMatch;

/// The match of one path.
#[derive(Debug)]
pub(super) struct ParsedPath {
    pub path: PathMatch,
    /// Why requests that match must not be forwarded.
    pub problem: Option<Diagnostic>,
    pub notes: Vec<Diagnostic>,
}

/// Parses a path. `field`: the entry of `http.paths`.
pub(super) fn parse(path: Option<&str>, kind: Option<&str>, field: &str) -> ParsedPath {
    let path = path.filter(|path| !path.is_empty()).unwrap_or("/");
    let path_field = format!("{field}.path");
    if !path.starts_with('/') {
        let text = path_in_requests(&format!("/{path}")).into_owned();
        let message = format!("{path:?} does not start with a slash, so requests below {text} get status 500");
        let problem = Diagnostic::error(path_field, message, format!("write /{path}"));
        return ParsedPath { path: prefix(&text), problem: Some(problem), notes: Vec::new() };
    }
    let is_prefix = matches!(kind, None | Some("Prefix" | "ImplementationSpecific"));
    let (text, mut problem, notes) = match CheckedPath::parse(path, &path_field) {
        CheckedPath::Usable(text, note) => {
            let remedy = "write the path without special characters: the dialect kubernetes has no regular expressions";
            let notes = note.into_iter().chain(pattern_note(path, &path_field, remedy)).collect();
            (text.into_owned(), None, notes)
        }
        CheckedPath::Unusable(UnusablePath { usable_part, is_pattern: true, problem }) => {
            return ParsedPath { path: prefix(&usable_part), problem: Some(problem), notes: Vec::new() };
        }
        CheckedPath::Unusable(UnusablePath { usable_part, is_pattern: false, problem }) => {
            (usable_part, Some(problem), Vec::new())
        }
    };
    if !is_prefix && kind != Some("Exact") {
        let kind = kind.unwrap_or_default();
        let message = format!("{kind} is not a supported path type, so requests below the path get status 500");
        let remedy = "use Exact, Prefix or ImplementationSpecific";
        problem = Some(Diagnostic::error(format!("{field}.pathType"), message, remedy));
    }
    let path = match kind {
        Some("Exact") => PathMatch::Exact(text.into()),
        _ => prefix(&text),
    };
    ParsedPath { path, problem, notes }
}

fn prefix(path: &str) -> PathMatch {
    PathMatch::Prefix(path.strip_suffix('/').unwrap_or(path).into())
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
            let parsed = parse(Some(path), Some(kind), "field");
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
        // Requests below the path must not reach the backend of a shorter path.
        for (path, kind, expected, field, message) in [
            ("foo", "Prefix", "PathPrefix /foo", "p.path", "\"foo\" does not start with a slash"),
            ("/a", "Glob", "PathPrefix /a", "p.pathType", "Glob is not a supported path type"),
            ("/a?b=c", "Prefix", "PathPrefix /a", "p.path", "\"/a?b=c\" has a query"),
            ("/a?b=c", "Exact", "Exact /a", "p.path", "\"/a?b=c\" has a query"),
            ("/a/#b", "ImplementationSpecific", "PathPrefix /a", "p.path", "\"/a/#b\" has a fragment"),
            ("/a/(b/.*)?", "Exact", "PathPrefix /a", "p.path", "\"/a/(b/.*)?\" looks like a regular"),
            ("/a%00", "Exact", "Exact /a", "p.path", "\"/a%00\" has a NUL"),
        ] {
            let parsed = parse(Some(path), Some(kind), "p");
            assert_eq!(parsed.path.to_string(), expected, "{path}");
            let problem = parsed.problem.expect(path);
            assert_eq!(problem.field, field, "{path}");
            assert!(problem.message.starts_with(message) && problem.message.contains("status 500"), "{problem}");
        }
        for (path, expected, notes) in [
            ("/a", "/a", 0),
            ("/a.b~c", "/a.b~c", 0),
            ("/~/a", "/~/a", 1),
            ("/a(/|$)(.*)", "/a(/|$)(.*)", 1),
            ("/a*", "/a*", 1),
            ("/a b", "/a%20b", 1),
            ("/caf\u{e9}", "/caf%C3%A9", 1),
            ("/x/../a", "/a", 1),
        ] {
            for (kind, expected) in [
                ("Exact", format!("Exact {expected}")),
                ("Prefix", format!("PathPrefix {expected}")),
                ("ImplementationSpecific", format!("PathPrefix {expected}")),
            ] {
                let parsed = parse(Some(path), Some(kind), "p");
                assert_eq!(
                    (parsed.path.to_string(), parsed.problem, parsed.notes.len()),
                    (expected, None, notes),
                    "{path}"
                );
            }
        }
    }
}
