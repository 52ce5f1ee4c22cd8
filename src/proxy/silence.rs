//! What a rule says about an endpoint that says nothing: before it is connected, while it takes no more of a request, and
//! before and within its answer.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::snapshot::tries::{Patience, Tries};

/// None leaves it to our own patience.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    connect: Patience,
    write: Patience,
    read: Patience,
}

impl Told {
    pub(crate) fn of(tries: &Tries) -> Self {
        Told { connect: tries.connect, write: tries.write, read: tries.read }
    }

    pub(crate) fn connect(self) -> Option<Duration> {
        self.connect.duration()
    }

    pub(crate) fn write(self) -> Option<Duration> {
        self.write.duration()
    }

    pub(crate) fn read(self) -> Option<Duration> {
        self.read.duration()
    }

    pub(crate) fn is_nothing(self) -> bool {
        self == Told::default()
    }
}

/// How long an endpoint has been silent in the middle of its answer. The time begins when more of it is asked for and does
/// not come: a client that does not read is not the endpoint's fault.
#[derive(Debug)]
pub(crate) struct Silence {
    sleep: Pin<Box<Sleep>>,
    is_silent: bool,
}

impl Silence {
    /// It begins.
    pub(crate) fn lasting(limit: Duration) -> Self {
        Silence { sleep: Box::pin(sleep_until(Instant::now() + limit)), is_silent: true }
    }

    /// Something came.
    pub(crate) fn end(&mut self) {
        self.is_silent = false;
    }

    /// Nothing came. Ready if that has lasted too long.
    pub(crate) fn poll(&mut self, limit: Duration, cx: &mut Context<'_>) -> Poll<()> {
        if !std::mem::replace(&mut self.is_silent, true) {
            self.sleep.as_mut().reset(Instant::now() + limit);
        }
        self.sleep.as_mut().poll(cx)
    }
}
