//! The backend of an accepted connection or a UDP session, with the series that counts the connection.

use std::sync::Arc;

use crate::proxy::record::stats::{RequestSeries, StreamOutcome};
use crate::proxy::worker::Worker;
use crate::proxy::worker::snapshot_view::SnapshotView;
use crate::snapshot::rule::{Backend, BackendTarget, RouteFailure};
use crate::snapshot::stream::{StreamAction, StreamRule};
use crate::upstream::Upstream;

/// Where a connection or UDP session is forwarded. It is decided when the connection is accepted, or when the session
/// begins, and kept until it ends.
pub(in crate::proxy) struct AssignedStream {
    /// The upstream, or why there is none.
    pub(in crate::proxy) upstream: Result<Arc<Upstream>, StreamOutcome>,
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
        AssignedStream { upstream, series: view.stream_series(worker, rule, backend.ok()) }
    }
}

/// How a connection or session ends that has no upstream.
pub(in crate::proxy) fn outcome_of(failure: RouteFailure) -> StreamOutcome {
    match failure {
        RouteFailure::NoBackends => StreamOutcome::NoBackends,
        RouteFailure::InvalidBackend | RouteFailure::NoService => StreamOutcome::InvalidBackend,
        RouteFailure::Unsupported | RouteFailure::NoAuthorizationServer | RouteFailure::UnsupportedProtection => {
            StreamOutcome::UnsupportedRule
        }
    }
}
