//! `portico convert kong`: prints the objects of a declarative file or of calls to the Admin API, and reports what is
//! left out, invalid or different.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use parking_lot::Mutex;
use serde_json::Value;

use crate::app::kong_config;
use crate::app::offline::{self, OfflineSettings};
use crate::app::stdout::{print, reading};
use crate::args::{
    BudgetOptions, ConvertKongOptions, ConvertedSource, ExitStatus, GatewayOptions, IngressClassOptions, OutputFormat,
};
use crate::kong_config::{ScriptContext, TranslationSettings, translate_admin_calls};
use crate::manifests::{FileTranslator, ManifestUpdate, Manifests, TranslatedFormat, TranslatedObject, Translation};
use crate::plugin_api::AnyPluginKind;
use crate::plugins;
use crate::report::{self, ReportedDiagnostic};
use crate::schema::Channel;

/// A file that was read.
struct ConvertedFile {
    manifests: Manifests,
    update: ManifestUpdate,
    /// The objects to print; `None` if the file cannot be used.
    objects: Option<Vec<TranslatedObject>>,
}

/// Prints the manifests to stdout and the report to stderr. The objects are compiled as if they were served, because
/// only that shows what is wrong with configurations of plugins, certificates and references.
pub(super) fn convert(options: ConvertKongOptions) -> anyhow::Result<ExitStatus> {
    let settings = TranslationSettings { namespace: options.namespace, class: options.ingress_class.clone() };
    let (ConvertedSource::DeclarativeFile(file) | ConvertedSource::AdminCalls(file)) = &options.source;
    if file.is_dir() {
        bail!("{}: it is a folder; give one file, which `deck file merge` makes of several", file.display());
    }
    let ConvertedFile { manifests, mut update, objects } = match &options.source {
        ConvertedSource::DeclarativeFile(file) => read_declarative_file(file, settings),
        ConvertedSource::AdminCalls(file) => read_script(file, &settings),
    };
    let is_unreadable = update.diagnostics.iter().any(|problem| UNREADABLE.contains(&problem.reason()));
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
    let Some(objects) = objects else {
        return Ok(if is_unreadable { ExitStatus::Usage } else { ExitStatus::Rejected });
    };
    print(&yaml(&objects)?)?;
    if options.report == OutputFormat::Text {
        write!(stderr, "{}", summary(&objects, &reported)).ok();
    }
    let is_partial = reported.iter().any(|problem| problem.diagnostic.is_error());
    Ok(if is_partial && !options.allow_partial { ExitStatus::Rejected } else { ExitStatus::Success })
}

fn read_declarative_file(file: &Path, settings: TranslationSettings) -> ConvertedFile {
    let (translator, objects) = kong_config::recording_translator(settings);
    let (manifests, update) = read_file(file, translator);
    let objects = objects.lock().take();
    ConvertedFile { manifests, update, objects }
}

fn read_script(file: &Path, settings: &TranslationSettings) -> ConvertedFile {
    let script: Arc<Mutex<Option<Value>>> = Arc::default();
    let read_value = Arc::clone(&script);
    let reader = FileTranslator::new(SCRIPT, move |mut value| {
        *read_value.lock() = Some(value["script"].take());
        Translation::Objects(Vec::new(), Vec::new())
    });
    let (manifests, update) = read_file(file, reader);
    let script = script.lock().take();
    let Some(Value::String(script)) = script else { return ConvertedFile { manifests, update, objects: None } };
    let context =
        ScriptContext { variable: &|name| std::env::var(name).ok(), file: &sent_file, plugin_schema: &schema };
    let translated = translate_admin_calls(file, &script, settings, context);
    let objects = translated.objects.clone();
    let (manifests, update) = Manifests::of_translated(file, &script, translated);
    ConvertedFile { manifests, update, objects }
}

/// Reads a file as `run` and `check` do, with their limits and messages.
fn read_file(file: &Path, translator: FileTranslator) -> (Manifests, ManifestUpdate) {
    let files = vec![file.to_owned()];
    let mut manifests = Manifests::new(Vec::new(), Channel::Experimental).with_translated(files.clone(), translator);
    let update = reading(&files, || manifests.read());
    (manifests, update)
}

/// A script as a value with its text, since it is no YAML itself.
fn script_as_value(script: &str) -> Cow<'_, str> {
    let mut value = "{\"script\": \"".to_owned();
    for character in script.chars() {
        match character {
            ' '..='~' if !['"', '\\'].contains(&character) => value.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    // Writing to a text cannot fail.
                    write!(value, "\\u{unit:04x}").ok();
                }
            }
        }
    }
    value.push_str("\"}");
    Cow::Owned(value)
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
    let counts = if counts.is_empty() { String::new() } else { format!(" ({})", counts.join(", ")) };
    let count_of = |is_counted: &dyn Fn(&ReportedDiagnostic) -> bool, noun| {
        report::count(reported.iter().filter(|problem| is_counted(problem)).count() as u64, noun)
    };
    let is_error = |problem: &ReportedDiagnostic| problem.diagnostic.is_error();
    format!(
        "Converted into {}{counts}; {} left out, {}, {}.\n",
        report::count(objects.len() as u64, "object"),
        count_of(&|problem| is_error(problem) && problem.is_left_out(), "part"),
        count_of(&|problem| is_error(problem) && !problem.is_left_out(), "error"),
        count_of(&|problem| !is_error(problem), "difference"),
    )
}

/// Scripts as a format, so that they are read like other files.
const SCRIPT: TranslatedFormat = TranslatedFormat { is_meant: |_| true, prepare: script_as_value };
/// Maximum size in bytes of a file that a call sends.
const MAX_SENT_FILE: u64 = 1 << 20;
/// The reasons of errors about a path that cannot be read.
const UNREADABLE: [&str; 3] = ["NotAFile", "NotFound", "Unreadable"];
