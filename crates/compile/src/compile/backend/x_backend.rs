//! XBackend → upstream: the protocol, the TLS settings and the host of the object, and what prevents requests to it.

use std::sync::Arc;

use rustls::sign::CertifiedKey;

use crate::api::gateway::{ExternalHostname, XBackend, XBackendTls};
use crate::api::kong::annotations::{PLUGINS, list};
use crate::api::{Kind, Object, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::certificates;
use crate::compile::certificates::ca_bundle::AuthorityProblem;
use crate::compile::certificates::endpoint_trust::ReadValidation;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::compile::objects::reference_grants::Referrer;
use crate::compile::policies::session_persistence;
use crate::diagnostic::Diagnostic;
use crate::endpoint_tls::TlsTrust;
use crate::endpoint_tls::UpstreamProtocol;
use crate::ssrf_guard::{BlockedAddress, is_cluster_internal_name};
use crate::store::Store;
use crate::transport_protocol::TransportProtocol;
use crate::upstream::{AffinitySettings, UpstreamKey, UpstreamSource};
use crate::verdict::Code;

/// An XBackend, and diagnostics about its fields.
#[derive(Default)]
pub(in crate::compile) struct ReadXBackend {
    /// `None` if nothing is sent to it.
    usable: Option<UsableXBackend>,
    /// Invalid fields.
    pub invalid: Vec<Diagnostic>,
    /// Valid fields that are not supported.
    pub unsupported: Vec<Diagnostic>,
    /// References that are not resolved.
    pub unresolved: Vec<(Code, Diagnostic)>,
    /// Whether TLS is required, but no certificate can be trusted.
    pub lacks_authorities: bool,
    /// Warnings about fields that are valid.
    pub notes: Vec<Diagnostic>,
}

struct UsableXBackend {
    port: u16,
    protocol: NamedProtocol,
    /// With the client certificate.
    tls: Option<(TlsTrust, Option<Arc<CertifiedKey>>)>,
}

/// `spec.protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NamedProtocol {
    /// The kind of route decides: HTTP/1.1, HTTP/2 for gRPC calls, or unparsed connections.
    OfRoute,
    Http,
    Http11,
    /// HTTP2, H2C and GRPC.
    Http2,
    Tcp,
}

/// What a route sends to an XBackend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::compile) enum SentToXBackend {
    Requests,
    Calls,
    /// Connections whose bytes are forwarded unparsed. `is_encrypted`: they begin with the client's ClientHello.
    Connections {
        is_encrypted: bool,
    },
}

/// Why a route cannot use an XBackend.
#[derive(Debug)]
pub(in crate::compile) enum XBackendError {
    /// The conditions of the XBackend have the reason.
    Unusable,
    /// The protocol of the XBackend is not for this kind of route: the end of a sentence about the XBackend.
    Protocol(String),
}

/// The upstream for what a route sends to an XBackend.
pub(in crate::compile) fn upstream_key(
    cx: CompileContext<'_>,
    backend: &Object<XBackend>,
    sent: SentToXBackend,
) -> Result<UpstreamKey, XBackendError> {
    let usable = ReadXBackend::new(cx, backend).usable.ok_or(XBackendError::Unusable)?;
    let name = backend.spec.protocol.as_deref().unwrap_or_default();
    let wrong_protocol = |needed: &str| XBackendError::Protocol(format!("has protocol {name}, but {needed}"));
    let protocol = match (sent, usable.protocol) {
        (SentToXBackend::Requests, NamedProtocol::OfRoute | NamedProtocol::Http | NamedProtocol::Http11) => {
            Some(UpstreamProtocol::Http1)
        }
        (SentToXBackend::Requests | SentToXBackend::Calls, NamedProtocol::Http2)
        | (SentToXBackend::Calls, NamedProtocol::OfRoute | NamedProtocol::Http) => Some(UpstreamProtocol::Http2),
        (SentToXBackend::Connections { .. }, NamedProtocol::OfRoute | NamedProtocol::Tcp) => None,
        (SentToXBackend::Requests, NamedProtocol::Tcp) => {
            return Err(wrong_protocol("an HTTPRoute sends HTTP requests"));
        }
        (SentToXBackend::Calls, NamedProtocol::Http11 | NamedProtocol::Tcp) => {
            return Err(wrong_protocol("gRPC calls need HTTP/2"));
        }
        (SentToXBackend::Connections { .. }, NamedProtocol::Http | NamedProtocol::Http11 | NamedProtocol::Http2) => {
            return Err(wrong_protocol("the connections of TCPRoutes and TLSRoutes are forwarded unparsed"));
        }
    };
    let is_encrypted = sent == SentToXBackend::Connections { is_encrypted: true };
    let tls = usable.tls.filter(|_| !is_encrypted).map(|(trust, client)| {
        cx.inputs.upstreams.tls_settings(protocol, Some(trust), client).map_err(|_| XBackendError::Unusable)
    });
    let ObjectKey { namespace, name } = backend.meta.key.clone();
    Ok(UpstreamKey {
        namespace,
        service: name,
        port: usable.port,
        transport: TransportProtocol::Tcp,
        protocol: protocol.unwrap_or_default(),
        tls: tls.transpose()?,
        source: UpstreamSource::XBackend,
        ..UpstreamKey::default()
    })
}

/// The sessions of an XBackend, which precede those of policies. `None` if the upstream is not one of an XBackend, or
/// if that has no sessions.
pub(in crate::compile) fn own_sessions(store: &Store, upstream: &UpstreamKey) -> Option<Arc<AffinitySettings>> {
    if upstream.source != UpstreamSource::XBackend {
        return None;
    }
    let backend = store.x_backends.get(&ObjectKey::new(&upstream.namespace, &upstream.service))?;
    sessions(backend, &mut Vec::new())
}

fn sessions(backend: &Object<XBackend>, problems: &mut Vec<Diagnostic>) -> Option<Arc<AffinitySettings>> {
    let persistence = backend.spec.session_persistence.as_ref()?;
    let ObjectKey { namespace, name } = &backend.meta.key;
    let owner = format!("{}/{namespace}/{name}", Kind::XBackend);
    session_persistence::translate(persistence, &owner, "spec.sessionPersistence", problems)
}

impl ReadXBackend {
    pub(in crate::compile) fn new(cx: CompileContext<'_>, backend: &Object<XBackend>) -> Self {
        let mut read = ReadXBackend::default();
        let port = read.port(backend);
        let protocol = read.protocol(backend);
        let tls = read.tls(cx, backend);
        read.check_type(cx, backend);
        read.check_ignored_guards(backend);
        if read.invalid.is_empty()
            && read.unsupported.is_empty()
            && let (Some(port), Some(protocol), Some(tls)) = (port, protocol, tls)
        {
            if tls.is_none() && backend.spec.external_hostname.is_some() {
                let message = "what is sent to a host outside of the cluster is not encrypted";
                let remedy = "set mode to ServerOnly, and validation, if the host serves TLS";
                read.notes.push(Diagnostic::warning("spec.tls.mode", message, remedy));
            }
            read.usable = Some(UsableXBackend { port, protocol, tls });
        }
        read
    }

    /// Whether requests can be sent to it.
    pub(in crate::compile) fn is_usable(&self) -> bool {
        self.usable.is_some()
    }

    fn port(&mut self, backend: &Object<XBackend>) -> Option<u16> {
        let number = backend.spec.port.number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port > 0);
        if number.is_none() {
            self.invalid.push(Diagnostic::error("spec.port.number", "it is missing", "write a number from 1 to 65535"));
        }
        number
    }

    fn protocol(&mut self, backend: &Object<XBackend>) -> Option<NamedProtocol> {
        let has_tls = backend.spec.tls.as_ref().is_some_and(|tls| tls.mode != "None");
        let mut invalid = |message: &str, remedy: &str| {
            self.invalid.push(Diagnostic::error("spec.protocol", message, remedy));
            None
        };
        match backend.spec.protocol.as_deref() {
            None => Some(NamedProtocol::OfRoute),
            Some("HTTP") => Some(NamedProtocol::Http),
            Some("HTTP11") => Some(NamedProtocol::Http11),
            Some("H2C") if has_tls => invalid("H2C is HTTP/2 without TLS, but tls.mode enables TLS", "use HTTP2"),
            Some("HTTP2") if !has_tls => invalid("HTTP2 needs TLS, but tls.mode is None", "use H2C, or enable TLS"),
            Some("HTTP2" | "H2C" | "GRPC") => Some(NamedProtocol::Http2),
            Some("TCP") => Some(NamedProtocol::Tcp),
            Some(other) => {
                let message = format!("protocol {other} is not served, so nothing is sent to the backend");
                let remedy = "use HTTP, HTTP11, HTTP2, H2C, GRPC or TCP";
                self.unsupported.push(Diagnostic::error("spec.protocol", message, remedy));
                None
            }
        }
    }

    /// The TLS settings: `Some(None)` for plain text, `None` if they cannot be used.
    fn tls(
        &mut self,
        cx: CompileContext<'_>,
        backend: &Object<XBackend>,
    ) -> Option<Option<(TlsTrust, Option<Arc<CertifiedKey>>)>> {
        let Some(tls) = &backend.spec.tls else { return Some(None) };
        let XBackendTls { mode, validation, client_certificate_ref } = tls;
        let mut invalid = |field: &str, message: &str, remedy: &str| {
            self.invalid.push(Diagnostic::error(format!("spec.tls.{field}"), message, remedy));
        };
        let (needs_validation, needs_client) = match &**mode {
            "None" => (false, false),
            "ServerOnly" => (true, false),
            "ClientAndServer" => (true, true),
            other => {
                let message = format!("{other} is not a supported value");
                let remedy = "use None, ServerOnly or ClientAndServer";
                self.unsupported.push(Diagnostic::error("spec.tls.mode", message, remedy));
                return None;
            }
        };
        if validation.is_some() != needs_validation {
            let (message, remedy) = match needs_validation {
                true => ("it is missing, so no certificate can be verified", "write hostname and caCertificateRefs"),
                false => ("it has no effect with mode None", "set mode to ServerOnly, or remove it"),
            };
            invalid("validation", message, remedy);
            return None;
        }
        if client_certificate_ref.is_some() != needs_client {
            let (message, remedy) = match needs_client {
                true => ("mode ClientAndServer needs it", "refer to a Secret of type kubernetes.io/tls"),
                false => ("only mode ClientAndServer uses it", "set mode to ClientAndServer, or remove it"),
            };
            invalid("clientCertificateRef", message, remedy);
            return None;
        }
        let Some(validation) = validation else { return Some(None) };
        let namespace = &backend.meta.key.namespace;
        let ReadValidation { trust, invalid, unresolved } =
            ReadValidation::new(cx, namespace, validation, "spec.tls.validation");
        self.lacks_authorities = trust.is_none() && invalid.is_empty();
        self.invalid.extend(invalid);
        self.unresolved.extend(unresolved.into_iter().map(|problem| match problem {
            AuthorityProblem::Kind(problem) => (Code::XBackendInvalidKind, problem),
            AuthorityProblem::Object(problem) => (Code::XBackendInvalidCaCertificateRef, problem),
        }));
        let mut client = None;
        if let Some(reference) = client_certificate_ref {
            let field = "spec.tls.clientCertificateRef";
            let from = Referrer { kind: Kind::XBackend, namespace };
            match certificates::referenced_client_certificate(cx.store, from, reference, field) {
                Ok(certificate) => client = Some(certificate),
                Err((reason, problem)) => {
                    let code = match reason {
                        Code::ListenerRefNotPermitted => Code::XBackendRefNotPermitted,
                        _ => Code::XBackendInvalidClientCertificateRef,
                    };
                    self.unresolved.push((code, problem));
                    return None;
                }
            }
        }
        Some(Some((trust?, client)))
    }

    fn check_type(&mut self, cx: CompileContext<'_>, backend: &Object<XBackend>) {
        let spec = &backend.spec;
        match (&*spec.kind, &spec.external_hostname, &spec.endpoint_selector) {
            ("ExternalHostname", Some(host), None) => {
                self.invalid.extend(host_problem(cx, &backend.meta.key.namespace, host));
            }
            ("EndpointSelector", None, Some(selector)) if selector.match_labels.is_empty() => {
                let message = "it is empty, so no Pods are selected";
                let problem =
                    Diagnostic::error("spec.endpointSelector.matchLabels", message, "write a label of the Pods");
                self.invalid.push(problem);
            }
            ("EndpointSelector", None, Some(_)) if backend.meta.uid.is_none() => {
                let message = "only a cluster has Pods to select, and the object comes from a file";
                let remedy = "apply it to the cluster, or use a Service with the annotation portico.dev/address";
                self.unsupported.push(Diagnostic::error("spec.type", message, remedy));
            }
            ("EndpointSelector", None, Some(_)) => {}
            ("ExternalHostname" | "EndpointSelector", ..) => {
                let message = format!("the field for type {} is missing, or that for another type is set", spec.kind);
                self.invalid.push(Diagnostic::error("spec.type", message, "write exactly the field for the type"));
            }
            (other, ..) => {
                let message = format!("type {other} is not served, so nothing is sent to the backend");
                self.unsupported.push(Diagnostic::error(
                    "spec.type",
                    message,
                    "use ExternalHostname or EndpointSelector",
                ));
            }
        }
        if spec.session_persistence.is_some() && spec.external_hostname.is_some() {
            let message = "sessions are for the Pods of an EndpointSelector";
            self.invalid.push(Diagnostic::error("spec.sessionPersistence", message, "remove it"));
        } else {
            sessions(backend, &mut self.invalid);
        }
    }

    /// Plugins may protect a backend, and they attach to routes and Services only.
    fn check_ignored_guards(&mut self, backend: &Object<XBackend>) {
        let plugins = backend.meta.annotations.get(PLUGINS);
        if let Some(plugins) = plugins.filter(|plugins| list(plugins).next().is_some()) {
            let message = format!("it attaches {plugins}, but plugins cannot be attached to an XBackend");
            let remedy = "move the annotation to the routes that refer to the XBackend";
            self.invalid.push(Diagnostic::error(annotation_field(PLUGINS), message, remedy));
        }
    }
}

/// Why nothing is sent to a host. The addresses to which it resolves are checked when it is resolved.
fn host_problem(cx: CompileContext<'_>, namespace: &str, host: &ExternalHostname) -> Option<Diagnostic> {
    let trust_model = cx.inputs.upstreams.trust_model();
    let (field, host) = ("spec.externalHostname.hostname", &*host.hostname);
    let problem = |message: String, remedy: &str| Some(Diagnostic::error(field, message, remedy));
    if super::endpoints::external_host(host, 0).is_none() {
        return problem(format!("{host:?} is not a host name"), "write a name such as api.example.com");
    }
    if is_cluster_internal_name(host) {
        let remedy = "refer to the Service in the route, instead of to an XBackend";
        return problem(format!("{host} is a name in this cluster, so nothing is sent to it"), remedy);
    }
    if !trust_model.address_sources().external_names {
        let message = "Portico denies names outside of the cluster, so nothing is sent to the host".to_owned();
        return problem(message, "use a Service with EndpointSlices, or start Portico without --deny-external-names");
    }
    let blocked = BlockedAddress::check_name_in_namespace(namespace, host, trust_model)?;
    problem(format!("{host} is {blocked}, so nothing is sent to it"), blocked.remedy())
}
