//! Minimum data rates of clients: `--client-min-rate` for request bodies, `--response-min-rate` for responses.
//!
//! A rate is the average over the time in which Portico waits for the client: to send more of a body that the endpoint
//! is ready for, or to read more of a response. In total, a client may let Portico wait for a grace period, and for as
//! long as the bytes so far take at the minimum rate. Time in which Portico waits for the endpoint does not count. Nor
//! does a pause, in which Portico does not read an HTTP/2 connection, and does not see what the client has sent.

use std::cell::Cell;
use std::num::NonZeroU64;
use std::time::Duration;

use tokio::time::Instant;

use crate::limits::ProxyLimits;

/// The rates of one HTTP/1 connection or HTTP/2 stream, in its current request.
#[derive(Debug)]
pub(in crate::proxy) struct MinimumRates {
    pub(in crate::proxy) request: Option<RateMeter>,
    pub(in crate::proxy) response: Option<RateMeter>,
    /// How long the connection of an HTTP/2 stream was not read, as far as the rates exclude it.
    paused: Cell<Duration>,
}

impl MinimumRates {
    /// None if there is no minimum rate.
    pub(in crate::proxy) fn new(limits: &ProxyLimits) -> Option<Box<Self>> {
        let meter = |rate| NonZeroU64::new(rate).map(|rate| RateMeter::new(rate, limits.min_rate_grace_period));
        let (request, response) = (meter(limits.client_min_rate), meter(limits.response_min_rate));
        let has_rate = request.is_some() || response.is_some();
        has_rate.then(|| Box::new(MinimumRates { request, response, paused: Cell::new(Duration::ZERO) }))
    }

    /// The connection of this HTTP/2 stream was not read for this long so far. The difference to the last call does not
    /// count.
    pub(in crate::proxy) fn exclude_pauses(&self, paused: Duration) {
        let pause = paused.saturating_sub(self.paused.get());
        self.paused.set(self.paused.get() + pause);
        for meter in [&self.request, &self.response].into_iter().flatten() {
            meter.exclude(pause);
        }
    }

    /// Measures from zero.
    pub(in crate::proxy) fn begin_request(&self) {
        for meter in [&self.request, &self.response].into_iter().flatten() {
            meter.bytes.set(0);
            meter.waited.set(Duration::ZERO);
            meter.waiting_since.set(None);
        }
    }
}

/// The rate in one direction.
#[derive(Debug)]
pub(in crate::proxy) struct RateMeter {
    bytes_per_second: NonZeroU64,
    grace_period: Duration,
    bytes: Cell<u64>,
    /// How long Portico has waited so far.
    waited: Cell<Duration>,
    /// Since when it waits, if it does.
    waiting_since: Cell<Option<Instant>>,
}

impl RateMeter {
    fn new(bytes_per_second: NonZeroU64, grace_period: Duration) -> Self {
        RateMeter {
            bytes_per_second,
            grace_period,
            bytes: Cell::new(0),
            waited: Cell::new(Duration::ZERO),
            waiting_since: Cell::new(None),
        }
    }

    /// Portico waits for the client from now on, if it does not yet.
    pub(in crate::proxy) fn begin_wait(&self) {
        if self.waiting_since.get().is_none() {
            self.waiting_since.set(Some(Instant::now()));
        }
    }

    /// Portico no longer waits for the client.
    pub(in crate::proxy) fn end_wait(&self) {
        if let Some(since) = self.waiting_since.take() {
            self.waited.set(self.waited.get() + since.elapsed());
        }
    }

    /// Subtracts a pause from the current wait, and what exceeds it from those before.
    fn exclude(&self, pause: Duration) {
        let since = self.waiting_since.get();
        let current = since.map_or(Duration::ZERO, |since| since.elapsed().min(pause));
        self.waiting_since.set(since.map(|since| since + current));
        self.waited.set(self.waited.get().saturating_sub(pause - current));
    }

    pub(in crate::proxy) fn add(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes as u64);
    }

    /// When the client is too slow. None while Portico does not wait for it.
    pub(in crate::proxy) fn deadline(&self) -> Option<Instant> {
        let since = self.waiting_since.get()?;
        let milliseconds = self.bytes.get().saturating_mul(1000) / self.bytes_per_second;
        let allowed = self.grace_period + Duration::from_millis(milliseconds).min(MAX_CREDIT);
        Some(since + allowed.saturating_sub(self.waited.get()))
    }

    /// Whether the deadline has passed.
    pub(in crate::proxy) fn is_missed(&self) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= Instant::now())
    }
}

/// Time that can be added to an `Instant`.
const MAX_CREDIT: Duration = Duration::from_secs(365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn rates() -> Box<MinimumRates> {
        let limits = ProxyLimits { client_min_rate: 100, min_rate_grace_period: 10 * SECOND, ..ProxyLimits::default() };
        MinimumRates::new(&limits).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_extend_the_grace_period() {
        let rates = rates();
        let meter = rates.request.as_ref().unwrap();
        meter.begin_wait();
        assert_eq!(meter.deadline(), Some(Instant::now() + 10 * SECOND));
        advance(4 * SECOND).await;
        meter.end_wait();
        meter.add(250);
        meter.begin_wait();
        assert_eq!(meter.deadline(), Some(Instant::now() + 8 * SECOND + SECOND / 2));
        advance(8 * SECOND).await;
        assert!(!meter.is_missed());
        advance(SECOND).await;
        assert!(meter.is_missed());
        rates.begin_request();
        assert_eq!(meter.deadline(), None);
        meter.begin_wait();
        assert_eq!(meter.deadline(), Some(Instant::now() + 10 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn waits_for_the_endpoint_do_not_count() {
        let rates = rates();
        let meter = rates.request.as_ref().unwrap();
        meter.begin_wait();
        advance(SECOND).await;
        meter.end_wait();
        advance(1000 * SECOND).await;
        assert!(meter.deadline().is_none() && !meter.is_missed());
        meter.begin_wait();
        assert_eq!(meter.deadline(), Some(Instant::now() + 9 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_do_not_count() {
        let rates = rates();
        rates.exclude_pauses(50 * SECOND);
        let meter = rates.request.as_ref().unwrap();
        meter.begin_wait();
        advance(4 * SECOND).await;
        meter.end_wait();
        meter.begin_wait();
        advance(5 * SECOND).await;
        rates.exclude_pauses(53 * SECOND);
        assert_eq!(meter.deadline(), Some(Instant::now() + 4 * SECOND));
        rates.exclude_pauses(58 * SECOND);
        assert_eq!(meter.deadline(), Some(Instant::now() + 9 * SECOND));
        rates.exclude_pauses(100 * SECOND);
        assert_eq!(meter.deadline(), Some(Instant::now() + 10 * SECOND));
    }

    #[test]
    fn nothing_is_measured_by_default() {
        assert!(MinimumRates::new(&ProxyLimits::default()).is_none());
        assert!(rates().response.is_none());
    }
}
