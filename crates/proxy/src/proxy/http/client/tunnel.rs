//! A connection or stream after an upgrade: bytes are copied in both directions unparsed, unless the messages of a
//! WebSocket have limits.

use std::cell::Cell;
use std::rc::Rc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::deadlines::deadline;
use super::websocket::{LimitedSide, RefusedFrame};
use crate::plugin_api::message_limits::MessageLimits;
use crate::proxy::connection::listener_connections::ConnectionRegistration;
use crate::proxy::connection::relay::{CountedStream, RelayEnd, RelayLimits, relay};
use crate::proxy::http::exchange::activity::ActivityPhase;
use crate::proxy::http::record::request_error::{TUNNEL_BROKEN, TUNNEL_CLOSED, TUNNEL_IDLE};
use crate::proxy::http::steps::held_record::HeldRecord;
use crate::proxy::telemetry::stats::OpenGuard;
use crate::upstream::UpgradedConnection;

/// A tunnel between a client and an endpoint after an upgrade.
pub(in crate::proxy) struct Tunnel {
    endpoint: Box<UpgradedConnection>,
    record: HeldRecord,
    /// The stream of an HTTP/2 client. An HTTP/1 connection is upgraded by the task that serves it.
    stream: Option<OnUpgrade>,
    /// The limits of the messages of a WebSocket, if plugins have set them.
    message_limits: Option<MessageLimits>,
}

impl Tunnel {
    pub(in crate::proxy) fn new(
        stream: Option<OnUpgrade>,
        endpoint: Box<UpgradedConnection>,
        record: HeldRecord,
        message_limits: Option<MessageLimits>,
    ) -> Box<Self> {
        Box::new(Tunnel { endpoint, record, stream, message_limits })
    }

    /// Runs the tunnel on the stream of an HTTP/2 client, in a task that ends with its connection or with the tunnel.
    pub(in crate::proxy) fn spawn_on_stream(mut self: Box<Self>) {
        let Some(stream) = self.stream.take() else { return };
        tokio::task::spawn_local(async move {
            if let Ok(stream) = stream.await {
                let registration = self.record.exchange.connections.register();
                self.run(TokioIo::new(stream), registration).await;
            }
        });
    }

    /// Copies bytes until both sides have closed, the tunnel is idle for too long, or a removed listener's grace
    /// period has passed.
    pub(in crate::proxy) async fn run<S>(self: Box<Self>, client: S, mut registration: ConnectionRegistration)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Tunnel { endpoint, mut record, stream: _, message_limits } = *self;
        let exchange = Rc::clone(&record.exchange);
        let (activity, limits) = (&exchange.activity, &exchange.worker().limits);
        let _counted = OpenGuard::new(&exchange.worker().counters, |stats| &stats.tunnels);
        activity.enter_phase(ActivityPhase::Tunnel, Instant::now());
        let bytes_out = Cell::new(0);
        let on_progress = || activity.record_progress();
        let forwarded = Cell::new(0);
        let on_client_progress = || {
            on_progress();
            if let Some((bodies, request)) = exchange.unforwarded() {
                let read = activity.bytes_in.get();
                let length = usize::try_from(read - forwarded.replace(read)).unwrap_or(usize::MAX);
                bodies.forward_bytes(request, length);
            }
        };
        let mut client = CountedStream::new(client, &activity.bytes_in, on_client_progress);
        let mut endpoint = CountedStream::new(endpoint, &bytes_out, on_progress);
        let relay_limits = RelayLimits {
            idle_deadline: || deadline(activity, limits, limits.upgrade_idle_timeout),
            closing_grace: Some(limits.tunnel_grace_period),
            removed_endpoint_grace: None,
        };
        let refused = RefusedFrame::default();
        let end = match message_limits {
            None => relay(&mut client, &mut endpoint, &exchange.connections, &mut registration, relay_limits).await,
            Some(limits) => {
                let mut client = LimitedSide::client(client, limits, &refused);
                let mut endpoint = LimitedSide::endpoint(endpoint, limits, &refused);
                // Boxed, so that tunnels without limits stay small.
                let relay = relay(&mut client, &mut endpoint, &exchange.connections, &mut registration, relay_limits);
                Box::pin(relay).await
            }
        };
        let error = match end {
            RelayEnd::Completed => None,
            RelayEnd::Failed => Some(TUNNEL_BROKEN),
            RelayEnd::Idle => Some(TUNNEL_IDLE),
            RelayEnd::ListenerClosed | RelayEnd::EndpointRemoved => Some(TUNNEL_CLOSED),
        };
        record.facts.error = refused.reason().or(error);
        record.facts.bytes_out = bytes_out.get();
        record.finish();
    }
}
