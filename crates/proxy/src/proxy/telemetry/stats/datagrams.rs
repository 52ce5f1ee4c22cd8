//! Counters of datagrams that were not forwarded, by reason.

use std::fmt;
use std::io;

use prometheus_client::encoding::DescriptorEncoder;
use rustix::io::Errno;

use super::exposition::encode_counters;
use super::{ProxyStats, StreamOutcome};
use crate::upstream::SingleWriterCounter;

/// Why a datagram of a UDP listener was not forwarded, in either direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum DatagramDrop {
    /// No route is attached to the listener.
    NoRoute,
    /// No backend of the route has a weight above 0.
    NoBackends,
    /// The backend of the session does not exist or may not be referenced.
    InvalidBackend,
    /// The route has something that is not supported.
    UnsupportedRule,
    /// The backend has no endpoints.
    NoEndpoints,
    /// The backend has as many sessions as its limits allow.
    OverLimit,
    /// The circuit breaker of the backend lets no session through.
    CircuitOpen,
    /// A plugin rejected the client.
    PluginRejected,
    /// The client has the maximum number of sessions.
    ClientLimit,
    /// The endpoint is a UDP listener of this process, so the datagram would be forwarded without end.
    Loop,
    /// Its source is the address of a UDP listener, so it is forged or comes from a loop.
    OwnSource,
    /// It is larger than the way to its destination permits.
    TooLarge,
    /// The buffer of the socket is full.
    BufferFull,
    /// Any other error of the operating system.
    Failed,
}

impl DatagramDrop {
    /// All reasons with their labels, in the order of their counters.
    const ALL: [(DatagramDrop, &'static str); 14] = [
        (DatagramDrop::NoRoute, "no_route"),
        (DatagramDrop::NoBackends, "no_backends"),
        (DatagramDrop::InvalidBackend, "invalid_backend"),
        (DatagramDrop::UnsupportedRule, "unsupported_rule"),
        (DatagramDrop::NoEndpoints, "no_endpoints"),
        (DatagramDrop::OverLimit, "over_limit"),
        (DatagramDrop::CircuitOpen, "circuit_open"),
        (DatagramDrop::PluginRejected, "plugin_rejected"),
        (DatagramDrop::ClientLimit, "client_limit"),
        (DatagramDrop::Loop, "loop"),
        (DatagramDrop::OwnSource, "own_source"),
        (DatagramDrop::TooLarge, "too_large"),
        (DatagramDrop::BufferFull, "buffer_full"),
        (DatagramDrop::Failed, "failed"),
    ];

    /// The reason if a session cannot be assigned to an endpoint.
    pub(in crate::proxy) fn of_outcome(outcome: StreamOutcome) -> Self {
        match outcome {
            StreamOutcome::NoRoute => DatagramDrop::NoRoute,
            StreamOutcome::NoBackends => DatagramDrop::NoBackends,
            StreamOutcome::InvalidBackend => DatagramDrop::InvalidBackend,
            StreamOutcome::UnsupportedRule => DatagramDrop::UnsupportedRule,
            StreamOutcome::NoEndpoints => DatagramDrop::NoEndpoints,
            StreamOutcome::OverLimit => DatagramDrop::OverLimit,
            StreamOutcome::CircuitOpen => DatagramDrop::CircuitOpen,
            StreamOutcome::PluginRejected => DatagramDrop::PluginRejected,
            _ => DatagramDrop::Failed,
        }
    }

    /// The reason if a datagram cannot be sent, or no socket can be opened for it.
    pub(in crate::proxy) fn of_error(error: &io::Error) -> Self {
        match Errno::from_io_error(error) {
            Some(Errno::MSGSIZE) => DatagramDrop::TooLarge,
            Some(Errno::WOULDBLOCK | Errno::NOBUFS) => DatagramDrop::BufferFull,
            _ => DatagramDrop::Failed,
        }
    }
}

/// The dropped datagrams of one worker.
#[derive(Debug, Default)]
pub(in crate::proxy) struct DroppedDatagrams([SingleWriterCounter; DatagramDrop::ALL.len()]);

impl DroppedDatagrams {
    pub(in crate::proxy) fn add(&self, reason: DatagramDrop) {
        self.0[reason as usize].add(1);
    }
}

impl ProxyStats {
    pub(super) fn encode_dropped_datagrams(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let dropped = DatagramDrop::ALL
            .map(|(reason, label)| (label, self.sum(|stats| stats.dropped_datagrams.0[reason as usize].value())));
        let help = "Datagrams of UDP listeners, and replies, that were not forwarded, by reason";
        encode_counters(encoder, "portico_udp_datagrams_dropped", help, "reason", dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_match_their_counter_index() {
        for (index, (reason, label)) in DatagramDrop::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{label}");
        }
    }

    /// Dashboards depend on the labels, so the documentation lists exactly the existing ones.
    #[test]
    fn every_reason_is_documented() {
        let page = include_str!("../../../../../../docs/tasks/udp.md");
        let (_, table) = page.split_once("## Dropped datagrams").unwrap();
        let labels: Vec<_> = table
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once("` |").map(|(label, _)| label))
            .collect();
        assert_eq!(labels, DatagramDrop::ALL.map(|(_, label)| label));
    }

    #[test]
    fn errors_of_the_operating_system_have_reasons() {
        for (errno, expected) in [
            (Errno::MSGSIZE, DatagramDrop::TooLarge),
            (Errno::AGAIN, DatagramDrop::BufferFull),
            (Errno::NOBUFS, DatagramDrop::BufferFull),
            (Errno::NETUNREACH, DatagramDrop::Failed),
        ] {
            assert_eq!(DatagramDrop::of_error(&errno.into()), expected, "{errno}");
        }
    }
}
