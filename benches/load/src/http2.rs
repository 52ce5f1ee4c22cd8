//! An HTTP/2 client, and the bodies that the backend uses too. hyper handles the frames; responses are verified as for
//! HTTP/1.1.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc::Receiver;

use crate::grpc::{self, MessageChecker};
use crate::http1::{LoadResponse, Stream};
use crate::pattern::{self, BodyChecker};
use crate::plan::RequestShape;

/// One connection for many concurrent requests.
#[derive(Clone)]
pub(crate) struct Connection {
    sender: SendRequest<OutgoingBody>,
    scheme: &'static str,
}

impl Connection {
    pub(crate) async fn new(stream: impl Stream + 'static, scheme: &'static str) -> Result<Self> {
        let mut http = http2::Builder::new(LocalExecutor);
        http.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW);
        let (sender, connection) = http.handshake(TokioIo::new(stream)).await?;
        // The task ends with its senders; errors are reported through the pending responses.
        tokio::task::spawn_local(async move { connection.await.ok() });
        Ok(Connection { sender, scheme })
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    pub(crate) async fn exchange(&mut self, shape: &RequestShape, number: u64) -> Result<LoadResponse> {
        let response = self.send(shape, number, OutgoingBody::for_request(shape)).await?;
        let (head, incoming) = response.into_parts();
        let header =
            |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        // The body of any other response is not a message, and the check of its status fails.
        let is_grpc = shape.is_grpc && head.status == StatusCode::OK;
        let ReceivedBody { checker, trailers } = read_body(incoming, is_grpc).await?;
        if is_grpc {
            grpc::check_status(&trailers)?;
        }
        let length = header("content-length");
        ensure!(
            length.is_empty() || length == checker.length.to_string(),
            "content-length is {length}, but the body has {} bytes",
            checker.length
        );
        Ok(LoadResponse {
            status: head.status.as_u16(),
            backend: header("x-backend"),
            rule: header("x-rule"),
            number: header("x-number").parse().ok(),
            received: header("x-received").parse().ok(),
            length: checker.length,
            differs: checker.differs,
            closes: false,
        })
    }

    /// Sends a request with this body, and waits for the head of the response.
    pub(crate) async fn send(
        &mut self,
        shape: &RequestShape,
        number: u64,
        body: OutgoingBody,
    ) -> Result<Response<Incoming>> {
        let RequestShape { method, host, path, .. } = shape;
        ensure!(shape.fields.is_empty(), "additional fields are supported for HTTP/1.1 only");
        let mut request = Request::new(body);
        *request.method_mut() = method.parse()?;
        *request.uri_mut() = format!("{}://{host}{path}", self.scheme).parse()?;
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().insert("x-number", number.into());
        if shape.is_grpc {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(grpc::CONTENT_TYPE));
            request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        }
        self.sender.ready().await.context("the connection accepts no request")?;
        self.sender.send_request(request).await.context("no response")
    }
}

/// A body that was read to its end.
#[derive(Default)]
pub(crate) struct ReceivedBody {
    /// The body; for a gRPC call, its message.
    pub(crate) checker: BodyChecker,
    pub(crate) trailers: HeaderMap,
}

/// Reads a body. With `is_grpc`, fails unless it is one message.
pub(crate) async fn read_body(mut body: Incoming, is_grpc: bool) -> Result<ReceivedBody> {
    let mut received = ReceivedBody::default();
    let mut message = MessageChecker::default();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame.context("the body ends early")?.into_data() {
            Ok(data) if is_grpc => message.read(&data),
            Ok(data) => received.checker.read(&data),
            Err(frame) => received.trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    if is_grpc {
        received.checker = message.finish()?;
    }
    Ok(received)
}

/// A body with or without a known length, and its trailers.
pub(crate) struct OutgoingBody {
    data: BodyData,
    has_length: bool,
    trailers: Option<HeaderMap>,
}

enum BodyData {
    Parts(VecDeque<Bytes>),
    /// Until the sender is dropped.
    Queue(Receiver<Bytes>),
    /// The data of a body that is received.
    Echo(Incoming),
}

impl OutgoingBody {
    fn for_request(shape: &RequestShape) -> Self {
        let length = shape.body.unwrap_or_default();
        if shape.is_grpc {
            return OutgoingBody::message(length, None);
        }
        let parts = pattern::body(length).chunks(PART_SIZE).map(Bytes::from_static).collect();
        OutgoingBody { data: BodyData::Parts(parts), has_length: !shape.chunked, trailers: None }
    }

    /// A gRPC message of this length. The length of the body is unknown, as in most implementations of gRPC.
    pub(crate) fn message(length: usize, trailers: Option<HeaderMap>) -> Self {
        let parts = VecDeque::from([Bytes::from(grpc::framed_message(length))]);
        OutgoingBody { data: BodyData::Parts(parts), has_length: false, trailers }
    }

    /// The parts that are queued until the sender is dropped.
    pub(crate) fn queued(parts: Receiver<Bytes>) -> Self {
        OutgoingBody { data: BodyData::Queue(parts), has_length: false, trailers: None }
    }

    /// What is received, at once, and trailers after its end.
    pub(crate) fn echo(received: Incoming, trailers: HeaderMap) -> Self {
        OutgoingBody { data: BodyData::Echo(received), has_length: false, trailers: Some(trailers) }
    }

    /// A body of known length in one part.
    pub(crate) fn whole(part: Bytes) -> Self {
        OutgoingBody { data: BodyData::Parts(VecDeque::from([part])), has_length: true, trailers: None }
    }
}

impl Body for OutgoingBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let data = match &mut self.data {
            BodyData::Parts(parts) => parts.pop_front().map(Frame::data),
            BodyData::Queue(parts) => ready!(parts.poll_recv(cx)).map(Frame::data),
            BodyData::Echo(received) => {
                // The backend requires no trailers of a client.
                ready!(Pin::new(received).poll_frame(cx)).transpose()?.filter(Frame::is_data)
            }
        };
        Poll::Ready(data.or_else(|| self.trailers.take().map(Frame::trailers)).map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.data, BodyData::Parts(parts) if parts.is_empty()) && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.data {
            BodyData::Parts(parts) if self.has_length => {
                SizeHint::with_exact(parts.iter().map(|part| part.len() as u64).sum())
            }
            _ => SizeHint::default(),
        }
    }
}

/// Runs the tasks of hyper on the current thread.
#[derive(Clone, Copy, Debug)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move { drop(future.await) });
    }
}

/// Size of the frames of a request body.
const PART_SIZE: usize = 3000;
/// Large enough that flow control of the client never limits a body.
const WINDOW: u32 = 1 << 20;
