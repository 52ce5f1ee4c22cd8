//! CustomResourceDefinitions of Kong's kinds, as printed by `portico crds` and stored in `crds/`.

use serde_json::{Value, json};

use super::schema::described;
use crate::api::kind::{Kind, KindFamily};

/// Kong's kinds, in the order of [`Kind::ALL`].
pub fn kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied().filter(|kind| kind.family() == KindFamily::Kong)
}

/// The CustomResourceDefinition of a kind. `None` if the kind is not Kong's.
pub fn definition(kind: Kind) -> Option<Value> {
    let schema = described(kind)?;
    let CrdAttributes { short_name, columns, replacement } = attributes(kind);
    let mut names = json!({
        "kind": kind.name(),
        "listKind": format!("{}List", kind.name()),
        "plural": kind.plural(),
        "singular": kind.name().to_lowercase(),
    });
    if let Some(short_name) = short_name {
        names["shortNames"] = json!([short_name]);
    }
    if kind != Kind::IngressClassParameters {
        names["categories"] = json!(["kong", "kong-ingress-controller"]);
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
    if kind == Kind::KongUpstreamPolicy {
        // Tools find policies and their attachment by this label (GEP-713).
        labels["gateway.networking.k8s.io/policy"] = json!("direct");
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
struct CrdAttributes {
    short_name: Option<&'static str>,
    columns: Vec<PrinterColumn>,
    /// What to use instead of a deprecated kind, as an instruction.
    replacement: Option<&'static str>,
}

fn attributes(kind: Kind) -> CrdAttributes {
    let with_short_name =
        |short_name, columns| CrdAttributes { short_name: Some(short_name), columns, replacement: None };
    match kind {
        Kind::KongPlugin => with_short_name("kp", plugin_columns()),
        Kind::KongClusterPlugin => with_short_name("kcp", plugin_columns()),
        Kind::KongConsumer => with_short_name(
            "kc",
            vec![text_column("Username", ".username", "Name of the consumer"), age_column(), programmed_column()],
        ),
        Kind::KongConsumerGroup => with_short_name("kcg", vec![age_column(), programmed_column()]),
        Kind::KongUpstreamPolicy => with_short_name("kup", Vec::new()),
        Kind::KongIngress => CrdAttributes {
            replacement: Some("use KongUpstreamPolicy and annotations of the Service"),
            ..with_short_name("ki", vec![age_column()])
        },
        Kind::KongVault => with_short_name(
            "kv",
            vec![
                text_column("Backend Type", ".spec.backend", "Type of the vault"),
                text_column("Prefix", ".spec.prefix", "Prefix of references to its secrets"),
                age_column(),
                wide_column(text_column("Description", ".spec.description", "Description of the vault")),
                programmed_column(),
            ],
        ),
        Kind::KongLicense => {
            let enabled = boolean_column("Enabled", ".enabled", "Whether the license is enabled");
            with_short_name("kl", vec![age_column(), enabled])
        }
        Kind::KongCustomEntity => with_short_name(
            "kce",
            vec![text_column("Entity Type", ".spec.type", "Type of the entity"), age_column(), programmed_column()],
        ),
        Kind::TcpIngress => CrdAttributes {
            columns: vec![address_column(), age_column()],
            replacement: Some("use TCPRoute or TLSRoute of the Gateway API"),
            ..CrdAttributes::default()
        },
        Kind::UdpIngress => CrdAttributes {
            columns: vec![address_column(), age_column()],
            replacement: Some("use UDPRoute of the Gateway API"),
            ..CrdAttributes::default()
        },
        _ => CrdAttributes::default(),
    }
}

/// A column of `kubectl get`.
struct PrinterColumn {
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

const fn text_column(name: &'static str, path: &'static str, description: &'static str) -> PrinterColumn {
    PrinterColumn { name, value_type: "string", path, description, wide_only: false }
}

const fn boolean_column(name: &'static str, path: &'static str, description: &'static str) -> PrinterColumn {
    PrinterColumn { name, value_type: "boolean", path, description, wide_only: false }
}

const fn wide_column(column: PrinterColumn) -> PrinterColumn {
    PrinterColumn { wide_only: true, ..column }
}

const fn age_column() -> PrinterColumn {
    PrinterColumn {
        name: "Age",
        value_type: "date",
        path: ".metadata.creationTimestamp",
        description: "Age of the object",
        wide_only: false,
    }
}

const fn programmed_column() -> PrinterColumn {
    let path = ".status.conditions[?(@.type==\"Programmed\")].status";
    text_column("Programmed", path, "Whether the object is part of the served configuration")
}

const fn address_column() -> PrinterColumn {
    text_column("Address", ".status.loadBalancer.ingress[*].ip", "External address")
}

fn plugin_columns() -> Vec<PrinterColumn> {
    vec![
        text_column("Plugin-Type", ".plugin", "Name of the plugin"),
        age_column(),
        wide_column(boolean_column("Disabled", ".disabled", "Whether the plugin is disabled")),
        wide_column(text_column("Config", ".config", "Configuration of the plugin")),
        programmed_column(),
    ]
}
