//! Verdicts with an entry for each Gateway through which an object has an effect: those on policies, and on others that
//! apply to what routes send requests to. Records which routes and Ingresses were counted for each of them.

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::sync::Arc;

use super::precedence::policies_for;
use super::target::TargetedPolicy;
use crate::api::{Kind, ObjectId, ObjectKey, Resource};
use crate::compile::affected::{BackendChange, keys_of_kind};
use crate::compile::verdicts::table::VerdictTable;
use crate::diagnostic::Diagnostic;
use crate::snapshot::rule::{RuleId, WeightedBackends};
use crate::store::{Changes, ObjectTable, Store};
use crate::verdict::{AncestorReference, AncestorVerdict, Code, Condition, Verdict};

/// A kind of objects that have an effect where routes or Ingresses refer to certain objects.
pub(in crate::compile) trait WithUsers: Resource {
    /// The kinds whose requests or connections an object affects.
    const USERS: &'static [Kind];
    /// Whether it also affects connections whose TLS is passed through.
    const AFFECTS_PASSTHROUGH: bool;
    /// What a change of an object affects, if it affects more than the routes that refer to the object.
    const CHANGE: Option<BackendChange> = None;
    /// For an object whose status has entries for the referred objects where these are used without a Gateway, or not
    /// at all: the condition of an object without users, in place of that with the same type.
    const WITHOUT_USERS: Option<Code> = None;

    fn table(store: &Store) -> &ObjectTable<Self>;

    /// The touched objects, and those whose verdict depends on other touched objects.
    fn touched(_store: &Store, touched: &Changes) -> BTreeSet<ObjectKey> {
        keys_of_kind(touched, Self::KIND).cloned().collect()
    }

    /// The objects to which routes refer where this one has an effect.
    fn referred_objects(store: &Store, key: &ObjectKey) -> impl Iterator<Item = ObjectId>;

    /// The objects of the kind that have an effect on a route or Ingress.
    fn affecting(store: &Store, route: &ObjectId) -> impl Iterator<Item = ObjectKey>;

    /// The note on an object without users.
    fn without_users() -> Diagnostic;
}

impl<P: TargetedPolicy> WithUsers for P {
    const USERS: &'static [Kind] = P::USERS;
    const AFFECTS_PASSTHROUGH: bool = P::AFFECTS_PASSTHROUGH;
    const CHANGE: Option<BackendChange> = Some(P::CHANGE);
    const WITHOUT_USERS: Option<Code> = P::WITHOUT_USERS;

    fn table(store: &Store) -> &ObjectTable<Self> {
        P::table(store)
    }

    fn referred_objects(store: &Store, key: &ObjectKey) -> impl Iterator<Item = ObjectId> {
        // A policy may also refer to objects that are not its targets.
        let policy = P::table(store).get(key);
        let references = policy.into_iter().flat_map(|policy| policy.target_references());
        let targets: BTreeSet<ObjectId> =
            references.filter_map(|reference| Some(reference.target::<P>(&key.namespace)?.object_id())).collect();
        targets.into_iter()
    }

    fn affecting(store: &Store, route: &ObjectId) -> impl Iterator<Item = ObjectKey> {
        let targets = store.objects_referenced_by(route).filter(is_target::<P>);
        targets.flat_map(|target| policies_for::<P>(store, &target).map(|policy| policy.meta.key.clone()))
    }

    fn without_users() -> Diagnostic {
        let message = "no route or Ingress that Portico serves sends requests to a target, so it has no effect";
        Diagnostic::warning("spec.targetRefs", message, "refer to the Service in a route")
    }
}

fn is_target<P: TargetedPolicy>(object: &ObjectId) -> bool {
    P::TARGETS.iter().any(|target| target.kind() == object.kind)
}

/// Which routes and Ingresses are served.
pub(in crate::compile) trait ServedUsers {
    /// The Gateways through which a route gets requests or connections, each with the name of its controller.
    /// `includes_passthrough`: also those whose TLS is passed through.
    fn gateways_of_route(&self, route: &ObjectId, includes_passthrough: bool) -> Vec<(ObjectKey, Arc<str>)>;
    fn is_served_ingress(&self, ingress: &ObjectId) -> bool;
    /// Visits each rule of a served route or Ingress that forwards requests, once.
    fn visit_rules(&self, user: &ObjectId, visit: &mut dyn FnMut(&RuleId, &WeightedBackends));
}

/// The routes and Ingresses that use objects of one kind.
#[derive(Debug)]
pub(in crate::compile) struct Users<T> {
    /// By route or Ingress, the objects in whose verdicts it was counted.
    objects: BTreeMap<ObjectId, BTreeSet<ObjectKey>>,
    kind: PhantomData<fn() -> T>,
}

impl<T> Default for Users<T> {
    fn default() -> Self {
        Users { objects: BTreeMap::new(), kind: PhantomData }
    }
}

/// What is found about an object, whatever uses it.
#[expect(clippy::large_enum_variant, reason = "few exist at a time, and none is moved often")]
pub(in crate::compile) enum Findings {
    /// The same for all Gateways.
    Conditions { generation: i64, conditions: Vec<Condition>, diagnostics: Vec<Diagnostic> },
    /// The verdict on an object that has no conditions, since it cannot be read.
    Verdict(Verdict),
}

/// What uses one object.
#[derive(Default)]
struct Use {
    /// With the name of their controller.
    gateways: BTreeMap<ObjectKey, Arc<str>>,
    has_ingress: bool,
    /// The referred objects that Ingresses use.
    of_ingresses: BTreeSet<ObjectId>,
    /// All referred objects.
    referred: BTreeSet<ObjectId>,
}

impl<T: WithUsers> Users<T> {
    /// Whether there may be objects of the kind. Nothing is recorded for them otherwise.
    pub(in crate::compile) fn may_be_needed(&self, store: &Store) -> bool {
        !T::table(store).is_empty() || !self.objects.is_empty()
    }

    /// Updates the verdicts on touched objects, and on those that have an effect on `replanned` routes and Ingresses,
    /// or had one before. `find` returns `None` for an object that does not exist.
    pub(in crate::compile) fn update(
        &mut self,
        store: &Store,
        touched: &Changes,
        replanned: &BTreeSet<ObjectId>,
        served: &impl ServedUsers,
        find: impl Fn(&ObjectKey) -> Option<Findings>,
        verdicts: &mut VerdictTable,
    ) {
        let mut outdated = T::touched(store, touched);
        for route in replanned {
            outdated.extend(self.objects.remove(route).unwrap_or_default());
            outdated.extend(T::affecting(store, route));
        }
        for key in outdated {
            let verdict = find(&key).map(|findings| match findings {
                Findings::Conditions { generation, conditions, diagnostics } => {
                    let used = self.use_of(store, &key, served);
                    Verdict { generation, ..verdict::<T>(used, conditions, diagnostics) }
                }
                Findings::Verdict(verdict) => verdict,
            });
            verdicts.set(ObjectId::new(T::KIND, key), verdict);
        }
    }

    /// Finds what uses an object, and records it.
    fn use_of(&mut self, store: &Store, key: &ObjectKey, served: &impl ServedUsers) -> Use {
        let mut found = Use::default();
        let index = store.dependency_index();
        for object in T::referred_objects(store, key) {
            found.referred.insert(object.clone());
            for user in T::USERS.iter().flat_map(|kind| index.dependents_of_kind(&object, *kind)) {
                if matches!(user.kind, Kind::Ingress | Kind::TcpIngress | Kind::UdpIngress) {
                    let is_served = served.is_served_ingress(user);
                    found.has_ingress |= is_served;
                    found.of_ingresses.extend(is_served.then(|| object.clone()));
                } else {
                    found.gateways.extend(served.gateways_of_route(user, T::AFFECTS_PASSTHROUGH));
                }
                // Also without a Gateway: which fields have an effect depends on all routes that refer to the targets.
                self.objects.entry(user.clone()).or_default().insert(key.clone());
            }
        }
        found
    }
}

fn verdict<T: WithUsers>(used: Use, mut conditions: Vec<Condition>, mut diagnostics: Vec<Diagnostic>) -> Verdict {
    let Use { gateways, has_ingress, of_ingresses, referred } = used;
    let is_used = !gateways.is_empty() || has_ingress;
    let mut further_ancestors = BTreeSet::new();
    match T::WITHOUT_USERS {
        Some(_) if is_used => further_ancestors = of_ingresses,
        Some(code) => {
            further_ancestors = referred;
            let replaced = conditions.iter_mut().find(|condition| condition.code.condition() == code.condition());
            if let Some(condition) = replaced.filter(|condition| condition.code.status()) {
                *condition = Condition::new(code, vec![T::without_users()]);
            }
        }
        None if is_used => {}
        None => {
            // Another controller may use the object, so no event reports its problems.
            let problems = conditions.iter().flat_map(|condition| &condition.diagnostics);
            diagnostics.extend(problems.cloned().map(Diagnostic::into_warning));
            diagnostics.push(T::without_users());
        }
    }
    let of_gateways = gateways.into_iter().map(|(gateway, controller)| AncestorVerdict {
        reference: AncestorReference::Gateway(gateway),
        controller: Some(controller),
        conditions: conditions.clone(),
    });
    let of_objects = further_ancestors.into_iter().map(|object| AncestorVerdict {
        reference: AncestorReference::Target(object.kind, object.key.name),
        controller: None,
        conditions: conditions.clone(),
    });
    let ancestors = of_gateways.chain(of_objects).collect();
    let conditions = if is_used || T::WITHOUT_USERS.is_some() { conditions } else { Vec::new() };
    Verdict { conditions, ancestors, diagnostics, ..Verdict::default() }
}
