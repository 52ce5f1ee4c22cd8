//! Reads the messages of a connection with hyper.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::ext::ReasonPhrase;
use hyper::service::service_fn;
use hyper::{client, server};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::LIMITS;
use super::found_message::{FoundInformational, FoundMessage, FoundRequestLine, FoundStatusLine, sorted};
use super::portico_reader::FuzzedStream;

/// The requests that hyper reads if the client sends `step` bytes at a time and then closes the connection.
pub(super) fn read_requests(input: &[u8], step: usize) -> Vec<FoundMessage<FoundRequestLine>> {
    let requests = RefCell::new(Vec::new());
    let found_requests = &requests;
    let service = service_fn(move |request: Request<Incoming>| async move {
        let (head, body) = request.into_parts();
        let line = FoundRequestLine { method: head.method, uri: head.uri, version: head.version };
        let mut found = FoundMessage::new(line, &head.headers);
        read_body(body, &mut found).await;
        found_requests.borrow_mut().push(found);
        // Not successful: after a CONNECT request, hyper would read no further one.
        let mut response = Response::new(Empty::<Bytes>::new());
        *response.status_mut() = StatusCode::NOT_FOUND;
        Ok::<_, Infallible>(response)
    });
    let io = TokioIo::new(tokio::io::join(FuzzedStream::new(input, step), tokio::io::sink()));
    let mut builder = server::conn::http1::Builder::new();
    // The client has closed the connection before it gets a response.
    builder.half_close(true).max_header_size(LIMITS.bytes).max_buf_size(LIMITS.bytes);
    let connection = builder.serve_connection(io, service);
    // The result is an error if hyper rejects a request.
    drop(run(connection));
    requests.into_inner()
}

/// What hyper reads from an endpoint.
pub(super) struct HyperResponse {
    pub(super) informational: Vec<FoundInformational>,
    pub(super) response: FoundMessage<FoundStatusLine>,
}

/// The response that hyper reads to a request with this method, if the endpoint sends `step` bytes at a time and then
/// closes the connection.
pub(super) fn read_response(input: &[u8], method: &Method, step: usize) -> Result<HyperResponse, hyper::Error> {
    let stream = FuzzedEndpoint { response: FuzzedStream::new(input, step), has_request: false, waker: None };
    run(async {
        let mut builder = client::conn::http1::Builder::new();
        builder.max_header_size(LIMITS.bytes).max_buf_size(LIMITS.bytes).http09_responses(false);
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        let exchange = async move {
            let mut request = Request::new(Empty::<Bytes>::new());
            *request.method_mut() = method.clone();
            let informational = Arc::new(Mutex::new(Vec::new()));
            let found_informational = Arc::clone(&informational);
            hyper::ext::on_informational(&mut request, move |response| {
                let (version, status, fields) = (response.version(), response.status(), sorted(response.headers()));
                let found = FoundInformational { version, status, fields };
                found_informational.lock().expect("no other thread has it").push(found);
            });
            let (head, body) = sender.send_request(request).await?.into_parts();
            let reason = head.extensions.get::<ReasonPhrase>().map(|reason| reason.as_bytes().to_vec());
            let line = FoundStatusLine { version: head.version, status: head.status, reason };
            let mut found = FoundMessage::new(line, &head.headers);
            read_body(body, &mut found).await;
            let informational = std::mem::take(&mut *informational.lock().expect("no other thread has it"));
            Ok(HyperResponse { informational, response: found })
        };
        // The connection may fail after the response.
        let (found, _) = tokio::join!(exchange, connection);
        found
    })
}

fn run<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without I/O needs nothing");
    runtime.block_on(future)
}

async fn read_body<L>(mut body: Incoming, found: &mut FoundMessage<L>) {
    while let Some(frame) = body.frame().await {
        match frame.map(|frame| frame.into_data()) {
            Ok(Ok(data)) => found.body.extend_from_slice(&data),
            Ok(Err(frame)) => found.trailers = frame.trailers_ref().map(sorted).unwrap_or_default(),
            Err(_) => return,
        }
    }
    found.is_complete = true;
}

/// An endpoint that sends its response when it has received bytes of the request.
struct FuzzedEndpoint<'i> {
    response: FuzzedStream<'i>,
    has_request: bool,
    waker: Option<Waker>,
}

impl AsyncRead for FuzzedEndpoint<'_> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.has_request {
            return Pin::new(&mut self.response).poll_read(cx, buffer);
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for FuzzedEndpoint<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.has_request = true;
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
