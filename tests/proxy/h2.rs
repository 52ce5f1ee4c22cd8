//! HTTP/2 from clients: the same requests, many at a time on one connection.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{self, ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request};
use portico::proxy::Limits;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::frames::{
    self, ACK, DATA, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM, Raw, SETTINGS, frame,
};
use crate::harness::{Endpoint, Gate, Options, to, within};

/// A client's connection of HTTP/2.
pub(crate) struct Client {
    pub(crate) send: SendRequest<Bytes>,
    pub(crate) connection: JoinHandle<Result<(), h2::Error>>,
}

/// An answer that was read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Client {
        Client::with(address, &client::Builder::new()).await
    }

    pub(crate) async fn with(address: SocketAddr, builder: &client::Builder) -> Client {
        let socket = TcpStream::connect(address).await.unwrap();
        let (send, connection) = builder.handshake(socket).await.unwrap();
        let connection = tokio::spawn(connection);
        Client { send, connection }
    }

    /// Sends a head, and the body behind it if there is one to come.
    pub(crate) async fn start(&self, request: Request<()>, end: bool) -> (ResponseFuture, SendStream<Bytes>) {
        let mut send = within("room for a stream", self.send.clone().ready()).await.unwrap();
        send.send_request(request, end).unwrap()
    }

    pub(crate) async fn ask(&self, request: Request<()>) -> Result<Answer, h2::Error> {
        let (answer, _) = self.start(request, true).await;
        read(answer).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask(get(path)).await.unwrap()
    }

    /// The end of the connection, with the client's streams left to finish.
    pub(crate) async fn end(self) -> Result<(), h2::Error> {
        drop(self.send);
        within("the end of the connection", self.connection).await.unwrap()
    }
}

pub(crate) fn get(path: &str) -> Request<()> {
    Request::get(format!("http://a.example{path}")).body(()).unwrap()
}

pub(crate) fn post(path: &str) -> Request<()> {
    Request::post(format!("http://a.example{path}")).body(()).unwrap()
}

pub(crate) async fn read(answer: ResponseFuture) -> Result<Answer, h2::Error> {
    let answer = within("an answer", answer).await?;
    let (head, mut body) = answer.into_parts();
    let (bytes, trailers) = read_body(&mut body).await?;
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: bytes, trailers })
}

pub(crate) async fn read_body(body: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = within("more of the body", body.data()).await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok((bytes, within("trailers", body.trailers()).await?))
}

/// Sends all of it as the window allows.
pub(crate) async fn send_all(stream: &mut SendStream<Bytes>, bytes: &[u8]) -> Result<(), h2::Error> {
    send_some(stream, Bytes::copy_from_slice(bytes), true).await
}

pub(crate) async fn send_some(stream: &mut SendStream<Bytes>, mut rest: Bytes, end: bool) -> Result<(), h2::Error> {
    while !rest.is_empty() {
        stream.reserve_capacity(rest.len());
        let room = within("room in the window", poll_fn(|cx| stream.poll_capacity(cx))).await;
        let room = room.ok_or(Reason::CANCEL)??;
        stream.send_data(rest.split_to(room.min(rest.len())), false)?;
    }
    if end { stream.send_data(Bytes::new(), true) } else { Ok(()) }
}

#[tokio::test]
async fn a_request_goes_to_an_endpoint_of_http1() {
    let endpoint = Endpoint::ok().await;
    let gate = Gate::open(to(endpoint.address)).await;
    let client = Client::connect(gate.address).await;
    let mut request = get("/x/../y?z=1");
    request.headers_mut().append("cookie", "a=1".parse().unwrap());
    request.headers_mut().append("cookie", "b=2".parse().unwrap());
    request.headers_mut().append("te", "trailers".parse().unwrap());
    let answer = client.ask(request).await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (200, &b"ok"[..]));
    assert!(answer.headers.contains_key("x-request-id"));
    let seen = endpoint.log.requests().remove(0);
    assert!(seen.starts_with("GET /y?z=1 HTTP/1.1\r\n"), "{seen}");
    for field in ["host: a.example", "cookie: a=1; b=2", "te: trailers", "x-forwarded-host: a.example"] {
        assert!(seen.contains(&format!("\r\n{field}\r\n")), "no {field} in {seen}");
    }
}

#[tokio::test]
async fn the_preface_may_come_in_parts() {
    let endpoint = Endpoint::ok().await;
    let gate = Gate::open(to(endpoint.address)).await;
    let mut raw = Raw::silent(gate.address).await;
    raw.socket.set_nodelay(true).unwrap();
    for byte in PREFACE {
        raw.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    raw.send([frame(SETTINGS, 0, 0, &[]), frames::get(1)].concat()).await;
    raw.until("the answer", |frame| frame.kind == DATA && frame.payload == b"ok").await;
}

#[tokio::test]
async fn many_streams_share_a_connection() {
    let endpoint = Endpoint::ok().await;
    let gate = Gate::open(to(endpoint.address)).await;
    let client = Client::connect(gate.address).await;
    for _ in 0..3 {
        let client = &client;
        let answers = (0..100).map(|index| async move {
            let answer = client.get(&format!("/{index}")).await;
            assert_eq!((answer.status, &answer.body[..]), (200, &b"ok"[..]));
        });
        futures_util::future::join_all(answers.collect::<Vec<_>>()).await;
    }
    assert_eq!(endpoint.log.requests().len(), 300);
}

/// Answers with as many bytes as the path says.
async fn generous() -> Endpoint {
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
async fn a_stream_that_is_not_read_does_not_hold_up_the_others() {
    let endpoint = generous().await;
    let gate = Gate::open(to(endpoint.address)).await;
    // Else the connection's window is of the same size as a stream's.
    let client = Client::with(gate.address, client::Builder::new().initial_connection_window_size(1 << 20)).await;
    let (slow, _) = client.start(get("/3000000"), true).await;
    let mut slow = within("the head", slow).await.unwrap().into_body();
    let first = within("the first bytes", slow.data()).await.unwrap().unwrap();
    assert!(!first.is_empty());
    for _ in 0..5 {
        assert_eq!(client.get("/100000").await.body.len(), 100_000);
    }
    slow.flow_control().release_capacity(first.len()).unwrap();
    let (rest, _) = read_body(&mut slow).await.unwrap();
    assert_eq!(first.len() + rest.len(), 3_000_000);
}

#[tokio::test]
async fn large_bodies_go_through_both_ways() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        while let Some(request) = stream.request().await {
            let body = request.split_once("\r\n\r\n").unwrap().1.to_owned();
            stream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())).await;
        }
    })
    .await;
    let gate = Gate::open(to(endpoint.address)).await;
    let client = Client::connect(gate.address).await;
    let body: Vec<u8> = (b'a'..=b'z').cycle().take(2_000_000).collect();
    let upload = async {
        let (answer, mut stream) = client.start(post("/"), false).await;
        send_all(&mut stream, &body).await.unwrap();
        read(answer).await.unwrap()
    };
    let (first, second) = tokio::join!(upload, client.get("/"));
    assert!(first.body == body);
    assert_eq!(second.status, 200);
}

// kong-compat §3.8
#[tokio::test]
async fn trailers_of_an_answer_come_through() {
    let endpoint = Endpoint::answering(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n",
    )
    .await;
    let gate = Gate::open(to(endpoint.address)).await;
    let client = Client::connect(gate.address).await;
    let answer = client.get("/").await;
    assert_eq!(answer.body, b"ok");
    assert_eq!(answer.trailers.unwrap()["x-sum"], "7");
    assert!(!answer.headers.contains_key("transfer-encoding"));
}

#[tokio::test]
async fn declared_trailers_of_a_request_come_through() {
    let endpoint = Endpoint::ok().await;
    let gate = Gate::open(to(endpoint.address)).await;
    let client = Client::connect(gate.address).await;
    let mut request = post("/");
    request.headers_mut().insert("trailer", "x-sum".parse().unwrap());
    let (answer, mut stream) = client.start(request, false).await;
    stream.send_data(Bytes::from_static(b"body"), false).unwrap();
    stream.send_trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), "7".parse().unwrap())])).unwrap();
    assert_eq!(read(answer).await.unwrap().status, 200);
    assert!(endpoint.log.requests()[0].ends_with("bodyx-sum: 7\r\n"), "{:?}", endpoint.log.requests());
}

#[tokio::test]
async fn an_answer_may_come_before_the_request_is_over() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        let head = stream.head().await.unwrap();
        stream.note(&head);
        stream.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly").await;
        stream.rest().await;
    })
    .await;
    let gate = Gate::open(to(endpoint.address)).await;
    let client = Client::connect(gate.address).await;
    let (answer, mut stream) = client.start(post("/"), false).await;
    assert_eq!(read(answer).await.unwrap().body, b"early");
    // Nobody reads the rest, so the stream is told to stop, and the endpoint too.
    within("the reset", poll_fn(|cx| stream.poll_reset(cx))).await.unwrap();
    endpoint.log.until("its end", |log| log.ended.load(SeqCst) == 1).await;
    assert_eq!(client.ask(post("/")).await.unwrap().body, b"early");
}

#[tokio::test]
async fn a_client_that_resets_a_stream_takes_its_request_back() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        if stream.request().await.unwrap().starts_with("GET /never") {
            stream.rest().await;
        } else {
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let gate = Gate::open(to(endpoint.address)).await;
    let client = Client::connect(gate.address).await;
    let (answer, mut stream) = client.start(get("/never"), true).await;
    endpoint.log.until("the request", |log| log.requests().len() == 1).await;
    stream.send_reset(Reason::CANCEL);
    drop(answer);
    endpoint.log.until("its end", |log| log.ended.load(SeqCst) == 1).await;
    assert_eq!(client.get("/").await.body, b"ok");
}

#[tokio::test]
async fn a_truncated_answer_resets_its_stream_and_no_other() {
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
    let gate = Gate::open(to(endpoint.address)).await;
    let client = Client::connect(gate.address).await;
    for _ in 0..3 {
        let error = client.ask(get("/cut")).await.unwrap_err();
        assert!(error.is_reset() && error.is_remote(), "{error}");
        assert_eq!(client.get("/").await.body, b"ok");
    }
}

#[tokio::test]
async fn streams_keep_their_snapshot_and_new_ones_see_the_next() {
    let (go, wait) = tokio::sync::watch::channel(false);
    let old = Endpoint::scripted(move |mut stream, _| {
        let mut wait = wait.clone();
        async move {
            stream.request().await;
            wait.wait_for(|go| *go).await.unwrap();
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nold").await;
        }
    })
    .await;
    let new = Endpoint::answering("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nnew").await;
    let gate = Gate::open(to(old.address)).await;
    let client = Client::connect(gate.address).await;
    let (answer, _) = client.start(get("/"), true).await;
    old.log.until("the request", |log| log.requests().len() == 1).await;
    gate.swap(to(new.address));
    assert_eq!(client.get("/").await.body, b"new");
    go.send(true).unwrap();
    assert_eq!(read(answer).await.unwrap().body, b"old");
}

#[tokio::test]
async fn whose_request_it_is_must_be_clear() {
    let endpoint = Endpoint::ok().await;
    let gate = Gate::open(to(endpoint.address)).await;
    let with = |name: &'static str, value: &'static str| {
        let mut request = get("/");
        request.headers_mut().append(name, value.parse().unwrap());
        request
    };
    let client = Client::connect(gate.address).await;
    let mut two = with("host", "a.example");
    two.headers_mut().append("host", "a.example".parse().unwrap());
    let mut many = get("/");
    for index in 0..100 {
        many.headers_mut().insert(format!("x-{index}").parse::<http::HeaderName>().unwrap(), "y".parse().unwrap());
    }
    let mut just = many.clone();
    just.headers_mut().insert("one-more", "y".parse().unwrap());
    let cases = [
        (get("/"), 200),
        (with("host", "A.example"), 200),
        (with("host", "b.example"), 400),
        (with("host", "a.example:80"), 400),
        (with("host", "a b"), 400),
        (two, 400),
        (many, 200),
        (just, 431),
        (Request::get("http://user@a.example/").body(()).unwrap(), 400),
        (Request::get("http://a.example/%zz").body(()).unwrap(), 400),
        (Request::get("ftp://a.example/").body(()).unwrap(), 400),
        (Request::connect("a.example:80").body(()).unwrap(), 405),
        (with("expect", "a miracle"), 417),
    ];
    for (request, expected) in cases {
        let what = format!("{request:.200?}");
        assert_eq!(client.ask(request).await.unwrap().status, expected, "{what}");
    }
    let error = client.ask(get("/")).await.unwrap();
    assert!(!error.headers.contains_key("connection"));
}

#[tokio::test]
async fn faults_are_told_as_elsewhere_and_to_grpc_in_its_words() {
    let gate = Gate::open(vec![]).await;
    let client = Client::connect(gate.address).await;
    let answer = client.get("/").await;
    assert_eq!(answer.status, 404);
    assert!(String::from_utf8(answer.body).unwrap().contains("no Route matched"));
    let mut request = post("/package.Service/Call");
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let answer = client.ask(request).await.unwrap();
    assert_eq!((answer.status, &answer.body[..]), (200, &b""[..]));
    assert_eq!(answer.headers["grpc-status"], "5");
}

const SHORT: Duration = Duration::from_millis(100);

#[tokio::test]
async fn patience_is_with_each_stream() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        let head = stream.head().await.unwrap();
        stream.note(&head);
        if head.starts_with("GET /half") {
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        } else if head.starts_with("GET /ok") {
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
        stream.rest().await;
    })
    .await;
    let limits = Limits { answer_timeout: SHORT, upload_timeout: SHORT, stall_timeout: SHORT, ..Limits::default() };
    let gate = Gate::with(Options { limits, ..Options::default() }, to(endpoint.address)).await;
    let client = Client::connect(gate.address).await;
    assert_eq!(client.get("/silent").await.status, 504);
    let (answer, _body) = client.start(post("/upload"), false).await;
    assert_eq!(read(answer).await.unwrap().status, 408);
    let error = client.ask(get("/half")).await.unwrap_err();
    assert!(error.is_reset(), "{error}");
    assert_eq!(client.get("/ok").await.body, b"ok");
}

#[tokio::test]
async fn a_client_that_does_not_open_its_window_loses_its_stream() {
    let endpoint = generous().await;
    let limits = Limits { stall_timeout: SHORT, ..Limits::default() };
    let gate = Gate::with(Options { limits, ..Options::default() }, to(endpoint.address)).await;
    // SETTINGS_INITIAL_WINDOW_SIZE = 0.
    let mut raw = Raw::with(gate.address, &[0, 4, 0, 0, 0, 0]).await;
    let request: Vec<(&str, &str)> =
        GET.iter().map(|(name, value)| (*name, if *name == ":path" { "/9" } else { *value })).collect();
    raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &frames::block(&request))).await;
    raw.until("the head", |frame| frame.kind == HEADERS && frame.stream == 1).await;
    raw.until("the reset", |frame| frame.kind == RST_STREAM && frame.stream == 1).await;
}

#[tokio::test]
async fn a_connection_without_streams_is_closed_after_a_while() {
    let endpoint = Endpoint::ok().await;
    let limits = Limits { keep_alive: SHORT, ..Limits::default() };
    let gate = Gate::with(Options { limits, ..Options::default() }, to(endpoint.address)).await;
    let mut raw = Raw::connect(gate.address).await;
    raw.send(frames::get(1)).await;
    raw.until("the answer", |frame| frame.kind == DATA && frame.flags & END_STREAM != 0).await;
    let goaway = raw.until("the end", |frame| frame.kind == GOAWAY).await;
    assert_eq!(goaway.reason(), 0);
}

#[tokio::test]
async fn draining_says_goodbye_twice_and_lets_streams_finish() {
    let (go, wait) = tokio::sync::watch::channel(false);
    let endpoint = Endpoint::scripted(move |mut stream, _| {
        let mut wait = wait.clone();
        async move {
            stream.request().await;
            wait.wait_for(|go| *go).await.unwrap();
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let gate = Gate::open(to(endpoint.address)).await;
    let mut raw = Raw::connect(gate.address).await;
    raw.send(frames::get(1)).await;
    endpoint.log.until("the request", |log| log.requests().len() == 1).await;
    let draining = gate.proxy.drain(crate::harness::PATIENCE);
    let client = async {
        let first = raw.until("the first goodbye", |frame| frame.kind == GOAWAY).await;
        assert_eq!((first.reason(), first.last_stream()), (0, 0x7fff_ffff));
        // What crosses the first goodbye on the wire is served.
        raw.send(frames::get(3)).await;
        endpoint.log.until("the late request", |log| log.requests().len() == 2).await;
        let ping = raw.until("the ping", |frame| frame.kind == PING && frame.flags == 0).await;
        raw.send(frame(PING, ACK, 0, &ping.payload)).await;
        let last = raw.until("the last goodbye", |frame| frame.kind == GOAWAY).await;
        assert_eq!((last.reason(), last.last_stream()), (0, 3));
        go.send(true).unwrap();
        let answers = raw.rest().await.iter().filter(|frame| frame.kind == DATA && frame.payload == b"ok").count();
        assert_eq!(answers, 2);
    };
    let (cut, ()) = tokio::join!(draining, client);
    assert_eq!(cut, 0);
}

#[tokio::test]
async fn streams_that_do_not_finish_in_time_are_cut() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.rest().await;
    })
    .await;
    let gate = Gate::open(to(endpoint.address)).await;
    let client = Client::connect(gate.address).await;
    let (answer, _) = client.start(get("/"), true).await;
    endpoint.log.until("the request", |log| log.requests().len() == 1).await;
    assert_eq!(gate.proxy.drain(SHORT).await, 1);
    read(answer).await.unwrap_err();
    endpoint.log.until("its end", |log| log.ended.load(SeqCst) == 1).await;
}

#[tokio::test]
async fn a_listener_that_goes_lets_its_streams_finish() {
    let endpoint = Endpoint::ok().await;
    let gate = Gate::open(to(endpoint.address)).await;
    let client = Client::connect(gate.address).await;
    assert_eq!(client.get("/").await.status, 200);
    gate.snapshot.store(std::sync::Arc::default());
    gate.proxy.reconcile().await;
    client.end().await.unwrap();
}
