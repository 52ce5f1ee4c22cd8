//! Where a path of an Ingress leads: a Service by a port's number or name, or a facade that stands in for one.

use std::sync::Arc;

use http::HeaderValue;

use super::super::Inputs;
use super::super::backends;
use super::super::endpoints;
use super::super::verdict::Problem;
use super::policy;
use super::service_settings::{self, ServiceSettings, Speech};
use super::upstream_tls;
use crate::api::core::{Service, ServicePort};
use crate::api::kind::KONG_INCUBATOR_GROUP;
use crate::api::networking::IngressBackend;
use crate::api::{Kind, Meta, Object, ObjectKey};
use crate::store::Store;
use crate::upstream::{Protocol, UpstreamKey};

/// Which of the paths of an Ingress belong together: those that lead to the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lead {
    /// The port as it is written.
    Service(Arc<str>, String),
    Facade(Arc<str>),
    /// Nothing that we know.
    Nothing,
}

impl Lead {
    pub(super) fn of(backend: &IngressBackend) -> Self {
        if let Some(service) = &backend.service {
            let port = service.port.as_ref();
            let name = port.and_then(|port| port.name.clone()).filter(|name| !name.is_empty());
            let number = port.and_then(|port| port.number).filter(|number| *number != 0);
            let port = name.or(number.map(|number| number.to_string())).unwrap_or_default();
            return Lead::Service(service.name.as_str().into(), port);
        }
        match &backend.resource {
            Some(resource)
                if resource.api_group.as_deref() == Some(KONG_INCUBATOR_GROUP)
                    && resource.kind == Kind::KongServiceFacade.name() =>
            {
                Lead::Facade(resource.name.as_str().into())
            }
            _ => Lead::Nothing,
        }
    }

    /// As Kong's ingress controller names the service.
    pub(super) fn service_name(&self, namespace: &str) -> String {
        match self {
            Lead::Service(service, port) => format!("{namespace}.{service}.{port}"),
            Lead::Facade(facade) => format!("{namespace}.{facade}.svc.facade"),
            Lead::Nothing => namespace.to_owned(),
        }
    }

    /// What follows namespace and Ingress in the name that Kong's ingress controller gives the route. `host` is as it is
    /// written.
    pub(super) fn route_name(&self, host: &str) -> String {
        let host = host.replace('*', "_");
        match self {
            Lead::Service(service, port) => format!("{service}.{host}.{port}"),
            Lead::Facade(facade) => format!("{host}.{facade}.svc.facade"),
            Lead::Nothing => host,
        }
    }
}

/// A backend with all its questions answered.
pub(super) struct Resolved<'s> {
    pub key: UpstreamKey,
    pub settings: ServiceSettings,
    /// What an endpoint is asked for if not for the client's host.
    pub host: HeaderValue,
    /// Whose annotations count.
    pub speaks: (Kind, &'s Meta),
}

/// `whole`: the class says that requests go to Services rather than to endpoints.
pub(super) fn resolve<'s>(
    store: &'s Store,
    inputs: &Inputs<'_>,
    namespace: &str,
    backend: &IngressBackend,
    whole: bool,
    field: &str,
) -> Result<Resolved<'s>, Problem> {
    match Lead::of(backend) {
        Lead::Service(name, port) => {
            let service = service(store, namespace, &name, &format!("{field}.service.name"))?;
            let port = port_of(service, &port, &format!("{field}.service.port"))?;
            resolved((store, inputs), service, port, None, whole, &format!("{field}.service.name"))
        }
        Lead::Facade(name) => {
            let field = format!("{field}.resource.name");
            let key = ObjectKey::new(namespace, &name);
            let facade = store.kong_service_facades.get(&key);
            let Some(facade) = facade.filter(|facade| inputs.classes.own(store, &facade.meta, None)) else {
                let (message, remedy) = match facade {
                    None => (format!("KongServiceFacade {key} does not exist"), "create it or correct the name"),
                    Some(_) => (
                        format!("KongServiceFacade {key} is of another class"),
                        "give it the class of the Ingress in the annotation kubernetes.io/ingress.class",
                    ),
                };
                return Err(Problem::new(field, message, remedy));
            };
            let behind = &facade.spec.backend_ref;
            let service = service(store, namespace, &behind.name, &field)?;
            let port = port_of(service, &behind.port.to_string(), &field)?;
            resolved((store, inputs), service, port, Some((&facade.meta.key.name, &facade.meta)), whole, &field)
        }
        Lead::Nothing => {
            let what = backend.resource.as_ref().map(|resource| resource.kind.as_str());
            let message = match what {
                Some(kind) => format!("backends of kind {kind} are not served"),
                None => "neither service nor resource is given".to_owned(),
            };
            Err(Problem::new(field, message, "refer to a Service"))
        }
    }
}

fn service<'s>(
    store: &'s Store,
    namespace: &str,
    name: &str,
    field: &str,
) -> Result<&'s Arc<Object<Service>>, Problem> {
    let key = ObjectKey::new(namespace, name);
    store
        .services
        .get(&key)
        .ok_or_else(|| Problem::new(field, format!("Service {key} does not exist"), "create it or correct the name"))
}

fn port_of<'s>(service: &'s Object<Service>, port: &str, field: &str) -> Result<&'s ServicePort, Problem> {
    let ports = service.spec.ports.iter().filter(|port| backends::is_tcp(port));
    let fits = |candidate: &&ServicePort| match port.parse::<i32>() {
        Ok(number) => candidate.port == number,
        Err(_) => candidate.name == port && !port.is_empty(),
    };
    ports.clone().find(fits).ok_or_else(|| {
        let message = match port {
            "" => format!("no port of Service {} is given", service.meta.key),
            port => format!("Service {} has no TCP port {port}", service.meta.key),
        };
        Problem::new(field, message, backends::ports_remedy(&service.spec.ports))
    })
}

fn resolved<'s>(
    (store, inputs): (&'s Store, &Inputs<'_>),
    service: &'s Object<Service>,
    port: &ServicePort,
    facade: Option<(&Arc<str>, &'s Meta)>,
    whole: bool,
    field: &str,
) -> Result<Resolved<'s>, Problem> {
    let ObjectKey { namespace, name } = &service.meta.key;
    let (kind, meta, on) = match facade {
        Some((_, meta)) => (Kind::KongServiceFacade, meta, "a KongServiceFacade"),
        None => (Kind::Service, &service.meta, "a Service"),
    };
    let settings = service_settings::read(meta, on, upstream_tls::is_tls_port(port));
    let named = port.app_protocol.as_deref().unwrap_or_default();
    let protocol = match settings.protocol {
        Some(speech) => speech.protocol(),
        None if upstream_tls::is_tls_port(port) => Some(Protocol::Http1),
        // A word that nobody knows changes nothing, but TLS is not to become plain text.
        None if named == "tls" => None,
        None => Some(backends::spoken(named).unwrap_or_default()),
    };
    let Some(protocol) = protocol else {
        let message =
            format!("{kind} {} wants a protocol that this version cannot speak, so nothing is sent there", meta.key);
        let remedy =
            "set its annotation konghq.com/protocol to http, https, grpc, grpcs, ws or wss if it speaks one of these";
        return Err(Problem::new(field, message, remedy));
    };
    if let Some((message, remedy)) = backends::wants_tls(store, inputs, &service.meta.key, port) {
        return Err(Problem::new(field, message, remedy));
    }
    let is_tls = settings.protocol.map_or_else(|| upstream_tls::is_tls_port(port), Speech::is_tls);
    let tls = is_tls.then(|| upstream_tls::terms(store, inputs, meta, protocol, &settings.tls)).transpose();
    let tls = tls.map_err(|problem| upstream_tls::at_referrer(kind, meta, &problem, field))?;
    let number = u16::try_from(port.port).unwrap_or_default();
    let key = UpstreamKey {
        namespace: namespace.clone(),
        service: name.clone(),
        port: number,
        protocol,
        tls,
        facade: facade.map(|(name, _)| name.clone()),
        whole: (whole || settings.whole) && !endpoints::is_headless(service),
    };
    let host = settings.host.clone().or_else(|| policy::host_header(store, meta));
    let host = host.unwrap_or_else(|| own_host(service, number, is_tls));
    Ok(Resolved { key, settings, host, speaks: (kind, meta) })
}

/// What a Service is asked for if neither the client nor anybody else says so: as Kong's ingress controller names its service,
/// and an external one by the name that it really has.
pub(super) fn own_host(service: &Object<Service>, port: u16, is_tls: bool) -> HeaderValue {
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
