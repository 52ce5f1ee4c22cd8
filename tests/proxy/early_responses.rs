//! Responses that begin or end before their request does: to a request that is rejected without its body, and from an
//! endpoint that responds while it still reads.

use std::sync::Arc;

use portico::snapshot::rule::{Action, RouteFailure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use crate::harness::{Endpoint, Route, TestServer, route, routes_to, with_timeout};

/// More than all socket buffers on the way hold.
const LARGE: usize = 32 * 1024 * 1024;

#[tokio::test]
async fn nothing_after_an_invalid_body_is_a_request() {
    let endpoint = Endpoint::ok().await;
    let mut routes = routes_to(endpoint.address);
    routes.push(Route { path: "/broken", ..route(Action::Fail(RouteFailure::NoService)) });
    let server = TestServer::with_routes(routes).await;
    let bodies =
        ["5\r\nhello\r\n", "5\r\nhelloX", "5\r\nhello\r\n0\r\nx y: z\r\n\r\n", "5\r\nhello\r\n0\r\nx: z\n\r\n"];
    for body in bodies {
        let mut client = server.connect().await;
        let head = "POST /broken HTTP/1.1\r\nhost: a.example\r\ntransfer-encoding: chunked\r\n\r\n";
        client.send(format!("{head}{body}GET /smuggled HTTP/1.1\r\nhost: a.example\r\n\r\n")).await;
        let sent = String::from_utf8(client.read_to_end().await.unwrap()).unwrap();
        assert_eq!(sent.matches("HTTP/1.1 ").count(), 1, "{body:?}: {sent}");
    }
    assert!(endpoint.log.requests().is_empty());
}

#[tokio::test]
async fn connection_is_not_used_again_after_an_invalid_response() {
    for rest in ["0\r\nx y: z\r\n\r\n", "x\r\n"] {
        let response = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n{rest}");
        let endpoint = Endpoint::responding_with(response).await;
        let server = TestServer::with_routes(routes_to(endpoint.address)).await;
        for requests in 1..=3 {
            let mut client = server.connect().await;
            client.send("GET / HTTP/1.1\r\nhost: a.example\r\n\r\n").await;
            assert!(client.try_response().await.is_none(), "{rest:?}: the response is not complete");
            assert_eq!(endpoint.log.connections(), requests, "{rest:?}");
        }
    }
}

#[tokio::test]
async fn upload_goes_on_after_a_whole_response() {
    let response_arrived = Arc::new(Notify::new());
    let may_read = Arc::clone(&response_arrived);
    let endpoint = Endpoint::scripted(move |mut stream, _| {
        let may_read = Arc::clone(&may_read);
        async move {
            stream.head().await;
            let received = stream.take_buffered().len();
            stream.send("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await;
            may_read.notified().await;
            let mut rest = vec![0; LARGE - received];
            let is_whole = stream.socket.read_exact(&mut rest).await.is_ok();
            stream.record(if is_whole { "whole" } else { "cut" });
            stream.read_to_end().await;
        }
    })
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    client.send(format!("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: {LARGE}\r\n\r\n")).await;
    client.send(vec![b'x'; 1000]).await;
    assert_eq!(client.response().await.status, 202);
    response_arrived.notify_one();
    client.send(vec![b'x'; LARGE - 1000]).await;
    endpoint.log.wait_for("the upload", |log| !log.requests().is_empty()).await;
    assert_eq!(endpoint.log.requests(), ["whole"]);
}

#[tokio::test]
async fn client_may_send_its_whole_request_before_it_reads() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.head().await;
        let mut left = LARGE - stream.take_buffered().len();
        let (mut reader, mut writer) = stream.socket.split();
        let respond = async {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n");
            writer.write_all(head.as_bytes()).await.ok();
            writer.write_all(&vec![b'r'; LARGE]).await.ok();
        };
        let read = async {
            let mut buffer = vec![0; 64 * 1024];
            while left > 0
                && let Ok(read @ 1..) = reader.read(&mut buffer).await
            {
                left -= read;
            }
        };
        tokio::join!(respond, read);
    })
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    let head = format!("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: {LARGE}\r\n\r\n");
    with_timeout("the upload", async {
        client.send(head).await;
        client.send(vec![b'x'; LARGE]).await;
    })
    .await;
    let response = client.response().await;
    assert_eq!((response.status, response.body.len()), (200, LARGE));
}
