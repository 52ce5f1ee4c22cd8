//! Replay buffer: keeps the sent part of a request body so that the request can be sent again when an endpoint reports
//! that it did not process it. The body cannot be replayed once more than the limit has been sent.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::client_exchange::ClientExchange;
use super::request_body::{RequestBody, RequestBodyError};
use crate::proxy::buffer_budget::{BufferUse, BufferedBytes, WorkerBuffers};
use crate::upstream::ClientSlot;

/// Shared by the body being sent and the copy of the request that waits for the outcome.
pub(in crate::proxy) struct ReplayBuffer {
    /// None after the body was taken back for a replay.
    body: RefCell<Option<RequestBody>>,
    sent: RefCell<SentBody>,
    /// The maximum number of bytes kept.
    limit: usize,
    owner: BodyOwner,
}

/// For whom a body is kept.
struct BodyOwner {
    worker: Rc<WorkerBuffers>,
    /// The namespace of the Service.
    namespace: Arc<str>,
    client: ClientSlot,
}

/// The part of the body that was already sent.
#[derive(Default)]
struct SentBody {
    data: BytesMut,
    trailers: Option<HeaderMap>,
    /// The bytes of `data`. None before the first.
    kept: Option<BufferedBytes>,
    /// More than the limit was sent, or the process keeps too many bytes, so the data was dropped.
    is_truncated: bool,
}

impl ReplayBuffer {
    pub(in crate::proxy) fn new(
        body: RequestBody,
        limit: usize,
        exchange: &ClientExchange,
        namespace: Arc<str>,
    ) -> Rc<Self> {
        let worker = Rc::clone(&exchange.worker().buffers);
        let owner = BodyOwner { worker, namespace, client: exchange.counted_client.get() };
        Rc::new(ReplayBuffer { body: RefCell::new(Some(body)), sent: RefCell::default(), limit, owner })
    }

    /// Takes the body back with the sent part restored. None if the sent part is incomplete.
    pub(in crate::proxy) fn take_back(&self) -> Option<RequestBody> {
        let sent = self.sent.take();
        let mut body = self.body.take()?;
        if sent.is_truncated {
            return None;
        }
        body.restore_sent(sent.data.freeze(), sent.trailers, sent.kept);
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
            self.sent.borrow_mut().record(frame, limit, &self.owner);
        }
        Poll::Ready(frame)
    }

    pub(in crate::proxy) fn has_arrived(&self) -> bool {
        self.body.borrow().as_ref().is_none_or(RequestBody::has_arrived)
    }

    pub(in crate::proxy) fn is_end_stream(&self) -> bool {
        self.body.borrow().as_ref().is_some_and(Body::is_end_stream)
    }

    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        self.body.borrow().as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl SentBody {
    fn record(&mut self, frame: &Frame<Bytes>, limit: usize, owner: &BodyOwner) {
        match frame.data_ref() {
            _ if self.is_truncated => {}
            Some(data) if self.data.len() + data.len() <= limit && self.try_keep(data.len(), owner) => {
                self.data.extend_from_slice(data);
            }
            Some(_) => *self = SentBody { is_truncated: true, ..SentBody::default() },
            None => self.trailers = frame.trailers_ref().cloned(),
        }
    }

    fn try_keep(&mut self, bytes: usize, owner: &BodyOwner) -> bool {
        let BodyOwner { worker, namespace, client } = owner;
        let kept = self.kept.get_or_insert_with(|| worker.buffered(BufferUse::Replay, namespace, *client));
        kept.try_grow(bytes).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::buffer_budget::BufferBudget;

    fn owner(process: &Arc<BufferBudget>) -> BodyOwner {
        let client = ClientSlot::of([192, 0, 2, 1].into());
        BodyOwner { worker: WorkerBuffers::new(Arc::clone(process)), namespace: "team".into(), client }
    }

    #[test]
    fn nothing_is_kept_beyond_the_limit_of_the_process() {
        let process = Arc::new(BufferBudget::new(16));
        let worker = owner(&process);
        let record = |sent: &mut SentBody, data: &'static str| {
            sent.record(&Frame::data(Bytes::from_static(data.as_bytes())), 1000, &worker);
        };
        let (mut first, mut second) = (SentBody::default(), SentBody::default());
        record(&mut first, "123456");
        record(&mut second, "123456");
        assert!(!first.is_truncated && second.is_truncated);
        // A body may be at most as large as what its namespace can still get afterwards.
        record(&mut first, "7");
        assert_eq!((&first.data[..], process.refused(BufferUse::Replay)), (&b"1234567"[..], 1));
        record(&mut first, "1");
        assert!(first.is_truncated && first.kept.is_none());
        drop((first, second, worker));
        assert_eq!(process.used(), 0);
    }

    #[test]
    fn replay_buffer_respects_its_limit() {
        let cases: [(&[&str], Option<&str>); 5] = [
            (&[], Some("")),
            (&["ab", "cd"], Some("abcd")),
            (&["abcd", "", "e"], Some("abcde")),
            (&["abc", "def"], None),
            (&["abcdef", "a"], None),
        ];
        let worker = owner(&Arc::new(BufferBudget::new(1 << 20)));
        for (frames, expected) in cases {
            let mut sent = SentBody::default();
            for frame in frames {
                sent.record(&Frame::data(Bytes::copy_from_slice(frame.as_bytes())), 5, &worker);
            }
            let kept = (!sent.is_truncated).then_some(&sent.data[..]);
            assert_eq!(kept, expected.map(str::as_bytes), "{frames:?}");
            assert!(sent.data.capacity() == 0 || !sent.is_truncated);
        }
    }
}
