//! Metrics of stored responses, and their purges.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::admin::{CacheSelection, ResponseCaches};
use crate::metrics::{encode_counter, encode_gauge};
use crate::plugins::proxy_cache::store::{CacheStore, Purge};

/// Reads the numbers at each scrape. It also keeps the store, with the limit of the flag, until plugins use it.
#[derive(Clone, Debug)]
pub(super) struct CacheMeters(pub(super) Arc<CacheStore>);

impl Collector for CacheMeters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let gauges = [
            ("portico_cache_bytes", "Bytes of stored responses in memory", self.0.used()),
            ("portico_cache_bytes_limit", "Limit of portico_cache_bytes", self.0.limit()),
        ];
        for (name, help, bytes) in gauges {
            encode_gauge(&mut encoder, name, help, bytes as u64)?;
        }
        let help = "Stored responses that were removed to make room for others";
        encode_counter(&mut encoder, "portico_cache_evictions", help, self.0.evictions())?;
        let help = "Requests that caches have processed";
        let mut requests = encoder.encode_descriptor("portico_cache_requests", help, None, MetricType::Counter)?;
        for (outcome, count) in self.0.outcomes() {
            requests.encode_family(&[("outcome", outcome)])?.encode_counter::<NoLabelSet, u64, u64>(&count, None)?;
        }
        Ok(())
    }
}

impl ResponseCaches for CacheMeters {
    fn purge(&self, selection: CacheSelection<'_>, namespace: Option<&str>) -> Option<usize> {
        let purge = match selection {
            CacheSelection::All => Purge::All,
            CacheSelection::Key(key) => Purge::Key(key.to_owned()),
            CacheSelection::Tag(tag) => Purge::Tag(tag.to_owned()),
        };
        self.0.purge(&purge, namespace)
    }
}
