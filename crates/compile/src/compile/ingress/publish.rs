//! Finds the addresses for the status of Ingresses (docs/kong-compatibility.md, 3.13).

use crate::api::ObjectKey;
use crate::store::Store;
use crate::verdict::PublishedAddress;

/// Where the addresses in the status of Ingresses come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PublishSource {
    /// None: the status is not written.
    #[default]
    Nothing,
    /// Configured by the operator.
    Addresses(Vec<PublishedAddress>),
    /// The Services in front of Portico.
    Services(Vec<ObjectKey>),
}

impl PublishSource {
    /// The addresses to publish; `None` if the status must not be written.
    pub(in crate::compile) fn addresses(&self, store: &Store) -> Option<Vec<PublishedAddress>> {
        let mut addresses = match self {
            PublishSource::Nothing => return None,
            PublishSource::Addresses(addresses) => return Some(addresses.clone()),
            PublishSource::Services(services) => {
                services.iter().flat_map(|service| service_addresses(store, service)).collect::<Vec<_>>()
            }
        };
        addresses.sort();
        addresses.dedup();
        Some(addresses)
    }

    pub(super) fn uses_service(&self, service: &ObjectKey) -> bool {
        matches!(self, PublishSource::Services(services) if services.contains(service))
    }
}

/// The addresses of a Service: those of its load balancer; otherwise its external IPs; otherwise its ClusterIP, unless
/// it waits for a load balancer.
fn service_addresses(store: &Store, key: &ObjectKey) -> Vec<PublishedAddress> {
    let Some(service) = store.services.get(key) else { return Vec::new() };
    let entries = service.status.load_balancer.iter().flat_map(|balancer| &balancer.ingress);
    let balancer_addresses: Vec<PublishedAddress> = entries
        .filter_map(|entry| {
            let ip = entry.ip.clone().map(PublishedAddress::Ip);
            ip.or_else(|| entry.hostname.clone().map(PublishedAddress::Hostname))
        })
        .collect();
    if !balancer_addresses.is_empty() {
        return balancer_addresses;
    }
    let external_ips: Vec<_> = service.spec.external_ips.iter().flatten().cloned().map(PublishedAddress::Ip).collect();
    if !external_ips.is_empty() || service.spec.kind.as_deref() == Some("LoadBalancer") {
        return external_ips;
    }
    let cluster_ip = service.spec.cluster_ip.iter().filter(|ip| !ip.is_empty() && *ip != "None");
    cluster_ip.cloned().map(PublishedAddress::Ip).collect()
}
