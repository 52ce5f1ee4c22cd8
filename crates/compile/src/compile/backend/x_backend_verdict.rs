//! Verdicts on XBackends: an entry for each Gateway whose routes refer to the XBackend.

use std::collections::BTreeSet;

use super::endpoints;
use super::forbidden_addresses::ForbiddenAddresses;
use super::x_backend::ReadXBackend;
use crate::api::gateway::XBackend;
use crate::api::{Kind, Object, ObjectId, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::affected::keys_of_kind;
use crate::compile::policies::backend_policy;
use crate::compile::policies::target::TargetKind;
use crate::compile::policies::users::{Findings, WithUsers};
use crate::diagnostic::{Diagnostic, Reason};
use crate::store::{Changes, ObjectTable, Store};
use crate::upstream::{UpstreamKey, UpstreamSource};
use crate::verdict::{Code, Condition};

impl WithUsers for XBackend {
    /// UDPRoutes and Ingresses cannot use XBackends.
    const USERS: &'static [Kind] = &[Kind::HttpRoute, Kind::GrpcRoute, Kind::TlsRoute, Kind::TcpRoute];
    const AFFECTS_PASSTHROUGH: bool = true;

    fn table(store: &Store) -> &ObjectTable<Self> {
        &store.x_backends
    }

    fn touched(store: &Store, touched: &Changes) -> BTreeSet<ObjectKey> {
        of_touched(store, touched)
    }

    fn referred_objects(_store: &Store, key: &ObjectKey) -> impl Iterator<Item = ObjectId> {
        std::iter::once(ObjectId::new(Kind::XBackend, key.clone()))
    }

    fn affecting(store: &Store, route: &ObjectId) -> impl Iterator<Item = ObjectKey> {
        store.x_backends_referenced_by(route)
    }

    fn without_users() -> Diagnostic {
        let message = "no route that Portico serves refers to it, so it has no effect";
        Diagnostic::of_object(message, "refer to it in the backendRefs of a route").into_warning()
    }
}

/// What the verdict on an XBackend says; `None` if the XBackend does not exist.
pub(in crate::compile) fn findings(
    cx: CompileContext<'_>,
    forbidden: &ForbiddenAddresses,
    key: &ObjectKey,
) -> Option<Findings> {
    let backend = cx.store.x_backends.get(key)?;
    let mut conditions = conditions(cx, backend);
    let accepted = conditions.iter_mut().find(|condition| condition.code == Code::XBackendAccepted);
    if let Some((accepted, note)) = accepted.zip(note_on_endpoints(cx.store, forbidden, backend)) {
        accepted.diagnostics.push(note);
    }
    let affected = backend_policy::affected_by(cx.store, TargetKind::XBackend, key);
    conditions.extend(affected.map(|fact| Condition::of_fact(Code::XBackendAffected, fact)));
    Some(Findings::Conditions { generation: backend.meta.generation, conditions, diagnostics: Vec::new() })
}

/// A warning if an XBackend selects Pods, and none of them is ready.
fn note_on_endpoints(store: &Store, forbidden: &ForbiddenAddresses, backend: &Object<XBackend>) -> Option<Diagnostic> {
    backend.spec.pod_selector()?;
    let ObjectKey { namespace, name: service } = backend.meta.key.clone();
    let port = u16::try_from(backend.spec.port.number?).ok()?;
    let source = UpstreamSource::XBackend;
    let key = UpstreamKey { namespace, service, port, source, ..UpstreamKey::default() };
    let addresses = endpoints::addresses_of(store, &key, forbidden).unwrap_or_default();
    let message = "no Pod with these labels is ready, so requests get status 503";
    let remedy = "check the labels of the Pods; if they are right, the log of Portico says why their Service \
                  cannot be written";
    addresses.is_empty().then(|| Diagnostic::warning("spec.endpointSelector.matchLabels", message, remedy))
}

/// The touched XBackends, and those whose Pods a touched Service selects.
pub(in crate::compile) fn of_touched(store: &Store, touched: &Changes) -> BTreeSet<ObjectKey> {
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
