//! Counters of the connections of TCP and TLS listeners and of the sessions of UDP listeners, by how they ended.

use http::StatusCode;

use crate::upstream::{Overloaded, SingleWriterCounter};

/// How a connection or a UDP session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum StreamOutcome {
    /// Both sides have closed, or a UDP session was idle.
    Completed,
    /// The connection to the client failed.
    ClientReset,
    /// The connection to the endpoint failed.
    EndpointReset,
    /// No bytes were transferred for too long.
    IdleTimeout,
    /// The connection was still open after the grace period of its removed listener, or of the process.
    ListenerClosed,
    /// The connection was still open after the grace period of its removed endpoint.
    EndpointRemoved,
    /// A plugin rejected the client.
    PluginRejected,
    /// The client had the maximum number of connections.
    ClientLimit,
    /// No route is attached to the listener.
    NoRoute,
    /// No backend of the route has a weight above 0.
    NoBackends,
    /// The backend does not exist or may not be referenced.
    InvalidBackend,
    /// The route has something that is not supported.
    UnsupportedRule,
    /// The backend has no endpoints.
    NoEndpoints,
    /// No endpoint accepted the connection.
    ConnectionRefused,
    /// Connecting took too long.
    ConnectTimeout,
    /// The endpoint is a listener of this process.
    LoopDetected,
    /// The maximum number of connections to endpoints is open.
    ConnectionLimit,
    /// The backend has as many connections as its limits allow.
    OverLimit,
    /// The circuit breaker of the backend lets no connection through.
    CircuitOpen,
    /// A UDP session ended in favor of a new one, because there was the maximum number.
    SessionLimit,
    /// The backend or endpoint of a UDP session was removed.
    Reassigned,
}

impl From<Overloaded> for StreamOutcome {
    fn from(overloaded: Overloaded) -> Self {
        match overloaded {
            Overloaded::OverLimit | Overloaded::QueueTimeout => StreamOutcome::OverLimit,
            Overloaded::CircuitOpen { .. } => StreamOutcome::CircuitOpen,
        }
    }
}

impl StreamOutcome {
    /// All outcomes with their labels, in the order of their counters.
    pub(in crate::proxy) const ALL: [(StreamOutcome, &'static str); 21] = [
        (StreamOutcome::Completed, "completed"),
        (StreamOutcome::ClientReset, "client_reset"),
        (StreamOutcome::EndpointReset, "endpoint_reset"),
        (StreamOutcome::IdleTimeout, "idle_timeout"),
        (StreamOutcome::ListenerClosed, "listener_closed"),
        (StreamOutcome::EndpointRemoved, "endpoint_removed"),
        (StreamOutcome::PluginRejected, "plugin_rejected"),
        (StreamOutcome::ClientLimit, "client_limit"),
        (StreamOutcome::NoRoute, "no_route"),
        (StreamOutcome::NoBackends, "no_backends"),
        (StreamOutcome::InvalidBackend, "invalid_backend"),
        (StreamOutcome::UnsupportedRule, "unsupported_rule"),
        (StreamOutcome::NoEndpoints, "no_endpoints"),
        (StreamOutcome::ConnectionRefused, "connection_refused"),
        (StreamOutcome::ConnectTimeout, "connect_timeout"),
        (StreamOutcome::LoopDetected, "loop_detected"),
        (StreamOutcome::ConnectionLimit, "connection_limit"),
        (StreamOutcome::OverLimit, "over_limit"),
        (StreamOutcome::CircuitOpen, "circuit_open"),
        (StreamOutcome::SessionLimit, "session_limit"),
        (StreamOutcome::Reassigned, "reassigned"),
    ];

    /// The label in metrics, and the error in the access log.
    pub(in crate::proxy) fn label(self) -> &'static str {
        StreamOutcome::ALL[self as usize].1
    }

    /// The status in the objects of log plugins, as nginx sets it: 200 from the moment on in which an endpoint is
    /// connected.
    pub(in crate::proxy) fn status(self) -> StatusCode {
        match self {
            StreamOutcome::Completed
            | StreamOutcome::ClientReset
            | StreamOutcome::EndpointReset
            | StreamOutcome::IdleTimeout
            | StreamOutcome::ListenerClosed
            | StreamOutcome::EndpointRemoved
            | StreamOutcome::Reassigned => StatusCode::OK,
            StreamOutcome::PluginRejected => StatusCode::FORBIDDEN,
            StreamOutcome::ConnectionRefused | StreamOutcome::ConnectTimeout | StreamOutcome::LoopDetected => {
                StatusCode::BAD_GATEWAY
            }
            StreamOutcome::NoRoute
            | StreamOutcome::NoBackends
            | StreamOutcome::InvalidBackend
            | StreamOutcome::UnsupportedRule => StatusCode::INTERNAL_SERVER_ERROR,
            StreamOutcome::ClientLimit
            | StreamOutcome::NoEndpoints
            | StreamOutcome::ConnectionLimit
            | StreamOutcome::OverLimit
            | StreamOutcome::CircuitOpen
            | StreamOutcome::SessionLimit => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Whether the remaining connections are reset, so that no side takes the end for a complete transfer.
    pub(in crate::proxy) fn resets_peers(self) -> bool {
        match self {
            StreamOutcome::Completed
            | StreamOutcome::IdleTimeout
            | StreamOutcome::ListenerClosed
            | StreamOutcome::EndpointRemoved => false,
            StreamOutcome::ClientReset
            | StreamOutcome::EndpointReset
            | StreamOutcome::PluginRejected
            | StreamOutcome::ClientLimit
            | StreamOutcome::NoRoute
            | StreamOutcome::NoBackends
            | StreamOutcome::InvalidBackend
            | StreamOutcome::UnsupportedRule
            | StreamOutcome::NoEndpoints
            | StreamOutcome::ConnectionRefused
            | StreamOutcome::ConnectTimeout
            | StreamOutcome::LoopDetected
            | StreamOutcome::ConnectionLimit
            | StreamOutcome::OverLimit
            | StreamOutcome::CircuitOpen
            | StreamOutcome::SessionLimit
            | StreamOutcome::Reassigned => true,
        }
    }
}

/// The connections of one label set in one worker.
#[derive(Debug, Default)]
pub(super) struct StreamCounters {
    outcomes: [SingleWriterCounter; StreamOutcome::ALL.len()],
    bytes_in: SingleWriterCounter,
    bytes_out: SingleWriterCounter,
}

impl StreamCounters {
    pub(super) fn add(&self, outcome: StreamOutcome, bytes_in: u64, bytes_out: u64) {
        self.outcomes[outcome as usize].add(1);
        self.bytes_in.add(bytes_in);
        self.bytes_out.add(bytes_out);
    }
}

/// The connections of one label set in all workers.
#[derive(Clone, Copy, Default)]
pub(super) struct MergedStreams {
    pub(super) outcomes: [u64; StreamOutcome::ALL.len()],
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

impl MergedStreams {
    pub(super) fn add(&mut self, counters: &StreamCounters) {
        for (sum, count) in self.outcomes.iter_mut().zip(&counters.outcomes) {
            *sum += count.value();
        }
        self.bytes_in += counters.bytes_in.value();
        self.bytes_out += counters.bytes_out.value();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_match_their_counter_index() {
        for (index, (outcome, label)) in StreamOutcome::ALL.into_iter().enumerate() {
            assert_eq!((outcome as usize, outcome.label()), (index, label));
        }
    }

    /// Dashboards depend on the labels, so the documentation lists exactly the existing ones.
    #[test]
    fn every_outcome_is_documented() {
        let labels = |section: &'static str| -> Vec<&'static str> {
            let labels = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
            labels.map(|(label, _)| label).collect()
        };
        let tcp = labels(include_str!("../../../../../../docs/tasks/tcp.md"));
        let udp = include_str!("../../../../../../docs/tasks/udp.md").split_once("## How sessions end").unwrap().1;
        let udp = labels(udp.split_once("\n## ").unwrap().0);
        assert!(udp.iter().all(|label| StreamOutcome::ALL.iter().any(|(_, known)| known == label)), "{udp:?}");
        let only_udp = udp.into_iter().filter(|label| !tcp.contains(label));
        let documented: Vec<_> = tcp.iter().copied().chain(only_udp).collect();
        assert_eq!(documented, StreamOutcome::ALL.map(|(_, label)| label));
    }
}
