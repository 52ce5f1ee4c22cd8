//! A server that decides about requests, or that issues tokens for them: its URL in a configuration, the requests to
//! it, and the report in the conditions of the object while it fails.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, Method, StatusCode};
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use super::body_budget::KeptBytes;
use super::kind::BuildCx;
use super::remote::MAX_REMOTE_TIMEOUT;
use super::remote_request::{RemoteRequest, RemoteResponse, RemoteUrl, ResponseBodyUse};
use super::server_diagnostics::ServerDiagnostic;
use super::services::PluginServices;
use super::streamed_response::{NotCollected, RemoteFailure, StreamedResponse};
use crate::diagnostic::Diagnostic;

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
    diagnostic: ServerDiagnostic,
    field: String,
    /// How long a failure is reported at least.
    hold: Duration,
    failed_at: Mutex<Option<Instant>>,
}

/// The server did not respond, or not as it has to. The conditions of the object and the log have the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteServerFailed;

/// The longest time that an idle connection is kept open.
const MAX_KEEP_ALIVE: Duration = Duration::from_secs(600);

impl RemoteServer {
    pub fn new(config: RemoteServerConfig<'_>, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
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
            response_body: ResponseBodyUse::Collect { max_bytes: max_response },
        };
        let reports = ServerReports::new(field, cx);
        Ok(RemoteServer { request, services: Arc::clone(cx.services), reports: Arc::new(reports) })
    }

    /// Sends a request, which `prepare` completes. A response with a status that is not expected is a failure.
    pub fn send(
        &self,
        prepare: impl FnOnce(&mut RemoteRequest),
        is_expected: fn(StatusCode) -> bool,
    ) -> BoxFuture<'static, Result<RemoteResponse, RemoteServerFailed>> {
        let mut request = self.request.clone();
        prepare(&mut request);
        let reports = Arc::clone(&self.reports);
        let server = format!("{}:{}", request.remote.host, request.remote.port);
        let sending = self.services.send(request);
        async move {
            let failure = match sending.await {
                Ok(response) if is_expected(response.status) => {
                    reports.update(None);
                    return Ok(response);
                }
                Ok(response) => format!("{server} responded with status {}", response.status.as_u16()),
                Err(error) => format!("{server}: {error}"),
            };
            reports.update(Some(failure));
            Err(RemoteServerFailed)
        }
        .boxed()
    }

    /// Sends a request in place of a backend, which `prepare` completes. Any response will do, and its body streams.
    pub fn stream(
        &self,
        prepare: impl FnOnce(&mut RemoteRequest),
    ) -> BoxFuture<'static, Result<StreamedResponse, RemoteServerFailed>> {
        let mut request = self.request.clone();
        prepare(&mut request);
        let reports = Arc::clone(&self.reports);
        let server = format!("{}:{}", request.remote.host, request.remote.port);
        let sending = self.services.send_in_place_of_backend(request, None);
        async move {
            match sending.await {
                Ok(response) => {
                    reports.update(None);
                    return Ok(response);
                }
                // Not a failure of the server.
                Err(RemoteFailure::Busy(_)) => {}
                Err(failure) => reports.update(Some(format!("{server}: {}", failure.into_message()))),
            }
            Err(RemoteServerFailed)
        }
        .boxed()
    }

    /// Like [`RemoteServer::send`], in place of a backend. The response is collected with [`PendingResponse::collect`].
    pub fn begin(&self, prepare: impl FnOnce(&mut RemoteRequest)) -> PendingResponse {
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
            sending: self.services.send_in_place_of_backend(request, None),
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
    ) -> Result<RemoteResponse, RemoteServerFailed> {
        let PendingResponse { sending, reports, server, timeout, max_bytes } = self;
        let collecting = async {
            // Without a message, it is no failure of the server.
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
        match &collected {
            Ok(_) => reports.update(None),
            Err(None) => {}
            Err(Some(failure)) => reports.update(Some(failure.clone())),
        }
        collected.map_err(|_| RemoteServerFailed)
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
        let (hold, failed_at) = (Duration::ZERO, Mutex::default());
        ServerReports { diagnostic: ServerDiagnostic::new(cx), field: field.to_owned(), hold, failed_at }
    }

    /// The same, which report a failure for some time. So requests of which some succeed do not change the conditions
    /// of the object again and again.
    pub fn holding(self, hold: Duration) -> Self {
        ServerReports { hold, ..self }
    }

    /// Reports a failure, or with `None` that the server responds.
    pub fn update(&self, failure: Option<String>) {
        // Nearly all requests succeed, and end here.
        if failure.is_none() && !self.diagnostic.is_failing() {
            return;
        }
        {
            let mut failed_at = self.failed_at.lock();
            match &failure {
                Some(_) => *failed_at = Some(Instant::now()),
                None if failed_at.is_some_and(|at| at.elapsed() < self.hold) => return,
                None => {}
            }
        }
        if !self.diagnostic.note_failing(failure.is_some()) {
            return;
        }
        let object = self.diagnostic.object();
        match failure {
            Some(error) => {
                warn!(object, error, "A server that requests depend on has failed");
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin_api::kind::BuildNotes;
    use crate::plugin_api::scripted_server::ScriptedServer;
    use crate::plugin_api::state::PluginState;

    #[tokio::test(start_paused = true)]
    async fn failures_are_reported_for_some_time() {
        let (state, notes) = (PluginState::default(), BuildNotes::default());
        let server = ScriptedServer::new(|_| Err("refused".to_owned()));
        let services = server.services();
        let cx = BuildCx { object: "KongPlugin/a/b", state: &state, services: &services, node: "", notes: &notes };
        let reports = ServerReports::new("host", &cx).holding(Duration::from_secs(5));
        for _ in 0..100 {
            reports.update(Some("refused".to_owned()));
            reports.update(None);
        }
        assert_eq!(server.reports.lock().len(), 1, "requests switch the condition");
        tokio::time::advance(Duration::from_secs(5)).await;
        reports.update(None);
        assert!(server.reports.lock()[1..] == [None]);
    }
}
