//! Patience, and what happens when it ends. The limits here are short, so that only a failure takes long.

use std::time::Duration;

use portico::proxy::Limits;
use portico::snapshot::tries::{Limit, Tries};
use portico::upstream::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::books::scrape;
use crate::frames::{self, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PREFACE, Raw, block, frame};
use crate::harness::{Endpoint, Gate, Options, forward, route, to, trying, upstream, upstream_of, within};
use crate::{h2, h2_upstream};

const SHORT: Duration = Duration::from_millis(100);

async fn gate(limits: Limits, endpoint: &Endpoint) -> Gate {
    Gate::with(Options { limits, ..Options::default() }, to(endpoint.address)).await
}

/// Reads the request and never answers.
async fn silent() -> Endpoint {
    Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.rest().await;
    })
    .await
}

#[tokio::test]
async fn a_slow_head_ends_the_connection() {
    let endpoint = Endpoint::ok().await;
    let gate = gate(Limits { header_timeout: SHORT, ..Limits::default() }, &endpoint).await;
    let mut client = gate.client().await;
    client.send("GET / HTTP/1.1\r\nhost").await;
    assert_eq!(client.rest().await.unwrap(), b"");
    // Also on a connection that has been used, where the long patience for an idle one must not count.
    let mut client = gate.client().await;
    assert_eq!(client.get("/").await.status, 200);
    client.send("GET / HTTP/1.1\r\nhost").await;
    assert_eq!(client.rest().await.unwrap(), b"");
    assert_eq!(endpoint.log.requests().len(), 1);
}

#[tokio::test]
async fn a_slow_head_ends_the_connection_of_http2_too() {
    let endpoint = Endpoint::ok().await;
    let gate = gate(Limits { header_timeout: SHORT, ..Limits::default() }, &endpoint).await;
    let head = block(&frames::GET);
    let begun = [
        frames::get(1)[..20].to_vec(),
        frame(HEADERS, END_STREAM, 1, &head),
        [frame(HEADERS, END_STREAM, 1, &head), frame(CONTINUATION, END_HEADERS, 1, &head)[..12].to_vec()].concat(),
    ];
    for bytes in begun {
        for used in [false, true] {
            let mut raw = Raw::connect(gate.address).await;
            let mut bytes = bytes.clone();
            if used {
                raw.send(frames::get(1)).await;
                raw.until("an answer", |frame| frame.kind == DATA && frame.payload == b"ok").await;
                // The stream's number is the last byte of the frame's header.
                bytes[8] = 3;
            }
            raw.send(bytes).await;
            raw.rest().await;
        }
    }
    // A preface that has begun, and one that ALPN has promised, are waited for as long.
    let mut raw = Raw::silent(gate.address).await;
    raw.send(&PREFACE[..20]).await;
    assert_eq!(raw.rest().await, []);
    assert_eq!(endpoint.log.requests().len(), 3);
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let endpoint = Endpoint::ok().await;
    let gate = gate(Limits { keep_alive: SHORT * 5, ..Limits::default() }, &endpoint).await;
    let mut client = gate.client().await;
    for _ in 0..3 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(client.rest().await.unwrap(), b"");
    assert_eq!(gate.client().await.rest().await.unwrap(), b"", "one that never asked for anything, too");
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_costs_504() {
    let endpoint = silent().await;
    let gate = gate(Limits { answer_timeout: SHORT, ..Limits::default() }, &endpoint).await;
    let mut client = gate.client().await;
    for tries in 1..=2 {
        let answer = client.get("/").await;
        assert_eq!(answer.status, 504);
        assert!(answer.text().contains("The upstream server is timing out"));
        assert_eq!(endpoint.log.requests().len(), tries, "it may have been processed, so it is not sent again");
    }
    endpoint.log.until("our end of it", |log| log.ended.load(std::sync::atomic::Ordering::SeqCst) == 2).await;
}

#[tokio::test]
async fn a_client_that_does_not_send_its_body_gets_408() {
    let endpoint = silent().await;
    let gate = gate(Limits { upload_timeout: SHORT, ..Limits::default() }, &endpoint).await;
    let mut client = gate.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf").await;
    assert_eq!(client.answer(false).await.status, 408);
    client.rest().await.unwrap_or_default();
}

#[tokio::test]
async fn an_endpoint_that_does_not_take_the_body_costs_504() {
    const BODY: u64 = 1 << 40;
    let old = Endpoint::scripted(|mut stream, _| async move {
        stream.head().await;
        stream.note("there");
        std::future::pending::<()>().await;
    })
    .await;
    let new = h2_upstream::endpoint(::h2::server::Builder::new(), |call| async move {
        let _unread = call;
        std::future::pending::<()>().await;
    })
    .await;
    for (protocol, address) in [(Protocol::Http1, old.address), (Protocol::Http2, new.address)] {
        let routes = || vec![route(forward(vec![(1, upstream_of(protocol, "web", &[address]))]))];
        // Long enough to connect, and shorter than the patience with clients.
        let limits = Limits { answer_timeout: SHORT * 10, ..Limits::default() };
        let gate = Gate::with(Options { limits, ..Options::default() }, routes()).await;
        let client = gate.client().await;
        let (mut reader, mut writer) = client.socket.into_split();
        let upload = tokio::spawn(async move {
            let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {BODY}\r\n\r\n");
            drop(writer.write_all(head.as_bytes()).await);
            while writer.write_all(&[b'x'; 64 * 1024]).await.is_ok() {}
        });
        let mut answer = [0; 12];
        within("an answer", reader.read_exact(&mut answer)).await.unwrap();
        assert_eq!(answer, *b"HTTP/1.1 504", "{protocol:?}");
        let faults: Vec<_> = scrape(&gate).into_keys().filter(|name| name.starts_with("portico_faults")).collect();
        assert_eq!(faults, ["portico_faults_total{reason=\"answer_timeout\"}"], "{protocol:?}");
        upload.abort();
    }
}

#[tokio::test]
async fn an_answer_that_stalls_is_cut() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        stream.rest().await;
    })
    .await;
    let gate = gate(Limits { stall_timeout: SHORT, ..Limits::default() }, &endpoint).await;
    let mut client = gate.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.try_answer(false).await, None);
}

#[tokio::test]
async fn clients_beyond_the_limit_wait_for_their_turn() {
    let endpoint = Endpoint::ok().await;
    let gate = gate(Limits { max_connections: 2, ..Limits::default() }, &endpoint).await;
    let (mut first, mut second) = (gate.client().await, gate.client().await);
    assert_eq!(first.get("/").await.status, 200);
    assert_eq!(second.get("/").await.status, 200);
    let mut third = gate.client().await;
    third.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(second.get("/").await.status, 200);
    assert_eq!(endpoint.log.requests().len(), 3);
    drop(first);
    assert_eq!(third.answer(false).await.status, 200);
    assert_eq!(scrape(&gate)["portico_connections_delayed_total"], 1.0);
}

/// Which worker gets a client is the system's choice, so each must be able to take it.
#[tokio::test]
async fn a_limit_smaller_than_the_number_of_workers_keeps_nobody_out() {
    let endpoint = Endpoint::ok().await;
    let limits = Limits { max_connections: 1, ..Limits::default() };
    let gate = Gate::with(Options { limits, workers: 4, ..Options::default() }, to(endpoint.address)).await;
    for _ in 0..20 {
        let answer = gate.ask("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert_eq!(answer.status, 200);
    }
}

/// A gate whose only rule has limits of its own.
async fn gate_of_rule(limits: Limits, endpoint: &Endpoint, tries: Tries) -> Gate {
    let action = trying(forward(vec![(1, upstream("web", &[endpoint.address]))]), tries);
    Gate::with(Options { limits, ..Options::default() }, vec![route(action)]).await
}

#[tokio::test]
async fn the_rule_says_how_long_an_answer_may_take() {
    let endpoint = silent().await;
    let request = Tries { request: Limit::After(SHORT), ..Tries::default() };
    let each = Tries { backend_request: Limit::After(SHORT), ..Tries::default() };
    for (tries, word) in [(request.clone(), "request_timeout"), (each, "backend_timeout")] {
        let gate = gate_of_rule(Limits::default(), &endpoint, tries).await;
        let answer = gate.client().await.get("/").await;
        assert_eq!(answer.status, 504, "{word}");
        assert!(answer.text().contains("The upstream server is timing out"));
        assert_eq!(scrape(&gate)[&format!("portico_faults_total{{reason=\"{word}\"}}")], 1.0);
    }
    // Also while the body is still on its way.
    let gate = gate_of_rule(Limits::default(), &endpoint, request).await;
    let mut client = gate.client().await;
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf").await;
    assert_eq!(client.answer(false).await.status, 504);
}

#[tokio::test]
async fn the_rule_may_be_more_patient_than_we_are() {
    for tries in [
        Tries { request: Limit::Endless, ..Tries::default() },
        Tries { backend_request: Limit::After(SHORT * 100), ..Tries::default() },
    ] {
        let endpoint = Endpoint::scripted(|mut stream, _| async move {
            stream.request().await;
            tokio::time::sleep(SHORT * 3).await;
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            stream.request().await;
            stream.rest().await;
        })
        .await;
        let impatient = Limits { answer_timeout: SHORT, ..Limits::default() };
        let gate = gate_of_rule(impatient.clone(), &endpoint, tries).await;
        let mut client = gate.client().await;
        assert_eq!(client.get("/").await.text(), "ok");
        // What the rule says is about its own requests.
        gate.swap(to(endpoint.address));
        assert_eq!(client.get("/").await.status, 504);
    }
}

#[tokio::test]
async fn the_time_of_the_rule_goes_on_until_the_last_byte() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        stream.rest().await;
    })
    .await;
    for (tries, word) in [
        (Tries { request: Limit::After(SHORT), ..Tries::default() }, "request_timeout"),
        (Tries { backend_request: Limit::After(SHORT), ..Tries::default() }, "backend_timeout"),
        (
            Tries { request: Limit::After(SHORT * 100), backend_request: Limit::After(SHORT), ..Tries::default() },
            "backend_timeout",
        ),
        (
            Tries { request: Limit::After(SHORT), backend_request: Limit::After(SHORT * 100), ..Tries::default() },
            "request_timeout",
        ),
    ] {
        let gate = gate_of_rule(Limits::default(), &endpoint, tries).await;
        let mut client = gate.client().await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.try_answer(false).await, None, "it must not pass for a whole answer");
        assert_eq!(scrape(&gate)[&format!("portico_faults_total{{reason=\"{word}\"}}")], 1.0);
    }
}

#[tokio::test]
async fn the_time_of_the_rule_ends_for_whom_it_never_waits_for() {
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
        for (tries, word) in [
            (Tries { request: Limit::After(SHORT), ..Tries::default() }, "request_timeout"),
            (Tries { backend_request: Limit::After(SHORT), ..Tries::default() }, "backend_timeout"),
        ] {
            let gate = gate_of_rule(Limits::default(), &endless().await, tries).await;
            let reason = format!("portico_faults_total{{reason=\"{word}\"}}");
            let over = || scrape(&gate).get(&reason) == Some(&1.0);
            let mut client = gate.client().await;
            client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            let mut multiplexed = None;
            if reads {
                let mut sink = vec![0; 64 * 1024];
                within("the end", async { while let Ok(1..) = client.socket.read(&mut sink).await {} }).await;
            } else {
                // The end may not be seen by whoever does not read, but it is in the books.
                within("the end of the first", async {
                    while !over() {
                        tokio::task::yield_now().await
                    }
                })
                .await;
                let other = h2::Client::connect(gate.address).await;
                let (answer, _) = other.start(h2::get("/"), true).await;
                multiplexed = Some((other, answer));
            }
            let times = if multiplexed.is_some() { 2.0 } else { 1.0 };
            within("the books", async {
                while scrape(&gate).get(&reason) != Some(&times) {
                    tokio::task::yield_now().await;
                }
            })
            .await;
        }
    }
}

// kong-compat §3.8
#[tokio::test]
async fn an_endpoint_that_falls_silent() {
    let (head, half) = ("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n", "abc");
    // (what the endpoint sends at once, the rest, which comes in time, limits of the rule, whether the answer comes whole)
    let read = |limit| Tries { read: Limit::After(limit).into(), ..Tries::default() };
    let cases = [
        (String::new(), false, read(SHORT), Some(504)),
        (head.to_owned() + half, false, read(SHORT), None),
        // Each sign of life begins it anew.
        (head.to_owned() + half, true, read(SHORT * 50), Some(200)),
        // Writing is no reading.
        (String::new(), true, Tries { write: Limit::After(SHORT).into(), ..Tries::default() }, Some(200)),
    ];
    for (at_once, goes_on, tries, expected) in cases {
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
                stream.rest().await;
            }
        })
        .await;
        // The silence is cut by the rule, which is also more patient than we are.
        let limits = Limits { answer_timeout: if goes_on { SHORT } else { SHORT * 600 }, ..Limits::default() };
        let limits = if tries.read.is_set() { limits } else { Limits::default() };
        let gate = gate_of_rule(limits, &endpoint, tries.clone()).await;
        let mut client = gate.client().await;
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let answer = client.try_answer(false).await;
        assert_eq!(answer.map(|answer| answer.status), expected, "{at_once:?} {tries:?}");
        if expected != Some(200) {
            assert_eq!(scrape(&gate)["portico_faults_total{reason=\"answer_timeout\"}"], 1.0, "{at_once:?}");
        }
    }
}

/// The time of an endpoint is not the client's.
#[tokio::test]
async fn a_client_that_pauses_does_not_cost_the_endpoint_its_time() {
    // More than all buffers on the way hold.
    const LENGTH: usize = 24 << 20;
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.request().await;
        stream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n")).await;
        stream.send(vec![b'x'; LENGTH]).await;
        stream.rest().await;
    })
    .await;
    let tries = Tries { read: Limit::After(SHORT * 20).into(), ..Tries::default() };
    let gate = gate_of_rule(Limits::default(), &endpoint, tries).await;
    let mut client = gate.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    tokio::time::sleep(SHORT * 25).await;
    assert_eq!(client.answer(false).await.body.len(), LENGTH);
}

// kong-compat §3.8
#[tokio::test]
async fn a_rule_says_how_long_connecting_may_take() {
    let (deaf, _queue, _listener) = crate::endpoints::deaf().await;
    let endpoint = Endpoint::ok().await;
    let service = |connect, retries| Tries::of_service(connect, SHORT * 600, SHORT * 600, retries);
    let gate = |addresses: Vec<std::net::SocketAddr>, limits, tries| async move {
        let action = trying(forward(vec![(1, upstream("web", &addresses))]), tries);
        Gate::with(Options { limits, ..Options::default() }, vec![route(action)]).await
    };
    // Shorter than ours, and then the next endpoint is asked.
    for _ in 0..2 {
        let gate = gate(vec![deaf, endpoint.address], Limits::default(), service(SHORT, 5)).await;
        assert_eq!(gate.client().await.get("/").await.text(), "ok");
    }
    let gate_of_none = gate(vec![deaf], Limits::default(), service(SHORT, 1)).await;
    assert_eq!(gate_of_none.client().await.get("/").await.status, 504);
    assert_eq!(scrape(&gate_of_none)["portico_faults_total{reason=\"connect_timeout\"}"], 1.0);
    assert_eq!(scrape(&gate_of_none)["portico_upstream_retries_total"], 1.0);
    // Longer than ours: the queue has room again before the rule gives up.
    let impatient = Limits { connect_timeout: SHORT, answer_timeout: SHORT, ..Limits::default() };
    let (late, mut queue, listener) = crate::endpoints::deaf().await;
    let gate = gate(vec![late], impatient, service(SHORT * 200, 0)).await;
    let mut client = gate.client().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    tokio::time::sleep(SHORT * 3).await;
    listener.set_nonblocking(true).unwrap();
    let accepting =
        Endpoint::listening(tokio::net::TcpListener::from_std(listener.into()).unwrap(), |mut stream, _| async move {
            while stream.request().await.is_some() {
                stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            }
        });
    queue.clear();
    assert_eq!(client.answer(false).await.text(), "ok");
    drop(accepting);
}

// kong-compat §3.8
#[tokio::test]
async fn an_endpoint_that_takes_no_more() {
    const LENGTH: usize = 64 << 20;
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.head().await;
        std::future::pending::<()>().await;
    })
    .await;
    let tries = Tries { write: Limit::After(SHORT).into(), read: Limit::After(SHORT * 600).into(), ..Tries::default() };
    let gate = gate_of_rule(Limits::default(), &endpoint, tries).await;
    let mut client = gate.client().await;
    client.send(format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {LENGTH}\r\n\r\n")).await;
    let (answers, mut requests) = tokio::io::split(client.socket);
    // Ends with an error when nobody reads the rest.
    let sending = tokio::spawn(async move { requests.write_all(&vec![b'x'; LENGTH]).await });
    let mut client = crate::harness::Client::over(tokio::io::join(answers, tokio::io::sink()));
    assert_eq!(client.answer(false).await.status, 504);
    sending.abort();
}

// kong-compat §3.8
#[tokio::test]
async fn a_rule_may_keep_a_tunnel_longer_than_we_do() {
    let handshake = "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        stream.head().await;
        stream.send("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await;
        let said = stream.more().await.unwrap_or_default();
        stream.send(said).await;
    })
    .await;
    let limits = Limits { tunnel_idle: SHORT, ..Limits::default() };
    for (read, stays) in [(Limit::After(SHORT * 600), true), (Limit::Endless, true), (Limit::Unset, false)] {
        let gate = gate_of_rule(limits.clone(), &endpoint, Tries { read: read.into(), ..Tries::default() }).await;
        let mut client = gate.client().await;
        client.send(handshake).await;
        assert_eq!(client.answer(false).await.status, 101);
        if stays {
            // Whether it is still there shows only to who says something.
            tokio::time::sleep(SHORT * 4).await;
            client.send(b"still there").await;
        }
        let said = client.rest().await.unwrap_or_default();
        assert_eq!(said == b"still there", stays, "{read:?}");
    }
}
