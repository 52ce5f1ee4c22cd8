//! Requests that are sent again on another connection, because an endpoint has closed theirs instead of a response.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::{Endpoint, TestServer, routes_to};

/// An endpoint that closes each connection at its second request, as if it had done so while the connection was idle.
async fn closing_endpoint() -> Endpoint {
    Endpoint::scripted(|mut stream, _| async move {
        if stream.request().await.is_some() {
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            drop(stream.request().await);
        }
    })
    .await
}

/// Only requests without a body were sent again, whatever their method.
#[tokio::test]
async fn idempotent_requests_with_small_bodies_survive_a_stale_connection() {
    let large = "x".repeat(64 * 1024 + 1);
    for (method, body, expected) in [
        ("PUT", "body", 200),
        ("DELETE", "body", 200),
        ("OPTIONS", "body", 200),
        ("GET", "body", 200),
        ("PUT", "", 200),
        ("POST", "body", 502),
        ("PUT", large.as_str(), 502),
    ] {
        let endpoint = closing_endpoint().await;
        let server = TestServer::with_routes(routes_to(endpoint.address)).await;
        let mut client = server.connect().await;
        let head = format!("{method} / HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.response().await.status, 200);
        client.send(head).await;
        client.send(body).await;
        let status = client.response().await.status;
        assert_eq!(status, expected, "{method} with {} bytes", body.len());
        if expected == 200 {
            let requests = endpoint.log.requests();
            assert!(requests[1].ends_with(body) && requests[1] == requests[2], "{requests:?}");
        }
    }
}

/// An endpoint that resets this many connections before it has read anything, and then responds.
async fn resetting_endpoint(resets: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for connection in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            if connection < resets {
                // The request has arrived, and is not read. That the socket is readable can be a false alarm.
                assert_eq!(stream.peek(&mut [0]).await.unwrap(), 1);
                SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                continue;
            }
            tokio::spawn(async move {
                let mut head = [0; 1024];
                while stream.read(&mut head).await.is_ok_and(|read| read > 0) {
                    let response = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
                    drop(stream.write_all(response.as_bytes()).await);
                }
            });
        }
    });
    address
}

/// A fifth of the requests got 502 from an endpoint that resets connections while it has too many.
#[tokio::test]
async fn idempotent_request_survives_the_reset_of_a_new_connection_once() {
    for (method, resets, expected) in [("GET", 1, 200), ("PUT", 1, 200), ("GET", 2, 502), ("POST", 1, 502)] {
        let server = TestServer::with_routes(routes_to(resetting_endpoint(resets).await)).await;
        let request = format!("{method} / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(server.request(&request).await.status, expected, "{method}, {resets} resets");
    }
}
