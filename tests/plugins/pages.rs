//! Generates the plugin reference: a page and a JSON schema for each plugin, and a list of all plugins.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;

use portico::plugin_api::{AnyPluginKind, Phases, Scopes};
use portico::plugins::REGISTRY;

use crate::golden::{Golden, expect_none, is_update};
use crate::plugins::fields::{self, Field};
use crate::plugins::source;
use crate::root;

#[test]
fn plugin_reference_is_up_to_date() {
    let mut pages = vec![("README.md".to_owned(), index_page())];
    for kind in REGISTRY.iter() {
        let schema = serde_json::to_string_pretty(&kind.schema()).unwrap();
        pages.push((format!("{}.md", kind.name()), page(kind)));
        pages.push((format!("{}.schema.json", kind.name()), schema + "\n"));
    }
    let mut differing = Vec::new();
    for (name, text) in &pages {
        let compared = Golden::new(format!("../docs/plugins/{name}")).compare(text);
        differing.extend(compared.err().map(|error| error.replace("tests/../", "")));
    }
    let generated: BTreeSet<_> = pages.iter().map(|(name, _)| name.as_str()).collect();
    for entry in fs::read_dir(root().join("docs/plugins")).unwrap() {
        let path = entry.unwrap().path();
        if generated.contains(path.file_name().and_then(|name| name.to_str()).unwrap()) {
            continue;
        }
        match is_update() {
            true => fs::remove_file(path).unwrap(),
            false => differing.push(format!("{} is not the page or schema of a plugin: remove it", path.display())),
        }
    }
    expect_none(&differing, "plugins");
}

#[test]
fn the_page_about_costs_names_every_plugin() {
    let page = fs::read_to_string(root().join("docs/plugin-costs.md")).unwrap();
    let names = REGISTRY.iter().map(|kind| kind.name());
    let missing = names.filter(|name| !page.contains(&format!("(plugins/{name}.md)")));
    let remedy = "add it to benches/load/src/plugin_costs/cases.rs, and run make plugin-costs";
    let missing: Vec<_> = missing.map(|name| format!("{name}: {remedy}")).collect();
    expect_none(&missing, "plugins without a cost or the reason why there is none");
}

fn index_page() -> String {
    let mut kinds: Vec<_> = REGISTRY.iter().collect();
    kinds.sort_by_key(|kind| (std::cmp::Reverse(kind.priority()), kind.name()));
    let mut out = "# Plugins\n\n".to_owned();
    out += "Plugins run in the order of this table: higher priorities run earlier, unless `ordering` of a KongPlugin\n";
    out += "changes the phase `access`. If instances of the same plugin are attached to a route, its service, the\n";
    out += "consumer, its groups and globally, only the most specific one runs.\n\n";
    out += "If the configuration of a plugin that fails closed is invalid, requests are rejected with 503. Any other\n";
    out += "plugin with an invalid configuration is skipped. In both cases, a condition of the KongPlugin or\n";
    out += "KongClusterPlugin reports the error.\n\n";
    out += "Some pages show only `plugin` and `config` of a KongPlugin. [Authentication](../tasks/authentication.md)\n";
    out += "shows how to create a KongPlugin and attach it to a route.\n\n";
    out += "In `config` of a KongPlugin or KongClusterPlugin, an object can take the place of a text, for passwords,\n";
    out += "keys and certificates:\n\n";
    out += "- `{secretKeyRef: {name: NAME, key: KEY}}`: the text is under this key of a Secret\n";
    out += "- `{configMapKeyRef: {name: NAME, key: KEY}}`: the text is under this key of a ConfigMap\n\n";
    out += "The object is in the namespace of the KongPlugin; a KongClusterPlugin names it in `namespace`. Changes of the\n";
    out += "Secret or ConfigMap apply at once.\n\n";
    out += "These pages and the schemas are generated from the code.\n\n";
    out += "| plugin | priority | fails closed | description |\n| --- | --- | --- | --- |\n";
    for kind in kinds {
        let name = kind.name();
        let docs = source::module_docs(name);
        let summary = docs.split("\n\n").next().unwrap_or_default().replace('\n', " ");
        let summary = match summary.strip_prefix(&format!("`{name}`: ")) {
            Some(sentence) => sentence[..1].to_uppercase() + &sentence[1..],
            None => summary,
        };
        let fails_closed = if kind.fails_closed() { "yes" } else { "" };
        writeln!(out, "| [{name}]({name}.md) | {} | {fails_closed} | {summary} |", kind.priority()).unwrap();
    }
    out
}

fn page(kind: &dyn AnyPluginKind) -> String {
    let name = kind.name();
    let mut out = format!("# {name}\n\n{}\n\n", source::module_docs(name));
    let fields = fields::list(kind);
    out += "| field | type | default | description |\n| --- | --- | --- | --- |\n";
    for field in &fields {
        writeln!(out, "| `{}` | {} | {} | {} |", field.path, type_cell(field), default(field), description(field))
            .unwrap();
    }
    writeln!(out, "\n| | |\n| --- | --- |").unwrap();
    writeln!(out, "| priority | {}; higher priorities run earlier |", kind.priority()).unwrap();
    writeln!(out, "| runs | {} |", phases(kind.phases())).unwrap();
    writeln!(out, "| can be attached | {} |", scopes(kind.scopes())).unwrap();
    writeln!(out, "| protocols | {} |", kind.protocols().join(", ")).unwrap();
    let effect =
        if kind.fails_closed() { "requests are rejected with 503" } else { "requests are served without the plugin" };
    writeln!(out, "| if the configuration is invalid | {effect} |").unwrap();
    if !kind.dumped_fields().is_empty() {
        writeln!(out, "\nKong writes these fields also if they are not set. With this value, they count as unset:")
            .unwrap();
        writeln!(out, "\n| value | fields | since Kong |\n| --- | --- | --- |").unwrap();
        for row in kind.dumped_fields() {
            let fields: Vec<String> = row.fields.iter().map(|field| format!("`{field}`")).collect();
            let unless = row.unless.map(|(field, value)| format!(", unless `{field}` is `{value}`"));
            let value = row.value.shown();
            writeln!(out, "| {value}{} | {} | {} |", unless.unwrap_or_default(), fields.join(", "), row.since).unwrap();
        }
    }
    writeln!(out, "\nThe configuration is also available as a [JSON schema]({name}.schema.json).").unwrap();
    out
}

fn type_cell(field: &Field) -> String {
    if field.choices.is_empty() {
        return field.type_name.clone();
    }
    let names: Vec<String> = field.choices.iter().map(|(name, _)| format!("`{name}`")).collect();
    match &*names {
        [only] => field.type_name.replace("one of", only),
        _ => format!("{} {}", field.type_name, names.join(", ")),
    }
}

fn default(field: &Field) -> String {
    match &field.default {
        _ if field.is_required => "required".to_owned(),
        // The fields of an object have defaults of their own.
        Some(default) if !field.has_fields || default.is_array() => {
            format!("`{}`", default.to_string().replace('|', "\\|"))
        }
        _ => String::new(),
    }
}

fn description(field: &Field) -> String {
    let choices = field.choices.iter().filter(|(_, meaning)| !meaning.is_empty());
    let choices = choices.map(|(name, meaning)| format!("`{name}`: {meaning}"));
    let paragraphs: Vec<String> = std::iter::once(field.description.clone()).chain(choices).collect();
    paragraphs.join("<br>").replace('|', "\\|")
}

fn phases(phases: Phases) -> String {
    let all = [
        (phases.access, "before the request is forwarded"),
        (phases.before_forward, "before the filters of the rule, where it may respond"),
        (phases.replace_backend, "in place of the backend, after the filters of the rule"),
        (phases.response, "before the head of the response is sent"),
        (phases.log, "after the request is completed"),
        (phases.stream_open, "when a connection or UDP session begins"),
    ];
    all.iter().filter(|(runs, _)| *runs).map(|(_, when)| *when).collect::<Vec<_>>().join(", and ")
}

fn scopes(scopes: Scopes) -> String {
    let all = [
        (scopes.route, "to routes"),
        (scopes.service, "to services"),
        (scopes.consumer, "to consumers"),
        (scopes.consumer_group, "to consumer groups"),
        (scopes.global, "globally"),
    ];
    all.iter().filter(|(is_allowed, _)| *is_allowed).map(|(_, scope)| *scope).collect::<Vec<_>>().join(", ")
}
