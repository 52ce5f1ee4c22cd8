//! Metrics of usage plans and versions of APIs: how many requests each plan has admitted and rejected, and how many
//! each version has got.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::plugin_kit::counting::UsageReports;

/// Reads the numbers at each scrape. The series are those of the configured plans and versions.
pub(super) struct UsageMeters(pub(super) Arc<UsageReports>);

impl fmt::Debug for UsageMeters {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("UsageMeters").finish()
    }
}

impl Collector for UsageMeters {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let totals = self.0.totals();
        let help = "Requests of clients with a usage plan; those with a warning were admitted, too";
        let mut family = encoder.encode_descriptor("portico_usage_plan_requests", help, None, MetricType::Counter)?;
        for (object, plan, outcome, number) in totals {
            let labels = [("object", object.as_str()), ("plan", &*plan), ("outcome", outcome.name())];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&number, None)?;
        }
        let help = "Requests for a version of an API; those refused came after its end";
        let mut family = encoder.encode_descriptor("portico_api_version_requests", help, None, MetricType::Counter)?;
        for total in self.0.version_totals() {
            let outcome = if total.is_refused { "refused" } else { "served" };
            let labels = [("object", total.object.as_str()), ("version", &*total.version), ("outcome", outcome)];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&total.requests, None)?;
        }
        Ok(())
    }
}
