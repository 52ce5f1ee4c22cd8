//! Per-request accounting: records metrics and the access-log entry exactly once, on completion or on drop.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Request, StatusCode};
use tokio::time::Instant;

use super::described_request::DescribedRequest;
use super::external_auth::authorization_record::AuthorizationRecord;
use super::plugin_run::PluginRun;
use super::request_client::RequestClient;
use crate::forwarding_fields::X_REQUEST_ID;
use crate::plugin_api::FieldNames;
use crate::plugin_api::completed_request::{AuthorizationCall, AuthorizationResult};
use crate::plugin_api::http_version::protocol_name;
use crate::plugin_api::trace::RequestTrace;
use crate::proxy::http::exchange::activity::ActivityPhase;
use crate::proxy::http::exchange::client_exchange::ClientExchange;
use crate::proxy::http::fields::field_policy::{ResponseTrailerPolicy, clean_response_trailers};
use crate::proxy::http::record::named_request::NamedRequest;
use crate::proxy::http::record::request_error::{CLIENT_DISCONNECTED, client_disconnected_status};
use crate::proxy::http::record::request_facts::{LoggedRequest, RequestFacts};
use crate::proxy::telemetry::access_log::AccessLogRecord;
use crate::proxy::telemetry::request_tracer::EndedRequest;
use crate::proxy::telemetry::stats::LocationRequest;
use crate::snapshot::cors::CorsHeaders;
use crate::turn_clock;
use crate::upstream::{EndpointPick, RetryStop, UpstreamKey};

/// The record of a request in progress: its facts, and what remains of its steps until its end. Dropping it finishes
/// it, because the request is dropped when the client disconnects.
pub(in crate::proxy) struct RequestRecord {
    pub(in crate::proxy) exchange: Rc<ClientExchange>,
    pub(in crate::proxy) client: RequestClient,
    pub(in crate::proxy) facts: RequestFacts,
    /// The CORS headers of the response.
    pub(in crate::proxy) cors_headers: Option<Box<CorsHeaders>>,
    /// The request as an error backend gets it, if it may replace the response.
    pub(in crate::proxy) described: Option<Box<DescribedRequest>>,
    /// What an authorization server adds to the response.
    pub(in crate::proxy) authorization: Option<Box<AuthorizationRecord>>,
    /// The plugin execution, if plugins ran.
    pub(in crate::proxy) plugin_run: Option<Box<PluginRun>>,
    /// What the trailers of the response must not have, if that depends on the rule or the response.
    pub(in crate::proxy) trailers: Option<Box<ResponseTrailerPolicy>>,
    /// All of the response was received or generated. Some of it may not be sent yet.
    has_whole_response: bool,
    finished: bool,
}

impl RequestRecord {
    /// Begins the record of a request: its time, its client, its id, and what the access log needs of its head. The id
    /// is that of the client if the client is trusted.
    pub(in crate::proxy) fn start<B>(exchange: &Rc<ClientExchange>, request: &mut Request<B>) -> Self {
        exchange.activity.begin_request();
        let worker = exchange.worker();
        let observed = worker.observed.begin(request.headers_mut());
        let existing_id = if exchange.client.trusted { request.headers().get(X_REQUEST_ID) } else { None };
        let request_id =
            existing_id.filter(|id| !id.is_empty()).cloned().unwrap_or_else(|| exchange.http.request_ids.next());
        let logged = (!worker.log.is_off()).then(|| LoggedRequest::new(request, &worker.log));
        let client = RequestClient::read(exchange, request.headers());
        // Requests of a trusted peer on the same connection can be those of several clients.
        exchange.counted_client.set(client.slot(exchange));
        RequestRecord {
            client,
            exchange: Rc::clone(exchange),
            facts: RequestFacts::new(request_id, observed, logged),
            cors_headers: None,
            described: None,
            authorization: None,
            plugin_run: None,
            trailers: None,
            has_whole_response: false,
            finished: false,
        }
    }

    /// The fields of the response that authorization servers and the plugins of the consumer change.
    pub(in crate::proxy) fn changed_response_fields(&self) -> FieldNames {
        let of_plugins = self.plugin_run.as_ref().and_then(|run| run.fields_of_request());
        let mut names = of_plugins.map(|fields| fields.response).unwrap_or_default();
        if let Some(authorization) = &self.authorization {
            names.add_all(authorization.changed_names());
        }
        names
    }

    /// Whether something that was found out about the request reads or changes the fields of its response.
    pub(super) fn needs_response_fields(&self) -> bool {
        // All fields are named, so that a new one does not compile without a decision here.
        let RequestRecord {
            exchange: _,
            client: _,
            // They have a decision of their own.
            facts: _,
            cors_headers,
            described,
            authorization,
            plugin_run,
            // A head with the trailers' names has a map.
            trailers: _,
            has_whole_response: _,
            finished: _,
        } = self;
        cors_headers.is_some() || described.is_some() || authorization.is_some() || plugin_run.is_some()
    }

    /// The bytes of the response's body that count already.
    pub(in crate::proxy) fn bytes_of_body(&self) -> usize {
        self.plugin_run.as_ref().map_or(0, |run| run.kept_body.bytes())
    }

    /// Removes what must not be in the trailers of the response.
    #[cold]
    pub(in crate::proxy) fn clean_trailers(&self, trailers: &mut HeaderMap) {
        let product_headers = &self.exchange.http.product_headers;
        clean_response_trailers(trailers, product_headers, self.trailers.as_deref(), self.changed_response_fields());
    }

    /// All of the response was received or generated: from now on it waits for its client, which is no time of the
    /// endpoint, and no deadline for it.
    pub(in crate::proxy) fn end_source(&mut self) {
        if !std::mem::replace(&mut self.has_whole_response, true) {
            self.facts.deadline = None;
            self.exchange.activity.response_deadline.set(None);
            self.facts.attempts.finish(turn_clock::now());
        }
    }

    /// Whether the request is recorded.
    pub(in crate::proxy) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Records the request; only the first call has an effect.
    pub(in crate::proxy) fn finish(&mut self) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let activity = &self.exchange.activity;
        let worker = self.exchange.worker();
        if let Some(reason) = self.facts.error {
            worker.count_error(reason);
        }
        let now = turn_clock::refresh();
        activity.enter_phase(ActivityPhase::Idle, now);
        let duration = now - activity.started_at.get();
        let status = self.facts.status.unwrap_or_else(client_disconnected_status);
        if !self.has_whole_response {
            self.facts.attempts.finish(now);
        }
        // Whatever reads the record of a request has a line here.
        self.add_to_metrics(status, duration);
        self.run_log_plugins(status, duration);
        self.end_trace(status, duration);
        self.finish_observation(status);
        self.write_access_log(status, duration);
    }
}

impl RequestRecord {
    fn add_to_metrics(&mut self, status: StatusCode, duration: Duration) {
        let activity = &self.exchange.activity;
        let series = self.facts.series.get_or_insert_with(|| self.exchange.worker().unrouted_series());
        series.add(status, duration, activity.bytes_in.get(), self.facts.bytes_out);
        if let Some(trace) = self.recorded_trace()
            && let Some(series) = &self.facts.series
        {
            series.add_exemplar(trace.trace, duration);
        }
        if let Some(series) = &self.facts.series {
            let attempts = self.facts.attempts.as_slice();
            self.exchange.worker().count_attempts(&series.labels.backend, attempts);
            if let Some(NamedRequest { telemetry, counted: Some(heads) }) = self.facts.named.as_deref() {
                self.exchange.worker().count_location(&LocationRequest {
                    names: &telemetry.names,
                    alternative: telemetry.alternative_of(&series.labels.backend),
                    method: &heads.method,
                    status: status.as_u16(),
                    duration,
                    attempt: attempts.last(),
                    received: heads.request + activity.bytes_in.get(),
                    sent: heads.response + self.facts.bytes_out,
                });
            }
        }
    }

    fn run_log_plugins(&self, status: StatusCode, duration: Duration) {
        if let Some(run) = &self.plugin_run {
            run.run_log(&self.exchange, &self.facts, status, duration);
        }
    }

    fn finish_observation(&mut self, status: StatusCode) {
        if let Some(observed) = &mut self.facts.observed {
            let picked = self.facts.attempts.pick().map(EndpointPick::name);
            observed.finish(status, self.facts.attempts.endpoint(), picked, self.facts.error);
        }
    }

    fn write_access_log(&mut self, status: StatusCode, duration: Duration) {
        let Some(logged) = self.facts.logged.take() else { return };
        let log = &self.exchange.worker().log;
        let trace = self.trace();
        log.write(AccessLogRecord {
            time: SystemTime::now() - duration,
            client: self.exchange.address,
            tls: self.exchange.tls.as_ref().map(|tls| tls.version),
            tls_cipher: self.exchange.tls.as_ref().and_then(|tls| tls.cipher),
            server_name: self.exchange.tls.as_ref().and_then(|tls| tls.server_name.clone()),
            listen_port: self.exchange.client.last_port(),
            method: Some(logged.method),
            protocol: Some(protocol_name(logged.version)),
            host: logged.host,
            target: Some(logged.target),
            status: Some(status),
            bytes_in: self.exchange.activity.bytes_in.get(),
            bytes_out: self.facts.bytes_out,
            duration,
            connect_duration: None,
            series: self.facts.series.clone(),
            telemetry: self.facts.named.as_deref().map(|named| &*named.telemetry),
            address: self.facts.attempts.endpoint(),
            pick: self.facts.attempts.pick(),
            tries: self.facts.attempts.as_slice(),
            retry_stop: self.facts.attempts.retry_stop().map(RetryStop::name),
            consumer: self.plugin_run.as_ref().and_then(|run| run.consumer_name()),
            request_id: Some(self.facts.request_id.clone()),
            trace,
            error: self.facts.error,
            user_agent: logged.user_agent,
            captured: logged.captured.as_deref(),
            credentials: self.plugin_run.as_ref().map(|run| run.chain.credential_locations()),
            privacy: log.privacy(),
        });
    }

    /// Passes the spans of the request to the tracer of all requests.
    fn end_trace(&self, status: StatusCode, duration: Duration) {
        let Some(traced) = self.facts.tracing.recordable() else { return };
        let Some(tracer) = self.exchange.worker().tracer() else { return };
        let Some(series) = self.facts.series.as_deref() else { return };
        let ended = EndedRequest {
            started_instant: self.exchange.activity.started_at.get(),
            duration,
            client: self.exchange.address.ip(),
            tls: self.exchange.tls.as_ref().map(|tls| tls.version),
            status,
            error: self.facts.error,
            request_id: &self.facts.request_id,
            attempts: self.facts.attempts.as_slice(),
            authorizations: &self.facts.authorizations,
            body_ended_at: self.exchange.activity.body_ended_at.get(),
            bytes_out: self.facts.bytes_out,
            series,
            masks: self.plugin_run.as_ref().map_or(&[], |run| &run.chain.credential_locations().masks),
        };
        let timings = self.plugin_run.iter().flat_map(|run| run.state.timings.all());
        tracer.end(traced, &ended, timings);
    }

    /// Notes that an authorization server gets a call, if the request is traced.
    pub(in crate::proxy) fn begin_authorization(&mut self, server: &UpstreamKey) {
        let is_recorded_by_plugin = self.trace_of_plugins().is_some_and(|trace| trace.is_sampled);
        if self.facts.tracing.recordable().is_some() || is_recorded_by_plugin {
            let server = server.to_string();
            self.facts.authorizations.push(AuthorizationCall { server, started_at: Instant::now(), result: None });
        }
    }

    /// Notes the result of the last call.
    pub(in crate::proxy) fn end_authorization(&mut self, result: impl FnOnce() -> AuthorizationResult) {
        if let Some(call) = self.facts.authorizations.last_mut().filter(|call| call.result.is_none()) {
            call.result = Some((Instant::now(), result()));
        }
    }

    /// The trace of the request, if a tracer is active.
    fn trace(&self) -> Option<RequestTrace> {
        self.trace_of_plugins().copied().or_else(|| self.facts.tracing.context())
    }

    /// The trace of the request, if a tracer records it.
    pub(in crate::proxy) fn recorded_trace(&self) -> Option<&RequestTrace> {
        match self.trace_of_plugins() {
            Some(trace) => Some(trace).filter(|trace| trace.is_sampled),
            None => self.facts.tracing.recorded(),
        }
    }

    fn trace_of_plugins(&self) -> Option<&RequestTrace> {
        self.plugin_run.as_ref()?.state.trace.as_deref()
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        if !self.finished {
            // The timer of the connection, too, drops a response whose deadline has passed or whose client is slow.
            let missed_deadline =
                self.facts.deadline.as_ref().filter(|deadline| deadline.sleep.deadline() <= Instant::now());
            let deadline_reason = missed_deadline.map(|deadline| deadline.error.details().reason);
            let reason = deadline_reason.or_else(|| self.exchange.activity.slow_client_reason());
            let reason = reason.unwrap_or(CLIENT_DISCONNECTED);
            self.facts.error.get_or_insert(reason);
            self.finish();
        }
    }
}
