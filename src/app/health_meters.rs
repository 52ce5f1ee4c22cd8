//! Metrics of the health of endpoints, computed at each scrape.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::upstream::{EjectionCause, UpstreamRegistry};

/// The source of these metrics. An upstream has some from its first ejection on, so that one whose endpoints all work
/// has no series.
#[derive(Debug)]
pub(super) struct HealthMeters {
    pub(super) upstreams: Arc<UpstreamRegistry>,
}

/// The ejections of the upstreams with one name, which differ in their protocols.
#[derive(Debug, Default)]
struct Ejections {
    /// By [`EjectionCause`].
    total: [u64; EjectionCause::ALL.len()],
    /// The most of one upstream, since all of them may have the same endpoints.
    current: [u64; EjectionCause::ALL.len()],
    is_below_panic_threshold: bool,
}

impl Collector for HealthMeters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let ejections = self.ejections();
        let by_cause = |values: &[u64; EjectionCause::ALL.len()], total: &[u64; EjectionCause::ALL.len()]| {
            let named = EjectionCause::ALL.map(|cause| (cause.name(), values[cause as usize], total[cause as usize]));
            named.into_iter().filter(|(_, _, total)| *total > 0).map(|(cause, value, _)| (cause, value))
        };
        let help = "Endpoints that are ejected, by cause";
        let mut family =
            encoder.encode_descriptor("portico_upstream_ejected_endpoints", help, None, MetricType::Gauge)?;
        for (upstream, Ejections { total, current, .. }) in &ejections {
            for (cause, count) in by_cause(current, total) {
                let pairs = [("upstream", upstream.as_str()), ("cause", cause)];
                family.encode_family(&pairs)?.encode_gauge(&i64::try_from(count).unwrap_or(i64::MAX))?;
            }
        }
        let help = "Ejections of endpoints, by cause";
        let mut family = encoder.encode_descriptor("portico_upstream_ejections", help, None, MetricType::Counter)?;
        for (upstream, Ejections { total, .. }) in &ejections {
            for (cause, count) in by_cause(total, total) {
                let pairs = [("upstream", upstream.as_str()), ("cause", cause)];
                family.encode_family(&pairs)?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
            }
        }
        let help = "1 if so few endpoints are available that ejections are ignored, or requests fail";
        let mut family = encoder.encode_descriptor("portico_upstream_panic", help, None, MetricType::Gauge)?;
        for (upstream, Ejections { is_below_panic_threshold, .. }) in &ejections {
            let pairs = [("upstream", upstream.as_str())];
            family.encode_family(&pairs)?.encode_gauge(&i64::from(*is_below_panic_threshold))?;
        }
        Ok(())
    }
}

impl HealthMeters {
    /// The upstreams that have had an ejection, by name.
    fn ejections(&self) -> BTreeMap<String, Ejections> {
        let mut by_name: BTreeMap<String, Ejections> = BTreeMap::new();
        for upstream in self.upstreams.all() {
            let total = upstream.ejections();
            if total.iter().all(|(_, count)| *count == 0) {
                continue;
            }
            let merged = by_name.entry(upstream.key.to_string()).or_default();
            for (cause, count) in total {
                merged.total[cause as usize] += count;
            }
            for (cause, count) in upstream.ejected_endpoints() {
                let current = &mut merged.current[cause as usize];
                *current = count.max(*current);
            }
            merged.is_below_panic_threshold |= upstream.is_below_panic_threshold();
        }
        by_name
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::SystemTime;

    use super::*;
    use crate::endpoint_tls::UpstreamProtocol;
    use crate::metrics::{Exposition, Metrics};
    use crate::upstream::{EndpointAddress, Endpoints, Outcome, OutcomeClass, UpstreamKey};

    #[tokio::test(start_paused = true)]
    async fn ejections_have_metrics_from_the_first_one_on() {
        let upstreams = Arc::new(UpstreamRegistry::default());
        let address = |number: u8| SocketAddr::from(([10, 0, 0, number], 80));
        let add = |service: &str, protocol| {
            let key = UpstreamKey {
                namespace: "shop".into(),
                service: service.into(),
                port: 80,
                protocol,
                ..UpstreamKey::default()
            };
            let upstream = upstreams.upstream(&key);
            let addresses = [1, 2].map(|number| EndpointAddress::Ip(address(number))).into();
            upstream.set_endpoints(Endpoints { addresses, ..Endpoints::default() });
            upstream
        };
        let carts = [UpstreamProtocol::Http1, UpstreamProtocol::Http2].map(|protocol| add("cart", protocol));
        add("search", UpstreamProtocol::Http1);
        let mut metrics = Metrics::new(SystemTime::now());
        metrics.registry().register_collector(Box::new(HealthMeters { upstreams: Arc::clone(&upstreams) }));
        let lines = |metrics: &Metrics| {
            let page = metrics.encode(Exposition::Text).unwrap();
            let of_upstreams = page.lines().filter(|line| line.starts_with("portico_upstream_"));
            of_upstreams.map(|line| line.trim_start_matches("portico_upstream_").to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(lines(&metrics), [""; 0]);
        let fail = Outcome::of(OutcomeClass::ConnectFailed);
        for cart in &carts {
            cart.report(address(1), &fail);
        }
        assert_eq!(
            lines(&metrics),
            [
                r#"ejected_endpoints{upstream="shop/cart:80",cause="connect"} 1"#,
                r#"ejections_total{upstream="shop/cart:80",cause="connect"} 2"#,
                r#"panic{upstream="shop/cart:80"} 0"#,
            ]
        );
        carts[0].report(address(2), &fail);
        assert_eq!(lines(&metrics)[2], r#"panic{upstream="shop/cart:80"} 1"#);
        for number in [1, 2] {
            carts.iter().for_each(|cart| cart.report(address(number), &Outcome::of(OutcomeClass::Connected)));
        }
        assert_eq!(lines(&metrics)[0], r#"ejected_endpoints{upstream="shop/cart:80",cause="connect"} 0"#);
    }
}
