//! Tests of idle connections that a server closes while a request is on the way to it.

use std::io;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use http::Method;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex};

use super::*;
use crate::plugin_api::remote::RemoteTls;

/// What a server does when it has read a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Respond,
    Close,
    /// Closes after three seconds, on paused time.
    CloseLate,
    /// Sends a part of a response, and closes.
    Begin,
    /// Responds, and gets nothing of the next request: the connection fails at the first byte.
    Break,
    Hang,
}
use Step::{Begin, Break, Close, CloseLate, Hang, Respond};

/// A server with the steps of each connection, and the requests that it has got.
struct ScriptedConnections {
    steps: Mutex<Vec<&'static [Step]>>,
    requests: Arc<Mutex<Vec<String>>>,
}

/// A connection whose writes may fail.
struct BreakableStream {
    stream: DuplexStream,
    is_broken: Arc<AtomicBool>,
}

impl AsyncRead for BreakableStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for BreakableStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_broken.load(Relaxed) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl RemoteConnector for ScriptedConnections {
    fn connect(&self, _: Remote) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, RemoteFailure>> {
        let mut steps = self.steps.lock();
        if steps.is_empty() {
            return Box::pin(async { Err(RemoteFailure::Unreachable("refused".to_owned())) });
        }
        let (stream, other) = duplex(1 << 16);
        let is_broken = Arc::<AtomicBool>::default();
        tokio::spawn(serve(other, steps.remove(0), Arc::clone(&self.requests), Arc::clone(&is_broken)));
        Box::pin(async move { Ok(Box::new(BreakableStream { stream, is_broken }) as Box<dyn RemoteStream>) })
    }
}

async fn serve(
    mut stream: DuplexStream,
    steps: &'static [Step],
    requests: Arc<Mutex<Vec<String>>>,
    is_broken: Arc<AtomicBool>,
) {
    for step in steps {
        let mut request = Vec::new();
        // The body is the last byte.
        while !request.ends_with(b"\r\n\r\nb") {
            let Ok(byte) = stream.read_u8().await else { return };
            request.push(byte);
        }
        requests.lock().push(String::from_utf8(request).unwrap());
        let response: &[u8] = match step {
            Respond | Break => b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            Begin => b"HTTP/1.1 2",
            Close => return,
            CloseLate => return tokio::time::sleep(Duration::from_secs(3)).await, // Time is paused.
            Hang => b"",
        };
        is_broken.store(*step == Break, Relaxed);
        stream.write_all(response).await.unwrap();
        if *step == Begin {
            return;
        }
    }
    // The connection stays open until the other side closes it.
    drop(stream.read_u8().await);
}

/// Sends two requests, the second one with this method. Returns the result of the second one, and how often the server
/// has got it.
async fn second_request(
    steps: &[&'static [Step]],
    method: Method,
    is_repeatable: bool,
) -> (Result<RemoteResponse, String>, usize) {
    second_request_with(None, steps, method, is_repeatable).await
}

/// The same over connections that count as those with TLS.
async fn second_request_with(
    tls: Option<RemoteTls>,
    steps: &[&'static [Step]],
    method: Method,
    is_repeatable: bool,
) -> (Result<RemoteResponse, String>, usize) {
    let requests = Arc::<Mutex<Vec<String>>>::default();
    let connector = ScriptedConnections { steps: Mutex::new(steps.to_vec()), requests: Arc::clone(&requests) };
    let client = RemoteClient::new(Arc::new(connector));
    let timeout = Duration::from_secs(5);
    let request = RemoteRequest {
        remote: Remote { host: "server.example".to_owned(), port: 80, namespace: None, tls, timeout },
        method: Method::GET,
        target: PathAndQuery::from_static("/first"),
        headers: HeaderMap::from_iter([(HOST, HeaderValue::from_static("server.example"))]),
        body: Bytes::from_static(b"b"),
        timeout,
        keep_alive: Some(Duration::from_secs(60)),
        is_repeatable: false,
        response_body: ResponseBodyUse::Discard,
    };
    client.send(request.clone()).await.unwrap();
    let target = PathAndQuery::from_static("/second");
    let outcome = client.send(RemoteRequest { method: method.clone(), target, is_repeatable, ..request }).await;
    let line = format!("{method} /second HTTP/1.1\r\n");
    let count = requests.lock().iter().filter(|request| request.starts_with(&line)).count();
    (outcome, count)
}

#[tokio::test(start_paused = true)]
async fn requests_on_closed_connections_are_sent_once_more() {
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let (outcome, count) = second_request(&[&[Respond, Close], &[Respond]], method.clone(), false).await;
        assert_eq!((outcome.map(|response| response.status.as_u16()), count), (Ok(200), 2), "{method}");
    }
    // Another try would be as good as the first one, so there is none.
    let (outcome, count) = second_request(&[&[Respond, Close], &[Close], &[Respond]], Method::GET, false).await;
    assert!(outcome.is_err() && count == 2, "{outcome:?} {count}");
    // A server that has begun to respond has acted on the request.
    let (outcome, count) = second_request(&[&[Respond, Begin], &[Respond]], Method::GET, false).await;
    assert!(outcome.is_err() && count == 1, "{outcome:?} {count}");
}

#[tokio::test(start_paused = true)]
async fn requests_that_change_something_are_sent_once() {
    let (outcome, count) = second_request(&[&[Respond, Close], &[Respond]], Method::POST, false).await;
    assert!(outcome.is_err() && count == 1, "{outcome:?} {count}");
    let (outcome, count) = second_request(&[&[Respond, Close], &[Respond]], Method::POST, true).await;
    assert!(outcome.is_ok() && count == 2, "the caller permits it: {outcome:?} {count}");
    let (outcome, count) = second_request(&[&[Break], &[Respond]], Method::POST, false).await;
    assert!(outcome.is_ok() && count == 1, "the server has got no byte of it: {outcome:?} {count}");
}

/// A write that has failed may have sent records before.
#[tokio::test(start_paused = true)]
async fn over_tls_failed_writes_count_as_sent() {
    let steps: [&'static [Step]; 2] = [&[Break], &[Respond]];
    for (method, is_repeatable, expected) in
        [(Method::POST, false, 0), (Method::POST, true, 1), (Method::GET, false, 1)]
    {
        let tls = Some(RemoteTls { server_name: None, verify: true, files: None });
        let (outcome, count) = second_request_with(tls, &steps, method.clone(), is_repeatable).await;
        assert_eq!((outcome.is_ok(), count), (expected == 1, expected), "{method} {is_repeatable}");
    }
}

#[tokio::test(start_paused = true)]
async fn both_tries_have_the_time_of_one_request() {
    let began = Instant::now();
    let (outcome, count) = second_request(&[&[Respond, CloseLate], &[Hang]], Method::GET, false).await;
    assert_eq!((outcome.map(drop), count), (Err("no response within 5s".to_owned()), 2));
    assert_eq!(began.elapsed().as_secs(), 5);
}
