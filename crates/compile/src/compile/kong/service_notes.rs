//! Verdicts on Services and facades: notes about their settings, references and endpoints.

use super::plugins;
use super::policy_conflicts::PolicyConflicts;
use super::service_annotations;
use super::service_annotations::{ServiceSettings, TLS_ANNOTATIONS};
use super::upstream_policy;
use crate::api::core::Service;
use crate::api::kong::KongServiceFacade;
use crate::api::kong::annotations::{OVERRIDE, SERVICE_UPSTREAM, UPSTREAM_POLICY};
use crate::api::names::BALANCE_ANNOTATION;
use crate::api::{Kind, Meta, Object, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::backend::AnnotatedProtocol;
use crate::compile::backend::annotated_proxy_protocol::annotated_proxy_protocol;
use crate::compile::backend::endpoint_weights::endpoint_weights;
use crate::compile::backend::forbidden_addresses::ForbiddenAddresses;
use crate::compile::backend::traffic_distribution::TrafficDistribution;
use crate::compile::backend::{annotated_tls, backend_tls_policy, endpoints};
use crate::compile::ingress_class::foreign_annotations;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::compile::policies::backend_policy::{self, Block, overriding_policy};
use crate::compile::policies::target::TargetKind;
use crate::diagnostic::{Diagnostic, Topic};
use crate::store::Store;
use crate::verdict::Verdict;

/// `is_used`: whether routes of this controller use the Service with its own settings.
pub(in crate::compile) fn service_verdict(
    cx: CompileContext<'_>,
    service: &Object<Service>,
    forbidden: &ForbiddenAddresses,
    conflicts: &PolicyConflicts,
    is_used: bool,
) -> Verdict {
    let store = cx.store;
    let conflict = conflicts.for_service(&service.meta.key);
    let CheckedSettings { settings, tls, references, missing_plugins } =
        CheckedSettings::new(cx, (Kind::Service, &service.meta), Some(service), conflict);
    let is_headless = endpoints::is_headless(service);
    let balance_problem = endpoints::annotated_balance(&service.meta).err();
    let mut notes: Vec<_> = balance_problem.map(Diagnostic::into_warning).into_iter().collect();
    notes.extend(endpoint_weights(&service.meta).err().map(Diagnostic::into_warning));
    notes.extend(overridden_settings(store, service));
    notes.extend(TrafficDistribution::problem(service));
    notes.extend(annotated_proxy_protocol(&service.meta).err().map(Diagnostic::into_warning));
    notes.extend(settings.notes);
    notes.extend(foreign_annotations::notes(&service.meta, "a Service"));
    if settings.via_cluster_ip && is_headless {
        notes.push(Diagnostic::warning(
            format!("metadata.annotations[{SERVICE_UPSTREAM}]"),
            "a Service whose clusterIP is None has no address, so requests go to its endpoints",
            "remove the annotation, or omit clusterIP so that the Service gets an address",
        ));
    }
    notes.extend(tls.into_iter().chain(references));
    let via_cluster_ip = settings.via_cluster_ip && !is_headless;
    notes.extend(endpoints::notes(store, service, forbidden, via_cluster_ip));
    notes.extend(missing_plugins);
    // Other controllers may serve an unused Service, and its annotations may be theirs.
    let diagnostics = if is_used { notes } else { without_events(notes) };
    let affected_by = affected_by(store, TargetKind::Service, &service.meta.key, is_used);
    Verdict { generation: service.meta.generation, diagnostics, affected_by, ..Verdict::default() }
}

/// The annotations of a Service whose load balancing or health checks a BackendPolicy replaces.
fn overridden_settings(store: &Store, service: &Object<Service>) -> Vec<Diagnostic> {
    let annotations = [
        (BALANCE_ANNOTATION, &[Block::LoadBalancing][..]),
        (UPSTREAM_POLICY, &[Block::LoadBalancing, Block::PassiveHealth, Block::ActiveHealth]),
        (OVERRIDE, &[Block::LoadBalancing, Block::PassiveHealth, Block::ActiveHealth]),
    ];
    let mut overridden = Vec::new();
    for (annotation, blocks) in annotations {
        let set = blocks.iter().filter(|_| service.meta.annotations.contains_key(annotation));
        for block in set {
            let Some(by) = overriding_policy(store, &service.meta.key, *block) else { continue };
            let message = format!("BackendPolicy {} sets {}, which takes precedence", by.meta.key.name, block.path());
            let remedy = "remove the annotation, or the block of the policy";
            overridden.push(Diagnostic::warning(annotation_field(annotation), message, remedy));
        }
    }
    overridden
}

/// `is_used`: whether Ingresses of this controller use the facade.
pub(in crate::compile) fn facade_verdict(
    cx: CompileContext<'_>,
    facade: &Object<KongServiceFacade>,
    is_used: bool,
) -> Verdict {
    let ObjectKey { namespace, .. } = &facade.meta.key;
    let service = cx.store.services.get(&ObjectKey::new(namespace, &facade.spec.backend_ref.name));
    let service = service.map(|service| &**service);
    let CheckedSettings { settings, tls, references, missing_plugins } =
        CheckedSettings::new(cx, (Kind::KongServiceFacade, &facade.meta), service, None);
    let without_events_if_unused = |notes| if is_used { notes } else { without_events(notes) };
    let mut diagnostics = without_events_if_unused(settings.notes);
    diagnostics.extend(without_events_if_unused(foreign_annotations::notes(&facade.meta, "a KongServiceFacade")));
    // A facade with invalid TLS settings has no upstream, so it never counts as used; events report it nevertheless.
    diagnostics.extend(tls);
    diagnostics.extend(without_events_if_unused(references));
    diagnostics.extend(without_events_if_unused(missing_plugins));
    let affected_by = affected_by(cx.store, TargetKind::Facade, &facade.meta.key, is_used);
    Verdict { generation: facade.meta.generation, diagnostics, affected_by, ..Verdict::default() }
}

/// A policy has no effect on what gets no requests.
fn affected_by(store: &Store, kind: TargetKind, key: &ObjectKey, is_used: bool) -> Option<String> {
    if is_used { backend_policy::affected_by(store, kind, key) } else { None }
}

/// The same notes, but with a topic that no events report. For an object that gets no requests from this controller.
fn without_events(notes: Vec<Diagnostic>) -> Vec<Diagnostic> {
    notes.into_iter().map(|note| note.with_topic(Topic::Field)).collect()
}

/// The annotations of a Service or facade, and diagnostics about what they refer to.
struct CheckedSettings {
    settings: ServiceSettings,
    /// A diagnostic about the certificates for TLS, if connections use TLS.
    tls: Option<Diagnostic>,
    /// Diagnostics about missing policies, and a policy that conflicts with those of other Services.
    references: Vec<Diagnostic>,
    missing_plugins: Vec<Diagnostic>,
}

impl CheckedSettings {
    /// The annotations of `source`, which is the Service itself or a facade in front of it.
    fn new(
        cx: CompileContext<'_>,
        source: (Kind, &Meta),
        service: Option<&Object<Service>>,
        conflict: Option<Diagnostic>,
    ) -> CheckedSettings {
        let (store, (kind, meta)) = (cx.store, source);
        let has_tls_port = service.is_some_and(|service| service.spec.ports.iter().any(annotated_tls::is_tls_port));
        let mut settings = service_annotations::read(meta, kind, has_tls_port);
        let policy = service.and_then(|service| backend_tls_policy::policy_of_all_ports(store, service));
        let uses_annotations = policy.is_none() && settings.protocol.map_or(has_tls_port, AnnotatedProtocol::is_tls);
        let tls = uses_annotations.then(|| annotated_tls::notes(store, meta, &settings.tls)).flatten();
        if let Some(policy) = policy {
            replace_tls_notes(&mut settings.notes, meta, policy);
        }
        let mut references = upstream_policy::notes(store, meta);
        let as_annotation_warning = |problem: Diagnostic| problem.into_warning().with_topic(Topic::Annotation);
        references.extend(conflict.map(as_annotation_warning));
        let missing_plugins = plugins::referenced_plugins(cx, kind, meta).filter_map(Result::err);
        let missing_plugins = missing_plugins.map(as_annotation_warning).collect();
        CheckedSettings { settings, tls, references, missing_plugins }
    }
}

/// Replaces the notes about annotations for TLS by one for each: the policy applies instead.
fn replace_tls_notes(notes: &mut Vec<Diagnostic>, meta: &Meta, policy: &ObjectKey) {
    for key in TLS_ANNOTATIONS.iter().filter(|key| meta.annotations.contains_key(**key)) {
        let field = annotation_field(key);
        notes.retain(|note| note.field != field);
        let message = format!("BackendTLSPolicy {policy} applies instead, so it has no effect");
        notes.push(Diagnostic::warning(field, message, "remove it").with_topic(Topic::Annotation));
    }
}
