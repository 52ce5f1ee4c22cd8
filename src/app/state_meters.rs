//! What is measured when somebody asks: whether this replica is ready and leads, what it serves, and how its endpoints fare.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::watch;

use super::fingerprints::Fingerprints;
use crate::proxy::Stats;
use crate::ready::Ready;
use crate::upstream::{Registry, Tally};

#[derive(Debug)]
pub(super) struct StateMeters {
    pub(super) ready: Ready,
    /// Only with a cluster.
    pub(super) leading: Option<watch::Receiver<bool>>,
    pub(super) fingerprints: Arc<Fingerprints>,
    pub(super) upstreams: Arc<Registry>,
    pub(super) stats: Arc<Stats>,
}

impl Collector for StateMeters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let ready = u64::from(self.ready.is_ready());
        gauge(&mut encoder, "portico_ready", "1 if requests may come, as /readyz says", ready)?;
        let hash = self.fingerprints.now().number();
        gauge(&mut encoder, "portico_snapshot_hash", "Of the snapshot that is served: the same in all replicas", hash)?;
        if let Some(leading) = &self.leading {
            let leads = u64::from(*leading.borrow());
            gauge(&mut encoder, "portico_leader", "1 if this replica writes statuses and the like", leads)?;
        }
        let mut family = encoder.encode_descriptor(
            "portico_upstream_endpoints",
            "Endpoints of Services that had requests, by whether they can be connected to",
            None,
            MetricType::Gauge,
        )?;
        for (upstream, Tally { well, passed_over }) in self.tallies() {
            for (state, count) in [("well", well), ("passed_over", passed_over)] {
                let pairs = [("upstream", &*upstream), ("state", state)];
                family.encode_family(&pairs)?.encode_gauge(&i64::try_from(count).unwrap_or(i64::MAX))?;
            }
        }
        Ok(())
    }
}

impl StateMeters {
    /// By name, as requests have it. One that is spoken to in two protocols is as well as the worse of them.
    fn tallies(&self) -> BTreeMap<String, Tally> {
        let asked = self.stats.backends();
        let mut tallies: BTreeMap<String, Tally> = BTreeMap::new();
        for upstream in self.upstreams.all() {
            let name = upstream.key.to_string();
            if !asked.contains(name.as_str()) {
                continue;
            }
            let tally = upstream.tally();
            let known = tallies.entry(name).or_insert(tally);
            if tally.well < known.well {
                *known = tally;
            }
        }
        tallies
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}
