//! One check of one endpoint, from its socket to its result.

use std::cell::Cell;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, timeout};

use super::check_target::CheckTarget;
use super::http_check::HttpRequest;
use super::http_connection::HttpConnection;
use super::{grpc_check, http_check, tcp_check};
use crate::upstream::connect::{ConnectionTls, StreamOpener};
use crate::upstream::settings::{CheckFailureKind, CheckKind};
use crate::upstream::socket::UpstreamSocket;
use crate::upstream::{ConnectError, OwnSockets, SocketBudget, SocketLimit};

/// What checks have in common, whichever upstream they belong to.
pub(super) struct EndpointChecker {
    /// The sockets of all checks, with a share for each upstream and namespace.
    pub(super) sockets: SocketBudget,
    pub(super) own_sockets: Arc<OwnSockets>,
}

/// An endpoint has passed a check.
#[derive(Debug)]
pub(super) struct CheckPass {
    /// What the endpoint lacks nevertheless.
    pub(super) warning: Option<&'static str>,
    /// Whether the check has opened a connection.
    pub(super) has_connected: bool,
    /// Whether the connection can be used for another check.
    pub(super) is_reusable: bool,
    /// False for a response that is neither expected nor a failure, so that it shows nothing.
    pub(super) is_conclusive: bool,
}

impl CheckPass {
    /// A check that has passed without a warning.
    pub(super) fn on_this_connection(is_reusable: bool) -> CheckPass {
        CheckPass { warning: None, has_connected: false, is_reusable, is_conclusive: true }
    }
}

/// Why a check has not passed. The texts follow the address of the endpoint.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckFailure {
    #[error(transparent)]
    Connect(ConnectError),
    #[error("the check was skipped, because {0}; raise the intervals of the checks, or lower their timeouts")]
    NoSocket(SocketLimit),
    #[error("it has not responded to the check within {0:?}")]
    TimedOut(Duration),
    #[error("it closed the connection without a response to the check: {0}")]
    NoResponse(String),
    #[error("its response to the check is invalid: {0}")]
    InvalidResponse(String),
    #[error("it responded to the check with status {}; redirects are not followed", .0.as_u16())]
    Status(StatusCode),
    #[error("its response to the check is incomplete: {0}")]
    Incomplete(String),
    #[error("its response to the check is not one of gRPC")]
    NotGrpc,
    #[error("its health service has responded with the gRPC status {0}")]
    GrpcStatus(i32),
    #[error("its health service reports {}", serving_status_name(*.0))]
    NotServing(i32),
    #[error("the connection of the check failed: {0}")]
    Connection(String),
    #[error("it closed the connection after {received} bytes, before it sent the expected bytes")]
    Closed { received: usize },
    #[error("the first {received} bytes that it sent do not contain the expected ones")]
    Unexpected { received: usize },
}

impl CheckFailure {
    pub(super) fn no_response(error: &hyper::Error) -> Self {
        match error.is_parse() {
            true => CheckFailure::InvalidResponse(describe(error)),
            false => CheckFailure::NoResponse(describe(error)),
        }
    }

    pub(super) fn incomplete(error: &hyper::Error) -> Self {
        CheckFailure::Incomplete(describe(error))
    }

    /// The kind of the failure, which may have a threshold of its own.
    pub(super) fn kind(&self) -> CheckFailureKind {
        match self {
            CheckFailure::TimedOut(_) => CheckFailureKind::Timeout,
            CheckFailure::Connect(ConnectError::TimedOut(..)) => CheckFailureKind::Timeout,
            CheckFailure::Connect(_)
            | CheckFailure::NoSocket(_)
            | CheckFailure::NoResponse(_)
            | CheckFailure::Connection(_)
            | CheckFailure::Closed { .. } => CheckFailureKind::Connection,
            CheckFailure::Status(_)
            | CheckFailure::InvalidResponse(_)
            | CheckFailure::Incomplete(_)
            | CheckFailure::NotGrpc
            | CheckFailure::GrpcStatus(_)
            | CheckFailure::NotServing(_)
            | CheckFailure::Unexpected { .. } => CheckFailureKind::Response,
        }
    }

    /// Whether this process, and not the endpoint, is the reason, so that nothing is known about the endpoint.
    pub(super) fn is_local(&self) -> bool {
        match self {
            CheckFailure::NoSocket(_) => true,
            CheckFailure::Connect(error) => error.is_shortage(),
            _ => false,
        }
    }
}

impl EndpointChecker {
    /// Checks an endpoint, over the kept connection if it is still open. Returns the connection if it can be kept.
    pub(super) async fn check(
        &self,
        target: &CheckTarget,
        endpoint: SocketAddr,
        kept: Option<HttpConnection>,
    ) -> (Result<CheckPass, CheckFailure>, Option<HttpConnection>) {
        let limit = target.check.timeout;
        if let Some(mut connection) = kept.filter(HttpConnection::is_open) {
            let response = timeout(limit, target.send(&mut connection));
            match response.await.unwrap_or(Err(CheckFailure::TimedOut(limit))) {
                // The endpoint may close a connection that is idle.
                Err(CheckFailure::NoResponse(_)) => {}
                result => return self.keep(target, result, connection),
            }
        }
        // Waiting for a socket takes nothing of the endpoint's time.
        let deadline = Instant::now() + limit;
        let permit = match self.sockets.acquire(&target.sockets, &target.namespace, deadline).await {
            Ok(permit) => permit,
            Err(limit) => return (Err(CheckFailure::NoSocket(limit)), None),
        };
        let check = async {
            let opener = StreamOpener { timeout: limit, own_sockets: &self.own_sockets };
            let tls = target.tls.as_ref();
            let tls = tls.map(|tls| ConnectionTls {
                client: &tls.client,
                server_name: tls.server_name.as_deref(),
                has_begun: None,
            });
            let opened = opener.open(target.address(endpoint), &target.proxy_header, tls, &Cell::default()).await;
            let socket = UpstreamSocket::new(opened.map_err(CheckFailure::Connect)?, permit, None);
            if let CheckKind::Tcp { send, expect } = &target.check.kind {
                return tcp_check::check(socket, send, expect).await.map(|pass| (pass, None));
            }
            let opened = HttpConnection::open(socket, target.protocol).await;
            let mut connection = opened.map_err(|error| CheckFailure::no_response(&error))?;
            target.send(&mut connection).await.map(|pass| (pass, Some(connection)))
        };
        match timeout(limit, check).await.unwrap_or(Err(CheckFailure::TimedOut(limit))) {
            Ok((pass, connection)) => {
                let pass = CheckPass { has_connected: true, ..pass };
                match connection {
                    Some(connection) => self.keep(target, Ok(pass), connection),
                    None => (Ok(pass), None),
                }
            }
            Err(failure) => (Err(failure), None),
        }
    }

    /// Keeps the connection if it can be used again, and there is room for those of other endpoints.
    fn keep(
        &self,
        target: &CheckTarget,
        result: Result<CheckPass, CheckFailure>,
        connection: HttpConnection,
    ) -> (Result<CheckPass, CheckFailure>, Option<HttpConnection>) {
        let is_reusable = result.as_ref().is_ok_and(|pass| pass.is_reusable) && connection.is_open();
        let is_kept = is_reusable && target.check.reuses_connection && self.sockets.is_ample();
        (result, is_kept.then_some(connection))
    }
}

impl CheckTarget {
    /// Sends the request of the check, and evaluates the response.
    async fn send(&self, connection: &mut HttpConnection) -> Result<CheckPass, CheckFailure> {
        let is_encrypted = self.tls.is_some();
        match &self.check.kind {
            CheckKind::Http { tls: _, method, path, host, headers, expected, failing } => {
                let keeps_connection = self.check.reuses_connection;
                let request = HttpRequest { method, path, host, headers, keeps_connection };
                let request = request.build(self.protocol, is_encrypted);
                http_check::check(connection, request, expected, failing.as_ref()).await
            }
            CheckKind::Grpc { service, authority } => {
                let request = grpc_check::request(service, authority, self.check.timeout, is_encrypted);
                grpc_check::check(connection, request).await
            }
            // It sends bytes over the socket itself.
            CheckKind::Tcp { .. } => Ok(CheckPass::on_this_connection(false)),
        }
    }
}

/// The library's message with its cause, which its own text omits.
fn describe(error: &hyper::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// The name of a value of `grpc.health.v1.HealthCheckResponse.ServingStatus`.
fn serving_status_name(status: i32) -> &'static str {
    match status {
        0 => "UNKNOWN",
        1 => "SERVING",
        2 => "NOT_SERVING",
        3 => "SERVICE_UNKNOWN",
        _ => "a status that the protocol does not have",
    }
}
