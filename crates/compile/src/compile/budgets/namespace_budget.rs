//! The budget of a namespace: what its objects of one kind may expand to together. The youngest objects are refused, so
//! that objects that are served stay in use when others are added.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Budgets, OVER_BUDGET};
use crate::api::ObjectId;
use crate::diagnostic::Diagnostic;

/// The expansions of all objects of one kind, by namespace.
#[derive(Debug, Default)]
pub(in crate::compile) struct NamespaceBudgets(BTreeMap<Arc<str>, NamespaceUse>);

/// The objects of one namespace.
#[derive(Debug, Default)]
struct NamespaceUse {
    /// The bytes that each object expands to, the oldest object first, then by name. For a refused object this may be
    /// the part of it that exceeded its share.
    objects: BTreeMap<(Option<i64>, ObjectId), u64>,
    /// When each object was created.
    created: BTreeMap<ObjectId, Option<i64>>,
    /// The bytes of all objects.
    total: u64,
    refused: BTreeSet<ObjectId>,
}

impl NamespaceBudgets {
    /// The bytes that all other objects of the namespace leave of its budget.
    pub(super) fn left_by_others(&self, budgets: &Budgets, id: &ObjectId) -> u64 {
        let Some(namespace) = self.0.get(&id.key.namespace).filter(|_| !budgets.warn_only) else {
            return budgets.available();
        };
        let own = namespace.created.get(id).and_then(|created| namespace.objects.get(&(*created, id.clone())));
        let others = namespace.total.saturating_sub(own.copied().unwrap_or_default());
        budgets.available().saturating_sub(others)
    }

    /// The bytes that the older objects of the namespace leave of its budget.
    pub(super) fn left_by_older(&self, budgets: &Budgets, id: &ObjectId, created: Option<i64>) -> u64 {
        let older = self.0.get(&id.key.namespace).into_iter().flat_map(|namespace| {
            let older = namespace.objects.range(..(created, id.clone()));
            older.filter(|((_, id), _)| !namespace.refused.contains(id)).map(|(_, bytes)| *bytes)
        });
        older.fold(budgets.available(), u64::saturating_sub)
    }

    /// Sets what an object expands to; `None` if it is not served. Returns the other objects that are now refused or no
    /// longer refused.
    pub(super) fn set(
        &mut self,
        budgets: &Budgets,
        id: &ObjectId,
        created: Option<i64>,
        bytes: Option<u64>,
    ) -> BTreeSet<ObjectId> {
        let namespace = self.0.entry(Arc::clone(&id.key.namespace)).or_default();
        if let Some(created) = namespace.created.remove(id) {
            let removed = namespace.objects.remove(&(created, id.clone()));
            namespace.total = namespace.total.saturating_sub(removed.unwrap_or_default());
        }
        if let Some(bytes) = bytes {
            namespace.created.insert(id.clone(), created);
            namespace.objects.insert((created, id.clone()), bytes);
            namespace.total = namespace.total.saturating_add(bytes);
        }
        let refused = namespace.refused_objects(budgets.namespace_bytes);
        let before = std::mem::replace(&mut namespace.refused, refused);
        let changed = before.symmetric_difference(&namespace.refused).filter(|changed| *changed != id);
        let changed = changed.cloned().collect();
        if namespace.objects.is_empty() {
            self.0.remove(&id.key.namespace);
        }
        changed
    }

    /// A diagnostic if the object is refused, or would be if budgets did not only warn.
    pub(super) fn problem(&self, budgets: &Budgets, id: &ObjectId) -> Option<Diagnostic> {
        let namespace = self.0.get(&id.key.namespace).filter(|namespace| namespace.refused.contains(id))?;
        let message = format!(
            "the objects of kind {} in namespace {} expand to {} MiB or more, and the limit is {} MiB; \
             this object is one of the youngest",
            id.kind,
            id.key.namespace,
            namespace.total.div_ceil(1 << 20),
            budgets.namespace_bytes >> 20,
        );
        let remedy = "use fewer regular expressions and host aliases, or ask the operator to raise --namespace-budget";
        let problem = Diagnostic::of_object(message, remedy).with_reason(OVER_BUDGET);
        Some(if budgets.warn_only { problem.into_warning() } else { problem })
    }
}

impl NamespaceUse {
    /// The objects that have no room after the older ones that are served.
    fn refused_objects(&self, limit: u64) -> BTreeSet<ObjectId> {
        let mut refused = BTreeSet::new();
        if self.total <= limit {
            return refused;
        }
        let mut served = 0_u64;
        for ((_, id), bytes) in &self.objects {
            match served.checked_add(*bytes).filter(|sum| *sum <= limit) {
                Some(sum) => served = sum,
                None => drop(refused.insert(id.clone())),
            }
        }
        refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Kind, ObjectKey};

    #[test]
    fn youngest_objects_are_refused() {
        let budgets = Budgets { namespace_bytes: 100, ..Budgets::default() };
        let id = |name: &str| ObjectId::new(Kind::HttpRoute, ObjectKey::new("a", name));
        let mut namespaces = NamespaceBudgets::default();
        let refused = |namespaces: &NamespaceBudgets| -> String {
            ["old", "new", "small"]
                .into_iter()
                .filter(|name| namespaces.problem(&budgets, &id(name)).is_some())
                .collect()
        };
        let none = BTreeSet::new();
        assert_eq!(namespaces.set(&budgets, &id("new"), Some(2), Some(60)), none);
        assert_eq!(namespaces.set(&budgets, &id("small"), Some(3), Some(30)), none);
        assert_eq!(refused(&namespaces), "");
        // An older object takes the place of a younger one; the smallest one still has room.
        assert_eq!(namespaces.set(&budgets, &id("old"), Some(1), Some(60)), BTreeSet::from([id("new")]));
        assert_eq!(refused(&namespaces), "new");
        // Another namespace has a budget of its own.
        let other = ObjectId::new(Kind::HttpRoute, ObjectKey::new("b", "other"));
        assert_eq!(namespaces.set(&budgets, &other, Some(9), Some(100)), none);
        assert!(namespaces.problem(&budgets, &other).is_none());
        assert_eq!(namespaces.set(&budgets, &id("old"), None, None), BTreeSet::from([id("new")]));
        assert_eq!(refused(&namespaces), "");
    }
}
