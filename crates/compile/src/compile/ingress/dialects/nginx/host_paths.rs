//! The paths that all Ingresses of a host have together. They say whether the location of a path depends on the path,
//! and thus whether a rewrite may lead to another one.

use std::collections::BTreeSet;

/// The paths that are used.
#[derive(Debug, Default)]
pub(super) struct HostPaths<'h> {
    /// Whether each is exact, and its text.
    pub written: BTreeSet<(bool, &'h str)>,
    /// Whether they are expressions.
    pub has_expressions: bool,
    /// Whether there is a location without a path: that of `app-root`, or that of the health of ingress-nginx.
    pub has_further_location: bool,
}

impl HostPaths<'_> {
    /// Whether the prefix `/` is the only location. Without a path for the root, the host has one more for it.
    pub(super) fn has_one_location(&self) -> bool {
        let is_root = |path: &(bool, &str)| *path == (false, "/");
        let is_only_root = !self.written.is_empty() && self.written.iter().all(is_root);
        is_only_root && !self.has_expressions && !self.has_further_location
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_root_is_one_location() {
        for (written, has_one) in [
            (&[(false, "/")][..], true),
            (&[], false),
            (&[(true, "/")], false),
            (&[(false, "/"), (true, "/")], false),
            (&[(false, "/app")], false),
            (&[(false, "/"), (false, "/app")], false),
        ] {
            let paths = || HostPaths { written: written.iter().copied().collect(), ..HostPaths::default() };
            assert_eq!(paths().has_one_location(), has_one, "{written:?}");
            assert!(!HostPaths { has_expressions: true, ..paths() }.has_one_location(), "{written:?}");
            assert!(!HostPaths { has_further_location: true, ..paths() }.has_one_location(), "{written:?}");
        }
    }
}
