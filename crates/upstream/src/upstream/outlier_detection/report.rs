//! The health of an endpoint as debug output and metrics show it.

use std::net::SocketAddr;

use super::{HealthTransition, OutlierDetection};
use crate::upstream::endpoint_state::EndpointState;
use crate::upstream::health::{Availability, EjectionCause};

/// The health of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointHealthReport {
    pub availability: Availability,
    /// Why it is ejected, or would be without a dry run.
    pub cause: Option<EjectionCause>,
    /// The policy is a dry run, so that its ejections have no effect.
    pub is_dry_run: bool,
    /// The rest of the ejection in milliseconds, if it ends after a time.
    pub remaining_millis: Option<u64>,
    /// How often it was ejected because of its responses; less the intervals in service since.
    pub ejections: u32,
    pub failures: EndpointCounters,
    /// The last transitions, oldest first, with the milliseconds that have passed since.
    pub transitions: Vec<HealthTransition>,
}

/// Consecutive failures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointCounters {
    pub connect: u32,
    pub local_origin: u32,
    pub gateway_errors: u32,
    pub server_errors: u32,
}

impl OutlierDetection {
    /// The health of an endpoint for reports.
    pub(in crate::upstream) fn report(&self, address: SocketAddr, state: &EndpointState) -> EndpointHealthReport {
        let now = self.clock.now();
        let interval = u64::try_from(self.settings.load().passive.interval.as_millis()).unwrap_or(u64::MAX);
        let facts = state.health.facts(now, interval);
        let members = self.members.lock();
        let transitions = members.get(address).into_iter().flat_map(|member| member.transitions.iter());
        let transitions = transitions
            .map(|transition| HealthTransition { millis: now.saturating_sub(transition.millis), ..transition.clone() });
        EndpointHealthReport {
            availability: facts.availability,
            cause: facts.cause,
            is_dry_run: facts.is_dry_run,
            remaining_millis: facts.until.map(|until| until.saturating_sub(now)),
            ejections: facts.ejections,
            failures: EndpointCounters {
                connect: facts.connect_failures,
                local_origin: facts.local_origin_failures,
                gateway_errors: facts.gateway_errors,
                server_errors: facts.server_errors,
            },
            transitions: transitions.collect(),
        }
    }
}
