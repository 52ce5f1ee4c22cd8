//! Verdicts on XBackends: an entry for each Gateway whose routes refer to the XBackend.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::affected::keys_of_kind;
use super::backend::endpoints;
use super::backend::x_backend::ReadXBackend;
use super::route_plan::RouteKind;
use super::verdict::{AncestorReference, AncestorVerdict, Code, Condition, Verdict};
use super::{CompileContext, CompileRun, Compiler};
use crate::api::gateway::XBackend;
use crate::api::{Kind, Object, ObjectId, ObjectKey};
use crate::diagnostic::{Diagnostic, Reason};
use crate::store::{Changes, Store};
use crate::upstream::{UpstreamKey, UpstreamSource};

/// By route, the XBackends in whose verdicts it was counted.
#[derive(Debug, Default)]
pub(super) struct XBackendUsers(BTreeMap<ObjectId, BTreeSet<ObjectKey>>);

impl Compiler {
    /// Whether there may be XBackends. Nothing is recorded for them otherwise.
    pub(super) fn has_x_backends(&self, store: &Store) -> bool {
        !store.x_backends.is_empty() || !self.x_backend_users.0.is_empty()
    }

    /// Updates the verdicts on touched XBackends, and on those to which `replanned` routes refer or referred.
    pub(super) fn update_x_backend_verdicts(
        &mut self,
        cx: CompileContext<'_>,
        touched: &Changes,
        replanned: &BTreeSet<ObjectId>,
        run: &mut CompileRun,
    ) {
        let mut outdated = of_touched(cx.store, touched);
        for route in replanned {
            outdated.extend(self.x_backend_users.0.remove(route).unwrap_or_default());
            outdated.extend(cx.store.x_backends_referenced_by(route));
        }
        for key in outdated {
            let verdict = self.x_backend_verdict(cx, &key);
            self.set_verdict(ObjectId::new(Kind::XBackend, key), verdict, run);
        }
    }

    /// `None` if the XBackend does not exist.
    fn x_backend_verdict(&mut self, cx: CompileContext<'_>, key: &ObjectKey) -> Option<Verdict> {
        let backend = cx.store.x_backends.get(key)?;
        let gateways = self.gateways_that_use(cx.store, key);
        let mut conditions = conditions(cx, backend);
        let accepted = conditions.iter_mut().find(|condition| condition.code == Code::XBackendAccepted);
        if let Some((accepted, note)) = accepted.zip(self.note_on_endpoints(cx.store, backend)) {
            accepted.diagnostics.push(note);
        }
        let mut diagnostics = Vec::new();
        if gateways.is_empty() {
            // Another controller may serve the XBackend, so no event reports its problems.
            let problems = conditions.iter().flat_map(|condition| &condition.diagnostics);
            diagnostics.extend(problems.cloned().map(Diagnostic::into_warning));
            let message = "no route that Portico serves refers to it, so it has no effect";
            diagnostics
                .push(Diagnostic::of_object(message, "refer to it in the backendRefs of a route").into_warning());
        }
        let own_conditions = if gateways.is_empty() { Vec::new() } else { conditions.clone() };
        let ancestors = gateways.into_iter().map(|(gateway, controller)| AncestorVerdict {
            reference: AncestorReference::Gateway(gateway),
            controller: Some(controller),
            conditions: conditions.clone(),
        });
        let ancestors = ancestors.collect();
        let generation = backend.meta.generation;
        Some(Verdict { generation, conditions: own_conditions, ancestors, diagnostics, ..Verdict::default() })
    }

    /// A warning if an XBackend selects Pods, and none of them is ready.
    fn note_on_endpoints(&self, store: &Store, backend: &Object<XBackend>) -> Option<Diagnostic> {
        backend.spec.pod_selector()?;
        let ObjectKey { namespace, name: service } = backend.meta.key.clone();
        let port = u16::try_from(backend.spec.port.number?).ok()?;
        let source = UpstreamSource::XBackend;
        let key = UpstreamKey { namespace, service, port, source, ..UpstreamKey::default() };
        let addresses = endpoints::addresses_of(store, &key, &self.forbidden).unwrap_or_default();
        let message = "no Pod with these labels is ready, so requests get status 503";
        let remedy = "check the labels of the Pods; if they are right, the log of Portico says why their Service \
                      cannot be written";
        addresses.is_empty().then(|| Diagnostic::warning("spec.endpointSelector.matchLabels", message, remedy))
    }

    /// The Gateways to which routes with a reference to an XBackend attach, each with the name of its controller.
    /// Records these routes. UDPRoutes cannot use XBackends.
    fn gateways_that_use(&mut self, store: &Store, key: &ObjectKey) -> BTreeMap<ObjectKey, Arc<str>> {
        let mut gateways = BTreeMap::new();
        let routes = store.dependency_index().dependents(&ObjectId::new(Kind::XBackend, key.clone()));
        for route in routes.filter(|id| RouteKind::of(id.kind).is_some_and(|kind| kind != RouteKind::Udp)) {
            let attachments = self.routes.get(route).map(|plan| &*plan.attachments).unwrap_or_default();
            for attachment in attachments {
                let Some(gateway) = self.parents.gateways.get(&attachment.gateway) else { continue };
                gateways.insert(attachment.gateway.clone(), Arc::clone(&gateway.controller));
            }
            if !attachments.is_empty() {
                self.x_backend_users.0.entry(route.clone()).or_default().insert(key.clone());
            }
        }
        gateways
    }
}

/// The touched XBackends, and those whose Pods a touched Service selects.
pub(super) fn of_touched(store: &Store, touched: &Changes) -> BTreeSet<ObjectKey> {
    let mut backends: BTreeSet<ObjectKey> = keys_of_kind(touched, Kind::XBackend).cloned().collect();
    if !store.x_backends.is_empty() {
        let services = touched.iter().filter(|id| id.kind == Kind::Service);
        let index = store.dependency_index();
        let selecting = services.flat_map(|service| index.dependents_of_kind(service, Kind::XBackend));
        backends.extend(selecting.map(|backend| backend.key.clone()));
    }
    backends
}

/// Accepted and, if the XBackend has references, ResolvedRefs. They are the same for all Gateways.
fn conditions(cx: CompileContext<'_>, backend: &Object<XBackend>) -> Vec<Condition> {
    let read = ReadXBackend::new(cx, backend);
    let is_usable = read.is_usable();
    let ReadXBackend { invalid, unsupported, unresolved, lacks_authorities, notes, .. } = read;
    let has_other_reason = |field: &str, message: &str| {
        let remedy = "correct the references; the condition ResolvedRefs has the reasons";
        vec![Diagnostic::error(field, message, remedy).with_reason(Reason::OtherCondition)]
    };
    let accepted = if !invalid.is_empty() {
        Condition::new(Code::XBackendInvalid, invalid.into_iter().chain(unsupported).collect())
    } else if !unsupported.is_empty() {
        Condition::new(Code::XBackendUnsupportedValue, unsupported)
    } else if lacks_authorities {
        let message = "no reference leads to a certificate, so nothing is sent to the backend";
        let problems = has_other_reason("spec.tls.validation.caCertificateRefs", message);
        Condition::new(Code::XBackendNoValidCaCertificate, problems)
    } else if !is_usable {
        let message = "the client certificate cannot be used, so nothing is sent to the backend";
        Condition::new(Code::XBackendInvalid, has_other_reason("spec.tls.clientCertificateRef", message))
    } else {
        Condition::new(Code::XBackendAccepted, notes)
    };
    let has_references = backend.spec.tls.as_ref().is_some_and(|tls| tls.validation.is_some());
    let resolved_refs = has_references.then(|| {
        let mut resolved_refs = Condition::without_diagnostics(Code::XBackendResolvedRefs);
        for (code, problem) in unresolved {
            resolved_refs.add(code, problem);
        }
        resolved_refs
    });
    [accepted].into_iter().chain(resolved_refs).collect()
}
