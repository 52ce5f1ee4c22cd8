//! A connection from a pool, from sending one request to its return to the pool.

use std::error::Error;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::{Either, FutureExt};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};

use super::UpstreamPool;
use crate::endpoint_tls::UpstreamHandshakeError;
use crate::http1::{AddedFields, ReceivedFields};
use crate::upstream::connect_attempt::warn_handshake;
use crate::upstream::endpoint_body::{IncomingBody, received};
use crate::upstream::endpoint_error::{EndpointError, RequestFailure};
use crate::upstream::http1::Http1EndpointConnection;
use crate::upstream::http2::StreamPermit;
use crate::upstream::socket_budget::client_slots::ClientRequest;
use crate::upstream::upgraded::UpgradedConnection;
use crate::upstream::{ActiveRequest, ConnectError, Outcome, OutcomeClass, Upstream};

/// One connection, ready for one request. Return it with `release` after the response was read to its end.
pub struct UpstreamConnection<B> {
    pub(super) sender: RequestSender<B>,
    pub address: SocketAddr,
    /// Whether the connection had been idle.
    pub(super) is_reused: bool,
    /// Counts the request for least-requests balancing.
    pub(super) _active_request: Option<ActiveRequest>,
    /// Counts the request for its client.
    pub(super) client: ClientRequest,
    pub(super) pool: Rc<UpstreamPool<B>>,
}

pub(super) enum RequestSender<B> {
    Http1(Http1EndpointConnection<B>),
    Http2(StreamPermit<B>),
}

impl<B> UpstreamConnection<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Sends the request and awaits the head of its response. `added` is written with the header, except on HTTP/2,
    /// where the header has these fields already.
    ///
    /// In place of the request, leaves the same one with `kept_body`, if there is one, and None otherwise. On HTTP/2 it
    /// is always None, because the library keeps the head.
    ///
    /// `passes_fields`: the fields of the response may stay lines. They are not in its header map then, and
    /// `take_received_fields` has them.
    ///
    /// Calls `on_informational` with informational responses before the final one, except on HTTP/2, whose library does
    /// not report them.
    ///
    /// # Panics
    ///
    /// If there is no request.
    pub fn send<'c, F: FnMut(Response<()>)>(
        &'c mut self,
        request: &mut Option<Request<B>>,
        kept_body: Option<B>,
        added: AddedFields<'_>,
        passes_fields: bool,
        mut on_informational: F,
    ) -> impl Future<Output = Result<Response<IncomingBody>, RequestFailure<B>>> + use<'c, B, F> {
        match &mut self.sender {
            RequestSender::Http1(connection) => {
                connection.begin(request, kept_body, added, passes_fields);
                let response = poll_fn(move |cx| {
                    let response = connection.poll_response(cx, &mut on_informational).map_err(RequestFailure::Failed);
                    response.map_ok(|response| response.map(|()| IncomingBody::Connection))
                });
                Either::Left(response)
            }
            RequestSender::Http2(permit) => {
                let request = request.take().expect("there is a request to send");
                Either::Right(permit.sender().try_send_request(request).map(received))
            }
        }
    }

    /// Whether the fields of the response are not in its header map, and were not taken.
    pub(in crate::upstream) fn has_received_fields(&self) -> bool {
        matches!(&self.sender, RequestSender::Http1(connection) if connection.has_received_fields())
    }

    /// Takes the fields of the response that are not in its header map.
    pub(in crate::upstream) fn take_received_fields(&self) -> Option<ReceivedFields> {
        match &self.sender {
            RequestSender::Http1(connection) => connection.take_received_fields(),
            RequestSender::Http2(_) => None,
        }
    }

    /// Polls the body of a response that arrives on the connection itself.
    pub(in crate::upstream) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, EndpointError>>> {
        match &mut self.sender {
            RequestSender::Http1(connection) => connection.poll_frame(cx),
            RequestSender::Http2(_) => Poll::Ready(None),
        }
    }

    pub(in crate::upstream) fn body_is_ended(&self) -> bool {
        match &self.sender {
            RequestSender::Http1(connection) => connection.body_is_ended(),
            RequestSender::Http2(_) => true,
        }
    }

    pub(in crate::upstream) fn body_size_hint(&self) -> SizeHint {
        match &self.sender {
            RequestSender::Http1(connection) => connection.body_size_hint(),
            RequestSender::Http2(_) => SizeHint::with_exact(0),
        }
    }

    /// The upstream, unless it was removed meanwhile.
    pub(in crate::upstream) fn upstream(&self) -> Option<Arc<Upstream>> {
        self.pool.upstream.upgrade()
    }

    /// Reports that the whole response was received, unless that changes nothing.
    pub(in crate::upstream) fn report_completed(&self) {
        if self.pool.detection.awaits_completion()
            && let Some(upstream) = self.upstream()
        {
            upstream.report(self.address, &Outcome::of(OutcomeClass::Completed));
        }
    }

    /// Whether a byte of the response was received. Only known for HTTP/1 connections.
    pub fn has_begun_response(&self) -> bool {
        matches!(&self.sender, RequestSender::Http1(connection) if connection.monitor().has_response_data())
    }

    /// Whether the endpoint closed the connection with a TLS alert instead of a response: in TLS 1.3 it rejects a
    /// client certificate only after the handshake. Only known for HTTP/1 connections.
    pub fn was_rejected(&self) -> bool {
        let was_rejected =
            matches!(&self.sender, RequestSender::Http1(connection) if connection.monitor().was_rejected());
        if let (true, Some(upstream)) = (was_rejected, self.pool.upstream.upgrade()) {
            warn_handshake(
                &upstream,
                &ConnectError::TlsHandshake(self.address, UpstreamHandshakeError::RejectedAfterHandshake),
            );
        }
        was_rejected
    }

    /// Excludes an HTTP/2 connection from further requests, because the endpoint has announced its end (GOAWAY). The
    /// library reports it as open as long as it has other streams.
    pub fn retire(&self) {
        if let RequestSender::Http2(permit) = &self.sender {
            permit.retire_connection();
        }
    }

    /// Whether this request reports that the connection ended without a response: the first one on an HTTP/2
    /// connection, since the end of a connection is one failure of the endpoint however many requests it had.
    pub fn claim_failure(&self) -> bool {
        match &self.sender {
            RequestSender::Http1(_) => true,
            RequestSender::Http2(permit) => permit.claim_failure(),
        }
    }

    /// Whether the endpoint ends the connection because of too many frames, such as resets of requests whose clients
    /// have left. That says nothing about this request.
    pub fn has_complaint(&self) -> bool {
        matches!(&self.sender, RequestSender::Http2(permit) if permit.has_complaint())
    }

    /// Whether the connection had been idle, so that the endpoint may be closing it.
    pub fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// Whether the connection is HTTP/2 and shared with other requests.
    pub fn is_http2(&self) -> bool {
        matches!(self.sender, RequestSender::Http2(_))
    }

    /// The endpoint has switched protocols with this response: the connection belongs to a tunnel. None on HTTP/2,
    /// which has no such response.
    pub fn into_upgraded(self) -> Option<UpgradedConnection> {
        match self.sender {
            RequestSender::Http1(connection) => {
                connection.into_upgraded().map(|upgraded| upgraded.counted_for(self.client))
            }
            RequestSender::Http2(_) => None,
        }
    }

    /// Returns the connection to the pool, if it can take another request. To be called only after the whole response:
    /// a connection that is dropped is reset.
    pub fn release(self) {
        let UpstreamConnection { sender, address, client, pool, .. } = self;
        let connection = match sender {
            RequestSender::Http1(connection) => connection,
            // The stream is released by dropping it.
            RequestSender::Http2(permit) => return permit.confirm_connection(pool.detection.marks()),
        };
        if connection.is_sent() {
            if connection.is_reusable() {
                pool.store(address, connection);
            } else {
                connection.monitor().finish_request();
            }
            return;
        }
        // The response is complete but the request is still being written. The task ends at the latest when the
        // connection does.
        tokio::task::spawn_local(async move {
            let _client = client;
            if connection.finish_sending().await {
                pool.store(address, connection);
            }
        });
    }
}
