//! A server that decides about requests, or that issues tokens for them: its URL in a configuration, the requests to
//! it, and the report in the conditions of the object while it fails.

use std::net::IpAddr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, Method, StatusCode};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::server_diagnostics::ServerDiagnostic;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::body_budget::KeptBytes;
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::remote::MAX_REMOTE_TIMEOUT;
use crate::plugin_api::remote_request::{
    ClientRequestFailure, RemoteRequest, RemoteResponse, RemoteUrl, ResponseBodyUse,
};
use crate::plugin_api::services::PluginServices;
use crate::plugin_api::streamed_response::{NotCollected, RemoteFailure, StreamedResponse};

/// How a configuration describes a server.
#[derive(Clone, Copy, Debug)]
pub struct RemoteServerConfig<'c> {
    /// The path of the field with the URL, below `config`.
    pub field: &'c str,
    /// An `http` or `https` URL.
    pub url: &'c str,
    /// The path of the field with the timeout, below `config`.
    pub timeout_field: &'c str,
    /// Timeout of a request in milliseconds, from connecting to the end of the response.
    pub timeout: u32,
    /// How many milliseconds an idle connection is kept open.
    pub keep_alive: u32,
    /// Whether the certificate is verified.
    pub verify: bool,
    /// Maximum size of the body of a response in bytes.
    pub max_response: usize,
}

/// The server. It costs nothing until a request is sent.
pub struct RemoteServer {
    /// A request without a body. The path and the query are those of the URL.
    request: RemoteRequest,
    services: Arc<dyn PluginServices>,
    reports: Arc<ServerReports>,
}

/// Reports the state of a server, once for each change.
pub struct ServerReports {
    state: Arc<ReportedState>,
    services: Arc<dyn PluginServices>,
    /// How long a failure is reported at least.
    hold: Duration,
}

struct ReportedState {
    diagnostic: ServerDiagnostic,
    field: String,
    /// Whether requests had no response since the last one.
    is_unanswered: AtomicBool,
    outcomes: Mutex<Outcomes>,
}

/// What requests had for results, as far as it matters to what is reported.
#[derive(Default)]
struct Outcomes {
    failed_at: Option<Instant>,
    /// Whether the server has responded since then.
    has_recovered: bool,
    /// Whether a task waits for the end of the hold.
    is_timed: bool,
    /// Since when no request had a response.
    unanswered_since: Option<Instant>,
}

/// The server did not respond, or not as it has to. The conditions of the object and the log have the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteServerFailed;

/// Why there is no response to a request that a plugin sends in place of the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAnswered {
    /// Portico's own limits: other requests have all connections, or bodies of responses all memory. Says nothing about
    /// the server.
    Busy,
    /// See [`RemoteServerFailed`].
    Failed,
}

/// The longest time that an idle connection is kept open.
const MAX_KEEP_ALIVE: Duration = Duration::from_secs(600);

impl RemoteServer {
    pub fn new(config: RemoteServerConfig<'_>, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        RemoteServer::with_hold(config, Duration::ZERO, cx)
    }

    /// A server that responds in place of a backend. Clients choose how many of the requests to it fail, so a failure
    /// is reported for some time.
    pub fn in_place_of_backend(config: RemoteServerConfig<'_>, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        RemoteServer::with_hold(config, REPORT_HOLD, cx)
    }

    fn with_hold(config: RemoteServerConfig<'_>, hold: Duration, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let RemoteServerConfig { field, url, timeout_field, timeout, keep_alive, verify, max_response } = config;
        const REMEDY: &str = "set it to the URL of the server, such as https://auth.example/check";
        let mut invalid = Vec::new();
        if timeout == 0 {
            let remedy = "use a number of milliseconds, such as 5000";
            invalid.push(Diagnostic::in_config(timeout_field, "must not be 0", remedy));
        }
        let parsed = match url {
            "" => Err("is missing".to_owned()),
            url => RemoteUrl::parse(url),
        };
        let parsed = parsed.map_err(|error| invalid.push(Diagnostic::in_config(field, error, REMEDY))).ok();
        invalid.extend(parsed.as_ref().and_then(|url| cx.check_host(field, &url.host)));
        let (Some(url), []) = (parsed, &invalid[..]) else { return Err(invalid) };
        let timeout = cx.limited_duration(timeout_field, timeout, MAX_REMOTE_TIMEOUT);
        let mut headers = HeaderMap::new();
        headers.insert(HOST, url.authority.clone());
        if let Some(authorization) = &url.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let request = RemoteRequest {
            remote: url.remote(cx.namespace(), verify, timeout),
            method: Method::GET,
            target: url.target,
            headers,
            body: Bytes::new(),
            timeout,
            keep_alive: Some(Duration::from_millis(keep_alive.into()).min(MAX_KEEP_ALIVE))
                .filter(|time| !time.is_zero()),
            is_repeatable: false,
            response_body: ResponseBodyUse::Collect { max_bytes: max_response },
        };
        let reports = ServerReports::new(field, cx).holding(hold);
        Ok(RemoteServer { request, services: Arc::clone(cx.services), reports: Arc::new(reports) })
    }

    /// Sends a request, which `prepare` completes. A response with a status that is not expected is a failure.
    pub fn send(
        &self,
        prepare: impl FnOnce(&mut RemoteRequest),
        is_expected: fn(StatusCode) -> bool,
    ) -> BoxFuture<'static, Result<RemoteResponse, RemoteServerFailed>> {
        let (request, server, reports) = self.prepared(prepare);
        let sending = self.services.send(request);
        async move { reports.note_outcome(&server, sending.await, is_expected) }.boxed()
    }

    /// Like [`RemoteServer::send`], for a request whose response only this client waits for.
    pub fn send_for_client(
        &self,
        client: IpAddr,
        prepare: impl FnOnce(&mut RemoteRequest),
        is_expected: fn(StatusCode) -> bool,
    ) -> BoxFuture<'static, Result<RemoteResponse, RemoteServerFailed>> {
        let (request, server, reports) = self.prepared(prepare);
        let sending = self.services.send_for_client(client, request);
        async move {
            let outcome = match sending.await {
                // Not a failure of the server.
                Err(ClientRequestFailure::Busy(error)) => {
                    tracing::debug!(server, error, "A request of a plugin was not sent for a client");
                    return Err(RemoteServerFailed);
                }
                Err(ClientRequestFailure::Failed(error)) => Err(error),
                Ok(response) => Ok(response),
            };
            reports.note_outcome(&server, outcome, is_expected)
        }
        .boxed()
    }

    /// A request that `prepare` completes, with its server for messages, and the reports about that.
    fn prepared(&self, prepare: impl FnOnce(&mut RemoteRequest)) -> (RemoteRequest, String, Arc<ServerReports>) {
        let mut request = self.request.clone();
        prepare(&mut request);
        let server = format!("{}:{}", request.remote.host, request.remote.port);
        (request, server, Arc::clone(&self.reports))
    }

    /// Sends the request of a client in place of a backend, which `prepare` completes. Any response will do, and its
    /// body streams.
    pub fn stream(
        &self,
        client: IpAddr,
        prepare: impl FnOnce(&mut RemoteRequest),
    ) -> BoxFuture<'static, Result<StreamedResponse, RemoteServerFailed>> {
        let (request, server, reports) = self.prepared(prepare);
        let sending = self.services.send_in_place_of_backend(client, request, None);
        async move {
            match sending.await {
                Ok(response) => {
                    reports.update(None);
                    return Ok(response);
                }
                // Not a failure of the server.
                Err(RemoteFailure::Busy(_)) => {}
                Err(RemoteFailure::Unreachable(error)) => reports.update(Some(format!("{server}: {error}"))),
                Err(RemoteFailure::NoResponse(error)) => reports.note_unanswered(format!("{server}: {error}")),
            }
            Err(RemoteServerFailed)
        }
        .boxed()
    }

    /// Like [`RemoteServer::send`], in place of a backend. The response is collected with [`PendingResponse::collect`].
    pub fn begin(&self, client: IpAddr, prepare: impl FnOnce(&mut RemoteRequest)) -> PendingResponse {
        let mut request = self.request.clone();
        prepare(&mut request);
        let max_bytes = match request.response_body {
            ResponseBodyUse::Collect { max_bytes } => max_bytes,
            ResponseBodyUse::Discard => 0,
        };
        PendingResponse {
            server: format!("{}:{}", request.remote.host, request.remote.port),
            timeout: request.timeout,
            max_bytes,
            reports: Arc::clone(&self.reports),
            sending: self.services.send_in_place_of_backend(client, request, None),
        }
    }

    /// Reports that a response was not usable. `what` continues a sentence whose subject is the server.
    pub fn failed(&self, what: &str) -> RemoteServerFailed {
        self.reports.update(Some(what.to_owned()));
        RemoteServerFailed
    }

    /// A function that does the same as [`RemoteServer::failed`] without borrowing the server.
    pub fn failure_reporter(&self) -> impl Fn(&str) -> RemoteServerFailed + Send + Sync + 'static {
        let reports = Arc::clone(&self.reports);
        move |what| {
            reports.update(Some(what.to_owned()));
            RemoteServerFailed
        }
    }
}

/// A request whose response is not there yet.
pub struct PendingResponse {
    sending: BoxFuture<'static, Result<StreamedResponse, RemoteFailure>>,
    reports: Arc<ServerReports>,
    server: String,
    timeout: Duration,
    max_bytes: usize,
}

impl PendingResponse {
    /// The whole response, within the time of a request. The bytes of the body are taken from `kept` before they are
    /// kept. A response with a status that is not expected is a failure.
    pub async fn collect(
        self,
        is_expected: fn(StatusCode) -> bool,
        kept: &mut dyn KeptBytes,
    ) -> Result<RemoteResponse, NotAnswered> {
        let PendingResponse { sending, reports, server, timeout, max_bytes } = self;
        let collecting = async {
            // Without a message, the server has not failed.
            let StreamedResponse { status, headers, body } = sending.await.map_err(|failure| match failure {
                RemoteFailure::Busy(_) => None,
                failure => Some(format!("{server}: {}", failure.into_message())),
            })?;
            if !is_expected(status) {
                return Err(Some(format!("{server} responded with status {}", status.as_u16())));
            }
            let body = body.collect(max_bytes, kept).await.map_err(|reason| match reason {
                NotCollected::BudgetExceeded => None,
                NotCollected::TooLarge => Some(format!("{server}: the response has more than {max_bytes} bytes")),
                NotCollected::Truncated => Some(format!("{server}: the response has ended early")),
            })?;
            Ok(RemoteResponse { status, headers, body })
        };
        let late = || Err(Some(format!("{server}: no response within {timeout:?}")));
        let collected = tokio::time::timeout(timeout, collecting).await.unwrap_or_else(|_| late());
        match collected {
            Ok(response) => {
                reports.update(None);
                Ok(response)
            }
            Err(None) => Err(NotAnswered::Busy),
            Err(Some(failure)) => {
                reports.update(Some(failure));
                Err(NotAnswered::Failed)
            }
        }
    }
}

impl std::fmt::Debug for RemoteServer {
    /// Omits the headers, which may contain passwords.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RemoteServer").field("remote", &self.request.remote).finish_non_exhaustive()
    }
}

impl ServerReports {
    /// `field`: the path of the field with the server, below `config`.
    pub fn new(field: &str, cx: &BuildCx<'_>) -> Self {
        let (diagnostic, field) = (ServerDiagnostic::new(cx), field.to_owned());
        let (is_unanswered, outcomes) = (AtomicBool::new(false), Mutex::default());
        let state = Arc::new(ReportedState { diagnostic, field, is_unanswered, outcomes });
        ServerReports { state, services: Arc::clone(cx.services), hold: Duration::ZERO }
    }

    /// The same, which report a failure for some time. So requests of which some succeed do not change the conditions
    /// of the object again and again.
    pub fn holding(self, hold: Duration) -> Self {
        ServerReports { hold, ..self }
    }

    /// Reports whether the server, whose address is in the text, has responded as expected.
    fn note_outcome(
        &self,
        server: &str,
        outcome: Result<RemoteResponse, String>,
        is_expected: fn(StatusCode) -> bool,
    ) -> Result<RemoteResponse, RemoteServerFailed> {
        let failure = match outcome {
            Ok(response) if is_expected(response.status) => {
                self.update(None);
                return Ok(response);
            }
            Ok(response) => format!("{server} responded with status {}", response.status.as_u16()),
            Err(error) => format!("{server}: {error}"),
        };
        self.update(Some(failure));
        Err(RemoteServerFailed)
    }

    /// Reports a failure, or with `None` that the server responds.
    pub fn update(&self, failure: Option<String>) {
        match failure {
            Some(error) => self.state.fail(&mut self.state.outcomes.lock(), error),
            None => self.note_response(),
        }
    }

    /// Notes that a request had no response. What its client asked for may be the reason, so it is a failure only if
    /// no request has had a response for some seconds.
    pub fn note_unanswered(&self, error: String) {
        let mut outcomes = self.state.outcomes.lock();
        let since = *outcomes.unanswered_since.get_or_insert_with(Instant::now);
        self.state.is_unanswered.store(true, Relaxed);
        if since.elapsed() >= UNANSWERED_TIME {
            self.state.fail(&mut outcomes, error);
        }
    }

    fn note_response(&self) {
        let ReportedState { diagnostic, is_unanswered, outcomes, .. } = &*self.state;
        // Nearly all requests succeed, and end here.
        if !diagnostic.is_failing() && !is_unanswered.load(Relaxed) {
            return;
        }
        let mut outcomes = outcomes.lock();
        outcomes.unanswered_since = None;
        is_unanswered.store(false, Relaxed);
        if !diagnostic.is_failing() {
            return;
        }
        if outcomes.failed_at.is_none_or(|at| at.elapsed() >= self.hold) {
            return self.state.report(None);
        }
        outcomes.has_recovered = true;
        // No other request may follow.
        if !std::mem::replace(&mut outcomes.is_timed, true) {
            self.services.spawn(Box::pin(end_hold(Arc::downgrade(&self.state), self.hold)));
        }
    }
}

/// Waits for the end of the hold of the last failure. The server responds again if it has since then.
async fn end_hold(state: Weak<ReportedState>, hold: Duration) {
    loop {
        let end = {
            let Some(state) = state.upgrade() else { return };
            let mut outcomes = state.outcomes.lock();
            let end = outcomes.failed_at.map(|at| at + hold).filter(|_| outcomes.has_recovered);
            match end.filter(|end| *end > Instant::now()) {
                Some(later) => later,
                None => {
                    outcomes.is_timed = false;
                    if end.is_some() {
                        state.report(None);
                    }
                    return;
                }
            }
        };
        sleep_until(end).await;
    }
}

impl ReportedState {
    fn fail(&self, outcomes: &mut Outcomes, error: String) {
        outcomes.failed_at = Some(Instant::now());
        outcomes.has_recovered = false;
        self.report(Some(error));
    }

    /// Called while the outcomes are locked, so that reports stay in order.
    fn report(&self, failure: Option<String>) {
        if !self.diagnostic.note_failing(failure.is_some()) {
            return;
        }
        let object = self.diagnostic.object();
        match failure {
            Some(error) => {
                warn!(object, error = &*self.diagnostic.shown(&error), "A server that requests depend on has failed");
                let remedy = "check that the server is running and that Portico can reach it; requests are not \
                              forwarded without it";
                let message = format!("has failed: {error}");
                self.diagnostic.set(Some(Diagnostic::in_config(&self.field, message, remedy)));
            }
            None => {
                info!(object, "A server that requests depend on responds again");
                self.diagnostic.set(None);
            }
        }
    }
}

/// How long a failure of a server that responds to clients is reported at least.
pub const REPORT_HOLD: Duration = Duration::from_secs(5);
/// How long requests have no response until the server has failed.
const UNANSWERED_TIME: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin_api::kind::BuildNotes;
    use crate::plugin_api::scripted_server::ScriptedServer;
    use crate::plugin_api::state::PluginState;

    /// Reports that hold failures for 5 seconds, and the reports that were made.
    fn reports() -> (ServerReports, Arc<ScriptedServer>) {
        let (state, notes) = (PluginState::default(), BuildNotes::default());
        let server = ScriptedServer::new(|_| Err("refused".to_owned()));
        let services = server.services();
        let cx = BuildCx { object: "KongPlugin/a/b", state: &state, services: &services, node: "", notes: &notes };
        (ServerReports::new("host", &cx).holding(REPORT_HOLD), server)
    }

    async fn wait(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await; // Time is paused.
    }

    /// Whether each report was of a failure.
    fn made(server: &ScriptedServer) -> Vec<bool> {
        server.reports.lock().iter().map(Option::is_some).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_reported_for_some_time() {
        let (reports, server) = reports();
        for _ in 0..100 {
            reports.update(Some("refused".to_owned()));
            reports.update(None);
        }
        assert_eq!(made(&server), [true], "requests switch the condition");
        // A later failure begins the time again, and no other request follows.
        wait(3).await;
        reports.update(Some("refused".to_owned()));
        wait(1).await;
        reports.update(None);
        wait(3).await;
        assert_eq!(made(&server), [true]);
        wait(2).await;
        assert_eq!(made(&server), [true, false]);
        // A server that has not responded again stays failed, until it does.
        reports.update(Some("refused".to_owned()));
        reports.update(None);
        reports.update(Some("refused".to_owned()));
        wait(60).await;
        assert_eq!(made(&server), [true, false, true]);
        reports.update(None);
        assert_eq!(made(&server), [true, false, true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn servers_that_respond_to_nobody_have_failed() {
        let (reports, server) = reports();
        // Clients can ask for what has no response, while the server responds to others.
        for _ in 0..20 {
            reports.note_unanswered("no response".to_owned());
            wait(1).await;
            reports.update(None);
        }
        assert!(made(&server).is_empty());
        for _ in 0..7 {
            reports.note_unanswered("no response".to_owned());
            wait(1).await;
        }
        assert_eq!(made(&server), [true]);
        reports.update(None);
        wait(6).await;
        assert_eq!(made(&server), [true, false]);
    }
}
