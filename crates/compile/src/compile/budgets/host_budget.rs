//! The budget of a host: how many states the regular expressions of its paths may have together. All objects with
//! paths on the host share it, also those of several namespaces, because a request to the host is matched with the
//! expressions of all of them. The youngest objects are refused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::prefix_states::PrefixStates;
use super::{Budgets, MAX_HOST_STATES, OVER_BUDGET};
use crate::api::ObjectId;
use crate::diagnostic::Diagnostic;

/// The expressions of all objects of one kind, by host.
#[derive(Debug, Default)]
pub(in crate::compile) struct HostBudgets {
    hosts: BTreeMap<RouterHost, HostUse>,
    /// When each object with expressions was created, and its hosts.
    objects: BTreeMap<ObjectId, (Option<i64>, BTreeSet<RouterHost>)>,
}

/// A host of a listener. Its paths are those that a request is matched with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::compile) struct RouterHost {
    /// The object that declares the listener, and the listener's name. `None` for the listeners of Ingresses, which
    /// have the same hosts.
    pub listener: Option<(ObjectId, Arc<str>)>,
    /// `*` for all hosts.
    pub host: Box<str>,
}

/// The literal prefix and the number of states of each regular expression of an object's paths.
pub(in crate::compile) type PathExpressions = Arc<[(Box<[u8]>, u32)]>;

/// The objects with expressions on one host.
#[derive(Debug, Default)]
struct HostUse {
    /// The oldest object first, then by name.
    objects: BTreeMap<(Option<i64>, ObjectId), PathExpressions>,
    /// The states of all expressions. If they do not exceed the budget, no path does.
    total: u64,
    refused: BTreeMap<ObjectId, Excess>,
}

/// What a refused object exceeds the budget with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excess {
    states: u64,
    prefix: String,
}

impl HostBudgets {
    /// Sets the expressions of an object and its hosts; without expressions, the object counts nowhere. Returns the
    /// other objects that are now refused or no longer refused.
    pub(in crate::compile) fn set(
        &mut self,
        id: &ObjectId,
        created: Option<i64>,
        expressions: &PathExpressions,
        hosts: BTreeSet<RouterHost>,
    ) -> BTreeSet<ObjectId> {
        let hosts = if expressions.is_empty() { BTreeSet::new() } else { hosts };
        let before = match hosts.is_empty() {
            true => self.objects.remove(id),
            false => self.objects.insert(id.clone(), (created, hosts.clone())),
        };
        let mut changed = BTreeSet::new();
        let (created_before, hosts_before) = before.unwrap_or_default();
        for host in hosts_before.union(&hosts) {
            let shared = self.hosts.entry(host.clone()).or_default();
            shared.remove(&(created_before, id.clone()));
            if hosts.contains(host) {
                shared.insert((created, id.clone()), Arc::clone(expressions));
            }
            let refused = shared.refused_objects();
            let differs = |id: &&ObjectId| shared.refused.contains_key(*id) != refused.contains_key(*id);
            changed.extend(shared.refused.keys().chain(refused.keys()).filter(differs).cloned());
            shared.refused = refused;
            if shared.objects.is_empty() {
                self.hosts.remove(host);
            }
        }
        changed.remove(id);
        changed
    }

    /// A diagnostic if the object is refused, or would be if budgets did not only warn.
    pub(in crate::compile) fn problem(&self, budgets: &Budgets, id: &ObjectId) -> Option<Diagnostic> {
        let (_, hosts) = self.objects.get(id)?;
        let refused = |host| Some((host, self.hosts.get(host)?.refused.get(id)?));
        let (RouterHost { host, .. }, Excess { states, prefix }) = hosts.iter().find_map(refused)?;
        let host = if **host == *"*" { "for all hosts" } else { &format!("of host {host}") };
        let message = format!(
            "the regular expressions {host} that paths with the prefix {prefix:?} are matched with have {states} \
             states together, and the limit is {MAX_HOST_STATES}; this object is one of the youngest with such paths"
        );
        let remedy = "begin each expression with more literal text, or use fewer or smaller expressions";
        let problem = Diagnostic::error("spec.rules", message, remedy).with_reason(OVER_BUDGET);
        Some(if budgets.warn_only { problem.into_warning() } else { problem })
    }
}

impl HostUse {
    fn insert(&mut self, key: (Option<i64>, ObjectId), expressions: PathExpressions) {
        self.total += total(&expressions);
        self.objects.insert(key, expressions);
    }

    fn remove(&mut self, key: &(Option<i64>, ObjectId)) {
        self.total -= self.objects.remove(key).map_or(0, |expressions| total(&expressions));
    }

    /// The objects that do not fit in addition to the older ones.
    fn refused_objects(&self) -> BTreeMap<ObjectId, Excess> {
        let mut refused = BTreeMap::new();
        if self.total <= MAX_HOST_STATES {
            return refused;
        }
        let mut served = PrefixStates::default();
        for ((_, id), expressions) in &self.objects {
            let expressions = expressions.iter().map(|(prefix, states)| (&**prefix, u64::from(*states)));
            if let Err((states, prefix)) = served.add_within(expressions, MAX_HOST_STATES) {
                let prefix = String::from_utf8_lossy(prefix).into_owned();
                refused.insert(id.clone(), Excess { states, prefix });
            }
        }
        refused
    }
}

fn total(expressions: &PathExpressions) -> u64 {
    expressions.iter().map(|(_, states)| u64::from(*states)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Kind, ObjectKey};

    fn id(name: &str) -> ObjectId {
        ObjectId::new(Kind::Ingress, ObjectKey::new(name, name))
    }

    fn hosts(hosts: &[&str]) -> BTreeSet<RouterHost> {
        hosts.iter().map(|host| RouterHost { listener: None, host: Box::from(*host) }).collect()
    }

    /// Otherwise, the expressions of one tenant keep requests of others on the same host from being matched.
    #[test]
    fn youngest_objects_of_a_host_are_refused() {
        let mut budgets = HostBudgets::default();
        let expressions =
            |prefix: &str, states: u32| -> PathExpressions { Arc::new([(prefix.as_bytes().into(), states)]) };
        let refused = |budgets: &HostBudgets| -> String {
            let settings = Budgets::default();
            ["old", "new", "other"].into_iter().filter(|name| budgets.problem(&settings, &id(name)).is_some()).collect()
        };
        let none = BTreeSet::new();
        assert_eq!(budgets.set(&id("new"), Some(3), &expressions("/a", 15_000), hosts(&["*", "x"])), none);
        assert_eq!(budgets.set(&id("other"), Some(4), &expressions("/b", 15_000), hosts(&["*"])), none);
        assert_eq!(refused(&budgets), "");
        let changed = budgets.set(&id("old"), Some(1), &expressions("/a/b", 9_000), hosts(&["*"]));
        assert_eq!((changed, &*refused(&budgets)), (BTreeSet::from([id("new")]), "new"));
        let problem = budgets.problem(&Budgets::default(), &id("new")).unwrap();
        assert_eq!(
            problem.message,
            "the regular expressions for all hosts that paths with the prefix \"/a\" are matched with have 24000 \
             states together, and the limit is 20000; this object is one of the youngest with such paths"
        );
        let changed = budgets.set(&id("old"), Some(1), &PathExpressions::default(), hosts(&["*"]));
        assert_eq!((changed, &*refused(&budgets)), (BTreeSet::from([id("new")]), ""));
        let changed = budgets.set(&id("old"), Some(1), &expressions("", 9_000), hosts(&["x"]));
        assert_eq!((changed, &*refused(&budgets)), (BTreeSet::from([id("new")]), "new"));
    }
}
