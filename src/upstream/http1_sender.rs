//! HTTP/1 connections to endpoints with either codec: Portico's or hyper's.

use std::error::Error;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{Either, FutureExt};
use http::{Request, Response, request};
use http_body::Body;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;

use super::connect::{ConnectError, EndpointConnector, HYPER_DEFAULT_FIELDS, READ_BUFFER};
use super::counted_connection::CountedConnection;
use super::endpoint_body::{IncomingBody, received};
use super::endpoint_error::RequestFailure;
use super::http1::Http1EndpointConnection;
use super::socket::ResponseMonitor;
use super::tls::UpstreamServerName;
use super::upgraded::{EndpointUpgrade, UpgradedConnection};
use super::{UpstreamCounters, UpstreamTarget};
use crate::http1::HeadLimits;

/// An HTTP/1 connection for one request at a time.
pub(super) enum Http1Sender<B> {
    Portico(Http1EndpointConnection<B>),
    Hyper(SendRequest<B>, ResponseMonitor),
}

impl<B> Http1Sender<B> {
    pub(super) fn monitor(&self) -> &ResponseMonitor {
        match self {
            Http1Sender::Portico(connection) => connection.monitor(),
            Http1Sender::Hyper(_, monitor) => monitor,
        }
    }

    pub(super) fn server_name(&self) -> Option<&UpstreamServerName> {
        self.monitor().server_name()
    }

    /// Whether an idle connection can take a request: the endpoint has not closed it.
    pub(super) fn is_open(&self) -> bool {
        match self {
            Http1Sender::Portico(connection) => connection.is_silent(),
            Http1Sender::Hyper(sender, _) => sender.is_ready(),
        }
    }

    /// Whether the connection can take another request after this one. To be called after the whole response.
    pub(super) fn is_reusable(&self) -> bool {
        match self {
            Http1Sender::Portico(connection) => connection.is_reusable(),
            Http1Sender::Hyper(sender, _) => !sender.is_closed(),
        }
    }

    /// Whether no more of the request is to be sent.
    pub(super) fn is_sent(&self) -> bool {
        match self {
            Http1Sender::Portico(connection) => connection.is_sent(),
            Http1Sender::Hyper(sender, _) => sender.is_ready() || sender.is_closed(),
        }
    }

    /// Releases what only a request needs.
    pub(super) fn become_idle(&self) {
        self.monitor().finish_request();
        if let Http1Sender::Portico(connection) = self {
            connection.release_buffer();
        }
    }
}

impl<B> Http1Sender<B>
where
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    pub(super) async fn connect(
        connector: &EndpointConnector,
        target: &UpstreamTarget<'_>,
        address: SocketAddr,
        counters: &Arc<UpstreamCounters>,
    ) -> Result<Self, ConnectError> {
        let socket = connector.open_socket(target, address, counters).await?;
        if connector.has_own_http1 {
            let limits = HeadLimits { bytes: connector.max_head, fields: connector.max_fields };
            return Ok(Http1Sender::Portico(Http1EndpointConnection::new(socket, counters, limits)));
        }
        let monitor = socket.monitor().clone();
        let max_head = connector.max_head;
        let mut builder = Builder::new();
        builder.http09_responses(false).max_header_size(max_head).max_buf_size(max_head.max(READ_BUFFER));
        if connector.max_fields != HYPER_DEFAULT_FIELDS {
            builder.max_headers(connector.max_fields);
        }
        let (sender, connection) = builder.handshake(TokioIo::new(socket)).await.map_err(|error| {
            counters.failed.add(1);
            ConnectError::after_connect(target, address, error)
        })?;
        let open = CountedConnection::new(counters);
        // The task ends when the sender is dropped or the endpoint closes the connection. Errors are ignored here: the
        // caller awaiting the response or reading its body gets them.
        tokio::task::spawn_local(async move {
            drop(connection.with_upgrades().await);
            drop(open);
        });
        Ok(Http1Sender::Hyper(sender, monitor))
    }

    /// Sends the request and awaits the head of its response. Calls `on_informational` with informational responses
    /// before it; hyper does not report any. Returns the head of the request, unless hyper keeps it.
    pub(super) fn send(
        &mut self,
        request: Request<B>,
        mut on_informational: impl FnMut(Response<()>),
    ) -> (Option<request::Parts>, impl Future<Output = Result<Response<IncomingBody>, RequestFailure<B>>>) {
        match self {
            Http1Sender::Portico(connection) => {
                let head = connection.begin(request);
                let response = poll_fn(move |cx| {
                    let response = connection.poll_response(cx, &mut on_informational).map_err(RequestFailure::Failed);
                    response.map_ok(|response| response.map(|()| IncomingBody::Connection))
                });
                (Some(head), Either::Left(response))
            }
            Http1Sender::Hyper(sender, monitor) => {
                monitor.start_request();
                (None, Either::Right(sender.try_send_request(request).map(received)))
            }
        }
    }

    /// Waits until the request was sent to its end, after the whole response. Returns whether the connection can take
    /// another one.
    pub(super) async fn finish_sending(&mut self) -> bool {
        match self {
            Http1Sender::Portico(connection) => {
                connection.finish_sending().await;
                connection.is_sent() && connection.is_reusable()
            }
            Http1Sender::Hyper(sender, _) => sender.ready().await.is_ok(),
        }
    }

    /// The connection of a response that switches protocols.
    pub(super) fn into_upgrade<R>(self, response: &mut Response<R>) -> Option<EndpointUpgrade> {
        self.monitor().finish_request();
        match self {
            Http1Sender::Portico(connection) => {
                let (stream, counted) = connection.into_socket()?;
                Some(EndpointUpgrade::Done(Box::new(UpgradedConnection::new(stream, counted))))
            }
            Http1Sender::Hyper(..) => Some(EndpointUpgrade::Library(hyper::upgrade::on(response))),
        }
    }
}
