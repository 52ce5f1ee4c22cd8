//! The budgets that objects of one kind share: that of their namespace, and those of their hosts.

use std::collections::BTreeSet;

use super::host_budget::{HostBudgets, PathExpressions, RouterHost};
use super::namespace_budget::NamespaceBudgets;
use super::{Budgets, Expansion};
use crate::api::ObjectId;
use crate::diagnostic::Diagnostic;

/// How much of the shared budgets an object may use.
#[derive(Clone, Debug)]
pub(in crate::compile) enum BudgetShare {
    /// The bytes that older objects of the namespace leave. An object that expands to more is not planned any further.
    Available(Expansion),
    /// None, for this reason. The object is refused, or served with a warning if budgets only warn.
    Exceeded(Diagnostic),
}

/// The plan of an object, and what it takes of the shared budgets.
#[derive(Debug)]
pub(in crate::compile) struct Planned<P> {
    pub plan: P,
    pub expansion: Expansion,
    pub expressions: PathExpressions,
    /// Where the expressions are tried.
    pub hosts: BTreeSet<RouterHost>,
}

impl<P> Planned<P> {
    /// A plan that takes nothing.
    pub(in crate::compile) fn without_budget(plan: P) -> Self {
        Planned { plan, expansion: 0, expressions: PathExpressions::default(), hosts: BTreeSet::new() }
    }
}

/// What all objects of one kind take of the shared budgets.
#[derive(Debug, Default)]
pub(in crate::compile) struct SharedBudgets {
    namespaces: NamespaceBudgets,
    hosts: HostBudgets,
}

impl SharedBudgets {
    /// Plans an object with `plan`, which returns an error as soon as the object exceeds its share. An object that is
    /// refused is planned once more, with the reason. Also returns the other objects that are now refused or no longer
    /// refused, and must be planned again.
    pub(in crate::compile) fn plan<P>(
        &mut self,
        budgets: &Budgets,
        id: &ObjectId,
        created: Option<i64>,
        mut plan: impl FnMut(BudgetShare) -> Result<Planned<P>, Expansion>,
    ) -> (Option<P>, BTreeSet<ObjectId>) {
        // What all other objects leave is known without looking at each of them, and nearly always suffices.
        let mut planned = plan(BudgetShare::Available(self.namespaces.left_by_others(budgets, id)));
        if planned.is_err() {
            planned = plan(BudgetShare::Available(self.namespaces.left_by_older(budgets, id, created)));
        }
        let expansion = planned.as_ref().map_or_else(|expansion| *expansion, |planned| planned.expansion);
        let mut changed = self.namespaces.set(budgets, id, created, Some(expansion).filter(|bytes| *bytes > 0));
        let mut problem = self.namespaces.problem(budgets, id);
        // The hosts are of interest only if the namespace does not refuse the object.
        let (expressions, hosts) = match &mut planned {
            Ok(planned) if problem.is_none() => (planned.expressions.clone(), std::mem::take(&mut planned.hosts)),
            _ => Default::default(),
        };
        changed.extend(self.hosts.set(id, created, &expressions, hosts));
        problem = problem.or_else(|| self.hosts.problem(budgets, id));
        if let Some(problem) = problem {
            planned = plan(BudgetShare::Exceeded(problem));
        }
        (planned.ok().map(|planned| planned.plan), changed)
    }

    /// Returns the objects that are no longer refused now that this one is gone, and must be planned again.
    pub(in crate::compile) fn remove(&mut self, budgets: &Budgets, id: &ObjectId) -> BTreeSet<ObjectId> {
        let mut changed = self.namespaces.set(budgets, id, None, None);
        changed.extend(self.hosts.set(id, None, &PathExpressions::default(), BTreeSet::new()));
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Kind, ObjectKey};

    /// Otherwise, a hundred large objects take a hundred times the time of one, and most of them are refused.
    #[test]
    fn objects_beyond_their_share_are_planned_in_part_only() {
        let budgets = Budgets { namespace_bytes: 100, ..Budgets::default() };
        let mut shared = SharedBudgets::default();
        // Returns the name with its full expansion, or in upper case if the object is refused.
        let mut plan = |name: &str, age: i64, expansion: u64| {
            let id = ObjectId::new(Kind::HttpRoute, ObjectKey::new("a", name));
            let (plan, changed) = shared.plan(&budgets, &id, Some(age), |share| match share {
                // The planner stops one byte after its share.
                BudgetShare::Available(bytes) if expansion > bytes => Err(bytes + 1),
                BudgetShare::Available(_) => {
                    Ok(Planned { expansion, ..Planned::without_budget(format!("{name}{expansion}")) })
                }
                BudgetShare::Exceeded(_) => Ok(Planned::without_budget(name.to_uppercase())),
            });
            let changed: Vec<_> = changed.iter().map(|id| id.key.name.to_string()).collect();
            (plan.unwrap(), changed.join(" "))
        };
        let planned = |plan: &str, changed: &str| (plan.to_owned(), changed.to_owned());
        assert_eq!(plan("old", 1, 60), planned("old60", ""));
        assert_eq!(plan("new", 3, 90), planned("NEW", ""));
        // An older object takes its place, although a younger one was planned before.
        assert_eq!(plan("mid", 2, 40), planned("mid40", ""));
        // The refused object fits as far as it is known, and is planned again.
        assert_eq!(plan("old", 1, 19), planned("old19", "new"));
        assert_eq!(plan("new", 3, 90), planned("NEW", ""));
        assert_eq!(plan("mid", 2, 5), planned("mid5", "new"));
        assert_eq!(plan("new", 3, 70), planned("new70", ""));
        assert_eq!(plan("old", 1, 96), planned("old96", "mid new"));
    }
}
