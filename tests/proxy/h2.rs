//! HTTP/2 from clients: concurrent requests on one connection, bodies, request errors, timeouts and draining; and the
//! HTTP/2 client of the tests.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{self, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request};
use portico::limits::ProxyLimits;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::frames::{
    self, ACK, DATA, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, RawConnection, SETTINGS,
    frame, initial_window_size,
};
use crate::harness::{Endpoint, LONGER_THAN_PAUSES, Options, TestServer, routes_to, with_timeout};

/// A client's HTTP/2 connection.
pub(crate) struct Http2Client {
    pub(crate) sender: SendRequest<Bytes>,
    pub(crate) connection: JoinHandle<Result<(), h2::Error>>,
}

/// A complete response.
#[derive(Debug)]
pub(crate) struct Http2Response {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Http2Client {
    pub(crate) async fn connect(address: SocketAddr) -> Http2Client {
        Http2Client::connect_with(address, &client::Builder::new()).await
    }

    pub(crate) async fn connect_with(address: SocketAddr, builder: &client::Builder) -> Http2Client {
        let socket = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = builder.handshake(socket).await.unwrap();
        let connection = tokio::spawn(connection);
        Http2Client { sender, connection }
    }

    /// Sends a request without a body.
    pub(crate) async fn start(&self, request: Request<()>) -> (ResponseFuture, SendStream<Bytes>) {
        let mut sender = with_timeout("a free stream", self.sender.clone().ready()).await.unwrap();
        sender.send_request(request, true).unwrap()
    }

    /// Sends the head of a request; the returned stream takes the body.
    pub(crate) async fn start_with_body(&self, request: Request<()>) -> (ResponseFuture, SendStream<Bytes>) {
        let mut sender = with_timeout("a free stream", self.sender.clone().ready()).await.unwrap();
        sender.send_request(request, false).unwrap()
    }

    pub(crate) async fn request(&self, request: Request<()>) -> Result<Http2Response, h2::Error> {
        let (response, _) = self.start(request).await;
        read_response(response).await
    }

    pub(crate) async fn get(&self, path: &str) -> Http2Response {
        self.request(get_request(path)).await.unwrap()
    }

    /// Waits for the end of the connection after its streams have finished.
    pub(crate) async fn wait_for_end(self) -> Result<(), h2::Error> {
        drop(self.sender);
        with_timeout("the end of the connection", self.connection).await.unwrap()
    }
}

pub(crate) fn get_request(path: &str) -> Request<()> {
    Request::get(format!("http://a.example{path}")).body(()).unwrap()
}

pub(crate) fn post_request(path: &str) -> Request<()> {
    Request::post(format!("http://a.example{path}")).body(()).unwrap()
}

pub(crate) async fn read_response(response: ResponseFuture) -> Result<Http2Response, h2::Error> {
    let response = with_timeout("a response", response).await?;
    let (head, mut body) = response.into_parts();
    let (bytes, trailers) = read_body(&mut body).await?;
    Ok(Http2Response { status: head.status.as_u16(), headers: head.headers, body: bytes, trailers })
}

/// The bytes of the body and its trailers.
pub(crate) async fn read_body(body: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = with_timeout("more of the body", body.data()).await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok((bytes, with_timeout("trailers", body.trailers()).await?))
}

/// Sends the whole body as the flow-control window permits, and ends the stream.
pub(crate) async fn send_all(stream: &mut SendStream<Bytes>, bytes: &[u8]) -> Result<(), h2::Error> {
    send_some(stream, Bytes::copy_from_slice(bytes)).await?;
    stream.send_data(Bytes::new(), true)
}

/// Sends a part of the body as the flow-control window permits.
pub(crate) async fn send_some(stream: &mut SendStream<Bytes>, mut rest: Bytes) -> Result<(), h2::Error> {
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        let capacity = with_timeout("flow-control capacity", poll_fn(|cx| stream.poll_capacity(cx))).await;
        let capacity = capacity.ok_or(Reason::CANCEL)??;
        stream.send_data(rest.split_to(capacity.min(rest.len())), false)?;
    }
    Ok(())
}

#[tokio::test]
async fn http2_request_reaches_an_http1_endpoint() {
    let endpoint = Endpoint::ok().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let client = Http2Client::connect(server.address).await;
    let mut request = get_request("/x/../y?z=1");
    request.headers_mut().append("cookie", "a=1".parse().unwrap());
    request.headers_mut().append("cookie", "b=2".parse().unwrap());
    request.headers_mut().append("te", "trailers".parse().unwrap());
    let response = client.request(request).await.unwrap();
    assert_eq!((response.status, &response.body[..]), (200, &b"ok"[..]));
    assert!(response.headers.contains_key("x-request-id"));
    let seen = endpoint.log.requests().remove(0);
    assert!(seen.starts_with("GET /y?z=1 HTTP/1.1\r\n"), "{seen}");
    for field in ["host: a.example", "cookie: a=1; b=2", "te: trailers", "x-forwarded-host: a.example"] {
        assert!(seen.contains(&format!("\r\n{field}\r\n")), "no {field} in {seen}");
    }
}

#[tokio::test]
async fn preface_may_arrive_in_parts() {
    let endpoint = Endpoint::ok().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut raw = RawConnection::connect_without_preface(server.address).await;
    raw.socket.set_nodelay(true).unwrap();
    for byte in PREFACE {
        raw.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    raw.send([frame(SETTINGS, 0, 0, &[]), frames::get_request(1)].concat()).await;
    raw.wait_for("the response", |frame| frame.kind == DATA && frame.payload == b"ok").await;
}

#[tokio::test]
async fn concurrent_streams_share_a_connection() {
    let endpoint = Endpoint::ok().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let client = Http2Client::connect(server.address).await;
    for _ in 0..3 {
        let client = &client;
        let requests = (0..100).map(|index| async move {
            let response = client.get(&format!("/{index}")).await;
            assert_eq!((response.status, &response.body[..]), (200, &b"ok"[..]));
        });
        futures_util::future::join_all(requests.collect::<Vec<_>>()).await;
    }
    assert_eq!(endpoint.log.requests().len(), 300);
}

/// Responds with a body of as many bytes as the number in the path.
async fn sized_endpoint() -> Endpoint {
    Endpoint::scripted(|mut stream, _| async move {
        while let Some(request) = stream.request().await {
            let length: usize = request.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
            stream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n")).await;
            stream.send(vec![b'x'; length]).await;
        }
    })
    .await
}

#[tokio::test]
async fn unread_stream_does_not_block_others() {
    let endpoint = sized_endpoint().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    // The default window of the connection is as small as that of a stream, so one unread stream would fill it.
    let client =
        Http2Client::connect_with(server.address, client::Builder::new().initial_connection_window_size(1 << 20)).await;
    let (slow, _) = client.start(get_request("/3000000")).await;
    let mut slow = with_timeout("the head", slow).await.unwrap().into_body();
    let first = with_timeout("the first bytes", slow.data()).await.unwrap().unwrap();
    assert!(!first.is_empty());
    for _ in 0..5 {
        assert_eq!(client.get("/100000").await.body.len(), 100_000);
    }
    slow.flow_control().release_capacity(first.len()).unwrap();
    let (rest, _) = read_body(&mut slow).await.unwrap();
    assert_eq!(first.len() + rest.len(), 3_000_000);
}

#[tokio::test]
async fn large_bodies_stream_in_both_directions() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        while let Some(request) = stream.request().await {
            let body = request.split_once("\r\n\r\n").unwrap().1.to_owned();
            stream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
        }
    })
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let client = Http2Client::connect(server.address).await;
    let body: Vec<u8> = (b'a'..=b'z').cycle().take(2_000_000).collect();
    let upload = async {
        let (response, mut stream) = client.start_with_body(post_request("/")).await;
        send_all(&mut stream, &body).await.unwrap();
        read_response(response).await.unwrap()
    };
    let (first, second) = tokio::join!(upload, client.get("/"));
    assert!(first.body == body);
    assert_eq!(second.status, 200);
}

// docs/kong-compatibility.md, 3.8
#[tokio::test]
async fn response_trailers_are_forwarded() {
    let endpoint = Endpoint::responding_with(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n",
    )
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let client = Http2Client::connect(server.address).await;
    let response = client.get("/").await;
    assert_eq!(response.body, b"ok");
    assert_eq!(response.trailers.unwrap()["x-sum"], "7");
    assert!(!response.headers.contains_key("transfer-encoding"));
}

#[tokio::test]
async fn declared_request_trailers_are_forwarded() {
    let endpoint = Endpoint::ok().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let client = Http2Client::connect(server.address).await;
    let mut request = post_request("/");
    request.headers_mut().insert("trailer", "x-sum".parse().unwrap());
    let (response, mut stream) = client.start_with_body(request).await;
    stream.send_data(Bytes::from_static(b"body"), false).unwrap();
    stream.send_trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), "7".parse().unwrap())])).unwrap();
    assert_eq!(read_response(response).await.unwrap().status, 200);
    assert!(endpoint.log.requests()[0].ends_with("bodyx-sum: 7\r\n"), "{:?}", endpoint.log.requests());
}

#[tokio::test]
async fn response_may_precede_the_end_of_the_request() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        let head = stream.head().await.unwrap();
        stream.record(&head);
        stream.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly").await;
        stream.read_to_end().await;
    })
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let client = Http2Client::connect(server.address).await;
    let (response, mut stream) = client.start_with_body(post_request("/")).await;
    assert_eq!(read_response(response).await.unwrap().body, b"early");
    // Nothing reads the rest of the body, so the stream is reset and the connection to the endpoint is closed.
    with_timeout("the reset", poll_fn(|cx| stream.poll_reset(cx))).await.unwrap();
    endpoint.log.wait_for("the end of the connection", |log| log.ended.load(SeqCst) == 1).await;
    assert_eq!(client.request(post_request("/")).await.unwrap().body, b"early");
}

#[tokio::test]
async fn stream_reset_cancels_the_upstream_request() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        if stream.request().await.unwrap().starts_with("GET /never") {
            stream.read_to_end().await;
        } else {
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let client = Http2Client::connect(server.address).await;
    let (response, mut stream) = client.start(get_request("/never")).await;
    endpoint.log.wait_for("the request", |log| log.requests().len() == 1).await;
    stream.send_reset(Reason::CANCEL);
    drop(response);
    endpoint.log.wait_for("the end of the connection", |log| log.ended.load(SeqCst) == 1).await;
    assert_eq!(client.get("/").await.body, b"ok");
}

#[tokio::test]
async fn truncated_response_resets_only_its_stream() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        while let Some(request) = stream.request().await {
            if request.starts_with("GET /cut") {
                stream.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
                return;
            }
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let client = Http2Client::connect(server.address).await;
    for _ in 0..3 {
        let error = client.request(get_request("/cut")).await.unwrap_err();
        assert!(error.is_reset() && error.is_remote(), "{error}");
        assert_eq!(client.get("/").await.body, b"ok");
    }
}

#[tokio::test]
async fn streams_keep_the_snapshot_they_started_with() {
    let (release, released) = tokio::sync::watch::channel(false);
    let old = Endpoint::scripted(move |mut stream, _| {
        let mut released = released.clone();
        async move {
            stream.request().await;
            released.wait_for(|released| *released).await.unwrap();
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nold").await;
        }
    })
    .await;
    let new = Endpoint::responding_with("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nnew").await;
    let server = TestServer::with_routes(routes_to(old.address)).await;
    let client = Http2Client::connect(server.address).await;
    let (response, _) = client.start(get_request("/")).await;
    old.log.wait_for("the request", |log| log.requests().len() == 1).await;
    server.replace_routes(routes_to(new.address));
    assert_eq!(client.get("/").await.body, b"new");
    release.send(true).unwrap();
    assert_eq!(read_response(response).await.unwrap().body, b"old");
}

#[tokio::test]
async fn ambiguous_or_invalid_requests_are_rejected() {
    let endpoint = Endpoint::ok().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let with_field = |name: &'static str, value: &'static str| {
        let mut request = get_request("/");
        request.headers_mut().append(name, value.parse().unwrap());
        request
    };
    let client = Http2Client::connect(server.address).await;
    let mut two_hosts = with_field("host", "a.example");
    two_hosts.headers_mut().append("host", "a.example".parse().unwrap());
    let mut most_fields = get_request("/");
    for index in 0..100 {
        most_fields
            .headers_mut()
            .insert(format!("x-{index}").parse::<http::HeaderName>().unwrap(), "y".parse().unwrap());
    }
    let mut too_many_fields = most_fields.clone();
    too_many_fields.headers_mut().insert("one-more", "y".parse().unwrap());
    // A browser sends each cookie in a field of its own. They count as one.
    let mut many_cookies = get_request("/");
    for index in 0..200 {
        many_cookies.headers_mut().append("cookie", format!("c{index}=1").parse().unwrap());
    }
    let cases = [
        (get_request("/"), 200),
        (many_cookies, 200),
        (with_field("host", "A.example"), 200),
        (with_field("host", "b.example"), 400),
        (with_field("host", "a.example:80"), 400),
        (with_field("host", "a b"), 400),
        (two_hosts, 400),
        (most_fields, 200),
        (too_many_fields, 431),
        (Request::get("http://user@a.example/").body(()).unwrap(), 400),
        (Request::get("http://a.example/%zz").body(()).unwrap(), 400),
        (Request::get("ftp://a.example/").body(()).unwrap(), 400),
        (Request::connect("a.example:80").body(()).unwrap(), 405),
        (with_field("expect", "a miracle"), 417),
    ];
    for (request, expected) in cases {
        let what = format!("{request:.200?}");
        assert_eq!(client.request(request).await.unwrap().status, expected, "{what}");
    }
    let response = client.request(get_request("/")).await.unwrap();
    assert!(!response.headers.contains_key("connection"));
}

#[tokio::test]
async fn request_errors_have_json_or_grpc_format() {
    let server = TestServer::with_routes(vec![]).await;
    let client = Http2Client::connect(server.address).await;
    let response = client.get("/").await;
    assert_eq!(response.status, 404);
    assert!(String::from_utf8(response.body).unwrap().contains("no Route matched"));
    let mut request = post_request("/package.Service/Call");
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let response = client.request(request).await.unwrap();
    assert_eq!((response.status, &response.body[..]), (200, &b""[..]));
    assert_eq!(response.headers["grpc-status"], "12");
}

const SHORT: Duration = Duration::from_millis(100);

#[tokio::test]
async fn timeouts_apply_to_each_stream() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        let head = stream.head().await.unwrap();
        stream.record(&head);
        if head.starts_with("GET /half") {
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        } else if head.starts_with("GET /ok") {
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
        stream.read_to_end().await;
    })
    .await;
    // Each timeout with a proxy of its own, so that a slow machine causes no other error.
    let server = async |limits: ProxyLimits| {
        TestServer::with_options(Options { limits, ..Options::default() }, routes_to(endpoint.address)).await
    };
    let with_response_timeout = server(ProxyLimits { response_timeout: SHORT, ..ProxyLimits::default() }).await;
    let client = Http2Client::connect(with_response_timeout.address).await;
    for _ in 0..2 {
        assert_eq!(client.get("/silent").await.status, 504);
    }
    let with_body_timeout = server(ProxyLimits { request_body_timeout: SHORT, ..ProxyLimits::default() }).await;
    let client = Http2Client::connect(with_body_timeout.address).await;
    let (response, _body) = client.start_with_body(post_request("/upload")).await;
    assert_eq!(read_response(response).await.unwrap().status, 408);
    assert_eq!(client.get("/ok").await.body, b"ok");
    let with_stall_timeout = server(ProxyLimits { stall_timeout: SHORT, ..ProxyLimits::default() }).await;
    let client = Http2Client::connect(with_stall_timeout.address).await;
    let error = client.request(get_request("/half")).await.unwrap_err();
    assert!(error.is_reset(), "{error}");
    assert_eq!(client.get("/ok").await.body, b"ok");
}

#[tokio::test]
async fn stream_is_reset_when_its_window_stays_closed() {
    let endpoint = sized_endpoint().await;
    let limits = ProxyLimits { stall_timeout: SHORT, ..ProxyLimits::default() };
    let server = TestServer::with_options(Options { limits, ..Options::default() }, routes_to(endpoint.address)).await;
    let mut raw = RawConnection::connect_with_settings(server.address, &initial_window_size(0)).await;
    let request: Vec<(&str, &str)> =
        GET.iter().map(|(name, value)| (*name, if *name == ":path" { "/9" } else { *value })).collect();
    raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &frames::header_block(&request))).await;
    raw.wait_for("the head", |frame| frame.kind == HEADERS && frame.stream == 1).await;
    raw.wait_for("the reset", |frame| frame.kind == RST_STREAM && frame.stream == 1).await;
}

#[tokio::test]
async fn idle_connection_is_closed() {
    let endpoint = Endpoint::ok().await;
    let limits = ProxyLimits { client_idle_timeout: LONGER_THAN_PAUSES, ..ProxyLimits::default() };
    let server = TestServer::with_options(Options { limits, ..Options::default() }, routes_to(endpoint.address)).await;
    let mut raw = RawConnection::connect(server.address).await;
    raw.send(frames::get_request(1)).await;
    raw.wait_for("the response", |frame| frame.kind == DATA && frame.flags & END_STREAM != 0).await;
    let goaway = raw.wait_for("the GOAWAY", |frame| frame.kind == GOAWAY).await;
    assert_eq!(goaway.error_code(), 0);
}

#[tokio::test]
async fn draining_sends_two_goaways_and_finishes_streams() {
    let (release, released) = tokio::sync::watch::channel(false);
    let endpoint = Endpoint::scripted(move |mut stream, _| {
        let mut released = released.clone();
        async move {
            stream.request().await;
            released.wait_for(|released| *released).await.unwrap();
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut raw = RawConnection::connect(server.address).await;
    raw.send(frames::get_request(1)).await;
    endpoint.log.wait_for("the request", |log| log.requests().len() == 1).await;
    let draining = server.proxy.drain(crate::harness::TEST_TIMEOUT);
    let client = async {
        let first = raw.wait_for("the first GOAWAY", |frame| frame.kind == GOAWAY).await;
        assert_eq!((first.error_code(), first.last_stream()), (0, 0x7fff_ffff));
        // A request that the client sends before it receives the first GOAWAY is served.
        raw.send(frames::get_request(3)).await;
        endpoint.log.wait_for("the second request", |log| log.requests().len() == 2).await;
        let ping = raw.wait_for("the ping", |frame| frame.kind == PING && frame.flags == 0).await;
        raw.send(frame(PING, ACK, 0, &ping.payload)).await;
        let last = raw.wait_for("the last GOAWAY", |frame| frame.kind == GOAWAY).await;
        assert_eq!((last.error_code(), last.last_stream()), (0, 3));
        release.send(true).unwrap();
        let response_count =
            raw.read_to_end().await.iter().filter(|frame| frame.kind == DATA && frame.payload == b"ok").count();
        assert_eq!(response_count, 2);
    };
    let (cut_connections, ()) = tokio::join!(draining, client);
    assert_eq!(cut_connections, 0);
}

#[tokio::test]
async fn streams_are_cut_at_the_drain_deadline() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.read_to_end().await;
    })
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let client = Http2Client::connect(server.address).await;
    let (response, _) = client.start(get_request("/")).await;
    endpoint.log.wait_for("the request", |log| log.requests().len() == 1).await;
    assert_eq!(server.proxy.drain(SHORT).await, 1);
    read_response(response).await.unwrap_err();
    endpoint.log.wait_for("the end of the connection", |log| log.ended.load(SeqCst) == 1).await;
}

#[tokio::test]
async fn removed_listener_closes_http2_connections() {
    let endpoint = Endpoint::ok().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let client = Http2Client::connect(server.address).await;
    assert_eq!(client.get("/").await.status, 200);
    server.snapshot.store(std::sync::Arc::default());
    server.proxy.reconcile().await;
    client.wait_for_end().await.unwrap();
}

#[tokio::test]
async fn responses_without_content_have_no_length() {
    // (what the endpoint sends, the length that clients get, the connections to the endpoint)
    let cases = [
        ("HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", None, 1),
        // The body that it announces may follow.
        ("HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n", None, 4),
        ("HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", Some("5"), 1),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Some("0"), 1),
    ];
    for (sent, expected, connections) in cases {
        let endpoint = Endpoint::responding_with(sent).await;
        let server = TestServer::with_routes(routes_to(endpoint.address)).await;
        let client = Http2Client::connect(server.address).await;
        let mut http1_client = server.connect().await;
        for _ in 0..2 {
            let response = client.get("/").await;
            let length = response.headers.get("content-length").map(|length| length.to_str().unwrap());
            assert_eq!((length, response.body.len()), (expected, 0), "{sent}");
            assert_eq!(http1_client.get("/").await.header("content-length"), expected, "{sent}");
        }
        assert_eq!(endpoint.log.connections(), connections, "{sent}");
    }
}
