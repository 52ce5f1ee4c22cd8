//! A request on its way to an endpoint: converted to the endpoint's protocol, and kept where it may be sent again.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, HOST, TE};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Request, Uri, Version};
use http_body::Body;
use tokio::time::Instant;

use super::arrival::{arrival_of, read_before_trial};
use super::attempt_policy::{AttemptPolicy, ReplayPolicy};
use super::call_deadline;
use super::caller::{Caller, RepeatableBody};
use super::destination::Destination;
use super::upgrade::Upgrade;
use crate::endpoint_tls::UpstreamProtocol;
use crate::fast_cgi::FastCgiParams;
use crate::forwarding_fields::ForwardingFields;
use crate::hop_count::HopCount;
use crate::http1::{AddedFields, recycle_map};
use crate::plugin_api::trace::EndpointTrace;
use crate::proxy::http::fields::field_policy::InformationalPolicy;
use crate::proxy::http::fields::header_map_pool::HeaderMapPool;
use crate::proxy::http::fields::hpack;
use crate::proxy::http::record::request_error::RequestError;
use crate::snapshot::rule::RouteFailure;
use crate::turn_clock;
use crate::upstream::{
    Admission, EndpointSearch, EndpointTime, GivenTime, OutcomeObservers, RequestArrival, RetryCounters, UpstreamKey,
    UpstreamTarget,
};

pub(in crate::proxy) struct OutgoingRequest<'u, C: Caller> {
    pub(super) caller: Rc<C>,
    /// Where to send it, including the TLS server name.
    pub(super) target: UpstreamTarget<'u>,
    /// The endpoints that get it, one after the other.
    pub(super) search: EndpointSearch,
    pub(super) policy: AttemptPolicy<'u>,
    /// The upgrade to request, until the endpoint accepts it.
    pub(super) upgrade: Option<Box<Upgrade>>,
    pub(super) replay: ReplayPolicy,
    /// Which informational responses of the endpoint the client gets.
    pub(super) informational: InformationalPolicy<'u>,
    /// How many Portico processes have forwarded the request, with this one.
    pub(super) hops: HopCount,
    /// The client limits the time of its gRPC call. Only known if statuses count.
    pub(super) has_client_deadline: bool,
    /// What is sent of the body is kept: an HTTP/1 endpoint may close the connection instead of a response, and the
    /// request may be sent again then.
    pub(super) keeps_body: bool,
    /// Whether an endpoint may have processed the request, or it has failed for a reason that is the same at another
    /// upstream.
    pub(super) is_settled: bool,
    pub(super) state: AttemptState,
    /// The endpoint of the attempt. Here, and not an argument, which each future would keep.
    pub(super) endpoint: SocketAddr,
    /// When the attempt must be complete, with its response.
    pub(super) attempt_deadline: Option<Instant>,
    /// The admission to the upstream, if the request had it before.
    pub(super) admitted: Option<Box<Admission>>,
    /// What the upstream has admitted.
    pub(super) admission: Admission,
    pub(super) trace: EndpointTrace,
    /// The forwarding fields, unless the header has them.
    forwarding: Option<ForwardingFields<'u>>,
    /// The number of the attempt, from 1.
    pub(super) number: u32,
    /// The fields of the response may stay lines, which its body then has.
    pub(in crate::proxy) passes_fields: bool,
    /// The request to send. After it was sent: the same, or a copy, if it may be sent again.
    pub(super) sendable: Option<Request<C::Body>>,
}

/// What is known of the last attempt. Each one begins with the default.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AttemptState {
    /// The duration of connecting, if the attempt has opened a connection.
    pub(super) connect_time: Option<Duration>,
    /// It waits for a connection.
    pub(super) is_connecting: bool,
    /// Another request has reported its failure, which is that of their connection.
    pub(super) is_repeated_failure: bool,
    /// The endpoint has reset the connection instead of a response.
    pub(super) was_reset: bool,
    /// The endpoint has given up the attempt while it waited for the client.
    pub(super) was_awaiting_client: bool,
    /// After how long connecting was given up because of a timeout that is not that of connections.
    pub(super) connect_limit: Option<Duration>,
    /// How long the client had been awaited when the attempt began.
    client_time_before: Duration,
}

/// What is left of a request that no endpoint has got.
pub(in crate::proxy) struct UnsentRequest<B> {
    pub(in crate::proxy) body: B,
    pub(in crate::proxy) upgrade: Option<Box<Upgrade>>,
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

impl<'u, C: Caller> OutgoingRequest<'u, C> {
    /// Converts the request to the HTTP version of the endpoint.
    pub(in crate::proxy) fn converted_for_endpoint(
        caller: Rc<C>,
        destination: Destination<'u>,
        mut request: Request<C::Body>,
        replay: ReplayPolicy,
    ) -> Result<Self, RequestError> {
        let Destination {
            upstream,
            admitted,
            pinned,
            pinned_others: _,
            hash,
            mut upgrade,
            may_have_te,
            hops,
            trace,
            forwarding,
            client,
            policy,
            informational,
            settings: _,
        } = destination;
        let keeps_body = upstream.key.protocol != UpstreamProtocol::Http2
            && replay.may_repeat_small_body()
            && request.body().size_hint().upper().is_some_and(|bytes| {
                usize::try_from(bytes).is_ok_and(|bytes| bytes <= policy.max_kept_body(caller.limits()))
            });
        let tls = upstream.key.tls.as_ref();
        let server_name = tls.and_then(|tls| tls.server_name(request.headers().get(HOST)));
        let target = UpstreamTarget::new(upstream, server_name, client);
        let mut has_client_deadline = false;
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
            UpstreamProtocol::FastCgi => {
                if upgrade.take().is_some_and(|upgrade| !upgrade.may_be_ignored()) {
                    return Err(RequestError::UpgradeNotSupported);
                }
                // Without them, the server does not know which script is meant.
                if request.extensions().get::<Arc<FastCgiParams>>().is_none() {
                    return Err(RequestError::InvalidRule(RouteFailure::Unsupported));
                }
            }
            UpstreamProtocol::Http2 => {
                if upgrade.take().is_some_and(|upgrade| !upgrade.may_be_ignored()) {
                    return Err(RequestError::UpgradeNotSupported);
                }
                has_client_deadline = upstream.observes_statuses() && call_deadline::is_set(request.headers());
                let added = AddedFields { hops, trace: trace.unwritten(), forwarding };
                convert_to_http2(&mut request, scheme(&upstream.key), added)?;
            }
        }
        Ok(OutgoingRequest {
            caller,
            target,
            search: EndpointSearch::new(pinned, hash).repeatable(replay.complete && replay.idempotent),
            policy,
            upgrade,
            replay,
            informational,
            hops,
            has_client_deadline,
            keeps_body,
            is_settled: true,
            state: AttemptState::default(),
            endpoint: NO_ENDPOINT,
            attempt_deadline: None,
            admitted,
            admission: Admission::default(),
            trace,
            // The library writes the header of HTTP/2, which has the fields now.
            forwarding: forwarding.filter(|_| upstream.key.protocol != UpstreamProtocol::Http2),
            number: 1,
            passes_fields: false,
            sendable: Some(request),
        })
    }

    /// A second request with the same head and body, which competes with this one. `None` if the body is not available
    /// as a whole, or if an upgrade is requested.
    pub(super) fn duplicate(&self) -> Option<Self> {
        let request = self.sendable.as_ref().filter(|_| self.replay.complete && self.upgrade.is_none())?;
        let copy = copy_request(request, request.body().duplicate(), self.caller.header_maps());
        Some(OutgoingRequest {
            caller: Rc::clone(&self.caller),
            target: self.target.clone(),
            search: EndpointSearch::new(None, self.search.hash()),
            policy: self.policy,
            upgrade: None,
            replay: self.replay,
            informational: self.informational.clone(),
            hops: self.hops,
            has_client_deadline: self.has_client_deadline,
            keeps_body: false,
            is_settled: true,
            state: AttemptState::default(),
            endpoint: NO_ENDPOINT,
            attempt_deadline: None,
            trace: self.trace,
            forwarding: self.forwarding,
            number: self.number + 1,
            passes_fields: false,
            admitted: None,
            // The first one holds the admission of both.
            admission: Admission::default(),
            sendable: Some(copy),
        })
    }

    /// The counters of the retries of its upstream.
    pub(super) fn retry_counters(&self) -> &RetryCounters {
        self.caller.pools().retry_counters(self.target.upstream)
    }

    /// Whether there is something to send: the request itself, or what was kept of it when it was sent.
    pub(super) fn can_be_sent(&self) -> bool {
        self.sendable.is_some()
    }

    /// Whether all of the request has arrived, or its client still sends it. Before it is sent.
    pub(super) fn arrival(&self) -> RequestArrival {
        if self.replay.complete {
            return RequestArrival::Complete;
        }
        self.sendable.as_ref().map_or(RequestArrival::Complete, arrival_of)
    }

    /// Whether more of the request is read before its upstream admits it.
    pub(super) fn is_read_before_trial(&self) -> bool {
        self.admitted.is_none() && self.arrival() == RequestArrival::Partial && self.target.upstream.is_half_open()
    }

    pub(super) async fn read_before_trial(&mut self) -> Result<(), RequestError> {
        let Some(request) = &mut self.sendable else { return Ok(()) };
        read_before_trial(&*self.caller, self.target.upstream, request).await
    }

    /// An attempt at this endpoint begins.
    pub(super) fn begin_attempt(&mut self, endpoint: SocketAddr) {
        self.endpoint = endpoint;
        self.target.place_wait.reset();
        self.state = AttemptState::default();
        if !self.replay.complete {
            self.state.client_time_before = self.caller.client_time();
        }
    }

    /// How long the client was awaited since the attempt began: never if the whole request is available.
    pub(super) fn client_time(&self) -> Duration {
        if self.replay.complete {
            return Duration::ZERO;
        }
        self.caller.client_time().saturating_sub(self.state.client_time_before)
    }

    /// How long Portico has waited for the endpoint alone, of the attempt that began at this time.
    pub(super) fn waited(&self, started_at: Instant) -> EndpointTime {
        let of_client = self.client_time();
        let total = turn_clock::now().saturating_duration_since(started_at);
        let time = total.saturating_sub(of_client + self.target.place_wait.total());
        match self.replay.complete || of_client.is_zero() || self.caller.has_sent_request() {
            true => EndpointTime::Exactly(time),
            false => EndpointTime::AtLeast(time),
        }
    }

    /// The time that there was for a response. `limit`: the one that has passed.
    pub(super) fn given(&self, limit: Duration) -> GivenTime {
        self.policy.given_time(limit, &self.target.upstream.key.namespace)
    }

    /// What an attempt concerns that decides about the request. `endpoint`: `None` if that was reported before.
    pub(super) fn observers(&mut self, endpoint: Option<SocketAddr>) -> OutcomeObservers<'_> {
        let response_times = self.policy.response_times();
        OutcomeObservers {
            endpoint,
            response_times,
            ..OutcomeObservers::of_service(self.target.upstream, &mut self.admission)
        }
    }

    /// What an endpoint with HTTP/1 gets in addition to the header.
    pub(super) fn added_fields(&self) -> AddedFields<'u> {
        AddedFields { hops: self.hops, trace: self.trace.unwritten(), forwarding: self.forwarding }
    }

    /// Completes the head for this attempt. Returns the body for sending the request a second time, if that is allowed.
    pub(super) fn prepare(&mut self) -> Option<C::Body> {
        let mode = self.copy_mode();
        let request =
            self.sendable.as_mut().expect("an unsent request is put back, and a sent one is repeated only with a copy");
        // Each attempt passes on what is left.
        if let Some(deadline) = self.policy.call_deadline {
            call_deadline::set_remaining(request.headers_mut(), deadline);
        }
        if let Some((name, number)) = self.policy.attempt_header(self.number) {
            request.headers_mut().insert(name.clone(), number.into());
        }
        self.trace.write_attempt(request.headers_mut());
        match mode {
            CopyMode::Never => None,
            CopyMode::Full => Some(request.body().duplicate()),
            CopyMode::Buffered => {
                let max_bytes = self.policy.max_kept_body(self.caller.limits());
                let key = &self.target.upstream.key;
                Some(request.body_mut().share_for_replay(max_bytes, &key.namespace))
            }
        }
    }

    /// A copy of the request with this body, if there is one.
    pub(super) fn copy_with(&self, body: Option<C::Body>) -> Option<Request<C::Body>> {
        Some(copy_request(self.sendable.as_ref()?, body?, self.caller.header_maps()))
    }

    /// Takes back a request of which nothing was sent.
    pub(super) fn put_back(&mut self, unsent: Request<C::Body>) {
        self.sendable = Some(unsent);
    }

    /// After the last attempt: what another upstream can get, if no endpoint has processed the request, because none
    /// could be reached.
    pub(in crate::proxy) fn take_unsent(&mut self) -> Option<UnsentRequest<C::Body>> {
        if self.is_settled {
            return None;
        }
        let body = self.sendable.take()?.into_body();
        Some(UnsentRequest { body, upgrade: self.upgrade.take() })
    }

    /// After a failure, prepares the copy to be sent. A copy with a replay buffer gets back the body data that was sent
    /// if the request may be sent again, and is dropped otherwise.
    pub(super) fn restore_body(&mut self, may_be_repeated: bool) {
        if let CopyMode::Buffered = self.copy_mode() {
            let kept = self.sendable.take().filter(|_| may_be_repeated);
            self.sendable = kept.and_then(reclaim_body);
        }
    }

    /// Returns the memory of a request that is not sent again.
    pub(super) fn recycle(&mut self) {
        let Some(request) = self.sendable.take() else { return };
        let headers = request.into_parts().0.headers;
        if self.target.upstream.key.protocol == UpstreamProtocol::Http2 {
            self.caller.header_maps().put_back(headers);
        } else {
            recycle_map(headers);
        }
    }

    fn copy_mode(&self) -> CopyMode {
        let ReplayPolicy { complete, idempotent, allows_resending, .. } = self.replay;
        if !allows_resending {
            return CopyMode::Never;
        }
        match self.target.upstream.key.protocol {
            // An HTTP/2 endpoint can report that it did not process a request, whatever the method.
            UpstreamProtocol::Http2 if !complete => CopyMode::Buffered,
            UpstreamProtocol::Http2 => CopyMode::Full,
            UpstreamProtocol::Http1 | UpstreamProtocol::FastCgi => match () {
                () if complete && idempotent => CopyMode::Full,
                () if self.keeps_body => CopyMode::Buffered,
                () => CopyMode::Never,
            },
        }
    }
}

/// Adds `Connection: TE` to an HTTP/1 request with `TE`, so that no later proxy forwards the field (RFC 9110, section
/// 10.1.4).
fn name_te_in_connection(headers: &mut HeaderMap) {
    if headers.contains_key(TE) {
        headers.append(CONNECTION, HeaderValue::from_static("TE"));
    }
}

/// Converts a request to HTTP/2, which carries the host and the scheme as part of the target. The library writes the
/// header, so it gets the fields that are added here.
fn convert_to_http2<B>(request: &mut Request<B>, scheme: Scheme, added: AddedFields<'_>) -> Result<(), RequestError> {
    // While the field is there whose value X-Forwarded-Host has, too.
    if let Some(forwarding) = added.forwarding {
        forwarding.set(HeaderValue::from(forwarding.port), request.headers_mut());
    }
    let host = request.headers_mut().remove(HOST).ok_or(RequestError::InvalidRewrite)?;
    let mut target = std::mem::take(request.uri_mut()).into_parts();
    target.authority = Some(Authority::try_from(host.as_bytes()).map_err(|_| RequestError::InvalidRewrite)?);
    target.scheme = Some(scheme);
    *request.uri_mut() = Uri::from_parts(target).map_err(|_| RequestError::InvalidRewrite)?;
    *request.version_mut() = Version::HTTP_2;
    added.hops.set(request.headers_mut());
    if let Some(trace) = added.trace {
        trace.set(request.headers_mut());
    }
    hpack::mark_changing_values(request.headers_mut());
    Ok(())
}

fn scheme(key: &UpstreamKey) -> Scheme {
    if key.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP }
}

/// A request with the same head and this body.
pub(in crate::proxy) fn copy_request<A, B>(request: &Request<A>, body: B, header_maps: &HeaderMapPool) -> Request<B> {
    let mut copy = Request::new(body);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = header_maps.copy(request.headers());
    if let Some(params) = request.extensions().get::<Arc<FastCgiParams>>() {
        copy.extensions_mut().insert(Arc::clone(params));
    }
    copy
}

fn reclaim_body<B: RepeatableBody>(request: Request<B>) -> Option<Request<B>> {
    let (head, body) = request.into_parts();
    Some(Request::from_parts(head, body.reclaim()?))
}

/// Until the first attempt.
const NO_ENDPOINT: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forwarding_fields::{ForwardingFields, X_FORWARDED_HOST};

    #[test]
    fn copies_have_the_parameters_of_their_script() {
        let params = Arc::new(FastCgiParams::default());
        let request = Request::builder().extension(Arc::clone(&params)).body(()).unwrap();
        let copy = copy_request(&request, (), &HeaderMapPool::default());
        assert!(copy.extensions().get::<Arc<FastCgiParams>>().is_some_and(|copied| Arc::ptr_eq(copied, &params)));
    }

    #[test]
    fn host_of_http2_is_in_the_forwarding_fields_too() {
        let [client, request_id, via] = ["192.0.2.1", "id", "1.1 portico"].map(HeaderValue::from_static);
        let fields =
            ForwardingFields { client: &client, is_https: false, port: 80, request_id: &request_id, via: &via };
        let added = AddedFields { forwarding: Some(fields), ..AddedFields::default() };
        let mut request = Request::builder().uri("/a").header(HOST, "a.example").body(()).unwrap();
        convert_to_http2(&mut request, Scheme::HTTP, added).unwrap();
        assert_eq!(request.uri(), "http://a.example/a");
        assert_eq!(request.headers().get(X_FORWARDED_HOST).unwrap(), "a.example");
        assert!(!request.headers().contains_key(HOST));
    }
}
