//! The plugins: one file each, and this list. Nothing else knows them.

use crate::plugin::{AnyKind, Registry};

/// In alphabetical order. `plugin::Entry::<file::Kind>::NEW` is the line that a new file needs here, besides its `mod`.
const KINDS: &[&dyn AnyKind] = &[];

/// All plugins there are.
pub const REGISTRY: Registry = Registry(KINDS);
