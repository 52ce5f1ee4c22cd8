//! What is wrong outside of the files: folders, ports, rights.

/// Folders of expected texts that have no files to read.
pub(super) const NAMES: &[&str] = &[];
