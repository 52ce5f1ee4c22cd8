//! `portico check`: reads manifests, compiles them, says what is wrong, and serves nothing.

use std::io::{self, Write};
use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;

use super::control::Control;
use super::ingress::Ingresses;
use crate::args::{CheckOptions, Exit, OutputFormat};
use crate::manifests::{Manifests, Refusal, Severity};
use crate::plugin::Workshop;
use crate::plugins;
use crate::report::{self, Counts, Diagnostic};
use crate::snapshot::Snapshot;
use crate::upstream::Registry;

/// Says what is wrong with manifests.
pub fn check(options: CheckOptions) -> anyhow::Result<Exit> {
    let mut manifests = Manifests::new(options.paths.clone(), options.channel);
    let update = manifests.read();
    let is_given = |refusal: &Refusal| options.paths.iter().any(|path| **path == *refusal.place.file);
    let missing = update.refusals.iter().any(|refusal| refusal.reason == "NotFound" && is_given(refusal));
    let snapshots: Arc<ArcSwap<Snapshot>> = Arc::default();
    let fail_open = options.ingress_class.fail_open;
    let workshop = Workshop { fail_open, ..Workshop::offline(plugins::REGISTRY) };
    let ingresses = Ingresses::unserved(&options.ingress_class);
    let upstreams = Arc::new(Registry::default());
    let mut control = Control::new(options.gateways, upstreams, workshop, ingresses, snapshots);
    control.apply(update.batch);

    let mut diagnostics: Vec<Diagnostic> = update.refusals.iter().map(report::of_refusal).collect();
    diagnostics.extend(control.verdicts().iter().flat_map(|(id, verdict)| report::of_verdict(id, verdict)));
    report::locate(&mut diagnostics, |fields| manifests.places(fields));
    report::explain_missing(&mut diagnostics);
    report::sort(&mut diagnostics);

    match options.output {
        OutputFormat::Json => print(&report::json(&diagnostics))?,
        OutputFormat::Text => {
            let counts = Counts { files: update.files, objects: update.objects, ignored: &update.ignored };
            print(&report::terminal(&diagnostics, options.color_stdout))?;
            print(&report::summary(counts, &diagnostics))?;
        }
    }
    let refused =
        diagnostics.iter().any(|diagnostic| diagnostic.severity == Severity::Error || options.warnings_as_errors);
    Ok(if missing {
        Exit::Usage
    } else if refused {
        Exit::Refused
    } else {
        Exit::Fine
    })
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to stdout"),
    }
}
