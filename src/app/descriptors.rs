//! Open files: a proxied request needs two, and systems often allow few until they are asked.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, info};

/// Raises the limit of open files as far as the system allows, and gives the number of client connections that fit under
/// it: `wanted`, or fewer. Beyond that number clients wait; beyond the system's limit they would be refused, and endpoints
/// could not be reached.
pub(super) fn connections_that_fit(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let limit = match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        Ok(()) => limit.maximum,
        Err(error) => {
            debug!(%error, "The limit of open files cannot be raised");
            limit.current
        }
    };
    let Some(limit) = limit else { return wanted };
    let fitting = fitting(limit);
    if fitting < wanted {
        info!(
            limit,
            wanted,
            connections = fitting,
            "Fewer client connections than --max-connections fit into the limit of open files; raise it (ulimit -Hn, \
             LimitNOFILE= of systemd) or lower the flag"
        );
    }
    wanted.min(fitting)
}

/// A descriptor for the client and one for the endpoint, beside what we need ourselves.
fn fitting(limit: u64) -> usize {
    usize::try_from(limit.saturating_sub(OURS) / 2).unwrap_or(usize::MAX).max(1)
}

/// Listening sockets, the status and admin listeners with their connections, logs, watches.
const OURS: u64 = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_connection_has_room_for_its_endpoint() {
        assert_eq!(fitting(1024), 256);
        assert_eq!(fitting(20_000), 9_744);
        assert_eq!(fitting(0), 1);
    }
}
