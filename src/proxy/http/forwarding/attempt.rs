//! One attempt to get a response from one endpoint, over pooled connections or else a new one.

use std::net::SocketAddr;
use std::rc::Rc;

use h2::Reason;
use http::{Response, StatusCode, Version};
use tokio::time::{Instant, timeout_at};

use super::outgoing_request::OutgoingRequest;
use super::request_body::RequestBody;
use crate::proxy::http::client::activity::{BodyFailure, UploadState, until_timed_out};
use crate::proxy::http::client::client_connection::Peer;
use crate::proxy::http::client::response_body::BodySource;
use crate::proxy::http::fields::field_policy::ConnectionFields;
use crate::proxy::http::fields::framing;
use crate::proxy::http::fields::headers::strip_hop_by_hop;
use crate::proxy::http::record::request_error::RequestError;
use crate::upstream::tls::UpstreamHandshakeError;
use crate::upstream::{
    ConnectError, EndpointBody, EndpointError, IdleReuse, IncomingBody, RequestFailure, UpstreamConnection,
};

type EndpointConnection = UpstreamConnection<RequestBody>;

impl<'u> OutgoingRequest<'u> {
    /// Sends the request to this endpoint. A new connection must be established by `connect_deadline`.
    pub(in crate::proxy) async fn attempt(
        &mut self,
        address: SocketAddr,
        connect_deadline: Option<Instant>,
    ) -> Result<Response<BodySource>, AttemptError> {
        let mut may_resend_unprocessed = self.replay.allows_resending;
        if let Some(outcome) = self.send_on_idle(address, &mut may_resend_unprocessed).await {
            return outcome;
        }
        let mut unsent_left = MAX_UNSENT;
        loop {
            // Boxed: connecting is rare, and its state would otherwise enlarge the future of every client connection.
            let began = Instant::now();
            let connected = Box::pin(self.connect(address, connect_deadline)).await;
            self.connect_time = Some(began.elapsed());
            let connection = connected?;
            let is_http2 = connection.is_http2();
            match self.send(connection).await {
                Err(AttemptError::NotProcessed) if may_resend_unprocessed && self.can_be_sent() => {
                    may_resend_unprocessed = false;
                    self.peer.http.pools.count_replay();
                }
                // Another request has opened the connection, and the endpoint has announced its end since.
                Err(AttemptError::NotSent) if is_http2 && unsent_left > 0 => unsent_left -= 1,
                outcome => return outcome,
            }
        }
    }

    /// Sends the request on a kept-alive connection. Returns None if the request must be sent on a new connection.
    async fn send_on_idle(
        &mut self,
        address: SocketAddr,
        may_resend_unprocessed: &mut bool,
    ) -> Option<Result<Response<BodySource>, AttemptError>> {
        let may_resend_after_close = self.replay.complete && self.replay.idempotent && self.replay.allows_resending;
        let reuse = if may_resend_after_close { IdleReuse::Any } else { IdleReuse::Recent };
        loop {
            let connection = self.peer.http.pools.take_idle(&self.target, address, reuse)?;
            match self.send(connection).await {
                Err(AttemptError::NotSent) => {}
                Err(AttemptError::NotProcessed) if *may_resend_unprocessed && self.can_be_sent() => {
                    *may_resend_unprocessed = false;
                    self.peer.http.pools.count_replay();
                    return None;
                }
                Err(AttemptError::NoResponse) if may_resend_after_close => {
                    self.peer.http.pools.count_replay();
                    // If one connection is stale, other kept-alive ones may be too.
                    return None;
                }
                outcome => {
                    if outcome.is_ok() {
                        self.target.upstream.record_success(address);
                    }
                    return Some(outcome);
                }
            }
        }
    }

    async fn connect(
        &self,
        address: SocketAddr,
        attempt_deadline: Option<Instant>,
    ) -> Result<EndpointConnection, AttemptError> {
        let (activity, pools) = (&self.peer.activity, &self.peer.http.pools);
        activity.connecting.set(true);
        let connect = async {
            let rule_timeout = activity.rule_timeouts.get().connect();
            let connecting = pools.connect(&self.target, address, rule_timeout);
            let rule_deadline = rule_timeout.map(|timeout| Instant::now() + timeout);
            let deadline = [attempt_deadline, rule_deadline].into_iter().flatten().min();
            let Some(deadline) = deadline else { return connecting.await };
            let began = Instant::now();
            // A timeout of the rule does not count against the endpoint's health; only the global connect timeout does.
            timeout_at(deadline, connecting)
                .await
                .unwrap_or_else(|_| Err(ConnectError::TimedOut(address, began.elapsed())))
        };
        let Some(connected) = until_timed_out(activity, connect).await else {
            return Err(AttemptError::NotConnected(RequestError::ConnectTimeout));
        };
        activity.connecting.set(false);
        if !activity.rule_timeouts.get().is_unset() {
            // The write and read timeouts start here.
            activity.record_progress();
        }
        connected.map_err(|error| {
            tracing::debug!(%error, upstream = %self.target.upstream.key, "Cannot connect");
            AttemptError::from_connect_error(&error)
        })
    }

    /// Begins to send the request, and keeps what a second attempt needs. Not a part of [`Self::send`], whose future
    /// would contain the head.
    fn begin_sending<'c>(
        &mut self,
        connection: &'c mut EndpointConnection,
        peer: &'c Peer,
    ) -> impl Future<Output = Result<Response<IncomingBody>, RequestFailure<RequestBody>>> + use<'c, 'u> {
        let (request, mut kept_body) = self.take();
        if connection.is_http2() {
            self.keep_copy(&request, kept_body.take());
        }
        let informational = self.informational.clone();
        let (head, sending) =
            connection.send(request, self.hops, move |head| peer.queue_informational(head, &informational));
        if let Some(head) = head {
            self.keep_head(head, kept_body);
        }
        sending
    }

    async fn send(&mut self, mut connection: EndpointConnection) -> Result<Response<BodySource>, AttemptError> {
        let peer = Rc::clone(&self.peer);
        let outcome = until_timed_out(&peer.activity, self.begin_sending(&mut connection, &peer)).await;
        match outcome {
            None if self.peer.activity.upload.get() == UploadState::AwaitingClient => {
                Err(AttemptError::Failed(self.peer.activity.body_timeout_error()))
            }
            None => Err(AttemptError::Failed(RequestError::ResponseTimeout)),
            Some(Ok(response)) => self.accept_response(response, connection),
            Some(Err(error)) => Err(self.send_error(error, &connection)),
        }
    }

    /// Why there is no response. Afterwards [`OutgoingRequest::can_be_sent`] says whether the request can be repeated.
    fn send_error(&mut self, error: RequestFailure<RequestBody>, connection: &EndpointConnection) -> AttemptError {
        let error = match error {
            RequestFailure::Failed(error) => error,
            RequestFailure::Unsent(request) => {
                connection.retire();
                self.put_back(*request);
                return AttemptError::NotSent;
            }
        };
        match self.peer.activity.body_failure.get() {
            Some(BodyFailure::TooLarge) => return AttemptError::Failed(RequestError::BodyTooLarge),
            Some(BodyFailure::Invalid) => return AttemptError::Failed(RequestError::InvalidBody),
            None => {}
        }
        tracing::debug!(%error, address = %connection.address, "No response");
        if http2_error(&error).is_some_and(h2::Error::is_go_away) {
            connection.retire();
        }
        let error = match AttemptError::from_endpoint_error(&error) {
            // In TLS 1.3, an endpoint rejects a client certificate only after the handshake.
            AttemptError::NoResponse if connection.was_rejected() => AttemptError::Failed(RequestError::TlsHandshake),
            // An endpoint that has begun to respond has processed the request.
            AttemptError::NoResponse if connection.has_begun_response() => {
                AttemptError::Failed(RequestError::NoResponse)
            }
            error => error,
        };
        self.restore_body(matches!(error, AttemptError::NotProcessed));
        error
    }

    /// Checks the head of the response and removes its hop-by-hop headers.
    fn accept_response(
        &mut self,
        mut response: Response<IncomingBody>,
        connection: EndpointConnection,
    ) -> Result<Response<BodySource>, AttemptError> {
        const INVALID: AttemptError = AttemptError::Failed(RequestError::InvalidResponse);
        if response.headers().len() > self.peer.worker().limits.max_response_fields {
            return Err(INVALID);
        }
        let switched = if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            // A 101 for a protocol that was not requested is an invalid response.
            let upgrade = self.upgrade.take().filter(|upgrade| upgrade.is_accepted_by(response.headers()));
            Some(upgrade.ok_or(INVALID)?)
        } else if self.upgrade.as_ref().is_some_and(|upgrade| upgrade.is_misleading(response.status())) {
            return Err(INVALID);
        } else {
            None
        };
        framing::normalize_response(response.headers_mut()).map_err(AttemptError::Failed)?;
        let named = strip_hop_by_hop(response.headers_mut());
        *response.version_mut() = Version::HTTP_11;
        let Some(upgrade) = switched else {
            if !named.is_empty() {
                response.extensions_mut().insert(ConnectionFields(named));
            }
            return Ok(response.map(|incoming| BodySource::Upstream(EndpointBody::new(incoming, connection))));
        };
        let endpoint = connection.into_upgraded().ok_or(INVALID)?;
        Ok(response.map(|_| BodySource::Upgraded(upgrade, Box::new(endpoint))))
    }
}

/// Why an attempt yielded no response.
pub(in crate::proxy) enum AttemptError {
    /// No connection could be established.
    NotConnected(RequestError),
    /// Not a byte of the request was sent; the request was put back.
    NotSent,
    /// The endpoint reports that it did not process the request. It can be sent again if a copy was kept.
    NotProcessed,
    /// The connection closed before the first byte of a response.
    NoResponse,
    Failed(RequestError),
}

impl AttemptError {
    fn from_connect_error(error: &ConnectError) -> Self {
        match error {
            ConnectError::TimedOut(..) | ConnectError::TlsHandshake(_, UpstreamHandshakeError::TimedOut(_)) => {
                AttemptError::NotConnected(RequestError::ConnectTimeout)
            }
            ConnectError::TlsHandshake(..) => AttemptError::NotConnected(RequestError::TlsHandshake),
            ConnectError::NotHttp2(_) => AttemptError::NotConnected(RequestError::InvalidResponse),
            ConnectError::Refused(_) | ConnectError::Failed(..) => {
                AttemptError::NotConnected(RequestError::ConnectionRefused)
            }
            ConnectError::OwnSocket(_) => AttemptError::NotConnected(RequestError::LoopDetected),
            // Another endpoint would need a connection as well.
            ConnectError::LimitReached(..) | ConnectError::LocalShortage(..) => {
                AttemptError::Failed(RequestError::ConnectionLimit)
            }
        }
    }

    fn from_endpoint_error(error: &EndpointError) -> Self {
        let library_error = match error {
            EndpointError::Library(error) => error,
            EndpointError::Closed => return AttemptError::NoResponse,
            EndpointError::Invalid(_) | EndpointError::RequestBody(_) => {
                return AttemptError::Failed(RequestError::InvalidResponse);
            }
        };
        if let Some(error) = http2_error(error) {
            let is_refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
            // After a GOAWAY, streams up to its last stream id continue. h2 reports the error only to later streams,
            // which the endpoint did not process (RFC 9113, section 6.8).
            let is_beyond_last_stream = error.is_go_away();
            return match error {
                error if error.is_remote() && (is_refused || is_beyond_last_stream) => AttemptError::NotProcessed,
                // Any other GOAWAY was sent by this side, because the endpoint violated the protocol.
                error if error.is_io() || error.is_go_away() => AttemptError::NoResponse,
                _ => AttemptError::Failed(RequestError::InvalidResponse),
            };
        }
        let is_io = std::error::Error::source(library_error).is_some_and(|source| source.is::<std::io::Error>());
        let is_closed = library_error.is_canceled() || library_error.is_closed();
        if is_closed || is_io { AttemptError::NoResponse } else { AttemptError::Failed(RequestError::InvalidResponse) }
    }

    /// The error of the request, if the attempt is the last one.
    pub(in crate::proxy) fn request_error(&self) -> RequestError {
        match self {
            AttemptError::NotSent | AttemptError::NotProcessed | AttemptError::NoResponse => RequestError::NoResponse,
            AttemptError::NotConnected(error) | AttemptError::Failed(error) => *error,
        }
    }

    /// Whether the endpoint certainly did not process the request.
    pub(in crate::proxy) fn was_not_processed(&self) -> bool {
        match self {
            AttemptError::NotConnected(_) | AttemptError::NotSent | AttemptError::NotProcessed => true,
            AttemptError::NoResponse | AttemptError::Failed(_) => false,
        }
    }
}

fn http2_error(error: &EndpointError) -> Option<&h2::Error> {
    let EndpointError::Library(error) = error else { return None };
    std::error::Error::source(error)?.downcast_ref()
}

/// How often a request that was not sent at all may move on to another new HTTP/2 connection.
const MAX_UNSENT: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::LocalShortage;

    #[test]
    fn lack_of_ports_is_reported_as_a_limit_and_not_as_an_error_of_the_endpoint() {
        let address = SocketAddr::from(([127, 0, 0, 1], 80));
        for shortage in [LocalShortage::Descriptors, LocalShortage::Ports, LocalShortage::Memory] {
            let error = AttemptError::from_connect_error(&ConnectError::LocalShortage(address, shortage));
            assert_eq!(error.request_error(), RequestError::ConnectionLimit, "{shortage:?}");
            assert!(!matches!(error, AttemptError::NotConnected(_)), "another endpoint is not tried, {shortage:?}");
        }
    }
}
