//! Resolves host names for plugins: to the endpoints of a Service in the store, otherwise with DNS. Addresses that the
//! SSRF guard blocks are never returned.
//!
//! | name | is looked up |
//! | --- | --- |
//! | `svc` | as a Service of the namespace of the object |
//! | `svc.ns`, `svc.ns.svc`, `svc.ns.svc.cluster.local` | as a Service; the first and the last also in DNS |
//! | others | in DNS |
//!
//! If tenants write the names, they are absolute names in DNS: the search domains of Portico's Pod would make `svc` a
//! Service of Portico's own namespace. Without tenants, all names may be completed by the search domains.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::api::ObjectKey;
use crate::plugin_api::Remote;
use crate::plugin_api::remote::is_short_name;
use crate::ssrf_guard::{AddressPolicy, BlockedAddress, TrustModel};
use crate::upstream::EndpointAddress;
use crate::upstream::dns::DnsResolver;

/// A query for the endpoints of a Service; the result is `None` if the Service does not exist.
pub struct ServiceLookup {
    pub(super) service: ObjectKey,
    pub(super) port: u16,
    pub(super) reply: oneshot::Sender<Option<Vec<EndpointAddress>>>,
}

impl ServiceLookup {
    /// Replies with what `find` returns for the Service and its port.
    pub fn run(self, find: impl FnOnce(&ObjectKey, u16) -> Option<Vec<EndpointAddress>>) {
        // The receiver may be gone because of a timeout.
        drop(self.reply.send(find(&self.service, self.port)));
    }
}

pub(super) struct NameResolver {
    lookups: mpsc::Sender<ServiceLookup>,
    dns: DnsResolver,
    addresses: AddressPolicy,
    /// Whether tenants write the names.
    has_tenants: bool,
}

impl NameResolver {
    pub(super) fn new(trust: &TrustModel) -> (Self, mpsc::Receiver<ServiceLookup>) {
        NameResolver::with_dns(trust, DnsResolver::from_system(trust))
    }

    fn with_dns(trust: &TrustModel, dns: DnsResolver) -> (Self, mpsc::Receiver<ServiceLookup>) {
        let (lookups, receiver) = mpsc::channel(16);
        let has_tenants = matches!(trust, TrustModel::MultiTenant { .. });
        (NameResolver { lookups, dns, addresses: trust.address_policy(), has_tenants }, receiver)
    }

    pub(super) fn resolves_short_names(&self) -> bool {
        !self.has_tenants
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
        let service = parse_service_name(&server.host, server.namespace.as_deref());
        let service_endpoints = match &service {
            Some(service) => self.look_up_service(service.clone(), server.port).await,
            None => None,
        };
        let endpoints = match service_endpoints {
            Some(endpoints) => endpoints,
            None => vec![EndpointAddress::Name { host: self.dns_name(&server.host, service)?, port: server.port }],
        };
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

    /// The name to look up in DNS for a host that is not an existing Service.
    fn dns_name(&self, host: &str, service: Option<ObjectKey>) -> Result<Arc<str>, String> {
        if !self.has_tenants {
            return Ok(host.into());
        }
        match service {
            Some(service) if is_short_name(host) || host.trim_end_matches('.').ends_with(".svc") => {
                Err(format!("there is no Service {service}; create it, or write the whole DNS name of the server"))
            }
            None if is_short_name(host) => {
                Err("a name without dots is a Service, whose namespace is unknown here; write SERVICE.NAMESPACE.svc, \
                     or the whole DNS name of the server"
                    .to_owned())
            }
            _ if host.ends_with('.') => Ok(host.into()),
            _ => Ok(format!("{host}.").into()),
        }
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
    use std::time::Duration;

    use super::*;
    use crate::ssrf_guard::AddressSources;

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

    #[tokio::test]
    async fn names_of_tenants_never_use_search_domains() {
        let tenants = TrustModel::MultiTenant { addresses: AddressPolicy::default(), sources: AddressSources::ALL };
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        for (trust, host, expected) in [
            (&tenants, "logs.example.com", Ok("logs.example.com.")),
            (&tenants, "logs.example.com.", Ok("logs.example.com.")),
            (&tenants, "logs.example", Ok("logs.example.")),
            (&tenants, "logs.b.svc.cluster.local", Ok("logs.b.svc.cluster.local.")),
            (&tenants, "logs", Err("there is no Service shop/logs")),
            (&tenants, "logs.", Err("there is no Service shop/logs")),
            (&tenants, "logs.b.svc", Err("there is no Service b/logs")),
            // Endpoints of a Service that exists: its `externalName`, and the name of its own.
            (&tenants, "external", Ok("db.example.")),
            (&tenants, "internal", Ok("internal.shop.svc")),
            (&TrustModel::SingleTenant, "logs.example.com", Ok("logs.example.com")),
            (&TrustModel::SingleTenant, "logs", Ok("logs")),
        ] {
            let (looked_up, names) = std::sync::mpsc::sync_channel(4);
            let dns = DnsResolver::fake(trust, move |name| {
                looked_up.send(name.to_owned()).ok()?;
                Some(address)
            });
            let (resolver, mut lookups) = NameResolver::with_dns(trust, dns);
            tokio::spawn(async move {
                while let Some(lookup) = lookups.recv().await {
                    let host = match lookup.service.to_string().as_str() {
                        "shop/external" => Some("db.example"),
                        "shop/internal" => Some("internal.shop.svc"),
                        _ => None,
                    };
                    let endpoint = host.map(|host| vec![EndpointAddress::Name { host: host.into(), port: 81 }]);
                    drop(lookup.reply.send(endpoint));
                }
            });
            let server = Remote {
                host: host.to_owned(),
                port: 80,
                namespace: Some("shop".to_owned()),
                tls: None,
                timeout: Duration::from_secs(10),
            };
            let resolved = resolver.resolve(&server).await;
            match expected {
                Ok(name) => {
                    assert_eq!(resolved.map(|addresses| addresses[0].ip()), Ok(address), "{host}");
                    assert_eq!(names.try_iter().collect::<Vec<_>>(), [name], "{host}");
                }
                Err(expected) => {
                    assert!(resolved.clone().is_err_and(|error| error.contains(expected)), "{host}: {resolved:?}");
                    assert_eq!(names.try_iter().next(), None, "{host}");
                }
            }
        }
    }
}
