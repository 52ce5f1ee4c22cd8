//! Filters, timeouts and retries with HTTP/2 on one side or both: the same as over HTTP/1.1.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, server};
use http::{HeaderValue, Request, Response};
use portico::snapshot::cors::{AllowedOrigins, CorsFilter, CorsList};
use portico::snapshot::rule::{Filters, Mirror};
use portico::snapshot::timeouts_and_retries::{TimeoutSetting, TimeoutsAndRetries};
use tokio::sync::mpsc;

use crate::accounting::scrape;
use crate::h2::{Http2Client, get_request, read_body, read_response, send_all};
use crate::h2_upstream::http2_endpoint;
use crate::harness::{
    Endpoint, LONGER_THAN_PAUSES, Route, TestServer, forward, h2c_upstream, header, retries, route, upstream,
    with_timeout, with_timeouts_and_retries,
};
use crate::retry::sum;

const SHORT: Duration = Duration::from_millis(150);

fn put(path: &str) -> Request<()> {
    Request::put(format!("http://a.example{path}")).body(()).unwrap()
}

#[tokio::test]
async fn proxy_responds_to_http2_preflights() {
    let endpoint = Endpoint::ok().await;
    let cors = CorsFilter {
        origins: AllowedOrigins::Any,
        credentials: false,
        methods: CorsList::Any,
        headers: CorsList::Empty,
        expose: CorsList::Empty,
        max_age: HeaderValue::from(5),
    };
    let filters = Filters { cors: Some(Box::new(cors)), ..Filters::default() };
    let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
    let server = TestServer::with_routes(vec![Route { filters, ..route(action) }]).await;
    let client = Http2Client::connect(server.address).await;
    let cross_origin_request = |method| {
        let request = Request::builder().method(method).uri("http://a.example/");
        let request = request.header("origin", "https://app.example").header("access-control-request-method", "PUT");
        request.body(()).unwrap()
    };
    for (method, forwarded) in [("OPTIONS", 0), ("PUT", 1)] {
        let response = client.request(cross_origin_request(method)).await.unwrap();
        assert_eq!(response.status, 200);
        assert_eq!(response.headers["access-control-allow-origin"], "https://app.example");
        assert_eq!(response.headers.contains_key("access-control-allow-methods"), method == "OPTIONS");
        assert_eq!(endpoint.log.requests().len(), forwarded);
    }
}

#[tokio::test]
async fn mirrors_receive_requests_across_protocols() {
    let original = Endpoint::ok().await;
    let http1_mirror = Endpoint::ok().await;
    let (http2_copy, mut http2_copies) = mpsc::channel(8);
    let http2_mirror = http2_endpoint(server::Builder::new(), move |mut call| {
        let http2_copy = http2_copy.clone();
        async move {
            let (head, mut body) = call.request.into_parts();
            let (body, _) = read_body(&mut body).await.unwrap();
            http2_copy.send((head.uri.to_string(), String::from_utf8(body).unwrap())).await.unwrap();
            call.response.send_response(Response::new(()), true).unwrap();
        }
    })
    .await;
    let mirrors = [
        Mirror { upstream: upstream("plain", &[http1_mirror.address]), numerator: 1, denominator: 1 },
        Mirror { upstream: h2c_upstream(http2_mirror.address), numerator: 1, denominator: 1 },
    ];
    let filters = Filters { mirrors: mirrors.into(), ..Filters::default() };
    let action = forward(vec![(1, upstream("web", &[original.address]))]);
    let server = TestServer::with_routes(vec![Route { filters, ..route(action) }]).await;

    let client = Http2Client::connect(server.address).await;
    let (response, mut body) = client.start_with_body(put("/x?y=1")).await;
    send_all(&mut body, b"hello").await.unwrap();
    assert_eq!(read_response(response).await.unwrap().status, 200);
    server.request("PUT /x?y=1 HTTP/1.1\r\nhost: a.example\r\ncontent-length: 5\r\n\r\nhello").await;
    for number in 1..=2 {
        http1_mirror.log.wait_for("the copy", |log| log.requests().len() >= number).await;
        let copy = http1_mirror.log.requests()[number - 1].clone();
        assert!(copy.starts_with("PUT /x?y=1 HTTP/1.1\r\n") && copy.ends_with("\r\n\r\nhello"), "{copy}");
        assert_eq!(header(&copy, "host"), Some("a.example"));
        let copy = with_timeout("the copy", http2_copies.recv()).await.unwrap();
        assert_eq!(copy, ("http://a.example/x?y=1".to_owned(), "hello".to_owned()));
    }
}

#[tokio::test]
async fn retries_and_timeouts_apply_to_each_stream() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&calls);
    let endpoint = http2_endpoint(server::Builder::new(), move |mut call| {
        let call_index = counter.fetch_add(1, SeqCst);
        async move {
            let path = call.request.uri().path().to_owned();
            let mut body = call.request.into_body();
            let Ok((body, _)) = read_body(&mut body).await else { return };
            let response = |status: u16| Response::builder().status(status).body(()).unwrap();
            match path.as_str() {
                "/fails" if call_index == 0 => drop(call.response.send_response(response(503), true)),
                "/refused" => call.response.send_reset(Reason::REFUSED_STREAM),
                "/silent" => drop(std::future::poll_fn(|cx| call.response.poll_reset(cx)).await),
                "/half" => {
                    let mut stream = call.response.send_response(response(200), false).unwrap();
                    stream.send_data(Bytes::from_static(b"half"), false).unwrap();
                    drop(std::future::poll_fn(|cx| stream.poll_reset(cx)).await);
                }
                _ => {
                    let mut stream = call.response.send_response(response(200), false).unwrap();
                    stream.send_data(Bytes::from(body), true).unwrap();
                }
            }
        }
    })
    .await;
    let h2c = h2c_upstream(endpoint.address);
    let rule =
        |path, policy| Route { path, ..route(with_timeouts_and_retries(forward(vec![(1, h2c.clone())]), policy)) };
    let with_request_timeout =
        |limit| TimeoutsAndRetries { request: TimeoutSetting::After(limit), ..TimeoutsAndRetries::default() };
    let server = TestServer::with_routes(vec![
        rule("/fails", retries(1, &[503])),
        rule("/refused", retries(0, &[])),
        rule("/silent", with_request_timeout(SHORT)),
        // The response begins before the timeout.
        rule("/half", with_request_timeout(LONGER_THAN_PAUSES)),
        rule("/", TimeoutsAndRetries { request: TimeoutSetting::Unlimited, ..TimeoutsAndRetries::default() }),
    ])
    .await;
    let client = Http2Client::connect(server.address).await;

    let (response, mut body) = client.start_with_body(put("/fails")).await;
    send_all(&mut body, b"hello").await.unwrap();
    let response = read_response(response).await.unwrap();
    assert_eq!((response.status, &response.body[..], calls.load(SeqCst)), (200, &b"hello"[..], 2));
    assert_eq!(client.get("/refused").await.status, 502, "no retries are configured");
    assert_eq!(calls.load(SeqCst), 3);
    assert_eq!(client.get("/silent").await.status, 504);
    assert!(client.request(get_request("/half")).await.is_err(), "a truncated response must not appear complete");
    assert_eq!(client.get("/").await.status, 200, "the connection stays usable");
    let metrics = scrape(&server);
    assert_eq!(metrics["portico_request_errors_total{reason=\"request_timeout\"}"], 2.0);
    assert_eq!(sum(&metrics, "portico_upstream_retries_total", &[]), 1.0);
}
