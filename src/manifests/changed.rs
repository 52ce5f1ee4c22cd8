//! What may be different on disk: some paths, or anything at all.

use std::collections::BTreeSet;
use std::path::PathBuf;

/// Nothing, to begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    Paths(BTreeSet<PathBuf>),
    /// Too much to tell, or more than was told.
    Anything,
}

impl Default for Changed {
    fn default() -> Self {
        Changed::Paths(BTreeSet::new())
    }
}

impl Changed {
    pub(super) fn add(&mut self, more: &[PathBuf]) {
        if let Changed::Paths(paths) = self {
            paths.extend(more.iter().cloned());
            if paths.len() > MOST_PATHS {
                *self = Changed::Anything;
            }
        }
    }
}

/// From here on looking at everything is no more work than looking at each.
const MOST_PATHS: usize = 256;
