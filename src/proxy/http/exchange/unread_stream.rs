//! What is left of a request body on an HTTP/2 stream that nothing forwards any more.
//!
//! A stream whose body is dropped is reset directly after its response. Clients that are about to send the body then
//! report an error in place of the response, although the reset has the code `NO_ERROR`; curl does so. So the body is
//! kept for the task of the stream, which reads and discards the rest for a limited time. Until then, its bytes count
//! as received and not forwarded.
//!
//! ```text
//!   RequestBody ─ keep, when it is dropped ─▶ UnreadStream ─ poll_take ─▶ task of the stream
//! ```

use std::cell::Cell;
use std::ops::ControlFlow;
use std::task::{Context, Poll, Waker};

use hyper::body::Incoming;

pub(in crate::proxy) struct UnreadStream(Cell<State>);

enum State {
    /// The body is being forwarded, or was read to its end.
    Open,
    /// The task of the stream waits for the body.
    Awaited(Waker),
    Kept(Box<Incoming>),
    /// Nothing is kept: the body is dropped, which resets the stream.
    Closed,
}

impl UnreadStream {
    pub(super) fn open() -> Self {
        UnreadStream(Cell::new(State::Open))
    }

    pub(super) fn closed() -> Self {
        UnreadStream(Cell::new(State::Closed))
    }

    /// Keeps the body. Breaks if it is dropped instead.
    pub(super) fn keep(&self, body: Incoming) -> ControlFlow<()> {
        match self.0.replace(State::Closed) {
            State::Closed => return ControlFlow::Break(()),
            State::Open | State::Kept(_) => self.0.set(State::Kept(Box::new(body))),
            State::Awaited(waker) => {
                self.0.set(State::Kept(Box::new(body)));
                waker.wake();
            }
        }
        ControlFlow::Continue(())
    }

    /// The body, once nothing else reads it. None if nothing is kept.
    pub(in crate::proxy) fn poll_take(&self, cx: &Context<'_>) -> Poll<Option<Box<Incoming>>> {
        match self.0.replace(State::Closed) {
            State::Closed => Poll::Ready(None),
            State::Kept(body) => Poll::Ready(Some(body)),
            State::Open | State::Awaited(_) => {
                self.0.set(State::Awaited(cx.waker().clone()));
                Poll::Pending
            }
        }
    }

    /// From now on, nothing is kept.
    pub(in crate::proxy) fn close(&self) {
        self.0.set(State::Closed);
    }
}
