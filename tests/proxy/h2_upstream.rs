//! HTTP/2 to endpoints (`appProtocol: kubernetes.io/h2c`): shared connections, trailers, gRPC, and retries of
//! unprocessed requests.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use portico::limits::ProxyLimits;
use portico::proxy::access_log::AccessLogDestination;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::accounting::access_log_records;
use crate::h2::{Http2Client, get_request, post_request, read_body, read_response, send_all};
use crate::harness::{Endpoint, Options, TEST_TIMEOUT, TestServer, h2c_routes_to, with_timeout};

type HandlerFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An HTTP/2 endpoint that counts its connections.
pub(crate) struct Http2Endpoint {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Http2Endpoint {
    /// How many requests have arrived.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(SeqCst)
    }

    /// How many connections it has accepted.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

/// A request at the endpoint, the handle that sends its response, and the number of the connection, starting at 1.
pub(crate) struct EndpointCall {
    pub(crate) request: Request<RecvStream>,
    pub(crate) response: SendResponse<Bytes>,
    connection: usize,
}

/// An HTTP/2 endpoint that runs the handler for every request, and sends GOAWAY after a request for `/goaway`.
pub(crate) async fn http2_endpoint<F>(
    builder: server::Builder,
    handle: impl Fn(EndpointCall) -> F + Send + Sync + 'static,
) -> Http2Endpoint
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    let requests = Arc::new(AtomicUsize::new(0));
    let request_counter = Arc::clone(&requests);
    let handle: Arc<dyn Fn(EndpointCall) -> HandlerFuture + Send + Sync> = Arc::new(move |call| Box::pin(handle(call)));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let number = counter.fetch_add(1, SeqCst) + 1;
            let (builder, handle) = (builder.clone(), Arc::clone(&handle));
            let request_counter = Arc::clone(&request_counter);
            tokio::spawn(async move {
                let Ok(mut connection) = builder.handshake::<_, Bytes>(socket).await else { return };
                while let Some(Ok((request, reply))) = connection.accept().await {
                    request_counter.fetch_add(1, SeqCst);
                    let sends_goaway = request.uri().path() == "/goaway";
                    tokio::spawn(handle(EndpointCall { request, response: reply, connection: number }));
                    if sends_goaway {
                        connection.graceful_shutdown();
                    }
                }
            });
        }
    });
    Http2Endpoint { address, connections, requests }
}

/// An HTTP/2 endpoint that responds with the number of bytes of the request's body. Of requests to a path that it
/// holds, it reads nothing before it is released.
pub(crate) async fn counting_endpoint(
    builder: server::Builder,
    released: watch::Receiver<bool>,
    holds: fn(path: &str) -> bool,
) -> Http2Endpoint {
    http2_endpoint(builder, move |mut call| {
        let mut released = released.clone();
        async move {
            if holds(call.request.uri().path()) {
                released.wait_for(|released| *released).await.unwrap();
            }
            let (mut body, mut byte_count) = (call.request.into_body(), 0);
            while let Some(Ok(data)) = with_timeout("more of the body", body.data()).await {
                body.flow_control().release_capacity(data.len()).unwrap();
                byte_count += data.len();
            }
            let mut stream = call.response.send_response(Response::new(()), false).unwrap();
            stream.send_data(Bytes::from(byte_count.to_string()), true).unwrap();
        }
    })
    .await
}

/// An HTTP/2 endpoint that echoes requests.
pub(crate) async fn echo_endpoint() -> Http2Endpoint {
    http2_endpoint(server::Builder::new(), echo).await
}

/// Echoes the request: its target and headers in response headers, its body, and its trailers with `grpc-status`.
async fn echo(call: EndpointCall) {
    let (head, mut body) = call.request.into_parts();
    let mut reply = call.response;
    let mut response = Response::builder()
        .header("x-uri", head.uri.to_string())
        .header("x-fields", head.headers.keys().map(|name| name.as_str()).collect::<Vec<_>>().join(" "))
        .header("x-te", head.headers.get("te").map_or("", |te| te.to_str().unwrap()));
    if let Some(content_type) = head.headers.get("content-type") {
        response = response.header("content-type", content_type);
    }
    let mut stream = reply.send_response(response.body(()).unwrap(), false).unwrap();
    let Ok((bytes, trailers)) = read_body(&mut body).await else { return };
    let mut trailers = trailers.unwrap_or_default();
    trailers.insert("grpc-status", "0".parse().unwrap());
    if bytes.is_empty() {
        stream.send_trailers(trailers).unwrap();
        return;
    }
    let mut rest = Bytes::from(bytes);
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        let Some(Ok(capacity)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
        stream.send_data(rest.split_to(capacity.min(rest.len())), false).unwrap();
    }
    stream.send_trailers(trailers).unwrap();
}

#[tokio::test]
async fn http1_and_http2_requests_share_one_connection() {
    let endpoint = echo_endpoint().await;
    let server = TestServer::with_routes(h2c_routes_to(endpoint.address)).await;
    let client = Http2Client::connect(server.address).await;
    let requests = (0..60).map(|index| client.request(get_request(&format!("/{index}?x"))));
    for (index, response) in futures_util::future::join_all(requests).await.into_iter().enumerate() {
        let response = response.unwrap();
        assert_eq!(response.status, 200);
        assert_eq!(response.headers["x-uri"], format!("http://a.example/{index}?x"));
        assert_eq!(response.trailers.unwrap()["grpc-status"], "0");
    }
    let mut http1_client = server.connect().await;
    let response = http1_client.get("/one?y").await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("x-uri"), Some("http://a.example/one?y"));
    let fields = response.header("x-fields").unwrap();
    assert!(!fields.split(' ').any(|field| ["host", "connection", "transfer-encoding"].contains(&field)), "{fields}");
    assert_eq!(endpoint.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn bodies_and_trailers_are_forwarded() {
    let endpoint = echo_endpoint().await;
    let server = TestServer::with_routes(h2c_routes_to(endpoint.address)).await;
    let client = Http2Client::connect(server.address).await;
    let body: Vec<u8> = (b'a'..=b'z').cycle().take(1_000_000).collect();
    let (response, mut stream) = client.start_with_body(post_request("/")).await;
    let (sent, response) = tokio::join!(send_all(&mut stream, &body), read_response(response));
    sent.unwrap();
    assert!(response.unwrap().body == body);

    let (response, mut stream) = client.start_with_body(post_request("/")).await;
    stream.send_data(Bytes::from_static(b"x"), false).unwrap();
    stream.send_trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())])).unwrap();
    assert_eq!(read_response(response).await.unwrap().trailers.unwrap()["x-sum"], "1");

    let mut http1_client = server.connect().await;
    http1_client.send(
        "POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
         3\r\nabc\r\n0\r\nx-sum: 3\r\n\r\n",
    )
    .await;
    let response = http1_client.response().await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("x-te"), Some("trailers"));
    assert!(response.body.starts_with(b"abc"), "{:?}", response.text());
}

/// A gRPC message: a flag, a length, and the payload.
fn message(bytes: &[u8]) -> Bytes {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[0], &length[..], bytes].concat().into()
}

fn grpc_request() -> Request<()> {
    let request = Request::post("http://a.example/package.Service/Talk");
    request.header("content-type", "application/grpc+proto").header("te", "trailers").body(()).unwrap()
}

#[tokio::test]
async fn grpc_streams_are_bidirectional() {
    let endpoint = http2_endpoint(server::Builder::new(), |call| async move {
        let mut body = call.request.into_body();
        let mut reply = call.response;
        let head = Response::builder().header("content-type", "application/grpc+proto").body(()).unwrap();
        let mut stream = reply.send_response(head, false).unwrap();
        while let Some(Ok(data)) = body.data().await {
            body.flow_control().release_capacity(data.len()).unwrap();
            stream.send_data(data, false).unwrap();
        }
        let trailers = [("grpc-status".parse().unwrap(), "0".parse().unwrap())];
        stream.send_trailers(HeaderMap::from_iter(trailers)).unwrap();
    })
    .await;
    let server = TestServer::with_routes(h2c_routes_to(endpoint.address)).await;
    let client = Http2Client::connect(server.address).await;
    let (response, mut stream) = client.start_with_body(grpc_request()).await;
    let mut response = with_timeout("the head", response).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/grpc+proto");
    for payload in [&b"one"[..], b"two", b"three"] {
        // Each message is echoed before the next one is sent: nothing is buffered.
        stream.send_data(message(payload), false).unwrap();
        let mut echoed = Vec::new();
        while echoed.len() < payload.len() + 5 {
            let data = with_timeout("a response", response.body_mut().data()).await.unwrap().unwrap();
            echoed.extend_from_slice(&data);
        }
        assert_eq!(echoed, message(payload));
    }
    stream.send_data(Bytes::new(), true).unwrap();
    let (rest, trailers) = read_body(response.body_mut()).await.unwrap();
    assert_eq!((rest.len(), &trailers.unwrap()["grpc-status"]), (0, &http::HeaderValue::from_static("0")));
}

#[tokio::test]
async fn trailers_only_response_is_preserved() {
    let endpoint = http2_endpoint(server::Builder::new(), |mut call| async move {
        let head = Response::builder().header("content-type", "application/grpc").header("grpc-status", "12");
        call.response.send_response(head.body(()).unwrap(), true).unwrap();
    })
    .await;
    let server = TestServer::with_routes(h2c_routes_to(endpoint.address)).await;
    let response = Http2Client::connect(server.address).await.request(grpc_request()).await.unwrap();
    assert_eq!((response.status, response.body.len(), response.trailers), (200, 0, None));
    assert_eq!(response.headers["grpc-status"], "12");
}

#[tokio::test]
async fn concurrency_limit_of_the_endpoint_is_respected() {
    let (release, released) = watch::channel(false);
    let request_count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&request_count);
    let mut builder = server::Builder::new();
    builder.max_concurrent_streams(10);
    let endpoint = http2_endpoint(builder, move |mut call| {
        let mut released = released.clone();
        let counter = Arc::clone(&counter);
        async move {
            if call.request.uri().path() != "/first" {
                counter.fetch_add(1, SeqCst);
                released.wait_for(|released| *released).await.unwrap();
            }
            call.response.send_response(Response::new(()), true).unwrap();
        }
    })
    .await;
    let server = TestServer::with_routes(h2c_routes_to(endpoint.address)).await;
    let client = Http2Client::connect(server.address).await;
    // The SETTINGS of the endpoint precede its first response.
    assert_eq!(client.get("/first").await.status, 200);
    let waiting = futures_util::future::join_all((0..25).map(|_| client.request(get_request("/"))));
    let releasing = async {
        with_timeout("all requests to arrive", async {
            while request_count.load(SeqCst) < 25 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        release.send(true).unwrap();
    };
    let (responses, ()) = tokio::join!(waiting, releasing);
    assert!(responses.into_iter().all(|response| response.unwrap().status == 200));
    assert_eq!(endpoint.connections.load(SeqCst), 3);
}

#[tokio::test]
async fn refused_streams_are_retried() {
    // The endpoint resets the streams of calls with an odd number.
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let endpoint = http2_endpoint(server::Builder::new(), move |mut call| {
        let number = counter.fetch_add(1, SeqCst);
        async move {
            let reason = call.request.uri().path().trim_start_matches('/').parse::<u32>();
            match reason {
                Ok(reason) if number % 2 == 1 => call.response.send_reset(Reason::from(reason)),
                _ => drop(call.response.send_response(Response::new(()), true).unwrap()),
            }
        }
    })
    .await;
    let server = TestServer::with_routes(h2c_routes_to(endpoint.address)).await;
    let client = Http2Client::connect(server.address).await;
    let refused = u32::from(Reason::REFUSED_STREAM);
    let cases = [
        (get_request(&format!("/{refused}")), 200, 2),
        // Not idempotent, but unprocessed and without a body.
        (post_request(&format!("/{refused}")), 200, 2),
        (get_request(&format!("/{}", u32::from(Reason::INTERNAL_ERROR))), 502, 1),
        (get_request(&format!("/{}", u32::from(Reason::CANCEL))), 502, 1),
    ];
    for (request, expected, attempts) in cases {
        assert_eq!(client.get("/").await.status, 200);
        calls.store(1, SeqCst);
        let what = format!("{request:?}");
        assert_eq!(client.request(request).await.unwrap().status, expected, "{what}");
        assert_eq!(calls.load(SeqCst), 1 + attempts, "{what}");
        calls.store(0, SeqCst);
    }
}

#[tokio::test]
async fn endpoint_may_send_goaway_at_any_time() {
    let endpoint = http2_endpoint(server::Builder::new(), |mut call| async move {
        let number = call.connection.to_string();
        let response = Response::builder().header("x-connection", number).body(()).unwrap();
        call.response.send_response(response, true).unwrap();
    })
    .await;
    let server = TestServer::with_routes(h2c_routes_to(endpoint.address)).await;
    let client = Http2Client::connect(server.address).await;
    for _ in 0..20 {
        assert_eq!(client.get("/goaway").await.status, 200);
        for _ in 0..5 {
            assert_eq!(client.request(post_request("/")).await.unwrap().status, 200);
        }
    }
    assert!(endpoint.connections.load(SeqCst) > 1);
}

#[tokio::test]
async fn invalid_http2_responses_get_502_or_504() {
    let malformed =
        ["", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "\0\0\0\u{4}\0\0\0\0\0\0\0\u{1}\u{1}\u{5}\0\0\0\u{1}\0"];
    for bytes in malformed {
        let endpoint = Endpoint::scripted(move |mut stream, _| async move {
            stream.send(bytes).await;
        })
        .await;
        let server = TestServer::with_routes(h2c_routes_to(endpoint.address)).await;
        assert_eq!(server.request("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.status, 502, "{bytes:?}");
    }
    let silent = Endpoint::scripted(|mut stream, _| async move {
        stream.read_to_end().await;
    })
    .await;
    let limits = ProxyLimits { response_timeout: Duration::from_millis(100), ..ProxyLimits::default() };
    let options = Options { limits, ..Options::default() };
    let server = TestServer::with_options(options, h2c_routes_to(silent.address)).await;
    assert_eq!(server.request("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.status, 504);
}

#[tokio::test]
async fn reset_response_never_appears_complete() {
    let endpoint = http2_endpoint(server::Builder::new(), |mut call| async move {
        let mut stream = call.response.send_response(Response::new(()), false).unwrap();
        stream.send_data(Bytes::from_static(b"half"), false).unwrap();
        // Reads the request to its end, so that the data is sent before the reset.
        let mut body = call.request.into_body();
        drop(read_body(&mut body).await);
        tokio::task::yield_now().await;
        stream.send_reset(Reason::INTERNAL_ERROR);
    })
    .await;
    let server = TestServer::with_routes(h2c_routes_to(endpoint.address)).await;
    for _ in 0..10 {
        let client = Http2Client::connect(server.address).await;
        match client.request(get_request("/")).await {
            Ok(response) => assert_eq!(response.status, 502),
            Err(error) => assert!(error.is_reset(), "{error}"),
        }
        let mut http1_client = server.connect().await;
        http1_client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        if let Some(response) = http1_client.try_response().await {
            assert_eq!(response.status, 502, "{response:?}");
        }
    }
}

#[tokio::test]
async fn concurrent_requests_share_a_refused_connection() {
    let (address, _reserved) = crate::harness::reserve_address();
    let server = TestServer::with_routes(h2c_routes_to(address)).await;
    let client = Http2Client::connect(server.address).await;
    let responses = futures_util::future::join_all((0..50).map(|_| client.request(get_request("/")))).await;
    assert!(responses.into_iter().all(|response| response.unwrap().status == 503));
}

#[tokio::test]
async fn data_of_responses_without_content_is_dropped() {
    let endpoint = http2_endpoint(server::Builder::new(), |mut call| async move {
        let status: u16 = call.request.uri().path().trim_start_matches('/').parse().unwrap();
        let response = Response::builder().status(status).header("content-length", "4").body(()).unwrap();
        let mut stream = call.response.send_response(response, false).unwrap();
        // The proxy may have reset the stream already.
        drop(stream.send_data(Bytes::from_static(b"data"), true));
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let options = Options { log: AccessLogDestination::File(path.clone()), ..Options::default() };
    let server = TestServer::with_options(options, h2c_routes_to(endpoint.address)).await;
    let client = Http2Client::connect(server.address).await;
    let mut http1_client = server.connect().await;
    for (status, length) in [(204, None), (304, Some("4")), (200, Some("4"))] {
        let body = if status == 200 { &b"data"[..] } else { b"" };
        let target = format!("/{status}");
        let response = client.get(&target).await;
        let found = response.headers.get("content-length").map(|length| length.to_str().unwrap());
        assert_eq!((response.status, found, &response.body[..]), (status, length, body));
        let response = http1_client.get(&target).await;
        let found = response.header("content-length");
        assert_eq!((response.status, found, &response.body[..]), (status, length, body));
    }
    drop((client, http1_client));
    assert_eq!(server.proxy.drain(TEST_TIMEOUT).await, 0);
    server.log.finish();
    for record in access_log_records(&path) {
        assert!(record["error"].is_null(), "{record}");
    }
}
