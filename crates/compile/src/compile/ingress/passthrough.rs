//! The TLS connections that the HTTPS port of Ingresses forwards without decrypting them: those of the hosts for which
//! an Ingress says so.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::host_index::PlansByAge;
use super::settings::IngressSettings;
use crate::snapshot::host::{HostMap, HostPattern};
use crate::snapshot::port_tls::{StreamHosts, TlsListener};
use crate::snapshot::stream::{StreamRoute, StreamRule};

/// The listener of each host whose connections pass through. Of several Ingresses with a backend, one with a path `/`
/// comes before default backends, and the oldest one first.
pub(super) fn listeners(settings: &IngressSettings, plans: &PlansByAge<'_>) -> BTreeMap<HostPattern, TlsListener> {
    let mut chosen: BTreeMap<&HostPattern, _> = BTreeMap::new();
    for (key, plan) in plans {
        for passed in &plan.passthrough {
            // Of equal age, the later name comes first, as it does for the locations of the host.
            let precedence = (!passed.is_written, plan.created, Reverse(*key));
            let entry = chosen.entry(&passed.host).or_insert((precedence, &passed.route));
            if precedence < entry.0 {
                *entry = (precedence, &passed.route);
            }
        }
    }
    let port = settings.public_https();
    chosen.into_iter().map(|(host, (_, route))| (host.clone(), listener(host, port, route))).collect()
}

fn listener(host: &HostPattern, port: u16, route: &Arc<StreamRoute>) -> TlsListener {
    let rule = |route: Option<&Arc<StreamRoute>>| {
        Arc::new(StreamRule { gateway: "ingress".into(), listener: "https".into(), port, route: route.cloned() })
    };
    let hosts = HostMap::new([(host.clone(), rule(Some(route)))]);
    // The host is exact, so that no connection is without its rule.
    TlsListener::Passthrough(StreamHosts { hosts, unrouted: rule(None) })
}

/// Whether two listeners of a host do the same with its connections.
pub(super) fn are_equal(left: Option<&TlsListener>, right: Option<&TlsListener>, host: &HostPattern) -> bool {
    match (left, right) {
        (None, None) => true,
        (Some(TlsListener::Terminate(left)), Some(TlsListener::Terminate(right))) => left == right,
        (Some(TlsListener::Passthrough(left)), Some(TlsListener::Passthrough(right))) => {
            left.hosts.get(host) == right.hosts.get(host)
        }
        _ => false,
    }
}
