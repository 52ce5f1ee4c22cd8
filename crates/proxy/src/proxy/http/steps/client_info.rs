//! What plugins and FastCGI servers get of the client of a request.

use std::net::SocketAddr;

use super::request_client::RequestClient;
use super::request_context::RoutedRequest;
use crate::plugin_api::ClientInfo;
use crate::plugin_api::context::ArrivedRequest;
use crate::proxy::http::exchange::client_exchange::ClientExchange;

/// What plugins know of the client.
pub(super) fn client_info<'r>(
    exchange: &'r ClientExchange,
    client: &'r RequestClient,
    routed: &'r RoutedRequest<'_>,
) -> ClientInfo<'r> {
    ClientInfo {
        address: client.address,
        scheme: client.scheme,
        host: client.host(&routed.host).raw.to_str().unwrap_or_default(),
        port: client.port(routed.listener.port),
        separate_port: client.separate_port(),
        received: ArrivedRequest {
            peer: SocketAddr::new(exchange.address.ip().to_canonical(), exchange.address.port()),
            scheme: exchange.client.scheme,
            host: routed.host.raw.to_str().unwrap_or_default(),
            port: routed.listener.port,
        },
        is_peer_trusted: exchange.client.trusted,
        certificate: exchange.tls.as_ref().map(|tls| tls.client_certificate()).unwrap_or_default(),
    }
}
