//! Accounting of each forwarded connection and UDP session: records metrics and the access-log entry when dropped.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::assigned::StreamLog;
use crate::plugin_api::EndedSession;
use crate::plugin_api::completed_request::{Attempt, AttemptOutcome, LoggedTls};
use crate::proxy::telemetry::access_log::AccessLogRecord;
use crate::proxy::telemetry::request_tracer::EndedStream;
use crate::proxy::telemetry::stats::{RequestSeries, StreamOutcome};
use crate::proxy::worker::Worker;
use crate::turn_clock;

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
    /// The plugins that log it.
    pub(in crate::proxy) log: Option<Box<StreamLog>>,
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
            log: None,
        }
    }
}

impl ConnectionRecord<'_> {
    /// Runs the log phase of the plugins.
    fn run_log(&self, log: &StreamLog, outcome: StreamOutcome, total: Duration) {
        // Datagrams need no connection.
        let is_at_once = self.protocol == "UDP" && self.address.is_some();
        let connect = self.connect_duration.or(is_at_once.then_some(Duration::ZERO));
        let attempt = self.address.map(|endpoint| Attempt {
            connect,
            total,
            outcome: match connect {
                Some(_) => AttemptOutcome::Unfinished,
                None => AttemptOutcome::Failed { reason: outcome.label(), status: outcome.status() },
            },
            ..Attempt::start(endpoint, self.opened_at)
        });
        log.plugins.log(&EndedSession {
            client: self.client.ip().to_canonical(),
            server_port: log.server_port,
            tls: log.tls.map(|tls| LoggedTls { server_name: self.server_name.as_deref(), ..tls }),
            received: self.bytes_in.get(),
            sent: self.bytes_out.get(),
            status: outcome.status(),
            started_at: turn_clock::to_system_time(self.opened_at),
            started_instant: self.opened_at,
            total,
            connect,
            attempts: attempt.as_slice(),
            error: (outcome != StreamOutcome::Completed).then(|| outcome.label()),
        });
    }
}

impl Drop for ConnectionRecord<'_> {
    fn drop(&mut self) {
        // A connection without an outcome is dropped with its worker.
        let outcome = self.outcome.unwrap_or(StreamOutcome::ListenerClosed);
        let (bytes_in, bytes_out) = (self.bytes_in.get(), self.bytes_out.get());
        self.series.add_stream(outcome, bytes_in, bytes_out);
        let duration = self.opened_at.elapsed();
        if let Some(log) = self.log.take() {
            self.run_log(&log, outcome, duration);
        }
        let error = (outcome != StreamOutcome::Completed).then(|| outcome.label());
        let trace = self.worker.tracer().and_then(|tracer| {
            tracer.end_stream(
                &self.worker.view().snapshot.traces,
                &EndedStream {
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
                },
            )
        });
        if self.worker.log.is_off() {
            return;
        }
        self.worker.log.write(AccessLogRecord {
            time: SystemTime::now() - duration,
            client: self.client,
            tls: None,
            tls_cipher: None,
            server_name: self.server_name.take(),
            listen_port: None,
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
            telemetry: None,
            address: self.address,
            tries: &[],
            pick: None,
            retry_stop: None,
            consumer: None,
            request_id: None,
            trace,
            error,
            user_agent: None,
            captured: None,
            credentials: None,
            privacy: self.worker.log.privacy(),
        });
    }
}
