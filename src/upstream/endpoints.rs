//! One upstream and the addresses that its requests may go to.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

/// What endpoints are spoken to in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    #[default]
    Http1,
    /// HTTP/2 without TLS, by prior knowledge.
    Http2,
}

/// Identity of an upstream: a port of a Service, and what it speaks. As long as it stays in use, its pools and cursors stay.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpstreamKey {
    pub namespace: Arc<str>,
    pub service: Arc<str>,
    pub port: u16,
    pub protocol: Protocol,
}

/// `namespace/service:port`.
impl fmt::Display for UpstreamKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}:{}", self.namespace, self.service, self.port)
    }
}

/// Where an endpoint listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    Ip(SocketAddr),
    /// A name to be resolved by DNS, whose answers are followed for as long as they live.
    Name {
        host: Arc<str>,
        port: u16,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(address) => write!(formatter, "{address}"),
            Address::Name { host, port } => write!(formatter, "{host}:{port}"),
        }
    }
}

/// The endpoints that may be sent requests now, in sorted order without duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    pub addresses: Vec<Address>,
}

/// One upstream, shared by all routes and workers that use it.
///
/// Configuration says which endpoints there are (`set_endpoints`), DNS says where the named ones are (`set_resolved`).
/// Each keeps what the other said: an edit that leaves a name in place does not make its addresses forgotten, and an
/// answer that comes before the configuration names its host is not kept.
#[derive(Debug)]
pub struct Upstream {
    pub key: UpstreamKey,
    configured: ArcSwap<Endpoints>,
    /// Where to connect: `configured` with every name replaced by its addresses; a name without any is absent.
    reachable: ArcSwap<Vec<SocketAddr>>,
    /// What DNS said, by host. Its lock makes the two setters take turns; readers never take it.
    resolved: Mutex<BTreeMap<Arc<str>, Vec<IpAddr>>>,
}

impl Upstream {
    pub fn new(key: UpstreamKey) -> Self {
        Upstream {
            key,
            configured: ArcSwap::default(),
            reachable: ArcSwap::default(),
            resolved: Mutex::new(BTreeMap::new()),
        }
    }

    /// The endpoints as configured.
    pub fn endpoints(&self) -> arc_swap::Guard<Arc<Endpoints>> {
        self.configured.load()
    }

    /// The addresses a request can be sent to now.
    pub fn reachable(&self) -> arc_swap::Guard<Arc<Vec<SocketAddr>>> {
        self.reachable.load()
    }

    /// The hosts that DNS is to be asked about.
    pub fn names(&self) -> Vec<Arc<str>> {
        let mut names: Vec<_> = hosts(&self.configured.load()).cloned().collect();
        names.sort();
        names.dedup();
        names
    }

    /// What configuration says. Addresses of names that stay are kept.
    pub fn set_endpoints(&self, endpoints: Endpoints) {
        let mut resolved = self.resolved.lock();
        if **self.configured.load() == endpoints {
            return;
        }
        resolved.retain(|host, _| hosts(&endpoints).any(|name| name == host));
        self.configured.store(Arc::new(endpoints));
        self.publish(&resolved);
    }

    /// What DNS says about a host; no addresses means that it is not to be reached. Ignored if no endpoint has this name.
    pub fn set_resolved(&self, host: &str, addresses: Vec<IpAddr>) {
        let mut resolved = self.resolved.lock();
        let Some(name) = hosts(&self.configured.load()).find(|name| &***name == host).cloned() else { return };
        resolved.insert(name, addresses);
        self.publish(&resolved);
    }

    fn publish(&self, resolved: &BTreeMap<Arc<str>, Vec<IpAddr>>) {
        let mut reachable = Vec::new();
        for address in &self.configured.load().addresses {
            match address {
                Address::Ip(address) => reachable.push(*address),
                Address::Name { host, port } => {
                    let addresses = resolved.get(host).into_iter().flatten();
                    reachable.extend(addresses.map(|address| SocketAddr::new(*address, *port)));
                }
            }
        }
        // Two names may lead to one address: it is one endpoint then, not one with a double share.
        reachable.sort();
        reachable.dedup();
        if **self.reachable.load() != reachable {
            self.reachable.store(Arc::new(reachable));
        }
    }
}

fn hosts(endpoints: &Endpoints) -> impl Iterator<Item = &Arc<str>> {
    endpoints.addresses.iter().filter_map(|address| match address {
        Address::Ip(_) => None,
        Address::Name { host, .. } => Some(host),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream() -> Upstream {
        Upstream::new(UpstreamKey {
            namespace: "ns".into(),
            service: "web".into(),
            port: 80,
            protocol: Protocol::Http1,
        })
    }

    fn endpoints(texts: &[&str]) -> Endpoints {
        let addresses = texts.iter().map(|text| match text.parse() {
            Ok(address) => Address::Ip(address),
            Err(_) => {
                let (host, port) = text.rsplit_once(':').unwrap();
                Address::Name { host: host.into(), port: port.parse().unwrap() }
            }
        });
        Endpoints { addresses: addresses.collect() }
    }

    fn reachable(upstream: &Upstream) -> Vec<String> {
        upstream.reachable().iter().map(SocketAddr::to_string).collect()
    }

    #[test]
    fn a_name_is_no_endpoint_until_it_is_resolved() {
        let upstream = upstream();
        upstream.set_endpoints(endpoints(&["10.0.0.1:80", "db.example:81"]));
        assert_eq!(upstream.names(), ["db.example".into()]);
        assert_eq!(reachable(&upstream), ["10.0.0.1:80"]);
        upstream.set_resolved("db.example", vec!["10.0.0.3".parse().unwrap(), "10.0.0.2".parse().unwrap()]);
        assert_eq!(reachable(&upstream), ["10.0.0.1:80", "10.0.0.2:81", "10.0.0.3:81"]);
        upstream.set_resolved("db.example", vec![]);
        assert_eq!(reachable(&upstream), ["10.0.0.1:80"]);
    }

    #[test]
    fn configuration_and_dns_do_not_lose_each_other() {
        let upstream = upstream();
        upstream.set_resolved("early.example", vec!["10.0.0.9".parse().unwrap()]);
        upstream.set_endpoints(endpoints(&["a.example:80", "early.example:80"]));
        assert_eq!(reachable(&upstream), [""; 0], "an answer nobody asked for yet is not kept");
        upstream.set_resolved("a.example", vec!["10.0.0.2".parse().unwrap()]);
        upstream.set_endpoints(endpoints(&["10.0.0.1:80", "a.example:8080"]));
        assert_eq!(reachable(&upstream), ["10.0.0.1:80", "10.0.0.2:8080"]);
        upstream.set_endpoints(endpoints(&["10.0.0.1:80"]));
        upstream.set_endpoints(endpoints(&["a.example:80"]));
        assert_eq!(reachable(&upstream), [""; 0], "a name that was gone is asked about anew");
    }

    #[test]
    fn one_address_under_two_names_is_one_endpoint() {
        let upstream = upstream();
        upstream.set_endpoints(endpoints(&["a.example:80", "b.example:80"]));
        upstream.set_resolved("a.example", vec!["10.0.0.2".parse().unwrap()]);
        upstream.set_resolved("b.example", vec!["10.0.0.2".parse().unwrap()]);
        assert_eq!(reachable(&upstream), ["10.0.0.2:80"]);
    }
}
