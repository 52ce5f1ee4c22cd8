//! Marks: schema extensions that assign fields, keywords and rules to a channel, and rules to a union member.
//! `to_structural` removes all of them.

/// On a field: removed in the standard channel.
pub(super) const EXPERIMENTAL_ONLY: &str = "x-portico-experimental-only";
/// On a node: keywords that the experimental channel adds to those of the node, or uses instead of them.
pub(super) const IN_EXPERIMENTAL: &str = "x-portico-in-experimental";
/// On a rule: the only channel in which it applies.
pub(super) const RULE_CHANNEL: &str = "x-portico-channel";
/// On a rule: the union member that it concerns.
pub(super) const RULE_MEMBER: &str = "x-portico-member";
