//! Timeouts of the proxy and of rules, and their effects. They are short here, so that only a failing test takes long:
//! [`SHORT`] if nothing has to happen before they expire.

use std::time::Duration;

use futures_util::future::join_all;
use portico::endpoint_tls::UpstreamProtocol;
use portico::limits::ProxyLimits;
use portico::snapshot::timeouts_and_retries::{TimeoutSetting, TimeoutsAndRetries};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::accounting::scrape;
use crate::frames::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, RawConnection, frame, header_block,
};
use crate::harness::{
    Endpoint, LONGER_THAN_PAUSES, Options, TestServer, forward, route, routes_to, upstream, upstream_with_protocol,
    with_timeout, with_timeouts_and_retries,
};
use crate::retry::sum;
use crate::{h2, h2_upstream};

const SHORT: Duration = Duration::from_millis(100);

async fn server(limits: ProxyLimits, endpoint: &Endpoint) -> TestServer {
    TestServer::with_options(Options { limits, ..Options::default() }, routes_to(endpoint.address)).await
}

/// An endpoint that reads the request and never responds.
async fn silent_endpoint() -> Endpoint {
    Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.read_to_end().await;
    })
    .await
}

#[tokio::test]
async fn slow_request_head_closes_the_connection() {
    let endpoint = Endpoint::ok().await;
    let server = server(ProxyLimits { header_timeout: SHORT, ..ProxyLimits::default() }, &endpoint).await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nhost").await;
    assert_eq!(client.read_to_end().await.unwrap(), b"");
    // The same timeout applies on a reused connection, instead of the longer keep-alive timeout.
    let mut client = server.connect().await;
    assert_eq!(client.get("/").await.status, 200);
    client.send("GET / HTTP/1.1\r\nhost").await;
    assert_eq!(client.read_to_end().await.unwrap(), b"");
    assert_eq!(endpoint.log.requests().len(), 1);
}

#[tokio::test]
async fn slow_http2_head_closes_the_connection() {
    let endpoint = Endpoint::ok().await;
    let server = server(ProxyLimits { header_timeout: SHORT, ..ProxyLimits::default() }, &endpoint).await;
    let head = header_block(&frames::GET);
    let beginnings = [
        frames::get_request(1)[..20].to_vec(),
        frame(HEADERS, END_STREAM, 1, &head),
        [frame(HEADERS, END_STREAM, 1, &head), frame(CONTINUATION, END_HEADERS, 1, &head)[..12].to_vec()].concat(),
    ];
    for bytes in beginnings {
        for is_reused in [false, true] {
            let mut raw = RawConnection::connect(server.address).await;
            let mut bytes = bytes.clone();
            if is_reused {
                raw.send(frames::get_request(1)).await;
                raw.wait_for("a response", |frame| frame.kind == DATA && frame.payload == b"ok").await;
                // The low byte of the stream ID is the last byte of the frame header.
                bytes[8] = 3;
            }
            raw.send(bytes).await;
            raw.read_to_end().await;
        }
    }
    // An incomplete preface has the same timeout.
    let mut raw = RawConnection::connect_without_preface(server.address).await;
    raw.send(&PREFACE[..20]).await;
    assert_eq!(raw.read_to_end().await, []);
    assert_eq!(endpoint.log.requests().len(), 3);
}

#[tokio::test]
async fn idle_connection_is_closed() {
    let endpoint = Endpoint::ok().await;
    let limits = ProxyLimits { client_idle_timeout: LONGER_THAN_PAUSES, ..ProxyLimits::default() };
    let server = server(limits, &endpoint).await;
    let (mut client, mut unused) = (server.connect().await, server.connect().await);
    for _ in 0..3 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(client.read_to_end().await.unwrap(), b"");
    assert_eq!(unused.read_to_end().await.unwrap(), b"", "a connection without a request must be closed, too");
}

#[tokio::test]
async fn unresponsive_endpoint_gets_504() {
    let endpoint = silent_endpoint().await;
    let server = server(ProxyLimits { response_timeout: SHORT, ..ProxyLimits::default() }, &endpoint).await;
    let mut client = server.connect().await;
    for attempt in 1..=2 {
        let response = client.get("/").await;
        assert_eq!(response.status, 504);
        assert!(response.text().contains("The upstream server is timing out"));
        // The endpoint may read the request after the timeout.
        endpoint.log.wait_for("the request", |log| log.requests().len() >= attempt).await;
    }
    endpoint
        .log
        .wait_for("the proxy to close its connections", |log| log.ended.load(std::sync::atomic::Ordering::SeqCst) == 2)
        .await;
    let requests = endpoint.log.requests().len();
    assert_eq!(requests, 2, "the requests may have been processed, so they are not sent again");
}

#[tokio::test]
async fn stalled_request_body_gets_408() {
    let endpoint = silent_endpoint().await;
    let server = server(ProxyLimits { request_body_timeout: SHORT, ..ProxyLimits::default() }, &endpoint).await;
    let mut client = server.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf").await;
    assert_eq!(client.response().await.status, 408);
    client.read_to_end().await.unwrap_or_default();
}

#[tokio::test]
async fn endpoint_that_does_not_read_the_body_gets_504() {
    /// More bytes than all buffers hold.
    const BODY_LENGTH: u64 = 1 << 40;
    let http1_endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.head().await;
        stream.record("head received");
        std::future::pending::<()>().await;
    })
    .await;
    let http2_endpoint = h2_upstream::http2_endpoint(::h2::server::Builder::new(), |call| async move {
        let _unread = call;
        std::future::pending::<()>().await;
    })
    .await;
    for (protocol, address) in
        [(UpstreamProtocol::Http1, http1_endpoint.address), (UpstreamProtocol::Http2, http2_endpoint.address)]
    {
        let routes = || vec![route(forward(vec![(1, upstream_with_protocol(protocol, "web", &[address]))]))];
        // Long enough to connect, and shorter than the timeout of the request body.
        let limits = ProxyLimits { response_timeout: SHORT * 10, ..ProxyLimits::default() };
        let server = TestServer::with_options(Options { limits, ..Options::default() }, routes()).await;
        let client = server.connect().await;
        let (mut reader, mut writer) = client.socket.into_split();
        let upload = tokio::spawn(async move {
            let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {BODY_LENGTH}\r\n\r\n");
            drop(writer.write_all(head.as_bytes()).await);
            while writer.write_all(&[b'x'; 64 * 1024]).await.is_ok() {}
        });
        let mut response = [0; 12];
        with_timeout("a response", reader.read_exact(&mut response)).await.unwrap();
        assert_eq!(response, *b"HTTP/1.1 504", "{protocol:?}");
        let errors: Vec<_> =
            scrape(&server).into_keys().filter(|name| name.starts_with("portico_request_errors")).collect();
        assert_eq!(errors, ["portico_request_errors_total{reason=\"response_timeout\"}"], "{protocol:?}");
        upload.abort();
    }
}

/// A server of HTTP/1 may take the preface of HTTP/2 for the beginning of a request, and wait for the rest.
#[tokio::test]
async fn endpoint_that_does_not_answer_in_http2_gets_502() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.read_to_end().await;
    })
    .await;
    let routes =
        vec![route(forward(vec![(1, upstream_with_protocol(UpstreamProtocol::Http2, "web", &[endpoint.address]))]))];
    let limits = ProxyLimits { connect_timeout: SHORT, ..ProxyLimits::default() };
    let server = TestServer::with_options(Options { limits, ..Options::default() }, routes).await;
    assert_eq!(server.connect().await.get("/").await.status, 502);
    let errors: Vec<_> =
        scrape(&server).into_keys().filter(|name| name.starts_with("portico_request_errors")).collect();
    assert_eq!(errors, ["portico_request_errors_total{reason=\"invalid_response\"}"]);
}

#[tokio::test]
async fn stalled_response_is_cut() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        stream.read_to_end().await;
    })
    .await;
    let server = server(ProxyLimits { stall_timeout: SHORT, ..ProxyLimits::default() }, &endpoint).await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.try_response().await, None);
}

/// A proxy whose only rule has these timeouts.
async fn server_with_rule(limits: ProxyLimits, endpoint: &Endpoint, policy: TimeoutsAndRetries) -> TestServer {
    let action = with_timeouts_and_retries(forward(vec![(1, upstream("web", &[endpoint.address]))]), policy);
    TestServer::with_options(Options { limits, ..Options::default() }, vec![route(action)]).await
}

#[tokio::test]
async fn rule_timeout_limits_the_response() {
    let endpoint = silent_endpoint().await;
    let request = TimeoutsAndRetries { request: TimeoutSetting::After(SHORT), ..TimeoutsAndRetries::default() };
    let backend_request =
        TimeoutsAndRetries { backend_request: TimeoutSetting::After(SHORT), ..TimeoutsAndRetries::default() };
    for (policy, reason) in [(request.clone(), "request_timeout"), (backend_request, "backend_request_timeout")] {
        let server = server_with_rule(ProxyLimits::default(), &endpoint, policy).await;
        let response = server.connect().await.get("/").await;
        assert_eq!(response.status, 504, "{reason}");
        assert!(response.text().contains("The upstream server is timing out"));
        assert_eq!(scrape(&server)[&format!("portico_request_errors_total{{reason=\"{reason}\"}}")], 1.0);
    }
    // The timeout also applies while the request body is incomplete.
    let server = server_with_rule(ProxyLimits::default(), &endpoint, request).await;
    let mut client = server.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf").await;
    assert_eq!(client.response().await.status, 504);
}

#[tokio::test]
async fn rule_timeout_may_exceed_the_default() {
    for policy in [
        TimeoutsAndRetries { request: TimeoutSetting::Unlimited, ..TimeoutsAndRetries::default() },
        TimeoutsAndRetries { backend_request: TimeoutSetting::After(SHORT * 100), ..TimeoutsAndRetries::default() },
    ] {
        let endpoint = Endpoint::scripted(|mut stream, _| async move {
            stream.request().await;
            tokio::time::sleep(SHORT * 3).await; // Longer than the default timeout.
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            stream.request().await;
            stream.read_to_end().await;
        })
        .await;
        let short_response_timeout = ProxyLimits { response_timeout: SHORT, ..ProxyLimits::default() };
        let server = server_with_rule(short_response_timeout.clone(), &endpoint, policy).await;
        let mut client = server.connect().await;
        assert_eq!(client.get("/").await.text(), "ok");
        // The timeout of a rule applies to its own requests only.
        server.replace_routes(routes_to(endpoint.address));
        assert_eq!(client.get("/").await.status, 504);
    }
}

#[tokio::test]
async fn rule_timeout_covers_the_response_body() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        stream.read_to_end().await;
    })
    .await;
    // The response begins before the timeout.
    let (limit, longer) = (TimeoutSetting::After(LONGER_THAN_PAUSES), TimeoutSetting::After(SHORT * 600));
    let cases = [
        (limit, TimeoutSetting::Unset, "request_timeout"),
        (TimeoutSetting::Unset, limit, "backend_request_timeout"),
        (longer, limit, "backend_request_timeout"),
        (limit, longer, "request_timeout"),
    ];
    let checks = cases.map(|(request, backend_request, reason)| {
        let endpoint = &endpoint;
        async move {
            let policy = TimeoutsAndRetries { request, backend_request, ..TimeoutsAndRetries::default() };
            let server = server_with_rule(ProxyLimits::default(), endpoint, policy).await;
            let mut client = server.connect().await;
            client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            assert_eq!(client.try_response().await, None, "a truncated response must not appear complete");
            assert_eq!(scrape(&server)[&format!("portico_request_errors_total{{reason=\"{reason}\"}}")], 1.0);
        }
    });
    join_all(checks).await;
}

#[tokio::test]
async fn rule_timeout_ends_endless_responses() {
    let endless_endpoint = || async {
        Endpoint::scripted(|mut stream, _| async move {
            stream.request().await;
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 100000000000\r\n\r\n").await;
            let block = vec![b'x'; 64 * 1024];
            while stream.socket.write_all(&block).await.is_ok() {}
        })
        .await
    };
    for client_reads in [true, false] {
        for (policy, reason) in [
            (
                TimeoutsAndRetries { request: TimeoutSetting::After(SHORT), ..TimeoutsAndRetries::default() },
                "request_timeout",
            ),
            (
                TimeoutsAndRetries { backend_request: TimeoutSetting::After(SHORT), ..TimeoutsAndRetries::default() },
                "backend_request_timeout",
            ),
        ] {
            let server = server_with_rule(ProxyLimits::default(), &endless_endpoint().await, policy).await;
            let metric = format!("portico_request_errors_total{{reason=\"{reason}\"}}");
            let is_counted = || scrape(&server).get(&metric) == Some(&1.0);
            let mut client = server.connect().await;
            client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            let mut http2_request = None;
            if client_reads {
                let mut sink = vec![0; 64 * 1024];
                with_timeout("the end of the response", async {
                    while let Ok(1..) = client.socket.read(&mut sink).await {}
                })
                .await;
            } else {
                // A client that does not read may not see the end of the response, but the metrics count the error.
                with_timeout("the end of the first request", async {
                    while !is_counted() {
                        tokio::task::yield_now().await
                    }
                })
                .await;
                let http2_client = h2::Http2Client::connect(server.address).await;
                let (response, _) = http2_client.start(h2::get_request("/")).await;
                http2_request = Some((http2_client, response));
            }
            let expected_count = if http2_request.is_some() { 2.0 } else { 1.0 };
            with_timeout("the request errors to be counted", async {
                while scrape(&server).get(&metric) != Some(&expected_count) {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
    }
}

// docs/kong-compatibility.md, 3.8
#[tokio::test]
async fn silent_endpoint_hits_the_read_timeout() {
    let (head, half) = ("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n", "abc");
    // (what the endpoint sends at once, whether the rest follows later, timeouts of the rule, status of the response if
    // it is complete)
    let read_timeout =
        |limit| TimeoutsAndRetries { read: TimeoutSetting::After(limit).into(), ..TimeoutsAndRetries::default() };
    let cases = [
        (String::new(), false, read_timeout(SHORT), Some(504)),
        // The response begins before the timeout.
        (head.to_owned() + half, false, read_timeout(LONGER_THAN_PAUSES), None),
        // Each read restarts the timeout.
        (head.to_owned() + half, true, read_timeout(SHORT * 50), Some(200)),
        // The write timeout does not limit reads.
        (
            String::new(),
            true,
            TimeoutsAndRetries { write: TimeoutSetting::After(SHORT).into(), ..TimeoutsAndRetries::default() },
            Some(200),
        ),
    ];
    for (first_part, rest_follows, policy, expected) in cases {
        let sent = first_part.clone();
        let endpoint = Endpoint::scripted(move |mut stream, _| {
            let sent = sent.clone();
            async move {
                stream.request().await;
                stream.send(&sent).await;
                if rest_follows {
                    tokio::time::sleep(SHORT * 2).await; // Longer than the timeouts that do not apply.
                    let response = head.to_owned() + half + half;
                    stream.send(&response[sent.len()..]).await;
                }
                stream.read_to_end().await;
            }
        })
        .await;
        // The read timeout of the rule replaces the default response timeout, whether it is shorter or longer.
        let limits =
            ProxyLimits { response_timeout: if rest_follows { SHORT } else { SHORT * 600 }, ..ProxyLimits::default() };
        let limits = if policy.read.is_set() { limits } else { ProxyLimits::default() };
        let server = server_with_rule(limits, &endpoint, policy.clone()).await;
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let response = client.try_response().await;
        assert_eq!(response.map(|response| response.status), expected, "{first_part:?} {policy:?}");
        if expected != Some(200) {
            assert_eq!(
                scrape(&server)["portico_request_errors_total{reason=\"response_timeout\"}"],
                1.0,
                "{first_part:?}"
            );
        }
    }
}

/// The read timeout measures the endpoint, not the client.
#[tokio::test]
async fn paused_client_does_not_trigger_the_read_timeout() {
    // More bytes than all buffers between endpoint and client hold.
    const LENGTH: usize = 24 << 20;
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n")).await;
        stream.send(vec![b'x'; LENGTH]).await;
        stream.read_to_end().await;
    })
    .await;
    let limit = TimeoutSetting::After(LONGER_THAN_PAUSES).into();
    let policy = TimeoutsAndRetries { read: limit, ..TimeoutsAndRetries::default() };
    let server = server_with_rule(ProxyLimits::default(), &endpoint, policy).await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    tokio::time::sleep(LONGER_THAN_PAUSES + SHORT * 5).await; // Longer than the timeout.
    assert_eq!(client.response().await.body.len(), LENGTH);
}

// docs/kong-compatibility.md, 3.8
#[tokio::test]
async fn rule_sets_the_connect_timeout() {
    let (unresponsive, _queue, _listener) = crate::endpoints::unresponsive_address().await;
    let endpoint = Endpoint::ok().await;
    let service_timeouts =
        |connect, retries| TimeoutsAndRetries::per_attempt(connect, SHORT * 600, SHORT * 600, retries);
    let server = |addresses: Vec<std::net::SocketAddr>, limits, policy| async move {
        let action = with_timeouts_and_retries(forward(vec![(1, upstream("web", &addresses))]), policy);
        TestServer::with_options(Options { limits, ..Options::default() }, vec![route(action)]).await
    };
    // A timeout below the default: after it, the proxy connects to the next endpoint.
    for _ in 0..2 {
        let server =
            server(vec![unresponsive, endpoint.address], ProxyLimits::default(), service_timeouts(SHORT, 5)).await;
        assert_eq!(server.connect().await.get("/").await.text(), "ok");
    }
    let failing_server = server(vec![unresponsive], ProxyLimits::default(), service_timeouts(SHORT, 1)).await;
    assert_eq!(failing_server.connect().await.get("/").await.status, 504);
    assert_eq!(scrape(&failing_server)["portico_request_errors_total{reason=\"connect_timeout\"}"], 1.0);
    assert_eq!(sum(&scrape(&failing_server), "portico_upstream_retries_total", &[]), 1.0);
    // A timeout above the default: the listen queue has room again before it ends.
    let short_limits = ProxyLimits { connect_timeout: SHORT, response_timeout: SHORT, ..ProxyLimits::default() };
    let (late_address, mut queue, listener) = crate::endpoints::unresponsive_address().await;
    let server = server(vec![late_address], short_limits, service_timeouts(SHORT * 200, 0)).await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    tokio::time::sleep(SHORT * 3).await; // Longer than the default timeouts.
    listener.set_nonblocking(true).unwrap();
    let late_endpoint = Endpoint::on_listener(
        tokio::net::TcpListener::from_std(listener.into()).unwrap(),
        |mut stream, _| async move {
            while stream.request().await.is_some() {
                stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        },
    );
    queue.clear();
    assert_eq!(client.response().await.text(), "ok");
    drop(late_endpoint);
}

// docs/kong-compatibility.md, 3.8
#[tokio::test]
async fn blocked_endpoint_hits_the_write_timeout() {
    const LENGTH: usize = 64 << 20;
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.head().await;
        std::future::pending::<()>().await;
    })
    .await;
    let policy = TimeoutsAndRetries {
        write: TimeoutSetting::After(SHORT).into(),
        read: TimeoutSetting::After(SHORT * 600).into(),
        ..TimeoutsAndRetries::default()
    };
    let server = server_with_rule(ProxyLimits::default(), &endpoint, policy).await;
    let mut client = server.connect().await;
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {LENGTH}\r\n\r\n")).await;
    let (reader, mut writer) = tokio::io::split(client.socket);
    // Ends with an error once the proxy stops reading.
    let upload = tokio::spawn(async move { writer.write_all(&vec![b'x'; LENGTH]).await });
    let mut client = crate::harness::Client::from_stream(tokio::io::join(reader, tokio::io::sink()));
    assert_eq!(client.response().await.status, 504);
    upload.abort();
}

// docs/kong-compatibility.md, 3.8
#[tokio::test]
async fn rule_read_timeout_extends_the_tunnel_idle_timeout() {
    let handshake = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.head().await;
        stream.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
        let echoed = stream.read_some().await.unwrap_or_default();
        stream.send(echoed).await;
    })
    .await;
    let limits = ProxyLimits { upgrade_idle_timeout: SHORT, ..ProxyLimits::default() };
    for (read, stays_open) in
        [(TimeoutSetting::After(SHORT * 600), true), (TimeoutSetting::Unlimited, true), (TimeoutSetting::Unset, false)]
    {
        let server = server_with_rule(
            limits.clone(),
            &endpoint,
            TimeoutsAndRetries { read: read.into(), ..TimeoutsAndRetries::default() },
        )
        .await;
        let mut client = server.connect().await;
        client.send(handshake).await;
        assert_eq!(client.response().await.status, 101);
        if stays_open {
            // An open tunnel echoes what the client sends.
            tokio::time::sleep(SHORT * 4).await; // Longer than the idle timeout.
            client.send(b"still there").await;
        }
        let echoed = client.read_to_end().await.unwrap_or_default();
        assert_eq!(echoed == b"still there", stays_open, "{read:?}");
    }
}
