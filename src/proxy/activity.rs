//! What a connection is doing, and since when: the one place where its deadlines come from.
//!
//! A connection has a single timer. It is set anew only when a phase needs an earlier end, so that a request on a
//! kept-alive connection touches no timer at all.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::fault::Fault;
use super::guard::Refusal;
use super::limits::Limits;
use super::silence::{Silence, Told};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Between requests, or before the first.
    Idle,
    /// A head has begun to come in.
    Head,
    /// The request goes to an endpoint, or its answer is awaited.
    Waiting,
    /// The answer goes to the client.
    Answering,
    /// The connection was upgraded, and bytes of another protocol go both ways.
    Tunnel,
}

/// Who is to move on with the body of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upload {
    /// It is over, or there is none.
    Over,
    /// The endpoint has not asked for more of it.
    Unasked,
    /// The client has not sent what the endpoint would take.
    Awaited,
}

/// Shared by the parts of one connection of HTTP/1, or of one stream of HTTP/2: its socket, its task, the request in progress
/// and the bodies.
#[derive(Debug)]
pub(crate) struct Activity {
    phase: Cell<Phase>,
    /// When the phase began, or last moved forward.
    since: Cell<Instant>,
    /// When the request began.
    pub(crate) started: Cell<Instant>,
    pub(crate) requests: Cell<u64>,
    pub(crate) bytes_in: Cell<u64>,
    pub(crate) upload: Cell<Upload>,
    /// The body of the request ended before its end, or is not one.
    pub(crate) broken: Cell<bool>,
    /// The body of the request is longer than it may be, and was cut off.
    pub(crate) oversized: Cell<bool>,
    /// When the request went to an endpoint, if its rule is one of Kong's or has plugins.
    pub(crate) sent: Cell<Option<Instant>>,
    /// A body was left unread, so the client may still be writing when we close.
    pub(crate) unread: Cell<bool>,
    /// Waiting took too long; whoever waits is to give up.
    pub(crate) overdue: Cell<bool>,
    /// The rule says how long an answer may take, so that our own patience does not count.
    pub(crate) patient: Cell<bool>,
    /// What the rule says about silence.
    pub(crate) told: Cell<Told>,
    /// Of the endpoint within its answer, once there was one and the rule limits it.
    pub(crate) silence: RefCell<Option<Silence>>,
    /// The request waits for a connection, which has a time of its own.
    pub(crate) connecting: Cell<bool>,
    /// When the answer has to be over, if its rule says so.
    pub(crate) cut_off: Cell<Option<Instant>>,
    /// What the guard has found.
    pub(crate) refusal: Cell<Option<Refusal>>,
    /// An end that the client could take for the end of a body must be a reset instead.
    pub(crate) reset: Cell<bool>,
    /// All bytes of all answers were handed to the socket, so hyper has nothing to write but what is not ours.
    pub(crate) settled: Cell<bool>,
    /// The client began with the preface of HTTP/2.
    pub(crate) http2: Cell<bool>,
    /// The answer is over, so that nobody is to wait for the rest of the request.
    abandoned: Cell<bool>,
    /// Who waits for it.
    reader: RefCell<Option<Waker>>,
}

impl Activity {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Activity {
            phase: Cell::new(Phase::Idle),
            since: Cell::new(now),
            started: Cell::new(now),
            requests: Cell::new(0),
            bytes_in: Cell::new(0),
            upload: Cell::new(Upload::Over),
            broken: Cell::new(false),
            oversized: Cell::new(false),
            sent: Cell::new(None),
            unread: Cell::new(false),
            overdue: Cell::new(false),
            patient: Cell::new(false),
            told: Cell::default(),
            silence: RefCell::default(),
            connecting: Cell::new(false),
            cut_off: Cell::new(None),
            refusal: Cell::new(None),
            reset: Cell::new(false),
            settled: Cell::new(true),
            http2: Cell::new(false),
            abandoned: Cell::new(false),
            reader: RefCell::default(),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    pub(crate) fn enter(&self, phase: Phase, now: Instant) {
        self.phase.set(phase);
        self.since.set(now);
    }

    /// Whether the bytes of the connection are HTTP/1, and not something that they have led to.
    pub(crate) fn is_http1(&self) -> bool {
        !self.http2.get() && self.phase.get() != Phase::Tunnel
    }

    /// Something moved, so the patience starts anew.
    pub(crate) fn moved(&self) {
        self.since.set(Instant::now());
    }

    /// Bytes came from the client.
    pub(crate) fn heard(&self) {
        if self.phase.get() == Phase::Idle {
            self.enter(Phase::Head, Instant::now());
        }
    }

    /// Bytes went to the client.
    pub(crate) fn told(&self) {
        if matches!(self.phase.get(), Phase::Answering | Phase::Idle) {
            self.moved();
        }
    }

    /// The endpoint would take more of the body, and there is none.
    pub(crate) fn await_client(&self) {
        if self.upload.replace(Upload::Awaited) != Upload::Awaited {
            self.moved();
        }
    }

    /// hyper has no more bytes to write. It writes an answer in one go with the end of its body, so the answer that is over
    /// for us is over for it, too.
    pub(crate) fn flushed(&self) {
        if matches!(self.phase.get(), Phase::Idle | Phase::Head) && !self.http2.get() {
            self.settled.set(true);
        }
    }

    /// The answer is over, but neither all written nor the request behind it: the next request could come before its end.
    pub(crate) fn is_crowded(&self) -> bool {
        !self.settled.get()
            && matches!(self.phase.get(), Phase::Idle | Phase::Head)
            && (self.upload.get() != Upload::Over || self.unread.get())
            && !self.http2.get()
    }

    /// When the head began to come in that is coming in, if one is.
    pub(crate) fn head_since(&self) -> Option<Instant> {
        (self.phase.get() == Phase::Head).then(|| self.since.get())
    }

    /// A request has its head. Its time counts from the first byte, unless that was read with the request before.
    pub(crate) fn begin(&self) {
        let now = Instant::now();
        self.started.set(if self.phase.get() == Phase::Head { self.since.get() } else { now });
        self.requests.set(self.requests.get() + 1);
        self.bytes_in.set(0);
        self.upload.set(Upload::Over);
        self.broken.set(false);
        self.oversized.set(false);
        self.sent.set(None);
        self.unread.set(false);
        self.overdue.set(false);
        self.patient.set(false);
        self.told.set(Told::default());
        self.silence.take();
        self.connecting.set(false);
        self.cut_off.set(None);
        self.settled.set(false);
        self.enter(Phase::Waiting, now);
    }

    /// Ends the body of the request, wherever it is being read.
    pub(crate) fn abandon(&self) {
        self.abandoned.set(true);
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    /// Whether the body of the request has no reader any more. If not, the reader is woken when it has none.
    pub(crate) fn is_abandoned(&self, cx: &Context<'_>) -> bool {
        if !self.abandoned.get() {
            let mut waiting = self.reader.borrow_mut();
            if waiting.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
                *waiting = Some(cx.waker().clone());
            }
        }
        self.abandoned.get()
    }

    /// Why the present request is not to be trusted, if it is not.
    pub(crate) fn refused(&self) -> Option<Fault> {
        let refusal = self.refusal.get()?;
        (refusal.from <= self.requests.get()).then_some(refusal.fault)
    }

    /// When patience with the present phase ends.
    /// `idle` depends on whether the connection is wanted.
    pub(crate) fn deadline(&self, limits: &Limits, idle: Duration) -> Instant {
        let patience = match self.phase.get() {
            Phase::Idle => idle,
            Phase::Head => limits.header_timeout,
            Phase::Waiting if self.upload.get() == Upload::Awaited => limits.upload_timeout,
            Phase::Waiting => self.patience_with_endpoint(limits),
            // Which may be the client's silence, too, so that a rule can only make it longer.
            Phase::Answering => limits.stall_timeout.max(self.told.get().read().unwrap_or_default()),
            Phase::Tunnel => limits.tunnel_idle.max(self.told.get().read().unwrap_or_default()),
        };
        let end = self.since.get() + patience;
        match self.cut_off.get() {
            // Nobody looks at the body of an answer while the client does not read it.
            Some(cut_off) if self.phase.get() == Phase::Answering => cut_off.min(end),
            _ => end,
        }
    }

    fn patience_with_endpoint(&self, limits: &Limits) -> Duration {
        let told = self.told.get();
        if self.connecting.get() && !told.is_nothing() {
            return ENDLESS;
        }
        let told = if self.upload.get() == Upload::Over { told.read() } else { told.write() };
        told.unwrap_or(if self.patient.get() { ENDLESS } else { limits.answer_timeout })
    }

    /// Ready when patience with the present phase has ended.
    pub(crate) fn poll_patience(
        &self,
        limits: &Limits,
        idle: Duration,
        timer: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let mut timer = timer;
        loop {
            let deadline = self.deadline(limits, idle);
            let look = match self.upload.get() {
                Upload::Over => deadline,
                // The body is read by another task, which does not tell when it turns from one side to the other.
                Upload::Unasked | Upload::Awaited => {
                    let told = self.told.get();
                    let least = [told.write(), told.read()].into_iter().flatten().min();
                    deadline.min(Instant::now() + least.unwrap_or(limits.upload_timeout).min(limits.upload_timeout))
                }
            };
            ready!(poll_until(look, timer.as_mut(), cx));
            if look >= deadline {
                return Poll::Ready(());
            }
        }
    }
}

/// Ready when the deadline has come. A timer that is too early costs one look here; only one that is too late must be moved.
pub(crate) fn poll_until(deadline: Instant, mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Poll<()> {
    if deadline < timer.deadline() {
        timer.as_mut().reset(deadline);
    }
    ready!(timer.as_mut().poll(cx));
    if deadline > timer.deadline() {
        timer.as_mut().reset(deadline);
        ready!(timer.as_mut().poll(cx));
    }
    Poll::Ready(())
}

/// Longer than anything lasts, and short enough to be added to an instant.
const ENDLESS: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
