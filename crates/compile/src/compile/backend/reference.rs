//! Resolves the backend references of Gateway API routes to upstreams, or to the reason why they cannot be resolved.

use std::borrow::Cow;

use super::x_backend;
use super::x_backend::{SentToXBackend, XBackendError};
use super::{BackendError, BackendSettings, PortReference, StreamBackend, annotated_tls};
use crate::api::core::{Service, ServicePort};
use crate::api::gateway::{BackendObjectReference, XBackend};
use crate::api::kind::CORE_GROUP;
use crate::api::kong::annotations::PROTOCOL;
use crate::api::names::PROXY_PROTOCOL_ANNOTATION;
use crate::api::{Kind, Object, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::backend;
use crate::compile::objects::missing_object::missing_object;
use crate::compile::objects::reference_grants::{CrossNamespaceReference, Referrer};
use crate::diagnostic::Diagnostic;
use crate::snapshot::rule::{BackendTarget, RouteFailure};
use crate::store::Store;
use crate::transport_protocol::TransportProtocol;
use crate::upstream::UpstreamKey;
use crate::verdict::Code;

/// The object and the upstream that a backend reference of a route leads to.
#[derive(Debug)]
pub(in crate::compile) struct ResolvedReference {
    /// The Service that the reference names, whether it exists or not; `None` for an XBackend.
    pub service: Option<ObjectKey>,
    pub upstream: Result<UpstreamKey, (Code, Diagnostic)>,
    /// A backend that cannot be resolved keeps its share of the requests and fails them, as Gateway API specifies,
    /// instead of moving them to other backends.
    pub target: BackendTarget,
}

/// The port of a Service that a reference names.
struct FoundPort<'s> {
    service: &'s Object<Service>,
    port: Cow<'s, ServicePort>,
}

/// Reads how requests are sent to a Service. The settings of each Service apply to that Service only, independent of
/// the rule's other backends.
pub(in crate::compile) type SettingsReader = fn(&Object<Service>) -> BackendSettings<'_>;

/// Resolves the backend reference of a rule or mirror. A diagnostic is about `field`, the path of the reference.
pub(in crate::compile) fn resolve(
    cx: CompileContext<'_>,
    from: Referrer<'_>,
    reference: &BackendObjectReference,
    settings: SettingsReader,
    field: &str,
) -> ResolvedReference {
    if is_x_backend(reference) {
        let sent = if from.kind == Kind::GrpcRoute { SentToXBackend::Calls } else { SentToXBackend::Requests };
        return resolve_x_backend(cx, from, reference, sent, field);
    }
    resolve_service(cx, from, reference, settings, field)
}

/// The upstream of a backend that gets requests in place of another one, as a policy says. `is_for_calls`: the requests
/// are gRPC calls. Unlike [`resolve`], it does not create the upstream, which may turn out not to be used.
pub(in crate::compile) fn alternative_upstream(
    cx: CompileContext<'_>,
    from: Referrer<'_>,
    reference: &BackendObjectReference,
    settings: SettingsReader,
    is_for_calls: bool,
    field: &str,
) -> Result<UpstreamKey, (Code, Diagnostic)> {
    if is_x_backend(reference) {
        let sent = if is_for_calls { SentToXBackend::Calls } else { SentToXBackend::Requests };
        return x_backend_upstream(cx, from, reference, sent, field);
    }
    let found = find_service_port(cx, from, reference, TransportProtocol::Tcp, field)?;
    resolve_upstream(cx, from, &found, &settings(found.service), field)
}

/// Resolves a reference that cannot be to an XBackend.
pub(in crate::compile) fn resolve_service(
    cx: CompileContext<'_>,
    from: Referrer<'_>,
    reference: &BackendObjectReference,
    settings: SettingsReader,
    field: &str,
) -> ResolvedReference {
    let upstream = find_service_port(cx, from, reference, TransportProtocol::Tcp, field)
        .and_then(|found| resolve_upstream(cx, from, &found, &settings(found.service), field));
    resolved(cx, from, reference, upstream)
}

/// Resolves the backend reference of a route for connections or datagrams, which are forwarded unparsed: the
/// application protocol that the Service names does not matter.
pub(in crate::compile) fn resolve_stream(
    cx: CompileContext<'_>,
    from: Referrer<'_>,
    reference: &BackendObjectReference,
    settings: SettingsReader,
    stream: StreamBackend,
    field: &str,
) -> ResolvedReference {
    if is_x_backend(reference) && stream.transport == TransportProtocol::Tcp {
        let sent = SentToXBackend::Connections { is_encrypted: stream.is_encrypted };
        return resolve_x_backend(cx, from, reference, sent, field);
    }
    let upstream = stream_upstream(cx, from, reference, settings, stream, field);
    resolved(cx, from, reference, upstream)
}

/// The upstream of a Service for connections or datagrams.
pub(in crate::compile) fn stream_upstream(
    cx: CompileContext<'_>,
    from: Referrer<'_>,
    reference: &BackendObjectReference,
    settings: SettingsReader,
    stream: StreamBackend,
    field: &str,
) -> Result<UpstreamKey, (Code, Diagnostic)> {
    let FoundPort { service, port } = find_service_port(cx, from, reference, stream.transport, field)?;
    stream_upstream_of_port(cx, service, &port, &settings(service), stream, field)
}

/// The upstream of a port of a Service for connections or datagrams.
pub(in crate::compile) fn stream_upstream_of_port(
    cx: CompileContext<'_>,
    service: &Object<Service>,
    port: &ServicePort,
    settings: &BackendSettings<'_>,
    stream: StreamBackend,
    field: &str,
) -> Result<UpstreamKey, (Code, Diagnostic)> {
    let key = backend::stream_upstream_key(cx, service, port, stream, settings.via_cluster_ip);
    key.map_err(|error| backend_problem(error, &service.meta.key, port, settings, field))
}

fn is_x_backend(reference: &BackendObjectReference) -> bool {
    Kind::find(&reference.group, &reference.kind) == Some(Kind::XBackend)
}

fn resolve_x_backend(
    cx: CompileContext<'_>,
    from: Referrer<'_>,
    reference: &BackendObjectReference,
    sent: SentToXBackend,
    field: &str,
) -> ResolvedReference {
    let upstream = x_backend_upstream(cx, from, reference, sent, field);
    ResolvedReference { service: None, ..resolved(cx, from, reference, upstream) }
}

/// The upstream of the XBackend that a reference names.
fn x_backend_upstream(
    cx: CompileContext<'_>,
    from: Referrer<'_>,
    reference: &BackendObjectReference,
    sent: SentToXBackend,
    field: &str,
) -> Result<UpstreamKey, (Code, Diagnostic)> {
    find_x_backend(cx, from, reference, field).and_then(|backend| {
        let key = &backend.meta.key;
        x_backend::upstream_key(cx, backend, sent).map_err(|error| match error {
            XBackendError::Unusable => {
                let message = format!("XBackend {key} cannot be used, so nothing is sent to it");
                let remedy = "correct the XBackend, as its conditions say";
                (Code::RouteResolvedRefs, Diagnostic::warning(format!("{field}.name"), message, remedy))
            }
            XBackendError::Protocol(predicate) => {
                let message = format!("XBackend {key} {predicate}");
                let remedy = "remove spec.protocol of the XBackend, or refer to another backend";
                (Code::RouteUnsupportedProtocol, Diagnostic::error(format!("{field}.name"), message, remedy))
            }
        })
    })
}

/// The XBackend that a reference names.
fn find_x_backend<'s>(
    cx: CompileContext<'s>,
    from: Referrer<'_>,
    reference: &BackendObjectReference,
    field: &str,
) -> Result<&'s Object<XBackend>, (Code, Diagnostic)> {
    let key = service_key(from.namespace, reference);
    if *key.namespace != *from.namespace {
        let message = "an XBackend can be used only by routes of its own namespace";
        let problem = Diagnostic::error(format!("{field}.namespace"), message, "remove the namespace");
        return Err((Code::RouteRefNotPermitted, problem));
    }
    let Some(backend) = cx.store.x_backends.get(&key) else {
        if cx.inputs.absent_kinds.contains(&Kind::XBackend) {
            let message = "the cluster does not serve XBackends";
            let remedy = "install the experimental channel of the Gateway API, or refer to a Service";
            return Err((Code::RouteInvalidKind, Diagnostic::error(format!("{field}.kind"), message, remedy)));
        }
        let problem = missing_object(cx.store, format!("{field}.name"), Kind::XBackend, &key);
        return Err((Code::RouteBackendNotFound, problem));
    };
    if reference.port.is_some() {
        let message = format!("XBackend {key} contains the port, so the reference must not have one");
        let problem = Diagnostic::error(format!("{field}.port"), message, "remove the port");
        return Err((Code::RouteBackendNotFound, problem));
    }
    Ok(backend)
}

fn resolved(
    cx: CompileContext<'_>,
    from: Referrer<'_>,
    reference: &BackendObjectReference,
    upstream: Result<UpstreamKey, (Code, Diagnostic)>,
) -> ResolvedReference {
    let target = match &upstream {
        Ok(key) => BackendTarget::Upstream(cx.inputs.upstreams.upstream(key)),
        // As in Kong if the Service exists, but the settings for the connection to it are invalid.
        Err((Code::RouteInvalidBackendTls, _)) => BackendTarget::Fail(RouteFailure::NoService),
        Err(_) => BackendTarget::Fail(RouteFailure::InvalidBackend),
    };
    ResolvedReference { service: Some(service_key(from.namespace, reference)), upstream, target }
}

/// The Service that a reference names, if the route may refer to it.
pub(in crate::compile) fn permitted_service<'s>(
    store: &'s Store,
    from: Referrer<'_>,
    reference: &BackendObjectReference,
    field: &str,
) -> Result<&'s Object<Service>, (Code, Diagnostic)> {
    if reference.group != CORE_GROUP || reference.kind != Kind::Service.name() {
        let (subfield, kind) = if reference.group == CORE_GROUP {
            ("kind", reference.kind.clone())
        } else {
            ("group", format!("{}/{}", reference.group, reference.kind))
        };
        let message = match is_x_backend(reference) {
            true => "an XBackend cannot be used here".to_owned(),
            false => format!("backends of kind {kind} are not served"),
        };
        let problem = Diagnostic::error(format!("{field}.{subfield}"), message, "refer to a Service");
        return Err((Code::RouteInvalidKind, problem));
    }
    let target = service_key(from.namespace, reference);
    // Permission is checked before existence, so that a route without permission does not reveal whether the Service
    // exists.
    let crossing = CrossNamespaceReference { from, to: Kind::Service, target: &target };
    if !crossing.is_allowed(store) {
        return Err((Code::RouteRefNotPermitted, crossing.problem(store, format!("{field}.namespace"))));
    }
    backend::find_service(store, &target, &format!("{field}.name"))
        .map_err(|problem| (Code::RouteBackendNotFound, problem))
}

/// The key of the object that a reference of a route in `namespace` names.
fn service_key(namespace: &str, reference: &BackendObjectReference) -> ObjectKey {
    ObjectKey::new(reference.namespace.as_deref().unwrap_or(namespace), &reference.name)
}

/// The Service that a reference names and the port of that Service, if the route may refer to them.
fn find_service_port<'s>(
    cx: CompileContext<'s>,
    from: Referrer<'_>,
    reference: &BackendObjectReference,
    transport: TransportProtocol,
    field: &str,
) -> Result<FoundPort<'s>, (Code, Diagnostic)> {
    let service = permitted_service(cx.store, from, reference, field)?;
    let port = reference.port.map_or(PortReference::Missing, PortReference::Number);
    let port = backend::find_port(service, port, transport, &format!("{field}.port"))
        .map_err(|problem| (Code::RouteBackendNotFound, problem))?;
    Ok(FoundPort { service, port })
}

fn resolve_upstream(
    cx: CompileContext<'_>,
    from: Referrer<'_>,
    FoundPort { service, port }: &FoundPort<'_>,
    settings: &BackendSettings<'_>,
    field: &str,
) -> Result<UpstreamKey, (Code, Diagnostic)> {
    let upstream = backend::upstream_key(cx, from.namespace, service, port, settings);
    upstream.map_err(|error| backend_problem(error, &service.meta.key, port, settings, field))
}

/// Why no requests are sent to a port of a Service, with the code of the condition that reports it.
fn backend_problem(
    error: BackendError,
    service: &ObjectKey,
    port: &ServicePort,
    settings: &BackendSettings<'_>,
    field: &str,
) -> (Code, Diagnostic) {
    let subfield = |name: &str| format!("{field}.{name}");
    match error {
        BackendError::NamedProtocol => {
            let message = format!("annotation {PROTOCOL} of Service {service} names a protocol that is not HTTP");
            let remedy = "set it to http, https, grpc, grpcs, ws or wss if the Service serves one of these";
            (Code::RouteUnsupportedProtocol, Diagnostic::error(subfield("port"), message, remedy))
        }
        BackendError::UnservedAppProtocol => {
            let app_protocol = port.app_protocol.as_deref().unwrap_or_default();
            let message =
                format!("port {} of Service {service} has appProtocol {app_protocol}, which is not served", port.port);
            let remedy = match settings.requires_http2 {
                _ if annotated_tls::is_tls_port(port) => {
                    "create a BackendTLSPolicy for the Service, which says which certificates to trust"
                }
                true => "use kubernetes.io/h2c, grpc, or no appProtocol, if the backend serves HTTP/2 without TLS",
                false => {
                    "use kubernetes.io/h2c if the backend serves HTTP/2 without TLS; http, or no appProtocol, if it \
                     serves HTTP/1.1 without TLS"
                }
            };
            (Code::RouteUnsupportedProtocol, Diagnostic::error(subfield("port"), message, remedy))
        }
        BackendError::TlsRequired(message, remedy) => {
            let message = format!("{message}, so no requests are sent to it");
            (Code::RouteUnsupportedProtocol, Diagnostic::error(subfield("name"), message, remedy))
        }
        // The reference itself is resolved: the policy or the Gateway has the conditions.
        BackendError::InvalidPolicy(message) => {
            let message = format!("{message}, so no requests are sent to it");
            let remedy = "correct the policy, as its conditions say";
            (Code::RouteResolvedRefs, Diagnostic::warning(subfield("name"), message, remedy))
        }
        BackendError::NoClientCertificate(message) => {
            let message = format!("{message}, so no requests are sent to it through this Gateway");
            let remedy = "correct tls.backend, as the conditions of the Gateway say";
            (Code::RouteResolvedRefs, Diagnostic::warning(subfield("name"), message, remedy))
        }
        BackendError::InvalidProxyProtocol(problem) => {
            let message = format!("annotation {PROXY_PROTOCOL_ANNOTATION} of Service {service}: {}", problem.message);
            (Code::RouteUnsupportedProtocol, Diagnostic::error(subfield("name"), message, problem.remedy))
        }
        BackendError::InvalidTls(message, remedy) => {
            (Code::RouteInvalidBackendTls, Diagnostic::error(subfield("name"), message, remedy))
        }
    }
}
