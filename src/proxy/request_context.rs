//! The context that the steps of one request share. It also selects the metric series in which the request is counted.

use std::sync::Arc;

use http::{HeaderMap, Request, Version};

use super::connection::Peer;
use super::error_response::ErrorFormat;
use super::request_id::X_REQUEST_ID;
use super::request_record::RequestRecord;
use super::target::{RequestHost, RequestPath};
use super::upgrade::Upgrade;
use super::view::SnapshotView;
use crate::plugin_api::Framing;
use crate::snapshot::HttpListener;
use crate::snapshot::router::MatchedPath;
use crate::snapshot::rule::{Backend, RouteRule};

/// The context of a request from its head to its response: the configuration it uses, how far it was routed, and its
/// record with the connection, the request id and the times.
///
/// The series of the request is set when this is dropped, which also happens when the client disconnects. So no step
/// can forget it, and the request is counted at the most specific point that it has reached.
pub(super) struct RequestContext<'r> {
    pub(super) view: &'r SnapshotView,
    pub(super) record: &'r mut RequestRecord,
    pub(super) error_format: ErrorFormat,
    /// The HTTP version of the client's request.
    pub(super) version: Version,
    pub(super) listener: Option<&'r Arc<HttpListener>>,
    pub(super) rule: Option<&'r Arc<RouteRule>>,
    pub(super) backend: Option<&'r Backend>,
}

impl<'r> RequestContext<'r> {
    pub(super) fn new<B>(view: &'r SnapshotView, record: &'r mut RequestRecord, request: &Request<B>) -> Self {
        RequestContext {
            view,
            record,
            error_format: ErrorFormat::from_request(request),
            version: request.version(),
            listener: None,
            rule: None,
            backend: None,
        }
    }

    pub(super) fn peer(&self) -> &Peer {
        &self.record.peer
    }

    /// Sets the request id of a response, unless the endpoint has sent one.
    pub(super) fn set_request_id(&self, headers: &mut HeaderMap) {
        headers.entry(X_REQUEST_ID).or_insert_with(|| self.record.request_id.clone());
    }

    /// Sets the request id, then applies the response filters of the backend and the rule, which may change it.
    pub(super) fn apply_response_filters(&self, headers: &mut HeaderMap) {
        self.set_request_id(headers);
        let levels = [self.backend.map(|backend| &backend.filters), self.rule.map(|rule| &rule.filters)];
        for edits in levels.into_iter().flatten().filter_map(|filters| filters.response_headers.as_ref()) {
            edits.apply(headers);
        }
    }
}

impl Drop for RequestContext<'_> {
    fn drop(&mut self) {
        // Requests that reach no listener share a series of their own.
        if let Some(listener) = self.listener {
            let worker = &self.record.peer.worker;
            self.record.series = Some(self.view.series(worker, listener, self.rule, self.backend));
        }
    }
}

/// A request whose rule is known. Dropped before the request is forwarded, so that it takes no memory while the
/// response is awaited.
pub(super) struct RoutedRequest<'r> {
    pub(super) listener: &'r Arc<HttpListener>,
    pub(super) rule: &'r Arc<RouteRule>,
    /// The part of the rule that matched the path.
    pub(super) matched: MatchedPath<'r>,
    pub(super) host: RequestHost,
    /// The path that was matched.
    pub(super) path: RequestPath,
    /// The path for the endpoint, if the rule or a plugin has replaced it.
    pub(super) replaced_path: Option<RequestPath>,
    pub(super) upgrade: Option<Box<Upgrade>>,
    /// The framing of the body, for plugins; read before the hop-by-hop headers are removed.
    pub(super) framing: Framing,
}

impl RoutedRequest<'_> {
    /// The path to which the action of the rule applies.
    pub(super) fn endpoint_path(&self) -> &RequestPath {
        self.replaced_path.as_ref().unwrap_or(&self.path)
    }
}
