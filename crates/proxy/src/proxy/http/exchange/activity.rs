//! The state of one exchange: of an HTTP/1 connection and its current request, or of an HTTP/2 stream. The deadlines
//! and the timer of the connection follow from it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::minimum_rate::{MinimumRates, RateMeter};
use super::read_timeout::{ReadTimeout, RuleTimeouts};
use crate::limits::ProxyLimits;
use crate::proxy::http::record::request_error::{RequestError, SLOW_CLIENT};
use crate::turn_clock;
use crate::upstream::{ClientWait, WaitingFor};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum ActivityPhase {
    /// No request is recorded. The last bytes of the response may still be unsent, up to 16 KiB on HTTP/1, and the rest
    /// of the request's body unread.
    Idle,
    /// The first bytes of a request head have arrived.
    ReadingHead,
    /// The request is being sent to an endpoint, or its response is awaited.
    AwaitingResponse,
    /// The response is being sent to the client.
    SendingResponse,
    /// The connection was upgraded and carries another protocol in both directions.
    Tunnel,
}

/// Which side the request body waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum UploadState {
    /// The body is complete, or the request has none.
    Complete,
    /// The endpoint is not ready for more data.
    AwaitingEndpoint,
    /// The endpoint is ready for more data that the client has not sent yet.
    AwaitingClient,
}

/// Why a request body is not sent to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum BodyFailure {
    /// It is malformed or incomplete.
    Invalid,
    /// It exceeded its limit and was cut off.
    TooLarge,
}

/// State shared by the parts of one HTTP/1 connection or one HTTP/2 stream: the socket, the task, the request in
/// progress and the bodies.
#[derive(Debug)]
pub(in crate::proxy) struct Activity {
    phase: Cell<ActivityPhase>,
    /// When the phase began, or last made progress.
    last_progress: Cell<Instant>,
    /// When the request began.
    pub(in crate::proxy) started_at: Cell<Instant>,
    /// Requests begun so far.
    pub(in crate::proxy) requests: Cell<u64>,
    /// Bytes received for the current request: of its body, or through its tunnel.
    pub(in crate::proxy) bytes_in: Cell<u64>,
    upload: Cell<UploadState>,
    /// How long the client was awaited before, and since when it is awaited now.
    client_time: Cell<Duration>,
    client_awaited_since: Cell<Option<Instant>>,
    /// What counts the request while it waits for its client, if the requests of its Service are limited.
    client_wait: RefCell<Option<ClientWait>>,
    /// `client_time` or `client_wait` is set.
    has_waits: Cell<bool>,
    /// When the request body had been read to its end. None without a body.
    pub(in crate::proxy) body_ended_at: Cell<Option<Instant>>,
    /// Why the request body ended early, if it did.
    pub(in crate::proxy) body_failure: Cell<Option<BodyFailure>>,
    /// When forwarding to an endpoint began. Set only for requests with plugins or product headers.
    pub(in crate::proxy) sent_at: Cell<Option<Instant>>,
    /// A request body was not read to its end, so the client may still be sending when the connection closes.
    pub(in crate::proxy) body_unread: Cell<bool>,
    /// The timer expired while a response was awaited; the request handler gives up when it is polled next.
    pub(in crate::proxy) timed_out: Cell<bool>,
    /// The timeouts of the rule.
    pub(in crate::proxy) rule_timeouts: Cell<RuleTimeouts>,
    /// Read timeout within the response body. Set once the body has stalled and the rule has a read timeout.
    pub(in crate::proxy) read_timeout: RefCell<Option<ReadTimeout>>,
    /// The request waits for a connection, which has its own timeout.
    pub(in crate::proxy) connecting: Cell<bool>,
    /// The response body waits for the endpoint, and not for the client to read.
    pub(in crate::proxy) awaits_response_data: Cell<bool>,
    /// Bytes of bodies in memory count for the response until it is sent: its body, or what an encoder takes.
    pub(in crate::proxy) keeps_body: Cell<bool>,
    /// When to check next whether a client that does not read may go on holding a connection to an endpoint, or bytes.
    pub(in crate::proxy) next_stall_check: Cell<Instant>,
    /// When the response must be complete, if the rule has such a timeout.
    pub(in crate::proxy) response_deadline: Cell<Option<Instant>>,
    /// Why the current request is rejected although its head was parsed. It is the last one of its connection.
    pub(in crate::proxy) ambiguity: Cell<Option<RequestError>>,
    /// The head of the current request may have `traceparent` or `tracestate`.
    pub(in crate::proxy) may_have_trace: Cell<bool>,
    /// The HTTP/1 connection is between two requests: the last response is sent, and its request was read.
    pub(in crate::proxy) is_between_requests: Cell<bool>,
    /// Close with a TCP reset, because the client could mistake an orderly close for the end of a body.
    pub(in crate::proxy) reset_on_close: Cell<bool>,
    /// The client sent the HTTP/2 connection preface.
    pub(in crate::proxy) http2: Cell<bool>,
    /// The minimum data rates of the client, if there are some.
    pub(in crate::proxy) rates: Option<Box<MinimumRates>>,
    /// The HTTP/2 stream has ended, so the rest of its request body is not needed.
    body_abandoned: Cell<bool>,
    /// Wakes the reader of the request body.
    body_reader: RefCell<Option<Waker>>,
}

impl Activity {
    pub(in crate::proxy) fn new(limits: &ProxyLimits) -> Self {
        let now = turn_clock::now();
        Activity {
            phase: Cell::new(ActivityPhase::Idle),
            last_progress: Cell::new(now),
            started_at: Cell::new(now),
            requests: Cell::new(0),
            bytes_in: Cell::new(0),
            upload: Cell::new(UploadState::Complete),
            client_time: Cell::default(),
            client_awaited_since: Cell::default(),
            client_wait: RefCell::default(),
            has_waits: Cell::new(false),
            body_ended_at: Cell::default(),
            body_failure: Cell::new(None),
            sent_at: Cell::new(None),
            body_unread: Cell::new(false),
            timed_out: Cell::new(false),
            rule_timeouts: Cell::default(),
            read_timeout: RefCell::default(),
            connecting: Cell::new(false),
            awaits_response_data: Cell::new(false),
            keeps_body: Cell::new(false),
            next_stall_check: Cell::new(now),
            response_deadline: Cell::new(None),
            ambiguity: Cell::new(None),
            may_have_trace: Cell::new(true),
            is_between_requests: Cell::new(true),
            reset_on_close: Cell::new(false),
            http2: Cell::new(false),
            rates: MinimumRates::new(limits),
            body_abandoned: Cell::new(false),
            body_reader: RefCell::default(),
        }
    }

    pub(in crate::proxy) fn phase(&self) -> ActivityPhase {
        self.phase.get()
    }

    /// When the phase began, or last made progress.
    pub(in crate::proxy) fn last_progress(&self) -> Instant {
        self.last_progress.get()
    }

    pub(in crate::proxy) fn enter_phase(&self, phase: ActivityPhase, now: Instant) {
        self.phase.set(phase);
        self.last_progress.set(now);
    }

    /// Whether the connection still carries HTTP/1, as opposed to HTTP/2 or an upgraded protocol.
    pub(in crate::proxy) fn is_http1(&self) -> bool {
        !self.http2.get() && self.phase.get() != ActivityPhase::Tunnel
    }

    /// Restarts the timeout of the phase.
    pub(in crate::proxy) fn record_progress(&self) {
        self.last_progress.set(turn_clock::now());
    }

    /// Bytes arrived from the client.
    pub(in crate::proxy) fn record_read(&self) {
        if self.phase.get() == ActivityPhase::Idle {
            self.enter_phase(ActivityPhase::ReadingHead, turn_clock::now());
        }
    }

    /// Bytes were sent to the client.
    pub(in crate::proxy) fn record_write(&self) {
        if matches!(self.phase.get(), ActivityPhase::SendingResponse | ActivityPhase::Idle) {
            self.record_progress();
        }
    }

    /// The meter of the request body, if it has a minimum rate.
    pub(in crate::proxy) fn request_meter(&self) -> Option<&RateMeter> {
        self.rates.as_ref()?.request.as_ref()
    }

    /// The meter of the response, if it has a minimum rate.
    pub(in crate::proxy) fn response_meter(&self) -> Option<&RateMeter> {
        self.rates.as_ref()?.response.as_ref()
    }

    /// Bytes of the request body were received.
    pub(in crate::proxy) fn record_body(&self, bytes: usize) {
        self.record_progress();
        if let Some(meter) = self.request_meter() {
            meter.add(bytes);
        }
    }

    /// Why the request body has timed out.
    pub(in crate::proxy) fn body_timeout_error(&self) -> RequestError {
        if self.request_meter().is_some_and(RateMeter::is_missed) {
            RequestError::SlowRequestBody
        } else {
            RequestError::RequestBodyTimeout
        }
    }

    /// The reason if the response is aborted because the client is slower than a minimum rate.
    pub(in crate::proxy) fn slow_client_reason(&self) -> Option<&'static str> {
        if self.phase.get() != ActivityPhase::SendingResponse {
            return None;
        }
        self.response_meter().is_some_and(RateMeter::is_missed).then_some(SLOW_CLIENT).or_else(|| {
            let is_slow = self.request_meter().is_some_and(RateMeter::is_missed);
            is_slow.then(|| RequestError::SlowRequestBody.details().reason)
        })
    }

    /// The endpoint is ready for more of the body, but none has arrived.
    pub(in crate::proxy) fn mark_awaiting_client(&self) {
        if let Some(meter) = self.request_meter() {
            meter.begin_wait();
        }
        if self.upload.get() != UploadState::AwaitingClient {
            self.record_progress();
            self.set_upload(UploadState::AwaitingClient);
        }
    }

    /// Which side the request body waits for.
    pub(in crate::proxy) fn upload(&self) -> UploadState {
        self.upload.get()
    }

    pub(in crate::proxy) fn set_upload(&self, state: UploadState) {
        let is_awaited = state == UploadState::AwaitingClient;
        if (self.upload.replace(state) == UploadState::AwaitingClient) == is_awaited {
            return;
        }
        self.has_waits.set(true);
        let now = turn_clock::now();
        if let Some(since) = self.client_awaited_since.replace(is_awaited.then_some(now)) {
            self.client_time.set(self.client_time.get() + now.saturating_duration_since(since));
        }
        self.count_wait();
    }

    /// How long the client was awaited so far, of the current request: the endpoint was ready for more of the body.
    pub(in crate::proxy) fn client_time(&self) -> Duration {
        let since = self.client_awaited_since.get();
        self.client_time.get()
            + since.map_or(Duration::ZERO, |since| turn_clock::now().saturating_duration_since(since))
    }

    /// From now on, the request counts in a different way while its body is awaited.
    pub(in crate::proxy) fn count_waits(&self, wait: &ClientWait) {
        self.client_wait.replace(Some(wait.clone()));
        self.has_waits.set(true);
        self.count_wait();
    }

    fn count_wait(&self) {
        if let Some(wait) = &*self.client_wait.borrow() {
            match self.upload.get() {
                UploadState::AwaitingClient => wait.begin(WaitingFor::RequestBody),
                UploadState::AwaitingEndpoint | UploadState::Complete => wait.end(WaitingFor::RequestBody),
            }
        }
    }

    /// More of the body, its end or an error has arrived, and waits for the endpoint.
    pub(in crate::proxy) fn mark_awaiting_endpoint(&self) {
        if let Some(meter) = self.request_meter() {
            meter.end_wait();
        }
        self.set_upload(UploadState::AwaitingEndpoint);
    }

    /// The rest of the body is not read. If the client was too slow, that remains the reason for which the request
    /// fails.
    pub(in crate::proxy) fn mark_body_unread(&self) {
        if let Some(meter) = self.request_meter()
            && !meter.is_missed()
        {
            meter.end_wait();
        }
        self.body_unread.set(true);
        self.set_upload(UploadState::Complete);
    }

    /// When the first byte of the current request head arrived. None unless a head is being read.
    pub(in crate::proxy) fn head_started_at(&self) -> Option<Instant> {
        (self.phase.get() == ActivityPhase::ReadingHead).then(|| self.last_progress.get())
    }

    /// Resets the state for a request whose head is complete. Its duration counts from the first byte of the head,
    /// unless that byte was read together with the previous request.
    pub(in crate::proxy) fn begin_request(&self) {
        let now = turn_clock::now();
        self.started_at.set(if self.phase.get() == ActivityPhase::ReadingHead {
            self.last_progress.get()
        } else {
            now
        });
        self.requests.set(self.requests.get() + 1);
        self.bytes_in.set(0);
        self.set_upload(UploadState::Complete);
        if self.has_waits.take() {
            self.client_time.set(Duration::ZERO);
            self.client_wait.take();
        }
        self.body_ended_at.set(None);
        self.body_failure.set(None);
        self.sent_at.set(None);
        self.body_unread.set(false);
        self.timed_out.set(false);
        self.rule_timeouts.set(RuleTimeouts::default());
        self.read_timeout.take();
        self.connecting.set(false);
        self.awaits_response_data.set(false);
        self.keeps_body.set(false);
        self.response_deadline.set(None);
        if let Some(rates) = &self.rates {
            rates.begin_request();
        }
        self.enter_phase(ActivityPhase::AwaitingResponse, now);
    }

    /// The connection of this new HTTP/2 stream was not read for this long so far.
    pub(in crate::proxy) fn begin_stream(&self, paused: impl FnOnce() -> Duration) {
        if let Some(rates) = &self.rates {
            rates.exclude_pauses(paused());
        }
    }

    /// Ends the request body with an error for its current reader.
    pub(in crate::proxy) fn abandon_body(&self) {
        self.body_abandoned.set(true);
        if let Some(waker) = self.body_reader.take() {
            waker.wake();
        }
    }

    /// Whether the request body was abandoned. If not, registers the reader to be woken when it is.
    pub(in crate::proxy) fn is_body_abandoned(&self, cx: &Context<'_>) -> bool {
        if !self.body_abandoned.get() {
            let mut reader = self.body_reader.borrow_mut();
            if reader.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
                *reader = Some(cx.waker().clone());
            }
        }
        self.body_abandoned.get()
    }
}

/// Awaits the future, which is pinned where it is. Returns None once the connection's timer has expired, which sets
/// `timed_out` and wakes this task.
pub(in crate::proxy) fn until_timed_out<T>(
    activity: &Activity,
    mut future: impl Future<Output = T> + Unpin,
) -> impl Future<Output = Option<T>> {
    poll_fn(move |cx| match Pin::new(&mut future).poll(cx) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending if activity.timed_out.get() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
}
