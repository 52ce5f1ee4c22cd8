//! Raises the limit of open file descriptors: a proxied request needs two, a UDP session one, and the default soft
//! limit is often low.

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
    fitting
}

impl DescriptorUse {
    /// What fits of this. If not everything does, sessions get an eighth of the descriptors at most.
    fn fitting(self, available: u64) -> Self {
        let available = usize::try_from(available).unwrap_or(usize::MAX);
        let unused = available.saturating_sub(self.connections.saturating_mul(2));
        let udp_sessions = self.udp_sessions.min(unused.max(available / 8)).max(1);
        let connections = self.connections.min((available.saturating_sub(udp_sessions)) / 2).max(1);
        DescriptorUse { connections, udp_sessions }
    }
}

/// Reserved for listeners, the status and admin servers, logs and watches.
const RESERVED_DESCRIPTORS: u64 = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_reserve_two_descriptors_and_sessions_one() {
        let fitting = |connections, udp_sessions, available| {
            let fitting = DescriptorUse { connections, udp_sessions }.fitting(available);
            (fitting.connections, fitting.udp_sessions)
        };
        assert_eq!(fitting(65_536, 10_000, 1_048_064), (65_536, 10_000));
        assert_eq!(fitting(65_536, 10_000, 512), (224, 64));
        assert_eq!(fitting(65_536, 10_000, 20_000), (8_750, 2_500));
        assert_eq!(fitting(65_536, 100, 20_000), (9_950, 100));
        assert_eq!(fitting(1000, 10_000, 10_000), (1000, 8000));
        assert_eq!(fitting(65_536, 10_000, 0), (1, 1));
    }
}
