//! Metrics of current configuration diagnostics, and of the objects that exceed a budget, by kind of object.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::control::VerdictChanges;
use crate::api::{Kind, ObjectId};
use crate::compile::OVER_BUDGET;
use crate::diagnostic::Severity;
use crate::manifests::ManifestDiagnostic;
use crate::report::{self, ReportedDiagnostic};
use crate::verdict::Verdict;

/// `portico_diagnostics{kind,severity}` and `portico_objects_over_budget{kind}`. Written by the control loop only.
#[derive(Debug, Default)]
pub(super) struct DiagnosticMeters {
    gauges: Family<DiagnosticLabels, Gauge>,
    /// Diagnostics of verdicts.
    from_verdicts: BTreeMap<DiagnosticLabels, i64>,
    /// Diagnostics of input that never became an object.
    from_input: BTreeMap<DiagnosticLabels, i64>,
    over_budget: Family<KindLabel, Gauge>,
    /// Whether there is a cluster. It may contain thousands of Services without a route, so diagnostics of Services do
    /// not count.
    clustered: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct DiagnosticLabels {
    /// Empty for a file that cannot be parsed into objects.
    kind: &'static str,
    severity: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

impl DiagnosticMeters {
    pub(super) fn register(registry: &mut Registry, clustered: bool) -> Self {
        let meters = DiagnosticMeters { clustered, ..DiagnosticMeters::default() };
        let help = "Current diagnostics of the configuration, by kind of object";
        registry.register("portico_diagnostics", help, meters.gauges.clone());
        let help = "Objects that exceed a limit of what objects may expand to";
        registry.register("portico_objects_over_budget", help, meters.over_budget.clone());
        for kind in [Kind::HttpRoute, Kind::Ingress] {
            meters.over_budget.get_or_create(&KindLabel { kind: kind.name() }).set(0);
        }
        // Created at the start, so that alerts see 0 and not an absent series.
        meters.gauges.get_or_create(&DiagnosticLabels { kind: "", severity: Severity::Error.label() }).set(0);
        meters
    }

    /// Applies the changed verdicts.
    pub(super) fn update_verdicts(&mut self, changes: &VerdictChanges) {
        for (sign, verdicts) in [(-1, &changes.before), (1, &changes.after)] {
            for (id, verdict) in verdicts {
                if is_over_budget(verdict) {
                    self.over_budget.get_or_create(&KindLabel { kind: id.kind.name() }).inc_by(sign);
                }
                for labels in self.labels(id, verdict) {
                    *self.from_verdicts.entry(labels).or_default() += sign;
                }
            }
        }
        self.publish();
    }

    /// Replaces the counts of rejected input: parts of files, and objects of the cluster that cannot be parsed as their
    /// kind.
    pub(super) fn set_rejected<'a>(
        &mut self,
        diagnostics: &[ManifestDiagnostic],
        malformed: impl Iterator<Item = &'a ObjectId>,
    ) {
        // Labels without a current entry stay at 0.
        self.from_input.values_mut().for_each(|count| *count = 0);
        let of_files = diagnostics.iter().map(|diagnostic| DiagnosticLabels {
            kind: diagnostic.object.as_deref().and_then(kind_of).unwrap_or_default(),
            severity: diagnostic.diagnostic.severity.label(),
        });
        let of_cluster =
            malformed.map(|id| DiagnosticLabels { kind: id.kind.name(), severity: Severity::Error.label() });
        for labels in of_files.chain(of_cluster) {
            *self.from_input.entry(labels).or_default() += 1;
        }
        self.publish();
    }

    fn labels(&self, id: &ObjectId, verdict: &Arc<Verdict>) -> Vec<DiagnosticLabels> {
        if self.clustered && matches!(id.kind, Kind::Service | Kind::EndpointSlice) {
            return Vec::new();
        }
        let labels = |reported: ReportedDiagnostic| DiagnosticLabels {
            kind: id.kind.name(),
            severity: reported.diagnostic.severity.label(),
        };
        report::from_verdict(id, verdict).into_iter().map(labels).collect()
    }

    fn publish(&self) {
        for labels in self.from_verdicts.keys().chain(self.from_input.keys()) {
            let count = |counts: &BTreeMap<DiagnosticLabels, i64>| counts.get(labels).copied().unwrap_or_default();
            self.gauges.get_or_create(labels).set(count(&self.from_verdicts) + count(&self.from_input));
        }
    }
}

fn is_over_budget(verdict: &Verdict) -> bool {
    let of_conditions = verdict.all_conditions().flat_map(|(_, condition)| &condition.diagnostics);
    of_conditions.chain(&verdict.diagnostics).any(|diagnostic| diagnostic.reason == OVER_BUDGET)
}

/// The kind in an object's name such as `HTTPRoute default/web`; None for unknown kinds, because files must not create
/// arbitrary label values.
fn kind_of(object: &str) -> Option<&'static str> {
    let name = object.split(' ').next()?;
    Kind::ALL.iter().map(|kind| kind.name()).find(|known| *known == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ObjectKey;
    use crate::diagnostic::Diagnostic;

    #[test]
    fn objects_over_budget_are_counted_once() {
        let id = ObjectId::new(Kind::Ingress, ObjectKey::new("a", "b"));
        let problem = |field: &str| Diagnostic::error(field, "too many", "use fewer").with_reason(OVER_BUDGET);
        let diagnostics = vec![problem("spec.rules"), problem("metadata")];
        let verdict = Arc::new(Verdict { diagnostics, ..Verdict::default() });
        let mut meters = DiagnosticMeters::register(&mut Registry::default(), false);
        let count = |meters: &DiagnosticMeters| meters.over_budget.get_or_create(&KindLabel { kind: "Ingress" }).get();
        let after = BTreeMap::from([(id, verdict)]);
        meters.update_verdicts(&VerdictChanges { after: after.clone(), ..VerdictChanges::default() });
        assert_eq!(count(&meters), 1);
        meters.update_verdicts(&VerdictChanges { before: after, ..VerdictChanges::default() });
        assert_eq!(count(&meters), 0);
    }
}
