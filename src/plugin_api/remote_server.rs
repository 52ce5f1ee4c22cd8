//! A server that decides about requests, or that issues tokens for them: its URL in a configuration, the requests to
//! it, and the report in the conditions of the object while it fails.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderMap, Method, StatusCode};
use tracing::{info, warn};

use super::kind::BuildCx;
use super::remote::MAX_REMOTE_TIMEOUT;
use super::remote_request::{RemoteRequest, RemoteResponse, RemoteUrl, ResponseBodyUse};
use super::server_diagnostics::ServerDiagnostic;
use super::services::PluginServices;
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

impl std::fmt::Debug for RemoteServer {
    /// Omits the headers, which may contain passwords.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("RemoteServer").field("remote", &self.request.remote).finish_non_exhaustive()
    }
}

impl ServerReports {
    /// `field`: the path of the field with the server, below `config`.
    pub fn new(field: &str, cx: &BuildCx<'_>) -> Self {
        ServerReports { diagnostic: ServerDiagnostic::new(cx), field: field.to_owned() }
    }

    /// Reports a failure, or with `None` that the server responds.
    pub fn update(&self, failure: Option<String>) {
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
