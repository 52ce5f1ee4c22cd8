//! Keys with which a type says that something belongs to one channel. `settle` removes them all.

/// On a field: it is pruned in the standard channel.
pub(super) const EXPERIMENTAL_ONLY: &str = "x-portico-experimental-only";
/// On a node: keywords that hold in the experimental channel in place of those beside them.
pub(super) const IN_EXPERIMENTAL: &str = "x-portico-in-experimental";
/// On a rule: the name of the only channel in which it holds.
pub(super) const RULE_CHANNEL: &str = "x-portico-channel";
/// On a rule: the member of a union that it is about.
pub(super) const RULE_MEMBER: &str = "x-portico-member";
