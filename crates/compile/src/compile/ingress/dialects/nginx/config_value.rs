//! Values of keys of the ConfigMap of ingress-nginx, and how a setting gets one.

use crate::api::ingress_nginx::{integer, items};

/// Sets a value; `None` if it is bad.
pub(super) fn set<T>(target: &mut T, value: Option<T>) -> Option<()> {
    *target = value?;
    Some(())
}

/// A list of statuses, sorted; `None` if it is bad.
pub(super) fn statuses(text: &str, least: u16) -> Option<Box<[u16]>> {
    let mut statuses = Vec::new();
    for item in items(text) {
        statuses.push(item.parse().ok().filter(|status| (least..600).contains(status))?);
    }
    statuses.sort_unstable();
    statuses.dedup();
    Some(statuses.into())
}

/// A number that is not negative; `None` if it is bad.
pub(super) fn count(text: &str) -> Option<u64> {
    integer(text).and_then(|number| u64::try_from(number).ok())
}
