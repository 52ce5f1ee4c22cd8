//! A response body that is sent at a limited rate. While it waits, nothing is read of its source, so the endpoint waits
//! as well, and no more than one part of the body is kept.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::activity::Activity;
use super::body_source::{BodySource, ResponseBodyError};
use crate::http1::ReceivedFields;
use crate::snapshot::response_rate::ResponseRate;

pub(in crate::proxy) struct PacedBody {
    source: BodySource,
    rate: ResponseRate,
    /// What was read of the source and may not be sent yet.
    part: Bytes,
    sent: u64,
    /// When the body began to be sent.
    began: Option<Instant>,
    /// Ends when more may be sent.
    wait: Option<Pin<Box<Sleep>>>,
}

impl PacedBody {
    /// Limits the rate of a body, unless it is a tunnel or short enough to be sent at once.
    pub(in crate::proxy) fn limit(source: BodySource, rate: ResponseRate) -> BodySource {
        let is_short = || source.size_hint().upper().is_some_and(|bytes| bytes <= rate.allowed(Duration::ZERO));
        if matches!(source, BodySource::Upgraded(..)) || is_short() {
            return source;
        }
        let (began, wait) = (None, None);
        BodySource::Paced(Box::new(PacedBody { source, rate, part: Bytes::new(), sent: 0, began, wait }))
    }

    pub(in crate::proxy) fn poll_next(
        &mut self,
        activity: Option<&Activity>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        if self.part.is_empty() {
            match ready!(self.source.poll_next(activity, cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.part = data,
                    // Trailers have no rate.
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                ended => return Poll::Ready(ended),
            }
        }
        let length = ready!(self.poll_allowed(cx)).min(self.part.len());
        self.sent = self.sent.saturating_add(length as u64);
        Poll::Ready(Some(Ok(Frame::data(self.part.split_to(length)))))
    }

    /// How many bytes may be sent now: at least the rest of the part, or what the rate permits in a fraction of a
    /// second, so that bytes are not sent one by one.
    fn poll_allowed(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        let least = (self.rate.bytes_per_second.get() / PARTS_PER_SECOND).clamp(1, MAX_LEAST);
        let least = least.min(self.part.len() as u64);
        let began = *self.began.get_or_insert_with(Instant::now);
        loop {
            let allowed = self.rate.allowed(began.elapsed()).saturating_sub(self.sent);
            if allowed >= least {
                return Poll::Ready(usize::try_from(allowed).unwrap_or(usize::MAX));
            }
            let time = self.rate.time_of(self.sent.saturating_add(least)).min(MAX_TIME);
            let wait = self.wait.get_or_insert_with(|| Box::pin(sleep_until(began + time)));
            wait.as_mut().reset(began + time);
            ready!(wait.as_mut().poll(cx));
        }
    }

    pub(in crate::proxy) fn has_received_fields(&self) -> bool {
        self.source.has_received_fields()
    }

    pub(in crate::proxy) fn take_received_fields(&self) -> Option<ReceivedFields> {
        self.source.take_received_fields()
    }

    pub(in crate::proxy) fn is_end_stream(&self) -> bool {
        self.part.is_empty() && self.source.is_end_stream()
    }

    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        let (part, source) = (self.part.len() as u64, self.source.size_hint());
        let mut hint = SizeHint::new();
        if let Some(upper) = source.upper() {
            hint.set_upper(upper.saturating_add(part));
        }
        hint.set_lower(source.lower().saturating_add(part));
        hint
    }

    pub(in crate::proxy) fn may_have_trailers(&self) -> bool {
        self.source.may_have_trailers()
    }

    pub(in crate::proxy) fn reads_endpoint(&self) -> bool {
        self.source.reads_endpoint()
    }

    pub(in crate::proxy) fn release(self) {
        self.source.release();
    }
}

/// Into how many parts a second divides what may be sent in it, at most.
const PARTS_PER_SECOND: u64 = 8;
/// A part that is sent in any case at a high rate.
const MAX_LEAST: u64 = 16 * 1024;
/// Time that can be added to an `Instant`.
const MAX_TIME: Duration = Duration::from_secs(365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::num::NonZeroU64;

    use super::*;

    fn rate(bytes_per_second: u64, unlimited_bytes: u64) -> ResponseRate {
        ResponseRate { bytes_per_second: NonZeroU64::new(bytes_per_second).unwrap(), unlimited_bytes }
    }

    /// The lengths of the parts of a body with this length, each with the milliseconds after which it is sent.
    async fn parts(length: usize, rate: ResponseRate) -> Vec<(u128, usize)> {
        let mut body = PacedBody::limit(BodySource::Local(Bytes::from(vec![b'x'; length])), rate);
        let (began, mut parts) = (Instant::now(), Vec::new());
        while !body.is_end_stream() {
            let left = length - parts.iter().map(|(_, length)| length).sum::<usize>();
            assert_eq!(body.size_hint().exact(), Some(left as u64));
            let frame = poll_fn(|cx| body.poll_next(None, cx)).await.unwrap().unwrap();
            parts.push((began.elapsed().as_millis(), frame.into_data().unwrap().len()));
        }
        parts
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_are_sent_at_their_rate() {
        // The milliseconds after which the last part is sent.
        for (length, rate, last) in [
            (1000, rate(1000, 0), 0),
            (1250, rate(1000, 0), 250),
            (1250, rate(1000, 200), 50),
            (3, rate(1, 0), 2000),
            (100_000, rate(1 << 40, 0), 0),
        ] {
            let parts = parts(length, rate).await;
            let mut sent = 0;
            for (milliseconds, part) in &parts {
                sent += *part as u64;
                let elapsed = Duration::from_millis(u64::try_from(*milliseconds).unwrap());
                assert!(sent <= rate.allowed(elapsed), "{length} {rate}: {parts:?}");
            }
            // Timers may be a little late.
            let ended = parts.last().map_or(0, |(milliseconds, _)| *milliseconds);
            assert!((last..last + 10).contains(&ended), "{length} {rate}: {parts:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn large_parts_take_their_time() {
        let sent = parts(100_000, rate(10_000, 0)).await;
        let &(last, _) = sent.last().unwrap();
        assert!((9000..9200).contains(&last), "{last}");
        assert!(sent.len() < 100, "{}", sent.len());
    }

    #[test]
    fn short_bodies_are_not_paced() {
        let local = |length| BodySource::Local(Bytes::from(vec![b'x'; length]));
        assert!(matches!(PacedBody::limit(local(1000), rate(1000, 0)), BodySource::Local(_)));
        assert!(matches!(PacedBody::limit(local(1001), rate(1000, 0)), BodySource::Paced(_)));
    }
}
