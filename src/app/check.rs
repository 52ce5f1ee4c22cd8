//! `portico check`: reads and compiles manifests and declarative files of Kong, and reports problems without serving
//! them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::kong_config;
use super::offline::{self, FileProblems, OfflineSettings};
use super::stdout::{print, reading};
use crate::api::ingress_nginx::set_prefixes;
use crate::args::{CheckOptions, ExitStatus, OutputFormat};
use crate::kong_config::empty_file;
use crate::manifests::{FilePosition, ManifestDiagnostic, Manifests};
use crate::report::{self, InputCounts, ReportedDiagnostic};

/// Prints the problems of the files. The exit status shows whether there are any.
pub fn check(options: CheckOptions) -> anyhow::Result<ExitStatus> {
    set_prefixes(&options.ingress_class.nginx.annotation_prefixes);
    let settings = OfflineSettings {
        gateways: options.gateways,
        ingress_class: options.ingress_class,
        budgets: options.budgets,
        for_cluster: options.for_cluster,
    };
    let mut manifests = Manifests::new(options.paths.clone(), options.channel)
        .with_large_objects(options.budgets.large_objects())
        .with_translated(Vec::new(), kong_config::serving_translator(&settings.ingress_class.class));
    let mut update = reading(&options.paths, || manifests.read());
    // A path of the command line that does not exist is a usage error.
    let argument_missing = update.lacks_one_of(&options.paths);
    let FileProblems { mut diagnostics, left_out, .. } = offline::find_problems(&manifests, &mut update, settings);
    let is_empty = update.objects == 0 && update.ignored.is_empty();
    if is_empty && diagnostics.is_empty() {
        diagnostics.push(nothing_found(&options.paths));
    }

    match options.output {
        OutputFormat::Json => print(&report::json(&diagnostics))?,
        OutputFormat::Text => {
            let counts = InputCounts {
                files: update.files,
                objects: update.objects,
                ignored: &update.ignored,
                left_out: &left_out,
            };
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

/// What is wrong with files that have no objects. One with the usual name of a declarative file is such a file, in
/// which `run` and `convert` find an error.
fn nothing_found(paths: &[PathBuf]) -> ReportedDiagnostic {
    let is_declarative = |path: &&PathBuf| path.file_stem().is_some_and(|name| name == "kong") && path.is_file();
    let Some(file) = paths.iter().find(is_declarative) else { return report::no_objects(paths) };
    let position = FilePosition::without_excerpt(Arc::<Path>::from(file.as_path()), 1, 1);
    report::from_manifest(&ManifestDiagnostic::for_file(position, empty_file()))
}
