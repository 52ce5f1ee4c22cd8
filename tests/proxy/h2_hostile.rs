//! Clients of HTTP/2 that mean no good: floods and frames that break the rules. Each is shed, what it makes us keep is bounded,
//! and others are served meanwhile.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::books::scrape;
use crate::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, PING, PREFACE, PRIORITY, RST_STREAM, Raw,
    SETTINGS, WINDOW_UPDATE, block, field, frame, get,
};
use crate::h2::Client;
use crate::harness::{Endpoint, Gate, to, within};

/// PROTOCOL_ERROR and its like (RFC 9113, section 7).
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const FRAME_SIZE_ERROR: u32 = 6;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Writes the same bytes until the proxy closes, while somebody else is served. Returns how often they were written.
async fn flood(gate: &Gate, beginning: Vec<u8>, mut again: impl FnMut(u32) -> Vec<u8>, most: u32) -> u32 {
    let other = Client::connect(gate.address).await;
    let mut raw = Raw::connect(gate.address).await;
    raw.send(beginning).await;
    let (mut reader, mut writer) = raw.socket.into_split();
    // It is polite enough to read, or else we would stop reading too.
    let reading = tokio::spawn(async move {
        let mut sink = vec![0; 64 * 1024];
        while let Ok(1..) = reader.read(&mut sink).await {}
    });
    let flooding = async {
        for number in 0..most {
            if writer.write_all(&again(number)).await.is_err() {
                return number;
            }
            if number % 50 == 0 {
                assert_eq!(other.get("/").await.status, 200, "others are served meanwhile");
            }
        }
        most
    };
    let written = within("the flood to be shed", flooding).await;
    assert_eq!(other.get("/").await.status, 200);
    drop(writer);
    within("the end of the connection", reading).await.unwrap();
    assert_eq!(gate.proxy.stats().connections(), 1, "only the other one is left");
    written
}

/// More than any allowance and all the buffers of two sockets.
const MOST: u32 = 200_000;

#[tokio::test]
async fn floods_of_frames_that_ask_for_nothing_are_shed() {
    let endpoint = Endpoint::ok().await;
    // A request that waits for its body, so that empty frames have a stream to be on.
    let post = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];
    let open = frame(HEADERS, END_HEADERS, 1, &block(&post));
    let floods: [(&str, Vec<u8>); 6] = [
        ("ping", frame(PING, 0, 0, &[0; 8])),
        ("settings", frame(SETTINGS, 0, 0, &[])),
        ("settings that change", frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0x10, 0])),
        ("priority", frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1])),
        ("empty data", frame(DATA, 0, 1, &[])),
        ("window updates", frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])),
    ];
    for (what, bytes) in floods {
        let gate = Gate::open(to(endpoint.address)).await;
        let written = flood(&gate, open.clone(), |_| bytes.repeat(20), MOST / 20).await;
        assert!(written < MOST / 20, "{what}: all {written} were taken");
        assert_eq!(scrape(&gate).get("portico_faults_total{reason=\"flood\"}"), Some(&1.0), "{what}");
    }
}

#[tokio::test]
async fn rapid_resets_are_shed_and_bounded_at_the_endpoint() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        while stream.request().await.is_some() {
            stream.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let gate = Gate::open(to(endpoint.address)).await;
    let again = |number: u32| [get(number * 2 + 1), frame(RST_STREAM, 0, number * 2 + 1, &[0, 0, 0, 8])].concat();
    let written = flood(&gate, vec![], again, MOST).await;
    assert!(written < MOST);
    let seen = endpoint.log.requests().len();
    // Those of the other connection among them.
    assert!(seen < 2000, "{seen} requests reached the endpoint");
}

#[tokio::test]
async fn a_header_without_end_is_shed() {
    let endpoint = Endpoint::ok().await;
    let gate = Gate::open(to(endpoint.address)).await;
    let beginning = frame(HEADERS, END_STREAM, 1, &block(&GET));
    for part in [field("x", &"y".repeat(1000)), field("x", ""), vec![]] {
        let written = flood(&gate, beginning.clone(), |_| frame(CONTINUATION, 0, 1, &part), MOST).await;
        assert!(written < MOST);
        within("its end to be seen", async {
            while gate.proxy.stats().connections() > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    assert!(endpoint.log.requests().iter().all(|request| !request.contains("\r\nx: ")));
}

#[tokio::test]
async fn header_lists_have_a_limit_however_they_are_packed() {
    let endpoint = Endpoint::ok().await;
    let gate = Gate::open(to(endpoint.address)).await;
    // One field that enters the table, and a byte for each repetition.
    let mut bomb = block(&GET);
    bomb.extend([0x40, 1, b'x', 127, 0xa1, 0x1f]);
    bomb.extend(vec![b'y'; 4000 + 128]);
    bomb.truncate(block(&GET).len() + 6);
    let value = vec![b'y'; 4000];
    bomb.truncate(block(&GET).len());
    bomb.extend([0x40, 1, b'x', 127]);
    // 4000 - 127 = 3873 = 30 * 128 + 33.
    bomb.extend([33 | 128, 30]);
    bomb.extend(&value);
    bomb.extend(vec![0xbe; 10_000]);
    let mut raw = Raw::connect(gate.address).await;
    raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb)).await;
    let answer = raw.until("an answer", |frame| frame.stream == 1 || frame.kind == GOAWAY).await;
    assert!(answer.kind == HEADERS || answer.kind == GOAWAY || answer.kind == RST_STREAM);
    // Many small ones, too.
    let mut raw = Raw::connect(gate.address).await;
    let many = [block(&GET), field("x", "y").repeat(1500)].concat();
    raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &many)).await;
    raw.until("an answer", |frame| frame.stream == 1 && frame.kind == HEADERS).await;
    assert_eq!(endpoint.log.requests(), [""; 0]);
}

#[tokio::test]
async fn no_more_streams_than_allowed_are_open() {
    let endpoint = Endpoint::scripted(|mut stream, _| async move {
        if let Some(head) = stream.head().await {
            stream.note(&head);
            stream.rest().await;
        }
    })
    .await;
    let gate = Gate::open(to(endpoint.address)).await;
    let mut raw = Raw::connect(gate.address).await;
    for number in 0..200 {
        raw.send(get(number * 2 + 1)).await;
    }
    for _ in 128..200 {
        let refused = raw.until("a refusal", |frame| frame.kind == RST_STREAM).await;
        assert_eq!(refused.reason(), REFUSED_STREAM);
        assert!(refused.stream > 255, "those before keep their place");
    }
    endpoint.log.until("what is allowed", |log| log.requests().len() == 128).await;
}

#[tokio::test]
async fn windows_cannot_be_played_with() {
    let endpoint =
        Endpoint::answering(format!("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n{}", "x".repeat(100_000))).await;
    let gate = Gate::open(to(endpoint.address)).await;
    // More than 2^31-1 for a stream resets it, for the connection ends it.
    let mut raw = Raw::with(gate.address, &[0, 4, 0, 0, 0, 1]).await;
    raw.send(get(1)).await;
    raw.send(frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff])).await;
    let reset = raw.until("the end of it", |frame| matches!(frame.kind, RST_STREAM | GOAWAY)).await;
    assert_eq!(reset.reason(), FLOW_CONTROL_ERROR);
    let mut raw = Raw::connect(gate.address).await;
    raw.send(frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])).await;
    assert_eq!(raw.until("the end of it", |frame| frame.kind == GOAWAY).await.reason(), FLOW_CONTROL_ERROR);
    // A window of one byte gets the answer in pieces of one byte, and then it is taken away again.
    let mut raw = Raw::with(gate.address, &[0, 4, 0, 0, 0, 1]).await;
    raw.send(get(1)).await;
    for _ in 0..20 {
        let data = raw.until("a byte", |frame| frame.kind == DATA).await;
        assert_eq!(data.payload.len(), 1);
        raw.send(frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])).await;
    }
    raw.send(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await;
    raw.until("its acknowledgement", |frame| frame.kind == SETTINGS && frame.flags == ACK).await;
    assert_eq!(gate.ask("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.body.len(), 100_000);
}

/// What a broken rule leads to.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The stream is reset.
    Stream(u32),
    /// The connection ends.
    Connection(u32),
    /// An answer to the request.
    Status(u16),
}

#[tokio::test]
async fn broken_rules_end_the_stream_or_the_connection() {
    use End::{Connection, Status, Stream};
    let endpoint = Endpoint::ok().await;
    let gate = Gate::open(to(endpoint.address)).await;
    let head = |fields: &[(&str, &str)]| frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(fields));
    let plus = |fields: &[(&str, &str)]| head(&[&GET[..], fields].concat());
    let upload = |fields: &[(&str, &str)]| {
        let post = [(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "a.example")];
        frame(HEADERS, END_HEADERS, 1, &block(&[&post[..], fields].concat()))
    };
    let cases: Vec<(&str, Vec<u8>, End)> = vec![
        ("in order", get(1), Status(200)),
        ("upper case", plus(&[("X-Upper", "1")]), Connection(PROTOCOL_ERROR)),
        ("connection", plus(&[("connection", "close")]), Stream(PROTOCOL_ERROR)),
        ("keep-alive", plus(&[("keep-alive", "1")]), Stream(PROTOCOL_ERROR)),
        ("proxy-connection", plus(&[("proxy-connection", "1")]), Stream(PROTOCOL_ERROR)),
        ("transfer-encoding", plus(&[("transfer-encoding", "chunked")]), Stream(PROTOCOL_ERROR)),
        ("upgrade", plus(&[("upgrade", "h2c")]), Stream(PROTOCOL_ERROR)),
        ("te", plus(&[("te", "gzip")]), Stream(PROTOCOL_ERROR)),
        ("te: trailers", plus(&[("te", "trailers")]), Status(200)),
        ("line feed in a value", plus(&[("x", "a\nb")]), Connection(PROTOCOL_ERROR)),
        ("NUL in a value", plus(&[("x", "a\0b")]), Connection(PROTOCOL_ERROR)),
        ("space in a name", plus(&[("x y", "1")]), Connection(PROTOCOL_ERROR)),
        ("no name", plus(&[("", "1")]), Connection(PROTOCOL_ERROR)),
        ("unknown pseudo field", plus(&[(":x", "1")]), Connection(PROTOCOL_ERROR)),
        ("status in a request", plus(&[(":status", "200")]), Stream(PROTOCOL_ERROR)),
        ("two paths", plus(&[(":path", "/other")]), Stream(PROTOCOL_ERROR)),
        ("two methods", plus(&[(":method", "POST")]), Stream(PROTOCOL_ERROR)),
        ("pseudo field behind others", head(&[GET[0], GET[1], GET[3], ("x", "1"), GET[2]]), Stream(PROTOCOL_ERROR)),
        ("no method", head(&GET[1..]), Stream(PROTOCOL_ERROR)),
        ("no scheme", head(&[GET[0], GET[2], GET[3]]), Stream(PROTOCOL_ERROR)),
        ("no path", head(&[GET[0], GET[1], GET[3]]), Stream(PROTOCOL_ERROR)),
        ("empty path", head(&[GET[0], GET[1], (":path", ""), GET[3]]), Stream(PROTOCOL_ERROR)),
        ("no authority", head(&GET[..3]), Status(400)),
        ("a host in its place", head(&[&GET[..3], &[("host", "a.example")]].concat()), Status(200)),
        ("two hosts", plus(&[("host", "a.example"), ("host", "a.example")]), Status(400)),
        ("another host", plus(&[("host", "b.example")]), Status(400)),
        ("an authority with a user", head(&[GET[0], GET[1], GET[2], (":authority", "a@b")]), Status(400)),
        ("an authority with a slash", head(&[GET[0], GET[1], GET[2], (":authority", "a/b")]), Stream(PROTOCOL_ERROR)),
        ("a path without a slash", head(&[GET[0], GET[1], (":path", "x"), GET[3]]), Stream(PROTOCOL_ERROR)),
        ("a space in the path", head(&[GET[0], GET[1], (":path", "/a b"), GET[3]]), Stream(PROTOCOL_ERROR)),
        ("an asterisk", head(&[GET[0], GET[1], (":path", "*"), GET[3]]), Status(400)),
        ("another scheme", head(&[GET[0], (":scheme", "ftp"), GET[2], GET[3]]), Status(400)),
        ("a method with a space", head(&[(":method", "GET /"), GET[1], GET[2], GET[3]]), Connection(PROTOCOL_ERROR)),
        ("connect", head(&[(":method", "CONNECT"), (":authority", "a:1")]), Status(405)),
        ("protocol without connect", plus(&[(":protocol", "websocket")]), Stream(PROTOCOL_ERROR)),
        (
            "more than its length",
            [upload(&[("content-length", "1")]), frame(DATA, END_STREAM, 1, b"xy")].concat(),
            Stream(PROTOCOL_ERROR),
        ),
        (
            "less than its length",
            [upload(&[("content-length", "3")]), frame(DATA, END_STREAM, 1, b"xy")].concat(),
            Stream(PROTOCOL_ERROR),
        ),
        ("two lengths", upload(&[("content-length", "1"), ("content-length", "2")]), Stream(PROTOCOL_ERROR)),
        ("no number", upload(&[("content-length", "+1")]), Stream(PROTOCOL_ERROR)),
        (
            // Left out, so that nobody behind us sees it.
            "a pseudo field in trailers",
            [upload(&[]), frame(HEADERS, END_HEADERS | END_STREAM, 1, &field(":path", "/"))].concat(),
            Status(200),
        ),
        ("data behind the end", [get(1), frame(DATA, 0, 1, b"x")].concat(), Connection(PROTOCOL_ERROR)),
        ("stream 0", frame(HEADERS, END_HEADERS | END_STREAM, 0, &block(&GET)), Connection(PROTOCOL_ERROR)),
        ("even stream", frame(HEADERS, END_HEADERS | END_STREAM, 2, &block(&GET)), Connection(PROTOCOL_ERROR)),
        ("older stream", [get(5), get(3)].concat(), Connection(PROTOCOL_ERROR)),
        ("data without a stream", frame(DATA, 0, 1, b"x"), Connection(PROTOCOL_ERROR)),
        ("continuation of nothing", frame(CONTINUATION, END_HEADERS, 1, b""), Connection(PROTOCOL_ERROR)),
        (
            "something between the parts of a head",
            [frame(HEADERS, 0, 1, &block(&GET)), frame(PING, 0, 0, &[0; 8])].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        ("a promise", frame(5, END_HEADERS, 1, &[0, 0, 0, 2]), Connection(PROTOCOL_ERROR)),
        ("a frame too long", frame(DATA, 0, 1, &vec![0; 16_385]), Connection(FRAME_SIZE_ERROR)),
        ("a ping too short", frame(PING, 0, 0, &[0; 7]), Connection(PROTOCOL_ERROR)),
        ("settings of 5 bytes", frame(SETTINGS, 0, 0, &[0; 5]), Connection(PROTOCOL_ERROR)),
        ("a window of 0", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), Connection(PROTOCOL_ERROR)),
        ("a window too large", frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]), Connection(PROTOCOL_ERROR)),
        (
            "an index of no table",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff, 0xff, 0x7f]),
            Connection(PROTOCOL_ERROR),
        ),
        ("padding longer than the frame", frame(DATA, 8, 1, &[200, 0]), Connection(PROTOCOL_ERROR)),
    ];
    let other = Client::connect(gate.address).await;
    let mut wrong = Vec::new();
    for (what, bytes, expected) in cases {
        let mut raw = Raw::connect(gate.address).await;
        raw.send(&bytes).await;
        let ends = |frame: &crate::frames::Frame| {
            matches!(frame.kind, RST_STREAM | GOAWAY) || frame.kind == HEADERS && frame.stream == 1
        };
        let mut got = raw.until(what, ends).await;
        if let (Connection(_), HEADERS) = (&expected, got.kind) {
            // That was in order, and what is wrong comes behind it.
            got = raw.until(what, |frame| frame.kind == GOAWAY).await;
        }
        let found = match got.kind {
            RST_STREAM => Stream(got.reason()),
            GOAWAY => Connection(got.reason()),
            _ => Status(status_of(&got.payload)),
        };
        if found != expected {
            wrong.push(format!("{what}: {found:?} in place of {expected:?}"));
        }
        assert_eq!(other.get("/").await.status, 200, "after {what}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The status at the beginning of a header block: from the static table, or a value that Huffman's code may have shortened.
fn status_of(block: &[u8]) -> u16 {
    match block {
        [0x88, ..] => 200,
        [0x8c, ..] => 400,
        [0x8d, ..] => 404,
        // Huffman's code of 405 and 501, with or without a place in the table.
        [0x48 | 0x08, 0x83, 0x68, 0x0d, ..] => 405,
        other => panic!("an unexpected status in {:x?}", &other[..other.len().min(8)]),
    }
}

/// The library answers or resets them by itself, and says nothing of it.
#[tokio::test]
async fn streams_that_never_become_requests_are_counted() {
    let endpoint = Endpoint::ok().await;
    let gate = Gate::open(to(endpoint.address)).await;
    let head = |stream, more: &[(&str, &str)]| {
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&[&GET[..], more].concat()))
    };
    let large = [block(&GET), field("x", "y").repeat(2000)].concat();
    let cases = [
        ("in order", [get(1), get(3)].concat(), 3, 0),
        (
            "malformed",
            [head(1, &[("connection", "x")]), get(3), head(5, &[("keep-alive", "y")]), get(7)].concat(),
            7,
            2,
        ),
        ("too large", [frame(HEADERS, END_HEADERS | END_STREAM, 1, &large), get(3)].concat(), 3, 1),
    ];
    let mut before = 0.0;
    for (what, bytes, last, expected) in cases {
        let mut raw = Raw::connect(gate.address).await;
        raw.send(bytes).await;
        raw.until(what, |frame| frame.stream == last && frame.kind == HEADERS).await;
        drop(raw);
        within("its end to be seen", async {
            while gate.proxy.stats().connections() > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let metrics = scrape(&gate);
        let count = metrics.get("portico_faults_total{reason=\"refused_stream\"}").copied().unwrap_or_default();
        assert_eq!(count - before, f64::from(expected), "{what}");
        before = count;
    }
}

#[tokio::test]
async fn mistakes_add_up() {
    let endpoint = Endpoint::ok().await;
    let gate = Gate::open(to(endpoint.address)).await;
    let mut raw = Raw::connect(gate.address).await;
    let bad =
        |stream| frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(&[&GET[..], &[("connection", "x")]].concat()));
    for number in 0..1000 {
        raw.send(bad(number * 2 + 1)).await;
    }
    let rest = raw.rest().await;
    let goodbye = rest.iter().find(|frame| frame.kind == GOAWAY);
    // The farewell may be lost to a client that goes on writing.
    assert!(goodbye.is_none_or(|frame| frame.reason() == ENHANCE_YOUR_CALM), "{goodbye:?}");
    assert!(rest.iter().filter(|frame| frame.kind == RST_STREAM).count() <= 200);
    assert_eq!(endpoint.log.requests(), [""; 0]);
}

#[tokio::test]
async fn noise_is_no_reason_to_fail() {
    let endpoint = Endpoint::ok().await;
    let gate = Gate::open(to(endpoint.address)).await;
    let other = Client::connect(gate.address).await;
    fastrand::seed(11);
    for _ in 0..150 {
        let mut raw = Raw::silent(gate.address).await;
        let mut noise = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &get(1), &frame(PING, 0, 0, &[0; 8]), &get(3)].concat();
        for _ in 0..fastrand::usize(1..6) {
            let at = fastrand::usize(..noise.len());
            noise[at] = fastrand::u8(..);
        }
        raw.send(noise).await;
        drop(raw);
        assert_eq!(other.get("/").await.status, 200);
    }
}
