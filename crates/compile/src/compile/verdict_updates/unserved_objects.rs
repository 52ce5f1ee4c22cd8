//! Verdicts on objects whose kind is validated but not served: what does not happen to the Gateways and Services that
//! they name. If one of these is Portico's, users expect an effect, and an event says that
//! there is none.

use std::collections::{BTreeMap, BTreeSet};

use super::served::ServedObjects;
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::affected::keys_of_kind;
use crate::compile::verdicts::table::VerdictTable;
use crate::diagnostic::{Diagnostic, KIND_NOT_SERVED, Reason, Topic};
use crate::store::{Changes, Store, UnservedObject};
use crate::verdict::Verdict;

/// Which route makes a Service one that Portico sends requests to, for the Services that these objects name.
#[derive(Debug, Default)]
pub(in crate::compile) struct ServiceUsers {
    /// By route or Ingress, the objects that name a Service to which it is the first found to refer.
    objects_by_route: BTreeMap<ObjectId, BTreeSet<ObjectId>>,
}

impl ServiceUsers {
    /// Whether there may be an object of these kinds. Nothing is recorded for them otherwise.
    pub(in crate::compile) fn may_be_needed(&self, store: &Store) -> bool {
        !store.unserved.is_empty() || !self.objects_by_route.is_empty()
    }

    /// Updates the verdicts on touched objects of these kinds, and on those that name a Gateway or Service that may
    /// have become Portico's, or may no longer be. `replanned` has the routes and Ingresses that were planned.
    pub(in crate::compile) fn update(
        &mut self,
        cx: CompileContext<'_>,
        touched: &Changes,
        replanned: &BTreeSet<ObjectId>,
        served: ServedObjects<'_>,
        verdicts: &mut VerdictTable,
    ) {
        let mut outdated: BTreeSet<ObjectId> = touched.iter().filter(|id| !id.kind.is_served()).cloned().collect();
        let index = cx.store.dependency_index();
        for gateway in keys_of_kind(touched, Kind::Gateway) {
            let id = ObjectId::new(Kind::Gateway, gateway.clone());
            outdated.extend(NAMES_GATEWAYS.iter().flat_map(|kind| index.dependents_of_kind(&id, *kind)).cloned());
        }
        for route in replanned {
            outdated.extend(self.objects_by_route.remove(route).unwrap_or_default());
            for service in cx.store.services_referenced_by(route) {
                let id = ObjectId::new(Kind::Service, service);
                outdated.extend(NAMES_SERVICES.iter().flat_map(|kind| index.dependents_of_kind(&id, *kind)).cloned());
            }
        }
        for id in outdated {
            let verdict = self.verdict(cx, served, &id);
            verdicts.set(id, verdict);
        }
    }

    /// `None` if the object does not exist.
    fn verdict(&mut self, cx: CompileContext<'_>, served: ServedObjects<'_>, id: &ObjectId) -> Option<Verdict> {
        let generation = cx.store.meta(id)?.generation;
        let diagnostic = self.diagnostic(cx, served, id, cx.store.unserved.get(id)?);
        Some(Verdict { generation, diagnostics: diagnostic.into_iter().collect(), ..Verdict::default() })
    }

    /// `None` if the object names Gateways of other controllers only.
    fn diagnostic(
        &mut self,
        cx: CompileContext<'_>,
        served: ServedObjects<'_>,
        id: &ObjectId,
        object: &UnservedObject,
    ) -> Option<Diagnostic> {
        let kind = object.kind;
        if let Some(controller) = object.controller.as_ref().filter(|name| cx.inputs.controllers.contains(name)) {
            let message = format!("{kind} is not served by this version, so no mesh of controller {controller} exists");
            return Some(of_unserved_kind(Diagnostic::warning("spec.controllerName", message, "remove the object")));
        }
        let own = object.targets.iter().find(|named| self.is_porticos(cx.store, served, id, &named.target));
        if let Some(named) = own {
            let (effect, remedy) = effect_and_remedy(kind, &named.target);
            let message = format!("{kind} is not served by this version, so {effect}");
            return Some(of_unserved_kind(Diagnostic::warning(named.field.as_str(), message, remedy)));
        }
        let is_foreign = |gateway: &ObjectId| {
            let object = cx.store.gateways.get(&gateway.key).filter(|_| gateway.kind == Kind::Gateway);
            object.is_some_and(|gateway| cx.store.class_of(gateway).is_some())
        };
        if !object.targets.is_empty() && object.targets.iter().all(|named| is_foreign(&named.target)) {
            return None;
        }
        let message = format!("{kind} is validated but not served by this version");
        Some(Diagnostic::warning("kind", message, "remove the object if it is meant for Portico"))
    }

    /// Whether Portico serves a Gateway, or sends requests to a Service. `object` names it.
    fn is_porticos(&mut self, store: &Store, served: ServedObjects<'_>, object: &ObjectId, target: &ObjectId) -> bool {
        match target.kind {
            Kind::Gateway => served.parents.gateways.contains_key(&target.key),
            _ => self.sends_requests_to(store, served, object, &target.key),
        }
    }

    /// Whether a served route or Ingress refers to a Service. Records the route, so that `object` is validated
    /// again when the route changes.
    fn sends_requests_to(
        &mut self,
        store: &Store,
        served: ServedObjects<'_>,
        object: &ObjectId,
        service: &ObjectKey,
    ) -> bool {
        let id = ObjectId::new(Kind::Service, service.clone());
        let index = store.dependency_index();
        let mut routes = USES_SERVICES.iter().flat_map(|kind| index.dependents_of_kind(&id, *kind));
        let user = routes.find(|route| served.is_served_user(route));
        if let Some(route) = user {
            self.objects_by_route.entry(route.clone()).or_default().insert(object.clone());
        }
        user.is_some()
    }
}

/// The kinds that name Gateways.
const NAMES_GATEWAYS: &[Kind] = &[Kind::XTelemetryPolicy];
/// The kinds that name Services.
const NAMES_SERVICES: &[Kind] = &[Kind::XTelemetryPolicy];
/// The kinds whose requests such an object would affect.
const USES_SERVICES: &[Kind] = &[Kind::HttpRoute, Kind::GrpcRoute, Kind::Ingress];

fn of_unserved_kind(diagnostic: Diagnostic) -> Diagnostic {
    diagnostic.with_topic(Topic::UnservedKind).with_reason(Reason::Named(KIND_NOT_SERVED))
}

/// What does not happen to a Gateway or Service because a kind is not served, and what to do.
fn effect_and_remedy(kind: Kind, target: &ObjectId) -> (String, &'static str) {
    match kind {
        Kind::XTelemetryPolicy => {
            (format!("no traces of requests to {target} are sent"), "remove the policy, if no traces are needed")
        }
        _ => (format!("it has no effect on {target}"), "remove the object"),
    }
}
