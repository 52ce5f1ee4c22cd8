//! CustomResourceDefinitions, as printed by `portico crds` and stored in `crds/`: what those of all groups share.

use schemars::JsonSchema;
use serde_json::{Value, json};

use super::gateway::Channel;
use super::gateway::schema::schema_of;
use super::gateway::schema::to_structural::{to_structural, to_structural_with_descriptions};
use super::kind::Kind;

/// The CustomResourceDefinition of a kind with this schema, which [`object_schema`] returns.
pub(super) fn definition(kind: Kind, schema: Value, attributes: CrdAttributes) -> Option<Value> {
    let schema = described(schema);
    let CrdAttributes { short_name, categories, labels: own_labels, columns, replacement } = attributes;
    let mut names = json!({
        "kind": kind.name(),
        "listKind": format!("{}List", kind.name()),
        "plural": kind.plural(),
        "singular": kind.name().to_lowercase(),
    });
    if let Some(short_name) = short_name {
        names["shortNames"] = json!([short_name]);
    }
    if !categories.is_empty() {
        names["categories"] = json!(categories);
    }
    let version_name = kind.versions().first()?;
    let mut version = json!({ "name": version_name, "served": true, "storage": true });
    if let Some(replacement) = replacement {
        version["deprecated"] = json!(true);
        version["deprecationWarning"] = json!(format!("{kind} is deprecated; {replacement}"));
    }
    if schema.pointer("/properties/status").is_some() {
        version["subresources"] = json!({ "status": {} });
    }
    if !columns.is_empty() {
        version["additionalPrinterColumns"] = columns.iter().map(PrinterColumn::to_value).collect();
    }
    version["schema"] = json!({ "openAPIV3Schema": schema });
    let mut labels = json!({ "app.kubernetes.io/name": "portico", "app.kubernetes.io/part-of": "portico" });
    for (label, value) in own_labels {
        labels[label] = json!(value);
    }
    Some(json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{}.{}", kind.plural(), kind.group()), "labels": labels },
        "spec": {
            "group": kind.group(),
            "scope": if kind.namespaced() { "Namespaced" } else { "Cluster" },
            "names": names,
            "versions": [version],
        },
    }))
}

/// Attributes of a definition that follow neither from the schema nor from the table of kinds.
#[derive(Default)]
pub(super) struct CrdAttributes {
    pub(super) short_name: Option<&'static str>,
    pub(super) categories: &'static [&'static str],
    /// Labels in addition to those of every definition.
    pub(super) labels: &'static [(&'static str, &'static str)],
    pub(super) columns: Vec<PrinterColumn>,
    /// What to use instead of a deprecated kind, as an instruction.
    pub(super) replacement: Option<&'static str>,
}

/// The structural schema without descriptions, for validation.
pub(super) fn structural(mut schema: Value) -> Value {
    // These kinds have no channels, so the argument does not matter.
    to_structural(&mut schema, Channel::Standard);
    schema
}

/// The structural schema with descriptions for `kubectl explain`.
fn described(mut schema: Value) -> Value {
    to_structural_with_descriptions(&mut schema, Channel::Standard);
    join_description_lines(&mut schema);
    schema
}

/// Schema of a type that represents an object without its metadata.
pub(super) fn object_schema<T: JsonSchema>() -> Value {
    let mut schema = schema_of::<T>().to_value();
    // The API server has its own descriptions for these fields.
    for (name, json_type) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
        schema["properties"][name] = json!({ "type": json_type });
    }
    schema
}

/// Joins the lines of each paragraph in descriptions, since `kubectl` wraps them itself.
fn join_description_lines(node: &mut Value) {
    match node {
        Value::Object(map) => {
            if let Some(Value::String(text)) = map.get_mut("description") {
                let paragraphs = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
                *text = paragraphs.collect::<Vec<_>>().join("\n\n");
            }
            map.values_mut().for_each(join_description_lines);
        }
        Value::Array(values) => values.iter_mut().for_each(join_description_lines),
        _ => {}
    }
}

/// A column of `kubectl get`.
pub(super) struct PrinterColumn {
    name: &'static str,
    /// Type in OpenAPI.
    value_type: &'static str,
    path: &'static str,
    description: &'static str,
    /// Whether the column is shown with `--output wide` only.
    wide_only: bool,
}

impl PrinterColumn {
    fn to_value(&self) -> Value {
        let mut column = json!({
            "name": self.name, "type": self.value_type, "jsonPath": self.path, "description": self.description,
        });
        if self.wide_only {
            column["priority"] = json!(1);
        }
        column
    }
}

pub(super) const fn text_column(name: &'static str, path: &'static str, description: &'static str) -> PrinterColumn {
    PrinterColumn { name, value_type: "string", path, description, wide_only: false }
}

pub(super) const fn boolean_column(name: &'static str, path: &'static str, description: &'static str) -> PrinterColumn {
    PrinterColumn { name, value_type: "boolean", path, description, wide_only: false }
}

pub(super) const fn wide_column(column: PrinterColumn) -> PrinterColumn {
    PrinterColumn { wide_only: true, ..column }
}

pub(super) const fn age_column() -> PrinterColumn {
    PrinterColumn {
        name: "Age",
        value_type: "date",
        path: ".metadata.creationTimestamp",
        description: "Age of the object",
        wide_only: false,
    }
}
