//! HTTP/2 endpoints that end a connection because one client resets many requests: what the requests of others get that
//! share it, and what counts against the Service.

use std::net::SocketAddr;
use std::sync::Arc;

use h2::server;
use http::Response;
use portico::endpoint_tls::UpstreamProtocol;
use portico::upstream::settings::{CircuitBreakerSettings, HealthSettings, PassiveChecks};
use portico::upstream::{BackendTraffic, CircuitPhase, EndpointAddress, Endpoints};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::circuit_breaker::circuit;
use crate::frames::{ACK, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RawConnection, SETTINGS, frame};
use crate::h2_upstream::http2_endpoint;
use crate::harness::{TestServer, forward, h2c_routes_to, route, upstream_with_protocol, with_timeout};

/// `:status: 200`, an entry of the static table.
const STATUS_200: &[u8] = &[0x88];
const ENHANCE_YOUR_CALM: u32 = 11;

/// An endpoint that ends its first connection when it has this many requests, all of which it may have processed, and
/// responds to the requests on others.
async fn complaining_endpoint(requests: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut limit = Some(requests);
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(serve(socket, limit.take()));
        }
    });
    address
}

async fn serve(socket: TcpStream, limit: Option<usize>) {
    let Some(mut raw) = RawConnection::accept_with_large_windows(socket).await else { return };
    let mut received = 0;
    while let Some(arrived) = raw.next_frame().await {
        match arrived.kind {
            SETTINGS if arrived.flags == 0 => raw.send(frame(SETTINGS, ACK, 0, &[])).await,
            HEADERS => {
                received += 1;
                if limit.is_none() {
                    raw.send(frame(HEADERS, END_HEADERS | END_STREAM, arrived.stream, STATUS_200)).await;
                } else if limit == Some(received) {
                    let payload = [arrived.stream.to_be_bytes(), ENHANCE_YOUR_CALM.to_be_bytes()].concat();
                    raw.send(frame(GOAWAY, 0, 0, &payload)).await;
                    raw.socket.shutdown().await.unwrap();
                    raw.read_to_end().await;
                    return;
                }
            }
            _ => {}
        }
    }
}

/// One client reset streams until the endpoint ended the connection, and then all clients got 503 from the circuit.
#[tokio::test]
async fn complaint_of_an_endpoint_does_not_count_against_it() {
    let address = complaining_endpoint(2).await;
    let web = upstream_with_protocol(UpstreamProtocol::Http2, "web", &[]);
    let passive = PassiveChecks { local_origin_failures: 1, ..PassiveChecks::default() };
    let traffic = BackendTraffic {
        health: Some(Arc::new(HealthSettings { passive, ..HealthSettings::default() })),
        overload: CircuitBreakerSettings { min_requests: 1, consecutive: Some(1), ..circuit() }.into(),
        ..BackendTraffic::default()
    };
    web.set_endpoints(Endpoints { addresses: vec![EndpointAddress::Ip(address)], traffic, ..Endpoints::default() });
    let server = TestServer::with_routes(vec![route(forward(vec![(1, Arc::clone(&web))]))]).await;
    let status = async |request: &str| server.request(request).await.status;
    let (get, post) = tokio::join!(
        status("GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
        status("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"),
    );
    assert_eq!(get, 200, "it is sent again on another connection");
    assert_eq!(post, 502, "it may have been processed");
    let circuit = web.overload_report().unwrap().circuit.unwrap();
    assert_eq!((circuit.phase, circuit.errors), (CircuitPhase::Closed, 0));
    assert_eq!(web.endpoint_counts().ejected, 0);
}

/// A connection with many resets is not used further, before the endpoint ends it with the requests of others.
#[tokio::test]
async fn many_resets_move_requests_to_another_connection() {
    let endpoint = http2_endpoint(server::Builder::new(), |mut call| async move {
        if call.request.uri().path() == "/held" {
            std::future::pending::<()>().await;
        }
        call.response.send_response(Response::new(()), true).unwrap();
    })
    .await;
    let server = TestServer::with_routes(h2c_routes_to(endpoint.address)).await;
    for number in 1..=100 {
        assert_eq!(endpoint.connections(), usize::from(number > 1), "{number}");
        let mut leaving = server.connect().await;
        leaving.send("GET /held HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let arrived = async {
            while endpoint.requests() < number {
                tokio::task::yield_now().await;
            }
        };
        with_timeout("the request to arrive", arrived).await;
    }
    let moved = async {
        while endpoint.connections() < 2 {
            assert_eq!(server.connect().await.get("/").await.status, 200);
        }
    };
    with_timeout("another connection", moved).await;
    assert_eq!(server.connect().await.get("/").await.status, 200);
    assert_eq!(endpoint.connections(), 2);
}
