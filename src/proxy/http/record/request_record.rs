//! Per-request accounting: records metrics and the access-log entry exactly once, on completion or on drop.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::time::{Duration, SystemTime};

use http::header::{HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use tokio::time::{Instant, Sleep, sleep_until};

use super::request_error::{CLIENT_DISCONNECTED, RequestError, client_disconnected_status};
use super::request_id::X_REQUEST_ID;
use crate::plugin_api::completed_request::{Attempt, AttemptOutcome, LoggedHeads};
use crate::proxy::http::client::activity::ActivityPhase;
use crate::proxy::http::client::client_connection::Peer;
use crate::proxy::http::client::malformed_request::PartialHead;
use crate::proxy::http::client::response_body::BodySource;
use crate::proxy::http::fields::field_policy::ResponseTrailerPolicy;
use crate::proxy::http::forwarding::attempt::AttemptError;
use crate::proxy::http::forwarding::outgoing_request::OutgoingRequest;
use crate::proxy::http::steps::external_auth::AuthorizationRecord;
use crate::proxy::http::steps::plugin_run::PluginRun;
use crate::proxy::http::steps::reported_client::{client_address, client_scheme};
use crate::proxy::http::steps::request_context::RoutedRequest;
use crate::proxy::record::access_log::{AccessLogRecord, protocol_name};
use crate::proxy::record::observations::ObservedRequest;
use crate::proxy::record::stats::RequestSeries;
use crate::snapshot::cors::CorsHeaders;
use crate::turn_clock;

/// The record of a request in progress. Dropping it finishes it, because the request is dropped when the client
/// disconnects.
pub(in crate::proxy) struct RequestRecord {
    pub(in crate::proxy) peer: Rc<Peer>,
    pub(in crate::proxy) request_id: HeaderValue,
    pub(in crate::proxy) series: Option<Arc<RequestSeries>>,
    /// The endpoint of the last attempt to get a response.
    pub(in crate::proxy) endpoint: Option<SocketAddr>,
    /// Copies of the heads, if a plugin of the rule reads them in the log phase.
    pub(in crate::proxy) heads: Option<Box<LoggedHeads>>,
    /// The attempts to get a response, in order; empty unless heads are copied. A request that is retried very often
    /// keeps only the last of the attempts beyond [`MAX_ATTEMPTS`].
    pub(in crate::proxy) attempts: Vec<Attempt>,
    /// The reason of the request error, if there is one.
    pub(in crate::proxy) error: Option<&'static str>,
    /// None until there is a response.
    pub(in crate::proxy) status: Option<StatusCode>,
    pub(in crate::proxy) bytes_out: u64,
    /// The CORS headers of the response.
    pub(in crate::proxy) cors_headers: Option<Box<CorsHeaders>>,
    /// What an authorization server adds to the response.
    pub(in crate::proxy) authorization: Option<Box<AuthorizationRecord>>,
    /// The plugin execution, if plugins ran.
    pub(in crate::proxy) plugin_run: Option<Box<PluginRun>>,
    /// What the trailers of the response must not have, if that depends on the rule or the response.
    pub(in crate::proxy) trailers: Option<Box<ResponseTrailerPolicy>>,
    /// The deadline of the response. Boxed, because few requests have one.
    pub(in crate::proxy) deadline: Option<Box<ResponseDeadline>>,
    /// Set if the admin listener has registered the token of the request.
    pub(in crate::proxy) observed: Option<Box<ObservedRequest>>,
    /// Set only if the access log is on.
    logged: Option<LoggedRequest>,
    finished: bool,
}

/// When the response must be complete.
pub(in crate::proxy) struct ResponseDeadline {
    pub(in crate::proxy) sleep: Pin<Box<Sleep>>,
    /// The error if the response is not complete by then.
    pub(in crate::proxy) error: RequestError,
}

impl ResponseDeadline {
    pub(in crate::proxy) fn new(end: Instant, error: RequestError) -> Box<Self> {
        Box::new(ResponseDeadline { sleep: Box::pin(sleep_until(end)), error })
    }

    /// Returns the error if the deadline has passed. Otherwise, the task is woken when it passes.
    pub(in crate::proxy) fn poll_error(&mut self, cx: &mut Context<'_>) -> Option<RequestError> {
        // While tasks are busy, the runtime looks at its timers only once in 61 polls, in which a fast endpoint sends
        // hundreds of megabytes.
        let has_passed = self.sleep.as_mut().poll(cx).is_ready() || self.sleep.deadline() <= turn_clock::now();
        has_passed.then_some(self.error)
    }
}

struct LoggedRequest {
    method: Method,
    target: Uri,
    version: Version,
    host: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
}

impl RequestRecord {
    pub(in crate::proxy) fn start<B>(peer: &Rc<Peer>, request: &mut Request<B>) -> Self {
        peer.activity.begin_request();
        let worker = peer.worker();
        let observed = worker.observed.begin(request.headers_mut());
        let existing_id = if peer.client.trusted { request.headers().get(X_REQUEST_ID) } else { None };
        let request_id =
            existing_id.filter(|id| !id.is_empty()).cloned().unwrap_or_else(|| peer.http.request_ids.next());
        let logged = (!worker.log.is_off()).then(|| LoggedRequest {
            method: request.method().clone(),
            target: request.uri().clone(),
            version: request.version(),
            host: host(request),
            user_agent: request.headers().get(USER_AGENT).cloned(),
        });
        RequestRecord {
            peer: Rc::clone(peer),
            request_id,
            series: None,
            endpoint: None,
            heads: None,
            attempts: Vec::new(),
            error: None,
            status: None,
            bytes_out: 0,
            cors_headers: None,
            authorization: None,
            plugin_run: None,
            trailers: None,
            deadline: None,
            observed,
            logged,
            finished: false,
        }
    }

    /// Copies the head of the request, and the facts about its client that plugins get.
    pub(in crate::proxy) fn copy_heads<B>(&mut self, routed: &RoutedRequest<'_>, request: &Request<B>) {
        let headers = request.headers();
        self.heads = Some(Box::new(LoggedHeads {
            method: request.method().clone(),
            target: request.uri().clone(),
            version: request.version(),
            client: client_address(&self.peer, headers),
            scheme: client_scheme(&self.peer, headers),
            host: routed.host.raw.clone(),
            listen_port: routed.listener.port,
            request: headers.clone(),
            response: HeaderMap::new(),
            upstream_target: None,
        }));
    }

    /// Begins an attempt to get a response from this endpoint.
    pub(in crate::proxy) fn start_attempt(&mut self, endpoint: SocketAddr) {
        self.endpoint = Some(endpoint);
        if self.heads.is_none() {
            return;
        }
        if self.attempts.len() >= MAX_ATTEMPTS {
            self.attempts.pop();
        }
        self.attempts.push(Attempt::start(endpoint));
    }

    /// Records the outcome of the attempt that was begun last.
    pub(in crate::proxy) fn end_attempt(
        &mut self,
        outcome: &Result<Response<BodySource>, AttemptError>,
        outgoing: &mut OutgoingRequest<'_>,
    ) {
        let Some(attempt) = self.attempts.last_mut() else { return };
        attempt.connect = outgoing.connect_time.take();
        attempt.tls_handshake = outgoing.target.handshake_time.take();
        attempt.total = attempt.started_at.elapsed();
        attempt.outcome = match outcome {
            Ok(response) => {
                attempt.first_byte = Some(attempt.total);
                AttemptOutcome::Status(response.status())
            }
            Err(error) => {
                let details = error.request_error().details();
                AttemptOutcome::Failed { reason: details.reason, status: details.status }
            }
        };
    }

    /// Records the request; only the first call has an effect.
    pub(in crate::proxy) fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let activity = &self.peer.activity;
        let worker = self.peer.worker();
        if let Some(reason) = self.error {
            worker.count_error(reason);
        }
        let now = turn_clock::refresh();
        activity.enter_phase(ActivityPhase::Idle, now);
        let duration = now - activity.started_at.get();
        let status = self.status.unwrap_or_else(client_disconnected_status);
        let series = self.series.get_or_insert_with(|| worker.unrouted_series());
        series.add(status, duration, activity.bytes_in.get(), self.bytes_out);
        if let Some(last) = self.attempts.last_mut()
            && !matches!(last.outcome, AttemptOutcome::Failed { .. })
        {
            last.total = now - last.started_at;
        }
        if let Some(run) = &self.plugin_run {
            run.run_log(self, status, duration);
        }
        if let Some(observed) = &mut self.observed {
            observed.finish(status, self.endpoint, self.error);
        }
        if let Some(logged) = self.logged.take() {
            worker.log.write(&AccessLogRecord {
                time: SystemTime::now() - duration,
                client: self.peer.address,
                tls: self.peer.session.as_ref().map(|session| session.version),
                server_name: self.peer.session.as_ref().and_then(|session| session.server_name.clone()),
                method: Some(logged.method),
                protocol: Some(protocol_name(logged.version)),
                host: logged.host,
                target: Some(logged.target),
                status: Some(status),
                bytes_in: activity.bytes_in.get(),
                bytes_out: self.bytes_out,
                duration,
                connect_duration: None,
                series: self.series.clone(),
                address: self.endpoint,
                consumer: self.plugin_run.as_ref().and_then(|run| run.consumer_name()),
                request_id: Some(self.request_id.clone()),
                error: self.error,
                user_agent: logged.user_agent,
            });
        }
    }
}

/// Input that could not be parsed as a request.
pub(in crate::proxy) struct MalformedInput {
    /// What could be parsed of it.
    pub(in crate::proxy) head: PartialHead,
    pub(in crate::proxy) status: StatusCode,
    pub(in crate::proxy) reason: &'static str,
    /// The request id of the error response, if one is sent.
    pub(in crate::proxy) id: Option<HeaderValue>,
    /// The size of the body of the error response.
    pub(in crate::proxy) bytes_out: u64,
}

/// Records input that could not be parsed as a request.
pub(in crate::proxy) fn record_malformed(peer: &Peer, input: MalformedInput) {
    let MalformedInput { mut head, status, reason, id, bytes_out } = input;
    let duration = peer.activity.head_started_at().map_or(Duration::ZERO, |since| since.elapsed());
    peer.worker().unrouted_series().add(status, duration, 0, bytes_out);
    peer.worker().count_error(reason);
    peer.worker().log.write(&AccessLogRecord {
        time: SystemTime::now() - duration,
        client: peer.address,
        tls: peer.session.as_ref().map(|session| session.version),
        server_name: peer.session.as_ref().and_then(|session| session.server_name.clone()),
        method: head.method,
        protocol: head.version.map(protocol_name),
        host: head.headers.remove(HOST),
        target: head.target,
        status: Some(status),
        bytes_in: 0,
        bytes_out,
        duration,
        connect_duration: None,
        series: None,
        address: None,
        consumer: None,
        request_id: id,
        error: Some(reason),
        user_agent: head.headers.remove(USER_AGENT),
    });
}

/// The most attempts that a record contains. Kong's rules allow thousands of retries.
const MAX_ATTEMPTS: usize = 32;

/// The host of the request: that of the target, which overrides the field (RFC 9112, section 3.2.2). A target with a
/// user, which is rejected, may contain a password, so it is not written.
fn host<B>(request: &Request<B>) -> Option<HeaderValue> {
    let authority = request.uri().authority().filter(|authority| !authority.as_str().contains('@'));
    match authority {
        Some(authority) => HeaderValue::try_from(authority.as_str()).ok(),
        None => request.headers().get(HOST).cloned(),
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        if !self.finished {
            // The timer of the connection, too, drops a response whose deadline has passed or whose client is slow.
            let missed_deadline = self.deadline.as_ref().filter(|deadline| deadline.sleep.deadline() <= Instant::now());
            let deadline_reason = missed_deadline.map(|deadline| deadline.error.details().reason);
            let reason = deadline_reason.or_else(|| self.peer.activity.slow_client_reason());
            let reason = reason.unwrap_or(CLIENT_DISCONNECTED);
            self.error.get_or_insert(reason);
            self.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn logged_host_is_that_of_the_request() {
        for (target, field, expected) in [
            ("/", Some("a.example"), Some("a.example")),
            ("http://b.example:8080/", Some("a.example"), Some("b.example:8080")),
            ("http://b.example/", None, Some("b.example")),
            ("http://user:secret@b.example/", Some("a.example"), Some("a.example")),
            ("/", None, None),
        ] {
            let mut request = Request::get(target);
            if let Some(field) = field {
                request = request.header(HOST, field);
            }
            let found = host(&request.body(()).unwrap());
            assert_eq!(found.as_ref().map(|host| host.to_str().unwrap()), expected, "{target} {field:?}");
        }
    }

    #[tokio::test]
    async fn deadline_passes_while_the_runtime_does_not_look_at_its_timers() {
        let end = Instant::now() + Duration::from_millis(20);
        let mut deadline = ResponseDeadline::new(end, RequestError::ResponseTimeout);
        let mut cx = Context::from_waker(Waker::noop());
        let first = deadline.poll_error(&mut cx);
        assert!(first.is_none() || Instant::now() >= end, "{first:?}");
        #[expect(clippy::disallowed_methods, reason = "it must stop the runtime, as busy tasks do")]
        std::thread::sleep(end - Instant::now()); // Afterwards the deadline has passed.
        assert_eq!(deadline.poll_error(&mut cx), Some(RequestError::ResponseTimeout));
    }
}
