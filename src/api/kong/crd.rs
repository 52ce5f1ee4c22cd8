//! CustomResourceDefinitions of Kong's kinds, as printed by `portico crds` and stored in `crds/`.

use serde_json::{Value, json};

use super::schema::described;
use crate::api::kind::{Kind, KindFamily};

/// Kong's kinds, in listing order.
pub fn kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied().filter(|kind| kind.family() == KindFamily::Kong)
}

/// The definition of a kind. `None` for kinds of other groups.
pub fn definition(kind: Kind) -> Option<Value> {
    let schema = described(kind)?;
    let CrdAttributes { short, columns, deprecation } = attributes(kind);
    let mut names = json!({
        "kind": kind.name(),
        "listKind": format!("{}List", kind.name()),
        "plural": kind.plural(),
        "singular": kind.name().to_lowercase(),
    });
    if let Some(short) = short {
        names["shortNames"] = json!([short]);
    }
    if kind != Kind::IngressClassParameters {
        names["categories"] = json!(["kong", "kong-ingress-controller"]);
    }
    let version = kind.versions().first()?;
    let mut version = json!({ "name": version, "served": true, "storage": true });
    if let Some(deprecation) = deprecation {
        version["deprecated"] = json!(true);
        version["deprecationWarning"] = json!(format!("{kind} is deprecated; {deprecation}"));
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

/// Attributes of a definition besides the schema.
#[derive(Default)]
struct CrdAttributes {
    short: Option<&'static str>,
    columns: Vec<PrinterColumn>,
    /// The recommended replacement.
    deprecation: Option<&'static str>,
}

fn attributes(kind: Kind) -> CrdAttributes {
    let short = |short, columns| CrdAttributes { short: Some(short), columns, deprecation: None };
    match kind {
        Kind::KongPlugin => short("kp", plugin_columns()),
        Kind::KongClusterPlugin => short("kcp", plugin_columns()),
        Kind::KongConsumer => short(
            "kc",
            vec![text_column("Username", ".username", "Name of the consumer"), age_column(), programmed_column()],
        ),
        Kind::KongConsumerGroup => short("kcg", vec![age_column(), programmed_column()]),
        Kind::KongUpstreamPolicy => short("kup", Vec::new()),
        Kind::KongIngress => CrdAttributes {
            deprecation: Some("use KongUpstreamPolicy and annotations of the Service"),
            ..short("ki", vec![age_column()])
        },
        Kind::KongVault => short(
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
            let enabled = PrinterColumn {
                kind: "boolean",
                ..text_column("Enabled", ".enabled", "Whether the license is enabled")
            };
            short("kl", vec![age_column(), enabled])
        }
        Kind::KongCustomEntity => short(
            "kce",
            vec![text_column("Entity Type", ".spec.type", "Type of the entity"), age_column(), programmed_column()],
        ),
        Kind::TcpIngress => CrdAttributes {
            columns: vec![address_column(), age_column()],
            deprecation: Some("use TCPRoute or TLSRoute of the Gateway API"),
            ..CrdAttributes::default()
        },
        Kind::UdpIngress => CrdAttributes {
            columns: vec![address_column(), age_column()],
            deprecation: Some("use UDPRoute of the Gateway API"),
            ..CrdAttributes::default()
        },
        _ => CrdAttributes::default(),
    }
}

/// A column of `kubectl get`.
struct PrinterColumn {
    name: &'static str,
    kind: &'static str,
    path: &'static str,
    description: &'static str,
    /// Only with `--output wide`.
    wide: bool,
}

impl PrinterColumn {
    fn to_value(&self) -> Value {
        let mut column = json!({
            "name": self.name, "type": self.kind, "jsonPath": self.path, "description": self.description,
        });
        if self.wide {
            column["priority"] = json!(1);
        }
        column
    }
}

const fn text_column(name: &'static str, path: &'static str, description: &'static str) -> PrinterColumn {
    PrinterColumn { name, kind: "string", path, description, wide: false }
}

const fn wide_column(column: PrinterColumn) -> PrinterColumn {
    PrinterColumn { wide: true, ..column }
}

const fn age_column() -> PrinterColumn {
    PrinterColumn { kind: "date", ..text_column("Age", ".metadata.creationTimestamp", "Age of the object") }
}

const fn programmed_column() -> PrinterColumn {
    let path = ".status.conditions[?(@.type==\"Programmed\")].status";
    text_column("Programmed", path, "Whether the object is part of the served configuration")
}

const fn address_column() -> PrinterColumn {
    text_column("Address", ".status.loadBalancer.ingress[*].ip", "External address")
}

fn plugin_columns() -> Vec<PrinterColumn> {
    let disabled =
        PrinterColumn { kind: "boolean", ..text_column("Disabled", ".disabled", "Whether the plugin is disabled") };
    vec![
        text_column("Plugin-Type", ".plugin", "Name of the plugin"),
        age_column(),
        wide_column(disabled),
        wide_column(text_column("Config", ".config", "Configuration of the plugin")),
        programmed_column(),
    ]
}
