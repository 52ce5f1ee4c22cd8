//! Which policy takes effect if several apply to one target.

use super::target::{Target, TargetedPolicy};
use crate::api::{Object, ObjectId};
use crate::store::Store;

/// The policies that name an object or one of its sections.
pub(super) fn policies_for<'a, P: TargetedPolicy>(
    store: &'a Store,
    object: &ObjectId,
) -> impl Iterator<Item = &'a Object<P>> + use<'a, P> {
    // Thousands of routes may depend on the object, and each of them asks for its policies.
    let policies = store.dependency_index().dependents_of_kind(object, P::KIND);
    policies.filter_map(|id| P::table(store).get(&id.key)).map(|policy| &**policy)
}

/// The policies with exactly this target in the order of precedence: the oldest first, and then by name.
pub(super) fn policies_with_target<'a, P: TargetedPolicy>(store: &'a Store, target: &Target<'_>) -> Vec<&'a Object<P>> {
    let mut policies: Vec<_> = naming_target(store, target).collect();
    policies.sort_by_key(|policy| rank(policy));
    policies
}

/// The first of the policies with exactly this target. Whether it can be used does not matter.
pub(super) fn first_policy<'a, P: TargetedPolicy>(store: &'a Store, target: &Target<'_>) -> Option<&'a Object<P>> {
    naming_target(store, target).min_by_key(|policy| rank(policy))
}

fn naming_target<'a, P: TargetedPolicy>(store: &'a Store, target: &Target<'_>) -> impl Iterator<Item = &'a Object<P>> {
    policies_for::<P>(store, &target.object_id()).filter(|policy| {
        policy.target_references().any(|reference| {
            reference.target_kind::<P>() == Some(target.kind)
                && *reference.name == *target.key.name
                && reference.section == target.section
        })
    })
}

/// The lowest comes first.
fn rank<P>(policy: &Object<P>) -> impl Ord {
    (policy.meta.created, &policy.meta.key)
}

/// The policy whose settings apply to a target: one for the section precedes one for the whole object.
pub(in crate::compile) fn policy_in_effect<'a, P: TargetedPolicy>(
    store: &'a Store,
    target: &Target<'_>,
) -> Option<&'a Object<P>> {
    let of_section = target.section.and_then(|_| first_policy(store, target));
    of_section.or_else(|| first_policy(store, &target.whole_object()))
}
