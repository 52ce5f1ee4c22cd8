//! Which BackendPolicies affect an object, for its status and events (GEP-713).

use std::collections::BTreeSet;

use super::blocks::Block;
use super::effective::is_enforceable;
use super::layers::first_with_block;
use crate::api::portico::BackendPolicy;
use crate::api::{Kind, Object, ObjectKey};
use crate::compile::policies::precedence::policies_with_target;
use crate::compile::policies::target::{Target, TargetKind};
use crate::store::Store;

/// `Affected by BackendPolicy shop/cart`, without a full stop; `None` if no policy has a block in effect for the object
/// or one of its ports.
pub(in crate::compile) fn affected_by(store: &Store, kind: TargetKind, key: &ObjectKey) -> Option<String> {
    if store.backend_policies.is_empty() {
        return None;
    }
    let whole = Target { kind, key: key.clone(), section: None };
    let of_whole = policies_with_target::<BackendPolicy>(store, &whole);
    let sections = kind.sections(store, key)?;
    let named = sections.iter().filter(|name| !name.is_empty());
    let mut layers: Vec<Vec<&Object<BackendPolicy>>> = named
        .map(|name| policies_with_target::<BackendPolicy>(store, &Target { section: Some(name), ..whole.clone() }))
        .map(|of_section| of_section.into_iter().chain(of_whole.iter().copied()).collect())
        .collect();
    if sections.is_empty() || sections.iter().any(|name| name.is_empty()) {
        layers.push(of_whole);
    }
    let mut affecting: BTreeSet<&ObjectKey> = BTreeSet::new();
    for policies in &layers {
        for block in Block::ALL {
            let first = first_with_block(policies, block).filter(|policy| !affecting.contains(&policy.meta.key));
            affecting
                .extend(first.filter(|policy| is_enforceable(block, policy, policies)).map(|policy| &policy.meta.key));
        }
    }
    describe(&affecting)
}

fn describe(policies: &BTreeSet<&ObjectKey>) -> Option<String> {
    let mut names: Vec<String> = policies.iter().take(MAX_NAMES).map(ToString::to_string).collect();
    if let Some(more) = policies.len().checked_sub(MAX_NAMES).filter(|more| *more > 0) {
        names.push(format!("{more} more"));
    }
    let (last, others) = names.split_last()?;
    if others.is_empty() {
        return Some(format!("Affected by {} {last}", Kind::BackendPolicy));
    }
    Some(format!("Affected by BackendPolicies {} and {last}", others.join(", ")))
}

/// How many policies are named.
const MAX_NAMES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_policies_are_named() {
        let keys: Vec<ObjectKey> = (0..10).map(|number| ObjectKey::new("shop", &format!("p{number}"))).collect();
        for (count, expected) in [
            (0, None),
            (1, Some("Affected by BackendPolicy shop/p0")),
            (3, Some("Affected by BackendPolicies shop/p0, shop/p1 and shop/p2")),
            (
                10,
                Some(
                    "Affected by BackendPolicies shop/p0, shop/p1, shop/p2, shop/p3, shop/p4, shop/p5, shop/p6, \
                     shop/p7 and 2 more",
                ),
            ),
        ] {
            assert_eq!(describe(&keys.iter().take(count).collect()).as_deref(), expected);
        }
    }
}
