//! Accounting of each forwarded connection and UDP session: records metrics and the access-log entry when dropped.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::proxy::record::access_log::AccessLogRecord;
use crate::proxy::record::request_tracer::EndedStream;
use crate::proxy::record::stats::{RequestSeries, StreamOutcome};
use crate::proxy::worker::Worker;

/// The record of an open connection or UDP session.
pub(in crate::proxy) struct ConnectionRecord<'w> {
    worker: &'w Worker,
    client: SocketAddr,
    protocol: &'static str,
    server_name: Option<Arc<str>>,
    /// Counts the connection; its labels are the listener, the route and the backend.
    series: Arc<RequestSeries>,
    opened_at: Instant,
    /// The endpoint that was last tried.
    pub(in crate::proxy) address: Option<SocketAddr>,
    /// The time until an endpoint was connected, including failed attempts.
    pub(in crate::proxy) connect_duration: Option<Duration>,
    /// Bytes from the client.
    pub(in crate::proxy) bytes_in: Cell<u64>,
    /// Bytes from the endpoint.
    pub(in crate::proxy) bytes_out: Cell<u64>,
    /// How the connection ended. None while it is open.
    pub(in crate::proxy) outcome: Option<StreamOutcome>,
}

impl<'w> ConnectionRecord<'w> {
    pub(in crate::proxy) fn start(
        worker: &'w Worker,
        client: SocketAddr,
        protocol: &'static str,
        server_name: Option<Arc<str>>,
        series: Arc<RequestSeries>,
    ) -> Self {
        ConnectionRecord {
            worker,
            client,
            protocol,
            server_name,
            series,
            opened_at: Instant::now(),
            address: None,
            connect_duration: None,
            bytes_in: Cell::new(0),
            bytes_out: Cell::new(0),
            outcome: None,
        }
    }
}

impl Drop for ConnectionRecord<'_> {
    fn drop(&mut self) {
        // A connection without an outcome is dropped with its worker.
        let outcome = self.outcome.unwrap_or(StreamOutcome::ListenerClosed);
        let (bytes_in, bytes_out) = (self.bytes_in.get(), self.bytes_out.get());
        self.series.add_stream(outcome, bytes_in, bytes_out);
        let tracer = self.worker.tracer();
        if self.worker.log.is_off() && tracer.is_none() {
            return;
        }
        let duration = self.opened_at.elapsed();
        let error = (outcome != StreamOutcome::Completed).then(|| outcome.label());
        if let Some(tracer) = tracer {
            tracer.end_stream(&EndedStream {
                protocol: self.protocol,
                opened_at: self.opened_at,
                duration,
                client: self.client,
                server_name: self.server_name.as_deref(),
                endpoint: self.address,
                connect: self.connect_duration,
                bytes_in,
                bytes_out,
                error,
                series: &self.series,
            });
        }
        if self.worker.log.is_off() {
            return;
        }
        self.worker.log.write(&AccessLogRecord {
            time: SystemTime::now() - duration,
            client: self.client,
            tls: None,
            server_name: self.server_name.take(),
            method: None,
            protocol: Some(self.protocol),
            host: None,
            target: None,
            status: None,
            bytes_in,
            bytes_out,
            duration,
            connect_duration: self.connect_duration,
            series: Some(Arc::clone(&self.series)),
            address: self.address,
            tries: &[],
            pick: None,
            retry_stop: None,
            consumer: None,
            request_id: None,
            trace: None,
            error,
            user_agent: None,
        });
    }
}
