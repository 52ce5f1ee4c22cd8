//! Timeouts and their effects. They are short here, so that only a failing test takes long.

use std::time::Duration;

use portico::proxy::ProxyLimits;
use portico::snapshot::timeouts_and_retries::{RequestTimeout, TimeoutsAndRetries};
use portico::upstream::UpstreamProtocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::accounting::scrape;
use crate::frames::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, RawConnection, frame, header_block,
};
use crate::harness::{
    Endpoint, Options, TestServer, forward, route, routes_to, upstream, upstream_with_protocol, with_timeout,
    with_timeouts_and_retries,
};
use crate::{h2, h2_upstream};

const SHORT: Duration = Duration::from_millis(100);

async fn server(limits: ProxyLimits, endpoint: &Endpoint) -> TestServer {
    TestServer::with_options(Options { limits, ..Options::default() }, routes_to(endpoint.address)).await
}

/// An endpoint that reads the request and never responds.
async fn silent() -> Endpoint {
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
    // Also on a reused connection, where the longer keep-alive timeout must not apply.
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
    let begun = [
        frames::get_request(1)[..20].to_vec(),
        frame(HEADERS, END_STREAM, 1, &head),
        [frame(HEADERS, END_STREAM, 1, &head), frame(CONTINUATION, END_HEADERS, 1, &head)[..12].to_vec()].concat(),
    ];
    for bytes in begun {
        for used in [false, true] {
            let mut raw = RawConnection::connect(server.address).await;
            let mut bytes = bytes.clone();
            if used {
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
    let server = server(ProxyLimits { keep_alive_timeout: SHORT * 5, ..ProxyLimits::default() }, &endpoint).await;
    let mut client = server.connect().await;
    for _ in 0..3 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(client.read_to_end().await.unwrap(), b"");
    assert_eq!(server.connect().await.read_to_end().await.unwrap(), b"", "also a connection that never sent a request");
}

#[tokio::test]
async fn unresponsive_endpoint_gets_504() {
    let endpoint = silent().await;
    let server = server(ProxyLimits { response_timeout: SHORT, ..ProxyLimits::default() }, &endpoint).await;
    let mut client = server.connect().await;
    for attempt in 1..=2 {
        let answer = client.get("/").await;
        assert_eq!(answer.status, 504);
        assert!(answer.text().contains("The upstream server is timing out"));
        assert_eq!(endpoint.log.requests().len(), attempt, "it may have been processed, so it is not sent again");
    }
    endpoint
        .log
        .wait_for("the proxy to close its connections", |log| log.ended.load(std::sync::atomic::Ordering::SeqCst) == 2)
        .await;
}

#[tokio::test]
async fn stalled_request_body_gets_408() {
    let endpoint = silent().await;
    let server = server(ProxyLimits { request_body_timeout: SHORT, ..ProxyLimits::default() }, &endpoint).await;
    let mut client = server.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf").await;
    assert_eq!(client.response(false).await.status, 408);
    client.read_to_end().await.unwrap_or_default();
}

#[tokio::test]
async fn endpoint_that_does_not_read_the_body_gets_504() {
    const BODY: u64 = 1 << 40;
    let old = Endpoint::scripted(|mut stream, _| async move {
        stream.head().await;
        stream.record("there");
        std::future::pending::<()>().await;
    })
    .await;
    let new = h2_upstream::http2_endpoint(::h2::server::Builder::new(), |call| async move {
        let _unread = call;
        std::future::pending::<()>().await;
    })
    .await;
    for (protocol, address) in [(UpstreamProtocol::Http1, old.address), (UpstreamProtocol::Http2, new.address)] {
        let routes = || vec![route(forward(vec![(1, upstream_with_protocol(protocol, "web", &[address]))]))];
        // Long enough to connect, and shorter than the timeout of the request body.
        let limits = ProxyLimits { response_timeout: SHORT * 10, ..ProxyLimits::default() };
        let server = TestServer::with_options(Options { limits, ..Options::default() }, routes()).await;
        let client = server.connect().await;
        let (mut reader, mut writer) = client.socket.into_split();
        let upload = tokio::spawn(async move {
            let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {BODY}\r\n\r\n");
            drop(writer.write_all(head.as_bytes()).await);
            while writer.write_all(&[b'x'; 64 * 1024]).await.is_ok() {}
        });
        let mut answer = [0; 12];
        with_timeout("a response", reader.read_exact(&mut answer)).await.unwrap();
        assert_eq!(answer, *b"HTTP/1.1 504", "{protocol:?}");
        let faults: Vec<_> =
            scrape(&server).into_keys().filter(|name| name.starts_with("portico_request_errors")).collect();
        assert_eq!(faults, ["portico_request_errors_total{reason=\"response_timeout\"}"], "{protocol:?}");
        upload.abort();
    }
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
    assert_eq!(client.try_response(false).await, None);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let endpoint = Endpoint::ok().await;
    let server = server(ProxyLimits { max_connections: 2, ..ProxyLimits::default() }, &endpoint).await;
    let (mut first, mut second) = (server.connect().await, server.connect().await);
    assert_eq!(first.get("/").await.status, 200);
    assert_eq!(second.get("/").await.status, 200);
    let mut third = server.connect().await;
    third.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(second.get("/").await.status, 200);
    assert_eq!(endpoint.log.requests().len(), 3);
    drop(first);
    assert_eq!(third.response(false).await.status, 200);
    assert_eq!(scrape(&server)["portico_connections_delayed_total"], 1.0);
}

/// The kernel chooses the worker of a connection, so each worker must be able to accept one.
#[tokio::test]
async fn connection_limit_below_worker_count_blocks_no_worker() {
    let endpoint = Endpoint::ok().await;
    let limits = ProxyLimits { max_connections: 1, ..ProxyLimits::default() };
    let server =
        TestServer::with_options(Options { limits, workers: 4, ..Options::default() }, routes_to(endpoint.address))
            .await;
    for _ in 0..20 {
        let answer = server.request("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert_eq!(answer.status, 200);
    }
}

/// A proxy whose only rule has these timeouts.
async fn server_with_rule(limits: ProxyLimits, endpoint: &Endpoint, policy: TimeoutsAndRetries) -> TestServer {
    let action = with_timeouts_and_retries(forward(vec![(1, upstream("web", &[endpoint.address]))]), policy);
    TestServer::with_options(Options { limits, ..Options::default() }, vec![route(action)]).await
}

#[tokio::test]
async fn rule_timeout_limits_the_response() {
    let endpoint = silent().await;
    let request = TimeoutsAndRetries { request: RequestTimeout::After(SHORT), ..TimeoutsAndRetries::default() };
    let each = TimeoutsAndRetries { backend_request: RequestTimeout::After(SHORT), ..TimeoutsAndRetries::default() };
    for (policy, word) in [(request.clone(), "request_timeout"), (each, "backend_request_timeout")] {
        let server = server_with_rule(ProxyLimits::default(), &endpoint, policy).await;
        let answer = server.connect().await.get("/").await;
        assert_eq!(answer.status, 504, "{word}");
        assert!(answer.text().contains("The upstream server is timing out"));
        assert_eq!(scrape(&server)[&format!("portico_request_errors_total{{reason=\"{word}\"}}")], 1.0);
    }
    // Also while the request body is incomplete.
    let server = server_with_rule(ProxyLimits::default(), &endpoint, request).await;
    let mut client = server.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf").await;
    assert_eq!(client.response(false).await.status, 504);
}

#[tokio::test]
async fn rule_timeout_may_exceed_the_default() {
    for policy in [
        TimeoutsAndRetries { request: RequestTimeout::Unlimited, ..TimeoutsAndRetries::default() },
        TimeoutsAndRetries { backend_request: RequestTimeout::After(SHORT * 100), ..TimeoutsAndRetries::default() },
    ] {
        let endpoint = Endpoint::scripted(|mut stream, _| async move {
            stream.request().await;
            tokio::time::sleep(SHORT * 3).await;
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            stream.request().await;
            stream.read_to_end().await;
        })
        .await;
        let impatient = ProxyLimits { response_timeout: SHORT, ..ProxyLimits::default() };
        let server = server_with_rule(impatient.clone(), &endpoint, policy).await;
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
    for (policy, word) in [
        (
            TimeoutsAndRetries { request: RequestTimeout::After(SHORT), ..TimeoutsAndRetries::default() },
            "request_timeout",
        ),
        (
            TimeoutsAndRetries { backend_request: RequestTimeout::After(SHORT), ..TimeoutsAndRetries::default() },
            "backend_request_timeout",
        ),
        (
            TimeoutsAndRetries {
                request: RequestTimeout::After(SHORT * 100),
                backend_request: RequestTimeout::After(SHORT),
                ..TimeoutsAndRetries::default()
            },
            "backend_request_timeout",
        ),
        (
            TimeoutsAndRetries {
                request: RequestTimeout::After(SHORT),
                backend_request: RequestTimeout::After(SHORT * 100),
                ..TimeoutsAndRetries::default()
            },
            "request_timeout",
        ),
    ] {
        let server = server_with_rule(ProxyLimits::default(), &endpoint, policy).await;
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.try_response(false).await, None, "a truncated response must not appear complete");
        assert_eq!(scrape(&server)[&format!("portico_request_errors_total{{reason=\"{word}\"}}")], 1.0);
    }
}

#[tokio::test]
async fn rule_timeout_ends_endless_responses() {
    let endless = || async {
        Endpoint::scripted(|mut stream, _| async move {
            stream.request().await;
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 100000000000\r\n\r\n").await;
            let block = vec![b'x'; 64 * 1024];
            while stream.socket.write_all(&block).await.is_ok() {}
        })
        .await
    };
    for reads in [true, false] {
        for (policy, word) in [
            (
                TimeoutsAndRetries { request: RequestTimeout::After(SHORT), ..TimeoutsAndRetries::default() },
                "request_timeout",
            ),
            (
                TimeoutsAndRetries { backend_request: RequestTimeout::After(SHORT), ..TimeoutsAndRetries::default() },
                "backend_request_timeout",
            ),
        ] {
            let server = server_with_rule(ProxyLimits::default(), &endless().await, policy).await;
            let reason = format!("portico_request_errors_total{{reason=\"{word}\"}}");
            let over = || scrape(&server).get(&reason) == Some(&1.0);
            let mut client = server.connect().await;
            client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            let mut multiplexed = None;
            if reads {
                let mut sink = vec![0; 64 * 1024];
                with_timeout("the end", async { while let Ok(1..) = client.socket.read(&mut sink).await {} }).await;
            } else {
                // A client that does not read may not see the end, but the metrics count it.
                with_timeout("the end of the first request", async {
                    while !over() {
                        tokio::task::yield_now().await
                    }
                })
                .await;
                let other = h2::Http2Client::connect(server.address).await;
                let (answer, _) = other.start(h2::get_request("/"), true).await;
                multiplexed = Some((other, answer));
            }
            let times = if multiplexed.is_some() { 2.0 } else { 1.0 };
            with_timeout("the metrics", async {
                while scrape(&server).get(&reason) != Some(&times) {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
    }
}

// kong-compat §3.8
#[tokio::test]
async fn silent_endpoint_hits_the_read_timeout() {
    let (head, half) = ("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n", "abc");
    // (what the endpoint sends at once, whether the rest follows in time, timeouts of the rule, status of a complete
    // response)
    let read =
        |limit| TimeoutsAndRetries { read: RequestTimeout::After(limit).into(), ..TimeoutsAndRetries::default() };
    let cases = [
        (String::new(), false, read(SHORT), Some(504)),
        (head.to_owned() + half, false, read(SHORT), None),
        // Each read restarts the timeout.
        (head.to_owned() + half, true, read(SHORT * 50), Some(200)),
        // The write timeout does not limit reads.
        (
            String::new(),
            true,
            TimeoutsAndRetries { write: RequestTimeout::After(SHORT).into(), ..TimeoutsAndRetries::default() },
            Some(200),
        ),
    ];
    for (at_once, goes_on, policy, expected) in cases {
        let sent = at_once.clone();
        let endpoint = Endpoint::scripted(move |mut stream, _| {
            let sent = sent.clone();
            async move {
                stream.request().await;
                stream.send(&sent).await;
                if goes_on {
                    tokio::time::sleep(SHORT * 2).await;
                    let whole = head.to_owned() + half + half;
                    stream.send(&whole[sent.len()..]).await;
                }
                stream.read_to_end().await;
            }
        })
        .await;
        // The read timeout of the rule replaces the default response timeout, shorter or longer.
        let limits =
            ProxyLimits { response_timeout: if goes_on { SHORT } else { SHORT * 600 }, ..ProxyLimits::default() };
        let limits = if policy.read.is_set() { limits } else { ProxyLimits::default() };
        let server = server_with_rule(limits, &endpoint, policy.clone()).await;
        let mut client = server.connect().await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let answer = client.try_response(false).await;
        assert_eq!(answer.map(|answer| answer.status), expected, "{at_once:?} {policy:?}");
        if expected != Some(200) {
            assert_eq!(
                scrape(&server)["portico_request_errors_total{reason=\"response_timeout\"}"],
                1.0,
                "{at_once:?}"
            );
        }
    }
}

/// The read timeout measures the endpoint, not the client.
#[tokio::test]
async fn paused_client_does_not_trigger_the_read_timeout() {
    // Larger than all buffers on the way together.
    const LENGTH: usize = 24 << 20;
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n")).await;
        stream.send(vec![b'x'; LENGTH]).await;
        stream.read_to_end().await;
    })
    .await;
    let policy = TimeoutsAndRetries { read: RequestTimeout::After(SHORT * 20).into(), ..TimeoutsAndRetries::default() };
    let server = server_with_rule(ProxyLimits::default(), &endpoint, policy).await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    tokio::time::sleep(SHORT * 25).await;
    assert_eq!(client.response(false).await.body.len(), LENGTH);
}

// kong-compat §3.8
#[tokio::test]
async fn rule_sets_the_connect_timeout() {
    let (deaf, _queue, _listener) = crate::endpoints::unresponsive_address().await;
    let endpoint = Endpoint::ok().await;
    let service = |connect, retries| TimeoutsAndRetries::for_kong_service(connect, SHORT * 600, SHORT * 600, retries);
    let server = |addresses: Vec<std::net::SocketAddr>, limits, policy| async move {
        let action = with_timeouts_and_retries(forward(vec![(1, upstream("web", &addresses))]), policy);
        TestServer::with_options(Options { limits, ..Options::default() }, vec![route(action)]).await
    };
    // Shorter than the default, after which the next endpoint is tried.
    for _ in 0..2 {
        let server = server(vec![deaf, endpoint.address], ProxyLimits::default(), service(SHORT, 5)).await;
        assert_eq!(server.connect().await.get("/").await.text(), "ok");
    }
    let unresponsive_server = server(vec![deaf], ProxyLimits::default(), service(SHORT, 1)).await;
    assert_eq!(unresponsive_server.connect().await.get("/").await.status, 504);
    assert_eq!(scrape(&unresponsive_server)["portico_request_errors_total{reason=\"connect_timeout\"}"], 1.0);
    assert_eq!(scrape(&unresponsive_server)["portico_upstream_retries_total"], 1.0);
    // Longer than the default: the listen queue has room again before the rule's timeout.
    let impatient = ProxyLimits { connect_timeout: SHORT, response_timeout: SHORT, ..ProxyLimits::default() };
    let (late, mut queue, listener) = crate::endpoints::unresponsive_address().await;
    let server = server(vec![late], impatient, service(SHORT * 200, 0)).await;
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    tokio::time::sleep(SHORT * 3).await;
    listener.set_nonblocking(true).unwrap();
    let accepting = Endpoint::on_listener(
        tokio::net::TcpListener::from_std(listener.into()).unwrap(),
        |mut stream, _| async move {
            while stream.request().await.is_some() {
                stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        },
    );
    queue.clear();
    assert_eq!(client.response(false).await.text(), "ok");
    drop(accepting);
}

// kong-compat §3.8
#[tokio::test]
async fn blocked_endpoint_hits_the_write_timeout() {
    const LENGTH: usize = 64 << 20;
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.head().await;
        std::future::pending::<()>().await;
    })
    .await;
    let policy = TimeoutsAndRetries {
        write: RequestTimeout::After(SHORT).into(),
        read: RequestTimeout::After(SHORT * 600).into(),
        ..TimeoutsAndRetries::default()
    };
    let server = server_with_rule(ProxyLimits::default(), &endpoint, policy).await;
    let mut client = server.connect().await;
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {LENGTH}\r\n\r\n")).await;
    let (answers, mut requests) = tokio::io::split(client.socket);
    // Ends with an error once the proxy stops reading.
    let sending = tokio::spawn(async move { requests.write_all(&vec![b'x'; LENGTH]).await });
    let mut client = crate::harness::Client::from_stream(tokio::io::join(answers, tokio::io::sink()));
    assert_eq!(client.response(false).await.status, 504);
    sending.abort();
}

// kong-compat §3.8
#[tokio::test]
async fn rule_read_timeout_extends_the_tunnel_idle_timeout() {
    let handshake = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.head().await;
        stream.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
        let said = stream.read_some().await.unwrap_or_default();
        stream.send(said).await;
    })
    .await;
    let limits = ProxyLimits { tunnel_idle_timeout: SHORT, ..ProxyLimits::default() };
    for (read, stays) in
        [(RequestTimeout::After(SHORT * 600), true), (RequestTimeout::Unlimited, true), (RequestTimeout::Unset, false)]
    {
        let server = server_with_rule(
            limits.clone(),
            &endpoint,
            TimeoutsAndRetries { read: read.into(), ..TimeoutsAndRetries::default() },
        )
        .await;
        let mut client = server.connect().await;
        client.send(handshake).await;
        assert_eq!(client.response(false).await.status, 101);
        if stays {
            // Sending is the only way to find out whether the tunnel is still open.
            tokio::time::sleep(SHORT * 4).await;
            client.send(b"still there").await;
        }
        let said = client.read_to_end().await.unwrap_or_default();
        assert_eq!(said == b"still there", stays, "{read:?}");
    }
}
