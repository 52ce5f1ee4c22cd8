//! Positions of the fields of a document: a tree of keys, built only when a diagnostic needs a position.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use super::position::TextSpan;
use crate::diagnostic::Reason;

/// A position in a document. Lines and columns count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TextPosition {
    pub(super) line: u32,
    pub(super) column: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum YamlShape {
    Scalar,
    Sequence,
    Mapping,
    Alias,
}

/// What the caret of a diagnostic marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CaretTarget {
    /// The value, if it is on one line.
    Value,
    /// The key, for fields that should not be there.
    Key,
}

impl CaretTarget {
    pub(super) fn for_reason(reason: &Reason) -> Self {
        match reason {
            Reason::UnknownField | Reason::Named(CLUSTER_SCOPE) => CaretTarget::Key,
            _ => CaretTarget::Value,
        }
    }
}

/// The reason of the warning about a namespace on a cluster-scoped object.
pub(super) const CLUSTER_SCOPE: &str = "ClusterScope";

/// A document as a tree in one vector, in document order: the children of a node follow it.
#[derive(Debug, Default)]
pub(super) struct Outline<'a> {
    nodes: Vec<OutlineNode<'a>>,
    /// The indexes of collections that are not closed yet, each with the key whose value is still to come.
    open_nodes: Vec<(usize, Option<OutlineKey<'a>>)>,
}

#[derive(Debug)]
struct OutlineNode<'a> {
    key: Option<OutlineKey<'a>>,
    shape: YamlShape,
    start: TextPosition,
    /// For a collection, the end of its last scalar.
    end: TextPosition,
    /// The text of a scalar.
    text: Cow<'a, str>,
    /// The index of the first node after this subtree.
    next: usize,
}

#[derive(Clone, Debug)]
struct OutlineKey<'a> {
    text: Cow<'a, str>,
    start: TextPosition,
    end: TextPosition,
}

impl<'a> Outline<'a> {
    pub(super) fn open_collection(&mut self, shape: YamlShape, start: TextPosition) {
        // A collection that is a key itself (`? [a]`) has no path; positions after it in its mapping may be off.
        let key = self.take_key();
        self.nodes.push(OutlineNode { key, shape, start, end: start, text: Cow::Borrowed(""), next: 0 });
        self.open_nodes.push((self.nodes.len() - 1, None));
    }

    pub(super) fn close_collection(&mut self) {
        if let Some((index, _)) = self.open_nodes.pop() {
            let next = self.nodes.len();
            // The last node is the last scalar below this one, or this node itself if it is empty.
            let end = self.nodes.last().map_or_else(TextPosition::default, |last| last.end);
            self.nodes[index].next = next;
            self.nodes[index].end = end;
        }
    }

    pub(super) fn add_scalar(&mut self, text: Cow<'a, str>, start: TextPosition, end: TextPosition) {
        if let Some((index, pending_key @ None)) = self.open_nodes.last_mut()
            && self.nodes[*index].shape == YamlShape::Mapping
        {
            *pending_key = Some(OutlineKey { text, start, end });
            return;
        }
        self.leaf(YamlShape::Scalar, text, start, end);
    }

    pub(super) fn add_alias(&mut self, start: TextPosition, end: TextPosition) {
        self.leaf(YamlShape::Alias, Cow::Borrowed(""), start, end);
    }

    /// The position of `field`, or else of the nearest enclosing field that exists, in the object at `trail`: indexes
    /// into the `items` of lists. An empty `field` or `.` stands for the object itself, whose position is that of its
    /// name, or else its start.
    pub(super) fn locate(&self, trail: &[u32], field: &str, caret: CaretTarget) -> TextSpan {
        let Some(object) = self.object_at(trail) else { return TextSpan { line: 1, column: 1, width: 1 } };
        if field.is_empty() || field == "." {
            let (node, rest) = self.descend(object, "metadata.name");
            return if rest.is_empty() { self.value_span(node) } else { self.key_span(object) };
        }
        let (node, rest) = self.descend(object, field);
        match caret {
            CaretTarget::Value if rest.is_empty() => self.value_span(node),
            CaretTarget::Value | CaretTarget::Key => self.key_span(node),
        }
    }

    /// The lines of Secrets, and of fields of other kinds that may contain secrets; diagnostics must not quote them.
    pub(super) fn secret_lines(&self) -> Vec<RangeInclusive<u32>> {
        let mappings = self.nodes.iter().enumerate().filter(|(_, node)| node.shape == YamlShape::Mapping);
        let secret_nodes = mappings.filter_map(|(index, _)| {
            let has_member = |name| self.member(index, name).is_some();
            let kind = &*self.nodes[self.member(index, "kind")?].text;
            // A reference to a Secret also has a kind, but no metadata.
            if kind == "Secret" && (has_member("data") || has_member("stringData") || has_member("metadata")) {
                return Some(index);
            }
            let (_, path) = SECRET_BEARING_FIELDS.iter().find(|(kind_name, _)| *kind_name == kind)?;
            let (node, rest) = self.descend(index, path);
            rest.is_empty().then_some(node)
        });
        let lines = |index: usize| {
            let node = &self.nodes[index];
            let start = node.key.as_ref().map_or(node.start, |key| key.start);
            start.line..=node.end.line
        };
        secret_nodes.map(lines).collect()
    }

    fn object_at(&self, trail: &[u32]) -> Option<usize> {
        let mut node = 0;
        for index in trail {
            node = self.member(node, "items")?;
            node = self.children(node).nth(*index as usize)?;
        }
        (node < self.nodes.len()).then_some(node)
    }

    /// Follows a path as far as its fields exist; returns the last existing node and the rest of the path.
    fn descend<'p>(&self, mut node: usize, path: &'p str) -> (usize, &'p str) {
        let mut rest = path;
        while !rest.is_empty() {
            let Some((child, child_rest)) = self.child_by_segment(node, rest) else { break };
            (node, rest) = (child, child_rest);
        }
        (node, rest)
    }

    /// Follows one segment: `name`, `.name`, `[3]`, `["any key"]` or `[any key]`. Keys may contain dots
    /// (`portico.dev/address`), so the longest matching key wins.
    fn child_by_segment<'p>(&self, node: usize, path: &'p str) -> Option<(usize, &'p str)> {
        if let Some(bracket) = path.strip_prefix('[') {
            let (inside, rest) = bracket.split_once(']')?;
            if self.nodes[node].shape == YamlShape::Sequence {
                return Some((self.children(node).nth(inside.parse().ok()?)?, rest));
            }
            return Some((self.member(node, inside.trim_matches(['"', '\'']))?, rest));
        }
        let path = path.strip_prefix('.').unwrap_or(path);
        if self.nodes[node].shape == YamlShape::Sequence {
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
            let current = child;
            (current < end).then(|| {
                child = self.nodes[current].next;
                current
            })
        })
    }

    /// The span of a value on one line, otherwise that of its key.
    fn value_span(&self, index: usize) -> TextSpan {
        let node = &self.nodes[index];
        match node.shape {
            YamlShape::Scalar | YamlShape::Alias
                if node.start.line == node.end.line && node.end.column > node.start.column =>
            {
                span_between(node.start, node.end)
            }
            _ => self.key_span(index),
        }
    }

    /// The span of a field's key. A list item has no key: then it is the span of its first key, or its start.
    fn key_span(&self, index: usize) -> TextSpan {
        let node = &self.nodes[index];
        let first_child = self.children(index).next().filter(|_| node.shape == YamlShape::Mapping);
        match (&node.key, first_child.and_then(|child| self.nodes[child].key.as_ref())) {
            (Some(key), _) => span_between(key.start, key.end),
            (None, Some(key)) => span_between(key.start, key.end),
            (None, None) if node.start.line == node.end.line => span_between(node.start, node.end),
            (None, None) => TextSpan { line: node.start.line, column: node.start.column, width: 1 },
        }
    }

    fn leaf(&mut self, shape: YamlShape, text: Cow<'a, str>, start: TextPosition, end: TextPosition) {
        let key = self.take_key();
        let next = self.nodes.len() + 1;
        self.nodes.push(OutlineNode { key, shape, start, end, text, next });
    }

    fn take_key(&mut self) -> Option<OutlineKey<'a>> {
        self.open_nodes.last_mut().and_then(|(_, pending_key)| pending_key.take())
    }
}

/// Fields of Kong's kinds, as kind and path, that may contain passwords, tokens or keys, under names that depend on the
/// plugin or vault.
pub(super) const SECRET_BEARING_FIELDS: &[(&str, &str)] = &[
    ("KongClusterPlugin", "config"),
    ("KongCustomEntity", "spec.fields"),
    ("KongLicense", "rawLicenseString"),
    ("KongPlugin", "config"),
    ("KongVault", "spec.config"),
];

fn span_between(start: TextPosition, end: TextPosition) -> TextSpan {
    let width = if start.line == end.line { end.column.saturating_sub(start.column).max(1) } else { 1 };
    TextSpan { line: start.line, column: start.column, width }
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
    fn field_positions_fall_back_to_enclosing_fields() {
        let outline = yaml::outline(ROUTE).expect("it is YAML");
        for (field, caret, line, column, width) in [
            ("", CaretTarget::Value, 3, 9, 3),
            ("metadata.name", CaretTarget::Value, 3, 9, 3),
            ("metadata.name", CaretTarget::Key, 3, 3, 4),
            ("metadata.annotations.portico.dev/address", CaretTarget::Value, 6, 26, 9),
            ("metadata.annotations[portico.dev/address]", CaretTarget::Value, 6, 26, 9),
            ("metadata.annotations[\"portico.dev\"]", CaretTarget::Value, 5, 18, 1),
            ("metadata.labels.app", CaretTarget::Value, 2, 1, 8),
            ("spec.rules[0].matches[0].path.value", CaretTarget::Value, 10, 34, 6),
            ("spec.rules[0].matches[0].path.nope", CaretTarget::Value, 10, 7, 4),
            ("spec.rules[0].matches[0].method", CaretTarget::Value, 10, 7, 4),
            ("spec.rules[0].backendRefs", CaretTarget::Value, 11, 5, 11),
            ("spec.rules[0].backendRefs[3].name", CaretTarget::Value, 11, 5, 11),
            ("spec.rules[1].name", CaretTarget::Value, 13, 11, 6),
            ("spec.rules[1].filters", CaretTarget::Value, 13, 5, 4),
            ("spec.rules[7]", CaretTarget::Value, 8, 3, 5),
            ("spec.text", CaretTarget::Value, 14, 3, 4),
            ("spec.again", CaretTarget::Value, 18, 10, 2),
            ("spec.again.deeper", CaretTarget::Value, 18, 3, 5),
            ("status", CaretTarget::Value, 1, 1, 4),
            ("[[[", CaretTarget::Value, 1, 1, 4),
        ] {
            assert_eq!(outline.locate(&[], field, caret), TextSpan { line, column, width }, "{field}");
        }
    }

    #[test]
    fn list_items_are_objects() {
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
            let span = outline.locate(trail, field, CaretTarget::Value);
            assert_eq!((span.line, span.column), (line, column), "{trail:?} {field}");
        }
    }

    #[test]
    fn lines_of_secrets_are_found() {
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
        assert_eq!(outline.secret_lines(), [2..=6]);
        let json = yaml::outline(r#"{"items":[{"kind":"Secret","data":{"a":"aGk="}},{"kind":"X"}]}"#);
        assert_eq!(json.expect("it is YAML").secret_lines(), [1..=1]);
        assert!(yaml::outline("a: [").is_none());
        let plugin = "kind: KongPlugin\nmetadata:\n  name: a\nplugin: b\nconfig:\n  redis:\n    password: hidden\n";
        assert_eq!(yaml::outline(plugin).expect("it is YAML").secret_lines(), [5..=7]);
        let vault = "kind: KongVault\nspec:\n  backend: hcv\n  config: {token: hidden}\n";
        assert_eq!(yaml::outline(vault).expect("it is YAML").secret_lines(), [4..=4]);
    }
}
