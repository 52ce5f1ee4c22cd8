//! Trailers of responses of HTTP/2 endpoints: those with pseudo-header fields are malformed (RFC 9113, section 8.1),
//! and the client does not take the response for a complete one.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::frames::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, RawConnection, frame, header_field};
use crate::h2::{Http2Client, get_request};
use crate::harness::{TestServer, h2c_routes_to};

/// `:status: 200`, an entry of the static table.
const STATUS_200: &[u8] = &[0x88];

/// A response as frames: kind, flags and payload.
type ResponseFrames = Vec<(u8, u8, Vec<u8>)>;

fn head(block: &[u8]) -> (u8, u8, Vec<u8>) {
    (HEADERS, END_HEADERS, block.to_vec())
}

fn data(bytes: &[u8]) -> (u8, u8, Vec<u8>) {
    (DATA, 0, bytes.to_vec())
}

/// The last block of a response.
fn end(block: &[u8]) -> (u8, u8, Vec<u8>) {
    (HEADERS, END_HEADERS | END_STREAM, block.to_vec())
}

/// An HTTP/2 endpoint that sends these frames in response to the first request of a connection, and 200 to others.
async fn endpoint_with(response: ResponseFrames) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let response = response.clone();
            tokio::spawn(async move {
                let mut raw = RawConnection::accept(socket).await;
                while let Some(request) = raw.next_frame().await {
                    let frames = match (request.kind, request.stream) {
                        (HEADERS, 1) => response.clone(),
                        (HEADERS, _) => vec![end(STATUS_200)],
                        _ => continue,
                    };
                    for (kind, flags, payload) in frames {
                        raw.send(frame(kind, flags, request.stream, &payload)).await;
                    }
                }
            });
        }
    });
    address
}

async fn server_for(response: ResponseFrames) -> TestServer {
    TestServer::with_routes(h2c_routes_to(endpoint_with(response).await)).await
}

#[tokio::test]
async fn response_with_pseudo_fields_in_trailers_never_appears_complete() {
    let early_hints = || head(b"\x08\x03103");
    let grpc_head = [STATUS_200, &header_field("content-type", "application/grpc")].concat();
    let grpc_status = header_field("grpc-status", "0");
    let path = header_field(":path", "/");
    let cases: [(&str, ResponseFrames); 8] = [
        ("after data", vec![head(STATUS_200), data(b"half"), end(&path)]),
        ("without data", vec![head(STATUS_200), end(&path)]),
        ("a second head", vec![head(STATUS_200), data(b"half"), end(STATUS_200)]),
        ("after early hints", vec![early_hints(), head(STATUS_200), end(&path)]),
        ("after a status without an entry", vec![head(b"\x08\x03418"), end(&path)]),
        (
            "after a field",
            vec![head(STATUS_200), data(b"half"), end(&[header_field("x-sum", "1"), path.clone()].concat())],
        ),
        ("gRPC", vec![head(&grpc_head), data(&[0; 5]), end(&[grpc_status.clone(), path.clone()].concat())]),
        (
            "a continuation",
            vec![head(STATUS_200), (HEADERS, END_STREAM, grpc_status), (CONTINUATION, END_HEADERS, path.clone())],
        ),
    ];
    for (what, response) in cases {
        let server = server_for(response.clone()).await;
        let client = Http2Client::connect(server.address).await;
        // The trailers may arrive before Portico has sent the head.
        match client.request(get_request("/")).await {
            Ok(response) => assert_eq!(response.status, 502, "{what}"),
            Err(error) => assert!(error.is_reset(), "{what}: {error}"),
        }
        assert_eq!(client.get("/").await.status, 200, "{what}: other requests of the connection continue");
        let server = server_for(response).await;
        let mut http1_client = server.connect().await;
        http1_client.send("GET / HTTP/1.1\r\nhost: a\r\nte: trailers\r\n\r\n").await;
        if let Some(response) = http1_client.try_response().await {
            assert_eq!(response.status, 502, "{what}: {response:?}");
        }
    }
}

#[tokio::test]
async fn other_responses_are_complete() {
    let x_sum = header_field("x-sum", "1");
    // A block that fills its frame, and continues in another one.
    let long = header_field("x-long", &"a".repeat(20_000));
    let (full, rest) = long.split_at(16 * 1024);
    let cases: [(&str, ResponseFrames, Option<&str>); 8] = [
        ("a head", vec![end(STATUS_200)], None),
        ("after early hints", vec![head(b"\x08\x03103"), end(STATUS_200)], None),
        // The second one refers to the entry of the dynamic table that the first one has added.
        ("after two early hints", vec![head(b"\x48\x03103"), head(&[0x80 | 62]), end(STATUS_200)], None),
        ("a literal status after early hints", vec![head(b"\x08\x03103"), end(b"\x08\x03200")], None),
        ("trailers", vec![head(STATUS_200), data(b"x"), end(&x_sum)], Some("x-sum")),
        ("trailers without data", vec![head(STATUS_200), end(&x_sum)], Some("x-sum")),
        (
            "a host",
            vec![head(STATUS_200), data(b"x"), end(&[header_field("host", "b"), x_sum.clone()].concat())],
            Some("x-sum"),
        ),
        (
            "long trailers",
            vec![head(STATUS_200), (HEADERS, END_STREAM, full.to_vec()), (CONTINUATION, END_HEADERS, rest.to_vec())],
            Some("x-long"),
        ),
    ];
    for (what, response, trailer) in cases {
        let server = server_for(response).await;
        let client = Http2Client::connect(server.address).await;
        let response = client.request(get_request("/")).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((response.status, response.headers.get("host")), (200, None), "{what}");
        let trailers = response.trailers.unwrap_or_default();
        let names: Vec<_> = trailers.keys().map(|name| name.as_str()).collect();
        assert_eq!(names, Vec::from_iter(trailer), "{what}");
    }
}
