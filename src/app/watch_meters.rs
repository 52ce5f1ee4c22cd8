//! What is measured about watches: events, lists, objects and their age, by kind.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::api::Kind;
use crate::k8s::{Counters, WatchCounts};

/// Reads the counts of the watches when somebody asks. A kind that is not watched has no series.
#[derive(Debug)]
pub(super) struct WatchMeters(pub(super) Counters);

impl Collector for WatchMeters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let kinds: Vec<_> = Kind::ALL.iter().map(|kind| (kind.name(), self.0.of(*kind))).collect();
        let mut ages = encoder.encode_descriptor(
            "portico_watch_age_seconds",
            "How old what is known of the API server may be: 0 while the watch works",
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
            let kind = if family.grows { MetricType::Counter } else { MetricType::Gauge };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for (kind, counts) in &watched {
                let labels = [("kind", *kind)];
                let series = metric.encode_family(&labels)?;
                family.encode((family.value)(counts), series)?;
            }
        }
        Ok(())
    }
}

struct Family {
    name: &'static str,
    help: &'static str,
    grows: bool,
    value: fn(&WatchCounts) -> u64,
}

impl Family {
    fn encode(&self, value: u64, encoder: MetricEncoder<'_>) -> std::fmt::Result {
        if self.grows { ConstCounter::new(value).encode(encoder) } else { ConstGauge::new(value).encode(encoder) }
    }
}

const FAMILIES: &[Family] = &[
    Family {
        name: "portico_watch_events",
        help: "Objects that watches of the API server reported, those of lists included",
        grows: true,
        value: |counts| counts.events,
    },
    Family {
        name: "portico_watch_lists",
        help: "Lists that watches began with: the first, and one whenever events were missed",
        grows: true,
        value: |counts| counts.lists,
    },
    Family {
        name: "portico_watch_objects",
        help: "Objects that are known of the API server",
        grows: false,
        value: |counts| counts.objects as u64,
    },
];
