//! The reference: a page and a JSON schema for each plugin, and a list of all, made of what the code says.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;

use portico::plugin::{AnyKind, Phases, Scopes};
use portico::plugins::REGISTRY;

use crate::fields::{self, Field};
use crate::harness::golden::{Golden, expect_none, is_update};
use crate::harness::program::root;
use crate::source;

#[test]
fn the_reference_is_what_the_code_says() {
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
            false => differing.push(format!("{} is about no plugin", path.display())),
        }
    }
    expect_none(&differing, "plugins");
}

fn list() -> String {
    let mut kinds: Vec<_> = REGISTRY.iter().collect();
    kinds.sort_by_key(|kind| (std::cmp::Reverse(kind.priority()), kind.name()));
    let mut out = "# Plugins\n\nThey run in this order. Of those attached to a route, its service and everything, the most specific one runs: one of each name.\n\n".to_owned();
    out += "A plugin that guards and cannot be built answers 503 in its place; any other is left out, and a condition of its object says so. Pages and schemas\n";
    out += "are made of the code.\n\n| plugin | priority | guards | does |\n| --- | --- | --- | --- |\n";
    for kind in kinds {
        let name = kind.name();
        let introduction = source::introduction(name);
        let first = introduction.split("\n\n").next().unwrap_or_default().replace('\n', " ");
        let first = match first.strip_prefix(&format!("`{name}`: ")) {
            Some(rest) => rest[..1].to_uppercase() + &rest[1..],
            None => first,
        };
        let guards = if kind.is_guard() { "yes" } else { "" };
        writeln!(out, "| [{name}]({name}.md) | {} | {guards} | {first} |", kind.priority()).unwrap();
    }
    out
}

fn page(kind: &dyn AnyKind) -> String {
    let name = kind.name();
    let mut out = format!("# {name}\n\n{}\n\n", source::introduction(name));
    let fields = fields::of(kind);
    out += "| field | type | default | |\n| --- | --- | --- | --- |\n";
    for field in &fields {
        writeln!(out, "| `{}` | {} | {} | {} |", field.path, of(field), default(field), about(field)).unwrap();
    }
    writeln!(out, "\n| | |\n| --- | --- |").unwrap();
    writeln!(out, "| priority | {} |", kind.priority()).unwrap();
    writeln!(out, "| takes part | {} |", phases(kind.phases())).unwrap();
    writeln!(out, "| attached to | {} |", scopes(kind.scopes())).unwrap();
    writeln!(out, "| protocols | {} |", kind.protocols().join(", ")).unwrap();
    let guard = if kind.is_guard() { "503 in its place" } else { "left out" };
    writeln!(out, "| cannot be built | {guard} |").unwrap();
    writeln!(out, "\nThe same as a [JSON schema]({name}.schema.json).").unwrap();
    out
}

fn of(field: &Field) -> String {
    if field.choices.is_empty() {
        return field.of.clone();
    }
    let names: Vec<String> = field.choices.iter().map(|(name, _)| format!("`{name}`")).collect();
    format!("{} {}", field.of, names.join(", "))
}

fn default(field: &Field) -> String {
    match &field.default {
        _ if field.is_required => "required".to_owned(),
        Some(default) if !field.is_record => format!("`{}`", default.to_string().replace('|', "\\|")),
        _ => String::new(),
    }
}

fn about(field: &Field) -> String {
    let explained = field.choices.iter().filter(|(_, about)| !about.is_empty());
    let explained = explained.map(|(name, about)| format!("`{name}`: {about}"));
    let about: Vec<String> = std::iter::once(field.description.clone()).chain(explained).collect();
    about.join("<br>").replace('|', "\\|")
}

fn phases(phases: Phases) -> String {
    let all = [
        (phases.access, "before the request goes on"),
        (phases.answer, "on the head of every answer"),
        (phases.log, "when all is over"),
    ];
    all.iter().filter(|(takes_part, _)| *takes_part).map(|(_, when)| *when).collect::<Vec<_>>().join(", ")
}

fn scopes(scopes: Scopes) -> String {
    let all = [
        (scopes.route, "routes"),
        (scopes.service, "services"),
        (scopes.consumer, "consumers"),
        (scopes.consumer_group, "consumer groups"),
        (scopes.global, "everything"),
    ];
    all.iter().filter(|(can_be, _)| *can_be).map(|(_, what)| *what).collect::<Vec<_>>().join(", ")
}
