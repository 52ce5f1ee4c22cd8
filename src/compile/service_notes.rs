//! Verdicts on Services and facades: notes about their settings, references and endpoints.

use super::backend::AppProtocol;
use super::backend::{endpoints, tls};
use super::forbidden_addresses::ForbiddenAddresses;
use super::ingress::policy;
use super::ingress::policy_conflicts::PolicyConflicts;
use super::ingress::service_settings::{self, ServiceSettings};
use super::plugins;
use super::verdict::{FieldDiagnostic, Verdict};
use crate::api::core::Service;
use crate::api::kong::KongServiceFacade;
use crate::api::kong::annotations::SERVICE_UPSTREAM;
use crate::api::{Kind, Meta, Object, ObjectKey};
use crate::store::Store;

/// `is_used`: whether routes of this controller use the Service with its own settings.
pub(super) fn service_verdict(
    store: &Store,
    service: &Object<Service>,
    forbidden: &ForbiddenAddresses,
    conflicts: &PolicyConflicts,
    is_used: bool,
) -> Verdict {
    let has_tls_port = service.spec.ports.iter().any(tls::is_tls_port);
    let conflict = conflicts.for_service(&service.meta.key);
    let CheckedSettings { settings, tls, references, missing_plugins } =
        CheckedSettings::new(store, Kind::Service, &service.meta, has_tls_port, conflict);
    let is_headless = endpoints::is_headless(service);
    let mut notes: Vec<_> = endpoints::annotated_balance(&service.meta).err().into_iter().collect();
    notes.extend(settings.notes);
    if settings.via_cluster_ip && is_headless {
        notes.push(FieldDiagnostic::new(
            format!("metadata.annotations[{SERVICE_UPSTREAM}]"),
            "a Service whose clusterIP is None has no address, so requests go to its endpoints",
            "remove the annotation, or omit clusterIP so that the Service gets an address",
        ));
    }
    notes.extend(tls.iter().chain(&references).cloned());
    let via_cluster_ip = settings.via_cluster_ip && !is_headless;
    notes.extend(endpoints::notes(store, service, forbidden, conflicts, via_cluster_ip));
    notes.extend(missing_plugins.iter().cloned());

    // Other controllers may serve an unused Service, and its annotations may be theirs.
    let mut ignored = Vec::new();
    if is_used {
        ignored.extend(tls);
        ignored.extend(settings.ignored_annotations);
        ignored.extend(references);
        ignored.extend(missing_plugins);
    }
    Verdict { generation: service.meta.generation, notes, ignored_annotations: ignored, ..Verdict::default() }
}

/// `is_used`: whether Ingresses of this controller use its Service through it.
pub(super) fn facade_verdict(store: &Store, facade: &Object<KongServiceFacade>, is_used: bool) -> Verdict {
    let ObjectKey { namespace, .. } = &facade.meta.key;
    let behind = store.services.get(&ObjectKey::new(namespace, &facade.spec.backend_ref.name));
    let has_tls_port = behind.is_some_and(|service| service.spec.ports.iter().any(tls::is_tls_port));
    let CheckedSettings { settings, tls, references, missing_plugins } =
        CheckedSettings::new(store, Kind::KongServiceFacade, &facade.meta, has_tls_port, None);
    let mut notes = settings.notes;
    notes.extend(tls.iter().chain(&references).chain(&missing_plugins).cloned());

    // A facade whose TLS is impossible has no upstream, so it never counts as used.
    let mut ignored: Vec<_> = tls.into_iter().collect();
    if is_used {
        ignored.extend(settings.ignored_annotations);
        ignored.extend(references);
        ignored.extend(missing_plugins);
    }
    Verdict { generation: facade.meta.generation, notes, ignored_annotations: ignored, ..Verdict::default() }
}

/// The annotations of a Service or facade, and diagnostics about what they refer to.
struct CheckedSettings {
    settings: ServiceSettings,
    /// A diagnostic about the certificates for TLS, if connections use it.
    tls: Option<FieldDiagnostic>,
    /// Diagnostics about missing policies, and a policy that conflicts with those of other Services.
    references: Vec<FieldDiagnostic>,
    missing_plugins: Vec<FieldDiagnostic>,
}

impl CheckedSettings {
    /// `has_tls_port`: whether the `appProtocol` of a port is a TLS protocol.
    fn new(
        store: &Store,
        kind: Kind,
        meta: &Meta,
        has_tls_port: bool,
        conflict: Option<FieldDiagnostic>,
    ) -> CheckedSettings {
        let settings = service_settings::read(meta, kind, has_tls_port);
        let uses_tls = settings.protocol.map_or(has_tls_port, AppProtocol::is_tls);
        let tls = uses_tls.then(|| tls::notes(store, meta, &settings.tls)).flatten();
        let mut references = policy::notes(store, meta);
        references.extend(conflict);
        let missing_plugins = plugins::referenced_plugins(store, kind, meta).filter_map(Result::err).collect();
        CheckedSettings { settings, tls, references, missing_plugins }
    }
}
