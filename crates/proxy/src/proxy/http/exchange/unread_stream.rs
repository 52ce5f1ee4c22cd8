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

/// Boxed, because few streams need it. None while the body is forwarded, and if it was read to its end.
#[derive(Default)]
pub(in crate::proxy) struct UnreadStream(Cell<Option<Box<State>>>);

enum State {
    /// The task of the stream waits for the body.
    Awaited(Waker),
    Kept(Incoming),
    /// Nothing is kept: the body is dropped. The stream is reset after its response, unless the client has ended it.
    Closed,
}

impl UnreadStream {
    /// Keeps the body. Breaks if it is dropped instead.
    pub(super) fn keep(&self, body: Incoming) -> ControlFlow<()> {
        let previous = self.0.take();
        if matches!(previous.as_deref(), Some(State::Closed)) {
            self.0.set(previous);
            return ControlFlow::Break(());
        }
        self.0.set(Some(Box::new(State::Kept(body))));
        if let Some(State::Awaited(waker)) = previous.as_deref() {
            waker.wake_by_ref();
        }
        ControlFlow::Continue(())
    }

    /// The body, once nothing else reads it. None if nothing is kept.
    pub(in crate::proxy) fn poll_take(&self, cx: &Context<'_>) -> Poll<Option<Incoming>> {
        match self.0.take().map(|state| *state) {
            Some(State::Closed) => {
                self.close();
                Poll::Ready(None)
            }
            Some(State::Kept(body)) => Poll::Ready(Some(body)),
            Some(State::Awaited(_)) | None => {
                self.wake_when_kept(cx.waker());
                Poll::Pending
            }
        }
    }

    /// Wakes the task of the stream when the body is kept.
    pub(in crate::proxy) fn wake_when_kept(&self, waker: &Waker) {
        let state = match self.0.take() {
            Some(mut state) => {
                if let State::Awaited(known) = state.as_mut() {
                    known.clone_from(waker);
                }
                state
            }
            None => Box::new(State::Awaited(waker.clone())),
        };
        self.0.set(Some(state));
    }

    /// From now on, nothing is kept.
    pub(in crate::proxy) fn close(&self) {
        let previous = self.0.replace(Some(Box::new(State::Closed)));
        if let Some(State::Awaited(waker)) = previous.as_deref() {
            waker.wake_by_ref();
        }
    }
}
