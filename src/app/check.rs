//! `portico check`: reads and compiles manifests and reports problems without serving them.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::control::Control;
use super::ingress::IngressConfig;
use super::stdout::print;
use crate::args::{BudgetOptions, CheckOptions, ExitStatus, OutputFormat};
use crate::compile::Budgets;
use crate::manifests::Manifests;
use crate::plugin_api::PluginFactory;
use crate::plugins;
use crate::report::{self, InputCounts, ReportedDiagnostic};
use crate::snapshot::Snapshot;
use crate::upstream::UpstreamRegistry;

/// Prints the problems of the manifests. The exit status shows whether there are any.
pub fn check(options: CheckOptions) -> anyhow::Result<ExitStatus> {
    let BudgetOptions { warn_only, namespace_bytes, gateway_ports } = options.budgets;
    let mut manifests =
        Manifests::new(options.paths.clone(), options.channel).with_large_objects(options.budgets.large_objects());
    let update = manifests.read();
    // A path of the command line that does not exist is a usage error.
    let argument_missing = update.lacks_one_of(&options.paths);
    let snapshots: Arc<ArcSwap<Snapshot>> = Arc::default();
    let fail_open = options.ingress_class.fail_open;
    let factory = PluginFactory { fail_open, ..PluginFactory::offline(plugins::REGISTRY) };
    let ingresses = IngressConfig::without_listeners(&options.ingress_class);
    let upstreams = Arc::new(UpstreamRegistry::default());
    let budgets = Budgets { warn_only, namespace_bytes, gateway_ports };
    let mut control = Control::new(options.gateways, upstreams, factory, ingresses, budgets, snapshots);
    control.apply(update.batch);

    let mut diagnostics: Vec<ReportedDiagnostic> = update.diagnostics.iter().map(report::from_manifest).collect();
    diagnostics.extend(control.verdicts().iter().flat_map(|(id, verdict)| report::from_verdict(id, verdict)));
    report::add_positions(&mut diagnostics, |fields| manifests.positions(fields));
    report::sort(&mut diagnostics);

    match options.output {
        OutputFormat::Json => print(&report::json(&diagnostics))?,
        OutputFormat::Text => {
            let left_out = &control.left_out_objects();
            let counts =
                InputCounts { files: update.files, objects: update.objects, ignored: &update.ignored, left_out };
            print(&report::terminal(&diagnostics, options.color_stdout))?;
            print(&report::summary(counts, &diagnostics))?;
        }
    }
    let is_rejected =
        diagnostics.iter().any(|diagnostic| diagnostic.diagnostic.is_error() || options.warnings_as_errors);
    Ok(if argument_missing {
        ExitStatus::Usage
    } else if is_rejected {
        ExitStatus::Rejected
    } else {
        ExitStatus::Success
    })
}
