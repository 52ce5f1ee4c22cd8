//! A client of HTTP/2. The frames are hyper's; what comes in them is checked as for HTTP/1.1.

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

use crate::http1::{Answer, Stream};
use crate::pattern::{self, Follow};
use crate::plan::Shape;

/// One connection for many requests at a time.
#[derive(Clone)]
pub(crate) struct Connection {
    sender: SendRequest<Parts>,
    scheme: &'static str,
}

impl Connection {
    pub(crate) async fn new(stream: impl Stream + 'static, scheme: &'static str) -> Result<Self> {
        let mut http = http2::Builder::new(OnThisThread);
        http.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW);
        let (sender, connection) = http.handshake(TokioIo::new(stream)).await?;
        // It ends with its senders; what goes wrong reaches whoever waits for an answer.
        tokio::task::spawn_local(async move { connection.await.ok() });
        Ok(Connection { sender, scheme })
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    pub(crate) async fn exchange(&mut self, shape: &Shape, number: u64) -> Result<Answer> {
        let Shape { method, host, path, body, chunked, .. } = shape;
        ensure!(shape.fields.is_empty(), "further fields are for HTTP/1.1");
        let uri: Uri = format!("{}://{host}{path}", self.scheme).parse()?;
        let mut request = Request::new(Parts::new(body.unwrap_or_default(), *chunked));
        *request.method_mut() = method.parse()?;
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().insert("x-number", number.into());
        self.sender.ready().await.context("the connection takes no request")?;
        let response = self.sender.send_request(request).await.context("no answer")?;
        let (head, mut incoming) = response.into_parts();
        let text =
            |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let mut follow = Follow::default();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await {
            if let Some(data) = frame.context("the body ends early")?.data_ref() {
                follow.read(data);
            }
        }
        let length = text("content-length");
        ensure!(length.is_empty() || length == follow.length.to_string(), "a body of {length} has {}", follow.length);
        Ok(Answer {
            status: head.status.as_u16(),
            backend: text("x-backend"),
            rule: text("x-rule"),
            number: text("x-number").parse().ok(),
            received: text("x-received").parse().ok(),
            length: follow.length,
            differs: follow.differs,
            last: false,
        })
    }
}

/// The body of a request, in parts, with or without saying its length.
pub(crate) struct Parts {
    parts: VecDeque<&'static [u8]>,
    length: Option<usize>,
}

impl Parts {
    fn new(length: usize, chunked: bool) -> Self {
        let parts = pattern::body(length).chunks(PART).collect();
        Parts { parts, length: (!chunked).then_some(length) }
    }
}

impl Body for Parts {
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

#[derive(Clone, Copy, Debug)]
struct OnThisThread;

impl<F: Future + 'static> hyper::rt::Executor<F> for OnThisThread {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move { drop(future.await) });
    }
}

const PART: usize = 3000;
/// Enough that the load is not what a body waits for.
const WINDOW: u32 = 1 << 20;
