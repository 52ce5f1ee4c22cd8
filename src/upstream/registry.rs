//! All upstreams by identity, so that a new snapshot finds those of the old one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::sign::CertifiedKey;

use super::tls::{Anchors, Shared, Terms, Trust};
use super::{Loopback, Protocol, Upstream, UpstreamKey};

/// All upstreams by identity.
#[derive(Debug, Default)]
pub struct Registry {
    upstreams: Mutex<BTreeMap<UpstreamKey, Arc<Upstream>>>,
    terms: Shared,
    system: Arc<Anchors>,
    loopback: Loopback,
}

impl Registry {
    /// `system` is whom this machine trusts.
    pub fn new(system: Anchors, loopback: Loopback) -> Self {
        Registry { system: Arc::new(system), loopback, ..Registry::default() }
    }

    /// Whom this machine trusts.
    pub fn system(&self) -> &Arc<Anchors> {
        &self.system
    }

    /// Whether this machine or Pod itself may be a backend.
    pub fn loopback(&self) -> Loopback {
        self.loopback
    }

    /// Terms of TLS, as [`Terms::new`] makes them, which all upstreams share for which they say the same.
    pub fn terms(
        &self,
        protocol: Protocol,
        trust: Option<Trust>,
        client: Option<Arc<CertifiedKey>>,
    ) -> Result<Terms, rustls::Error> {
        self.terms.terms(protocol, trust, client)
    }

    /// The upstream of this identity, made if there is none yet.
    pub fn upstream(&self, key: &UpstreamKey) -> Arc<Upstream> {
        let mut upstreams = self.upstreams.lock();
        if let Some(known) = upstreams.get(key) {
            return Arc::clone(known);
        }
        let mut made = Upstream::new(key.clone());
        made.loopback = self.loopback;
        let made = Arc::new(made);
        // A certificate that is renewed is no reason to ask DNS again before the next request can go anywhere.
        let first = UpstreamKey { protocol: Protocol::default(), tls: None, facade: None, whole: false, ..key.clone() };
        let is_same = |other: &UpstreamKey| UpstreamKey { tls: key.tls.clone(), ..other.clone() } == *key;
        let others = upstreams.range(first..).take_while(|(other, _)| {
            other.port == key.port && other.service == key.service && other.namespace == key.namespace
        });
        if let Some((_, other)) = others.into_iter().find(|(other, _)| is_same(other)) {
            made.inherit(other);
        }
        upstreams.insert(key.clone(), Arc::clone(&made));
        made
    }

    /// Every upstream now, in the order of their keys.
    pub fn all(&self) -> Vec<Arc<Upstream>> {
        self.upstreams.lock().values().cloned().collect()
    }

    /// Forgets what no snapshot uses any more. Requests in flight keep what they hold.
    pub fn retain(&self, used: &BTreeSet<UpstreamKey>) {
        self.upstreams.lock().retain(|key, _| used.contains(key));
        self.terms.sweep();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Address, Endpoints};
    use super::*;

    #[test]
    fn an_upstream_stays_the_same_while_it_is_used() {
        let key = |port| UpstreamKey { namespace: "ns".into(), service: "web".into(), port, ..UpstreamKey::default() };
        let registry = Registry::default();
        let first = registry.upstream(&key(80));
        registry.upstream(&key(81));
        assert!(Arc::ptr_eq(&first, &registry.upstream(&key(80))));
        registry.retain(&BTreeSet::from([key(81)]));
        assert_eq!(registry.all().len(), 1);
        assert!(!Arc::ptr_eq(&first, &registry.upstream(&key(80))));
    }

    #[test]
    fn other_terms_make_another_upstream_that_need_not_ask_dns_again() {
        let key = |service: &str, tls: Option<Terms>| UpstreamKey {
            namespace: "ns".into(),
            service: service.into(),
            port: 443,
            tls,
            ..UpstreamKey::default()
        };
        let trusting = |anchors| Terms::new(Protocol::Http1, Some(Trust { anchors, depth: None }), None).unwrap();
        let named = || Endpoints {
            addresses: vec![Address::Name { host: "a.example".into(), port: 443 }],
            ..Endpoints::default()
        };
        let registry = Registry::default();
        let first = registry.upstream(&key("web", Some(trusting(Arc::default()))));
        first.set_endpoints(named());
        first.set_resolved("a.example", vec!["192.0.2.1".parse().unwrap()]);
        for (service, reachable) in [("web", 1), ("other", 0)] {
            for terms in [None, Some(Terms::new(Protocol::Http1, None, None).unwrap())] {
                let another = registry.upstream(&key(service, terms));
                assert!(!Arc::ptr_eq(&first, &another));
                another.set_endpoints(named());
                assert_eq!(another.reachable().len(), reachable, "{service}");
            }
        }
        assert!(Arc::ptr_eq(&first, &registry.upstream(&key("web", Some(trusting(Arc::default()))))));
    }
}
