//! Metrics of watches: events, lists, objects and age, by kind.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::api::Kind;
use crate::k8s::{WatchCounters, WatchCounts};

/// Reads the counters of the watches at each scrape. Kinds that are not watched have no series.
#[derive(Debug)]
pub(super) struct WatchMeters(pub(super) WatchCounters);

impl Collector for WatchMeters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let kinds: Vec<_> = Kind::ALL.iter().map(|kind| (kind.name(), self.0.for_kind(*kind))).collect();
        let mut ages = encoder.encode_descriptor(
            "portico_watch_age_seconds",
            "How long the known objects may be out of date: 0 while the watch works",
            None,
            MetricType::Gauge,
        )?;
        for (kind, counts) in &kinds {
            if let Some(age) = counts.age {
                ages.encode_family(&[("kind", *kind)])?.encode_gauge(&age.as_secs_f64())?;
            }
        }
        let watched: Vec<_> = kinds.into_iter().filter(|(_, counts)| counts.lists > 0).collect();
        for family in FAMILIES {
            let metric_type = if family.is_counter { MetricType::Counter } else { MetricType::Gauge };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, metric_type)?;
            for (kind, counts) in &watched {
                let labels = [("kind", *kind)];
                let series = metric.encode_family(&labels)?;
                family.encode((family.value)(counts), series)?;
            }
        }
        Ok(())
    }
}

/// A metric with one value for each kind.
struct WatchFamily {
    name: &'static str,
    help: &'static str,
    is_counter: bool,
    value: fn(&WatchCounts) -> u64,
}

impl WatchFamily {
    fn encode(&self, value: u64, encoder: MetricEncoder<'_>) -> std::fmt::Result {
        if self.is_counter { ConstCounter::new(value).encode(encoder) } else { ConstGauge::new(value).encode(encoder) }
    }
}

const FAMILIES: &[WatchFamily] = &[
    WatchFamily {
        name: "portico_watch_events",
        help: "Objects received from watches of the API server, including initial lists",
        is_counter: true,
        value: |counts| counts.events,
    },
    WatchFamily {
        name: "portico_watch_lists",
        help: "Lists requested by watches: the first, and one whenever events were missed",
        is_counter: true,
        value: |counts| counts.lists,
    },
    WatchFamily {
        name: "portico_watch_objects",
        help: "Objects known from the API server",
        is_counter: false,
        value: |counts| counts.objects as u64,
    },
];
