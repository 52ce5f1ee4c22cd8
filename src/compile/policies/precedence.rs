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

/// The oldest of the policies with exactly this target, or else the first by name. Whether it can be used does not
/// matter.
pub(super) fn first_policy<'a, P: TargetedPolicy>(store: &'a Store, target: &Target<'_>) -> Option<&'a Object<P>> {
    let names_target = |policy: &&Object<P>| {
        let mut references = policy.target_references();
        references.any(|reference| {
            reference.target_kind::<P>() == Some(target.kind)
                && *reference.name == *target.key.name
                && reference.section == target.section
        })
    };
    let policies = policies_for::<P>(store, &target.object_id()).filter(names_target);
    policies.min_by_key(|policy| (policy.meta.created, &policy.meta.key))
}

/// The policy whose settings apply to a target: one for the section precedes one for the whole object.
pub(in crate::compile) fn policy_in_effect<'a, P: TargetedPolicy>(
    store: &'a Store,
    target: &Target<'_>,
) -> Option<&'a Object<P>> {
    let of_section = target.section.and_then(|_| first_policy(store, target));
    of_section.or_else(|| first_policy(store, &target.whole_object()))
}
