//! Hostile HTTP/2 clients: floods and protocol violations. The connection is closed, its memory is bounded, and other
//! clients are served meanwhile.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::accounting::scrape;
use crate::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, PADDED, PING, PREFACE, PRIORITY,
    RST_STREAM, RawConnection, SETTINGS, WINDOW_UPDATE, frame, get_request, header_block, header_field,
    initial_window_size,
};
use crate::h2::Http2Client;
use crate::h2_rejected_heads::status_of;
use crate::harness::{Endpoint, TestServer, routes_to, with_timeout};

/// Error codes (RFC 9113, section 7).
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Writes frames until the proxy closes the connection, while another client is served. Returns the number of writes
/// that succeeded: `max_writes` if the connection stayed open.
async fn flood(
    server: &TestServer,
    first_frames: Vec<u8>,
    mut next_frames: impl FnMut(u32) -> Vec<u8>,
    max_writes: u32,
) -> u32 {
    let other = Http2Client::connect(server.address).await;
    let mut raw = RawConnection::connect(server.address).await;
    raw.send(first_frames).await;
    let (mut reader, mut writer) = raw.socket.into_split();
    // The client must read, because the proxy stops reading when it cannot write.
    let reading = tokio::spawn(async move {
        let mut sink = vec![0; 64 * 1024];
        while let Ok(1..) = reader.read(&mut sink).await {}
    });
    let flooding = async {
        for number in 0..max_writes {
            if writer.write_all(&next_frames(number)).await.is_err() {
                return number;
            }
            if number % 50 == 0 {
                assert_eq!(other.get("/").await.status, 200, "another client must be served");
            }
        }
        max_writes
    };
    let written = with_timeout("the proxy to close the connection", flooding).await;
    assert_eq!(other.get("/").await.status, 200);
    drop(writer);
    with_timeout("the end of the connection", reading).await.unwrap();
    assert_eq!(server.proxy.stats().connections(), 1, "only the other connection is left");
    written
}

/// More writes than the frame budgets allow and the socket buffers take.
const MAX_WRITES: u32 = 200_000;

const FRAMES_PER_WRITE: u32 = 20;

#[tokio::test]
async fn frame_floods_close_the_connection() {
    let endpoint = Endpoint::ok().await;
    // A request with an unfinished body, so that empty frames have a stream.
    let post = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];
    let open = frame(HEADERS, END_HEADERS, 1, &header_block(&post));
    let floods: [(&str, Vec<u8>); 6] = [
        ("ping", frame(PING, 0, 0, &[0; 8])),
        ("settings", frame(SETTINGS, 0, 0, &[])),
        ("settings that change", frame(SETTINGS, 0, 0, &initial_window_size(4096))),
        ("priority", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])),
        ("empty data", frame(DATA, 0, 1, &[])),
        ("window updates", frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])),
    ];
    for (what, bytes) in floods {
        let server = TestServer::with_routes(routes_to(endpoint.address)).await;
        let written =
            flood(&server, open.clone(), |_| bytes.repeat(FRAMES_PER_WRITE as usize), MAX_WRITES / FRAMES_PER_WRITE)
                .await;
        assert!(written < MAX_WRITES / FRAMES_PER_WRITE, "{what}: all {written} writes were accepted");
        assert_eq!(scrape(&server).get("portico_request_errors_total{reason=\"http2_flood\"}"), Some(&1.0), "{what}");
    }
}

#[tokio::test]
async fn rapid_resets_are_limited_at_the_endpoint() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        while stream.request().await.is_some() {
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let request_and_reset =
        |number: u32| [get_request(number * 2 + 1), frame(RST_STREAM, 0, number * 2 + 1, &[0, 0, 0, 8])].concat();
    let written = flood(&server, vec![], request_and_reset, MAX_WRITES).await;
    assert!(written < MAX_WRITES);
    let request_count = endpoint.log.requests().len();
    // Includes the requests of the other connection.
    assert!(request_count < 2000, "{request_count} requests reached the endpoint");
}

#[tokio::test]
async fn endless_header_block_closes_the_connection() {
    let endpoint = Endpoint::ok().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let unfinished_head = frame(HEADERS, END_STREAM, 1, &header_block(&GET));
    for fragment in [header_field("x", &"y".repeat(1000)), header_field("x", ""), vec![]] {
        let written =
            flood(&server, unfinished_head.clone(), |_| frame(CONTINUATION, 0, 1, &fragment), MAX_WRITES).await;
        assert!(written < MAX_WRITES);
        with_timeout("the end of the connection", async {
            while server.proxy.stats().connections() > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    assert!(endpoint.log.requests().iter().all(|request| !request.contains("\r\nx: ")));
}

#[tokio::test]
async fn decoded_header_lists_are_limited() {
    let endpoint = Endpoint::ok().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    // HPACK bomb: one field of 4000 bytes enters the dynamic table, and each repetition of the field is one byte.
    let mut bomb = header_block(&GET);
    bomb.extend([0x40, 1, b'x', 127]);
    // The rest of the length: 4000 - 127 = 3873 = 30 * 128 + 33.
    bomb.extend([33 | 128, 30]);
    bomb.extend(vec![b'y'; 4000]);
    bomb.extend(vec![0xbe; 10_000]);
    let mut raw = RawConnection::connect(server.address).await;
    raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb)).await;
    let response = raw.wait_for("a response", |frame| frame.stream == 1 || frame.kind == GOAWAY).await;
    assert!(response.kind == HEADERS || response.kind == GOAWAY || response.kind == RST_STREAM);
    // The same with many small fields.
    let mut raw = RawConnection::connect(server.address).await;
    let many = [header_block(&GET), header_field("x", "y").repeat(1500)].concat();
    raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &many)).await;
    raw.wait_for("a response", |frame| frame.stream == 1 && frame.kind == HEADERS).await;
    assert_eq!(endpoint.log.requests(), [""; 0]);
}

#[tokio::test]
async fn concurrent_streams_are_limited() {
    const MAX_STREAMS: u32 = 128;
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        if let Some(head) = stream.head().await {
            stream.record(&head);
            stream.read_to_end().await;
        }
    })
    .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut raw = RawConnection::connect(server.address).await;
    for index in 0..200 {
        raw.send(get_request(index * 2 + 1)).await;
    }
    for _ in MAX_STREAMS..200 {
        let refused = raw.wait_for("a refusal", |frame| frame.kind == RST_STREAM).await;
        assert_eq!(refused.error_code(), REFUSED_STREAM);
        assert!(refused.stream > MAX_STREAMS * 2 - 1, "a stream within the limit was refused");
    }
    endpoint.log.wait_for("the allowed requests", |log| log.requests().len() == MAX_STREAMS as usize).await;
}

#[tokio::test]
async fn invalid_windows_are_errors_and_tiny_windows_work() {
    let endpoint =
        Endpoint::responding_with(format!("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n{}", "x".repeat(100_000)))
            .await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    // A window beyond 2^31-1 resets the stream, or closes the connection.
    let mut raw = RawConnection::connect_with_settings(server.address, &initial_window_size(1)).await;
    raw.send(get_request(1)).await;
    // The response may use up the first update, but not both: the window of the connection stops it before.
    for _ in 0..2 {
        raw.send(frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff])).await;
    }
    let reset = raw.wait_for("the error", |frame| matches!(frame.kind, RST_STREAM | GOAWAY)).await;
    assert_eq!(reset.error_code(), FLOW_CONTROL_ERROR);
    let mut raw = RawConnection::connect(server.address).await;
    raw.send(frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])).await;
    assert_eq!(raw.wait_for("the error", |frame| frame.kind == GOAWAY).await.error_code(), FLOW_CONTROL_ERROR);
    // With a window of one byte the response comes in pieces of one byte; then the window is closed again.
    let mut raw = RawConnection::connect_with_settings(server.address, &initial_window_size(1)).await;
    raw.send(get_request(1)).await;
    for _ in 0..20 {
        let data = raw.wait_for("a byte", |frame| frame.kind == DATA).await;
        assert_eq!(data.payload.len(), 1);
        raw.send(frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])).await;
    }
    raw.send(frame(SETTINGS, 0, 0, &initial_window_size(0))).await;
    raw.wait_for("the SETTINGS acknowledgment", |frame| frame.kind == SETTINGS && frame.flags == ACK).await;
    assert_eq!(server.request("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.body.len(), 100_000);
}

/// The result of a protocol violation.
#[derive(Debug, PartialEq, Eq)]
enum ViolationResult {
    /// The stream is reset.
    Stream(u32),
    /// The connection ends.
    Connection(u32),
    /// A response with this status.
    Status(u16),
}

#[tokio::test]
async fn violations_end_the_stream_or_the_connection() {
    use ViolationResult::{Connection, Status, Stream};
    let endpoint = Endpoint::ok().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let headers_frame = |fields: &[(&str, &str)]| frame(HEADERS, END_HEADERS | END_STREAM, 1, &header_block(fields));
    let get_with = |fields: &[(&str, &str)]| headers_frame(&[&GET[..], fields].concat());
    let upload = |fields: &[(&str, &str)]| {
        let post = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];
        frame(HEADERS, END_HEADERS, 1, &header_block(&[&post[..], fields].concat()))
    };
    let upload_to = |path| {
        let post = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "a.example")];
        frame(HEADERS, END_HEADERS, 1, &header_block(&post))
    };
    let tunnel = |fields: &[(&str, &str)]| {
        let connect = [(":method", "CONNECT"), (":protocol", "websocket")];
        frame(HEADERS, END_HEADERS, 1, &header_block(&[&connect[..], &GET[1..], fields].concat()))
    };
    // The length of a value with which the frame of a request has 16 KiB.
    const FULL: usize = 16 * 1024 - 65;
    let connect_to =
        |protocol| headers_frame(&[&[(":method", "CONNECT"), (":protocol", protocol)][..], &GET[1..]].concat());
    let cases: Vec<(&str, Vec<u8>, ViolationResult)> = vec![
        ("valid", get_request(1), Status(200)),
        ("upper case", get_with(&[("X-Upper", "1")]), Connection(PROTOCOL_ERROR)),
        ("connection", get_with(&[("connection", "close")]), Stream(PROTOCOL_ERROR)),
        ("keep-alive", get_with(&[("keep-alive", "1")]), Stream(PROTOCOL_ERROR)),
        ("proxy-connection", get_with(&[("proxy-connection", "1")]), Stream(PROTOCOL_ERROR)),
        ("transfer-encoding", get_with(&[("transfer-encoding", "chunked")]), Stream(PROTOCOL_ERROR)),
        ("upgrade", get_with(&[("upgrade", "h2c")]), Stream(PROTOCOL_ERROR)),
        ("te", get_with(&[("te", "gzip")]), Stream(PROTOCOL_ERROR)),
        ("te: trailers", get_with(&[("te", "trailers")]), Status(200)),
        ("line feed in a value", get_with(&[("x", "a\nb")]), Connection(PROTOCOL_ERROR)),
        ("NUL in a value", get_with(&[("x", "a\0b")]), Connection(PROTOCOL_ERROR)),
        ("space in a name", get_with(&[("x y", "1")]), Connection(PROTOCOL_ERROR)),
        ("no name", get_with(&[("", "1")]), Connection(PROTOCOL_ERROR)),
        ("unknown pseudo field", get_with(&[(":x", "1")]), Connection(PROTOCOL_ERROR)),
        ("status in a request", get_with(&[(":status", "200")]), Stream(PROTOCOL_ERROR)),
        ("two paths", get_with(&[(":path", "/other")]), Stream(PROTOCOL_ERROR)),
        ("two methods", get_with(&[(":method", "POST")]), Stream(PROTOCOL_ERROR)),
        (
            "pseudo field after others",
            headers_frame(&[GET[0], GET[1], GET[3], ("x", "1"), GET[2]]),
            Stream(PROTOCOL_ERROR),
        ),
        (
            // The path announces nine bytes. A field that is added after these five would be a fragment of it.
            "a block that ends within the path",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x82\x86\x41\x09a.example\x04\x89\x60\x7f\xf5\x1f\x40"),
            Connection(PROTOCOL_ERROR),
        ),
        ("no method", headers_frame(&GET[1..]), Stream(PROTOCOL_ERROR)),
        ("no scheme", headers_frame(&[GET[0], GET[2], GET[3]]), Stream(PROTOCOL_ERROR)),
        ("no path", headers_frame(&[GET[0], GET[1], GET[3]]), Stream(PROTOCOL_ERROR)),
        ("empty path", headers_frame(&[GET[0], GET[1], (":path", ""), GET[3]]), Stream(PROTOCOL_ERROR)),
        ("no authority", headers_frame(&GET[..3]), Status(400)),
        ("Host in place of the authority", headers_frame(&[&GET[..3], &[("host", "a.example")]].concat()), Status(200)),
        ("two hosts", get_with(&[("host", "a.example"), ("host", "a.example")]), Status(400)),
        ("another host", get_with(&[("host", "b.example")]), Status(400)),
        ("an authority with a user", headers_frame(&[GET[0], GET[1], GET[2], (":authority", "a@b")]), Status(400)),
        (
            "an authority with a slash",
            headers_frame(&[GET[0], GET[1], GET[2], (":authority", "a/b")]),
            Stream(PROTOCOL_ERROR),
        ),
        ("a path without a slash", headers_frame(&[GET[0], GET[1], (":path", "x"), GET[3]]), Stream(PROTOCOL_ERROR)),
        ("a space in the path", headers_frame(&[GET[0], GET[1], (":path", "/a b"), GET[3]]), Stream(PROTOCOL_ERROR)),
        ("an asterisk", headers_frame(&[GET[0], GET[1], (":path", "*"), GET[3]]), Status(400)),
        ("another scheme", headers_frame(&[GET[0], (":scheme", "ftp"), GET[2], GET[3]]), Status(400)),
        (
            "a method with a space",
            headers_frame(&[(":method", "GET /"), GET[1], GET[2], GET[3]]),
            Connection(PROTOCOL_ERROR),
        ),
        ("connect", headers_frame(&[(":method", "CONNECT"), (":authority", "a:1")]), Status(405)),
        ("protocol without connect", get_with(&[(":protocol", "websocket")]), Stream(PROTOCOL_ERROR)),
        ("another protocol without connect", get_with(&[(":protocol", "connect-udp")]), Stream(PROTOCOL_ERROR)),
        ("another protocol", connect_to("connect-udp"), Status(501)),
        ("an empty protocol", connect_to(""), Status(501)),
        ("a protocol that HTTP/1.1 has", connect_to("h2c"), Status(501)),
        ("a list of protocols", connect_to("websocket, h2c"), Status(501)),
        (
            "a body longer than its length",
            [upload(&[("content-length", "1")]), frame(DATA, END_STREAM, 1, b"xy")].concat(),
            Stream(PROTOCOL_ERROR),
        ),
        (
            "a body shorter than its length",
            [upload(&[("content-length", "3")]), frame(DATA, END_STREAM, 1, b"xy")].concat(),
            Stream(PROTOCOL_ERROR),
        ),
        ("two lengths", upload(&[("content-length", "1"), ("content-length", "2")]), Stream(PROTOCOL_ERROR)),
        ("an invalid length", upload(&[("content-length", "+1")]), Stream(PROTOCOL_ERROR)),
        (
            "a pseudo field in trailers",
            [upload(&[]), frame(HEADERS, END_HEADERS | END_STREAM, 1, &header_field(":path", "/"))].concat(),
            Stream(PROTOCOL_ERROR),
        ),
        ("data after END_STREAM", [get_request(1), frame(DATA, 0, 1, b"x")].concat(), Connection(PROTOCOL_ERROR)),
        ("stream 0", frame(HEADERS, END_HEADERS | END_STREAM, 0, &header_block(&GET)), Connection(PROTOCOL_ERROR)),
        ("even stream", frame(HEADERS, END_HEADERS | END_STREAM, 2, &header_block(&GET)), Connection(PROTOCOL_ERROR)),
        // RFC 9113, section 5.1.1: a stream that was skipped is closed.
        ("a skipped stream", [get_request(5), get_request(3)].concat(), Connection(PROTOCOL_ERROR)),
        ("an even stream before the newest", [get_request(5), get_request(2)].concat(), Connection(PROTOCOL_ERROR)),
        (
            "pseudo fields in the trailers of an older stream",
            [upload(&[]), get_request(3), frame(HEADERS, END_HEADERS | END_STREAM, 1, &header_field(":path", "/"))]
                .concat(),
            Stream(PROTOCOL_ERROR),
        ),
        // RFC 9113, section 5.1: the state of the stream decides, and not what the fields are.
        (
            "a head after a head that ended the stream",
            [get_request(1), get_request(1)].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "a head after data that ended the stream",
            [upload(&[]), frame(DATA, END_STREAM, 1, b"x"), get_request(1)].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "a head after trailers that ended the stream",
            [upload(&[]), frame(HEADERS, END_HEADERS | END_STREAM, 1, &header_field("x", "y")), get_request(1)]
                .concat(),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "a head after a reset",
            [upload(&[]), frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), get_request(1)].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        ("a fragment", headers_frame(&[GET[0], GET[1], (":path", "/a#b"), GET[3]]), Status(400)),
        (
            "a fragment and a Host",
            headers_frame(&[GET[0], GET[1], (":path", "/a#b"), GET[3], ("host", "a.example")]),
            Status(400),
        ),
        ("a fragment with a body", upload_to("/#"), Status(400)),
        (
            "a fragment in a frame that is full",
            headers_frame(&[GET[0], GET[1], (":path", "/#"), GET[3], ("x", &"a".repeat(FULL))]),
            Status(400),
        ),
        (
            "a fragment in a malformed head",
            headers_frame(&[GET[0], GET[1], ("x", "1"), (":path", "/#"), GET[3]]),
            Stream(PROTOCOL_ERROR),
        ),
        (
            "a fragment in a malformed head with padding",
            frame(
                HEADERS,
                END_HEADERS | END_STREAM | PADDED,
                1,
                &[&[3][..], &header_block(&[GET[0], ("x", "1"), (":path", "/#")]), &[0; 3]].concat(),
            ),
            Stream(PROTOCOL_ERROR),
        ),
        (
            "a fragment in a head of two frames that is malformed in the second",
            [
                frame(HEADERS, END_STREAM, 1, &header_block(&[GET[0], GET[1], ("x", "1")])),
                frame(CONTINUATION, END_HEADERS, 1, &header_block(&[(":path", "/#")])),
            ]
            .concat(),
            Stream(PROTOCOL_ERROR),
        ),
        ("CONNECT with a length", tunnel(&[("content-length", "1")]), Stream(PROTOCOL_ERROR)),
        ("CONNECT with a length of zeros", tunnel(&[("content-length", "00")]), Stream(PROTOCOL_ERROR)),
        ("data without a stream", frame(DATA, 0, 1, b"x"), Connection(PROTOCOL_ERROR)),
        ("continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, b""), Connection(PROTOCOL_ERROR)),
        (
            "a frame between the parts of a header block",
            [frame(HEADERS, 0, 1, &header_block(&GET)), frame(PING, 0, 0, &[0; 8])].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        ("a PUSH_PROMISE", frame(5, END_HEADERS, 1, &[0, 0, 0, 2]), Connection(PROTOCOL_ERROR)),
        ("a frame too long", frame(DATA, 0, 1, &vec![0; 16_385]), Connection(FRAME_SIZE_ERROR)),
        (
            "trailers that fill a frame",
            [upload(&[]), frame(HEADERS, END_HEADERS | END_STREAM, 1, &header_block(&[("x", &"a".repeat(16_378))]))]
                .concat(),
            Status(200),
        ),
        ("a ping too short", frame(PING, 0, 0, &[0; 7]), Connection(PROTOCOL_ERROR)),
        ("settings of 5 bytes", frame(SETTINGS, 0, 0, &[0; 5]), Connection(PROTOCOL_ERROR)),
        ("a window of 0", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), Connection(PROTOCOL_ERROR)),
        ("a window too large", frame(SETTINGS, 0, 0, &initial_window_size(u32::MAX)), Connection(PROTOCOL_ERROR)),
        (
            "an index beyond the tables",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff, 0xff, 0x7f]),
            Connection(PROTOCOL_ERROR),
        ),
        ("padding longer than the frame", frame(DATA, 8, 1, &[200, 0]), Connection(PROTOCOL_ERROR)),
    ];
    let other = Http2Client::connect(server.address).await;
    let mut failures = Vec::new();
    for (what, bytes, expected) in cases {
        let mut raw = RawConnection::connect(server.address).await;
        raw.send(&bytes).await;
        let is_result = |frame: &crate::frames::Frame| {
            matches!(frame.kind, RST_STREAM | GOAWAY) || frame.kind == HEADERS && frame.stream == 1
        };
        let mut last_frame = raw.wait_for(what, is_result).await;
        if let (Connection(_), HEADERS) = (&expected, last_frame.kind) {
            // The response to a valid request; the violation follows that request.
            last_frame = raw.wait_for(what, |frame| frame.kind == GOAWAY).await;
        }
        let result = match last_frame.kind {
            RST_STREAM => Stream(last_frame.error_code()),
            GOAWAY => Connection(last_frame.error_code()),
            _ => Status(status_of(&last_frame.payload)),
        };
        if result != expected {
            failures.push(format!("{what}: {result:?} instead of {expected:?}"));
        }
        assert_eq!(other.get("/").await.status, 200, "after {what}");
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

/// The connection ended without GOAWAY, and with it all its requests.
#[tokio::test]
async fn tunnel_with_a_length_does_not_end_other_requests() {
    let endpoint = Endpoint::ok().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut raw = RawConnection::connect(server.address).await;
    let connect = [&[(":method", "CONNECT"), (":protocol", "websocket")][..], &GET[1..], &[("content-length", "5")]];
    let post = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];
    raw.send(frame(HEADERS, END_HEADERS, 1, &header_block(&post))).await;
    raw.send(frame(HEADERS, END_HEADERS, 3, &header_block(&connect.concat()))).await;
    let reset = raw.wait_for("a reset", |frame| matches!(frame.kind, RST_STREAM | GOAWAY)).await;
    assert_eq!((reset.kind, reset.stream, reset.error_code()), (RST_STREAM, 3, PROTOCOL_ERROR));
    raw.send(frame(DATA, END_STREAM, 1, b"x")).await;
    let head = raw.wait_for("the response", |frame| frame.stream == 1 && frame.kind == HEADERS).await;
    assert_eq!(status_of(&head.payload), 200);
}

/// The h2 library responds to these requests, or resets their streams, without an event to Portico.
#[tokio::test]
async fn rejected_streams_are_counted() {
    let endpoint = Endpoint::ok().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let headers_frame = |stream, extra_fields: &[(&str, &str)]| {
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &header_block(&[&GET[..], extra_fields].concat()))
    };
    let large = [header_block(&GET), header_field("x", "y").repeat(2000)].concat();
    let cases = [
        ("valid", [get_request(1), get_request(3)].concat(), 3, 0),
        (
            "malformed",
            [
                headers_frame(1, &[("connection", "x")]),
                get_request(3),
                headers_frame(5, &[("keep-alive", "y")]),
                get_request(7),
            ]
            .concat(),
            7,
            2,
        ),
        ("too large", [frame(HEADERS, END_HEADERS | END_STREAM, 1, &large), get_request(3)].concat(), 3, 1),
    ];
    let mut count_before = 0.0;
    for (what, bytes, last_stream, expected) in cases {
        let mut raw = RawConnection::connect(server.address).await;
        raw.send(bytes).await;
        raw.wait_for(what, |frame| frame.stream == last_stream && frame.kind == HEADERS).await;
        drop(raw);
        with_timeout("the end of the connection", async {
            while server.proxy.stats().connections() > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let metrics = scrape(&server);
        let count = metrics.get("portico_request_errors_total{reason=\"refused_stream\"}").copied().unwrap_or_default();
        assert_eq!(count - count_before, f64::from(expected), "{what}");
        count_before = count;
    }
}

#[tokio::test]
async fn accumulated_violations_close_the_connection() {
    let endpoint = Endpoint::ok().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let mut raw = RawConnection::connect(server.address).await;
    let invalid_request = |stream| {
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &header_block(&[&GET[..], &[("connection", "x")]].concat()))
    };
    for number in 0..1000 {
        raw.send(invalid_request(number * 2 + 1)).await;
    }
    let frames = raw.read_to_end().await;
    let goaway = frames.iter().find(|frame| frame.kind == GOAWAY);
    // The GOAWAY may be lost when the client continues to write.
    assert!(goaway.is_none_or(|frame| frame.error_code() == ENHANCE_YOUR_CALM), "{goaway:?}");
    assert!(frames.iter().filter(|frame| frame.kind == RST_STREAM).count() <= 200);
    assert_eq!(endpoint.log.requests(), [""; 0]);
}

#[tokio::test]
async fn random_bytes_do_not_affect_other_clients() {
    let endpoint = Endpoint::ok().await;
    let server = TestServer::with_routes(routes_to(endpoint.address)).await;
    let other = Http2Client::connect(server.address).await;
    fastrand::seed(11);
    for _ in 0..150 {
        let mut raw = RawConnection::connect_without_preface(server.address).await;
        let mut noise =
            [PREFACE, &frame(SETTINGS, 0, 0, &[]), &get_request(1), &frame(PING, 0, 0, &[0; 8]), &get_request(3)]
                .concat();
        for _ in 0..fastrand::usize(1..6) {
            let position = fastrand::usize(..noise.len());
            noise[position] = fastrand::u8(..);
        }
        raw.send(noise).await;
        drop(raw);
        assert_eq!(other.get("/").await.status, 200);
    }
}
