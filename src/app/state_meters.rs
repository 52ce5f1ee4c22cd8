//! Metrics computed at each scrape: readiness, leadership, the served snapshot and the health of endpoints.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use tokio::sync::watch;

use super::fingerprint_cache::FingerprintCache;
use crate::metrics::encode_gauge;
use crate::proxy::ProxyStats;
use crate::ready::Readiness;
use crate::upstream::{EndpointCounts, UpstreamRegistry};

/// The sources of these metrics.
#[derive(Debug)]
pub(super) struct StateMeters {
    pub(super) ready: Readiness,
    /// Present only with a cluster.
    pub(super) leading: Option<watch::Receiver<bool>>,
    pub(super) fingerprints: Arc<FingerprintCache>,
    pub(super) upstreams: Arc<UpstreamRegistry>,
    pub(super) stats: Arc<ProxyStats>,
}

impl Collector for StateMeters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let ready = u64::from(self.ready.is_ready());
        encode_gauge(&mut encoder, "portico_ready", "1 if /readyz reports ready", ready)?;
        let hash = self.fingerprints.current().as_metric_value();
        encode_gauge(
            &mut encoder,
            "portico_snapshot_hash",
            "Hash of the served snapshot, equal in all replicas",
            hash,
        )?;
        if let Some(leading) = &self.leading {
            let leads = u64::from(*leading.borrow());
            encode_gauge(&mut encoder, "portico_leader", "1 if this replica is the leader and writes statuses", leads)?;
        }
        let mut family = encoder.encode_descriptor(
            "portico_upstream_endpoints",
            "Endpoints of Services that had requests, by health",
            None,
            MetricType::Gauge,
        )?;
        for (upstream, EndpointCounts { healthy, ejected }) in self.endpoint_counts() {
            for (state, count) in [("healthy", healthy), ("ejected", ejected)] {
                let pairs = [("upstream", &*upstream), ("state", state)];
                family.encode_family(&pairs)?.encode_gauge(&i64::try_from(count).unwrap_or(i64::MAX))?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "portico_upstream_picks",
            "Endpoints picked for attempts, by the reason for the endpoint",
            None,
            MetricType::Counter,
        )?;
        for ((upstream, because), count) in self.picks() {
            let pairs = [("upstream", &*upstream), ("how", because)];
            family.encode_family(&pairs)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        self.encode_checks(&mut encoder)
    }
}

impl StateMeters {
    fn encode_checks(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = encoder.encode_descriptor(
            "portico_upstream_checks",
            "Active health checks of endpoints, by outcome",
            None,
            MetricType::Counter,
        )?;
        for ((upstream, check_type, outcome), count) in self.check_counts() {
            let pairs = [("upstream", &*upstream), ("type", check_type), ("outcome", outcome)];
            family.encode_family(&pairs)?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
        }
        Ok(())
    }

    /// The checks of each upstream that has some, by its name in request metrics, by type and outcome.
    fn check_counts(&self) -> BTreeMap<(String, &'static str, &'static str), u64> {
        let mut counts = BTreeMap::new();
        for upstream in self.upstreams.all() {
            for (check_type, outcome, count) in upstream.check_counts() {
                *counts.entry((upstream.key.to_string(), check_type.name(), outcome.name())).or_default() += count;
            }
        }
        counts
    }

    /// The endpoint counts of each upstream, by its name in request metrics. An upstream with two protocols has the
    /// counts of the one with fewer healthy endpoints.
    fn endpoint_counts(&self) -> BTreeMap<String, EndpointCounts> {
        let with_requests = self.stats.backends();
        let mut endpoint_counts: BTreeMap<String, EndpointCounts> = BTreeMap::new();
        for upstream in self.upstreams.all() {
            let name = upstream.key.to_string();
            if !with_requests.contains(name.as_str()) {
                continue;
            }
            let counts = upstream.endpoint_counts();
            let counts_of_name = endpoint_counts.entry(name).or_insert(counts);
            if counts.healthy < counts_of_name.healthy {
                *counts_of_name = counts;
            }
        }
        endpoint_counts
    }

    /// The picks of each upstream by reason, without those that never occurred.
    fn picks(&self) -> BTreeMap<(String, &'static str), u64> {
        let mut picks: BTreeMap<(String, &'static str), u64> = BTreeMap::new();
        for upstream in self.upstreams.all() {
            for (because, count) in upstream.picks().into_iter().filter(|(_, count)| *count > 0) {
                *picks.entry((upstream.key.to_string(), because.as_str())).or_default() += count;
            }
        }
        picks
    }
}
