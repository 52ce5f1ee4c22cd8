//! Service → upstream: which port, protocol and TLS requests to a Service use, and at which addresses.
//!
//! ```text
//!                                                              ┌ backend_tls_policy.rs ─ ../policies/
//!   reference.rs                   Gateway API ─┐              │ annotated_tls.rs ─ ../certificates/
//!                                               ├ BackendSettings ─▶ upstream_key ─▶ UpstreamKey ─▶ endpoints.rs
//!   ../ingress/service_backend.rs    Ingresses ─┘
//!   reference.rs                   Gateway API ──▶ x_backend.rs ─▶ UpstreamKey      x_backend_verdict.rs
//! ```
//!
//! forbidden_addresses.rs has the addresses that no endpoint may have, endpoint_weights.rs the weights of endpoints,
//! locality.rs which endpoints are near, traffic_distribution.rs what a Service says about that, and upstream_usage.rs
//! the upstreams in use.
//!
//! Gateway API and Kong are two dialects: [`BackendSettings`] has a field for each rule in which they differ. Callers
//! pass these settings, and the load-balancing algorithm to endpoints.rs, so this module calls no dialect.

pub(super) mod annotated_proxy_protocol;
pub(super) mod annotated_tls;
pub(super) mod backend_tls_policy;
pub(super) mod endpoint_weights;
pub(super) mod endpoints;
pub(super) mod forbidden_addresses;
pub(super) mod locality;
pub(super) mod reference;
pub(in crate::compile) mod route_balancing;
pub(in crate::compile) mod route_tls;
pub(super) mod traffic_distribution;
pub(super) mod upstream_usage;
pub(super) mod x_backend;
pub(super) mod x_backend_verdict;

use std::borrow::Cow;
use std::fmt;

use crate::api::core::{Service, ServicePort};
use crate::api::{Kind, Meta, Object, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::objects::missing_object::missing_object;
use crate::diagnostic::Diagnostic;
use crate::endpoint_tls::UpstreamProtocol;
use crate::store::Store;
use crate::transport_protocol::TransportProtocol;
use crate::upstream::{UpstreamKey, UpstreamSource};
use annotated_proxy_protocol::annotated_proxy_protocol;
use annotated_tls::BackendTlsSettings;
use route_tls::RouteTls;

/// How a dialect sends requests to a Service.
#[derive(Debug)]
pub(super) struct BackendSettings<'s> {
    /// The object whose settings apply: the Service, or a facade in front of it.
    pub source: (Kind, &'s Meta),
    /// The protocol that the object names; it overrides the `appProtocol` of the port.
    pub protocol: Option<AnnotatedProtocol>,
    /// Whether HTTP/2 is used whatever version of HTTP the object or the port names.
    pub requires_http2: bool,
    /// Whether TLS is used for a port whose `appProtocol` is HTTP over TLS. With the Gateway API, only a
    /// BackendTLSPolicy enables TLS, so such a port cannot be used.
    pub tls_by_app_protocol: bool,
    pub unknown_app_protocol: UnknownAppProtocol,
    /// Whether to connect to the ClusterIP of the Service instead of its endpoints. Without effect on a headless
    /// Service, which has no ClusterIP.
    pub via_cluster_ip: bool,
    pub tls: BackendTlsSettings,
    /// What an object about routes sets in place of `tls`.
    pub route_tls: Option<&'s RouteTls>,
}

/// How a port is treated whose `appProtocol` is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnknownAppProtocol {
    /// Gateway API: no requests are sent to the port.
    Reject,
    /// Kong: HTTP/1.1 is used, except for `tls`, which must not become plain text.
    Ignore,
}

/// The protocol that an annotation of a Service, a facade or an Ingress names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnnotatedProtocol {
    Http,
    Grpc,
    Https,
    Grpcs,
    FastCgi,
    /// A protocol without requests.
    Stream,
}

/// Why no requests can be sent to a Service.
#[derive(Debug)]
pub(super) enum BackendError {
    /// The object names a protocol that is not HTTP.
    NamedProtocol,
    /// The port has an `appProtocol` that is not supported.
    UnservedAppProtocol,
    /// The BackendTLSPolicy of the port is unknown: message and remedy.
    TlsRequired(String, &'static str),
    /// The BackendTLSPolicy of the port cannot be used: the message.
    InvalidPolicy(String),
    /// The Gateway has no usable client certificate for backends with a BackendTLSPolicy: the message.
    NoClientCertificate(String),
    /// The settings for TLS are invalid: message and remedy.
    InvalidTls(String, String),
    /// The version of the PROXY protocol is invalid.
    InvalidProxyProtocol(Diagnostic),
}

/// What is forwarded unparsed to a backend.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamBackend {
    /// The protocol that the port of the Service must have.
    pub transport: TransportProtocol,
    /// The connections begin with the client's ClientHello, so Portico does not need to encrypt them.
    pub is_encrypted: bool,
}

/// The port of a Service as a backend names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PortReference<'a> {
    Missing,
    Number(i32),
    Name(&'a str),
}

impl AnnotatedProtocol {
    pub(super) fn is_tls(self) -> bool {
        matches!(self, AnnotatedProtocol::Https | AnnotatedProtocol::Grpcs)
    }

    /// `None` if the protocol has no requests.
    fn protocol(self) -> Option<UpstreamProtocol> {
        match self {
            AnnotatedProtocol::Http | AnnotatedProtocol::Https => Some(UpstreamProtocol::Http1),
            AnnotatedProtocol::Grpc | AnnotatedProtocol::Grpcs => Some(UpstreamProtocol::Http2),
            AnnotatedProtocol::FastCgi => Some(UpstreamProtocol::FastCgi),
            AnnotatedProtocol::Stream => None,
        }
    }
}

impl BackendSettings<'_> {
    /// The protocol for requests to a port, and whether the object requires TLS. `has_policy`: a BackendTLSPolicy
    /// applies to the port, which requires TLS in any case.
    fn protocol_of(&self, port: &ServicePort, has_policy: bool) -> Result<(UpstreamProtocol, bool), BackendError> {
        let (protocol, is_tls) = self.named_protocol(port, has_policy)?;
        Ok((if self.requires_http2 { UpstreamProtocol::Http2 } else { protocol }, is_tls))
    }

    fn named_protocol(&self, port: &ServicePort, has_policy: bool) -> Result<(UpstreamProtocol, bool), BackendError> {
        if let Some(annotated) = self.protocol {
            return Ok((annotated.protocol().ok_or(BackendError::NamedProtocol)?, annotated.is_tls()));
        }
        if (self.tls_by_app_protocol || has_policy) && annotated_tls::is_tls_port(port) {
            return Ok((UpstreamProtocol::Http1, true));
        }
        let app_protocol = port.app_protocol.as_deref().unwrap_or_default();
        match app_protocol {
            "grpc" if self.requires_http2 => return Ok((UpstreamProtocol::Http2, false)),
            // WebSocket begins as HTTP/1.1.
            "kubernetes.io/ws" if self.requires_http2 => return Err(BackendError::UnservedAppProtocol),
            _ => {}
        }
        let protocol = plain_protocol(app_protocol).or(match self.unknown_app_protocol {
            UnknownAppProtocol::Ignore if app_protocol != "tls" => Some(UpstreamProtocol::default()),
            UnknownAppProtocol::Ignore | UnknownAppProtocol::Reject => None,
        });
        Ok((protocol.ok_or(BackendError::UnservedAppProtocol)?, false))
    }
}

/// The upstream for a port of a Service.
pub(super) fn upstream_key(
    cx: CompileContext<'_>,
    referrer_namespace: &str,
    service: &Object<Service>,
    port: &ServicePort,
    settings: &BackendSettings<'_>,
) -> Result<UpstreamKey, BackendError> {
    let policy = backend_tls_policy::required_trust(cx, &service.meta.key, port)?;
    let (protocol, is_tls) = settings.protocol_of(port, policy.is_some())?;
    let (kind, meta) = settings.source;
    let tls = match policy {
        // A policy replaces all settings in annotations.
        Some(required) => Some(required.tls_settings(cx, Some(protocol))?),
        None => {
            let configured = is_tls.then(|| match settings.route_tls {
                Some(route_tls) => route_tls.settings(cx, protocol),
                None => annotated_tls::tls_settings(cx, meta, protocol, &settings.tls),
            });
            configured.transpose().map_err(|problem| {
                let (message, remedy) = annotated_tls::referrer_problem(kind, meta, &problem, referrer_namespace);
                BackendError::InvalidTls(message, remedy)
            })?
        }
    };
    let ObjectKey { namespace, name } = service.meta.key.clone();
    Ok(UpstreamKey {
        namespace,
        service: name,
        port: u16::try_from(port.port).unwrap_or_default(),
        transport: TransportProtocol::Tcp,
        protocol,
        tls,
        facade: (kind != Kind::Service).then(|| meta.key.name.clone()),
        via_cluster_ip: settings.via_cluster_ip && !endpoints::is_headless(service),
        proxy_protocol: None,
        source: UpstreamSource::Service,
        balancing: None,
    })
}

/// The upstream for connections or datagrams to a port of a Service, which are forwarded unparsed. A BackendTLSPolicy
/// has no effect on connections that are encrypted already, and the PROXY protocol none on datagrams.
pub(super) fn stream_upstream_key(
    cx: CompileContext<'_>,
    service: &Object<Service>,
    port: &ServicePort,
    stream: StreamBackend,
    via_cluster_ip: bool,
) -> Result<UpstreamKey, BackendError> {
    let policy = match stream.is_encrypted {
        true => None,
        false => backend_tls_policy::required_trust(cx, &service.meta.key, port)?,
    };
    if let Some(required) = policy.as_ref().filter(|_| stream.transport == TransportProtocol::Udp) {
        let remedy = "remove the policy, or use a port of the Service without one";
        return Err(BackendError::TlsRequired(required.refusal_of_datagrams(), remedy));
    }
    let tls = policy.map(|required| required.tls_settings(cx, None)).transpose()?;
    let proxy_protocol = match stream.transport {
        TransportProtocol::Tcp => {
            annotated_proxy_protocol(&service.meta).map_err(BackendError::InvalidProxyProtocol)?
        }
        TransportProtocol::Udp => None,
    };
    let ObjectKey { namespace, name } = service.meta.key.clone();
    Ok(UpstreamKey {
        namespace,
        service: name,
        port: u16::try_from(port.port).unwrap_or_default(),
        transport: stream.transport,
        tls,
        via_cluster_ip: via_cluster_ip && !endpoints::is_headless(service),
        proxy_protocol,
        ..UpstreamKey::default()
    })
}

/// The Service with this key. `field` is the field that refers to it.
pub(super) fn find_service<'s>(
    store: &'s Store,
    key: &ObjectKey,
    field: &str,
) -> Result<&'s Object<Service>, Diagnostic> {
    store.services.get(key).map(|service| &**service).ok_or_else(|| missing_object(store, field, Kind::Service, key))
}

/// The port of a Service that a backend refers to in `field`, of this transport protocol: a Service may have one port
/// number for both.
pub(super) fn find_port<'s>(
    service: &'s Object<Service>,
    reference: PortReference<'_>,
    transport: TransportProtocol,
    field: &str,
) -> Result<Cow<'s, ServicePort>, Diagnostic> {
    let is_named = |port: &ServicePort| match reference {
        PortReference::Missing => false,
        PortReference::Number(number) => port.port == number,
        PortReference::Name(name) => port.name == name,
    };
    let port = match reference {
        PortReference::Number(number) => numbered_port(service, number, transport),
        PortReference::Missing | PortReference::Name(_) => {
            let mut ports = service.spec.ports.iter().filter(|port| has_transport(port, transport));
            ports.find(|port| is_named(port)).map(Cow::Borrowed)
        }
    };
    port.ok_or_else(|| {
        let key = &service.meta.key;
        let message = match (reference, service.spec.ports.iter().find(|port| is_named(port))) {
            (PortReference::Missing, _) => format!("the backend has no port, but Service {key} needs one"),
            (_, Some(other)) => {
                let protocol = other.protocol.as_deref().unwrap_or(TransportProtocol::Tcp.name());
                format!("Service {key} has no {transport} port {reference}: its port {reference} is for {protocol}")
            }
            (_, None) => format!("Service {key} has no {transport} port {reference}"),
        };
        let remedy = match has_any_port(service) {
            true => "use a port number from 1 to 65535".to_owned(),
            false => ports_remedy(&service.spec.ports, transport),
        };
        Diagnostic::error(field, message, remedy)
    })
}

/// The port of a Service with this number and transport protocol.
fn numbered_port(service: &Service, number: i32, transport: TransportProtocol) -> Option<Cow<'_, ServicePort>> {
    if has_any_port(service) {
        let port = unnamed_port(number, transport);
        return u16::try_from(number).is_ok_and(|number| number > 0).then_some(Cow::Owned(port));
    }
    let mut ports = service.spec.ports.iter();
    ports.find(|port| port.port == number && has_transport(port, transport)).map(Cow::Borrowed)
}

fn unnamed_port(number: i32, transport: TransportProtocol) -> ServicePort {
    ServicePort {
        name: String::new(),
        port: number,
        target_port: None,
        protocol: Some(transport.name().to_owned()),
        app_protocol: None,
    }
}

/// Whether each number is a port of the Service. An ExternalName Service is a name outside of the cluster, and does not
/// need to list the ports of that host.
fn has_any_port(service: &Service) -> bool {
    service.spec.kind.as_deref() == Some("ExternalName") && service.spec.ports.is_empty()
}

impl fmt::Display for PortReference<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortReference::Missing => Ok(()),
            PortReference::Number(number) => number.fmt(formatter),
            PortReference::Name(name) => name.fmt(formatter),
        }
    }
}

fn ports_remedy(ports: &[ServicePort], transport: TransportProtocol) -> String {
    let ports = ports.iter().filter(|port| has_transport(port, transport));
    let numbers: Vec<_> = ports.map(|port| port.port.to_string()).collect();
    match numbers.as_slice() {
        [] => format!("add a {transport} port to the Service"),
        [only] => format!("use port {only}"),
        several => format!("use one of {}", several.join(", ")),
    }
}

fn has_transport(port: &ServicePort, transport: TransportProtocol) -> bool {
    TransportProtocol::from_field(port.protocol.as_deref()) == Some(transport)
}

/// The protocol for an `appProtocol` without TLS. WebSocket starts as HTTP/1.1 and is allowed for every backend.
fn plain_protocol(app_protocol: &str) -> Option<UpstreamProtocol> {
    match app_protocol {
        "" | "http" | "HTTP" | "kubernetes.io/http" | "kubernetes.io/ws" => Some(UpstreamProtocol::Http1),
        "kubernetes.io/h2c" => Some(UpstreamProtocol::Http2),
        _ => None,
    }
}
