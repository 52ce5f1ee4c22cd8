//! Resolves host names for plugins: to the endpoints of a Service in the store, otherwise with DNS. Addresses that the
//! SSRF guard blocks are never returned.

use std::net::{IpAddr, SocketAddr};

use tokio::sync::{mpsc, oneshot};

use crate::api::ObjectKey;
use crate::app::control::Control;
use crate::plugin_api::Remote;
use crate::upstream::dns::DnsResolver;
use crate::upstream::{AddressPolicy, BlockedAddress, EndpointAddress};

/// A query for the endpoints of a Service; the result is `None` if the Service does not exist.
pub(in crate::app) struct ServiceLookup {
    pub(super) service: ObjectKey,
    pub(super) port: u16,
    pub(super) reply: oneshot::Sender<Option<Vec<EndpointAddress>>>,
}

impl ServiceLookup {
    pub(in crate::app) fn run(self, control: &Control) {
        // The receiver may be gone because of a timeout.
        drop(self.reply.send(control.addresses(&self.service, self.port)));
    }
}

pub(super) struct NameResolver {
    lookups: mpsc::Sender<ServiceLookup>,
    dns: DnsResolver,
    addresses: AddressPolicy,
}

impl NameResolver {
    pub(super) fn new(addresses: AddressPolicy) -> (Self, mpsc::Receiver<ServiceLookup>) {
        let (lookups, receiver) = mpsc::channel(16);
        (NameResolver { lookups, dns: DnsResolver::from_system(), addresses }, receiver)
    }

    pub(super) fn address_policy(&self) -> &AddressPolicy {
        &self.addresses
    }

    /// Resolves to at least one address.
    pub(super) async fn resolve(&self, server: &Remote) -> Result<Vec<SocketAddr>, String> {
        let mut addresses = self.resolve_unchecked(server).await?;
        if addresses.is_empty() {
            return Err("no endpoint of the Service is ready".to_owned());
        }
        let mut blocked = None;
        addresses.retain(|address| match BlockedAddress::check(address.ip(), &self.addresses) {
            Some(range) => {
                blocked = Some(format!("{} is {range} and therefore not contacted", address.ip()));
                false
            }
            None => true,
        });
        match blocked {
            Some(blocked) if addresses.is_empty() => Err(blocked),
            _ => Ok(addresses),
        }
    }

    /// Resolves without a check by the SSRF guard.
    async fn resolve_unchecked(&self, server: &Remote) -> Result<Vec<SocketAddr>, String> {
        if let Ok(ip) = server.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, server.port)]);
        }
        let service_endpoints = match parse_service_name(&server.host, server.namespace.as_deref()) {
            Some(service) => self.look_up_service(service, server.port).await,
            None => None,
        };
        let endpoints = service_endpoints
            .unwrap_or_else(|| vec![EndpointAddress::Name { host: server.host.as_str().into(), port: server.port }]);
        let mut addresses = Vec::new();
        for endpoint in endpoints {
            match endpoint {
                EndpointAddress::Ip(address) => addresses.push(address),
                EndpointAddress::Name { host, port } => {
                    let ips = self.dns.resolve(&host).await?;
                    addresses.extend(ips.into_iter().map(|ip| SocketAddr::new(ip, port)));
                }
            }
        }
        Ok(addresses)
    }

    async fn look_up_service(&self, service: ObjectKey, port: u16) -> Option<Vec<EndpointAddress>> {
        let (reply, result) = oneshot::channel();
        self.lookups.send(ServiceLookup { service, port, reply }).await.ok()?;
        result.await.ok()?
    }
}

/// Parses `svc`, `svc.ns`, `svc.ns.svc` and `svc.ns.svc.cluster.local`, the names that resolve inside of Pods.
fn parse_service_name(host: &str, namespace: Option<&str>) -> Option<ObjectKey> {
    let mut labels = host.trim_end_matches('.').splitn(4, '.');
    let name = labels.next()?;
    match (labels.next(), labels.next(), labels.next()) {
        (None, None, None) => Some(ObjectKey::new(namespace?, name)),
        (Some(namespace), None, None) | (Some(namespace), Some("svc"), None | Some("cluster.local")) => {
            Some(ObjectKey::new(namespace, name))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_names_are_recognized() {
        let cases = [
            ("redis", Some("a"), Some("a/redis")),
            ("redis", None, None),
            ("redis.b", Some("a"), Some("b/redis")),
            ("redis.b.svc", Some("a"), Some("b/redis")),
            ("redis.b.svc.cluster.local", None, Some("b/redis")),
            ("redis.b.svc.cluster.local.", None, Some("b/redis")),
            ("redis.b.example", Some("a"), None),
            ("redis.b.svc.example.com", Some("a"), None),
        ];
        for (host, namespace, expected) in cases {
            assert_eq!(parse_service_name(host, namespace).map(|key| key.to_string()).as_deref(), expected, "{host}");
        }
    }
}
