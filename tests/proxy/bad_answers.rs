//! Endpoints whose answers are broken, as a table: none of them reaches a client as if it were whole, and none spoils the
//! answer to another request.

use crate::harness::{Endpoint, Gate, to};

/// What the client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gets {
    /// An answer of ours.
    Fault(u16),
    /// The beginning, and then an end that cannot be taken for that of the answer.
    Cut,
    /// All of it, and this is the body.
    Whole(&'static str),
}
use Gets::{Cut, Fault, Whole};

/// The answer, with `@` for a kilobyte of x. The endpoint closes the connection behind it.
#[rustfmt::skip] // A table.
const CASES: &[(&str, &str, Gets)] = &[
    // No answer at all.
    ("nothing", "", Fault(502)),
    ("half a status line", "HTTP/1.1 20", Fault(502)),
    ("half a head", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", Fault(502)),
    ("another protocol", "SSH-2.0-x\r\n\r\n", Fault(502)),
    ("HTTP/0.9", "<html></html>", Fault(502)),
    ("HTTP/2 in words", "HTTP/2.0 200 OK\r\n\r\n", Fault(502)),
    ("HTTP/2 frames", "\0\0\0\x04\0\0\0\0\0", Fault(502)),
    ("a request", "GET / HTTP/1.1\r\nhost: a\r\n\r\n", Fault(502)),
    ("a status of letters", "HTTP/1.1 abc OK\r\n\r\n", Fault(502)),
    ("a status of two digits", "HTTP/1.1 20 OK\r\n\r\n", Fault(502)),
    ("a status of four digits", "HTTP/1.1 2000 OK\r\n\r\n", Fault(502)),
    ("a status below 100", "HTTP/1.1 099 OK\r\n\r\n", Fault(502)),
    ("a negative status", "HTTP/1.1 -20 OK\r\n\r\n", Fault(502)),
    // Heads.
    ("NUL in a value", "HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 0\r\n\r\n", Fault(502)),
    ("a bare carriage return in a value", "HTTP/1.1 200 OK\r\nx: a\rb\r\ncontent-length: 0\r\n\r\n", Fault(502)),
    ("a folded value", "HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 0\r\n\r\n", Fault(502)),
    ("a space before the colon", "HTTP/1.1 200 OK\r\ncontent-length : 0\r\n\r\n", Fault(502)),
    ("a name with a space", "HTTP/1.1 200 OK\r\nx y: z\r\ncontent-length: 0\r\n\r\n", Fault(502)),
    ("a field without colon", "HTTP/1.1 200 OK\r\nx\r\ncontent-length: 0\r\n\r\n", Fault(502)),
    ("a value too long", "HTTP/1.1 200 OK\r\nx: @@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\r\n\r\n", Fault(502)),
    // Lengths.
    ("two lengths", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok", Fault(502)),
    ("two lengths in one field", "HTTP/1.1 200 OK\r\ncontent-length: 2, 3\r\n\r\nok", Fault(502)),
    ("a length with a plus", "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok", Fault(502)),
    ("a negative length", "HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nok", Fault(502)),
    ("a length in hexadecimal", "HTTP/1.1 200 OK\r\ncontent-length: 0x2\r\n\r\nok", Fault(502)),
    ("a length beyond 64 bits", "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551618\r\n\r\nok", Fault(502)),
    ("a length without digits", "HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\nok", Fault(502)),
    ("less than the length", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok", Cut),
    ("nothing of the length", "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", Cut),
    ("far less than the length", "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n@@@@", Cut),
    ("an error cut short", "HTTP/1.1 500 Oops\r\ncontent-length: 3\r\n\r\nok", Cut),
    ("more than the length", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokevil", Whole("ok")),
    ("another answer behind it", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", Whole("ok")),
    ("an answer without end but that of the connection", "HTTP/1.1 200 OK\r\n\r\nok", Whole("ok")),
    ("a body where none may be", "HTTP/1.1 204 No Content\r\ncontent-length: 4\r\n\r\nevil", Whole("")),
    ("a body of an answer that has none", "HTTP/1.1 304 Not Modified\r\n\r\nevil", Whole("")),
    // Codings.
    ("a coding and a length", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Whole("ok")),
    ("gzip and chunked", "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Fault(502)),
    ("chunked twice", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n", Fault(502)),
    ("chunked and identity", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n", Fault(502)),
    ("a coding nobody knows", "HTTP/1.1 200 OK\r\ntransfer-encoding: x\r\n\r\nok", Fault(502)),
    ("chunks in HTTP/1.0", "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Fault(502)),
    ("no last chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n", Cut),
    ("half a chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nok", Cut),
    ("no chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", Cut),
    ("half of the end", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", Cut),
    ("a chunk longer than its size", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n", Cut),
    ("a size of letters", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\nok\r\n0\r\n\r\n", Cut),
    ("a negative size", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n", Cut),
    ("a size beyond 64 bits", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n10000000000000002\r\nok\r\n0\r\n\r\n", Cut),
    ("extensions without end", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\r\nok\r\n0\r\n\r\n", Cut),
    ("a trailer that is none", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx y: z\r\n\r\n", Cut),
    ("a trailer too long", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: @@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\r\n\r\n", Cut),
    // Before the answer.
    ("nothing but a hint", "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n", Fault(502)),
    ("nothing but continue", "HTTP/1.1 100 Continue\r\n\r\n", Fault(502)),
    ("a switch nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nok", Fault(502)),
    ("an answer behind a broken hint", "HTTP/1.1 103 Early Hints\r\nx y: z\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Fault(502)),
];

#[tokio::test]
async fn no_broken_answer_passes_as_whole() {
    let mut failures = Vec::new();
    for &(name, answer, gets) in CASES {
        let bytes = answer.replace('@', &"x".repeat(1024));
        let endpoint = Endpoint::scripted(move |mut stream, _| {
            let bytes = bytes.clone();
            async move {
                let Some(request) = stream.request().await else { return };
                if request.starts_with("GET /good ") {
                    stream.send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood").await;
                } else {
                    stream.send(bytes).await;
                }
            }
        })
        .await;
        let gate = Gate::open(to(endpoint.address)).await;
        let mut client = gate.client().await;
        client.send("POST /bad HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
        let got = client.try_answer(false).await;
        let is_right = match (&got, gets) {
            (None, Cut) => true,
            (Some(got), Fault(status)) => got.status == status && got.header("content-type").is_some(),
            (Some(got), Whole(body)) => got.status != 502 && got.text() == body,
            _ => false,
        };
        if !is_right {
            failures.push(format!("{name}: expected {gets:?}, got {got:?}"));
        }
        if gets == Cut {
            // Before chunks there was no other end of a body than that of the connection, so that must not be an orderly
            // one.
            let mut old = gate.client().await;
            old.send("POST /bad HTTP/1.0\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
            let end = old.rest().await;
            let says_its_length = end.as_ref().is_ok_and(|read| {
                let head = String::from_utf8_lossy(read).to_ascii_lowercase();
                head.contains("content-length")
            });
            if end.is_ok() && !says_its_length {
                failures.push(format!("{name}: a client of HTTP/1.0 takes it for whole: {end:?}"));
            }
        }
        // On the same connection, if it is still there, and on another.
        let mut other = gate.client().await;
        if other.get("/good").await.text() != "good" {
            failures.push(format!("{name}: spoils another answer"));
        }
        if got.is_some() && gets != Cut && client.get("/good").await.text() != "good" {
            failures.push(format!("{name}: spoils the next answer"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
