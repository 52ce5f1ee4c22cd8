//! Streams and bodies that do what a list says, step by step.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::io::AsyncWrite;

use super::super::{OutgoingMessage, SendFailure};

/// Accepts bytes step by step, and all bytes after the last step.
#[derive(Debug, Default)]
pub(super) struct ScriptedStream {
    steps: VecDeque<StreamStep>,
    flushes: VecDeque<StreamStep>,
    pub(super) written: Vec<u8>,
    /// How many bytes each write has accepted.
    pub(super) writes: Vec<usize>,
    /// Where the slices of the writes begin.
    pub(super) addresses: Vec<*const u8>,
    /// How many bytes were flushed.
    pub(super) flushed: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum StreamStep {
    /// Accepts at most this number of bytes.
    Accept(usize),
    Wait,
    Fail,
}

impl ScriptedStream {
    pub(super) fn new(steps: impl IntoIterator<Item = StreamStep>) -> Self {
        ScriptedStream { steps: steps.into_iter().collect(), ..ScriptedStream::default() }
    }

    pub(super) fn with_flushes(mut self, flushes: impl IntoIterator<Item = StreamStep>) -> Self {
        self.flushes = flushes.into_iter().collect();
        self
    }
}

impl AsyncWrite for ScriptedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let limit = match self.steps.pop_front().unwrap_or(StreamStep::Accept(usize::MAX)) {
            StreamStep::Accept(limit) => limit,
            StreamStep::Wait => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            StreamStep::Fail => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        };
        let mut accepted = 0;
        for slice in slices {
            let taken = slice.len().min(limit - accepted);
            self.written.extend_from_slice(&slice[..taken]);
            self.addresses.push(slice.as_ptr());
            accepted += taken;
        }
        self.writes.push(accepted);
        Poll::Ready(Ok(accepted))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.flushes.pop_front() {
            Some(StreamStep::Wait) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(StreamStep::Fail) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Some(StreamStep::Accept(_)) | None => {
                self.flushed = self.written.len();
                Poll::Ready(Ok(()))
            }
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Returns frames step by step, and ends after the last step.
#[derive(Debug)]
pub(super) struct ScriptedBody {
    steps: VecDeque<BodyStep>,
    /// The length that the body reports, whatever it has.
    length: Option<u64>,
    /// Whether the end is reported with the last frame.
    reports_end: bool,
    polls: Rc<Cell<usize>>,
}

#[derive(Clone, Debug)]
pub(super) enum BodyStep {
    Data(Bytes),
    Trailers(HeaderMap),
    Wait,
    Fail,
}

impl ScriptedBody {
    pub(super) fn new(steps: impl IntoIterator<Item = BodyStep>) -> Self {
        let steps = steps.into_iter().collect();
        ScriptedBody { steps, length: None, reports_end: false, polls: Rc::default() }
    }

    pub(super) fn with_length(self, length: u64) -> Self {
        ScriptedBody { length: Some(length), ..self }
    }

    pub(super) fn reporting_end(self, reports_end: bool) -> Self {
        ScriptedBody { reports_end, ..self }
    }

    /// How often frames were requested.
    pub(super) fn polls(&self) -> Rc<Cell<usize>> {
        self.polls.clone()
    }
}

impl Body for ScriptedBody {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        self.polls.set(self.polls.get() + 1);
        Poll::Ready(match self.steps.pop_front() {
            None => None,
            Some(BodyStep::Data(data)) => Some(Ok(Frame::data(data))),
            Some(BodyStep::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(BodyStep::Fail) => Some(Err("the body has failed")),
            Some(BodyStep::Wait) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.reports_end && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[derive(Debug, Default)]
pub(super) struct SenderWakes(AtomicUsize);

impl SenderWakes {
    pub(super) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Wake for SenderWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Sends the message to its end. Whenever it waits, it must have been woken: all scripted steps wake at once.
pub(super) fn send(
    message: &mut OutgoingMessage<ScriptedBody>,
    stream: &mut ScriptedStream,
) -> Result<(), SendFailure> {
    let wakes = Arc::new(SenderWakes::default());
    let waker = Waker::from(wakes.clone());
    loop {
        let earlier = wakes.count();
        match message.poll_send(&mut Context::from_waker(&waker), stream) {
            Poll::Ready(sent) => return sent,
            Poll::Pending => assert!(wakes.count() > earlier, "the message waits, but for nothing"),
        }
    }
}
