//! Raises the limit of open file descriptors: a proxied request needs two, a UDP session and a connection of a plugin
//! one, and the default soft limit is often low.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, info};

use crate::proxy::PIPE_DESCRIPTORS_OF_WORKER;

/// What needs file descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DescriptorUse {
    /// Client connections. Each needs a descriptor for the client and one for the endpoint.
    pub(super) connections: usize,
    /// UDP sessions. Each needs a descriptor for the endpoint.
    pub(super) udp_sessions: usize,
    /// Connections of plugins to their servers. Each needs a descriptor.
    pub(super) plugin_connections: usize,
}

/// Raises the soft limit of open files to the hard limit and returns what fits: `wanted` or less. Further connections
/// wait until others close, and further sessions replace others, instead of failing with EMFILE. `workers`: the number
/// of worker threads.
pub(super) fn raise_descriptor_limit(wanted: DescriptorUse, workers: usize) -> DescriptorUse {
    let limit = getrlimit(Resource::Nofile);
    let limit = match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        Ok(()) => limit.maximum,
        Err(error) => {
            debug!(%error, "Cannot raise the limit of open files");
            limit.current
        }
    };
    let Some(limit) = limit else { return wanted };
    let pipes = (workers * PIPE_DESCRIPTORS_OF_WORKER) as u64;
    let fitting = wanted.fitting(limit.saturating_sub(RESERVED_DESCRIPTORS + pipes));
    if fitting.connections < wanted.connections {
        info!(
            limit,
            wanted = wanted.connections,
            connections = fitting.connections,
            "The limit of open files allows fewer client connections than --max-connections; raise it (ulimit -Hn, \
             LimitNOFILE= of systemd) or lower the flag"
        );
    }
    if fitting.udp_sessions < wanted.udp_sessions {
        info!(
            limit,
            wanted = wanted.udp_sessions,
            sessions = fitting.udp_sessions,
            "The limit of open files allows fewer UDP sessions than --max-udp-sessions; raise it (ulimit -Hn, \
             LimitNOFILE= of systemd) or lower the flag"
        );
    }
    if fitting.plugin_connections < wanted.plugin_connections {
        info!(
            limit,
            wanted = wanted.plugin_connections,
            connections = fitting.plugin_connections,
            "The limit of open files allows fewer connections of plugins than --max-plugin-connections; raise it \
             (ulimit -Hn, LimitNOFILE= of systemd) or lower the flag"
        );
    }
    fitting
}

impl DescriptorUse {
    /// What fits of this. If not everything does, sessions get an eighth of the descriptors at most, and so do the
    /// connections of plugins.
    fn fitting(self, available: u64) -> Self {
        let available = usize::try_from(available).unwrap_or(usize::MAX);
        let share = available / 8;
        let unused = available.saturating_sub(self.connections.saturating_mul(2));
        let unused_by_sessions = unused - self.udp_sessions.min(unused / 2);
        let plugin_connections = self.plugin_connections.min(unused_by_sessions.max(share)).max(1);
        let unused = unused.saturating_sub(plugin_connections);
        let udp_sessions = self.udp_sessions.min(unused.max(share)).max(1);
        let rest = available.saturating_sub(udp_sessions + plugin_connections);
        let connections = self.connections.min(rest / 2).max(1);
        DescriptorUse { connections, udp_sessions, plugin_connections }
    }
}

/// Reserved for listeners, the status and admin servers, logs and watches.
const RESERVED_DESCRIPTORS: u64 = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_reserve_two_descriptors_and_others_one() {
        let fitting = |connections, udp_sessions, plugin_connections, available| {
            let fitting = DescriptorUse { connections, udp_sessions, plugin_connections }.fitting(available);
            (fitting.connections, fitting.udp_sessions, fitting.plugin_connections)
        };
        assert_eq!(fitting(65_536, 10_000, 256, 1_048_064), (65_536, 10_000, 256));
        assert_eq!(fitting(65_536, 10_000, 256, 512), (192, 64, 64));
        assert_eq!(fitting(65_536, 10_000, 256, 20_000), (8622, 2500, 256));
        assert_eq!(fitting(65_536, 100, 10, 20_000), (9945, 100, 10));
        assert_eq!(fitting(1000, 10_000, 500, 10_000), (1000, 7500, 500));
        assert_eq!(fitting(1000, 100, 10_000, 10_000), (1000, 100, 7900));
        assert_eq!(fitting(65_536, 10_000, 256, 0), (1, 1, 1));
    }
}
