//! The body of a request on loan to an endpoint that may say that it has not looked at the request. It can be called back
//! then, to be sent again, unless more of it has gone than is kept.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::body::{BrokenUpload, RequestBody};

/// Shared by the body that is being sent and the copy of the request that waits for the outcome.
pub(super) struct Lent {
    /// None when it was called back.
    body: RefCell<Option<RequestBody>>,
    passed: RefCell<Passed>,
    /// What is kept at most.
    most: usize,
}

/// What the endpoint was sent so far.
#[derive(Default)]
struct Passed {
    data: BytesMut,
    trailers: Option<HeaderMap>,
    /// Something is missing in it.
    lost: bool,
}

impl Lent {
    pub(super) fn new(body: RequestBody, most: usize) -> Rc<Self> {
        Rc::new(Lent { body: RefCell::new(Some(body)), passed: RefCell::default(), most })
    }

    /// The body as it was before, if all of it can be had.
    pub(super) fn recall(&self) -> Option<RequestBody> {
        let passed = self.passed.take();
        let mut body = self.body.take()?;
        if passed.lost {
            return None;
        }
        body.put_back(passed.data.freeze(), passed.trailers);
        Some(body)
    }

    pub(super) fn poll_frame(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenUpload>>> {
        let mut body = self.body.borrow_mut();
        let Some(body) = body.as_mut() else { return Poll::Ready(Some(Err(BrokenUpload::Recalled))) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            // Whoever could call it back is gone when the answer has begun.
            let most = if Rc::strong_count(self) > 1 { self.most } else { 0 };
            self.passed.borrow_mut().note(frame, most);
        }
        Poll::Ready(frame)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.body.borrow().as_ref().is_some_and(Body::is_end_stream)
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.borrow().as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Passed {
    fn note(&mut self, frame: &Frame<Bytes>, most: usize) {
        match frame.data_ref() {
            _ if self.lost => {}
            Some(data) if self.data.len() + data.len() <= most => self.data.extend_from_slice(data),
            Some(_) => *self = Passed { lost: true, ..Passed::default() },
            None => self.trailers = frame.trailers_ref().cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_kept_than_may_be() {
        let cases: [(&[&str], Option<&str>); 5] = [
            (&[], Some("")),
            (&["ab", "cd"], Some("abcd")),
            (&["abcd", "", "e"], Some("abcde")),
            (&["abc", "def"], None),
            (&["abcdef", "a"], None),
        ];
        for (frames, expected) in cases {
            let mut passed = Passed::default();
            for frame in frames {
                passed.note(&Frame::data(Bytes::copy_from_slice(frame.as_bytes())), 5);
            }
            let kept = (!passed.lost).then_some(&passed.data[..]);
            assert_eq!(kept, expected.map(str::as_bytes), "{frames:?}");
            assert!(passed.data.capacity() == 0 || !passed.lost);
        }
    }
}
