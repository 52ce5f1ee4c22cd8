//! Which BackendPolicies apply to a target, in the order of precedence: those for a facade, for a port, and for the
//! whole Service. The order within each of these layers is that of their age.

use std::collections::BTreeMap;

use super::blocks::Block;
use super::policy_target::targets_of_upstream;
use crate::api::portico::BackendPolicy;
use crate::api::{Kind, Object, ObjectKey};
use crate::compile::policies::precedence::policies_with_target;
use crate::compile::policies::target::Target;
use crate::store::Store;
use crate::upstream::UpstreamKey;

/// The policies that apply to an upstream, in the order of precedence.
pub(in crate::compile) fn policies_of_upstream<'a>(
    store: &'a Store,
    upstream: &UpstreamKey,
) -> Vec<&'a Object<BackendPolicy>> {
    if store.backend_policies.is_empty() {
        return Vec::new();
    }
    targets_of_upstream(store, upstream).flat_map(|target| policies_with_target(store, &target)).collect()
}

/// The policy for a whole Service that has a block, and so takes precedence over the settings of other kinds.
pub(in crate::compile) fn overriding_policy<'a>(
    store: &'a Store,
    service: &ObjectKey,
    block: Block,
) -> Option<&'a Object<BackendPolicy>> {
    first_with_block(&policies_with_target(store, &Target::of_service(service, None)), block)
}

/// The policies in effect for an upstream, by the blocks that they set.
pub(in crate::compile) fn sources(store: &Store, upstream: &UpstreamKey) -> BTreeMap<&'static str, String> {
    let policies = policies_of_upstream(store, upstream);
    let source = |block: Block| {
        let policy = first_with_block(&policies, block)?;
        Some((block.path(), format!("{} {}", Kind::BackendPolicy, policy.meta.key)))
    };
    Block::ALL.into_iter().filter_map(source).collect()
}

/// The first of these policies that has a block. Whether the block is valid does not matter, so that a correction does
/// not change which policy is in effect.
pub(in crate::compile) fn first_with_block<'a>(
    policies: &[&'a Object<BackendPolicy>],
    block: Block,
) -> Option<&'a Object<BackendPolicy>> {
    policies.iter().copied().find(|policy| block.is_set(&policy.spec))
}
