//! Tests over all combinations of two features in this process, where each of them works alone. Each file states one
//! property, and fails for what has no row in its table.

mod forged_identity;
mod identity_plugins;
