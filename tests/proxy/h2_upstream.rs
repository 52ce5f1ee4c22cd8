//! HTTP/2 towards endpoints (`appProtocol: kubernetes.io/h2c`): shared connections, trailers, gRPC, and requests that an
//! endpoint has not looked at.

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
use portico::proxy::Limits;
use portico::upstream::Protocol;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::h2::{Client, get, post, read, read_body, send_all};
use crate::harness::{Endpoint, Gate, Options, Route, forward, route, upstream_of};

type Reply = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An endpoint of HTTP/2, and how many connections it had.
pub(crate) struct Http2 {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

/// A request as the endpoint has it, with the number of its connection, from 1.
pub(crate) struct Call {
    pub(crate) request: Request<RecvStream>,
    pub(crate) reply: SendResponse<Bytes>,
    connection: usize,
}

pub(crate) async fn endpoint<F>(builder: server::Builder, handle: impl Fn(Call) -> F + Send + Sync + 'static) -> Http2
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    let handle: Arc<dyn Fn(Call) -> Reply + Send + Sync> = Arc::new(move |call| Box::pin(handle(call)));
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let number = counter.fetch_add(1, SeqCst) + 1;
            let (builder, handle) = (builder.clone(), Arc::clone(&handle));
            tokio::spawn(async move {
                let Ok(mut connection) = builder.handshake::<_, Bytes>(socket).await else { return };
                while let Some(Ok((request, reply))) = connection.accept().await {
                    let goodbye = request.uri().path() == "/goodbye";
                    tokio::spawn(handle(Call { request, reply, connection: number }));
                    if goodbye {
                        connection.graceful_shutdown();
                    }
                }
            });
        }
    });
    Http2 { address, connections }
}

fn to(endpoint: &Http2) -> Vec<Route> {
    vec![route(forward(vec![(1, upstream_of(Protocol::Http2, "h2c", &[endpoint.address]))]))]
}

/// Answers with what it got: the fields in the head, the body in the body, the trailers as trailers.
async fn mirror(call: Call) {
    let (head, mut body) = call.request.into_parts();
    let mut reply = call.reply;
    let mut answer = Response::builder()
        .header("x-uri", head.uri.to_string())
        .header("x-fields", head.headers.keys().map(|name| name.as_str()).collect::<Vec<_>>().join(" "))
        .header("x-te", head.headers.get("te").map_or("", |te| te.to_str().unwrap()));
    if let Some(kind) = head.headers.get("content-type") {
        answer = answer.header("content-type", kind);
    }
    let mut stream = reply.send_response(answer.body(()).unwrap(), false).unwrap();
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
        let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
        stream.send_data(rest.split_to(room.min(rest.len())), false).unwrap();
    }
    stream.send_trailers(trailers).unwrap();
}

#[tokio::test]
async fn requests_of_http1_and_http2_share_one_connection() {
    let endpoint = endpoint(server::Builder::new(), mirror).await;
    let gate = Gate::open(to(&endpoint)).await;
    let client = Client::connect(gate.address).await;
    let asked = (0..60).map(|index| client.ask(get(&format!("/{index}?x"))));
    for (index, answer) in futures_util::future::join_all(asked).await.into_iter().enumerate() {
        let answer = answer.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["x-uri"], format!("http://a.example/{index}?x"));
        assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
    }
    let mut old = gate.client().await;
    let answer = old.get("/one?y").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-uri"), Some("http://a.example/one?y"));
    let fields = answer.header("x-fields").unwrap();
    assert!(!fields.split(' ').any(|field| ["host", "connection", "transfer-encoding"].contains(&field)), "{fields}");
    assert_eq!(endpoint.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn bodies_and_trailers_go_through_in_all_combinations() {
    let endpoint = endpoint(server::Builder::new(), mirror).await;
    let gate = Gate::open(to(&endpoint)).await;
    let client = Client::connect(gate.address).await;
    let body: Vec<u8> = (b'a'..=b'z').cycle().take(1_000_000).collect();
    let (answer, mut stream) = client.start(post("/"), false).await;
    let (sent, answer) = tokio::join!(send_all(&mut stream, &body), read(answer));
    sent.unwrap();
    assert!(answer.unwrap().body == body);

    let (answer, mut stream) = client.start(post("/"), false).await;
    stream.send_data(Bytes::from_static(b"x"), false).unwrap();
    stream.send_trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())])).unwrap();
    assert_eq!(read(answer).await.unwrap().trailers.unwrap()["x-sum"], "1");

    let mut old = gate.client().await;
    old.send(
        "POST / HTTP/1.1\r\nhost: a\r\nte: trailers\r\nconnection: te\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
         3\r\nabc\r\n0\r\nx-sum: 3\r\n\r\n",
    )
    .await;
    let answer = old.answer(false).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-te"), Some("trailers"));
    assert!(answer.body.starts_with(b"abc"), "{:?}", answer.text());
}

/// A message of gRPC: a flag, a length, and the bytes.
fn message(bytes: &[u8]) -> Bytes {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[0], &length[..], bytes].concat().into()
}

fn call() -> Request<()> {
    let request = Request::post("http://a.example/package.Service/Talk");
    request.header("content-type", "application/grpc+proto").header("te", "trailers").body(()).unwrap()
}

#[tokio::test]
async fn grpc_streams_talk_both_ways_at_the_same_time() {
    let endpoint = endpoint(server::Builder::new(), |call| async move {
        let mut body = call.request.into_body();
        let mut reply = call.reply;
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
    let gate = Gate::open(to(&endpoint)).await;
    let client = Client::connect(gate.address).await;
    let (answer, mut stream) = client.start(call(), false).await;
    let mut answer = crate::harness::within("the head", answer).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/grpc+proto");
    for word in [&b"one"[..], b"two", b"three"] {
        // Each is answered before the next is sent: nothing is held back.
        stream.send_data(message(word), false).unwrap();
        let mut got = Vec::new();
        while got.len() < word.len() + 5 {
            let data = crate::harness::within("an answer", answer.body_mut().data()).await.unwrap().unwrap();
            got.extend_from_slice(&data);
        }
        assert_eq!(got, message(word));
    }
    stream.send_data(Bytes::new(), true).unwrap();
    let (rest, trailers) = read_body(answer.body_mut()).await.unwrap();
    assert_eq!((rest.len(), &trailers.unwrap()["grpc-status"]), (0, &http::HeaderValue::from_static("0")));
}

#[tokio::test]
async fn an_answer_of_trailers_only_stays_one() {
    let endpoint = endpoint(server::Builder::new(), |mut call| async move {
        let head = Response::builder().header("content-type", "application/grpc").header("grpc-status", "12");
        call.reply.send_response(head.body(()).unwrap(), true).unwrap();
    })
    .await;
    let gate = Gate::open(to(&endpoint)).await;
    let answer = Client::connect(gate.address).await.ask(call()).await.unwrap();
    assert_eq!((answer.status, answer.body.len(), answer.trailers), (200, 0, None));
    assert_eq!(answer.headers["grpc-status"], "12");
}

#[tokio::test]
async fn no_more_requests_share_a_connection_than_the_endpoint_takes() {
    let (go, wait) = watch::channel(false);
    let busy = Arc::new(AtomicUsize::new(0));
    let now = Arc::clone(&busy);
    let mut builder = server::Builder::new();
    builder.max_concurrent_streams(10);
    let endpoint = endpoint(builder, move |mut call| {
        let mut wait = wait.clone();
        let now = Arc::clone(&now);
        async move {
            if call.request.uri().path() != "/first" {
                now.fetch_add(1, SeqCst);
                wait.wait_for(|go| *go).await.unwrap();
            }
            call.reply.send_response(Response::new(()), true).unwrap();
        }
    })
    .await;
    let gate = Gate::open(to(&endpoint)).await;
    let client = Client::connect(gate.address).await;
    // With its answer the settings of the endpoint have come.
    assert_eq!(client.get("/first").await.status, 200);
    let waiting = futures_util::future::join_all((0..25).map(|_| client.ask(get("/"))));
    let release = async {
        crate::harness::within("all requests to arrive", async {
            while busy.load(SeqCst) < 25 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        go.send(true).unwrap();
    };
    let (answers, ()) = tokio::join!(waiting, release);
    assert!(answers.into_iter().all(|answer| answer.unwrap().status == 200));
    assert_eq!(endpoint.connections.load(SeqCst), 3);
}

#[tokio::test]
async fn what_an_endpoint_refuses_to_look_at_is_sent_again() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let endpoint = endpoint(server::Builder::new(), move |mut call| {
        let number = counter.fetch_add(1, SeqCst);
        async move {
            let reason = call.request.uri().path().trim_start_matches('/').parse::<u32>();
            match reason {
                Ok(reason) if number % 2 == 1 => call.reply.send_reset(Reason::from(reason)),
                _ => drop(call.reply.send_response(Response::new(()), true).unwrap()),
            }
        }
    })
    .await;
    let gate = Gate::open(to(&endpoint)).await;
    let client = Client::connect(gate.address).await;
    let refused = u32::from(Reason::REFUSED_STREAM);
    let cases = [
        (get(&format!("/{refused}")), 200, 2),
        // Not idempotent, but nobody has looked at it, and it has no body.
        (post(&format!("/{refused}")), 200, 2),
        (get(&format!("/{}", u32::from(Reason::INTERNAL_ERROR))), 502, 1),
        (get(&format!("/{}", u32::from(Reason::CANCEL))), 502, 1),
    ];
    for (request, expected, tries) in cases {
        assert_eq!(client.get("/").await.status, 200);
        calls.store(1, SeqCst);
        let what = format!("{request:?}");
        assert_eq!(client.ask(request).await.unwrap().status, expected, "{what}");
        assert_eq!(calls.load(SeqCst), 1 + tries, "{what}");
        calls.store(0, SeqCst);
    }
}

#[tokio::test]
async fn an_endpoint_may_say_goodbye_at_any_time() {
    let endpoint = endpoint(server::Builder::new(), |mut call| async move {
        let number = call.connection.to_string();
        let answer = Response::builder().header("x-connection", number).body(()).unwrap();
        call.reply.send_response(answer, true).unwrap();
    })
    .await;
    let gate = Gate::open(to(&endpoint)).await;
    let client = Client::connect(gate.address).await;
    for _ in 0..20 {
        assert_eq!(client.get("/goodbye").await.status, 200);
        for _ in 0..5 {
            assert_eq!(client.ask(post("/")).await.unwrap().status, 200);
        }
    }
    assert!(endpoint.connections.load(SeqCst) > 1);
}

#[tokio::test]
async fn what_an_endpoint_of_http2_can_do_wrong() {
    let answered =
        ["", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", "\0\0\0\u{4}\0\0\0\0\0\0\0\u{1}\u{1}\u{5}\0\0\0\u{1}\0"];
    for bytes in answered {
        let endpoint = Endpoint::scripted(move |mut stream, _| async move {
            stream.send(bytes).await;
        })
        .await;
        let gate =
            Gate::open(vec![route(forward(vec![(1, upstream_of(Protocol::Http2, "h2c", &[endpoint.address]))]))]).await;
        assert_eq!(gate.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.status, 502, "{bytes:?}");
    }
    let silent = Endpoint::scripted(|mut stream, _| async move {
        stream.rest().await;
    })
    .await;
    let limits = Limits { answer_timeout: Duration::from_millis(100), ..Limits::default() };
    let routes = vec![route(forward(vec![(1, upstream_of(Protocol::Http2, "h2c", &[silent.address]))]))];
    let gate = Gate::with(Options { limits, ..Options::default() }, routes).await;
    assert_eq!(gate.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.status, 504);
}

#[tokio::test]
async fn an_answer_that_is_cut_never_passes_as_complete() {
    let endpoint = endpoint(server::Builder::new(), |mut call| async move {
        let mut stream = call.reply.send_response(Response::new(()), false).unwrap();
        stream.send_data(Bytes::from_static(b"half"), false).unwrap();
        // Only once that is on its way.
        let mut body = call.request.into_body();
        drop(read_body(&mut body).await);
        tokio::task::yield_now().await;
        stream.send_reset(Reason::INTERNAL_ERROR);
    })
    .await;
    let gate = Gate::open(to(&endpoint)).await;
    for _ in 0..10 {
        let client = Client::connect(gate.address).await;
        match client.ask(get("/")).await {
            Ok(answer) => assert_eq!(answer.status, 502),
            Err(error) => assert!(error.is_reset(), "{error}"),
        }
        let mut old = gate.client().await;
        old.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        if let Some(answer) = old.try_answer(false).await {
            assert_eq!(answer.status, 502, "{answer:?}");
        }
    }
}

#[tokio::test]
async fn many_requests_that_come_at_once_wait_for_one_refused_connection() {
    let (address, _reserved) = crate::harness::reserve();
    let gate = Gate::open(vec![route(forward(vec![(1, upstream_of(Protocol::Http2, "h2c", &[address]))]))]).await;
    let client = Client::connect(gate.address).await;
    let answers = futures_util::future::join_all((0..50).map(|_| client.ask(get("/")))).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().status == 503));
}
