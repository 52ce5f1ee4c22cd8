//! Active health checks: what Portico itself sends to endpoints, to learn whether requests would succeed.
//!
//! ```text
//!   configuration, DNS ─▶ CheckQueue ─▶ Scheduler ─▶ CheckSchedule: which check begins when
//!                                          │  ▲
//!                                          ▼  │ result, kept connection
//!                       EndpointChecker: socket, TLS ─▶ http_check, grpc_check, tcp_check
//!                                          │
//!                                          └─▶ Upstream::record_check ─▶ health of the endpoint
//! ```
//!
//! All of this runs on a thread of its own, with sockets of its own: requests neither wait for checks, nor do checks
//! fail because requests use up what the process has. An upstream has one check for each endpoint, whichever rules use
//! it.

mod check_history;
mod check_target;
mod checker;
mod connect_probes;
mod grpc_check;
mod http_check;
mod http_connection;
mod schedule;
mod scheduler;
mod tcp_check;
#[cfg(test)]
mod testing;

use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::thread;

use tokio::sync::oneshot;
use tokio::task::LocalSet;

use super::{OwnSockets, UpstreamRegistry};
use connect_probes::ConnectProbes;
use scheduler::Scheduler;

/// The health checks of a process. Dropping it ends them.
#[derive(Debug)]
pub struct HealthChecks {
    /// Closed when the checks are to end.
    _stop: oneshot::Sender<()>,
}

impl HealthChecks {
    /// Starts the checks of all upstreams of the registry, now and later. `rate` is the maximum number of checks that
    /// begin in a second.
    pub fn start(
        registry: Arc<UpstreamRegistry>,
        own_sockets: Arc<OwnSockets>,
        rate: NonZeroU32,
    ) -> io::Result<HealthChecks> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let checks = move || {
            let local = LocalSet::new();
            let probes = ConnectProbes::run(Arc::clone(&registry), Arc::clone(&own_sockets));
            let scheduler = Scheduler::run(registry, own_sockets, rate);
            local.block_on(&runtime, async {
                tokio::select! {
                    () = scheduler => {}
                    () = probes => {}
                    _ = stopped => {}
                }
            });
        };
        // Not joined: it ends by itself, and holds nothing that the rest of the process waits for.
        thread::Builder::new().name("health-checks".to_owned()).spawn(checks)?;
        Ok(HealthChecks { _stop: stop })
    }

    /// The maximum number of checks per second without a flag.
    pub const DEFAULT_RATE: NonZeroU32 = NonZeroU32::new(200).expect("it is not zero");
}
