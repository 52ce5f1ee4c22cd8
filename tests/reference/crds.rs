//! All fields of Portico's own and of Kong's kinds, from the schemas printed by `portico crds`.

use std::fmt::Write;

use portico::api::definitions;
use serde_json::Value;

use crate::reference::cell;

const INTRODUCTION: &str = "# Custom resources

The kinds defined by `portico crds`, with all fields of their specs. [kinds.md](../kinds.md) explains how Kong's
kinds work together, and the page of each [plugin](../plugins/README.md) describes its `config`.
[BackendPolicy](backend-policy.md) has the rules about several policies, and [the settings of
Services](../tasks/gateway-services.md) shows how Gateways use GatewayParameters. The Gateway API defines its own kinds;
[routing.md](../routing.md) and [listening.md](../listening.md) describe the supported fields. This page is generated
from the code.
";

pub(crate) fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for kind in definitions::kinds() {
        let definition = definitions::definition(kind).expect("`portico crds` defines the kind");
        let (spec, version) = (&definition["spec"], &definition["spec"]["versions"][0]);
        let schema = &version["schema"]["openAPIV3Schema"];
        writeln!(page, "\n## {kind}\n\n{}\n", wrapped(&text(&schema["description"]))).unwrap();
        let group = text(&spec["group"]);
        let scope = text(&spec["scope"]).to_lowercase();
        let mut names = format!("`{group}/{}`, {scope}", text(&version["name"]));
        if let Some(short_name) = spec["names"]["shortNames"][0].as_str() {
            write!(names, ", short `{short_name}`").unwrap();
        }
        names += ".";
        if let Some(warning) = version["deprecationWarning"].as_str() {
            write!(names, " {warning}.").unwrap();
        }
        page += &wrapped(&names);
        page += "\n\n| field | type | default | |\n| --- | --- | --- | --- |\n";
        for (name, field) in schema["properties"].as_object().expect("the schema is an object") {
            if !["apiVersion", "kind", "metadata", "status"].contains(&name.as_str()) {
                let required = is_required(schema, name);
                rows(&mut page, name, field, required);
            }
        }
    }
    page
}

/// Breaks a paragraph into lines as wide as those of the other documents.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + word.len() < COLUMNS => write!(line, " {word}").expect("a String takes text"),
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

/// Appends the row of a field, followed by the rows of the fields inside it.
fn rows(page: &mut String, path: &str, field: &Value, required: bool) {
    let default = match &field["default"] {
        _ if required => "required".to_owned(),
        Value::Null => String::new(),
        default => format!("`{}`", cell(&default.to_string())),
    };
    let description = cell(&text(&field["description"]));
    writeln!(page, "| `{path}` | {} | {default} | {description} |", type_name(field)).unwrap();
    let (parent, path) = match field["type"].as_str() {
        Some("array") => (&field["items"], format!("{path}[]")),
        _ => (field, path.to_owned()),
    };
    for (name, inner) in parent["properties"].as_object().into_iter().flatten() {
        rows(page, &format!("{path}.{name}"), inner, is_required(parent, name));
    }
}

fn is_required(schema: &Value, name: &str) -> bool {
    schema["required"].as_array().is_some_and(|required| required.iter().any(|known| known == name))
}

fn type_name(field: &Value) -> String {
    let choices: Vec<String> =
        field["enum"].as_array().into_iter().flatten().map(|choice| format!("`{}`", text(choice))).collect();
    let name = match field["type"].as_str() {
        Some("array") => format!("list of {}", type_name(&field["items"])),
        Some(name) => name.to_owned(),
        None if field["x-kubernetes-int-or-string"] == true => "integer or string".to_owned(),
        None => "anything".to_owned(),
    };
    if choices.is_empty() { name } else { format!("one of {}", choices.join(", ")) }
}

/// A string as it is, any other value as JSON.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

const COLUMNS: usize = 120;
