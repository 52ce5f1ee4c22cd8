//! Describes a request to an authorization server, as Envoy does in the calls of `ext_authz`.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request};
use http_body::Body;

use super::ext_authz::{
    AttributeContext, AttributePeer, AttributeRequest, CheckRequest, HttpAttributes, PeerAddress, ProtoTimestamp,
    SocketAttributes, TlsAttributes,
};
use crate::plugin_api::http_version::protocol_name;
use crate::proxy::http::exchange::request_body::RequestBody;
use crate::proxy::http::steps::request_context::{RequestContext, RoutedRequest};
use crate::snapshot::external_auth::GrpcAuthorization;

pub(super) fn build(
    cx: &RequestContext<'_>,
    settings: &GrpcAuthorization,
    routed: &RoutedRequest<'_>,
    request: &Request<RequestBody>,
    body: &Bytes,
) -> CheckRequest {
    let exchange = cx.exchange();
    let headers = request.headers();
    let mut path = routed.path.path().to_owned();
    if let Some(query) = routed.endpoint_path().query() {
        path.push('?');
        path.push_str(query);
    }
    let host = String::from_utf8_lossy(routed.host.raw.as_bytes()).into_owned();
    let method = request.method().as_str().to_owned();
    let scheme = cx.record.client.scheme.as_str().to_owned();
    let sent_headers = match &settings.request_headers {
        Some(listed) => listed.iter().filter_map(|name| joined(headers, name)).collect(),
        None => {
            let mut all: HashMap<_, _> = headers.keys().filter_map(|name| joined(headers, name)).collect();
            // Servers for Envoy expect these among the headers.
            for (name, value) in [(":authority", &host), (":method", &method), (":path", &path), (":scheme", &scheme)] {
                all.insert(name.to_owned(), value.clone());
            }
            all
        }
    };
    let size = request.body().size_hint().exact().and_then(|size| i64::try_from(size).ok());
    let (text, raw_body) = match std::str::from_utf8(body) {
        Ok(text) => (text.to_owned(), Vec::new()),
        Err(_) => (String::new(), body.to_vec()),
    };
    let http = HttpAttributes {
        id: String::from_utf8_lossy(cx.record.facts.request_id.as_bytes()).into_owned(),
        method,
        headers: sent_headers,
        path,
        host,
        scheme,
        size: size.unwrap_or(-1),
        protocol: protocol_name(cx.version).to_owned(),
        body: text,
        raw_body,
    };
    let server_name = exchange.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
    let local = exchange.connections.address.socket;
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(socket(cx.record.client.address.to_string(), exchange.address.port())),
            destination: Some(socket(local.ip().to_canonical().to_string(), local.port())),
            request: Some(AttributeRequest { time: Some(now()), http: Some(http) }),
            tls_session: server_name.map(|sni| TlsAttributes { sni: sni.to_owned() }),
        }),
    }
}

/// A header with all its values. The protocol requires UTF-8, so other bytes are replaced.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<(String, String)> {
    let mut values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let mut joined = values.next()?.into_owned();
    for value in values {
        joined.push(',');
        joined.push_str(&value);
    }
    Some((name.as_str().to_owned(), joined))
}

fn socket(address: String, port: u16) -> AttributePeer {
    let socket_address = Some(SocketAttributes { address, port_value: u32::from(port) });
    AttributePeer { address: Some(PeerAddress { socket_address }) }
}

fn now() -> ProtoTimestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    ProtoTimestamp {
        seconds: i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since_epoch.subsec_nanos()).unwrap_or(0),
    }
}
