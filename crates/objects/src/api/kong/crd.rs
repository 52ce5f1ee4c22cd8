//! What the CustomResourceDefinitions of Kong's kinds have in addition to their schemas: names, columns, deprecations.

use serde_json::Value;

use super::schema::derived_schema;
use crate::api::crd::{self, CrdAttributes, PrinterColumn, age_column, boolean_column, text_column, wide_column};
use crate::api::kind::Kind;

/// The CustomResourceDefinition of a kind. `None` if the kind is not Kong's.
pub(in crate::api) fn definition(kind: Kind) -> Option<Value> {
    crd::definition(kind, derived_schema(kind)?, attributes(kind))
}

fn attributes(kind: Kind) -> CrdAttributes {
    let of_kong = || CrdAttributes { categories: &["kong", "kong-ingress-controller"], ..CrdAttributes::default() };
    let with_short_name = |short_name, columns| CrdAttributes { short_name: Some(short_name), columns, ..of_kong() };
    match kind {
        Kind::KongPlugin => with_short_name("kp", plugin_columns()),
        Kind::KongClusterPlugin => with_short_name("kcp", plugin_columns()),
        Kind::KongConsumer => with_short_name(
            "kc",
            vec![text_column("Username", ".username", "Name of the consumer"), age_column(), programmed_column()],
        ),
        Kind::KongConsumerGroup => with_short_name("kcg", vec![age_column(), programmed_column()]),
        Kind::KongUpstreamPolicy => CrdAttributes {
            // Tools find policies and their attachment by this label (GEP-713).
            labels: &[("gateway.networking.k8s.io/policy", "direct")],
            ..with_short_name("kup", Vec::new())
        },
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
            ..of_kong()
        },
        Kind::UdpIngress => CrdAttributes {
            columns: vec![address_column(), age_column()],
            replacement: Some("use UDPRoute of the Gateway API"),
            ..of_kong()
        },
        Kind::IngressClassParameters => CrdAttributes::default(),
        _ => of_kong(),
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
