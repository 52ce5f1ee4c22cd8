//! Replay buffer: keeps the sent part of a request body so that the request can be sent again when an endpoint reports
//! that it did not process it. The body cannot be replayed once more than the limit has been sent.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::request_body::{RequestBody, RequestBodyError};

/// Shared by the body being sent and the copy of the request that waits for the outcome.
pub(in crate::proxy) struct ReplayBuffer {
    /// None after the body was taken back for a replay.
    body: RefCell<Option<RequestBody>>,
    sent: RefCell<SentBody>,
    /// The maximum number of bytes kept.
    limit: usize,
}

/// The part of the body that was already sent.
#[derive(Default)]
struct SentBody {
    data: BytesMut,
    trailers: Option<HeaderMap>,
    /// More than the limit was sent, so the data was dropped.
    is_truncated: bool,
}

impl ReplayBuffer {
    pub(in crate::proxy) fn new(body: RequestBody, limit: usize) -> Rc<Self> {
        Rc::new(ReplayBuffer { body: RefCell::new(Some(body)), sent: RefCell::default(), limit })
    }

    /// Takes the body back with the sent part restored. None if the sent part is incomplete.
    pub(in crate::proxy) fn take_back(&self) -> Option<RequestBody> {
        let sent = self.sent.take();
        let mut body = self.body.take()?;
        if sent.is_truncated {
            return None;
        }
        body.restore_sent(sent.data.freeze(), sent.trailers);
        Some(body)
    }

    pub(in crate::proxy) fn poll_frame(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, RequestBodyError>>> {
        let mut body = self.body.borrow_mut();
        let Some(body) = body.as_mut() else { return Poll::Ready(Some(Err(RequestBodyError::Reclaimed))) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            // When the response has begun, the copy of the request is dropped and a replay is impossible, so nothing is
            // kept.
            let limit = if Rc::strong_count(self) > 1 { self.limit } else { 0 };
            self.sent.borrow_mut().record(frame, limit);
        }
        Poll::Ready(frame)
    }

    pub(in crate::proxy) fn is_end_stream(&self) -> bool {
        self.body.borrow().as_ref().is_some_and(Body::is_end_stream)
    }

    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        self.body.borrow().as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl SentBody {
    fn record(&mut self, frame: &Frame<Bytes>, limit: usize) {
        match frame.data_ref() {
            _ if self.is_truncated => {}
            Some(data) if self.data.len() + data.len() <= limit => self.data.extend_from_slice(data),
            Some(_) => *self = SentBody { is_truncated: true, ..SentBody::default() },
            None => self.trailers = frame.trailers_ref().cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replay_buffer_respects_its_limit() {
        let cases: [(&[&str], Option<&str>); 5] = [
            (&[], Some("")),
            (&["ab", "cd"], Some("abcd")),
            (&["abcd", "", "e"], Some("abcde")),
            (&["abc", "def"], None),
            (&["abcdef", "a"], None),
        ];
        for (frames, expected) in cases {
            let mut sent = SentBody::default();
            for frame in frames {
                sent.record(&Frame::data(Bytes::copy_from_slice(frame.as_bytes())), 5);
            }
            let kept = (!sent.is_truncated).then_some(&sent.data[..]);
            assert_eq!(kept, expected.map(str::as_bytes), "{frames:?}");
            assert!(sent.data.capacity() == 0 || !sent.is_truncated);
        }
    }
}
