//! Raises the limit of open file descriptors: a proxied request needs two, and the default soft limit is often low.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, info};

/// Raises the soft limit of open files to the hard limit and returns the number of client connections that fit:
/// `wanted` or fewer. Further connections wait until others close, instead of failing with EMFILE.
pub(super) fn raise_descriptor_limit(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let limit = match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        Ok(()) => limit.maximum,
        Err(error) => {
            debug!(%error, "Cannot raise the limit of open files");
            limit.current
        }
    };
    let Some(limit) = limit else { return wanted };
    let fitting = max_client_connections(limit);
    if fitting < wanted {
        info!(
            limit,
            wanted,
            connections = fitting,
            "The limit of open files allows fewer client connections than --max-connections; raise it (ulimit -Hn, \
             LimitNOFILE= of systemd) or lower the flag"
        );
    }
    wanted.min(fitting)
}

/// How many client connections fit: each needs a descriptor for the client and one for the endpoint.
fn max_client_connections(limit: u64) -> usize {
    usize::try_from(limit.saturating_sub(RESERVED_DESCRIPTORS) / 2).unwrap_or(usize::MAX).max(1)
}

/// Reserved for listeners, the status and admin servers, logs and watches.
const RESERVED_DESCRIPTORS: u64 = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_reserves_two_descriptors() {
        assert_eq!(max_client_connections(1024), 256);
        assert_eq!(max_client_connections(20_000), 9_744);
        assert_eq!(max_client_connections(0), 1);
    }
}
