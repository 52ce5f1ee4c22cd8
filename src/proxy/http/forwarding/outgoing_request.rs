//! A request on its way to an endpoint: converted to the endpoint's protocol, and kept where it may be sent again.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::header::{CONNECTION, HOST, TE};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, request};
use http_body::Body;
use tokio::time::Instant;

use super::call_deadline;
use super::request_body::RequestBody;
use super::upgrade::Upgrade;
use crate::hop_count::HopCount;
use crate::http1::recycle_map;
use crate::proxy::http::client::client_connection::Peer;
use crate::proxy::http::fields::field_policy::InformationalPolicy;
use crate::proxy::http::fields::header_map_pool::HeaderMapPool;
use crate::proxy::http::fields::hpack;
use crate::proxy::http::record::request_error::RequestError;
use crate::proxy::http::steps::rule_action::Destination;
use crate::upstream::{UpstreamKey, UpstreamProtocol, UpstreamTarget};

pub(in crate::proxy) struct OutgoingRequest<'u> {
    pub(in crate::proxy) peer: Rc<Peer>,
    /// Where to send it, including the TLS server name.
    pub(in crate::proxy) target: UpstreamTarget<'u>,
    /// The endpoint of the session, until the first attempt.
    pub(in crate::proxy) session_endpoint: Option<SocketAddr>,
    /// The upgrade to request, until the endpoint accepts it.
    pub(in crate::proxy) upgrade: Option<Box<Upgrade>>,
    pub(in crate::proxy) replay: ReplayPolicy,
    /// Which informational responses of the endpoint the client gets.
    pub(in crate::proxy) informational: InformationalPolicy<'u>,
    /// How many Portico processes have forwarded the request, with this one.
    pub(in crate::proxy) hops: HopCount,
    /// When a gRPC call ends. Each attempt passes on what is left.
    call_deadline: Option<Instant>,
    /// The duration of connecting for the last attempt, if it has opened a connection.
    pub(in crate::proxy) connect_time: Option<Duration>,
    /// The request to send. After it was sent: the same, or a copy, if it may be sent again.
    sendable: Option<Request<RequestBody>>,
}

/// Whether a request may be sent again.
#[derive(Clone, Copy, Debug)]
pub(in crate::proxy) struct ReplayPolicy {
    /// The whole request is available: its body is empty or completely buffered.
    pub(in crate::proxy) complete: bool,
    /// The method is idempotent.
    pub(in crate::proxy) idempotent: bool,
    /// Within one attempt, the request may be sent again on a new connection: if a kept-alive connection turns out to
    /// be closed, or if the endpoint did not process the request.
    pub(in crate::proxy) allows_resending: bool,
}

impl ReplayPolicy {
    /// For a request whose body is not buffered.
    pub(in crate::proxy) fn unbuffered(request: &Request<RequestBody>) -> Self {
        ReplayPolicy {
            complete: request.body().is_end_stream(),
            idempotent: is_idempotent(request.method()),
            allows_resending: true,
        }
    }
}

/// What is kept of a request while it is sent.
#[derive(Clone, Copy, Debug)]
enum CopyMode {
    Never,
    /// A full copy, which can be sent a second time in any case.
    Full,
    /// A replay buffer: the request can be sent again if the endpoint did not process it.
    Buffered,
}

impl<'u> OutgoingRequest<'u> {
    /// Converts the request to the HTTP version of the endpoint.
    pub(in crate::proxy) fn new(
        peer: Rc<Peer>,
        destination: Destination<'u>,
        mut request: Request<RequestBody>,
        replay: ReplayPolicy,
    ) -> Result<Self, RequestError> {
        let Destination {
            upstream,
            session_endpoint,
            mut upgrade,
            may_have_te,
            hops,
            client,
            call_deadline,
            timeouts_and_retries: _,
            informational,
        } = destination;
        let tls = upstream.key.tls.as_ref();
        let server_name = tls.and_then(|tls| tls.server_name(request.headers().get(HOST)));
        let target = UpstreamTarget { upstream, server_name, client, handshake_time: Cell::default() };
        match upstream.key.protocol {
            UpstreamProtocol::Http1 => {
                *request.version_mut() = Version::HTTP_11;
                if let Some(upgrade) = &upgrade {
                    upgrade.set_request_headers(request.headers_mut());
                }
                if may_have_te {
                    name_te_in_connection(request.headers_mut());
                }
            }
            UpstreamProtocol::Http2 => {
                if upgrade.take().is_some_and(|upgrade| !upgrade.may_be_ignored()) {
                    return Err(RequestError::UpgradeNotSupported);
                }
                convert_to_http2(&mut request, scheme(&upstream.key), hops)?;
            }
        }
        Ok(OutgoingRequest {
            peer,
            target,
            session_endpoint,
            upgrade,
            replay,
            informational,
            hops,
            call_deadline,
            connect_time: None,
            sendable: Some(request),
        })
    }

    /// Whether there is something to send: the request itself, or what was kept of it when it was sent.
    pub(in crate::proxy) fn can_be_sent(&self) -> bool {
        self.sendable.is_some()
    }

    /// The request to send now, and the body for sending it a second time, if that is allowed. Its head is to be kept
    /// with [`Self::keep_copy`] or [`Self::keep_head`].
    pub(in crate::proxy) fn take(&mut self) -> (Request<RequestBody>, Option<RequestBody>) {
        let mut original =
            self.sendable.take().expect("an unsent request is put back, and a sent one is repeated only with a copy");
        if let Some(deadline) = self.call_deadline {
            call_deadline::set_remaining(original.headers_mut(), deadline);
        }
        let body = match self.copy_mode() {
            CopyMode::Never => None,
            CopyMode::Full => Some(original.body().duplicate()),
            CopyMode::Buffered => {
                let (max_bytes, key) = (self.peer.http.worker.limits.max_replay_body, &self.target.upstream.key);
                Some(original.body_mut().share_for_replay(max_bytes, &key.namespace))
            }
        };
        (original, body)
    }

    /// Keeps a copy of a request that is about to be sent, if there is a body for sending it again.
    pub(in crate::proxy) fn keep_copy(&mut self, request: &Request<RequestBody>, body: Option<RequestBody>) {
        self.sendable = body.map(|body| copy_request(request, body, &self.peer.http.header_maps));
    }

    /// Keeps the head of a request that is being sent, if there is a body for sending it again.
    pub(in crate::proxy) fn keep_head(&mut self, head: request::Parts, body: Option<RequestBody>) {
        match body {
            Some(body) => self.sendable = Some(Request::from_parts(head, body)),
            None => recycle_map(head.headers),
        }
    }

    /// Takes back a request of which nothing was sent.
    pub(in crate::proxy) fn put_back(&mut self, unsent: Request<RequestBody>) {
        self.sendable = Some(unsent);
    }

    /// After a failure, prepares the copy to be sent. A copy with a replay buffer gets back the body data that was sent
    /// if the endpoint did not process the request, and is dropped otherwise.
    pub(in crate::proxy) fn restore_body(&mut self, was_not_processed: bool) {
        if let CopyMode::Buffered = self.copy_mode() {
            let unprocessed = self.sendable.take().filter(|_| was_not_processed);
            self.sendable = unprocessed.and_then(reclaim_body);
        }
    }

    /// Returns the memory of a request that is not sent again.
    pub(in crate::proxy) fn recycle(&mut self) {
        let Some(request) = self.sendable.take() else { return };
        let headers = request.into_parts().0.headers;
        if self.target.upstream.key.protocol == UpstreamProtocol::Http2 {
            self.peer.http.header_maps.put_back(headers);
        } else {
            recycle_map(headers);
        }
    }

    fn copy_mode(&self) -> CopyMode {
        let ReplayPolicy { complete, idempotent, .. } = self.replay;
        match self.target.upstream.key.protocol {
            // An HTTP/2 endpoint can report that it did not process a request, whatever the method.
            UpstreamProtocol::Http2 if !complete => CopyMode::Buffered,
            UpstreamProtocol::Http2 => CopyMode::Full,
            UpstreamProtocol::Http1 if complete && idempotent => CopyMode::Full,
            UpstreamProtocol::Http1 => CopyMode::Never,
        }
    }
}

/// Adds `Connection: TE` to an HTTP/1 request with `TE`, so that no later proxy forwards the field (RFC 9110, section
/// 10.1.4).
pub(in crate::proxy) fn name_te_in_connection(headers: &mut HeaderMap) {
    if headers.contains_key(TE) {
        headers.append(CONNECTION, HeaderValue::from_static("TE"));
    }
}

/// Converts a request to HTTP/2, which carries the host and the scheme as part of the target. The library writes the
/// header, so it gets the number of hops here.
pub(in crate::proxy) fn convert_to_http2<B>(
    request: &mut Request<B>,
    scheme: Scheme,
    hops: HopCount,
) -> Result<(), RequestError> {
    let host = request.headers_mut().remove(HOST).ok_or(RequestError::InvalidRewrite)?;
    let mut target = std::mem::take(request.uri_mut()).into_parts();
    target.authority = Some(Authority::try_from(host.as_bytes()).map_err(|_| RequestError::InvalidRewrite)?);
    target.scheme = Some(scheme);
    *request.uri_mut() = Uri::from_parts(target).map_err(|_| RequestError::InvalidRewrite)?;
    *request.version_mut() = Version::HTTP_2;
    hops.set(request.headers_mut());
    hpack::mark_changing_values(request.headers_mut());
    Ok(())
}

pub(in crate::proxy) fn scheme(key: &UpstreamKey) -> Scheme {
    if key.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP }
}

fn copy_request(
    request: &Request<RequestBody>,
    body: RequestBody,
    header_maps: &HeaderMapPool,
) -> Request<RequestBody> {
    let mut copy = Request::new(body);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = header_maps.copy(request.headers());
    copy
}

fn reclaim_body(request: Request<RequestBody>) -> Option<Request<RequestBody>> {
    let (head, body) = request.into_parts();
    Some(Request::from_parts(head, body.reclaim()?))
}

/// Whether the method is idempotent (RFC 9110, section 9.2.2).
pub(in crate::proxy) fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE, Method::TRACE].contains(method)
}
