//! The backend of an accepted connection or a UDP session, with the series that counts the connection.

use std::net::IpAddr;
use std::sync::Arc;

use crate::plugin_api::StreamDecision;
use crate::plugin_api::completed_request::LoggedTls;
use crate::plugin_chain::StreamChain;
use crate::proxy::telemetry::stats::{RequestSeries, StreamOutcome};
use crate::proxy::worker::Worker;
use crate::proxy::worker::snapshot_view::SnapshotView;
use crate::snapshot::rule::{Backend, BackendTarget, RouteFailure};
use crate::snapshot::stream::{StreamAction, StreamOptions, StreamRule};
use crate::upstream::Upstream;

/// Where a connection or UDP session is forwarded. It is decided when the connection is accepted, or when the session
/// begins, and kept until it ends.
pub(in crate::proxy) struct AssignedStream {
    /// The upstream, or why there is none.
    upstream: Result<Arc<Upstream>, StreamOutcome>,
    /// The plugins of the route.
    plugins: Option<Arc<StreamChain>>,
    /// The port that clients see.
    port: u16,
    pub(in crate::proxy) options: Option<Arc<StreamOptions>>,
    pub(in crate::proxy) series: Arc<RequestSeries>,
}

impl AssignedStream {
    /// Picks the backend of the next connection or session. The rule is part of the view.
    pub(in crate::proxy) fn new(worker: &Worker, view: &SnapshotView, rule: &Arc<StreamRule>) -> Self {
        let backend = match rule.route.as_ref().map(|route| &route.action) {
            Some(StreamAction::Forward(split)) => Ok(view.pick_backend(split)),
            Some(StreamAction::Reset(failure)) => Err(outcome_of(*failure)),
            None => Err(StreamOutcome::NoRoute),
        };
        let upstream = backend.and_then(|backend: &Backend| match &backend.target {
            BackendTarget::Upstream(upstream) => Ok(Arc::clone(upstream)),
            BackendTarget::Fail(failure) => Err(outcome_of(*failure)),
        });
        let plugins = rule.route.as_ref().and_then(|route| route.plugins.clone());
        let options = rule.route.as_ref().and_then(|route| route.options.clone());
        let series = view.stream_series(worker, rule, backend.ok());
        AssignedStream { upstream, plugins, port: rule.port, options, series }
    }

    /// The plugins that log the connection or session when it ends, if there are any.
    pub(in crate::proxy) fn log(&self, tls: Option<LoggedTls<'static>>) -> Option<Box<StreamLog>> {
        let plugins = self.plugins.as_ref().filter(|plugins| plugins.logs())?;
        Some(Box::new(StreamLog { plugins: Arc::clone(plugins), server_port: self.port, tls }))
    }

    /// The upstream for this client, or why there is none.
    pub(in crate::proxy) fn upstream_for(&self, client: IpAddr) -> Result<&Arc<Upstream>, StreamOutcome> {
        match &self.plugins {
            Some(plugins) if plugins.open(client) == StreamDecision::Reject => Err(StreamOutcome::PluginRejected),
            Some(_) | None => self.upstream.as_ref().map_err(|outcome| *outcome),
        }
    }
}

/// What the log phase of a connection or session needs in addition to its record.
pub(in crate::proxy) struct StreamLog {
    pub(super) plugins: Arc<StreamChain>,
    pub(super) server_port: u16,
    /// Set if TLS was terminated; without the server name, which the record has.
    pub(super) tls: Option<LoggedTls<'static>>,
}

/// How a connection or session ends that has no upstream.
pub(in crate::proxy) fn outcome_of(failure: RouteFailure) -> StreamOutcome {
    match failure {
        RouteFailure::NoBackends => StreamOutcome::NoBackends,
        RouteFailure::InvalidBackend
        | RouteFailure::NoService
        | RouteFailure::WithoutService
        | RouteFailure::NoDefaultBackend => StreamOutcome::InvalidBackend,
        RouteFailure::Unsupported | RouteFailure::NoAuthorizationServer | RouteFailure::UnsupportedProtection => {
            StreamOutcome::UnsupportedRule
        }
    }
}
