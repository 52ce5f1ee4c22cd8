//! Metrics of the limits and circuit breakers of upstreams, computed at each scrape.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::upstream::settings::OverloadLimit;
use crate::upstream::{CircuitPhase, CircuitReport, OverloadReport, UpstreamRegistry};

/// The source of these metrics. Only upstreams with limits or a circuit breaker have some, so that their number is
/// bounded by that of the policies.
#[derive(Debug)]
pub(super) struct OverloadMeters {
    pub(super) upstreams: Arc<UpstreamRegistry>,
}

impl Collector for OverloadMeters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let reports = self.reports();
        type Read = fn(&OverloadReport) -> Option<i64>;
        let gauges: [(&str, &str, Read); 3] = [
            ("portico_upstream_active", "Requests in progress of Services with limits", |report| {
                Some(i64::from(report.active))
            }),
            ("portico_upstream_pending", "Requests that wait because of a limit of their Service", |report| {
                Some(i64::try_from(report.pending).unwrap_or(i64::MAX))
            }),
            (
                "portico_circuit_state",
                "State of circuit breakers: 0 closed, 1 open, 2 half-open, 3 closing",
                |report| report.circuit.map(|circuit| circuit.phase as i64),
            ),
        ];
        for (name, help, value) in gauges {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (upstream, report) in &reports {
                if let Some(value) = value(report) {
                    family.encode_family(&[("upstream", upstream.as_str())])?.encode_gauge(&value)?;
                }
            }
        }
        let help = "Requests, retries and connections that a limit of their Service has rejected";
        let mut family = encoder.encode_descriptor("portico_upstream_rejections", help, None, MetricType::Counter)?;
        for (upstream, report) in &reports {
            for limit in OverloadLimit::ALL {
                let pairs = [("upstream", upstream.as_str()), ("limit", limit.name())];
                let count = report.rejected(limit);
                family.encode_family(&pairs)?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
            }
        }
        let help = "Changes of circuit breakers to a state";
        let mut family = encoder.encode_descriptor("portico_circuit_transitions", help, None, MetricType::Counter)?;
        for (upstream, report) in &reports {
            let Some(CircuitReport { transitions, .. }) = report.circuit else { continue };
            for (phase, count) in CircuitPhase::ALL.into_iter().zip(transitions) {
                let pairs = [("upstream", upstream.as_str()), ("to", phase.name())];
                family.encode_family(&pairs)?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
            }
        }
        Ok(())
    }
}

impl OverloadMeters {
    /// The state of each upstream with limits, by its name in request metrics. Upstreams with one name are added up.
    fn reports(&self) -> BTreeMap<String, OverloadReport> {
        let mut reports: BTreeMap<String, OverloadReport> = BTreeMap::new();
        let mut counted = BTreeSet::new();
        for upstream in self.upstreams.all() {
            let Some(report) = upstream.overload_report() else { continue };
            // Upstreams that differ in their TLS settings have the same counts.
            if !counted.insert(upstream.overload_id()) {
                continue;
            }
            match reports.get_mut(&upstream.key.to_string()) {
                Some(sum) => sum.add(&report),
                None => drop(reports.insert(upstream.key.to_string(), report)),
            }
        }
        reports
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::metrics::{Exposition, Metrics};
    use crate::upstream::settings::{CircuitBreakerSettings, RequestLimits};
    use crate::upstream::{BackendTraffic, ClientSlot, Endpoints, RequestArrival, UpstreamKey};

    #[test]
    fn upstreams_with_limits_have_metrics() {
        let seconds = std::time::Duration::from_secs;
        let circuit = CircuitBreakerSettings {
            window: seconds(10),
            min_requests: 20,
            error_percent: 50,
            slow: None,
            consecutive: None,
            statuses: Box::default(),
            open_for: seconds(10),
            max_open_for: seconds(60),
            probes: 1,
            successes: 5,
            ramp_up: seconds(10),
            fallback: None,
        };
        let limits = RequestLimits { max_requests: Some(1), ..RequestLimits::default() };
        let upstreams = Arc::new(UpstreamRegistry::default());
        let set = |service: &str, traffic| {
            let key =
                UpstreamKey { namespace: "ns".into(), service: service.into(), port: 80, ..UpstreamKey::default() };
            upstreams.set_endpoints(&key, Endpoints { traffic, ..Endpoints::default() })
        };
        let web = set("web", BackendTraffic { overload: limits.into(), ..BackendTraffic::default() });
        set("api", BackendTraffic { overload: circuit.into(), ..BackendTraffic::default() });
        set("plain", BackendTraffic::default());
        let client = ClientSlot::of([192, 0, 2, 1].into());
        let _held = web.admit(client, RequestArrival::Complete).unwrap();
        assert!(web.admit(client, RequestArrival::Complete).is_err());
        let mut metrics = Metrics::new(SystemTime::now());
        let meters = OverloadMeters { upstreams: Arc::clone(&upstreams) };
        metrics.registry().register_collector(Box::new(meters));
        let text = metrics.encode(Exposition::Text).unwrap();
        for line in [
            "portico_upstream_active{upstream=\"ns/web:80\"} 1",
            "portico_upstream_pending{upstream=\"ns/web:80\"} 0",
            "portico_upstream_rejections_total{upstream=\"ns/web:80\",limit=\"requests\"} 1",
            "portico_upstream_rejections_total{upstream=\"ns/web:80\",limit=\"circuit\"} 0",
            "portico_circuit_state{upstream=\"ns/api:80\"} 0",
            "portico_circuit_transitions_total{upstream=\"ns/api:80\",to=\"open\"} 0",
        ] {
            assert!(text.lines().any(|written| written == line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains("ns/plain"), "{text}");
        assert!(!text.contains("portico_circuit_state{upstream=\"ns/web:80\"}"), "{text}");
    }
}
