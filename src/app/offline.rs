//! Compiles the objects of files without serving them, for all commands that report what is wrong with files.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::control::Control;
use super::foreign_policies;
use super::ingress::IngressConfig;
use crate::args::{BudgetOptions, GatewayOptions, IngressClassOptions};
use crate::compile::Budgets;
use crate::manifests::{ManifestUpdate, Manifests};
use crate::plugin_chain::PluginFactory;
use crate::plugins;
use crate::report::{self, ReportedDiagnostic};
use crate::snapshot::Snapshot;
use crate::upstream::UpstreamRegistry;

/// What decides how objects are compiled.
#[derive(Clone, Debug)]
pub(super) struct OfflineSettings {
    pub(super) gateways: GatewayOptions,
    pub(super) ingress_class: IngressClassOptions,
    pub(super) budgets: BudgetOptions,
    /// Whether the objects are for a cluster, whose controllers write further ones.
    pub(super) for_cluster: bool,
}

/// What was found in files, and in the objects that they have.
#[derive(Debug)]
pub(super) struct FileProblems {
    /// With positions, in their order.
    pub(super) diagnostics: Vec<ReportedDiagnostic>,
    /// Objects that would be served with another `--ingress-class`: by class, the number of each kind.
    pub(super) left_out: BTreeMap<String, BTreeMap<&'static str, usize>>,
    /// The compiled objects.
    pub(super) control: Control,
}

/// Compiles the objects of the first reading of files. Takes the batch of the reading.
pub(super) fn find_problems(
    manifests: &Manifests,
    update: &mut ManifestUpdate,
    settings: OfflineSettings,
) -> FileProblems {
    let BudgetOptions { warn_only, namespace_bytes, gateway_ports } = settings.budgets;
    let snapshots: Arc<ArcSwap<Snapshot>> = Arc::default();
    let ignore_foreign_guards = settings.ingress_class.ignore_foreign_guards;
    let fail_open = settings.ingress_class.fail_open;
    let shares_consumers = settings.ingress_class.shares_consumers();
    let factory = PluginFactory { fail_open, shares_consumers, ..PluginFactory::offline(plugins::REGISTRY) };
    let ingresses = IngressConfig::without_listeners(&settings.ingress_class);
    let upstreams = Arc::new(UpstreamRegistry::default());
    let budgets = Budgets { warn_only, namespace_bytes, gateway_ports };
    let mut control = Control::new(settings.gateways, upstreams, factory, ingresses, budgets, snapshots);
    control.apply(std::mem::take(&mut update.batch));

    let mut diagnostics: Vec<ReportedDiagnostic> = update.diagnostics.iter().map(report::from_manifest).collect();
    diagnostics.extend(control.verdicts().iter().flat_map(|(id, verdict)| report::from_verdict(id, verdict)));
    if settings.for_cluster {
        let written_later = update.written_later.iter().map(ToString::to_string).collect();
        diagnostics.retain(|found| !report::is_about_later_object(found, &written_later));
    }
    diagnostics.extend(foreign_policies::problems(&control, update, ignore_foreign_guards));
    report::add_positions(&mut diagnostics, |fields| manifests.positions(fields));
    report::sort(&mut diagnostics);
    FileProblems { diagnostics, left_out: control.left_out_objects(), control }
}
