//! External authorization by calls of Envoy's ext_authz, with a server that encodes its messages by itself.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::server;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use portico::endpoint_tls::UpstreamProtocol;
use portico::endpoint_tls::UpstreamTlsSettings;
use portico::snapshot::external_auth::{AuthorizationProtocol, ExternalAuthFilter, GrpcAuthorization};
use rustls::ServerConfig;
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::accounting::scrape;
use crate::external_auth::guarded_routes;
use crate::h2::read_body;
use crate::h2_upstream::{Http2Endpoint, http2_endpoint};
use crate::harness::{Endpoint, TestServer, h2c_upstream, header};
use crate::upstream_tls::{Authority, FixedCertificate, tls_upstream};

/// A field of a message with a length: a string, bytes or another message.
fn field(number: u8, value: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoded = vec![number << 3 | 2];
    let mut length = value.as_ref().len();
    while length >= 0x80 {
        encoded.push(0x80 | (length & 0x7f) as u8);
        length >>= 7;
    }
    encoded.push(length as u8);
    encoded.extend_from_slice(value.as_ref());
    encoded
}

/// A field with a number below 16,384.
fn number(field: u8, value: u16) -> Vec<u8> {
    vec![field << 3, 0x80 | (value & 0x7f) as u8, (value >> 7) as u8]
}

/// The fields of a message: their numbers, and the values of those that have a length.
fn fields(mut message: &[u8]) -> Vec<(u8, &[u8])> {
    let mut found = Vec::new();
    while let [key, rest @ ..] = message {
        let (value, after) = varint(rest);
        if key & 7 == 0 {
            found.push((key >> 3, &rest[..rest.len() - after.len()]));
            message = after;
        } else {
            assert_eq!(key & 7, 2, "a wire type that the messages do not have");
            found.push((key >> 3, &after[..value]));
            message = &after[value..];
        }
    }
    found
}

fn varint(bytes: &[u8]) -> (usize, &[u8]) {
    let length = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
    let value = bytes[..length].iter().rev().fold(0_u64, |value, byte| value << 7 | u64::from(byte & 0x7f));
    (usize::try_from(value).unwrap_or(usize::MAX), &bytes[length..])
}

/// The value at the end of a path of field numbers.
fn find<'m>(message: &'m [u8], path: &[u8]) -> Option<&'m [u8]> {
    path.iter().try_fold(message, |message, number| {
        fields(message).into_iter().find(|(found, _)| found == number).map(|(_, value)| value)
    })
}

fn text<'m>(message: &'m [u8], path: &[u8]) -> Option<&'m str> {
    find(message, path).map(|value| std::str::from_utf8(value).unwrap())
}

/// Status 0 allows a request.
fn status(code: u16) -> Vec<u8> {
    field(1, number(1, code))
}

/// A `HeaderValueOption`; `append` is the content of its field of that name.
fn header_option(list: u8, name: &str, value: &str, append: Option<u16>) -> Vec<u8> {
    let header = field(1, [field(1, name), field(2, value)].concat());
    let append = append.map(|append| field(2, number(1, append))).unwrap_or_default();
    field(list, [header, append].concat())
}

/// The messages that a server has received.
type Received = Arc<Mutex<Vec<Vec<u8>>>>;

/// A server that responds to every call with this message and `grpc-status`.
async fn grpc_server(message: Vec<u8>, grpc_status: &'static str) -> (Http2Endpoint, Received) {
    let received = Received::default();
    let log = Arc::clone(&received);
    let endpoint = http2_endpoint(server::Builder::new(), move |mut call| {
        let (log, message) = (Arc::clone(&log), message.clone());
        async move {
            assert_eq!(call.request.uri().path(), "/envoy.service.auth.v3.Authorization/Check");
            assert_eq!(call.request.uri().authority().unwrap(), "auth.default.svc:9000");
            assert_eq!(call.request.headers()["content-type"], "application/grpc");
            assert_eq!(call.request.headers()["te"], "trailers");
            let (body, _) = read_body(call.request.body_mut()).await.unwrap();
            log.lock().unwrap().push(unframe(&body));
            let response = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            let mut stream = call.response.send_response(response, false).unwrap();
            stream.send_data(Bytes::from(frame(&message)), false).unwrap();
            let trailers: HeaderMap =
                [(HeaderName::from_static("grpc-status"), HeaderValue::from_static(grpc_status))].into_iter().collect();
            stream.send_trailers(trailers).unwrap();
        }
    });
    (endpoint.await, received)
}

/// A message of gRPC, uncompressed.
fn frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, message].concat()
}

fn unframe(body: &[u8]) -> Vec<u8> {
    let message = &body[5..];
    assert_eq!(body, frame(message));
    message.to_vec()
}

fn grpc_filter(server: &Http2Endpoint, listed: Option<&[&'static str]>) -> ExternalAuthFilter {
    let request_headers = listed.map(|names| names.iter().map(|name| HeaderName::from_static(name)).collect());
    let authority = HeaderValue::from_static("auth.default.svc:9000");
    let protocol = AuthorizationProtocol::Grpc(GrpcAuthorization { authority, request_headers });
    ExternalAuthFilter { name: "the server".into(), upstream: h2c_upstream(server.address), protocol, max_body: 0 }
}

const REQUEST: &str = "POST /a?b=c HTTP/1.1\r\nhost: a.example\r\nauthorization: Basic x\r\nx-user: admin\r\n\
                       x_user: admin\r\nx-group: one\r\nx-gone: 1\r\ncontent-length: 5\r\n\r\nhello";

/// The address of a process that decrypts connections and forwards them to a server.
async fn with_tls(server: &Http2Endpoint, certificate: Arc<CertifiedKey>) -> SocketAddr {
    let mut config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(FixedCertificate(certificate)));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (acceptor, server) = (TlsAcceptor::from(Arc::new(config)), server.address);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut decrypted) = acceptor.accept(socket).await else { return };
                let mut forwarded = TcpStream::connect(server).await.unwrap();
                drop(tokio::io::copy_bidirectional(&mut decrypted, &mut forwarded).await);
            });
        }
    });
    address
}

#[tokio::test]
async fn server_may_use_tls() {
    let (authority, endpoint) = (Authority::new("own"), Endpoint::ok().await);
    for (name, status_code) in [("auth.default.svc", 200), ("other.default.svc", 503)] {
        let (authorization, received) = grpc_server(status(0), "0").await;
        let address = with_tls(&authorization, authority.issue(&[name], &[])).await;
        let settings = UpstreamTlsSettings::new(UpstreamProtocol::Http2, authority.trust(None), None).unwrap();
        let upstream = tls_upstream(UpstreamProtocol::Http2, settings, &[address]);
        let filter = ExternalAuthFilter { upstream, ..grpc_filter(&authorization, None) };
        let server = TestServer::with_routes(guarded_routes(filter, &endpoint)).await;
        assert_eq!(server.request(REQUEST).await.status, status_code, "a certificate for {name}");
        assert_eq!(received.lock().unwrap().len(), usize::from(status_code == 200), "a certificate for {name}");
    }
    assert_eq!(endpoint.log.requests().len(), 1);
}

#[tokio::test]
async fn server_gets_the_attributes_of_a_request() {
    let endpoint = Endpoint::ok().await;
    for (listed, max_body) in [(None, 0), (Some(&["authorization"][..]), 100)] {
        let (authorization, received) = grpc_server(status(0), "0").await;
        let filter = ExternalAuthFilter { max_body, ..grpc_filter(&authorization, listed) };
        let server = TestServer::with_routes(guarded_routes(filter, &endpoint)).await;
        let response = server.request(REQUEST).await;
        assert_eq!(response.status, 200);
        let call = received.lock().unwrap().remove(0);
        // attributes, request, http.
        let http = find(&call, &[1, 4, 2]).unwrap();
        assert!(text(http, &[1]).is_some_and(|id| !id.is_empty()), "the ID of the request");
        assert_eq!(text(http, &[1]), response.header("x-request-id"));
        assert_eq!(text(http, &[2]), Some("POST"));
        assert_eq!((text(http, &[4]), text(http, &[5])), (Some("/a?b=c"), Some("a.example")));
        assert_eq!((text(http, &[6]), text(http, &[10])), (Some("http"), Some("HTTP/1.1")));
        assert_eq!(find(http, &[9]), Some(&[5][..]), "the size of the body");
        assert_eq!(text(http, &[11]), (max_body > 0).then_some("hello"));
        // source, address, socket_address.
        assert_eq!(text(&call, &[1, 1, 1, 1, 2]), Some("127.0.0.1"));
        assert!(find(&call, &[1, 4, 1, 1]).is_some(), "the time");
        let headers: std::collections::BTreeMap<_, _> = fields(http)
            .into_iter()
            .filter(|(number, _)| *number == 3)
            .map(|(_, entry)| (text(entry, &[1]).unwrap(), text(entry, &[2]).unwrap()))
            .collect();
        assert_eq!(headers["authorization"], "Basic x");
        if listed.is_some() {
            assert_eq!(headers.len(), 1);
        } else {
            assert_eq!((headers["x-group"], headers[":path"], headers[":method"]), ("one", "/a?b=c", "POST"));
        }
    }
}

#[tokio::test]
async fn body_that_is_not_text_is_sent_as_bytes() {
    let (endpoint, (authorization, received)) = (Endpoint::ok().await, grpc_server(status(0), "0").await);
    let filter = ExternalAuthFilter { max_body: 100, ..grpc_filter(&authorization, None) };
    let server = TestServer::with_routes(guarded_routes(filter, &endpoint)).await;
    let mut client = server.connect().await;
    client.send(b"POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 2\r\n\r\n\xff\x00").await;
    assert_eq!(client.response().await.status, 200);
    let call = received.lock().unwrap().remove(0);
    let http = find(&call, &[1, 4, 2]).unwrap();
    assert_eq!((find(http, &[11]), find(http, &[12])), (None, Some(&b"\xff\x00"[..])));
}

#[tokio::test]
async fn server_changes_headers_of_request_and_response() {
    let ok = [
        header_option(2, "X-User", "eve", None),
        header_option(2, "x-group", "two", Some(1)),
        header_option(2, "host", "evil", None),
        header_option(2, "content-length", "99", None),
        field(5, "x-gone"),
        field(5, ":path"),
        header_option(6, "set-cookie", "a=1", None),
        header_option(6, "set-cookie", "b=2", None),
    ];
    let message = [status(0), field(3, ok.concat())].concat();
    let (endpoint, (authorization, _)) = (Endpoint::ok().await, grpc_server(message, "0").await);
    let server = TestServer::with_routes(guarded_routes(grpc_filter(&authorization, None), &endpoint)).await;
    let response = server.request(REQUEST).await;
    assert_eq!((response.status, response.text()), (200, "ok".to_owned()));
    assert_eq!(response.head.matches("set-cookie:").count(), 2, "{}", response.head);
    let received = endpoint.log.requests().remove(0);
    assert_eq!((header(&received, "x-user"), header(&received, "host")), (Some("eve"), Some("a.example")));
    assert_eq!((received.matches("x-user:").count(), received.matches("x-group:").count()), (1, 2), "{received}");
    assert_eq!((header(&received, "x_user"), header(&received, "x-gone")), (None, None), "{received}");
    assert!(received.ends_with("\r\n\r\nhello"), "{received}");
}

#[tokio::test]
async fn decisions_follow_status_and_response() {
    let denied = [
        field(1, number(1, 401)),
        header_option(2, "www-authenticate", "Basic", None),
        header_option(2, "content-length", "99", None),
        field(3, "who?"),
    ]
    .concat();
    let many = (0..101).map(|_| header_option(2, "a", "b", None)).collect::<Vec<_>>().concat();
    let cases: [(&str, Vec<u8>, &str, u16, &str); 13] = [
        ("allowed", status(0), "0", 200, "ok"),
        ("allowed without a status", field(3, []), "0", 200, "ok"),
        ("denied", [status(16), field(2, &denied)].concat(), "0", 401, "who?"),
        ("denied without a status", field(2, &denied), "0", 401, "who?"),
        ("denied without a response", status(7), "0", 403, ""),
        ("denied with changes", [status(7), field(3, [])].concat(), "0", 403, ""),
        ("allowed and denied", [status(0), field(2, &denied)].concat(), "0", 500, ""),
        ("nothing", vec![], "0", 500, ""),
        ("denied with status 100", [status(7), field(2, field(1, number(1, 100)))].concat(), "0", 500, ""),
        ("an invalid header", [status(0), field(3, header_option(2, ":path", "/b", None))].concat(), "0", 500, ""),
        ("too many headers", [status(0), field(3, many)].concat(), "0", 500, ""),
        ("a change of the query", [status(0), field(3, field(8, "b"))].concat(), "0", 500, ""),
        ("a failed call", status(0), "13", 503, ""),
    ];
    let endpoint = Endpoint::ok().await;
    for (name, message, grpc_status, expected, body) in cases {
        let (authorization, _) = grpc_server(message, grpc_status).await;
        let server = TestServer::with_routes(guarded_routes(grpc_filter(&authorization, None), &endpoint)).await;
        let before = endpoint.log.requests().len();
        let mut client = server.connect().await;
        let response = client.get("/").await;
        assert_eq!(response.status, expected, "{name}");
        if expected < 500 {
            assert_eq!(response.text(), body, "{name}");
        }
        assert_eq!(endpoint.log.requests().len() - before, usize::from(expected == 200), "{name}");
        let reason = match expected {
            200 => continue,
            500 => "external_auth_invalid",
            503 => "external_auth_unavailable",
            _ => "external_auth_denied",
        };
        assert_eq!(scrape(&server)[&format!("portico_request_errors_total{{reason=\"{reason}\"}}")], 1.0, "{name}");
    }
}

#[tokio::test]
async fn responses_that_are_not_grpc_allow_nothing() {
    let endpoint = Endpoint::ok().await;
    let authorization = crate::h2_upstream::echo_endpoint().await;
    let server = TestServer::with_routes(guarded_routes(grpc_filter(&authorization, None), &endpoint)).await;
    assert_eq!(server.request(REQUEST).await.status, 503);
    // More than the longest response.
    let message = [status(7), field(2, field(3, vec![b'x'; 256 << 10]))].concat();
    let (authorization, _) = grpc_server(message, "0").await;
    server.replace_routes(guarded_routes(grpc_filter(&authorization, None), &endpoint));
    assert_eq!(server.request(REQUEST).await.status, 500);
    assert!(endpoint.log.requests().is_empty());
}
