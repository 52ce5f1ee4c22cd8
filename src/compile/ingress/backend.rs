//! Resolves the backend of an Ingress path: a Service by port number or name, or a KongServiceFacade.

use std::sync::Arc;

use http::HeaderValue;

use super::super::CompileInputs;
use super::super::backends;
use super::super::endpoints;
use super::policy;
use super::service_settings::{self, AppProtocol, ServiceSettings};
use super::upstream_tls;
use crate::api::core::{Service, ServicePort};
use crate::api::kind::KONG_INCUBATOR_GROUP;
use crate::api::networking::IngressBackend;
use crate::api::{Kind, Meta, Object, ObjectKey};
use crate::diagnostic::Diagnostic;
use crate::store::Store;
use crate::upstream::{UpstreamKey, UpstreamProtocol};

/// The target of a path. Paths with equal targets form one route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum IngressTarget {
    /// The port as written in the object.
    Service(Arc<str>, String),
    Facade(Arc<str>),
    /// An unsupported or missing backend.
    Unsupported,
}

impl IngressTarget {
    pub(super) fn from_backend(backend: &IngressBackend) -> Self {
        if let Some(service) = &backend.service {
            let port = service.port.as_ref();
            let name = port.and_then(|port| port.name.clone()).filter(|name| !name.is_empty());
            let number = port.and_then(|port| port.number).filter(|number| *number != 0);
            let port = name.or(number.map(|number| number.to_string())).unwrap_or_default();
            return IngressTarget::Service(service.name.as_str().into(), port);
        }
        match &backend.resource {
            Some(resource)
                if resource.api_group.as_deref() == Some(KONG_INCUBATOR_GROUP)
                    && resource.kind == Kind::KongServiceFacade.name() =>
            {
                IngressTarget::Facade(resource.name.as_str().into())
            }
            _ => IngressTarget::Unsupported,
        }
    }

    /// The name that Kong's ingress controller gives the service.
    pub(super) fn service_name(&self, namespace: &str) -> String {
        match self {
            IngressTarget::Service(service, port) => format!("{namespace}.{service}.{port}"),
            IngressTarget::Facade(facade) => format!("{namespace}.{facade}.svc.facade"),
            IngressTarget::Unsupported => namespace.to_owned(),
        }
    }

    /// The part after namespace and Ingress of the name that Kong's ingress controller gives the route. `host` is as
    /// written in the object.
    pub(super) fn route_name(&self, host: &str) -> String {
        let host = host.replace('*', "_");
        match self {
            IngressTarget::Service(service, port) => format!("{service}.{host}.{port}"),
            IngressTarget::Facade(facade) => format!("{host}.{facade}.svc.facade"),
            IngressTarget::Unsupported => host,
        }
    }
}

/// A resolved backend.
pub(super) struct ResolvedBackend<'s> {
    pub key: UpstreamKey,
    pub settings: ServiceSettings,
    /// The `Host` sent to the backend instead of the client's.
    pub host: HeaderValue,
    /// The object whose annotations apply.
    pub settings_source: (Kind, &'s Meta),
}

/// `whole`: the class sends requests to the ClusterIP of Services rather than to endpoints.
pub(super) fn resolve<'s>(
    store: &'s Store,
    inputs: &CompileInputs<'_>,
    namespace: &str,
    backend: &IngressBackend,
    whole: bool,
    field: &str,
) -> Result<ResolvedBackend<'s>, Diagnostic> {
    match IngressTarget::from_backend(backend) {
        IngressTarget::Service(name, port) => {
            let service = service(store, namespace, &name, &format!("{field}.service.name"))?;
            let port = find_port(service, &port, &format!("{field}.service.port"))?;
            resolve_service((store, inputs), service, port, None, whole, &format!("{field}.service.name"))
        }
        IngressTarget::Facade(name) => {
            let field = format!("{field}.resource.name");
            let key = ObjectKey::new(namespace, &name);
            let facade = store.kong_service_facades.get(&key);
            let Some(facade) = facade.filter(|facade| inputs.classes.serves_object(store, &facade.meta, None)) else {
                let name = format!("KongServiceFacade {key}");
                let remedy = "set its annotation kubernetes.io/ingress.class to the class of the Ingress";
                return Err(match facade {
                    None => Diagnostic::not_found(field, name, "create it or correct the name"),
                    Some(_) => Diagnostic::error(field, format!("{name} has another class"), remedy),
                });
            };
            let behind = &facade.spec.backend_ref;
            let service = service(store, namespace, &behind.name, &field)?;
            let port = find_port(service, &behind.port.to_string(), &field)?;
            resolve_service((store, inputs), service, port, Some((&facade.meta.key.name, &facade.meta)), whole, &field)
        }
        IngressTarget::Unsupported => {
            let what = backend.resource.as_ref().map(|resource| resource.kind.as_str());
            let message = match what {
                Some(kind) => format!("backends of kind {kind} are not served"),
                None => "the backend has neither service nor resource".to_owned(),
            };
            Err(Diagnostic::error(field, message, "refer to a Service"))
        }
    }
}

fn service<'s>(
    store: &'s Store,
    namespace: &str,
    name: &str,
    field: &str,
) -> Result<&'s Arc<Object<Service>>, Diagnostic> {
    let key = ObjectKey::new(namespace, name);
    store
        .services
        .get(&key)
        .ok_or_else(|| Diagnostic::not_found(field, format!("Service {key}"), "create it or correct the name"))
}

fn find_port<'s>(service: &'s Object<Service>, port: &str, field: &str) -> Result<&'s ServicePort, Diagnostic> {
    let ports = service.spec.ports.iter().filter(|port| backends::is_tcp(port));
    let fits = |candidate: &&ServicePort| match port.parse::<i32>() {
        Ok(number) => candidate.port == number,
        Err(_) => candidate.name == port && !port.is_empty(),
    };
    ports.clone().find(fits).ok_or_else(|| {
        let message = match port {
            "" => format!("the backend names no port of Service {}", service.meta.key),
            port => format!("Service {} has no TCP port {port}", service.meta.key),
        };
        Diagnostic::error(field, message, backends::ports_remedy(&service.spec.ports))
    })
}

fn resolve_service<'s>(
    (store, inputs): (&'s Store, &CompileInputs<'_>),
    service: &'s Object<Service>,
    port: &ServicePort,
    facade: Option<(&Arc<str>, &'s Meta)>,
    whole: bool,
    field: &str,
) -> Result<ResolvedBackend<'s>, Diagnostic> {
    let ObjectKey { namespace, name } = &service.meta.key;
    let (kind, meta, on) = match facade {
        Some((_, meta)) => (Kind::KongServiceFacade, meta, "a KongServiceFacade"),
        None => (Kind::Service, &service.meta, "a Service"),
    };
    let settings = service_settings::read(meta, on, upstream_tls::is_tls_port(port));
    let named = port.app_protocol.as_deref().unwrap_or_default();
    let protocol = match settings.protocol {
        Some(speech) => speech.protocol(),
        None if upstream_tls::is_tls_port(port) => Some(UpstreamProtocol::Http1),
        // An unknown appProtocol is ignored, but TLS must not become plain text.
        None if named == "tls" => None,
        None => Some(backends::protocol_from_app_protocol(named).unwrap_or_default()),
    };
    let Some(protocol) = protocol else {
        let message = format!("{kind} {} requires an unsupported protocol, so no requests are sent to it", meta.key);
        let remedy =
            "set its annotation konghq.com/protocol to http, https, grpc, grpcs, ws or wss if it serves one of these";
        return Err(Diagnostic::error(field, message, remedy));
    };
    if let Some((message, remedy)) = backends::requires_tls(store, inputs, &service.meta.key, port) {
        return Err(Diagnostic::error(field, message, remedy));
    }
    let is_tls = settings.protocol.map_or_else(|| upstream_tls::is_tls_port(port), AppProtocol::is_tls);
    let tls = is_tls.then(|| upstream_tls::tls_settings(store, inputs, meta, protocol, &settings.tls)).transpose();
    let tls = tls.map_err(|problem| upstream_tls::for_referrer(kind, meta, &problem, field))?;
    let number = u16::try_from(port.port).unwrap_or_default();
    let key = UpstreamKey {
        namespace: namespace.clone(),
        service: name.clone(),
        port: number,
        protocol,
        tls,
        facade: facade.map(|(name, _)| name.clone()),
        via_cluster_ip: (whole || settings.via_cluster_ip) && !endpoints::is_headless(service),
    };
    let host = settings.host.clone().or_else(|| policy::host_header(store, meta));
    let host = host.unwrap_or_else(|| default_host(service, number, is_tls));
    Ok(ResolvedBackend { key, settings, host, settings_source: (kind, meta) })
}

/// The `Host` for a Service if neither client nor configuration sets one: the name that Kong's ingress controller gives
/// the service, or the external name of an ExternalName Service.
pub(super) fn default_host(service: &Object<Service>, port: u16, is_tls: bool) -> HeaderValue {
    let ObjectKey { namespace, name } = &service.meta.key;
    let external = service.spec.external_name.as_deref();
    let host = match external.filter(|_| service.spec.kind.as_deref() == Some("ExternalName")) {
        Some(external) => external.trim_end_matches('.').to_owned(),
        None => format!("{name}.{namespace}.{port}.svc"),
    };
    let usual_port = if is_tls { 443 } else { 80 };
    let host = if port == usual_port { host } else { format!("{host}:{port}") };
    HeaderValue::from_str(&host).unwrap_or(HeaderValue::from_static("localhost"))
}
