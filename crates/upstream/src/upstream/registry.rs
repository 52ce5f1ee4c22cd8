//! Registry of all upstreams, so that a new snapshot reuses those of the previous one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;
use rustls::SupportedCipherSuite;
use rustls::sign::CertifiedKey;

use super::check_queue::CheckQueue;
use super::{Alternatives, Endpoints, Upstream, UpstreamKey, UpstreamSource};
use crate::endpoint_tls::UpstreamProtocol;
use crate::endpoint_tls::{TlsConfigCache, TlsTrust, TrustAnchors, UpstreamTlsSettings};
use crate::ssrf_guard::TrustModel;
use crate::transport_protocol::TransportProtocol;

/// All upstreams by key.
#[derive(Debug, Default)]
pub struct UpstreamRegistry {
    upstreams: Mutex<BTreeMap<UpstreamKey, Arc<Upstream>>>,
    tls_settings: TlsConfigCache,
    system_anchors: Arc<TrustAnchors>,
    trust_model: TrustModel,
    check_queue: Arc<CheckQueue>,
    probe_queue: Arc<CheckQueue>,
    /// Whether endpoints are probed that cannot be connected.
    is_probing: AtomicBool,
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
        self.tls_settings.settings(protocol.into(), trust, client, None)
    }

    /// The same for handshakes that offer only these cipher suites, and the versions of TLS that these are of.
    ///
    /// # Errors
    ///
    /// If the list is empty.
    pub fn tls_settings_with_suites(
        &self,
        protocol: impl Into<Option<UpstreamProtocol>>,
        trust: Option<TlsTrust>,
        client: Option<Arc<CertifiedKey>>,
        suites: &[SupportedCipherSuite],
    ) -> Result<UpstreamTlsSettings, rustls::Error> {
        self.tls_settings.settings(protocol.into(), trust, client, Some(suites))
    }

    /// The upstream with this key, created if it does not exist yet.
    pub fn upstream(&self, key: &UpstreamKey) -> Arc<Upstream> {
        let mut upstreams = self.upstreams.lock();
        if let Some(known) = upstreams.get(key) {
            return Arc::clone(known);
        }
        let mut created = Upstream::new(key.clone());
        created.addresses = self.trust_model.address_policy();
        created.check_queue = Arc::clone(&self.check_queue);
        created.probe_queue = Arc::clone(&self.probe_queue);
        // Other TLS settings, such as a renewed certificate, create a new upstream, and so does another PROXY header or
        // load balancing of routes.
        // It inherits the resolved addresses, so that it is usable at once.
        let has_same_endpoints = |other: &UpstreamKey| {
            let UpstreamKey { tls, proxy_protocol, balancing, .. } = key;
            UpstreamKey { tls: tls.clone(), proxy_protocol: *proxy_protocol, balancing: *balancing, ..other.clone() }
                == *key
        };
        let with_name = upstreams.range(first_of_service(key)..);
        let with_name =
            with_name.take_while(|(other, _)| other.service == key.service && other.namespace == key.namespace);
        let of_service = with_name.filter(|(other, _)| other.source == key.source);
        for (other_key, other) in of_service {
            // All upstreams of a Service have one retry budget.
            created.share_retries(other);
            if has_same_endpoints(other_key) {
                created.inherit_endpoints(other);
                // Connections of the other one may last, and count as the Service's.
                created.sockets = Arc::clone(&other.sockets);
                // So do requests, and what they have shown.
                created.overload = Arc::clone(&other.overload);
                break;
            }
        }
        if self.is_probing.load(Relaxed) {
            created.set_probed();
        }
        let created = Arc::new(created);
        upstreams.insert(key.clone(), Arc::clone(&created));
        created
    }

    /// Sets the endpoints of the upstream with this key, and the upstreams that get requests in its place.
    pub fn set_endpoints(&self, key: &UpstreamKey, endpoints: Endpoints) -> Arc<Upstream> {
        let upstream = self.upstream(key);
        let alternatives = endpoints.traffic.alternatives.as_deref();
        if alternatives.is_some() || upstream.has_alternatives() {
            upstream.set_alternatives(alternatives.map(|configured| Alternatives {
                failover: configured.failover.iter().map(|key| self.upstream(key)).collect(),
                min_available_percent: configured.min_available_percent,
                on_statuses: configured.on_statuses.clone(),
                circuit_fallback: configured.circuit_fallback.as_ref().map(|key| self.upstream(key)),
            }));
        }
        upstream.set_endpoints(endpoints);
        upstream
    }

    /// The upstream with this key, if it exists.
    pub(super) fn get(&self, key: &UpstreamKey) -> Option<Arc<Upstream>> {
        self.upstreams.lock().get(key).cloned()
    }

    /// The upstreams whose checks have changed.
    pub(super) fn check_queue(&self) -> &Arc<CheckQueue> {
        &self.check_queue
    }

    /// From now on, the caller probes the endpoints of all upstreams that are in the returned queue.
    pub(super) fn begin_probing(&self) -> &Arc<CheckQueue> {
        // Under the lock, so that no upstream is created in between.
        let upstreams = self.upstreams.lock();
        self.is_probing.store(true, Relaxed);
        for upstream in upstreams.values() {
            upstream.set_probed();
        }
        &self.probe_queue
    }

    /// The upstreams of the Service with this key, whatever their ports and settings are.
    pub(super) fn of_service(&self, key: &UpstreamKey) -> Vec<Arc<Upstream>> {
        let upstreams = self.upstreams.lock();
        let of_service = upstreams.range(first_of_service(key)..);
        let of_service =
            of_service.take_while(|(other, _)| other.service == key.service && other.namespace == key.namespace);
        of_service.map(|(_, upstream)| Arc::clone(upstream)).collect()
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
        let end_checks = |upstream: &Upstream| {
            if upstream.active_check().is_some() {
                self.check_queue.add(&upstream.key);
            }
        };
        for key in unused {
            if let Some(upstream) = upstreams.remove(key) {
                end_checks(&upstream);
            }
        }
        if upstreams.len() > used_count {
            let removed = upstreams.extract_if(.., |key, _| !is_used(key));
            removed.for_each(|(_, upstream)| end_checks(&upstream));
        }
        drop(upstreams);
        self.tls_settings.sweep();
    }
}

/// The first possible key of a Service: keys are ordered by namespace and service.
fn first_of_service(key: &UpstreamKey) -> UpstreamKey {
    UpstreamKey {
        port: 0,
        transport: TransportProtocol::default(),
        protocol: UpstreamProtocol::default(),
        tls: None,
        facade: None,
        via_cluster_ip: false,
        proxy_protocol: None,
        source: UpstreamSource::default(),
        balancing: None,
        ..key.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::super::{BackendTraffic, EndpointAddress, MinRetryRate, Outcome, OutcomeClass, OverBudget, RetryLimits};
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

    /// Health belongs to the endpoint, whatever the connections to it are like (ingress-nginx#3709).
    #[tokio::test(start_paused = true)]
    async fn upstream_with_other_settings_has_the_health_of_the_former_one() {
        let registry = UpstreamRegistry::default();
        let key = UpstreamKey { namespace: "ns".into(), service: "web".into(), port: 80, ..UpstreamKey::default() };
        let former = registry.upstream(&key);
        let address = |number| SocketAddr::from(([10, 0, 0, number], 80));
        let addresses: Vec<_> = [1, 2].map(|number| EndpointAddress::Ip(address(number))).into();
        former.set_endpoints(Endpoints { addresses: addresses.clone(), ..Endpoints::default() });
        former.report(address(1), &Outcome::of(OutcomeClass::ConnectFailed));
        let tls = registry.tls_settings(UpstreamProtocol::Http1, None, None).unwrap();
        let renewed = registry.upstream(&UpstreamKey { tls: Some(tls), ..key.clone() });
        renewed.set_endpoints(Endpoints { addresses, ..Endpoints::default() });
        assert_eq!(renewed.endpoint_counts().ejected, 1);
        renewed.report(address(1), &Outcome::of(OutcomeClass::Connected));
        assert_eq!(former.endpoint_counts().ejected, 0, "requests in progress follow it");
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
            min_retry_rate: MinRetryRate { count: 1, interval: hour },
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
