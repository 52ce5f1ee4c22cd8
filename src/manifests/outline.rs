//! Where each field of a document stands: a tree of keys and positions, built only when a message needs one.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use super::place::Spot;

/// Lines and columns count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark {
    pub(super) line: u32,
    pub(super) column: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Scalar,
    Sequence,
    Mapping,
    Alias,
}

/// What the caret stands under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aim {
    /// The value, when it is written on one line.
    Value,
    /// The key, because it is the key that should not be there.
    Key,
}

/// A document as a tree in one vector, in the order of the text: a node's children follow it.
#[derive(Debug, Default)]
pub(super) struct Outline<'a> {
    nodes: Vec<Node<'a>>,
    /// Nodes that are not closed yet, with the key that waits for its value.
    open: Vec<(usize, Option<Key<'a>>)>,
}

#[derive(Debug)]
struct Node<'a> {
    key: Option<Key<'a>>,
    shape: Shape,
    start: Mark,
    /// Of a collection: where its last scalar ends.
    end: Mark,
    /// The text of a scalar that may matter: values of `kind` and `name`.
    text: Cow<'a, str>,
    /// Index of the first node that is not below this one.
    next: usize,
}

#[derive(Clone, Debug)]
struct Key<'a> {
    text: Cow<'a, str>,
    start: Mark,
    end: Mark,
}

impl<'a> Outline<'a> {
    pub(super) fn open(&mut self, shape: Shape, start: Mark) {
        // A collection as a key has no path; its node stands for the value that follows.
        let key = self.take_key();
        self.nodes.push(Node { key, shape, start, end: start, text: Cow::Borrowed(""), next: 0 });
        self.open.push((self.nodes.len() - 1, None));
    }

    pub(super) fn close(&mut self) {
        if let Some((index, _)) = self.open.pop() {
            let next = self.nodes.len();
            // The last node in the text is the last scalar below this one, or this one itself if it is empty.
            let end = self.nodes.last().map_or_else(Mark::default, |last| last.end);
            self.nodes[index].next = next;
            self.nodes[index].end = end;
        }
    }

    pub(super) fn scalar(&mut self, text: Cow<'a, str>, start: Mark, end: Mark) {
        if let Some((index, waiting @ None)) = self.open.last_mut()
            && self.nodes[*index].shape == Shape::Mapping
        {
            *waiting = Some(Key { text, start, end });
            return;
        }
        self.leaf(Shape::Scalar, text, start, end);
    }

    pub(super) fn alias(&mut self, start: Mark, end: Mark) {
        self.leaf(Shape::Alias, Cow::Borrowed(""), start, end);
    }

    /// Where `field` stands below the object at `trail`, or else the nearest enclosing field that is written out. The
    /// object itself is where its name is, or where it begins.
    pub(super) fn spot(&self, trail: &[u32], field: &str, aim: Aim) -> Spot {
        let Some(object) = self.object(trail) else { return Spot { line: 1, column: 1, width: 1 } };
        if field.is_empty() || field == "." {
            let (node, rest) = self.descend(object, "metadata.name");
            return if rest.is_empty() { self.value(node) } else { self.key(object) };
        }
        let (node, rest) = self.descend(object, field);
        match aim {
            Aim::Value if rest.is_empty() => self.value(node),
            Aim::Value | Aim::Key => self.key(node),
        }
    }

    /// The lines that show any part of a Secret, or of what may hold one in other objects, whose text must not be repeated in
    /// a message.
    pub(super) fn secrets(&self) -> Vec<RangeInclusive<u32>> {
        let mappings = self.nodes.iter().enumerate().filter(|(_, node)| node.shape == Shape::Mapping);
        let secret = mappings.filter_map(|(index, _)| {
            let has = |name| self.member(index, name).is_some();
            let kind = &*self.nodes[self.member(index, "kind")?].text;
            // A reference to a Secret has a kind too, but no metadata.
            if kind == "Secret" && (has("data") || has("stringData") || has("metadata")) {
                return Some(index);
            }
            let (_, path) = HOLDERS.iter().find(|(holder, _)| *holder == kind)?;
            let (node, rest) = self.descend(index, path);
            rest.is_empty().then_some(node)
        });
        let lines = |index: usize| {
            let node = &self.nodes[index];
            let start = node.key.as_ref().map_or(node.start, |key| key.start);
            start.line..=node.end.line
        };
        secret.map(lines).collect()
    }

    fn object(&self, trail: &[u32]) -> Option<usize> {
        let mut node = 0;
        for index in trail {
            node = self.member(node, "items")?;
            node = self.children(node).nth(*index as usize)?;
        }
        (node < self.nodes.len()).then_some(node)
    }

    /// Follows a path as far as it is written out; what is left of it is not.
    fn descend<'p>(&self, mut node: usize, path: &'p str) -> (usize, &'p str) {
        let mut rest = path;
        while !rest.is_empty() {
            let Some((child, after)) = self.step(node, rest) else { break };
            (node, rest) = (child, after);
        }
        (node, rest)
    }

    /// One segment: `name`, `.name`, `[3]`, `["any key"]` or `[any key]`. Keys may contain dots (`portico.dev/address`),
    /// so the longest key that fits is taken.
    fn step<'p>(&self, node: usize, path: &'p str) -> Option<(usize, &'p str)> {
        if let Some(bracket) = path.strip_prefix('[') {
            let (inside, rest) = bracket.split_once(']')?;
            if self.nodes[node].shape == Shape::Sequence {
                return Some((self.children(node).nth(inside.parse().ok()?)?, rest));
            }
            return Some((self.member(node, inside.trim_matches(['"', '\'']))?, rest));
        }
        let path = path.strip_prefix('.').unwrap_or(path);
        if self.nodes[node].shape == Shape::Sequence {
            let (index, rest) = path.split_at(path.find(['.', '[']).unwrap_or(path.len()));
            return Some((self.children(node).nth(index.parse().ok()?)?, rest));
        }
        self.children(node)
            .filter_map(|child| {
                let rest = path.strip_prefix(self.nodes[child].key.as_ref()?.text.as_ref())?;
                (rest.is_empty() || rest.starts_with(['.', '['])).then_some((child, rest))
            })
            .min_by_key(|(_, rest)| rest.len())
    }

    fn member(&self, node: usize, name: &str) -> Option<usize> {
        self.children(node).find(|child| self.nodes[*child].key.as_ref().is_some_and(|key| key.text == name))
    }

    fn children(&self, node: usize) -> impl Iterator<Item = usize> {
        let end = self.nodes.get(node).map_or(0, |node| node.next);
        let mut child = node + 1;
        std::iter::from_fn(move || {
            let this = child;
            (this < end).then(|| {
                child = self.nodes[this].next;
                this
            })
        })
    }

    /// A value on one line is pointed at itself; anything longer by its key.
    fn value(&self, index: usize) -> Spot {
        let node = &self.nodes[index];
        match node.shape {
            Shape::Scalar | Shape::Alias if node.start.line == node.end.line && node.end.column > node.start.column => {
                between(node.start, node.end)
            }
            _ => self.key(index),
        }
    }

    /// The key of a field. An item of a list has none: its first key, or its beginning.
    fn key(&self, index: usize) -> Spot {
        let node = &self.nodes[index];
        let first = self.children(index).next().filter(|_| node.shape == Shape::Mapping);
        match (&node.key, first.and_then(|child| self.nodes[child].key.as_ref())) {
            (Some(key), _) => between(key.start, key.end),
            (None, Some(key)) => between(key.start, key.end),
            (None, None) if node.start.line == node.end.line => between(node.start, node.end),
            (None, None) => Spot { line: node.start.line, column: node.start.column, width: 1 },
        }
    }

    fn leaf(&mut self, shape: Shape, text: Cow<'a, str>, start: Mark, end: Mark) {
        let key = self.take_key();
        let next = self.nodes.len() + 1;
        self.nodes.push(Node { key, shape, start, end, text, next });
    }

    fn take_key(&mut self) -> Option<Key<'a>> {
        self.open.last_mut().and_then(|(_, waiting)| waiting.take())
    }
}

/// Fields of Kong's kinds in which passwords, tokens and keys may stand, under names that only a plugin or a vault knows.
pub(super) const HOLDERS: &[(&str, &str)] = &[
    ("KongClusterPlugin", "config"),
    ("KongCustomEntity", "spec.fields"),
    ("KongLicense", "rawLicenseString"),
    ("KongPlugin", "config"),
    ("KongVault", "spec.config"),
];

fn between(start: Mark, end: Mark) -> Spot {
    let width = if start.line == end.line { end.column.saturating_sub(start.column).max(1) } else { 1 };
    Spot { line: start.line, column: start.column, width }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifests::yaml;

    const ROUTE: &str = "\
kind: HTTPRoute
metadata:
  name: web
  annotations:
    portico.dev: x
    portico.dev/address: 127.0.0.1
spec:
  rules:
  - matches:
    - path: {type: Exact, value: \"/a b\"}
    backendRefs: []
  -
    name: second
  text: |
    many
    lines
  other: &o 1
  again: *o
";

    #[test]
    fn a_field_is_found_where_it_is_written_or_where_it_would_be() {
        let outline = yaml::outline(ROUTE).expect("it is YAML");
        for (field, aim, line, column, width) in [
            ("", Aim::Value, 3, 9, 3),
            ("metadata.name", Aim::Value, 3, 9, 3),
            ("metadata.name", Aim::Key, 3, 3, 4),
            ("metadata.annotations.portico.dev/address", Aim::Value, 6, 26, 9),
            ("metadata.annotations[portico.dev/address]", Aim::Value, 6, 26, 9),
            ("metadata.annotations[\"portico.dev\"]", Aim::Value, 5, 18, 1),
            ("metadata.labels.app", Aim::Value, 2, 1, 8),
            ("spec.rules[0].matches[0].path.value", Aim::Value, 10, 34, 6),
            ("spec.rules[0].matches[0].path.nope", Aim::Value, 10, 7, 4),
            ("spec.rules[0].matches[0].method", Aim::Value, 10, 7, 4),
            ("spec.rules[0].backendRefs", Aim::Value, 11, 5, 11),
            ("spec.rules[0].backendRefs[3].name", Aim::Value, 11, 5, 11),
            ("spec.rules[1].name", Aim::Value, 13, 11, 6),
            ("spec.rules[1].filters", Aim::Value, 13, 5, 4),
            ("spec.rules[7]", Aim::Value, 8, 3, 5),
            ("spec.text", Aim::Value, 14, 3, 4),
            ("spec.again", Aim::Value, 18, 10, 2),
            ("spec.again.deeper", Aim::Value, 18, 3, 5),
            ("status", Aim::Value, 1, 1, 4),
            ("[[[", Aim::Value, 1, 1, 4),
        ] {
            assert_eq!(outline.spot(&[], field, aim), Spot { line, column, width }, "{field}");
        }
    }

    #[test]
    fn items_of_lists_are_objects() {
        let text = "kind: List\nitems:\n- metadata:\n    name: a\n- kind: List\n  items:\n  - kind: X\n";
        let outline = yaml::outline(text).expect("it is YAML");
        for (trail, field, line, column) in [
            (&[0][..], "metadata.name", 4, 11),
            (&[0], "spec", 3, 3),
            (&[1], "", 5, 3),
            (&[1, 0], "", 7, 5),
            (&[1, 0], "kind", 7, 11),
            (&[9], "kind", 1, 1),
        ] {
            let spot = outline.spot(trail, field, Aim::Value);
            assert_eq!((spot.line, spot.column), (line, column), "{trail:?} {field}");
        }
    }

    #[test]
    fn lines_of_secrets_are_known() {
        let text = "\
items:
- kind: Secret
  stringData:
    a: |
      hidden
- kind: Gateway
  spec:
    certificateRefs:
    - kind: Secret
      name: shown
";
        let outline = yaml::outline(text).expect("it is YAML");
        assert_eq!(outline.secrets(), [2..=6]);
        let json = yaml::outline(r#"{"items":[{"kind":"Secret","data":{"a":"aGk="}},{"kind":"X"}]}"#);
        assert_eq!(json.expect("it is YAML").secrets(), [1..=1]);
        assert!(yaml::outline("a: [").is_none());
        let plugin = "kind: KongPlugin\nmetadata:\n  name: a\nplugin: b\nconfig:\n  redis:\n    password: hidden\n";
        assert_eq!(yaml::outline(plugin).expect("it is YAML").secrets(), [5..=7]);
        let vault = "kind: KongVault\nspec:\n  backend: hcv\n  config: {token: hidden}\n";
        assert_eq!(yaml::outline(vault).expect("it is YAML").secrets(), [4..=4]);
    }
}
