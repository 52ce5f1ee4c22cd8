//! `portico convert kong`: prints the objects of a declarative file or of calls to the Admin API, and reports what is
//! left out, invalid or different.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};

use anyhow::Context;

use super::kong_config;
use super::offline::{self, OfflineSettings};
use super::stdout::print;
use crate::args::{
    BudgetOptions, ConvertOptions, ConvertedSource, ExitStatus, GatewayOptions, IngressClassOptions, OutputFormat,
};
use crate::kong_config::{ScriptContext, TranslationSettings, translate_admin_calls};
use crate::manifests::{self, Manifests, TranslatedObject};
use crate::plugin_api::AnyPluginKind;
use crate::plugins;
use crate::report::{self, ReportedDiagnostic};

/// Prints the manifests to stdout and the report to stderr. The objects are compiled as if they were served, because
/// only that shows what is wrong with configurations of plugins, certificates and references.
pub fn convert(options: ConvertOptions) -> anyhow::Result<ExitStatus> {
    let settings = TranslationSettings { namespace: options.namespace, class: options.ingress_class.clone() };
    let (ConvertedSource::DeclarativeFile(file) | ConvertedSource::AdminCalls(file)) = &options.source;
    let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let (translated, translator) = match &options.source {
        ConvertedSource::DeclarativeFile(file) => {
            let translator = kong_config::translator(settings);
            (manifests::translate(file, &text, &translator), Some(translator))
        }
        ConvertedSource::AdminCalls(file) => {
            let context =
                ScriptContext { variable: &|name| std::env::var(name).ok(), file: &sent_file, plugin_schema: &schema };
            (translate_admin_calls(file, &text, &settings, context), None)
        }
    };
    let objects = translated.objects.clone();
    let (manifests, mut update) = Manifests::of_translated(file, &text, translated, translator);
    let settings = OfflineSettings {
        gateways: GatewayOptions::default(),
        ingress_class: IngressClassOptions::of_class(options.ingress_class),
        budgets: BudgetOptions::default(),
        for_cluster: false,
    };
    let reported = offline::find_problems(&manifests, &mut update, settings).diagnostics;
    let text = match (options.report, &objects) {
        (OutputFormat::Json, _) => report::json(&reported),
        // A file that cannot be used has errors at places, which carets show.
        (OutputFormat::Text, None) => report::terminal(&reported, options.color_stderr),
        (OutputFormat::Text, Some(_)) => report::findings(&reported),
    };
    let mut stderr = io::stderr().lock();
    // If stderr is closed, the exit status still shows the result.
    write!(stderr, "{text}").ok();
    let Some(objects) = objects else { return Ok(ExitStatus::Rejected) };
    print(&yaml(&objects)?)?;
    if options.report == OutputFormat::Text {
        write!(stderr, "{}", summary(&objects, &reported)).ok();
    }
    let is_partial = reported.iter().any(|problem| problem.diagnostic.is_error());
    Ok(if is_partial && !options.allow_partial { ExitStatus::Rejected } else { ExitStatus::Success })
}

/// A file that a call sends, such as a certificate.
fn sent_file(name: &str) -> Option<String> {
    let mut text = String::new();
    let file = File::open(name).ok().filter(|file| file.metadata().is_ok_and(|found| found.is_file()))?;
    file.take(MAX_SENT_FILE + 1).read_to_string(&mut text).ok()?;
    Some(text).filter(|text| text.len() as u64 <= MAX_SENT_FILE)
}

fn schema(plugin: &str) -> Option<serde_json::Value> {
    plugins::REGISTRY.find(plugin).map(|kind: &dyn AnyPluginKind| kind.schema().to_value())
}

fn yaml(objects: &[TranslatedObject]) -> anyhow::Result<String> {
    let documents: Result<Vec<String>, _> =
        objects.iter().map(|object| serde_saphyr::to_string(&object.value)).collect();
    Ok(documents.context("an object cannot be written as YAML")?.join("---\n"))
}

/// The number of objects of each kind, and of what needs attention.
fn summary(objects: &[TranslatedObject], reported: &[ReportedDiagnostic]) -> String {
    let mut kinds: BTreeMap<&str, u64> = BTreeMap::new();
    for object in objects {
        *kinds.entry(object.value["kind"].as_str().unwrap_or_default()).or_default() += 1;
    }
    let counts: Vec<String> = kinds.iter().map(|(kind, number)| format!("{number} {kind}")).collect();
    let count_of = |is_counted: &dyn Fn(&ReportedDiagnostic) -> bool, noun| {
        report::count(reported.iter().filter(|problem| is_counted(problem)).count() as u64, noun)
    };
    let is_error = |problem: &ReportedDiagnostic| problem.diagnostic.is_error();
    format!(
        "Converted into {} ({}); {} left out, {}, {}.\n",
        report::count(objects.len() as u64, "object"),
        counts.join(", "),
        count_of(&|problem| is_error(problem) && problem.is_left_out(), "part"),
        count_of(&|problem| is_error(problem) && !problem.is_left_out(), "error"),
        count_of(&|problem| !is_error(problem), "difference"),
    )
}

/// Maximum size in bytes of a file that a call sends.
const MAX_SENT_FILE: u64 = 1 << 20;
