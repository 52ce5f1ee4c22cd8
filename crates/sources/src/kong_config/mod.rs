//! Declarative files of Kong (`kong.yml`), and scripts of calls to its Admin API, translated into the objects that
//! Kong's ingress controller reads.
//!
//! ```text
//!   value ─environment─▶ model.rs: entities, with references ─▶ certificates, upstreams, services, routes, consumers,
//!         plugins ─▶ objects.rs: objects, each with the path of its entity in the file
//! ```
//!
//! There is one translation, and its result is always compiled: `portico run` serves it, `portico check` reports what
//! is wrong with it, and `portico convert kong` does the same and prints the objects. What has no equivalent is left
//! out and reported, and what would weaken another entity rejects the file.

mod admin_calls;
mod certificates;
mod consumers;
mod credentials;
mod custom_entities;
mod entity_types;
mod environment;
mod fields;
mod host_header;
mod model;
mod names;
mod objects;
mod paths;
mod plugins;
mod route_hosts;
mod routes;
mod service_location;
mod services;
mod settings;
#[cfg(test)]
mod tests;
mod upstreams;
mod vaults;

use std::borrow::Cow;

use serde_json::{Value, json};

use crate::api::names::ENTITY_NAME_ANNOTATION;
use crate::diagnostic::Diagnostic;
use crate::manifests::{TranslatedFormat, TranslatedObject, Translation};
use consumers::ConsumerPlans;
use credentials::CredentialContext;
use fields::FileFindings;
use names::Names;
use objects::Draft;
use plugins::PluginScopes;
use routes::{ConvertedRoute, NO_SERVICE, RouteContext};
use services::ServiceContext;

pub use admin_calls::{ScriptContext, translate_admin_calls};
pub use settings::TranslationSettings;

/// The format of declarative files.
pub const FORMAT: TranslatedFormat = TranslatedFormat { is_meant: is_declarative_file, prepare };

/// Whether a text names the version of the format, which every file does. A manifest has no such field.
fn is_declarative_file(text: &str) -> bool {
    let begins_with_version = |line: &str| {
        let line = line.trim_start_matches(['{', ' ', '\t', ',', '\u{feff}']).trim_start_matches(['"', '\'']);
        let rest = line.strip_prefix("_format_version");
        rest.is_some_and(|rest| rest.trim_start_matches(['"', '\'']).trim_start().starts_with(':'))
    };
    text.contains("_format_version")
        && (text.lines().any(|line| begins_with_version(line) && !line.starts_with(' '))
            || text.trim_start().starts_with('{') && text.contains("\"_format_version\""))
}

/// The text as YAML of one document.
fn prepare(text: &str) -> Cow<'_, str> {
    match environment::prepare(text) {
        Cow::Borrowed(text) => one_document(text),
        Cow::Owned(text) => Cow::Owned(one_document(&text).into_owned()),
    }
}

/// Turns the markers of documents without content, such as a `---` at the end, into comments. A text without any
/// content becomes one document, too.
fn one_document(text: &str) -> Cow<'_, str> {
    let is_marker = |line: &str| {
        let rest = line.strip_prefix("---").or_else(|| line.strip_prefix("..."));
        rest.is_some_and(|rest| rest.trim().is_empty() || rest.starts_with([' ', '\t']) && rest.trim().starts_with('#'))
    };
    let is_content = |line: &&str| !(is_marker(line) || line.trim().is_empty() || line.starts_with(['#', '%']));
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let first = lines.iter().position(is_content).unwrap_or(lines.len());
    let last = lines.iter().rposition(is_content).unwrap_or(0);
    // A marker ends directives.
    let has_directives = lines[..first].iter().any(|line| line.starts_with('%'));
    let is_needless = |index: usize, line: &str| is_marker(line) && (index > last || index < first && !has_directives);
    if lines.is_empty() {
        return Cow::Borrowed("\n");
    }
    if !lines.iter().copied().enumerate().any(|(index, line)| is_needless(index, line)) {
        return Cow::Borrowed(text);
    }
    let parts = lines.iter().copied().enumerate().flat_map(|(index, line)| match is_needless(index, line) {
        true => ["#", &line[1..]],
        false => ["", line],
    });
    Cow::Owned(parts.collect())
}

/// The error about a file without content.
pub fn empty_file() -> Diagnostic {
    let remedy = "write `_format_version: \"3.0\"` and the entities; if another program writes the file, check whether \
                  it failed";
    Diagnostic::of_file("EmptyFile", "the file is empty", remedy)
}

/// What a file is translated with, in addition to the settings.
pub struct FileContext<'a> {
    /// The value of an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// When the file was read, in seconds since 1970, if its objects are served as they are. A cluster knows itself
    /// when objects were created.
    pub read_at: Option<i64>,
}

/// Translates a file.
pub fn translate(mut file: Value, settings: &TranslationSettings, context: &FileContext<'_>) -> Translation {
    if file.is_null() {
        return Translation::Rejected(vec![empty_file()]);
    }
    let findings = FileFindings::default();
    environment::resolve(&mut file, "", context.variable, &findings);
    vaults::check_references(&file, &findings);
    let is_set = |value: Option<&Value>, expected| value == Some(&Value::Bool(expected));
    let hashed_passwords =
        is_set(file.get("_transform"), false) || is_set(file.pointer("/_info/skip_hash_for_basic_auth"), true);
    let objects = if findings.is_rejected() {
        // What a template stands for is not known, so the rest would be reported for wrong reasons.
        Vec::new()
    } else {
        translate_entities(file, settings, &CredentialContext { hashed_passwords, read_at: context.read_at }, &findings)
    };
    let (rejections, notes) = findings.into_parts();
    match rejections.is_empty() {
        true => Translation::Objects(objects, notes),
        false => Translation::Rejected(rejections),
    }
}

fn translate_entities(
    file: Value,
    settings: &TranslationSettings,
    credentials: &CredentialContext,
    findings: &FileFindings,
) -> Vec<TranslatedObject> {
    let (mut model, index) = model::read(file, findings);
    let mut names = Names::default();
    names.label("Service", NO_SERVICE);
    let certificates = certificates::plan(&mut model, &index, settings, &mut names);
    let (upstreams, targets) = (std::mem::take(&mut model.upstreams), std::mem::take(&mut model.targets));
    let upstreams = upstreams::plan(upstreams, targets, &index, &mut names);
    let mut services = Vec::new();
    let context = ServiceContext { index: &index, upstreams: &upstreams, certificates: &certificates };
    for (position, service) in std::mem::take(&mut model.services).into_iter().enumerate() {
        services.push(services::plan(service, position, &context, &mut names));
    }
    let context = RouteContext { settings, version: model.version, index: &index, services: &services };
    let mut routes: Vec<ConvertedRoute> = Vec::new();
    for (position, route) in std::mem::take(&mut model.routes).into_iter().enumerate() {
        routes.push(routes::plan(route, position, &context, &mut names));
    }
    let mut consumers = consumers::plan(&mut model, &index, credentials, settings, &mut names);
    let mut entities = custom_entities::plan(std::mem::take(&mut model.custom_entities), &index);
    let mut scopes = PluginScopes {
        services: &mut services,
        routes: &mut routes,
        consumers: &mut consumers,
        entities: &mut entities,
        index: &index,
    };
    let shared = std::mem::take(&mut model.plugin_configs);
    let plugins = plugins::plan(std::mem::take(&mut model.plugins), &shared, &mut scopes, settings, &mut names);
    entities.reject_unused(findings);

    let without_service = routes.iter().find(|route| route.service.is_none() && route.draft.is_some());
    let no_service = without_service.and_then(|route| route.draft.as_ref()).map(|draft| {
        let spec = json!({"clusterIP": "None", "ports": [{"port": 80}]});
        let mut service = Draft::new("v1", "Service", NO_SERVICE, &draft.source).with("spec", spec);
        service.annotate(ENTITY_NAME_ANNOTATION, "");
        service
    });
    let ConsumerPlans { consumers, groups, secrets } = consumers;
    let mut drafts = vaults::plan(std::mem::take(&mut model.vaults), settings, &mut names);
    drafts.extend(certificates.certificates);
    drafts.extend(certificates.authorities);
    drafts.extend(certificates.ingresses);
    drafts.extend(upstreams.into_iter().filter_map(|upstream| upstream.draft));
    for service in services {
        drafts.extend(service.draft);
        drafts.extend(service.slices);
    }
    drafts.extend(no_service);
    drafts.extend(routes.into_iter().filter_map(|route| route.draft));
    drafts.extend(plugins);
    drafts.extend(groups);
    drafts.extend(secrets);
    drafts.extend(consumers);
    drafts.into_iter().map(|draft| draft.finish(settings)).collect()
}
