//! Allocates a Pod port for every port of every Gateway, because all Gateways share the Pods that listen.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::names;
use crate::api::ObjectKey;
use crate::transport_protocol::TransportPort;

/// Below Linux's range for outgoing connections (from 32768), so that none of them takes a port, and above the usual
/// ports of other servers in a Pod.
pub(super) const POD_PORT_RANGE: RangeInclusive<u16> = 10_000..=32_767;

/// A free Pod port for a port of a Gateway; None if all are taken.
///
/// The search starts at a hash of Gateway and port, so that a released port is rarely given to another Gateway soon. A
/// load balancer with stale configuration would send clients of the old Gateway there.
pub(super) fn find_free_port(gateway: &ObjectKey, port: TransportPort, taken: &BTreeSet<u16>) -> Option<u16> {
    let count = u64::from(*POD_PORT_RANGE.end() - *POD_PORT_RANGE.start()) + 1;
    let start = names::hash(&format!("{gateway}:{port}")) % count;
    let candidates = (start..count).chain(0..start);
    // Every offset gives a port within the range, so no candidate is left out.
    let candidates = candidates.filter_map(|offset| POD_PORT_RANGE.start().checked_add(u16::try_from(offset).ok()?));
    candidates.into_iter().find(|candidate| !taken.contains(candidate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_is_unique_until_none_is_left() {
        let gateway = ObjectKey::new("ns", "web");
        let (http, mut taken) = (TransportPort::tcp(80), BTreeSet::new());
        let first = find_free_port(&gateway, http, &taken).unwrap();
        assert_eq!(find_free_port(&gateway, http, &taken), Some(first), "the result is stable");
        assert_ne!(find_free_port(&gateway, TransportPort::tcp(443), &taken), Some(first));
        taken.insert(first);
        assert_eq!(
            find_free_port(&gateway, http, &taken),
            Some(if first == *POD_PORT_RANGE.end() { *POD_PORT_RANGE.start() } else { first + 1 })
        );
        // The last free port is found wherever it is.
        for last in [*POD_PORT_RANGE.start(), first, *POD_PORT_RANGE.end()] {
            let taken = POD_PORT_RANGE.filter(|port| *port != last).collect();
            assert_eq!(find_free_port(&gateway, http, &taken), Some(last));
        }
        taken.extend(POD_PORT_RANGE);
        assert_eq!(find_free_port(&gateway, http, &taken), None);
    }
}
