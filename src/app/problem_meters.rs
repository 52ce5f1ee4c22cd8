//! What is measured of problems: how many there are now, by kind of object.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::control::News;
use crate::api::{Kind, ObjectId};
use crate::compile::verdict::Verdict;
use crate::manifests::{Refusal, Severity};
use crate::report;

/// `portico_problems{kind,severity}`. Written by the control loop alone.
#[derive(Debug, Default)]
pub(super) struct ProblemMeters {
    gauges: Family<Labels, Gauge>,
    /// Of verdicts.
    judged: BTreeMap<Labels, i64>,
    /// Of what never became an object.
    refused: BTreeMap<Labels, i64>,
    /// Whether there is a cluster, with thousands of Services to which no route leads.
    clustered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct Labels {
    /// Empty for a file that cannot be read as objects.
    kind: &'static str,
    severity: &'static str,
}

impl ProblemMeters {
    pub(super) fn register(registry: &mut Registry, clustered: bool) -> Self {
        let meters = ProblemMeters { clustered, ..ProblemMeters::default() };
        let help = "Problems that there are now with what is configured, by the kind of object that has them";
        registry.register("portico_problems", help, meters.gauges.clone());
        // There from the start: what alerts ask for is 0 and not absent where all is well.
        meters.gauges.get_or_create(&Labels { kind: "", severity: word(Severity::Error) }).set(0);
        meters
    }

    /// Takes over which verdicts changed.
    pub(super) fn follow(&mut self, news: &News) {
        for (sign, verdicts) in [(-1, &news.before), (1, &news.after)] {
            for (id, verdict) in verdicts {
                for labels in self.problems(id, verdict) {
                    *self.judged.entry(labels).or_default() += sign;
                }
            }
        }
        self.show();
    }

    /// Takes over what is refused now: parts of files, and objects of the cluster that cannot be read as their kind.
    pub(super) fn refuse<'a>(&mut self, refusals: &[Refusal], malformed: impl Iterator<Item = &'a ObjectId>) {
        // What was refused before and is not any more counts 0 from now on.
        self.refused.values_mut().for_each(|count| *count = 0);
        let of_files = refusals.iter().map(|refusal| Labels {
            kind: refusal.object.as_deref().and_then(kind_of).unwrap_or_default(),
            severity: word(refusal.severity),
        });
        let of_cluster = malformed.map(|id| Labels { kind: id.kind.name(), severity: word(Severity::Error) });
        for labels in of_files.chain(of_cluster) {
            *self.refused.entry(labels).or_default() += 1;
        }
        self.show();
    }

    fn problems(&self, id: &ObjectId, verdict: &Arc<Verdict>) -> Vec<Labels> {
        if self.clustered && matches!(id.kind, Kind::Service | Kind::EndpointSlice) {
            return Vec::new();
        }
        let diagnostics = report::of_verdict(id, verdict);
        let labels = |severity| Labels { kind: id.kind.name(), severity: word(severity) };
        diagnostics.iter().map(|diagnostic| labels(diagnostic.severity)).collect()
    }

    fn show(&self) {
        for labels in self.judged.keys().chain(self.refused.keys()) {
            let count = |counts: &BTreeMap<Labels, i64>| counts.get(labels).copied().unwrap_or_default();
            self.gauges.get_or_create(labels).set(count(&self.judged) + count(&self.refused));
        }
    }
}

/// Of `HTTPRoute default/web`, if it is one of ours: whoever writes files must not make labels.
fn kind_of(object: &str) -> Option<&'static str> {
    let name = object.split(' ').next()?;
    Kind::ALL.iter().map(|kind| kind.name()).find(|known| *known == name)
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}
