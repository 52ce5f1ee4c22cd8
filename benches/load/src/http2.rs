//! An HTTP/2 client. hyper handles the frames; responses are verified as for HTTP/1.1.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::{Request, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::TokioIo;

use crate::http1::{LoadResponse, Stream};
use crate::pattern::{self, BodyChecker};
use crate::plan::RequestShape;

/// One connection for many concurrent requests.
#[derive(Clone)]
pub(crate) struct Connection {
    sender: SendRequest<RequestBody>,
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
        let RequestShape { method, host, path, body, chunked, .. } = shape;
        ensure!(shape.fields.is_empty(), "additional fields are supported for HTTP/1.1 only");
        let uri: Uri = format!("{}://{host}{path}", self.scheme).parse()?;
        let mut request = Request::new(RequestBody::new(body.unwrap_or_default(), *chunked));
        *request.method_mut() = method.parse()?;
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().insert("x-number", number.into());
        self.sender.ready().await.context("the connection accepts no request")?;
        let response = self.sender.send_request(request).await.context("no response")?;
        let (head, mut incoming) = response.into_parts();
        let header =
            |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let mut checker = BodyChecker::default();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await {
            if let Some(data) = frame.context("the body ends early")?.data_ref() {
                checker.read(data);
            }
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
}

/// A request body in parts, with or without a known length.
pub(crate) struct RequestBody {
    parts: VecDeque<&'static [u8]>,
    length: Option<usize>,
}

impl RequestBody {
    fn new(length: usize, chunked: bool) -> Self {
        let parts = pattern::body(length).chunks(PART_SIZE).collect();
        RequestBody { parts, length: (!chunked).then_some(length) }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.parts.pop_front().map(|part| Ok(Frame::data(Bytes::from_static(part)))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, |_| {
            SizeHint::with_exact(self.parts.iter().map(|part| part.len() as u64).sum())
        })
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
