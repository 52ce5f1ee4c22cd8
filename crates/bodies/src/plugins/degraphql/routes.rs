//! The paths of routes, as a tree of segments. A literal segment precedes a variable.

use std::collections::HashMap;

use http::Method;

use crate::plugin_formats::graphql::is_name;

/// A path such as `/users/:id`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RoutePattern(Vec<PatternSegment>);

#[derive(Debug, PartialEq, Eq)]
enum PatternSegment {
    Literal(Box<str>),
    Variable(Box<str>),
}

/// Parses the path of a route. The error continues a sentence about it.
pub(super) fn parse_uri(uri: &str) -> Result<RoutePattern, String> {
    let Some(path) = uri.strip_prefix('/') else { return Err("does not begin with a slash".to_owned()) };
    if path.contains(['?', '#', '\0']) || !path.is_ascii() || path.contains(char::is_whitespace) {
        return Err("is not the path of a request".to_owned());
    }
    let mut segments = Vec::new();
    for segment in path.split('/') {
        segments.push(match segment.strip_prefix(':') {
            None => PatternSegment::Literal(segment.into()),
            Some(name) => {
                if !is_name(name) {
                    return Err(format!("{segment:?} is not the name of a variable"));
                }
                let variable = PatternSegment::Variable(name.into());
                if segments.contains(&variable) {
                    return Err(format!("the variable {name} occurs twice"));
                }
                variable
            }
        });
        if segments.len() > MAX_SEGMENTS {
            return Err(format!("has more than {MAX_SEGMENTS} segments"));
        }
    }
    Ok(RoutePattern(segments))
}

impl RoutePattern {
    /// The names of the variables.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|segment| match segment {
            PatternSegment::Variable(name) => Some(&**name),
            PatternSegment::Literal(_) => None,
        })
    }

    /// The number of the segment with this variable.
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|segment| matches!(segment, PatternSegment::Variable(other) if **other == *name))
    }
}

/// The routes by their segments.
#[derive(Debug, Default)]
pub(super) struct RouteTable(RouteNode);

#[derive(Debug, Default)]
struct RouteNode {
    literals: HashMap<Box<str>, RouteNode>,
    variable: Option<Box<RouteNode>>,
    /// The routes that end here.
    routes: Vec<(Method, usize)>,
}

impl RouteTable {
    /// Adds a route. Returns false if there is one with the same path and method.
    pub(super) fn add(&mut self, pattern: &RoutePattern, method: &Method, route: usize) -> bool {
        let mut node = &mut self.0;
        for segment in &pattern.0 {
            node = match segment {
                PatternSegment::Literal(text) => node.literals.entry(text.clone()).or_default(),
                PatternSegment::Variable(_) => node.variable.get_or_insert_default(),
            };
        }
        let is_new = node.routes.iter().all(|(other, _)| other != method);
        if is_new {
            node.routes.push((method.clone(), route));
        }
        is_new
    }

    /// The route of a request, and the segments of its path.
    pub(super) fn find<'p>(&self, method: &Method, path: &'p str) -> Option<(usize, Vec<&'p str>)> {
        let segments: Vec<&str> = path.strip_prefix('/')?.split('/').take(MAX_SEGMENTS + 1).collect();
        Some((self.0.find(method, &segments)?, segments))
    }
}

impl RouteNode {
    /// Each node has one number of segments, so that it is visited at most once.
    fn find(&self, method: &Method, segments: &[&str]) -> Option<usize> {
        let Some((first, rest)) = segments.split_first() else {
            return self.routes.iter().find(|(own, _)| own == method).map(|(_, route)| *route);
        };
        let literal = self.literals.get(*first).and_then(|node| node.find(method, rest));
        literal.or_else(|| self.variable.as_ref().filter(|_| !first.is_empty())?.find(method, rest))
    }
}

/// The most segments of a path; also the most levels of the search.
const MAX_SEGMENTS: usize = 32;
