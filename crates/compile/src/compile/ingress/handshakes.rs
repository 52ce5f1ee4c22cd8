//! What handshakes for the hosts of Ingresses may use: less than the flags of the process permit.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::host_conflicts::{host_name, named_hosts};
use super::host_index::PlansByAge;
use super::plan::IngressPlan;
use crate::snapshot::handshake_limits::{HandshakeLimits, SuiteChoice};
use crate::snapshot::host::HostPattern;
use crate::snapshot::port_tls::PortTls;

/// The choice of the oldest Ingress with one for each host, unless the host belongs to another namespace: then an older
/// Ingress names it.
pub(super) fn by_host<'p>(plans: &PlansByAge<'p>) -> BTreeMap<&'p HostPattern, &'p SuiteChoice> {
    let mut chosen: BTreeMap<&HostPattern, (&SuiteChoice, _)> = BTreeMap::new();
    for (key, plan) in plans {
        for (host, choice) in &plan.handshakes {
            chosen.entry(host).or_insert((choice, &key.namespace));
        }
    }
    let is_own = |host: &HostPattern, namespace: &Arc<str>| {
        let oldest = plans.iter().find(|(_, plan)| names(plan, host));
        oldest.is_none_or(|(key, _)| key.namespace == *namespace)
    };
    let own = chosen.into_iter().filter(|(host, (_, namespace))| is_own(host, namespace));
    own.map(|(host, (choice, _))| (host, choice)).collect()
}

fn names(plan: &IngressPlan, host: &HostPattern) -> bool {
    let name = host_name(host);
    named_hosts(plan).iter().any(|(named, _)| *named == name)
        || plan.certificates.iter().any(|certificate| certificate.host == *host)
}

/// The limits of a host, if they are no longer those of the port.
pub(super) fn changed(
    tls: &PortTls,
    chosen: &BTreeMap<&HostPattern, &SuiteChoice>,
    host: HostPattern,
) -> Option<(HostPattern, Option<Arc<HandshakeLimits>>)> {
    let choice = chosen.get(&host).copied();
    if tls.limits_of(&host).map(|limits| &limits.choice) == choice {
        return None;
    }
    let limits = choice.map(|choice| HandshakeLimits { choice: choice.clone(), ..HandshakeLimits::default() });
    Some((host, limits.map(Arc::new)))
}
