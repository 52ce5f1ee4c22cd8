//! Filters, timeouts and retries where HTTP/2 is on one side or both: the same as elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, server};
use http::{HeaderValue, Request, Response};
use portico::snapshot::cors::{Cors, List, Origins};
use portico::snapshot::rule::{Filters, Mirror};
use portico::snapshot::tries::{Limit, Retry, Tries};
use portico::upstream::Protocol;
use tokio::sync::mpsc;

use crate::books::scrape;
use crate::h2::{Client, get, read, read_body, send_all};
use crate::h2_upstream::endpoint;
use crate::harness::{Endpoint, Gate, Route, forward, header, route, trying, upstream, upstream_of, within};

const SHORT: Duration = Duration::from_millis(150);

fn put(path: &str) -> Request<()> {
    Request::put(format!("http://a.example{path}")).body(()).unwrap()
}

fn retry(attempts: u32, codes: &[u16]) -> Tries {
    let retry = Retry { attempts, codes: codes.into(), backoff: Duration::from_millis(1) };
    Tries { retry: Some(retry), ..Tries::default() }
}

#[tokio::test]
async fn a_preflight_over_http2() {
    let endpoint = Endpoint::ok().await;
    let cors = Cors {
        origins: Origins::Any,
        credentials: false,
        methods: List::Any,
        headers: List::None,
        expose: List::None,
        max_age: HeaderValue::from(5),
    };
    let filters = Filters { cors: Some(Box::new(cors)), ..Filters::default() };
    let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
    let gate = Gate::open(vec![Route { filters, ..route(action) }]).await;
    let client = Client::connect(gate.address).await;
    let ask = |method| {
        let request = Request::builder().method(method).uri("http://a.example/");
        let request = request.header("origin", "https://app.example").header("access-control-request-method", "PUT");
        request.body(()).unwrap()
    };
    for (method, sees) in [("OPTIONS", 0), ("PUT", 1)] {
        let answer = client.ask(ask(method)).await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["access-control-allow-origin"], "https://app.example");
        assert_eq!(answer.headers.contains_key("access-control-allow-methods"), method == "OPTIONS");
        assert_eq!(endpoint.log.requests().len(), sees);
    }
}

#[tokio::test]
async fn mirrors_of_either_protocol_get_requests_of_either() {
    let original = Endpoint::ok().await;
    let plain = Endpoint::ok().await;
    let (told, mut seen) = mpsc::channel(8);
    let multiplexed = endpoint(server::Builder::new(), move |mut call| {
        let told = told.clone();
        async move {
            let (head, mut body) = call.request.into_parts();
            let (body, _) = read_body(&mut body).await.unwrap();
            told.send((head.uri.to_string(), String::from_utf8(body).unwrap())).await.unwrap();
            call.reply.send_response(Response::new(()), true).unwrap();
        }
    })
    .await;
    let mirrors = [
        Mirror { upstream: upstream("plain", &[plain.address]), share: 1, of: 1 },
        Mirror { upstream: upstream_of(Protocol::Http2, "h2c", &[multiplexed.address]), share: 1, of: 1 },
    ];
    let filters = Filters { mirrors: mirrors.into(), ..Filters::default() };
    let action = forward(vec![(1, upstream("web", &[original.address]))]);
    let gate = Gate::open(vec![Route { filters, ..route(action) }]).await;

    let client = Client::connect(gate.address).await;
    let (answer, mut body) = client.start(put("/x?y=1"), false).await;
    send_all(&mut body, b"hello").await.unwrap();
    assert_eq!(read(answer).await.unwrap().status, 200);
    gate.ask("PUT /x?y=1 HTTP/1.1\r\nhost: a.example\r\ncontent-length: 5\r\n\r\nhello").await;
    for number in 1..=2 {
        plain.log.until("the copy", |log| log.requests().len() >= number).await;
        let copy = plain.log.requests()[number - 1].clone();
        assert!(copy.starts_with("PUT /x?y=1 HTTP/1.1\r\n") && copy.ends_with("\r\n\r\nhello"), "{copy}");
        assert_eq!(header(&copy, "host"), Some("a.example"));
        let copy = within("the copy", seen.recv()).await.unwrap();
        assert_eq!(copy, ("http://a.example/x?y=1".to_owned(), "hello".to_owned()));
    }
}

#[tokio::test]
async fn retries_and_timeouts_hold_for_each_stream() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let endpoint = endpoint(server::Builder::new(), move |mut call| {
        let number = counter.fetch_add(1, SeqCst);
        async move {
            let path = call.request.uri().path().to_owned();
            let mut body = call.request.into_body();
            let Ok((body, _)) = read_body(&mut body).await else { return };
            let answer = |status: u16| Response::builder().status(status).body(()).unwrap();
            match path.as_str() {
                "/fails" if number == 0 => drop(call.reply.send_response(answer(503), true)),
                "/refused" => call.reply.send_reset(Reason::REFUSED_STREAM),
                "/silent" => drop(std::future::poll_fn(|cx| call.reply.poll_reset(cx)).await),
                "/half" => {
                    let mut stream = call.reply.send_response(answer(200), false).unwrap();
                    stream.send_data(Bytes::from_static(b"half"), false).unwrap();
                    drop(std::future::poll_fn(|cx| stream.poll_reset(cx)).await);
                }
                _ => {
                    let mut stream = call.reply.send_response(answer(200), false).unwrap();
                    stream.send_data(Bytes::from(body), true).unwrap();
                }
            }
        }
    })
    .await;
    let h2c = upstream_of(Protocol::Http2, "h2c", &[endpoint.address]);
    let rule = |path, tries| Route { path, ..route(trying(forward(vec![(1, h2c.clone())]), tries)) };
    let limited = || Tries { request: Limit::After(SHORT), ..Tries::default() };
    let gate = Gate::open(vec![
        rule("/fails", retry(1, &[503])),
        rule("/refused", retry(0, &[])),
        rule("/silent", limited()),
        rule("/half", limited()),
        rule("/", Tries { request: Limit::Endless, ..Tries::default() }),
    ])
    .await;
    let client = Client::connect(gate.address).await;

    let (answer, mut body) = client.start(put("/fails"), false).await;
    send_all(&mut body, b"hello").await.unwrap();
    let answer = read(answer).await.unwrap();
    assert_eq!((answer.status, &answer.body[..], calls.load(SeqCst)), (200, &b"hello"[..], 2));
    assert_eq!(client.get("/refused").await.status, 502, "none at all is none at all");
    assert_eq!(calls.load(SeqCst), 3);
    assert_eq!(client.get("/silent").await.status, 504);
    assert!(client.ask(get("/half")).await.is_err(), "what was cut must not pass for whole");
    assert_eq!(client.get("/").await.status, 200, "the connection is none the worse");
    let metrics = scrape(&gate);
    assert_eq!(metrics["portico_faults_total{reason=\"request_timeout\"}"], 2.0);
    assert_eq!(metrics["portico_upstream_retries_total"], 1.0);
}
