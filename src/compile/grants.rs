//! May an object refer to one of another namespace? Only if a ReferenceGrant there says so.

use super::verdict::Problem;
use crate::api::{Kind, ObjectKey};
use crate::store::Store;

/// A reference that crosses, or may cross, a namespace.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reference<'a> {
    pub from: Kind,
    pub namespace: &'a str,
    pub to: Kind,
    pub target: &'a ObjectKey,
}

impl Reference<'_> {
    /// Grants add up: any of them suffices.
    pub(super) fn is_allowed(&self, store: &Store) -> bool {
        if self.namespace == &*self.target.namespace {
            return true;
        }
        let start = ObjectKey { namespace: self.target.namespace.clone(), name: "".into() };
        let grants = store.reference_grants.starting_at(&start);
        grants.take_while(|grant| grant.meta.key.namespace == self.target.namespace).any(|grant| {
            let from = grant.spec.from.iter().any(|from| {
                from.group == self.from.group() && from.kind == self.from.name() && from.namespace == self.namespace
            });
            let to = grant.spec.to.iter().any(|to| {
                to.group == self.to.group()
                    && to.kind == self.to.name()
                    && to.name.as_deref().is_none_or(|name| name == &*self.target.name)
            });
            from && to
        })
    }

    /// Says nothing about whether the target exists: who may not use it must not learn that.
    pub(super) fn problem(&self, field: String) -> Problem {
        Problem::new(
            field,
            format!(
                "no ReferenceGrant lets {}s of namespace {} use {} {}",
                self.from, self.namespace, self.to, self.target
            ),
            format!(
                "create a ReferenceGrant in namespace {} from {} of namespace {} to {}",
                self.target.namespace, self.from, self.namespace, self.to
            ),
        )
    }
}
