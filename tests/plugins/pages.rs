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
    let mut pages = vec![("README.md".to_owned(), list())];
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
    let made: BTreeSet<_> = pages.iter().map(|(name, _)| name.as_str()).collect();
    for entry in fs::read_dir(root().join("docs/plugins")).unwrap() {
        let path = entry.unwrap().path();
        if made.contains(path.file_name().and_then(|name| name.to_str()).unwrap()) {
            continue;
        }
        match is_update() {
            true => fs::remove_file(path).unwrap(),
            false => differing.push(format!("{} does not belong to a plugin", path.display())),
        }
    }
    expect_none(&differing, "plugins");
}

fn list() -> String {
    let mut kinds: Vec<_> = REGISTRY.iter().collect();
    kinds.sort_by_key(|kind| (std::cmp::Reverse(kind.priority()), kind.name()));
    let mut out = "# Plugins\n\n".to_owned();
    out += "Plugins run in this order. If several plugins of the same name are attached to a route, its service,\n";
    out += "consumers, groups or globally, only the most specific one runs.\n\n";
    out += "If a plugin that fails closed cannot be built, its requests are rejected with 503. Any other plugin that\n";
    out += "cannot be built is skipped. In both cases, a condition of its object reports the error.\n\n";
    out += "These pages and the schemas are generated from the code.\n\n";
    out += "| plugin | priority | fails closed | description |\n| --- | --- | --- | --- |\n";
    for kind in kinds {
        let name = kind.name();
        let introduction = source::module_docs(name);
        let first = introduction.split("\n\n").next().unwrap_or_default().replace('\n', " ");
        let first = match first.strip_prefix(&format!("`{name}`: ")) {
            Some(rest) => rest[..1].to_uppercase() + &rest[1..],
            None => first,
        };
        let guards = if kind.fails_closed() { "yes" } else { "" };
        writeln!(out, "| [{name}]({name}.md) | {} | {guards} | {first} |", kind.priority()).unwrap();
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
    writeln!(out, "| priority | {} |", kind.priority()).unwrap();
    writeln!(out, "| runs | {} |", phases(kind.phases())).unwrap();
    writeln!(out, "| can be attached to | {} |", scopes(kind.scopes())).unwrap();
    writeln!(out, "| protocols | {} |", kind.protocols().join(", ")).unwrap();
    let guard = if kind.fails_closed() { "requests are rejected with 503" } else { "the plugin is skipped" };
    writeln!(out, "| if it cannot be built | {guard} |").unwrap();
    writeln!(out, "\nThe configuration is also available as a [JSON schema]({name}.schema.json).").unwrap();
    out
}

fn type_cell(field: &Field) -> String {
    if field.choices.is_empty() {
        return field.type_name.clone();
    }
    let names: Vec<String> = field.choices.iter().map(|(name, _)| format!("`{name}`")).collect();
    format!("{} {}", field.type_name, names.join(", "))
}

fn default(field: &Field) -> String {
    match &field.default {
        _ if field.is_required => "required".to_owned(),
        Some(default) if !field.has_fields => format!("`{}`", default.to_string().replace('|', "\\|")),
        _ => String::new(),
    }
}

fn description(field: &Field) -> String {
    let explained = field.choices.iter().filter(|(_, about)| !about.is_empty());
    let explained = explained.map(|(name, about)| format!("`{name}`: {about}"));
    let about: Vec<String> = std::iter::once(field.description.clone()).chain(explained).collect();
    about.join("<br>").replace('|', "\\|")
}

fn phases(phases: Phases) -> String {
    let all = [
        (phases.access, "before the request is forwarded"),
        (phases.response, "on the head of every response"),
        (phases.log, "after the request is completed"),
    ];
    all.iter().filter(|(takes_part, _)| *takes_part).map(|(_, when)| *when).collect::<Vec<_>>().join(", ")
}

fn scopes(scopes: Scopes) -> String {
    let all = [
        (scopes.route, "routes"),
        (scopes.service, "services"),
        (scopes.consumer, "consumers"),
        (scopes.consumer_group, "consumer groups"),
        (scopes.global, "globally"),
    ];
    all.iter().filter(|(can_be, _)| *can_be).map(|(_, what)| *what).collect::<Vec<_>>().join(", ")
}
