//! Ports of our own for the ports of Gateways: one for each, since all Gateways share the Pods that listen.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::names;
use crate::api::ObjectKey;

/// Below the ports that Linux gives to outgoing connections (from 32768 on), so that none of these is ever in the way; and
/// above those that a Pod's other servers usually have.
pub(super) const RANGE: RangeInclusive<u16> = 10_000..=32_767;

/// A port that is not taken; None if all are.
///
/// The search begins at a place of the Gateway's own: a port that was just given back is then seldom given to another, to
/// whom a balancer that has not heard of it yet would send foreign clients.
pub(super) fn free(gateway: &ObjectKey, port: u16, taken: &BTreeSet<u16>) -> Option<u16> {
    let count = u64::from(*RANGE.end() - *RANGE.start()) + 1;
    let start = names::hash(&format!("{gateway}:{port}")) % count;
    let candidates = (start..count).chain(0..start);
    // Within the range by construction.
    let candidates = candidates.filter_map(|offset| RANGE.start().checked_add(u16::try_from(offset).ok()?));
    candidates.into_iter().find(|candidate| !taken.contains(candidate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_gets_its_own_until_none_is_left() {
        let gateway = ObjectKey::new("ns", "web");
        let mut taken = BTreeSet::new();
        let first = free(&gateway, 80, &taken).unwrap();
        assert_eq!(free(&gateway, 80, &taken), Some(first), "the same again");
        assert_ne!(free(&gateway, 443, &taken), Some(first));
        taken.insert(first);
        assert_eq!(free(&gateway, 80, &taken), Some(if first == *RANGE.end() { *RANGE.start() } else { first + 1 }));
        // The last one that is free is found wherever it is.
        for last in [*RANGE.start(), first, *RANGE.end()] {
            let taken = RANGE.filter(|port| *port != last).collect();
            assert_eq!(free(&gateway, 80, &taken), Some(last));
        }
        taken.extend(RANGE);
        assert_eq!(free(&gateway, 80, &taken), None);
    }
}
