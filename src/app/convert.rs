//! `portico convert kong`: prints the objects of a declarative file, and reports what is left out or differs.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anyhow::Context;

use super::kong_config;
use super::stdout::print;
use crate::args::{ConvertOptions, ExitStatus};
use crate::kong_config::TranslationSettings;
use crate::manifests::{self, ManifestDiagnostic, TranslatedObject};
use crate::report;

/// Prints the manifests to stdout and the report to stderr.
pub fn convert(options: ConvertOptions) -> anyhow::Result<ExitStatus> {
    let settings = TranslationSettings { namespace: options.namespace, class: options.ingress_class };
    let translator = kong_config::translator(settings);
    let text =
        std::fs::read_to_string(&options.file).with_context(|| format!("{} cannot be read", options.file.display()))?;
    let translated = manifests::translate(&options.file, &text, &translator);
    let mut diagnostics: Vec<_> = translated.diagnostics.iter().map(report::from_manifest).collect();
    report::sort(&mut diagnostics);
    let mut stderr = io::stderr().lock();
    // If stderr is closed, the exit status still shows the result.
    write!(stderr, "{}", report::terminal(&diagnostics, options.color_stderr)).ok();
    let Some(objects) = translated.objects else { return Ok(ExitStatus::Rejected) };
    print(&yaml(&objects)?)?;
    write!(stderr, "{}", summary(&objects, &translated.diagnostics)).ok();
    let is_partial = translated.diagnostics.iter().any(|problem| problem.diagnostic.is_error());
    Ok(if is_partial && !options.allow_partial { ExitStatus::Rejected } else { ExitStatus::Success })
}

fn yaml(objects: &[TranslatedObject]) -> anyhow::Result<String> {
    let documents: Result<Vec<String>, _> =
        objects.iter().map(|object| serde_saphyr::to_string(&object.value)).collect();
    Ok(documents.context("an object cannot be written as YAML")?.join("---\n"))
}

/// The number of objects of each kind, and of what needs attention.
fn summary(objects: &[TranslatedObject], diagnostics: &[ManifestDiagnostic]) -> String {
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    for object in objects {
        *kinds.entry(object.value["kind"].as_str().unwrap_or_default()).or_default() += 1;
    }
    let counts: Vec<String> = kinds.iter().map(|(kind, number)| format!("{number} {kind}")).collect();
    let left_out = diagnostics.iter().filter(|problem| problem.diagnostic.is_error()).count();
    let differences = diagnostics.len() - left_out;
    format!(
        "Converted into {} ({}); {} left out, {}.\n",
        report::count(objects.len() as u64, "object"),
        counts.join(", "),
        report::count(left_out as u64, "part"),
        report::count(differences as u64, "difference"),
    )
}
