//! gRPC calls under the rule of a GRPCRoute: their deadlines.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, server};
use http::{Request, Response};
use portico::compile::kong::rule_options;
use portico::snapshot::rule::Action;
use portico::snapshot::rule_options::RuleOptions;
use tokio::net::TcpListener;

use crate::frames::{HEADERS, RawConnection};
use crate::h2::{Http2Client, post_request, read_body};
use crate::h2_upstream::{Http2Endpoint, http2_endpoint};
use crate::harness::{Route, TestServer, forward, h2c_upstream, refusing_address, route, with_timeout};
use crate::metrics::scrape;

/// Three seconds: the endpoint gets the call and responds before it, even if the machine pauses.
const DEADLINE: &str = "3S";

fn call(timeout: &str) -> Request<()> {
    let mut request = post_request("/a.B/C");
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
    request
}

/// Routes all requests to the endpoint, as a GRPCRoute does.
fn grpc_routes(address: SocketAddr) -> Vec<Route> {
    let Action::Forward(mut split) = forward(vec![(1, h2c_upstream(address))]) else { unreachable!() };
    split.honors_call_deadlines = true;
    vec![route(Action::Forward(split))]
}

/// An endpoint that records the `grpc-timeout` of each call, and never ends it. With `head`, it begins the response and
/// sends the first message.
async fn hanging_endpoint(head: Option<Response<()>>) -> (Http2Endpoint, Arc<Mutex<Vec<String>>>) {
    let timeouts = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&timeouts);
    let endpoint = http2_endpoint(server::Builder::new(), move |mut call| {
        let timeout = call.request.headers()["grpc-timeout"].to_str().unwrap().to_owned();
        seen.lock().unwrap().push(timeout);
        let head = head.clone();
        async move {
            let mut stream = head.map(|head| call.response.send_response(head, false).unwrap());
            if let Some(stream) = &mut stream {
                stream.send_data(Bytes::from_static(b"message"), false).unwrap();
            }
            std::future::poll_fn(|cx| match &mut stream {
                Some(stream) => stream.poll_reset(cx),
                None => call.response.poll_reset(cx),
            })
            .await
            .unwrap();
        }
    });
    (endpoint.await, timeouts)
}

#[tokio::test]
async fn a_call_ends_at_its_deadline() {
    let (endpoint, timeouts) = hanging_endpoint(None).await;
    let server = TestServer::with_routes(grpc_routes(endpoint.address)).await;
    let client = Http2Client::connect(server.address).await;
    let response = client.request(call(DEADLINE)).await.unwrap();
    assert_eq!((response.status, &response.headers["grpc-status"]), (200, &"4".parse().unwrap()));
    let passed_on = timeouts.lock().unwrap().remove(0);
    let (count, unit) = passed_on.split_at(passed_on.len() - 1);
    let nanoseconds = count.parse::<u64>().unwrap() * if unit == "u" { 1_000 } else { 1 };
    assert!((1..3_000_000_000).contains(&nanoseconds), "the endpoint has the time that is left: {passed_on}");
    assert_eq!(scrape(&server)["portico_request_errors_total{reason=\"call_deadline\"}"], 1.0);
}

#[tokio::test]
async fn a_stream_ends_at_its_deadline_with_a_status() {
    let (endpoint, _) = hanging_endpoint(Some(Response::new(()))).await;
    let server = TestServer::with_routes(grpc_routes(endpoint.address)).await;
    let client = Http2Client::connect(server.address).await;
    let response = client.request(call(DEADLINE)).await.unwrap();
    let trailers = response.trailers.unwrap();
    assert_eq!((&*response.body, &trailers["grpc-status"]), (&b"message"[..], &"4".parse().unwrap()));
    assert!(!response.headers.contains_key("grpc-status"), "{:?}", response.headers);
    assert_eq!(scrape(&server)["portico_request_errors_total{reason=\"call_deadline\"}"], 1.0);
}

/// It would be malformed with trailers after fewer bytes than it declares.
#[tokio::test]
async fn a_response_of_declared_length_is_reset_at_its_deadline() {
    let head = Response::builder().header("content-length", "100").body(()).unwrap();
    let (endpoint, _) = hanging_endpoint(Some(head)).await;
    let server = TestServer::with_routes(grpc_routes(endpoint.address)).await;
    let client = Http2Client::connect(server.address).await;
    let (response, _) = client.start(call(DEADLINE)).await;
    let mut body = with_timeout("a response", response).await.unwrap().into_body();
    let error = with_timeout("the deadline", read_body(&mut body)).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR), "{error}");
}

/// The endpoint decides what an invalid field means, and other routes do not read it.
#[tokio::test]
async fn fields_that_are_no_deadline_are_passed_on() {
    let (endpoint, timeouts) = hanging_endpoint(Some(Response::new(()))).await;
    for (routes, timeout) in [
        (grpc_routes(endpoint.address), "150"),
        (vec![route(forward(vec![(1, h2c_upstream(endpoint.address))]))], "1n"),
    ] {
        let server = TestServer::with_routes(routes).await;
        let client = Http2Client::connect(server.address).await;
        let (response, _) = client.start(call(timeout)).await;
        let mut body = with_timeout("a response", response).await.unwrap().into_body();
        let message = with_timeout("a message", body.data()).await.unwrap().unwrap();
        assert_eq!((&*message, &*timeouts.lock().unwrap().remove(0)), (&b"message"[..], timeout));
    }
    // Longer than the test may take.
    let server = TestServer::with_routes(grpc_routes(endpoint.address)).await;
    let client = Http2Client::connect(server.address).await;
    let (response, _) = client.start(call("99999999H")).await;
    let mut body = with_timeout("a response", response).await.unwrap().into_body();
    assert_eq!(with_timeout("a message", body.data()).await.unwrap().unwrap(), &b"message"[..]);
    assert!(tokio::time::timeout(Duration::from_millis(1), body.data()).await.is_err());
    assert_eq!(timeouts.lock().unwrap().remove(0).split_off(8), "H");
}

/// Clients repeat calls with this status, and not those with INTERNAL.
#[tokio::test]
async fn connections_that_are_refused_or_lost_are_unavailable_whatever_plugins_the_route_has() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closing = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let mut raw = RawConnection::accept(socket).await;
            raw.wait_for("a call", |frame| frame.kind == HEADERS).await;
        }
    });
    for options in [RuleOptions::default(), rule_options::defaults()] {
        for address in [refusing_address(), closing] {
            let options = Some(Box::new(options.clone()));
            let routes = grpc_routes(address).into_iter().map(|route| Route { options: options.clone(), ..route });
            let server = TestServer::with_routes(routes.collect()).await;
            let response = Http2Client::connect(server.address).await.request(call("60S")).await.unwrap();
            assert_eq!((response.status, &response.headers["grpc-status"]), (200, &"14".parse().unwrap()), "{address}");
        }
    }
}
