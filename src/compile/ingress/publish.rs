//! The addresses for the status of Ingresses (docs/kong-compatibility.md, 3.13).

use super::super::verdict::Published;
use crate::api::ObjectKey;
use crate::store::Store;

/// The source of the addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PublishSource {
    /// None: the status is not written.
    #[default]
    Nothing,
    /// Configured by the operator.
    Addresses(Vec<Published>),
    /// The Services in front of Portico.
    Services(Vec<ObjectKey>),
}

impl PublishSource {
    /// `None` if the status must not be written.
    pub(super) fn addresses(&self, store: &Store) -> Option<Vec<Published>> {
        let mut found = match self {
            PublishSource::Nothing => return None,
            PublishSource::Addresses(addresses) => return Some(addresses.clone()),
            PublishSource::Services(services) => {
                services.iter().flat_map(|service| service_addresses(store, service)).collect::<Vec<_>>()
            }
        };
        found.sort();
        found.dedup();
        Some(found)
    }

    pub(super) fn uses_service(&self, service: &ObjectKey) -> bool {
        matches!(self, PublishSource::Services(services) if services.contains(service))
    }
}

/// The addresses of its load balancer; otherwise its external IPs; otherwise its ClusterIP.
fn service_addresses(store: &Store, key: &ObjectKey) -> Vec<Published> {
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
