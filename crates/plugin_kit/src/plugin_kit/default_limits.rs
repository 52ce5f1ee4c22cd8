//! Limits of what all plugins of a process may keep together, unless flags set others.

/// Bytes of stored responses.
pub const DEFAULT_CACHE_BYTES: usize = 128 << 20;
/// Entries of counters. An entry takes about 250 bytes.
pub const DEFAULT_ENTRIES: usize = 1 << 19;
