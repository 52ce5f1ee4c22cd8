//! Where in an object we are: a chain on the stack that is written out only when there is something to say.

use std::fmt;

/// A place in an object. `Display` writes it as the API server does: `spec.rules[0].name`, `metadata.labels[app]`.
#[derive(Clone, Copy)]
pub(super) enum Path<'a> {
    Root,
    Field(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
    /// An entry of a map whose keys are the user's, not field names.
    Key(&'a Path<'a>, &'a str),
}

impl<'a> Path<'a> {
    pub(super) fn field(&'a self, name: &'a str) -> Path<'a> {
        // What a stranger wrote as a field name may hold dots and brackets; as a key it stays readable.
        let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-$".contains(&byte));
        if plain { Path::Field(self, name) } else { Path::Key(self, name) }
    }

    pub(super) fn index(&'a self, index: usize) -> Path<'a> {
        Path::Index(self, index)
    }

    pub(super) fn key(&'a self, key: &'a str) -> Path<'a> {
        Path::Key(self, key)
    }

    /// The steps from the root to here.
    pub(super) fn steps(&self) -> Vec<Path<'a>> {
        let mut steps = Vec::new();
        let mut at = *self;
        loop {
            let parent = match at {
                Path::Root => break,
                Path::Field(parent, _) | Path::Index(parent, _) | Path::Key(parent, _) => parent,
            };
            steps.push(at);
            at = *parent;
        }
        steps.reverse();
        steps
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) => formatter.write_str(name),
            Path::Field(parent, name) => write!(formatter, "{parent}.{name}"),
            Path::Index(parent, index) => write!(formatter, "{parent}[{index}]"),
            Path::Key(parent, key) => write!(formatter, "{parent}[{}]", super::report::shown(key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_as_the_api_server_writes_them() {
        let spec = Path::Root.field("spec");
        let rules = spec.field("rules");
        let rule = rules.index(3);
        let metadata = Path::Root.field("metadata");
        let labels = metadata.field("labels");
        assert_eq!(Path::Root.to_string(), "");
        assert_eq!(rule.field("backendRefs").to_string(), "spec.rules[3].backendRefs");
        assert_eq!(labels.key("app.kubernetes.io/name").to_string(), "metadata.labels[app.kubernetes.io/name]");
        assert_eq!(rule.field("a.b").to_string(), "spec.rules[3][a.b]");
        assert_eq!(rule.steps().len(), 3);
        assert!(labels.key(&"k".repeat(5_000)).to_string().len() < 200, "a giant key does not fill the screen");
    }
}
