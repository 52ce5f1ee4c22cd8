//! Resolves the backend of an Ingress path, in every dialect: a Service by port number or name, or a facade in front of
//! one.

use std::sync::Arc;

use http::HeaderValue;

use crate::api::core::{Service, ServicePort};
use crate::api::networking::IngressBackend;
use crate::api::{Kind, Meta, Object, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::backend;
use crate::compile::backend::route_tls::RouteTls;
use crate::compile::backend::{
    AnnotatedProtocol, BackendError, BackendSettings, PortReference, UnknownAppProtocol, annotated_tls, find_port,
    find_service,
};
use crate::compile::ingress_class::foreign_annotations;
use crate::compile::kong::service_annotations::ServiceSettings;
use crate::compile::kong::{service_annotations, service_facade, upstream_policy};
use crate::diagnostic::Diagnostic;
use crate::store::Store;
use crate::transport_protocol::TransportProtocol;
use crate::upstream::UpstreamKey;

/// The target of an Ingress path. Paths of one host with equal targets form one route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::compile::ingress) enum IngressTarget {
    /// The name and the port (a number or a name; empty if it is missing) in the Ingress.
    Service(Arc<str>, String),
    Facade(Arc<str>),
    /// An unsupported or missing backend.
    Unsupported,
}

impl IngressTarget {
    pub(in crate::compile::ingress) fn from_backend(backend: &IngressBackend) -> Self {
        if let Some(service) = &backend.service {
            let port = service.port.as_ref();
            let name = port.and_then(|port| port.name.clone()).filter(|name| !name.is_empty());
            let number = port.and_then(|port| port.number).filter(|number| *number != 0);
            let port = name.or(number.map(|number| number.to_string())).unwrap_or_default();
            return IngressTarget::Service(service.name.as_str().into(), port);
        }
        match &backend.resource {
            Some(resource) if service_facade::is_facade(resource) => {
                IngressTarget::Facade(resource.name.as_str().into())
            }
            _ => IngressTarget::Unsupported,
        }
    }

    /// The name that Kong's ingress controller gives the service.
    pub(in crate::compile::ingress) fn service_name(&self, namespace: &str) -> String {
        match self {
            IngressTarget::Service(service, port) => format!("{namespace}.{service}.{port}"),
            IngressTarget::Facade(facade) => format!("{namespace}.{facade}.svc.facade"),
            IngressTarget::Unsupported => namespace.to_owned(),
        }
    }

    /// The name that Kong's ingress controller gives the route, without its first two parts (namespace and Ingress).
    /// `host` is the host in the Ingress.
    pub(in crate::compile::ingress) fn route_name(&self, host: &str) -> String {
        let host = host.replace('*', "_");
        match self {
            IngressTarget::Service(service, port) => format!("{service}.{host}.{port}"),
            IngressTarget::Facade(facade) => format!("{host}.{facade}.svc.facade"),
            IngressTarget::Unsupported => host,
        }
    }
}

/// A resolved backend.
pub(in crate::compile::ingress) struct ResolvedBackend<'s> {
    pub key: UpstreamKey,
    pub settings: ServiceSettings,
    /// The `Host` for the backend, unless the client's is kept.
    pub host: HeaderValue,
    /// The object whose annotations apply.
    pub settings_source: (Kind, &'s Meta),
}

impl ResolvedBackend<'_> {
    /// An error if the Service, or the facade in front of it, has a guard of another controller. `field`: the field of
    /// the backend.
    pub(in crate::compile::ingress) fn foreign_guard(&self, store: &Store, field: &str) -> Option<Diagnostic> {
        let (kind, meta) = self.settings_source;
        let part = if kind == Kind::Service { "service" } else { "resource" };
        let field = || format!("{field}.{part}.name");
        foreign_annotations::check_backend(kind, meta, field).or_else(|| {
            let service = ObjectKey { namespace: self.key.namespace.clone(), name: self.key.service.clone() };
            let service = store.services.get(&service).filter(|_| kind != Kind::Service)?;
            foreign_annotations::check_backend(Kind::Service, &service.meta, field)
        })
    }
}

/// Resolves the backend of a path. `class_uses_cluster_ip`: whether the parameters of the class make all requests go to
/// the ClusterIP of Services instead of their endpoints. `protocol`: that of the Ingress, which precedes that of the
/// Service.
pub(in crate::compile::ingress) fn resolve<'s>(
    cx: CompileContext<'s>,
    namespace: &str,
    backend: &IngressBackend,
    through: Connection<'_>,
    field: &str,
) -> Result<ResolvedBackend<'s>, Diagnostic> {
    match IngressTarget::from_backend(backend) {
        IngressTarget::Service(name, port) => {
            let name_field = format!("{field}.service.name");
            let service = find_service(cx.store, &ObjectKey::new(namespace, &name), &name_field)?;
            let port =
                find_port(service, port_reference(&port), TransportProtocol::Tcp, &format!("{field}.service.port"))?;
            resolve_service(cx, service, &port, (Kind::Service, &service.meta), through, &name_field)
        }
        IngressTarget::Facade(name) => {
            let name_field = format!("{field}.resource.name");
            let facade = service_facade::find(cx, &ObjectKey::new(namespace, &name), &name_field)?;
            let service = find_service(cx.store, &facade.service, &name_field)?;
            let port = find_port(service, port_reference(&facade.port), TransportProtocol::Tcp, &name_field)?;
            resolve_service(cx, service, &port, facade.settings_source, through, &name_field)
        }
        IngressTarget::Unsupported => {
            let resource_kind = backend.resource.as_ref().map(|resource| resource.kind.as_str());
            let message = match resource_kind {
                Some(kind) => format!("backends of kind {kind} are not served"),
                None => "the backend has neither service nor resource".to_owned(),
            };
            Err(Diagnostic::error(field, message, "refer to a Service"))
        }
    }
}

fn port_reference(port: &str) -> PortReference<'_> {
    match port.parse() {
        Ok(number) => PortReference::Number(number),
        Err(_) if port.is_empty() => PortReference::Missing,
        Err(_) => PortReference::Name(port),
    }
}

/// What precedes the settings of a Service.
#[derive(Clone, Copy, Default)]
pub(in crate::compile::ingress) struct Connection<'a> {
    /// Whether requests go to the ClusterIP instead of the endpoints.
    pub via_cluster_ip: bool,
    pub protocol: Option<AnnotatedProtocol>,
    pub tls: Option<&'a RouteTls>,
}

/// `source` is the object whose annotations apply.
fn resolve_service<'s>(
    cx: CompileContext<'s>,
    service: &'s Object<Service>,
    port: &ServicePort,
    source: (Kind, &'s Meta),
    through: Connection<'_>,
    field: &str,
) -> Result<ResolvedBackend<'s>, Diagnostic> {
    let (kind, meta) = source;
    let settings = service_annotations::read(meta, kind, annotated_tls::is_tls_port(port));
    let backend_settings = BackendSettings {
        source,
        protocol: through.protocol.or(settings.protocol),
        requires_http2: false,
        tls_by_app_protocol: true,
        unknown_app_protocol: UnknownAppProtocol::Ignore,
        via_cluster_ip: through.via_cluster_ip || settings.via_cluster_ip,
        tls: settings.tls.clone(),
        route_tls: through.tls,
    };
    let namespace = &service.meta.key.namespace;
    let key = backend::upstream_key(cx, namespace, service, port, &backend_settings).map_err(|error| {
        let (message, remedy) = match error {
            BackendError::NamedProtocol | BackendError::UnservedAppProtocol => (
                format!("{kind} {} requires an unsupported protocol", meta.key),
                "set its annotation konghq.com/protocol to http, https, grpc, grpcs, ws or wss if it serves one of \
                 these"
                    .to_owned(),
            ),
            BackendError::TlsRequired(message, remedy) => (message, remedy.to_owned()),
            // An Ingress has no Gateway, so the last one does not occur.
            BackendError::InvalidPolicy(message) | BackendError::NoClientCertificate(message) => {
                (message, "correct the policy".to_owned())
            }
            BackendError::InvalidTls(message, remedy) => (message, remedy),
            // Requests have no PROXY header, so this does not occur either.
            BackendError::InvalidProxyProtocol(problem) => (problem.message, problem.remedy),
        };
        Diagnostic::error(field, message, remedy)
    })?;
    let host = settings.host.clone().or_else(|| upstream_policy::host_header(cx.store, meta));
    let host = host.unwrap_or_else(|| service_annotations::default_host(service, key.port, key.tls.is_some()));
    Ok(ResolvedBackend { key, settings, host, settings_source: source })
}
