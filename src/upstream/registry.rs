//! Registry of all upstreams, so that a new snapshot reuses those of the previous one.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use rustls::sign::CertifiedKey;

use super::tls::{TlsConfigCache, TlsTrust, TrustAnchors, UpstreamTlsSettings};
use super::{TrustModel, Upstream, UpstreamKey, UpstreamProtocol, UpstreamSource};
use crate::transport_protocol::TransportProtocol;

/// All upstreams by key.
#[derive(Debug, Default)]
pub struct UpstreamRegistry {
    upstreams: Mutex<BTreeMap<UpstreamKey, Arc<Upstream>>>,
    tls_settings: TlsConfigCache,
    system_anchors: Arc<TrustAnchors>,
    trust_model: TrustModel,
}

impl UpstreamRegistry {
    /// `system_anchors` are the certificate authorities that the operating system trusts.
    pub fn new(system_anchors: TrustAnchors, trust_model: TrustModel) -> Self {
        UpstreamRegistry { system_anchors: Arc::new(system_anchors), trust_model, ..UpstreamRegistry::default() }
    }

    /// The certificate authorities that the operating system trusts.
    pub fn system_anchors(&self) -> &Arc<TrustAnchors> {
        &self.system_anchors
    }

    /// The trust model, which decides the allowed endpoint addresses.
    pub fn trust_model(&self) -> &TrustModel {
        &self.trust_model
    }

    /// TLS settings as built by [`UpstreamTlsSettings::new`], shared by all upstreams with equal settings.
    pub fn tls_settings(
        &self,
        protocol: impl Into<Option<UpstreamProtocol>>,
        trust: Option<TlsTrust>,
        client: Option<Arc<CertifiedKey>>,
    ) -> Result<UpstreamTlsSettings, rustls::Error> {
        self.tls_settings.settings(protocol.into(), trust, client)
    }

    /// The upstream with this key, created if it does not exist yet.
    pub fn upstream(&self, key: &UpstreamKey) -> Arc<Upstream> {
        let mut upstreams = self.upstreams.lock();
        if let Some(known) = upstreams.get(key) {
            return Arc::clone(known);
        }
        let mut created = Upstream::new(key.clone());
        created.addresses = self.trust_model.address_policy();
        // Other TLS settings, such as a renewed certificate, create a new upstream, and so does another PROXY header.
        // It inherits the resolved addresses, so that it is usable at once. Keys are ordered by namespace and service,
        // so this is the first possible key of this Service.
        let range_start = UpstreamKey {
            port: 0,
            transport: TransportProtocol::default(),
            protocol: UpstreamProtocol::default(),
            tls: None,
            facade: None,
            via_cluster_ip: false,
            proxy_protocol: None,
            source: UpstreamSource::default(),
            ..key.clone()
        };
        let has_same_endpoints = |other: &UpstreamKey| {
            let UpstreamKey { tls, proxy_protocol, .. } = key;
            UpstreamKey { tls: tls.clone(), proxy_protocol: *proxy_protocol, ..other.clone() } == *key
        };
        let with_name = upstreams.range(range_start..);
        let with_name =
            with_name.take_while(|(other, _)| other.service == key.service && other.namespace == key.namespace);
        let of_service = with_name.filter(|(other, _)| other.source == key.source);
        for (other_key, other) in of_service {
            // All upstreams of a Service have one retry budget.
            created.share_retries(other);
            if has_same_endpoints(other_key) {
                created.inherit_resolved(other);
                // Connections of the other one may last, and count as the Service's.
                created.sockets = Arc::clone(&other.sockets);
                break;
            }
        }
        let created = Arc::new(created);
        upstreams.insert(key.clone(), Arc::clone(&created));
        created
    }

    /// All upstreams, ordered by key.
    pub fn all(&self) -> Vec<Arc<Upstream>> {
        self.upstreams.lock().values().cloned().collect()
    }

    /// Drops upstreams that no snapshot uses. Requests in flight keep their references. `unused`: those that became
    /// unused; `used_count`: how many are used. Others are looked for only if there are more than these, such as those
    /// of a route that no listener accepts.
    pub fn drop_unused(&self, unused: &[UpstreamKey], used_count: usize, is_used: impl Fn(&UpstreamKey) -> bool) {
        let mut upstreams = self.upstreams.lock();
        for key in unused {
            upstreams.remove(key);
        }
        if upstreams.len() > used_count {
            upstreams.retain(|key, _| is_used(key));
        }
        drop(upstreams);
        self.tls_settings.sweep();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BackendTraffic, EndpointAddress, Endpoints, OverBudget, RetryLimits};
    use super::*;

    #[test]
    fn used_upstreams_are_reused() {
        let key = |port| UpstreamKey { namespace: "ns".into(), service: "web".into(), port, ..UpstreamKey::default() };
        let registry = UpstreamRegistry::default();
        let first = registry.upstream(&key(80));
        registry.upstream(&key(81));
        assert!(Arc::ptr_eq(&first, &registry.upstream(&key(80))));
        registry.drop_unused(&[key(80)], 1, |_| unreachable!("the number of upstreams shows that all others are used"));
        assert_eq!(registry.all().len(), 1);
        assert!(!Arc::ptr_eq(&first, &registry.upstream(&key(80))));
    }

    /// Connections of the replaced upstream last as long as their requests.
    #[test]
    fn upstream_with_other_settings_has_the_sockets_of_the_former_one() {
        let registry = UpstreamRegistry::default();
        let key = UpstreamKey { namespace: "ns".into(), service: "web".into(), port: 80, ..UpstreamKey::default() };
        let former = registry.upstream(&key);
        let tls = registry.tls_settings(UpstreamProtocol::Http1, None, None).unwrap();
        let renewed = registry.upstream(&UpstreamKey { tls: Some(tls), ..key.clone() });
        assert!(!Arc::ptr_eq(&former, &renewed));
        assert!(Arc::ptr_eq(&former.sockets, &renewed.sockets));
        let other = registry.upstream(&UpstreamKey { port: 81, ..key });
        assert!(!Arc::ptr_eq(&former.sockets, &other.sockets));
    }

    /// A policy limits the retries to a Service, whichever port they are sent to.
    #[test]
    fn upstreams_of_a_service_share_their_retries() {
        let registry = UpstreamRegistry::default();
        let upstream = |service: &str, port| {
            let (namespace, service) = ("ns".into(), service.into());
            registry.upstream(&UpstreamKey { namespace, service, port, ..UpstreamKey::default() })
        };
        let hour = std::time::Duration::from_secs(3600);
        let limits = RetryLimits {
            percent: 0,
            interval: hour,
            min_count: 1,
            min_interval: hour,
            over_budget: OverBudget::Reject,
        };
        let traffic = BackendTraffic { retry_limits: Some(limits), ..BackendTraffic::default() };
        let first = upstream("web", 80);
        first.set_endpoints(Endpoints { traffic: traffic.clone(), ..Endpoints::default() });
        let second = upstream("web", 8080);
        second.set_endpoints(Endpoints { traffic, ..Endpoints::default() });
        assert_eq!(first.take_retry(), Ok(()));
        assert_eq!(second.take_retry(), Err(OverBudget::Reject));
        assert_eq!(upstream("other", 80).take_retry(), Ok(()));
        let x_backend = UpstreamKey {
            namespace: "ns".into(),
            service: "web".into(),
            source: UpstreamSource::XBackend,
            ..UpstreamKey::default()
        };
        let addresses = vec![EndpointAddress::Name { host: "a.example".into(), port: 80 }];
        registry.upstream(&x_backend).set_endpoints(Endpoints { addresses, ..Endpoints::default() });
        assert_eq!(registry.upstream(&x_backend).take_retry(), Ok(()), "an XBackend with the name of the Service");
        assert_eq!(first.take_retry(), Err(OverBudget::Reject), "has other limits");
    }

    #[test]
    fn new_tls_settings_inherit_resolved_addresses() {
        let key = |service: &str, tls: Option<UpstreamTlsSettings>| UpstreamKey {
            namespace: "ns".into(),
            service: service.into(),
            port: 443,
            tls,
            ..UpstreamKey::default()
        };
        let trusting = |anchors| {
            let trust = TlsTrust { anchors, max_intermediates: None, identity: None };
            UpstreamTlsSettings::new(UpstreamProtocol::Http1, Some(trust), None).unwrap()
        };
        let named = || Endpoints {
            addresses: vec![EndpointAddress::Name { host: "a.example".into(), port: 443 }],
            ..Endpoints::default()
        };
        let registry = UpstreamRegistry::default();
        let first = registry.upstream(&key("web", Some(trusting(Arc::default()))));
        first.set_endpoints(named());
        first.set_resolved("a.example", vec!["192.0.2.1".parse().unwrap()]);
        for (service, reachable) in [("web", 1), ("other", 0)] {
            for tls in [None, Some(UpstreamTlsSettings::new(UpstreamProtocol::Http1, None, None).unwrap())] {
                let another = registry.upstream(&key(service, tls));
                assert!(!Arc::ptr_eq(&first, &another));
                another.set_endpoints(named());
                assert_eq!(another.reachable().len(), reachable, "{service}");
            }
        }
        assert!(Arc::ptr_eq(&first, &registry.upstream(&key("web", Some(trusting(Arc::default()))))));
    }
}
