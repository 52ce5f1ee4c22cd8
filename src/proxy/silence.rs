//! What a rule says about an endpoint that says nothing: before it is connected, while it takes no more of a request, and
//! before and within its answer.

use std::num::NonZeroU32;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::snapshot::tries::{Limit, Tries};

/// None leaves it to our own patience. In milliseconds, since every connection has room for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    connect: Option<NonZeroU32>,
    write: Option<NonZeroU32>,
    read: Option<NonZeroU32>,
}

impl Told {
    pub(crate) fn of(tries: &Tries) -> Self {
        let milliseconds = |limit: Duration| {
            let limit = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
            NonZeroU32::MIN.max(NonZeroU32::new(limit).unwrap_or(NonZeroU32::MIN))
        };
        let limit = |limit: Limit| limit.silence().map(milliseconds);
        Told { connect: limit(tries.connect), write: limit(tries.write), read: limit(tries.read) }
    }

    pub(crate) fn connect(self) -> Option<Duration> {
        self.connect.map(duration)
    }

    pub(crate) fn write(self) -> Option<Duration> {
        self.write.map(duration)
    }

    pub(crate) fn read(self) -> Option<Duration> {
        self.read.map(duration)
    }

    pub(crate) fn is_nothing(self) -> bool {
        self == Told::default()
    }
}

fn duration(milliseconds: NonZeroU32) -> Duration {
    Duration::from_millis(milliseconds.get().into())
}

/// How long an endpoint may be silent in the middle of its answer. The time begins when more of it is asked for and does
/// not come: a client that does not read is not the endpoint's fault.
#[derive(Debug)]
pub(crate) struct Silence {
    limit: Duration,
    sleep: Pin<Box<Sleep>>,
    is_silent: bool,
}

impl Silence {
    pub(crate) fn of(limit: Duration) -> Box<Self> {
        Box::new(Silence { limit, sleep: Box::pin(sleep_until(Instant::now())), is_silent: false })
    }

    /// Something came.
    pub(crate) fn end(&mut self) {
        self.is_silent = false;
    }

    /// Nothing came. Ready if that has lasted too long.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !std::mem::replace(&mut self.is_silent, true) {
            self.sleep.as_mut().reset(Instant::now() + self.limit);
        }
        self.sleep.as_mut().poll(cx)
    }
}
