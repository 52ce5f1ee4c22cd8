//! What a name means to a plugin: a Service that is known here, else whatever DNS says; in no case an address that no server
//! can have.

use std::net::{IpAddr, SocketAddr};

use tokio::sync::{mpsc, oneshot};

use crate::api::ObjectKey;
use crate::app::control::Control;
use crate::plugin::Remote;
use crate::upstream::dns::Resolver;
use crate::upstream::{Address, Loopback, NoBackend};

/// A question to whoever knows the Services: where this one listens. None if it is not there.
pub(in crate::app) struct Lookup {
    pub(super) service: ObjectKey,
    pub(super) port: u16,
    pub(super) answer: oneshot::Sender<Option<Vec<Address>>>,
}

impl Lookup {
    pub(in crate::app) fn answer(self, control: &Control) {
        // Whoever asked may have given up.
        drop(self.answer.send(control.addresses(&self.service, self.port)));
    }
}

pub(super) struct Names {
    lookups: mpsc::Sender<Lookup>,
    dns: Resolver,
    loopback: Loopback,
}

impl Names {
    pub(super) fn new(loopback: Loopback) -> (Self, mpsc::Receiver<Lookup>) {
        let (lookups, receiver) = mpsc::channel(16);
        (Names { lookups, dns: Resolver::from_system(), loopback }, receiver)
    }

    pub(super) fn loopback(&self) -> Loopback {
        self.loopback
    }

    /// At least one address.
    pub(super) async fn resolve(&self, to: &Remote) -> Result<Vec<SocketAddr>, String> {
        let mut addresses = self.find(to).await?;
        if addresses.is_empty() {
            return Err("no endpoint of the Service is ready".to_owned());
        }
        let mut refused = None;
        addresses.retain(|address| match NoBackend::of(address.ip(), self.loopback) {
            Some(why) => {
                refused = Some(format!("{} is {why}, so nothing is asked there", address.ip()));
                false
            }
            None => true,
        });
        match refused {
            Some(refused) if addresses.is_empty() => Err(refused),
            _ => Ok(addresses),
        }
    }

    /// Wherever that may be.
    async fn find(&self, to: &Remote) -> Result<Vec<SocketAddr>, String> {
        if let Ok(ip) = to.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, to.port)]);
        }
        let known = match service(&to.host, to.namespace.as_deref()) {
            Some(service) => self.look_up(service, to.port).await,
            None => None,
        };
        let places = known.unwrap_or_else(|| vec![Address::Name { host: to.host.as_str().into(), port: to.port }]);
        let mut addresses = Vec::new();
        for place in places {
            match place {
                Address::Ip(address) => addresses.push(address),
                Address::Name { host, port } => {
                    let found = self.dns.ask(&host).await?;
                    addresses.extend(found.into_iter().map(|ip| SocketAddr::new(ip, port)));
                }
            }
        }
        Ok(addresses)
    }

    async fn look_up(&self, service: ObjectKey, port: u16) -> Option<Vec<Address>> {
        let (answer, answered) = oneshot::channel();
        self.lookups.send(Lookup { service, port, answer }).await.ok()?;
        answered.await.ok()?
    }
}

/// `svc`, `svc.ns`, `svc.ns.svc` and `svc.ns.svc.cluster.local`, as names are written in Pods.
fn service(host: &str, namespace: Option<&str>) -> Option<ObjectKey> {
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
    fn names_of_services() {
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
            assert_eq!(service(host, namespace).map(|key| key.to_string()).as_deref(), expected, "{host}");
        }
    }
}
