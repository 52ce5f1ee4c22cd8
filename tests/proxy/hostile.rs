//! Hostile and malformed HTTP/1.1 messages from clients and endpoints.

use portico::limits::ProxyLimits;

use crate::harness::{Endpoint, Options, TestServer, routes_to};

/// Every request is followed by another one that must not become part of it.
#[tokio::test]
async fn ambiguous_requests_are_rejected() {
    let cases = [
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        "GET / HTTP/1.1\nhost: a\nx: y\n\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: y\n\r\n",
        "GET /x#y HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3, 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length : 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding\t: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\n x: a\r\nhost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n",
    ];
    for ambiguous_request in cases {
        // On a new connection, and pipelined after a valid request.
        for preceding in ["", "POST /good HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"]
        {
            let endpoint = Endpoint::ok().await;
            let server = TestServer::with_routes(routes_to(endpoint.address)).await;
            let mut client = server.connect().await;
            client.send(format!("{preceding}{ambiguous_request}GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n")).await;
            if !preceding.is_empty() {
                assert_eq!(client.response().await.status, 200);
            }
            assert_eq!(client.response().await.status, 400, "{preceding:?}{ambiguous_request:?}");
            assert_eq!(client.read_to_end().await.unwrap_or_default(), b"", "{preceding:?}{ambiguous_request:?}");
            assert_eq!(
                endpoint.log.requests().len(),
                usize::from(!preceding.is_empty()),
                "{preceding:?}{ambiguous_request:?}"
            );
        }
    }
}

#[tokio::test]
async fn equal_content_lengths_are_merged() {
    let endpoint = Endpoint::ok().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let response =
        server.request("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc").await;
    assert_eq!(response.status, 200);
    let request = &endpoint.log.requests()[0];
    assert!(request.ends_with("\r\n\r\nabc") && request.matches("content-length").count() == 1, "{request}");
}

#[tokio::test]
async fn invalid_chunks_end_the_request() {
    for body in
        ["z\r\n", "3\r\nabcd\r\n", "-1\r\n", "ffffffffffffffffff\r\n", "3\nabc\n0\n\n", "3\r\nabc\r\n0\r\nx y\r\n\r\n"]
    {
        let endpoint = Endpoint::ok().await;
        let server = TestServer::with_routes(routes_to(endpoint.address)).await;
        let mut client = server.connect().await;
        client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{body}")).await;
        let response = client.try_response().await;
        assert!(response.is_none_or(|response| response.status == 400), "{body:?}: the status must be 400");
        assert_eq!(endpoint.log.requests().len(), 0, "{body:?}: no complete request may reach the endpoint");
    }
}

#[tokio::test]
async fn request_heads_are_limited() {
    let endpoint = Endpoint::ok().await;
    let limits = ProxyLimits { max_request_head: 8192, max_request_fields: 20, ..ProxyLimits::default() };
    let server = TestServer::with_options(Options { limits, ..Options::default() }, routes_to(endpoint.address)).await;
    let request_with_field = |size| format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "x".repeat(size));
    assert_eq!(server.request(&request_with_field(8000)).await.status, 200);
    assert_eq!(server.request(&request_with_field(8200)).await.status, 431);
    let request_with_fields = |count| format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(count));
    assert_eq!(server.request(&request_with_fields(19)).await.status, 200);
    assert_eq!(server.request(&request_with_fields(20)).await.status, 431);
    assert_eq!(endpoint.log.requests().len(), 2);
}

#[tokio::test]
async fn invalid_responses_get_502() {
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(200));
    let large = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(100_000));
    let cases = [
        "",
        "\r\n\r\n",
        "ok",
        "SSH-2.0-x\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-len",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\nabcd",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nx",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        &many,
        &large,
    ];
    for endpoint_response in cases {
        let bytes = endpoint_response.to_owned();
        let endpoint = Endpoint::scripted(move |mut stream, _| {
            let bytes = bytes.clone();
            async move {
                stream.request().await;
                stream.send(bytes).await;
            }
        })
        .await;
        let server = TestServer::with_routes(routes_to(endpoint.address)).await;
        let response = server.request("GET / HTTP/1.1\r\nhost: a\r\nupgrade: y\r\nconnection: upgrade\r\n\r\n").await;
        assert_eq!(response.status, 502, "{endpoint_response:.60?}");
        assert_eq!(endpoint.log.requests().len(), 1, "{endpoint_response:.60?}");
    }
}

#[tokio::test]
async fn bytes_after_a_response_do_not_affect_other_responses() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream
            .send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
            .await;
        stream.read_to_end().await;
    })
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut client = server.connect().await;
    for _ in 0..5 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
}

#[tokio::test]
async fn informational_responses_end_at_the_response_timeout() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        let flood = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n".repeat(1000);
        while tokio::io::AsyncWriteExt::write_all(&mut stream.socket, flood.as_bytes()).await.is_ok() {}
    })
    .await;
    let limits = ProxyLimits { response_timeout: std::time::Duration::from_millis(200), ..ProxyLimits::default() };
    let server = TestServer::with_options(Options { limits, ..Options::default() }, routes_to(endpoint.address)).await;
    assert_eq!(server.request("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.status, 504);
}

#[tokio::test]
async fn random_bytes_do_not_affect_other_clients() {
    let endpoint = Endpoint::ok().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut other = server.connect().await;
    fastrand::seed(7);
    for _ in 0..200 {
        let mut client = server.connect().await;
        let mut noise = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".to_vec();
        for _ in 0..fastrand::usize(1..8) {
            let position = fastrand::usize(..noise.len());
            noise[position] = fastrand::u8(..);
        }
        client.send(noise).await;
        drop(client);
        assert_eq!(other.get("/").await.status, 200);
    }
}
