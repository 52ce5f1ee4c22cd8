//! Trailers of HTTP/2 requests: those with pseudo-header fields are malformed (RFC 9113, section 8.1).

use http::HeaderMap;

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, PADDED, RST_STREAM, RawConnection, frame,
    get_request, header_block, header_field,
};
use crate::h2::Http2Client;
use crate::harness::{Endpoint, TestServer, h2c_routes_to, routes_to};

const PROTOCOL_ERROR: u32 = 1;
const PRIORITY: u8 = 0x20;

/// The head of a POST. Its `:authority` enters the dynamic table, as entry 62.
fn post_head() -> Vec<u8> {
    let mut block = header_block(&[(":method", "POST"), (":scheme", "http"), (":path", "/")]);
    block.extend([0x41, 9]);
    block.extend(b"a.example");
    frame(HEADERS, END_HEADERS, 1, &block)
}

fn trailers(flags: u8, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS | END_STREAM, 1, block)
}

/// An endpoint that records whether a request with a chunked body is complete, and responds to others.
async fn recording_endpoint() -> Endpoint {
    Endpoint::scripted(|mut stream, _| async move {
        while let Some(head) = stream.head().await {
            if !head.contains("transfer-encoding: chunked") {
                stream.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                continue;
            }
            let mut body = Vec::new();
            loop {
                match stream.read_some().await {
                    Some(more) => body.extend(more),
                    None => return stream.record("cut"),
                }
                if body == b"4\r\nhalf\r\n" {
                    stream.record("half");
                }
                if body.ends_with(b"\r\n0\r\n\r\n") {
                    stream.record("whole");
                    stream.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                    break;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn pseudo_fields_in_trailers_reset_the_stream() {
    let path = header_field(":path", "/");
    let cases: [(&str, Vec<u8>); 12] = [
        ("a literal", trailers(0, &path)),
        ("after another field", trailers(0, &[header_field("x-sum", "1"), path.clone()].concat())),
        ("every pseudo field", trailers(0, &header_block(&crate::frames::GET))),
        (":status", trailers(0, &[0x88])),
        (":protocol", trailers(0, &header_field(":protocol", "websocket"))),
        ("an entry of the static table", trailers(0, &[0x84])),
        ("an entry of the dynamic table", trailers(0, &[0x80 | 62])),
        ("a name of the dynamic table", trailers(0, &[0x0f, 62 - 15, 1, b'a'])),
        ("Huffman coding", trailers(0, &[0, 0x84, 0xb9, 0x58, 0xd3, 0x3f, 1, b'/'])),
        ("after a size update", trailers(0, &[0x3f, 0xe1, 0x1f, 0x84])),
        ("padding and priority", trailers(PADDED | PRIORITY, &[2, 0, 0, 0, 0, 9, 0x84, 0, 0])),
        ("a continuation", [frame(HEADERS, END_STREAM, 1, &[]), frame(CONTINUATION, END_HEADERS, 1, &path)].concat()),
    ];
    for (what, trailers) in cases {
        let endpoint = recording_endpoint().await;
        let server = TestServer::with_routes(routes_to(endpoint.address)).await;
        let mut raw = RawConnection::connect(server.address).await;
        raw.send([post_head(), frame(DATA, 0, 1, b"half")].concat()).await;
        endpoint.log.wait_for("half of the body", |log| log.requests() == ["half"]).await;
        raw.send(trailers).await;
        let is_end = |frame: &Frame| matches!(frame.kind, RST_STREAM | GOAWAY | HEADERS);
        let end = raw.wait_for(what, is_end).await;
        assert_eq!((end.kind, end.stream, end.error_code()), (RST_STREAM, 1, PROTOCOL_ERROR), "{what}");
        endpoint.log.wait_for("the end of the body", |log| log.requests() == ["half", "cut"]).await;
        // The connection continues.
        raw.send(get_request(3)).await;
        raw.wait_for("the response to the next request", |frame| frame.kind == HEADERS && frame.stream == 3).await;
    }
}

#[tokio::test]
async fn other_trailers_complete_the_request() {
    let x_sum = header_field("x-sum", "1");
    let cases: [(&str, Vec<u8>); 4] = [
        ("a field", trailers(0, &x_sum)),
        ("no fields", trailers(0, &[])),
        ("padding", trailers(PADDED, &[&[3][..], &x_sum, &[0; 3]].concat())),
        ("a size update", trailers(0, &[&[0x20][..], &x_sum].concat())),
    ];
    for (what, trailers) in cases {
        let endpoint = recording_endpoint().await;
        let server = TestServer::with_routes(routes_to(endpoint.address)).await;
        let mut raw = RawConnection::connect(server.address).await;
        // In single bytes, so that each frame arrives in parts.
        for byte in [post_head(), frame(DATA, 0, 1, b"half"), trailers].concat() {
            raw.send([byte]).await;
        }
        let response = raw.wait_for(what, |frame| matches!(frame.kind, HEADERS | RST_STREAM | GOAWAY)).await;
        assert_eq!(response.payload.first(), Some(&0x88), "{what}");
        assert_eq!(endpoint.log.requests().last().unwrap(), "whole", "{what}");
    }
}

#[tokio::test]
async fn trailers_of_clients_arrive_without_host() {
    let (received, mut trailers_received) = tokio::sync::mpsc::channel(1);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let mut connection = ::h2::server::handshake(socket).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let received = received.clone();
            tokio::spawn(async move {
                let (_, trailers) = crate::h2::read_body(&mut request.into_body()).await.unwrap();
                received.send(trailers).await.unwrap();
                respond.send_response(http::Response::new(()), true).unwrap();
            });
        }
    });
    let server = TestServer::with_routes(h2c_routes_to(address)).await;
    let client = Http2Client::connect(server.address).await;
    let request = http::Request::post("http://a.example/").body(()).unwrap();
    for host in [None, Some("b.example")] {
        let (response, mut stream) = client.start_with_body(request.clone()).await;
        let mut sent = HeaderMap::new();
        sent.insert("x-sum", "1".parse().unwrap());
        if let Some(host) = host {
            sent.insert("host", host.parse().unwrap());
        }
        stream.send_trailers(sent).unwrap();
        assert_eq!(crate::h2::read_response(response).await.unwrap().status, 200);
        let trailers = trailers_received.recv().await.unwrap().unwrap();
        assert_eq!(trailers.len(), 1, "{trailers:?}");
        assert_eq!(trailers["x-sum"], "1");
    }
}
