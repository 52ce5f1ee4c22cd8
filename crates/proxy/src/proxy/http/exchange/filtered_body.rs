//! A response body that filters of plugins process: data that was collected before the head was sent, then the rest of
//! the source, both through an optional streaming filter.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::activity::Activity;
use super::body_source::{BodySource, ResponseBodyError};
use crate::plugin_api::content_coding::DIGESTS;
use crate::plugin_api::{ReplyStreamError, StreamingFilter};

pub(in crate::proxy) struct FilteredBody {
    /// Data that comes before that of the source.
    collected: Bytes,
    /// The part of the body that is still to be read. None when it has ended.
    rest: Option<BodySource>,
    /// Sent after all data.
    trailers: Option<HeaderMap>,
    /// None when it has ended.
    filter: Option<Box<dyn StreamingFilter>>,
    /// Whether other requests of the worker run before the filter gets more data.
    yields: bool,
}

impl FilteredBody {
    /// A complete body.
    pub(in crate::proxy) fn complete(data: Bytes, trailers: Option<HeaderMap>) -> BodySource {
        match trailers {
            None => BodySource::Local(data),
            Some(_) => BodySource::Filtered(Box::new(FilteredBody {
                collected: data,
                rest: None,
                trailers,
                filter: None,
                yields: false,
            })),
        }
    }

    /// A body whose beginning was already read.
    pub(in crate::proxy) fn partly_read(data: Bytes, rest: BodySource) -> BodySource {
        if data.is_empty() {
            return rest;
        }
        let (rest, trailers, filter) = (Some(rest), None, None);
        BodySource::Filtered(Box::new(FilteredBody { collected: data, rest, trailers, filter, yields: false }))
    }

    /// The body with a streaming filter.
    pub(in crate::proxy) fn streaming(source: BodySource, filter: Box<dyn StreamingFilter>) -> BodySource {
        let (rest, filter) = (Some(source), Some(filter));
        let collected = Bytes::new();
        BodySource::Filtered(Box::new(FilteredBody { collected, rest, trailers: None, filter, yields: false }))
    }

    pub(in crate::proxy) fn poll_next(
        &mut self,
        activity: Option<&Activity>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        loop {
            if std::mem::take(&mut self.yields) {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !self.collected.is_empty() {
                let data = self.next_collected();
                let frame = self.filter_part(data);
                if self.has_failed() {
                    return Poll::Ready(Some(Err(ResponseBodyError::Reply(ReplyStreamError))));
                }
                match frame {
                    Some(frame) => return Poll::Ready(Some(Ok(frame))),
                    None => continue,
                }
            }
            let works_in_parts = self.max_part().is_some();
            let Some(rest) = &mut self.rest else { break };
            let polled = match rest.poll_next(activity, cx) {
                Poll::Pending => return self.pause(),
                Poll::Ready(polled) => polled,
            };
            match polled {
                None => self.end_source(),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if works_in_parts => {
                        let ended = rest.is_end_stream();
                        self.collected = data;
                        if ended {
                            self.end_source();
                        }
                    }
                    Ok(data) => {
                        let ended = rest.is_end_stream();
                        let frame = self.filter_part(data);
                        if ended {
                            self.end_source();
                        }
                        if frame.is_some() {
                            return Poll::Ready(frame.map(Ok));
                        }
                    }
                    Err(frame) => {
                        self.trailers = frame.into_trailers().ok();
                        if self.changes_bytes()
                            && let Some(trailers) = &mut self.trailers
                        {
                            for name in &DIGESTS {
                                trailers.remove(name);
                            }
                        }
                        self.end_source();
                    }
                },
            }
        }
        if let Some(mut filter) = self.filter.take() {
            self.trailers = self.trailers.take().and_then(|trailers| filter.trailers(trailers));
            let end = filter.end();
            if filter.has_failed() {
                return Poll::Ready(Some(Err(ResponseBodyError::Reply(ReplyStreamError))));
            }
            if !end.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(end))));
            }
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    /// The collected data, or the part of it that the filter gets at once.
    fn next_collected(&mut self) -> Bytes {
        let Some(max_bytes) = self.max_part() else { return std::mem::take(&mut self.collected) };
        self.yields = true;
        self.collected.split_to(self.collected.len().min(max_bytes.max(1)))
    }

    /// What is sent while the source has no data: what the filter has kept back.
    fn pause(&mut self) -> Poll<Option<Result<Frame<Bytes>, ResponseBodyError>>> {
        let Some(filter) = &mut self.filter else { return Poll::Pending };
        let data = filter.pause();
        if filter.has_failed() {
            return Poll::Ready(Some(Err(ResponseBodyError::Reply(ReplyStreamError))));
        }
        // The next call polls the source again, which then has the waker.
        if data.is_empty() { Poll::Pending } else { Poll::Ready(Some(Ok(Frame::data(data)))) }
    }

    fn max_part(&self) -> Option<usize> {
        self.filter.as_ref()?.max_part()
    }

    fn has_failed(&self) -> bool {
        self.filter.as_ref().is_some_and(|filter| filter.has_failed())
    }

    /// The frame for a part of the body. None if the filter keeps all of it back.
    fn filter_part(&mut self, data: Bytes) -> Option<Frame<Bytes>> {
        let data = match &mut self.filter {
            Some(filter) => filter.part(data),
            None => data,
        };
        (!data.is_empty()).then(|| Frame::data(data))
    }

    /// Called when the source is complete, so that its connection can be used again at once.
    fn end_source(&mut self) {
        if let Some(rest) = self.rest.take() {
            rest.release();
        }
        // A body of known length is not polled after its last byte.
        if let Some(mut filter) = self.filter.take_if(|filter| filter.keeps_bytes()) {
            filter.end();
        }
    }

    pub(in crate::proxy) fn is_end_stream(&self) -> bool {
        self.collected.is_empty()
            && self.trailers.is_none()
            && self.filter.is_none()
            && self.rest.as_ref().is_none_or(BodySource::is_end_stream)
    }

    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        if self.changes_bytes() || self.trailers.is_some() {
            return SizeHint::default();
        }
        let collected = self.collected.len() as u64;
        let rest = self.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), BodySource::size_hint);
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper.saturating_add(collected));
        }
        hint.set_lower(rest.lower().saturating_add(collected));
        hint
    }

    /// Whether a streaming filter changes the rest of the body.
    pub(in crate::proxy) fn changes_bytes(&self) -> bool {
        self.filter.as_ref().is_some_and(|filter| !filter.keeps_bytes())
    }

    pub(in crate::proxy) fn reads_endpoint(&self) -> bool {
        self.rest.as_ref().is_some_and(BodySource::reads_endpoint)
    }

    pub(in crate::proxy) fn release(self) {
        if let Some(rest) = self.rest {
            rest.release();
        }
    }
}
