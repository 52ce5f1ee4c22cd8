//! Schema extensions that assign fields and rules to one channel. `to_structural` removes all of them.

/// On a field: removed in the standard channel.
pub(super) const EXPERIMENTAL_ONLY: &str = "x-portico-experimental-only";
/// On a node: keywords that replace the adjacent ones in the experimental channel.
pub(super) const IN_EXPERIMENTAL: &str = "x-portico-in-experimental";
/// On a rule: the only channel in which it applies.
pub(super) const RULE_CHANNEL: &str = "x-portico-channel";
/// On a rule: the union member that it concerns.
pub(super) const RULE_MEMBER: &str = "x-portico-member";
