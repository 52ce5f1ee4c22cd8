//! Blocks of a policy that something else with precedence sets.

use super::blocks::{Block, is_or_are, names};
use super::rule_settings::{OwnRules, described};
use crate::api::portico::BackendPolicySpec;
use crate::api::{Kind, ObjectKey};

/// Blocks that something else sets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Displacement {
    pub blocks: Vec<Block>,
    /// `Service cart`, or `port http of Service cart`.
    pub target: String,
    pub by: Precedence,
}

/// What has precedence.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Precedence {
    /// An older policy with the same target.
    Older(ObjectKey),
    /// A policy for a port of the target.
    OfPort { policy: ObjectKey, port: String },
    /// The target itself.
    Target,
    /// Rules that send requests to the target.
    Rules(OwnRules),
}

impl Displacement {
    /// The older policy with the same target.
    pub(super) fn older(&self) -> Option<&ObjectKey> {
        if let Precedence::Older(policy) = &self.by { Some(policy) } else { None }
    }

    /// A clause that names the blocks.
    pub(super) fn message(&self, spec: &BackendPolicySpec) -> String {
        let Displacement { blocks, target, by } = self;
        let names = names(blocks, spec);
        let verb = is_or_are(&names);
        // The name of the only target is superfluous.
        let of_target = match spec.target_refs.len() {
            1 => String::new(),
            _ => format!(" for {target}"),
        };
        match by {
            Precedence::Older(policy) => {
                format!("{names} {verb} set{of_target} by older {} {}", Kind::BackendPolicy, policy.name)
            }
            Precedence::OfPort { policy, port } => {
                format!("{names} {verb} set for port {port} of {target} by {} {}", Kind::BackendPolicy, policy.name)
            }
            Precedence::Target => format!("{names} {verb} set by {target} itself"),
            Precedence::Rules(rules) => {
                let pronoun = if verb == "are" { "them" } else { "it" };
                let of_target = if of_target.is_empty() { String::new() } else { format!("{of_target},") };
                format!("{names} {verb} not in effect{of_target} for {}", described(rules, pronoun))
            }
        }
    }
}

/// Adds a block to the displacement with the same target and precedence.
pub(super) fn displace(displaced: &mut Vec<Displacement>, block: Block, target: &str, by: Precedence) {
    match displaced.iter_mut().find(|known| known.by == by && known.target == target) {
        Some(known) => known.blocks.push(block),
        None => displaced.push(Displacement { blocks: vec![block], target: target.to_owned(), by }),
    }
}
