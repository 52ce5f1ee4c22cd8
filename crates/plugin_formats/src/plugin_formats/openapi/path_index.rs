//! Finds the paths of a document that a request path matches: concrete segments take precedence over templates
//! (`OpenAPI` 3.1, section 4.8.8.2).

use std::collections::HashMap;

use crate::diagnostic::Diagnostic;

/// An index of paths with templates.
#[derive(Debug)]
pub struct ApiPathIndex {
    nodes: Vec<TemplateNode>,
}

#[derive(Debug, Default)]
struct TemplateNode {
    literals: HashMap<Box<str>, usize>,
    /// Segments with text and parameters, those with more text first.
    mixed: Vec<(SegmentPattern, usize)>,
    parameter: Option<usize>,
    /// The numbers of the paths that end here.
    paths: Vec<usize>,
}

/// A path that matches, with the values of its parameters in order, as the client sent them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiPathMatch<'p> {
    pub path: usize,
    pub values: Vec<&'p str>,
}

/// The most paths that one request is compared with, of those that differ only in names of parameters.
pub const MAX_CANDIDATES: usize = 16;

impl ApiPathIndex {
    /// An index of paths such as `/pets/{id}`. Also returns the names of the parameters of each path.
    pub fn build(field: &str, paths: &[String]) -> Result<(ApiPathIndex, Vec<Vec<String>>), Diagnostic> {
        let mut index = ApiPathIndex { nodes: vec![TemplateNode::default()] };
        let mut names = Vec::with_capacity(paths.len());
        for (number, path) in paths.iter().enumerate() {
            let error = |message: &str| {
                let remedy = "write parameters as {name}, each once, with text or a slash between two of them";
                Diagnostic::in_config(field, format!("the path {path} {message}"), remedy)
            };
            let mut own_names = Vec::new();
            let mut node = 0;
            for segment in path.split('/').skip(1) {
                let pattern = SegmentPattern::parse(segment, &mut own_names).map_err(error)?;
                node = index.child(node, pattern);
            }
            let mut sorted = own_names.clone();
            sorted.sort();
            sorted.dedup();
            if sorted.len() < own_names.len() {
                return Err(error("has two parameters with the same name"));
            }
            if index.nodes[node].paths.len() == MAX_CANDIDATES {
                return Err(error(&format!("is one of more than {MAX_CANDIDATES} that match the same requests")));
            }
            index.nodes[node].paths.push(number);
            names.push(own_names);
        }
        Ok((index, names))
    }

    fn child(&mut self, node: usize, pattern: SegmentPattern) -> usize {
        let new = self.nodes.len();
        let owner = &mut self.nodes[node];
        let found = match pattern.literals.as_slice() {
            [literal] => *owner.literals.entry(literal.as_str().into()).or_insert(new),
            [before, after] if before.is_empty() && after.is_empty() => *owner.parameter.get_or_insert(new),
            _ => match owner.mixed.iter().find(|(known, _)| *known == pattern) {
                Some((_, node)) => *node,
                None => {
                    let length = |pattern: &SegmentPattern| pattern.literals.iter().map(String::len).sum::<usize>();
                    let position = owner.mixed.partition_point(|(known, _)| length(known) >= length(&pattern));
                    owner.mixed.insert(position, (pattern, new));
                    new
                }
            },
        };
        if found == new {
            self.nodes.push(TemplateNode::default());
        }
        found
    }

    /// The paths that match, from the most specific on, without those that only differ in later segments of less
    /// specific ones. Each node of the index is visited at most once.
    pub fn find<'p>(&self, path: &'p str) -> Vec<ApiPathMatch<'p>> {
        let segments: Vec<&str> = path.split('/').skip(1).take(MAX_SEGMENTS + 1).collect();
        if !path.starts_with('/') || segments.len() > MAX_SEGMENTS {
            return Vec::new();
        }
        let mut values = Vec::new();
        let Some(node) = self.descend(0, &segments, &mut values) else { return Vec::new() };
        self.nodes[node].paths.iter().map(|path| ApiPathMatch { path: *path, values: values.clone() }).collect()
    }

    fn descend<'p>(&self, node: usize, segments: &[&'p str], values: &mut Vec<&'p str>) -> Option<usize> {
        let node_index = node;
        let node = &self.nodes[node];
        let Some((segment, rest)) = segments.split_first() else {
            return (!node.paths.is_empty()).then_some(node_index);
        };
        if let Some(child) = node.literals.get(*segment)
            && let Some(found) = self.descend(*child, rest, values)
        {
            return Some(found);
        }
        let kept = values.len();
        for (pattern, child) in &node.mixed {
            if pattern.matches(segment, values)
                && let Some(found) = self.descend(*child, rest, values)
            {
                return Some(found);
            }
            values.truncate(kept);
        }
        let child = node.parameter.filter(|_| !segment.is_empty())?;
        values.push(segment);
        let found = self.descend(child, rest, values);
        if found.is_none() {
            values.truncate(kept);
        }
        found
    }
}

/// The most segments of a path: the search goes one level deeper for each.
const MAX_SEGMENTS: usize = 64;

/// The texts around the parameters of a segment: one more than parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct SegmentPattern {
    literals: Vec<String>,
}

impl SegmentPattern {
    fn parse(segment: &str, names: &mut Vec<String>) -> Result<SegmentPattern, &'static str> {
        let mut literals = vec![String::new()];
        let mut rest = segment;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or("has an opening brace without a closing one")?;
            if name.is_empty() || name.contains('{') {
                return Err("has a parameter without a name");
            }
            if literals.len() > 1 && before.is_empty() {
                return Err("has two parameters without a text between them");
            }
            literals.last_mut().expect("the list begins with one text").push_str(before);
            names.push(name.to_owned());
            literals.push(String::new());
            rest = after;
        }
        if rest.contains('}') || literals[0].contains('}') {
            return Err("has a closing brace without an opening one");
        }
        literals.last_mut().expect("the list begins with one text").push_str(rest);
        Ok(SegmentPattern { literals })
    }

    /// Adds the values of the parameters, of which none is empty.
    fn matches<'p>(&self, segment: &'p str, values: &mut Vec<&'p str>) -> bool {
        let [first, middle @ .., last] = self.literals.as_slice() else { return false };
        let Some(mut rest) = segment.strip_prefix(first.as_str()).and_then(|rest| rest.strip_suffix(last.as_str()))
        else {
            return false;
        };
        for literal in middle {
            let Some(position) =
                rest.char_indices().skip(1).map(|(at, _)| at).find(|at| rest[*at..].starts_with(literal.as_str()))
            else {
                return false;
            };
            values.push(&rest[..position]);
            rest = &rest[position + literal.len()..];
        }
        values.push(rest);
        !rest.is_empty()
    }
}
