//! Where the world reaches Ingresses, for their status (`kong-compat.md` §3.13).

use super::super::verdict::Published;
use crate::api::ObjectKey;
use crate::store::Store;

/// Who says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Publish {
    /// Nobody: the status is left alone.
    #[default]
    Nothing,
    /// The operator.
    Addresses(Vec<Published>),
    /// The Services in front of us.
    Services(Vec<ObjectKey>),
}

impl Publish {
    /// None if the status is to be left alone.
    pub(super) fn addresses(&self, store: &Store) -> Option<Vec<Published>> {
        let mut found = match self {
            Publish::Nothing => return None,
            Publish::Addresses(addresses) => return Some(addresses.clone()),
            Publish::Services(services) => {
                services.iter().flat_map(|service| of_service(store, service)).collect::<Vec<_>>()
            }
        };
        found.sort();
        found.dedup();
        Some(found)
    }

    pub(super) fn asks(&self, service: &ObjectKey) -> bool {
        matches!(self, Publish::Services(services) if services.contains(service))
    }
}

/// What its balancer has, else its external addresses, else those inside of the cluster.
fn of_service(store: &Store, key: &ObjectKey) -> Vec<Published> {
    let Some(service) = store.services.get(key) else { return Vec::new() };
    let entries = service.status.load_balancer.iter().flat_map(|balancer| &balancer.ingress);
    let given: Vec<Published> = entries
        .filter_map(|entry| {
            let ip = entry.ip.clone().map(Published::Ip);
            ip.or_else(|| entry.hostname.clone().map(Published::Hostname))
        })
        .collect();
    if !given.is_empty() {
        return given;
    }
    let external: Vec<_> = service.spec.external_ips.iter().flatten().cloned().map(Published::Ip).collect();
    if !external.is_empty() || service.spec.kind.as_deref() == Some("LoadBalancer") {
        return external;
    }
    let own = service.spec.cluster_ip.iter().filter(|ip| !ip.is_empty() && *ip != "None");
    own.cloned().map(Published::Ip).collect()
}
