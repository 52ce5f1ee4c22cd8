//! Polls a timer for a deadline that moves with every read and write.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep};

use crate::turn_clock;

/// Ready when the deadline has passed. A timer that is set too late is reset at once. One that is set too early is
/// reset only when it fires, which costs less than a reset for each deadline.
pub(in crate::proxy) fn poll_until(deadline: Instant, mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
    if deadline < timer.deadline() {
        timer.as_mut().reset(deadline);
    }
    ready!(timer.as_mut().poll(cx));
    if deadline > timer.deadline() {
        timer.as_mut().reset(deadline);
        ready!(timer.as_mut().poll(cx));
    }
    // What follows counts from now on.
    turn_clock::refresh();
    Poll::Ready(())
}
