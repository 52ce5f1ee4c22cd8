//! The response phase of plugins on the wire: responses that plugins replace, wait for and stream, and body filters.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, StatusCode};
use portico::plugin_api::{
    AccessOutcome, BeyondLimit, BodyFilter, BufferedFilter, Reply, ReplyBody, ReplyStream, ReplyStreamError,
    ResponseCx, ResponseOutcome, ResponseSource, StreamingFilter,
};

use tokio::sync::Notify;

use crate::accounting::scrape;
use crate::h2::Http2Client;
use crate::harness::{Endpoint, Options, Route, TestServer, forward, route, upstream, with_timeout};
use crate::plugins::{ScriptedPlugin, chain, server, wait_for_summaries};

const GET: &str = "GET / HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\netag: \"1\"\r\ncontent-length: 2\r\n\r\nok";

/// Appends where the response comes from to `x-seen`.
fn marking() -> ScriptedPlugin {
    ScriptedPlugin::response(|cx| {
        cx.headers.append("x-seen", HeaderValue::from_str(&format!("{:?} {}", cx.source, cx.status)).unwrap());
    })
}

fn teapot(body: ReplyBody) -> Box<Reply> {
    Reply::new(StatusCode::IM_A_TEAPOT, body, "teapot")
}

/// A buffered filter that puts the body in brackets, up to 10 bytes.
fn bracketing(beyond_limit: BeyondLimit) -> BodyFilter {
    let transform = |body: &[u8]| Some([b"<", body, b">"].concat().into());
    BodyFilter::Buffered(BufferedFilter {
        max_bytes: 10,
        beyond_limit,
        reads_text: true,
        transform: Box::new(transform),
    })
}

#[tokio::test]
async fn replaced_response_runs_through_all_plugins_again() {
    let endpoint = Endpoint::responding_with(OK).await;
    let replacing = ScriptedPlugin::outcome(|cx| {
        cx.push_body_filter(bracketing(BeyondLimit::PassUnchanged));
        ResponseOutcome::Replace(teapot(ReplyBody::Raw("new".into())))
    });
    let server = server(vec![marking(), replacing, marking()], &endpoint).await;
    let response = server.request(GET).await;
    assert_eq!((response.status, response.text().as_str()), (418, "new"), "a filter of the former body has run");
    assert_eq!(response.head.matches("x-seen: Plugin 418").count(), 2, "{}", response.head);
    assert!(!response.head.contains("Service") && !response.head.contains("etag"), "{}", response.head);
    assert_eq!(response.head.matches("x-request-id").count(), 1, "{}", response.head);
}

#[tokio::test]
async fn headers_that_plugins_set_for_the_client_are_kept_in_a_replaced_response() {
    let endpoint = Endpoint::responding_with(OK).await;
    let limiting = ScriptedPlugin::access(|cx| {
        cx.response_headers.insert("x-limit".parse().unwrap(), HeaderValue::from_static("5"));
        AccessOutcome::Continue
    });
    let replacing = ScriptedPlugin::outcome(|_| ResponseOutcome::Replace(teapot(ReplyBody::Empty)));
    let response = server(vec![limiting, replacing], &endpoint).await.request(GET).await;
    assert_eq!((response.status, response.header("x-limit")), (418, Some("5")));
}

#[tokio::test]
async fn plugins_change_the_status_and_wait() {
    let endpoint = Endpoint::responding_with(OK).await;
    let waiting = ScriptedPlugin::outcome(|cx| {
        ResponseOutcome::Wait(Box::pin(async move {
            tokio::task::yield_now().await;
            cx.status = StatusCode::ACCEPTED;
            None
        }))
    });
    let response = server(vec![waiting, marking()], &endpoint).await.request(GET).await;
    assert_eq!((response.status, response.header("x-seen")), (202, Some("Service 202 Accepted")));
    assert_eq!((response.text().as_str(), response.header("etag")), ("ok", Some("\"1\"")));
}

#[tokio::test]
async fn response_phase_that_waits_too_long_gets_504() {
    let endpoint = Endpoint::responding_with(OK).await;
    let pending = ScriptedPlugin::outcome(|_| ResponseOutcome::Wait(Box::pin(std::future::pending())));
    let mut options = Options::default();
    options.limits.response_timeout = Duration::from_millis(50);
    let action = forward(vec![(1, upstream("web", &[endpoint.address]))]);
    let routes = vec![Route { plugins: chain(vec![pending]), ..route(action) }];
    let server = TestServer::with_options(options, routes).await;
    assert_eq!(server.request(GET).await.status, 504);
}

#[tokio::test]
async fn replies_stream_and_are_aborted_when_the_stream_fails() {
    let endpoint = Endpoint::ok().await;
    let streaming = |fails: bool| {
        ScriptedPlugin::access(move |_| {
            let parts = [Ok(Bytes::from("one ")), Ok("two".into())].into_iter();
            let end = fails.then_some(Err(ReplyStreamError));
            let body = ReplyStream::new(stream::iter(parts.chain(end)));
            AccessOutcome::Reply(teapot(ReplyBody::Stream(body)))
        })
    };
    let server_of_streams = server(vec![streaming(false), marking()], &endpoint).await;
    let response = server_of_streams.request(GET).await;
    assert_eq!((response.status, response.text().as_str()), (418, "one two"));
    assert_eq!(response.header("x-seen"), Some("Plugin 418 I'm a teapot"));
    let head = server_of_streams.request(&GET.replace("GET", "HEAD")).await;
    assert_eq!((head.status, head.header("content-length")), (418, None));
    let http2 = Http2Client::connect(server_of_streams.address).await.get("/").await;
    assert_eq!((http2.status, &http2.body[..]), (418, &b"one two"[..]));
    let failing = server(vec![streaming(true)], &endpoint).await;
    let mut client = failing.connect().await;
    client.send(GET).await;
    assert_eq!(client.try_response().await, None, "the truncated body counts as complete");
}

/// Changes the body to capitals, and adds the number of parts at the end.
#[derive(Default)]
struct Capitals(usize);

impl StreamingFilter for Capitals {
    fn part(&mut self, data: Bytes) -> Bytes {
        self.0 += 1;
        data.to_ascii_uppercase().into()
    }

    fn end(&mut self) -> Bytes {
        Bytes::from_static(b"!")
    }
}

#[tokio::test]
async fn streaming_filters_change_each_part_and_add_an_end() {
    let filtering = || {
        ScriptedPlugin::response(|cx: &mut ResponseCx<'_>| {
            cx.push_body_filter(BodyFilter::Streaming(Box::new(Capitals::default())));
            cx.push_body_filter(BodyFilter::Streaming(Box::new(Capitals::default())));
        })
    };
    let chunked = "HTTP/1.1 200 OK\r\ntrailer: x-sum\r\ntransfer-encoding: chunked\r\n\r\n\
                   2\r\nab\r\n1\r\nc\r\n0\r\nx-sum: 7\r\n\r\n";
    for (response, expected) in [(OK, "OK!!"), (chunked, "ABC!!x-sum: 7\r\n")] {
        let endpoint = Endpoint::responding_with(response).await;
        let server = server(vec![filtering()], &endpoint).await;
        let request = GET.replace("connection: close", "te: trailers");
        let response = server.request(&request).await;
        assert_eq!((response.text().as_str(), response.header("content-length")), (expected, None));
        assert_ne!(response.header("etag"), Some("\"1\""));
        let http2 = Http2Client::connect(server.address).await.get("/").await;
        assert_eq!(http2.body, expected.split("x-sum").next().unwrap().as_bytes());
        assert_eq!(http2.trailers.is_some(), expected.contains("x-sum"));
    }
}

/// Stores the parts and the end of a body.
struct Observer(Arc<Mutex<Vec<Bytes>>>);

impl StreamingFilter for Observer {
    fn part(&mut self, data: Bytes) -> Bytes {
        self.0.lock().unwrap().push(data.clone());
        data
    }

    fn end(&mut self) -> Bytes {
        self.0.lock().unwrap().push("end".into());
        Bytes::new()
    }

    fn keeps_bytes(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn observing_filters_keep_the_length_and_see_the_end() {
    let endpoint = Endpoint::responding_with(OK).await;
    let (parts, summaries) = (Arc::new(Mutex::new(Vec::new())), Arc::default());
    let observed = Arc::clone(&parts);
    let observing = ScriptedPlugin::response(move |cx| {
        cx.push_body_filter(BodyFilter::Streaming(Box::new(Observer(Arc::clone(&observed)))));
    });
    let server = server(vec![observing, ScriptedPlugin::logging(&summaries)], &endpoint).await;
    let mut client = server.connect().await;
    for _ in 0..2 {
        let response = client.get("/").await;
        assert_eq!((response.text().as_str(), response.header("content-length")), ("ok", Some("2")));
        assert_eq!(response.header("etag"), Some("\"1\""));
    }
    assert_eq!(*parts.lock().unwrap(), ["ok", "end", "ok", "end"]);
    assert_eq!(endpoint.log.connections(), 1, "the connection to the endpoint was not used again");
    wait_for_summaries(&summaries, 2).await;
    let summaries = summaries.lock().unwrap();
    assert!(summaries.iter().all(|summary| (summary.status, summary.bytes_out) == (StatusCode::OK, 2)));
}

#[tokio::test]
async fn buffered_filters_run_after_earlier_filters() {
    let endpoint = Endpoint::responding_with(OK).await;
    let filtering = ScriptedPlugin::response(|cx| {
        cx.push_body_filter(BodyFilter::Streaming(Box::new(Capitals::default())));
        cx.push_body_filter(bracketing(BeyondLimit::PassUnchanged));
        cx.push_body_filter(bracketing(BeyondLimit::PassUnchanged));
        cx.push_body_filter(BodyFilter::Streaming(Box::new(Capitals::default())));
    });
    let server = server(vec![filtering], &endpoint).await;
    let response = server.request(GET).await;
    assert_eq!((response.text().as_str(), response.header("etag")), ("<<OK!>>!", Some("W/\"1\"")));
    let series = "portico_plugin_duration_seconds_count{plugin=\"first\",phase=\"body\"}";
    assert_eq!(scrape(&server)[series], 2.0);
}

#[tokio::test]
async fn body_beyond_the_limit_is_replaced_if_the_filter_says_so() {
    let long = "HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n12345678901";
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\n123456\r\n5\r\n78901\r\n0\r\n\r\n";
    for response in [long, chunked] {
        let endpoint = Endpoint::responding_with(response).await;
        let passing = ScriptedPlugin::response(|cx| cx.push_body_filter(bracketing(BeyondLimit::PassUnchanged)));
        let passing = server(vec![passing], &endpoint).await;
        assert_eq!(passing.request(GET).await.text(), "12345678901");
        let metrics = scrape(&passing);
        let series = "portico_plugin_unfiltered_bodies_total{plugin=\"first\",reason=\"too_large\"}";
        assert_eq!(metrics.get(series), Some(&1.0), "{metrics:?}");
        let replacing = ScriptedPlugin::response(|cx| {
            let reply = teapot(ReplyBody::Raw("too large".into()));
            cx.push_body_filter(bracketing(BeyondLimit::Replace(reply)));
        });
        let summaries = Arc::default();
        let limiting = ScriptedPlugin::access(|cx| {
            cx.response_headers.insert("x-limit".parse().unwrap(), HeaderValue::from_static("5"));
            AccessOutcome::Continue
        });
        let server = server(vec![replacing, limiting, ScriptedPlugin::logging(&summaries)], &endpoint).await;
        let response = server.request(GET).await;
        assert_eq!((response.status, response.text().as_str()), (418, "too large"));
        assert_eq!(response.header("x-limit"), Some("5"));
        assert_eq!(response.head.matches("x-request-id").count(), 1, "{}", response.head);
        wait_for_summaries(&summaries, 1).await;
        assert_eq!(summaries.lock().unwrap()[0].source, ResponseSource::Plugin);
    }
}

#[tokio::test]
async fn server_sent_events_and_grpc_are_not_buffered() {
    for content_type in ["text/event-stream; charset=utf-8", "application/grpc+proto"] {
        let endpoint = Endpoint::scripted(move |mut stream, _| async move {
            stream.request().await;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n\r\ndata: 1\n\n");
            stream.send(head).await;
            // The stream stays open.
            stream.read_to_end().await;
        })
        .await;
        let filtering = ScriptedPlugin::response(|cx| cx.push_body_filter(bracketing(BeyondLimit::PassUnchanged)));
        let server = server(vec![filtering], &endpoint).await;
        let mut client = server.connect().await;
        client.send(GET).await;
        let mut received = Vec::new();
        with_timeout("the first event", async {
            while !received.windows(7).any(|window| window == b"data: 1") {
                tokio::io::AsyncReadExt::read_buf(&mut client.socket, &mut received).await.unwrap();
            }
        })
        .await;
    }
}

#[tokio::test]
async fn client_that_disconnects_while_a_body_is_collected_is_logged() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nok").await;
        stream.read_to_end().await;
    })
    .await;
    let summaries: Arc<Mutex<Vec<_>>> = Arc::default();
    let has_head = Arc::new(Notify::new());
    let filter_added = Arc::clone(&has_head);
    let filtering = ScriptedPlugin::response(move |cx| {
        cx.push_body_filter(bracketing(BeyondLimit::PassUnchanged));
        filter_added.notify_one();
    });
    let server = server(vec![filtering, ScriptedPlugin::logging(&summaries)], &endpoint).await;
    let mut client = server.connect().await;
    client.send(GET).await;
    with_timeout("the head of the response", has_head.notified()).await;
    drop(client);
    // The proxy closes the connection to the endpoint, which has not sent the whole body.
    endpoint.log.wait_for("the end", |log| log.ended.load(std::sync::atomic::Ordering::SeqCst) == 1).await;
    wait_for_summaries(&summaries, 1).await;
    assert_eq!(summaries.lock().unwrap()[0].status.as_u16(), 499);
}

#[tokio::test]
async fn truncated_body_of_a_buffered_response_gets_502() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nok").await;
    })
    .await;
    let filtering = ScriptedPlugin::response(|cx| cx.push_body_filter(bracketing(BeyondLimit::PassUnchanged)));
    let response = server(vec![filtering], &endpoint).await.request(GET).await;
    assert_eq!(response.status, 502);
}
