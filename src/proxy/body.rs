//! Bodies on their way through: counted, with the back-pressure of whoever reads slower, and never longer or shorter than
//! what was sent.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::activity::Upload;
use super::connection::Peer;
use super::exchange::Exchange;
use super::fault::{Fault, TRUNCATED};
use super::lent::Lent;
use super::mirror::{self, Copies};
use super::silence::Silence;
use super::upgrade::Upgrade;
use crate::upstream::Connection;

/// The body of a request, as it goes to an endpoint.
pub(crate) struct RequestBody {
    incoming: Option<Incoming>,
    http2: bool,
    /// What few requests need, so that the others do not carry it.
    extra: Option<Box<Extra>>,
    peer: Rc<Peer>,
}

#[derive(Default)]
struct Extra {
    /// What was read before it was sent. It goes first.
    ahead: Bytes,
    trailers: Option<HeaderMap>,
    /// Takes a copy of what passes.
    copies: Option<Copies>,
    /// How many bytes more there may be.
    left: Option<u64>,
    /// The body is there, and then nothing else of this is.
    lent: Option<Rc<Lent>>,
}

impl RequestBody {
    /// `version` is that of the request.
    pub(crate) fn new(incoming: Incoming, version: Version, peer: &Rc<Peer>) -> Self {
        let incoming = (!incoming.is_end_stream()).then_some(incoming);
        peer.activity.upload.set(if incoming.is_some() { Upload::Unasked } else { Upload::Over });
        RequestBody { incoming, http2: version == Version::HTTP_2, extra: None, peer: Rc::clone(peer) }
    }

    /// No body, for a request whose own is elsewhere.
    pub(crate) fn none(peer: &Rc<Peer>) -> Self {
        RequestBody { incoming: None, http2: false, extra: None, peer: Rc::clone(peer) }
    }

    /// Cuts it off when there is more of it than that. One that says so itself is not begun with.
    pub(crate) fn limit(&mut self, most: u64) -> Result<(), Fault> {
        let left = most.checked_sub(self.ahead().len() as u64).filter(|_| self.size_hint().lower() <= most);
        let left = left.ok_or(Fault::TooLarge)?;
        if self.incoming.is_some() {
            self.extra.get_or_insert_default().left = Some(left);
        }
        Ok(())
    }

    /// Whether nothing of it is still to come.
    pub(crate) fn is_read(&self) -> bool {
        self.incoming.is_none()
    }

    /// What was read ahead.
    pub(crate) fn ahead(&self) -> Bytes {
        self.extra.as_ref().map(|extra| extra.ahead.clone()).unwrap_or_default()
    }

    /// Sends something else in place of what was read ahead, which is the whole body.
    pub(crate) fn replace(&mut self, body: Bytes) {
        debug_assert!(self.is_read(), "the rest of the old body would follow the new one");
        self.extra.get_or_insert_default().ahead = body;
    }

    /// The same body for a request that may be sent a second time: it has none, or was read ahead as a whole.
    pub(crate) fn again(&self) -> Self {
        let ahead = self.extra.as_ref().map(|extra| extra.ahead.clone()).filter(|ahead| !ahead.is_empty());
        let extra = ahead.map(|ahead| Box::new(Extra { ahead, ..Extra::default() }));
        RequestBody { incoming: None, http2: self.http2, extra, peer: Rc::clone(&self.peer) }
    }

    /// The same body for a request that may be sent again if the endpoint says that it has not looked at it. Only one of the
    /// two can be sent: this one, or the other after it was recalled. What has passed is kept up to `most` bytes.
    pub(crate) fn lend(&mut self, most: usize) -> Self {
        let peer = || Rc::clone(&self.peer);
        let borrower = |lent, peer| {
            let extra = Extra { lent: Some(lent), ..Extra::default() };
            RequestBody { incoming: None, http2: false, extra: Some(Box::new(extra)), peer }
        };
        if let Some(lent) = self.lent() {
            return borrower(Rc::clone(lent), peer());
        }
        let other = peer();
        let body = std::mem::replace(self, RequestBody { incoming: None, http2: false, extra: None, peer: peer() });
        let lent = Lent::new(body, most);
        *self = borrower(Rc::clone(&lent), Rc::clone(&other));
        borrower(lent, other)
    }

    /// Takes the body back from where it was lent to. None if some of it is gone.
    pub(crate) fn recall(self) -> Option<Self> {
        match self.lent() {
            Some(lent) => lent.recall(),
            None => Some(self),
        }
    }

    fn lent(&self) -> Option<&Rc<Lent>> {
        self.extra.as_ref()?.lent.as_ref()
    }

    /// What has passed comes once more.
    pub(super) fn put_back(&mut self, data: Bytes, trailers: Option<HeaderMap>) {
        if data.is_empty() && trailers.is_none() {
            return;
        }
        let extra = self.extra.get_or_insert_default();
        if !data.is_empty() {
            // What was read ahead has passed with it, since it comes first and at once.
            extra.ahead = data;
        }
        if trailers.is_some() {
            extra.trailers = trailers;
        }
    }

    /// Reads up to its end, if that is not further than `most` bytes away, and says whether it is. What was read is sent as
    /// if it came now. A body with trailers is not taken for a whole one.
    pub(crate) async fn read_ahead(&mut self, most: usize) -> Result<bool, BrokenUpload> {
        let fits = |length: u64| usize::try_from(length).is_ok_and(|length| length <= most);
        if !fits(self.size_hint().lower()) {
            return Ok(false);
        }
        let mut ahead = BytesMut::new();
        let mut trailers = None;
        while self.incoming.is_some() && ahead.len() <= most {
            match poll_fn(|cx| Pin::new(&mut *self).poll_frame(cx)).await {
                None => break,
                Some(frame) => match frame?.into_data() {
                    Ok(data) => ahead.extend_from_slice(&data),
                    Err(frame) => trailers = frame.into_trailers().ok(),
                },
            }
        }
        let whole = self.incoming.is_none() && ahead.len() <= most && trailers.is_none();
        let extra = self.extra.get_or_insert_default();
        (extra.ahead, extra.trailers) = (ahead.freeze(), trailers);
        Ok(whole)
    }

    /// Has copies of the request sent when the body has come to its end.
    pub(crate) fn copy_to(&mut self, copy: mirror::Copy) {
        let extra = self.extra.get_or_insert_default();
        extra.copies.get_or_insert_default().add(copy);
    }

    fn end(&mut self) {
        self.incoming = None;
        if let Some(extra) = &mut self.extra
            && let Some(copies) = extra.copies.take()
        {
            copies.send();
        }
        self.peer.activity.upload.set(Upload::Over);
        self.peer.activity.moved();
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BrokenUpload;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenUpload>>> {
        let this = self.get_mut();
        if let Some(lent) = this.lent() {
            return lent.poll_frame(cx);
        }
        if let Some(extra) = &mut this.extra
            && !extra.ahead.is_empty()
        {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut extra.ahead)))));
        }
        let Some(incoming) = &mut this.incoming else {
            let trailers = this.extra.as_mut().and_then(|extra| extra.trailers.take());
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        };
        if this.peer.activity.is_abandoned(cx) {
            return Poll::Ready(Some(Err(BrokenUpload::Abandoned)));
        }
        let Poll::Ready(frame) = Pin::new(incoming).poll_frame(cx) else {
            this.peer.activity.await_client();
            return Poll::Pending;
        };
        this.peer.activity.upload.set(Upload::Unasked);
        // The guard has seen these bytes before hyper made something of them.
        if this.peer.activity.refused().is_some() {
            this.peer.activity.broken.set(true);
            return Poll::Ready(Some(Err(BrokenUpload::Refused)));
        }
        match frame {
            Some(Ok(frame)) => {
                let activity = &this.peer.activity;
                if let Some(data) = frame.data_ref() {
                    activity.bytes_in.set(activity.bytes_in.get() + data.len() as u64);
                    if let Some(extra) = &mut this.extra {
                        if let Some(left) = &mut extra.left {
                            let Some(rest) = left.checked_sub(data.len() as u64) else {
                                activity.oversized.set(true);
                                return Poll::Ready(Some(Err(BrokenUpload::TooLarge)));
                            };
                            *left = rest;
                        }
                        mirror::Copies::take_in(&mut extra.copies, data);
                    }
                }
                activity.moved();
                // Trailers are the last there is, also where hyper does not say so.
                if frame.is_trailers() || is_whole(this.incoming.as_ref()) {
                    this.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                this.peer.activity.broken.set(true);
                Poll::Ready(Some(Err(BrokenUpload::Cut(error))))
            }
            None if this.http2 && !is_whole(this.incoming.as_ref()) => {
                this.peer.activity.broken.set(true);
                Poll::Ready(Some(Err(BrokenUpload::Reset)))
            }
            None => {
                this.end();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        if let Some(lent) = self.lent() {
            return lent.is_end_stream();
        }
        self.incoming.as_ref().is_none_or(Incoming::is_end_stream)
            && self.extra.as_ref().is_none_or(|extra| extra.ahead.is_empty() && extra.trailers.is_none())
    }

    fn size_hint(&self) -> SizeHint {
        if let Some(lent) = self.lent() {
            return lent.size_hint();
        }
        let rest = self.incoming.as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint);
        let Some(extra) = &self.extra else { return rest };
        if extra.trailers.is_some() {
            // Only a body of unknown length has room for them.
            return SizeHint::default();
        }
        let ahead = extra.ahead.len() as u64;
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + ahead);
        }
        hint.set_lower(rest.lower() + ahead);
        hint
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if self.incoming.is_some() {
            self.peer.activity.unread.set(true);
            self.peer.activity.upload.set(Upload::Over);
        }
    }
}

/// Whether a body of HTTP/2 that gives nothing more has come to its end. hyper takes a stream or connection that ends with
/// NO_ERROR for the end of the body, too; only the flag of the last frame says that nothing is missing.
fn is_whole(incoming: Option<&Incoming>) -> bool {
    incoming.is_none_or(Incoming::is_end_stream)
}

/// Why the body of a request does not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokenUpload {
    #[error("the body of the request is broken or cut short: {0}")]
    Cut(hyper::Error),
    #[error("the client took the request back in the middle of its body")]
    Reset,
    #[error("the body of the request is longer than it may be")]
    TooLarge,
    #[error("the body of the request can be read in two ways")]
    Refused,
    #[error("the endpoint has not looked at the request, so that its body goes elsewhere")]
    Recalled,
    #[error("the answer is over, so nobody waits for the rest of the request")]
    Abandoned,
}

/// Where the body of an answer comes from.
pub(crate) enum Source {
    /// Our own answer, if it has a body.
    Ours(Bytes),
    Upstream {
        incoming: Incoming,
        /// Goes back to its pool when the body was read to its end.
        connection: Option<Connection<RequestBody>>,
    },
    /// The endpoint switches protocols, as it was asked to.
    Switched(Box<Upgrade>, OnUpgrade),
}

/// The body of an answer, with the entry in the books that its end closes.
pub(crate) struct ResponseBody {
    source: Source,
    /// None if it ends with something else than this body.
    exchange: Option<Exchange>,
    version: Version,
}

impl ResponseBody {
    /// `version` is that of the request: a client of HTTP/1.0 knows the end of a body by the end of the connection.
    pub(crate) fn new(source: Source, exchange: Exchange, version: Version) -> Self {
        ResponseBody { source, exchange: Some(exchange), version }
    }

    /// Of an answer behind which the connection becomes a tunnel.
    pub(crate) fn none() -> Self {
        ResponseBody { source: Source::Ours(Bytes::new()), exchange: None, version: Version::HTTP_11 }
    }

    fn end(&mut self) {
        // What comes after the end, such as a reset, is no business of this body.
        let source = std::mem::replace(&mut self.source, Source::Ours(Bytes::new()));
        if let Source::Upstream { connection: Some(connection), .. } = source {
            connection.keep();
        }
        if let Some(exchange) = &mut self.exchange {
            exchange.close();
        }
    }

    /// The time that the rule gives an endpoint goes on until its last byte, also if it never falls silent. The fault's word
    /// if it is over.
    fn cut_off(&mut self, cx: &mut Context<'_>) -> Option<&'static str> {
        if !matches!(self.source, Source::Upstream { .. }) {
            return None;
        }
        let cut_off = self.exchange.as_mut()?.cut_off.as_mut()?;
        cut_off.sleep.as_mut().poll(cx).is_ready().then(|| cut_off.fault.account().word)
    }

    /// The client is not to take what it has for the whole answer.
    fn break_off(&mut self, fault: &'static str) {
        if let Some(exchange) = &mut self.exchange {
            exchange.fault = Some(fault);
            exchange.peer.activity.reset.set(self.version == Version::HTTP_10);
            exchange.close();
        }
    }

    fn count(&mut self, length: usize) {
        if let Some(exchange) = &mut self.exchange {
            exchange.peer.activity.moved();
            exchange.bytes_out += length as u64;
            if let Some(silence) = &mut *exchange.peer.activity.silence.borrow_mut() {
                silence.end();
            }
        }
    }
}

fn is_silent(exchange: Option<&Exchange>, cx: &mut Context<'_>) -> bool {
    let Some(activity) = exchange.map(|exchange| &exchange.peer.activity) else { return false };
    let Some(limit) = activity.told.get().read() else { return false };
    // Most answers come in one piece, and need no timer.
    let mut silence = activity.silence.borrow_mut();
    silence.get_or_insert_with(|| Silence::lasting(limit)).poll(limit, cx).is_ready()
}

/// The endpoint's body ended before its end. The connection of the client ends with it, so that nobody takes what came for
/// all of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Truncated {
    #[error("the body of the answer is incomplete: {0}")]
    Cut(hyper::Error),
    #[error("the endpoint took the answer back in the middle of its body")]
    Reset,
    #[error("the body of the answer took longer than the rule allows")]
    Late,
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Truncated;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Truncated>>> {
        let this = self.get_mut();
        if let Some(word) = this.cut_off(cx) {
            this.break_off(word);
            return Poll::Ready(Some(Err(Truncated::Late)));
        }
        match &mut this.source {
            Source::Ours(bytes) => {
                let bytes = std::mem::take(bytes);
                this.count(bytes.len());
                this.end();
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Source::Switched(..) => Poll::Ready(None),
            Source::Upstream { incoming, connection } => match Pin::new(&mut *incoming).poll_frame(cx) {
                Poll::Pending if is_silent(this.exchange.as_ref(), cx) => {
                    this.break_off(Fault::AnswerTimeout.account().word);
                    Poll::Ready(Some(Err(Truncated::Late)))
                }
                Poll::Pending => Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => {
                    let ended = frame.is_trailers() || incoming.is_end_stream();
                    this.count(frame.data_ref().map_or(0, Bytes::len));
                    if ended {
                        this.end();
                    }
                    Poll::Ready(Some(Ok(frame)))
                }
                Poll::Ready(Some(Err(error))) => {
                    this.break_off(TRUNCATED);
                    Poll::Ready(Some(Err(Truncated::Cut(error))))
                }
                Poll::Ready(None)
                    if connection.as_ref().is_some_and(Connection::is_http2) && !incoming.is_end_stream() =>
                {
                    this.break_off(TRUNCATED);
                    Poll::Ready(Some(Err(Truncated::Reset)))
                }
                Poll::Ready(None) => {
                    this.end();
                    Poll::Ready(None)
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Ours(bytes) => bytes.is_empty(),
            Source::Upstream { incoming, .. } => incoming.is_end_stream(),
            Source::Switched(..) => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Ours(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Upstream { incoming, .. } => incoming.size_hint(),
            Source::Switched(..) => SizeHint::with_exact(0),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // An answer without a body is never polled, and one of known length not after its last byte.
        if self.is_end_stream() {
            self.end();
        }
    }
}
