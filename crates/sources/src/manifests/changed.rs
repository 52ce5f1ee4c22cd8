//! The paths that changed on disk since the last reading.

use std::collections::BTreeSet;
use std::path::PathBuf;

/// By default, no path changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangedPaths {
    Paths(BTreeSet<PathBuf>),
    /// Any path may have changed: at the first reading, in a new folder, while polling, after lost events, or if the
    /// changed paths are too many to list.
    Anything,
}

impl Default for ChangedPaths {
    fn default() -> Self {
        ChangedPaths::Paths(BTreeSet::new())
    }
}

impl ChangedPaths {
    pub(super) fn add(&mut self, new_paths: &[PathBuf]) {
        if let ChangedPaths::Paths(paths) = self {
            paths.extend(new_paths.iter().cloned());
            if paths.len() > MAX_PATHS {
                *self = ChangedPaths::Anything;
            }
        }
    }
}

/// Above this number, listing everything costs no more than checking each path.
const MAX_PATHS: usize = 256;
