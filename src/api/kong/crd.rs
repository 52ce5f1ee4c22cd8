//! The kinds as CustomResourceDefinitions: what `portico crds` prints and `crds/` holds.

use serde_json::{Value, json};

use super::schema::{described, has};
use crate::api::kind::Kind;

/// Kong's kinds, in the order in which people expect to see them listed.
pub fn kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied().filter(|kind| has(*kind))
}

/// The definition of a kind. None for what is not Kong's.
pub fn definition(kind: Kind) -> Option<Value> {
    let schema = described(kind)?;
    let About { short, columns, deprecation } = about(kind);
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
        version["additionalPrinterColumns"] = columns.iter().map(Column::to_value).collect();
    }
    version["schema"] = json!({ "openAPIV3Schema": schema });
    let mut labels = json!({ "app.kubernetes.io/name": "portico", "app.kubernetes.io/part-of": "portico" });
    if kind == Kind::KongUpstreamPolicy {
        // By this label tools find policies and how they are attached.
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

/// What a definition says beside the schema.
#[derive(Default)]
struct About {
    short: Option<&'static str>,
    columns: Vec<Column>,
    /// What to use instead.
    deprecation: Option<&'static str>,
}

fn about(kind: Kind) -> About {
    let short = |short, columns| About { short: Some(short), columns, deprecation: None };
    match kind {
        Kind::KongPlugin => short("kp", of_plugins()),
        Kind::KongClusterPlugin => short("kcp", of_plugins()),
        Kind::KongConsumer => {
            short("kc", vec![text("Username", ".username", "Name of the consumer"), age(), programmed()])
        }
        Kind::KongConsumerGroup => short("kcg", vec![age(), programmed()]),
        Kind::KongUpstreamPolicy => short("kup", Vec::new()),
        Kind::KongIngress => About {
            deprecation: Some("use KongUpstreamPolicy and annotations of the Service"),
            ..short("ki", vec![age()])
        },
        Kind::KongVault => short(
            "kv",
            vec![
                text("Backend Type", ".spec.backend", "What keeps the secrets"),
                text("Prefix", ".spec.prefix", "What references to its secrets begin with"),
                age(),
                wide(text("Description", ".spec.description", "Words for people")),
                programmed(),
            ],
        ),
        Kind::KongLicense => {
            let enabled =
                Column { kind: "boolean", ..text("Enabled", ".enabled", "Whether the license is to be used") };
            short("kl", vec![age(), enabled])
        }
        Kind::KongCustomEntity => {
            short("kce", vec![text("Entity Type", ".spec.type", "Type of the entity"), age(), programmed()])
        }
        Kind::TcpIngress => About {
            columns: vec![address(), age()],
            deprecation: Some("use TCPRoute or TLSRoute of the Gateway API"),
            ..About::default()
        },
        Kind::UdpIngress => About {
            columns: vec![address(), age()],
            deprecation: Some("use UDPRoute of the Gateway API"),
            ..About::default()
        },
        _ => About::default(),
    }
}

/// What `kubectl get` prints of each object.
struct Column {
    name: &'static str,
    kind: &'static str,
    path: &'static str,
    description: &'static str,
    /// Only with `--output wide`.
    wide: bool,
}

impl Column {
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

const fn text(name: &'static str, path: &'static str, description: &'static str) -> Column {
    Column { name, kind: "string", path, description, wide: false }
}

const fn wide(column: Column) -> Column {
    Column { wide: true, ..column }
}

const fn age() -> Column {
    Column { kind: "date", ..text("Age", ".metadata.creationTimestamp", "Since when the object is there") }
}

const fn programmed() -> Column {
    let path = ".status.conditions[?(@.type==\"Programmed\")].status";
    text("Programmed", path, "Whether the object is part of what is served")
}

const fn address() -> Column {
    text("Address", ".status.loadBalancer.ingress[*].ip", "Where it can be reached")
}

fn of_plugins() -> Vec<Column> {
    let disabled = Column { kind: "boolean", ..text("Disabled", ".disabled", "Whether the plugin is switched off") };
    vec![
        text("Plugin-Type", ".plugin", "Name of the plugin"),
        age(),
        wide(disabled),
        wide(text("Config", ".config", "Configuration of the plugin")),
        programmed(),
    ]
}
