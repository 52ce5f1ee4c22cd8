//! gRPC health checks of a `tonic` server and of servers that do not follow the protocol.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use h2::server;
use http::{HeaderMap, HeaderValue, Response};
use portico::endpoint_tls::UpstreamProtocol;
use portico::endpoint_tls::UpstreamTlsSettings;
use portico::upstream::settings::{ActiveCheck, CheckKind};
use portico::upstream::{CheckOutcome, UpstreamKey};
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic::transport::server::{Server, TcpIncoming};
use tonic_prost::ProstCodec;
use tower::service_fn;

use crate::active_checks::{Checked, frequent, key};
use crate::h2_upstream::{Http2Endpoint, http2_endpoint};
use crate::harness::Endpoint;
use crate::polling;

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;
const NOT_SERVING: i32 = 2;

/// A server with the health service of gRPC, which knows the service `shop.Cart`.
struct HealthServer {
    address: SocketAddr,
    status: Arc<AtomicI32>,
    /// Accepted connections, by a server of `tonic`.
    calls: Arc<AtomicUsize>,
}

impl HealthServer {
    async fn start(is_implemented: bool) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (status, calls) = (Arc::new(AtomicI32::new(SERVING)), Arc::new(AtomicUsize::new(0)));
        let (of_service, counter) = (Arc::clone(&status), Arc::clone(&calls));
        let service = service_fn(move |request: http::Request<Body>| {
            let status = Arc::clone(&of_service);
            counter.fetch_add(1, SeqCst);
            async move {
                if !is_implemented || request.uri().path() != "/grpc.health.v1.Health/Check" {
                    return Ok::<_, Infallible>(tonic::Status::unimplemented("no such method").into_http());
                }
                let check = |call: tonic::Request<HealthCheckRequest>| {
                    let status = status.load(SeqCst);
                    async move {
                        match &*call.into_inner().service {
                            "" | "shop.Cart" => Ok(tonic::Response::new(HealthCheckResponse { status })),
                            _ => Err(tonic::Status::not_found("unknown service")),
                        }
                    }
                };
                Ok(Grpc::new(ProstCodec::default()).unary(service_fn(check), request).await)
            }
        });
        tokio::spawn(async move {
            Server::builder().serve_with_incoming(service, TcpIncoming::from(listener)).await.unwrap();
        });
        HealthServer { address, status, calls }
    }
}

fn grpc(service: &str) -> ActiveCheck {
    let authority = HeaderValue::from_static("web.shop.svc");
    frequent(CheckKind::Grpc { service: service.into(), authority })
}

#[tokio::test]
async fn the_health_service_decides() {
    let server = HealthServer::start(true).await;
    let checked = Checked::start(&key(), grpc("shop.Cart"), &[server.address]);
    assert_eq!(checked.result(server.address, true).await, "");
    server.status.store(NOT_SERVING, SeqCst);
    let is_healthy = || checked.state(server.address).0;
    polling::until("the endpoint to be unhealthy", || async { !is_healthy() }).await;
    assert!(checked.result(server.address, false).await.contains("NOT_SERVING"));
    server.status.store(SERVING, SeqCst);
    polling::until("the endpoint to be healthy", || async { is_healthy() }).await;
    assert!(server.calls.load(SeqCst) >= 4);

    let whole_server = Checked::start(&key(), grpc(""), &[server.address]);
    assert_eq!(whole_server.result(server.address, true).await, "");
    let unknown = Checked::start(&key(), grpc("shop.Unknown"), &[server.address]);
    assert!(unknown.result(server.address, false).await.contains("gRPC status 5"));
}

#[tokio::test]
async fn servers_without_the_health_service_pass_with_a_warning() {
    let server = HealthServer::start(false).await;
    let checked = Checked::start(&key(), grpc(""), &[server.address]);
    assert!(checked.result(server.address, true).await.contains("does not implement grpc.health.v1.Health"));
    polling::until("more checks", || async { checked.count(CheckOutcome::Passed) >= 3 }).await;
    assert_eq!(checked.count(CheckOutcome::Failed), 0);
}

/// An HTTP/2 endpoint that responds with this head, and with this body and these trailers if there are any.
async fn responding(
    status: u16,
    fields: &[(&'static str, &'static str)],
    rest: Option<(Vec<u8>, bool)>,
) -> Http2Endpoint {
    let mut head = Response::builder().status(status);
    for (name, value) in fields {
        head = head.header(*name, *value);
    }
    let head = head.body(()).unwrap();
    http2_endpoint(server::Builder::new(), move |mut call| {
        let (head, rest) = (head.clone(), rest.clone());
        async move {
            let Some((body, has_trailers)) = rest else {
                drop(call.response.send_response(head, true));
                return;
            };
            let mut stream = call.response.send_response(head, false).unwrap();
            drop(stream.send_data(Bytes::from(body), !has_trailers));
            if has_trailers {
                let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
                drop(stream.send_trailers(trailers));
            }
        }
    })
    .await
}

#[tokio::test]
async fn responses_that_are_not_grpc_fail() {
    let message = b"\0\0\0\0\x02\x08\x01".to_vec();
    for (endpoint, failure) in [
        (responding(200, &[], Some((message.clone(), true))).await, None),
        (responding(200, &[], Some((message.clone(), false))).await, Some("not one of gRPC")),
        (responding(200, &[], Some((b"\0\0\0\0\x09\x08\x01".to_vec(), true))).await, Some("not one of gRPC")),
        (responding(200, &[("grpc-status", "14")], None).await, Some("gRPC status 14")),
        (responding(200, &[("grpc-status", "0")], None).await, Some("not one of gRPC")),
        (responding(200, &[("grpc-status", "x")], None).await, Some("not one of gRPC")),
        (responding(503, &[], None).await, Some("status 503")),
        (responding(200, &[], Some((vec![0; 40_000], true))).await, Some("UNKNOWN")),
    ] {
        let checked = Checked::start(&key(), grpc(""), &[endpoint.address]);
        let message = checked.result(endpoint.address, failure.is_none()).await;
        assert!(message.contains(failure.unwrap_or_default()), "{message:?} has no {failure:?}");
    }
}

#[tokio::test]
async fn endpoints_that_hang_or_use_http1_fail() {
    let hanging = http2_endpoint(server::Builder::new(), |call| async move {
        // Dropping the call would reset its stream.
        let _call = call;
        std::future::pending().await
    })
    .await;
    let check = ActiveCheck { timeout: Duration::from_millis(100), ..grpc("") };
    let checked = Checked::start(&key(), check, &[hanging.address]);
    let message = checked.result(hanging.address, false).await;
    assert!(message.contains("within 100ms"), "{message}");
    let http1 = Endpoint::responding_with("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let checked = Checked::start(&key(), ActiveCheck { timeout: Duration::from_secs(1), ..grpc("") }, &[http1.address]);
    assert!(!checked.result(http1.address, false).await.is_empty());
}

/// Requests use HTTP/1.1, and the health service HTTP/2, which the handshake of the check therefore offers.
#[tokio::test]
async fn checks_over_tls_offer_the_protocol_that_they_need() {
    let authority = crate::upstream_tls::Authority::new("trusted");
    let endpoint = crate::upstream_tls::TlsEndpoint::with_certificate(authority.issue(&["web.shop.svc"], &[])).await;
    let tls = UpstreamTlsSettings::new(UpstreamProtocol::Http1, authority.trust(None), None).unwrap();
    let checked = Checked::start(&UpstreamKey { tls: Some(tls), ..key() }, grpc(""), &[endpoint.address]);
    // It uses HTTP/2 on this connection, but not gRPC.
    assert!(checked.result(endpoint.address, false).await.contains("not one of gRPC"));
}
