//! What is no request: who sent it is told so in the form of every other fault, and it is in the books.

use portico::proxy::Limits;
use portico::proxy::access_log::Destination;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::books::{records, scrape};
use crate::harness::{Answer, Client, Endpoint, Gate, Options, PATIENCE, header, to, within};
use crate::secure::{Caller, Secure, certificate, open};

/// What is sent; what it is answered, its `fault`, and what the log knows: method, path, host and user agent.
struct Case {
    bytes: String,
    status: u16,
    fault: &'static str,
    known: [&'static str; 4],
}

fn case(bytes: impl Into<String>, status: u16, fault: &'static str, known: [&'static str; 4]) -> Case {
    Case { bytes: bytes.into(), status, fault, known }
}

fn cases() -> Vec<Case> {
    let agent = "user-agent: me\r\n";
    vec![
        case("nonsense\r\n\r\n", 400, "unreadable", ["-", "-", "-", "-"]),
        case("\x16\x03\x01\x02", 400, "unreadable", ["-", "-", "-", "-"]),
        case(
            format!("GET /x HTTP/1.1\r\nhost: a\r\n{agent}x y: z\r\n\r\n"),
            400,
            "unreadable",
            ["GET", "/x", "a", "me"],
        ),
        case("GET /x HTTP/3.0\r\nhost: a\r\n\r\n", 400, "unreadable", ["GET", "/x", "a", "-"]),
        case("HEAD /x HTTP/1.1\r\nhost : a\r\n\r\n", 400, "unreadable", ["HEAD", "/x", "-", "-"]),
        case(
            format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(66_000)),
            414,
            "target_too_long",
            ["GET", "-", "a", "-"],
        ),
        case(
            format!("GET /x HTTP/1.1\r\nhost: a\r\nx: {}", "y".repeat(300_000)),
            431,
            "header_too_large",
            ["GET", "/x", "a", "-"],
        ),
        case(
            format!("GET /x HTTP/1.1\r\n{agent}{}\r\n", "x: y\r\n".repeat(101)),
            431,
            "too_many_fields",
            ["GET", "/x", "-", "me"],
        ),
        // HTTP/2 has to be spoken from the first byte on.
        case("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "unreadable", ["PRI", "*", "-", "-"]),
    ]
}

/// Sends it behind a request that is in order, or as the first thing.
async fn play<S: AsyncRead + AsyncWrite + Unpin>(mut client: Client<S>, case: &Case, first: bool) -> Answer {
    if !first {
        client.send("POST / HTTP/1.1\r\nhost: a.example\r\ncontent-length: 2\r\n\r\nhi").await;
    }
    // Whoever is refused may find the door shut while still talking.
    drop(client.socket.write_all(case.bytes.as_bytes()).await);
    if !first {
        assert_eq!(client.answer(false).await.status, 200);
    }
    let answer = client.answer(case.bytes.starts_with("HEAD")).await;
    assert_eq!(client.rest().await.unwrap_or_default(), b"", "{:.60?}", case.bytes);
    answer
}

#[tokio::test]
async fn who_cannot_be_understood_is_told_so_like_everybody_else() {
    let folder = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::ok().await;
    let limits = || Limits { max_head: 128 * 1024, ..Limits::default() };
    for (secure, first) in [(false, true), (false, false), (true, true), (true, false)] {
        let path = folder.path().join(format!("{secure}{first}"));
        let options = Options { limits: limits(), log: Destination::File(path.clone()), ..Options::default() };
        let gate = if secure {
            let certificates = vec![certificate(&["a.example"])];
            open(options, vec![Secure { hostname: "", certificates, routes: to(endpoint.address) }]).await
        } else {
            Gate::with(options, to(endpoint.address)).await
        };
        let mut expected = Vec::new();
        for case in cases() {
            if first && case.bytes.starts_with("PRI") {
                continue;
            }
            let answer = if secure {
                play(Caller::new().connect(&gate, "a.example").await.unwrap(), &case, first).await
            } else {
                play(gate.client().await, &case, first).await
            };
            let what = format!("{secure} {first} {:.60?}", case.bytes);
            assert_eq!(answer.status, case.status, "{what}");
            let id = answer.header("x-request-id").expect("a request id").to_owned();
            assert_eq!(answer.header("connection"), Some("close"), "{what}");
            assert!(answer.header("date").is_some_and(|date| date.ends_with(" GMT")), "{what}");
            assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"), "{what}");
            if case.known[0] == "HEAD" {
                assert_ne!(answer.header("content-length"), Some("0"), "{what}");
            } else {
                let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
                assert_eq!(body["request_id"], id, "{what}");
                assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{what}");
            }
            let mut line = vec![id, case.status.to_string(), case.fault.to_owned(), "127.0.0.1".to_owned()];
            line.extend(case.known.map(str::to_owned));
            line.extend([answer.body.len().to_string(), (if secure { "TLSv1.3" } else { "-" }).to_owned()]);
            expected.push(line);
        }
        assert_eq!(gate.proxy.drain(PATIENCE).await, 0);
        gate.log.finish();
        let field = |record: &serde_json::Value, name: &str| match &record[name] {
            serde_json::Value::Null => "-".to_owned(),
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let names = ["request_id", "status", "fault", "client", "method", "path", "host", "user_agent", "bytes_out"];
        let logged: Vec<Vec<String>> = records(&path)
            .iter()
            .filter(|record| record["status"] != 200)
            .map(|record| {
                let mut line: Vec<_> = names.iter().chain(&["tls"]).map(|name| field(record, name)).collect();
                line[3].truncate("127.0.0.1".len());
                line
            })
            .collect();
        assert_eq!(logged, expected, "{secure} {first}");
        let metrics = scrape(&gate);
        for word in ["unreadable", "target_too_long", "header_too_large", "too_many_fields"] {
            let count = expected.iter().filter(|line| line[2] == word).count();
            let counted = metrics[&format!("portico_faults_total{{reason=\"{word}\"}}")];
            assert_eq!(counted, count as f64, "{word}");
        }
    }
}

#[tokio::test]
async fn the_form_follows_what_can_be_made_out() {
    let gate = Gate::open(vec![]).await;
    let cases = [
        ("accept: text/html\r\n", 400, "text/html; charset=utf-8", "<p>Bad request</p>"),
        ("accept: text/plain\r\n", 400, "text/plain; charset=utf-8", "Bad request\nrequest_id: "),
        ("ACCEPT:text/xml\r\n", 400, "application/xml; charset=utf-8", "<message>Bad request</message>"),
        ("content-type: application/grpc\r\n", 200, "application/grpc", ""),
    ];
    for (fields, status, content_type, part) in cases {
        let answer = gate.ask(&format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}x y: z\r\n\r\n")).await;
        assert_eq!((answer.status, answer.header("content-type")), (status, Some(content_type)), "{fields}");
        assert!(answer.text().contains(part), "{fields}{}", answer.text());
        assert_eq!(answer.header("grpc-status").is_some(), status == 200, "{fields}");
    }
}

/// A request whose answer is over before it is, and behind it something that is none, while much of the answer waits for the
/// client to read: what refuses it must come behind the answer, or not at all.
#[tokio::test]
async fn a_refusal_does_not_get_into_an_answer() {
    let endpoint = Endpoint::scripted(move |mut stream, _| async move {
        while let Some(head) = stream.head().await {
            let size: usize = header(&head, "x-size").unwrap().parse().unwrap();
            stream.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n")).await;
            stream.send(vec![b'x'; size]).await;
            stream.rest().await;
        }
    })
    .await;
    // The sizes differ because it depends on the system how much waits in the socket, and how much before it.
    for size in (2_400_000..4_000_000).step_by(100_000) {
        let gate = Gate::open(to(endpoint.address)).await;
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut socket = socket.connect(gate.address).await.unwrap();
        let head =
            format!("POST / HTTP/1.1\r\nhost: a.example\r\nx-size: {size}\r\ncontent-length: 10\r\n\r\n12345678");
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut read = Vec::new();
        while !scrape(&gate).keys().any(|name| name.starts_with("portico_requests_total")) {
            let mut some = [0; 65_536];
            let length = within("some of the answer", socket.read(&mut some)).await.unwrap();
            read.extend_from_slice(&some[..length]);
        }
        socket.write_all(b"90nonsense nonsense\r\n\r\n").await.unwrap();
        within("the rest", socket.read_to_end(&mut read)).await.unwrap_or_default();
        let end = read.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        let (answer, after) = read[end..].split_at_checked(size).expect("a whole answer");
        assert!(answer.iter().all(|byte| *byte == b'x'), "{size}: something is in the middle");
        assert!(after.is_empty() || after.starts_with(b"HTTP/1.1 400 "), "{:.40}", String::from_utf8_lossy(after));
    }
}
