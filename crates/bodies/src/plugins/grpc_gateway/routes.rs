//! Finds the rule of a request: a tree of the segments of all templates. Literals precede `*`, and that precedes `**`.

use std::collections::HashMap;

use http::Method;
use smallvec::SmallVec;

use super::template::{PathTemplate, Segment};

/// Rules by method and path. Each is a number.
#[derive(Debug, Default)]
pub(super) struct TemplateRoutes(SegmentNode);

#[derive(Debug, Default)]
struct SegmentNode {
    literals: HashMap<String, SegmentNode>,
    any: Option<Box<SegmentNode>>,
    /// The rules whose templates end here.
    ends: Vec<End>,
    /// The rules whose templates end with `**` after this.
    rests: Vec<End>,
}

#[derive(Debug)]
struct End {
    /// `None` matches every method.
    method: Option<Method>,
    verb: Option<String>,
    rule: usize,
}

/// The segments of a path, as they are in the target.
pub(super) type Segments<'p> = SmallVec<[&'p str; 16]>;

impl TemplateRoutes {
    /// Adds a rule. Returns the one that has the same method and paths, if there is one.
    pub(super) fn insert(&mut self, method: Option<Method>, template: &PathTemplate, rule: usize) -> Option<usize> {
        let mut node = &mut self.0;
        for segment in &template.segments {
            node = match segment {
                Segment::Literal(text) => node.literals.entry(text.clone()).or_default(),
                Segment::Any => &mut **node.any.get_or_insert_default(),
            };
        }
        let ends = if template.has_rest { &mut node.rests } else { &mut node.ends };
        let same = ends.iter().find(|end| end.method == method && end.verb == template.verb).map(|end| end.rule);
        if same.is_none() {
            ends.push(End { method, verb: template.verb.clone(), rule });
        }
        same
    }

    /// The rule of a request, and the segments of its path without the verb.
    pub(super) fn find<'p>(&self, method: &Method, path: &'p str) -> Option<(usize, Segments<'p>)> {
        let mut segments: Segments<'p> = path.strip_prefix('/')?.split('/').collect();
        let last = *segments.last()?;
        // A template with the verb is more specific than one whose segment contains it.
        if let Some((before, verb)) = last.rsplit_once(':') {
            *segments.last_mut()? = before;
            if let Some(rule) = self.0.find(&segments, method, Some(verb)) {
                return Some((rule, segments));
            }
            *segments.last_mut()? = last;
        }
        let rule = self.0.find(&segments, method, None)?;
        Some((rule, segments))
    }
}

impl SegmentNode {
    /// Each node is visited at most once, since its depth is that of the segment.
    fn find(&self, segments: &[&str], method: &Method, verb: Option<&str>) -> Option<usize> {
        let found = match segments.split_first() {
            None => rule_of(&self.ends, method, verb),
            Some((first, rest)) => {
                let literal = self.literals.get(*first).and_then(|node| node.find(rest, method, verb));
                literal.or_else(|| self.any.as_ref().filter(|_| !first.is_empty())?.find(rest, method, verb))
            }
        };
        found.or_else(|| rule_of(&self.rests, method, verb))
    }
}

fn rule_of(ends: &[End], method: &Method, verb: Option<&str>) -> Option<usize> {
    let of_method = |wanted: Option<&Method>| {
        ends.iter().find(|end| end.method.as_ref() == wanted && end.verb.as_deref() == verb).map(|end| end.rule)
    };
    of_method(Some(method)).or_else(|| of_method(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_rule_is_found() {
        let mut routes = TemplateRoutes::default();
        let templates = [
            ("GET", "/v1/a"),
            ("GET", "/v1/*"),
            ("GET", "/v1/**"),
            ("POST", "/v1/*"),
            ("GET", "/v1/*:run"),
            ("*", "/v2/*/b"),
            ("GET", "/v2/a/c"),
            ("GET", "/v3/**:run"),
        ];
        for (rule, (method, template)) in templates.iter().enumerate() {
            let method = (*method != "*").then(|| method.parse().unwrap());
            assert_eq!(routes.insert(method, &PathTemplate::parse(template).unwrap(), rule), None);
        }
        assert_eq!(routes.insert(Some(Method::GET), &PathTemplate::parse("/v1/{x}").unwrap(), 9), Some(1));
        for (method, path, expected) in [
            ("GET", "/v1/a", Some(0)),
            ("GET", "/v1/b", Some(1)),
            ("GET", "/v1/", Some(2)),
            ("GET", "/v1", Some(2)),
            ("GET", "/v1/a/b/c", Some(2)),
            ("POST", "/v1/a", Some(3)),
            ("GET", "/v1/a:run", Some(4)),
            ("GET", "/v1/a:walk", Some(1)),
            ("PUT", "/v1/a", None),
            ("PUT", "/v2/a/b", Some(5)),
            ("GET", "/v2/a/c", Some(6)),
            ("GET", "/v2/a/d", None),
            ("GET", "/v3/a/b:run", Some(7)),
            ("GET", "/v3/a/b", None),
            ("GET", "/", None),
            ("GET", "", None),
            ("GET", "*", None),
        ] {
            let found = routes.find(&method.parse().unwrap(), path).map(|(rule, _)| rule);
            assert_eq!(found, expected, "{method} {path}");
        }
        assert_eq!(routes.find(&Method::GET, "/v1/a:run").unwrap().1.as_slice(), ["v1", "a"]);
    }
}
