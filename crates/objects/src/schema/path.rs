//! A path in an object: a linked list on the stack, which is formatted only for messages.

use std::fmt;

/// A path in an object, formatted as by the API server: `spec.rules[0].name`, `metadata.labels[app]`.
#[derive(Clone, Copy)]
pub(super) enum ObjectPath<'a> {
    Root,
    Field(&'a ObjectPath<'a>, &'a str),
    Index(&'a ObjectPath<'a>, usize),
    /// An entry of a map with arbitrary keys.
    Key(&'a ObjectPath<'a>, &'a str),
}

impl<'a> ObjectPath<'a> {
    pub(super) fn field(&'a self, name: &'a str) -> ObjectPath<'a> {
        // An unknown field name may contain dots and brackets; as a key it stays readable.
        let is_plain =
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-$".contains(&byte));
        if is_plain { ObjectPath::Field(self, name) } else { ObjectPath::Key(self, name) }
    }

    pub(super) fn index(&'a self, index: usize) -> ObjectPath<'a> {
        ObjectPath::Index(self, index)
    }

    pub(super) fn key(&'a self, key: &'a str) -> ObjectPath<'a> {
        ObjectPath::Key(self, key)
    }

    /// The steps from the root to this path.
    pub(super) fn steps(&self) -> Vec<ObjectPath<'a>> {
        let mut steps = Vec::new();
        let mut current = *self;
        loop {
            let parent = match current {
                ObjectPath::Root => break,
                ObjectPath::Field(parent, _) | ObjectPath::Index(parent, _) | ObjectPath::Key(parent, _) => parent,
            };
            steps.push(current);
            current = *parent;
        }
        steps.reverse();
        steps
    }
}

impl fmt::Display for ObjectPath<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ObjectPath::Root => Ok(()),
            ObjectPath::Field(ObjectPath::Root, name) => formatter.write_str(name),
            ObjectPath::Field(parent, name) => write!(formatter, "{parent}.{name}"),
            ObjectPath::Index(parent, index) => write!(formatter, "{parent}[{index}]"),
            ObjectPath::Key(parent, key) => write!(formatter, "{parent}[{}]", super::quote::printable(key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_formatted_like_the_api_server() {
        let spec = ObjectPath::Root.field("spec");
        let rules = spec.field("rules");
        let rule = rules.index(3);
        let metadata = ObjectPath::Root.field("metadata");
        let labels = metadata.field("labels");
        assert_eq!(ObjectPath::Root.to_string(), "");
        assert_eq!(rule.field("backendRefs").to_string(), "spec.rules[3].backendRefs");
        assert_eq!(labels.key("app.kubernetes.io/name").to_string(), "metadata.labels[app.kubernetes.io/name]");
        assert_eq!(rule.field("a.b").to_string(), "spec.rules[3][a.b]");
        assert_eq!(rule.steps().len(), 3);
        assert!(labels.key(&"k".repeat(5_000)).to_string().len() < 200, "a long key is truncated");
    }
}
