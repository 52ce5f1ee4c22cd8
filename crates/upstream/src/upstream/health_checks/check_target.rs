//! How the endpoints of an upstream are checked: protocol, TLS identity and port, which follow from the check and from
//! how requests are sent to the upstream.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderValue;

use crate::endpoint_tls::UpstreamProtocol;
use crate::endpoint_tls::{UpstreamServerName, UpstreamTlsClient, UpstreamTlsSettings};
use crate::transport_protocol::TransportProtocol;
use crate::upstream::UpstreamKey;
use crate::upstream::settings::{ActiveCheck, CheckKind};
use crate::upstream::socket_budget::UpstreamSockets;

/// What all checks of an upstream have in common.
pub(super) struct CheckTarget {
    pub(super) check: Arc<ActiveCheck>,
    pub(super) namespace: Arc<str>,
    /// The protocol of HTTP and gRPC checks.
    pub(super) protocol: UpstreamProtocol,
    pub(super) tls: Option<CheckTls>,
    /// The PROXY header of a connection, empty for none.
    pub(super) proxy_header: Vec<u8>,
    /// Whether requests can be sent to an endpoint if a check can open a connection: with TLS, that depends on the host
    /// of the request as well.
    pub(super) connects_like_requests: bool,
    /// The sockets of the upstream's checks.
    pub(super) sockets: Arc<UpstreamSockets>,
}

/// How checks are encrypted.
pub(super) struct CheckTls {
    pub(super) client: UpstreamTlsClient,
    pub(super) server_name: Option<Rc<UpstreamServerName>>,
}

impl CheckTarget {
    /// `None` if the endpoints cannot be checked: a port for datagrams accepts no connections.
    pub(super) fn new(key: &UpstreamKey, check: Arc<ActiveCheck>) -> Option<Self> {
        if key.transport == TransportProtocol::Udp && check.port.is_none() {
            return None;
        }
        let protocol = match check.port {
            _ if check.kind.needs_http2() => UpstreamProtocol::Http2,
            // Another port is that of another server, usually a small one for checks.
            Some(_) => UpstreamProtocol::Http1,
            None => key.protocol,
        };
        // A server of FastCGI has no status for checks, so these show whether it accepts connections.
        let check = match check.kind {
            CheckKind::Http { .. } | CheckKind::Grpc { .. }
                if key.protocol == UpstreamProtocol::FastCgi && check.port.is_none() =>
            {
                let kind = CheckKind::Tcp { send: Box::default(), expect: Box::default() };
                Arc::new(ActiveCheck { kind, ..(*check).clone() })
            }
            _ => check,
        };
        let proxy_header = match (key.proxy_protocol, check.port) {
            (Some(version), None) => version.header_without_client(),
            _ => Vec::new(),
        };
        Some(CheckTarget {
            tls: tls(key, &check, protocol),
            namespace: Arc::clone(&key.namespace),
            protocol,
            proxy_header,
            connects_like_requests: check.port.is_none() && key.tls.is_none(),
            sockets: Arc::default(),
            check,
        })
    }

    /// Where an endpoint is checked.
    pub(super) fn address(&self, endpoint: SocketAddr) -> SocketAddr {
        SocketAddr::new(endpoint.ip(), self.check.port.unwrap_or(endpoint.port()))
    }
}

/// The TLS identity is that of requests. Where requests are not encrypted, nothing says which certificates are to be
/// trusted, so a check that asks for TLS accepts any, as probes of Kubernetes do.
fn tls(key: &UpstreamKey, check: &ActiveCheck, protocol: UpstreamProtocol) -> Option<CheckTls> {
    let asks_for_tls = matches!(check.kind, CheckKind::Http { tls: true, .. });
    let settings = match &key.tls {
        // A server on another port uses TLS only if the check says so.
        Some(_) if check.port.is_some() && !asks_for_tls => return None,
        Some(settings) => settings.clone(),
        None if asks_for_tls => UpstreamTlsSettings::new(protocol, None, None)
            .inspect_err(|error| tracing::error!(%error, "Health checks cannot use TLS"))
            .ok()?,
        None => return None,
    };
    let service_name = || {
        let name = HeaderValue::try_from(format!("{}.{}.svc", key.service, key.namespace));
        name.unwrap_or(HeaderValue::from_static(""))
    };
    let (settings, host) = match check.kind.host() {
        Some(host) => (settings.with_protocol(protocol), host.clone()),
        // The certificate is verified for the host of each request, and this check has none.
        None if settings.verifies_host() && check.kind.only_connects() => return None,
        None => (settings, service_name()),
    };
    let server_name = settings.server_name(Some(&host));
    Some(CheckTls { client: settings.client(), server_name })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{http_check, tcp_check};
    use super::*;
    use crate::endpoint_tls::TlsTrust;
    use crate::upstream::ProxyProtocol;

    fn target(key: &UpstreamKey, check: ActiveCheck) -> CheckTarget {
        CheckTarget::new(key, Arc::new(check)).unwrap()
    }

    fn with_tls(mut check: ActiveCheck) -> ActiveCheck {
        if let CheckKind::Http { tls, .. } = &mut check.kind {
            *tls = true;
        }
        check
    }

    #[test]
    fn fast_cgi_servers_are_checked_by_connecting() {
        let key = UpstreamKey { protocol: UpstreamProtocol::FastCgi, ..UpstreamKey::default() };
        assert!(target(&key, http_check("/")).check.kind.only_connects());
        let on_port = target(&key, ActiveCheck { port: Some(9000), ..http_check("/") });
        assert!(!on_port.check.kind.only_connects(), "another server");
    }

    #[test]
    fn checks_are_encrypted_like_requests() {
        let plain = UpstreamKey::default();
        let settings = UpstreamTlsSettings::new(UpstreamProtocol::Http1, None, None).unwrap();
        let encrypted = UpstreamKey { tls: Some(settings), ..UpstreamKey::default() };
        let on_port = |check| ActiveCheck { port: Some(9000), ..check };
        for (key, check, is_encrypted) in [
            (&plain, http_check("/"), false),
            (&plain, with_tls(http_check("/")), true),
            (&plain, tcp_check(), false),
            (&encrypted, http_check("/"), true),
            (&encrypted, tcp_check(), true),
            (&encrypted, on_port(http_check("/")), false),
            (&encrypted, on_port(with_tls(http_check("/"))), true),
            (&encrypted, on_port(tcp_check()), false),
        ] {
            let context = format!("{key} {check:?}");
            assert_eq!(target(key, check).tls.is_some(), is_encrypted, "{context}");
        }
        let trust = TlsTrust { anchors: Arc::default(), max_intermediates: None, identity: None };
        let settings = UpstreamTlsSettings::new(UpstreamProtocol::Http1, Some(trust), None).unwrap();
        let verified = UpstreamKey { tls: Some(settings), ..UpstreamKey::default() };
        assert!(target(&verified, tcp_check()).tls.is_none(), "there is no host to verify");
        let kind = CheckKind::Tcp { send: Box::default(), expect: (*b"+OK").into() };
        assert!(target(&verified, ActiveCheck { kind, ..tcp_check() }).tls.is_some());
    }

    #[test]
    fn another_port_is_another_server() {
        let key = UpstreamKey {
            protocol: UpstreamProtocol::Http2,
            proxy_protocol: Some(ProxyProtocol::V1),
            ..UpstreamKey::default()
        };
        let same = target(&key, http_check("/"));
        let endpoint = SocketAddr::from(([192, 0, 2, 1], 80));
        assert_eq!((same.protocol, same.address(endpoint)), (UpstreamProtocol::Http2, endpoint));
        assert_eq!(same.proxy_header, b"PROXY UNKNOWN\r\n");
        let other = target(&key, ActiveCheck { port: Some(9000), ..http_check("/") });
        assert_eq!(other.protocol, UpstreamProtocol::Http1);
        assert_eq!(other.address(endpoint), SocketAddr::from(([192, 0, 2, 1], 9000)));
        assert!(other.proxy_header.is_empty());
    }

    #[test]
    fn a_port_for_datagrams_is_not_checked() {
        let key = UpstreamKey { transport: TransportProtocol::Udp, ..UpstreamKey::default() };
        assert!(CheckTarget::new(&key, Arc::new(tcp_check())).is_none());
        assert!(CheckTarget::new(&key, Arc::new(ActiveCheck { port: Some(80), ..tcp_check() })).is_some());
    }
}
