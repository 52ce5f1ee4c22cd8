//! Listeners of a Gateway or ListenerSet: port, protocol, certificates and allowed routes.

use std::collections::BTreeMap;

use schemars::transform::Transform;
use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde_json::{Value, json};

use super::external_auth::ExternalAuth;
use super::label_selector::LabelSelector;
use super::reference::{LocalObjectReference, SecretObjectReference};
use super::schema::form;
use super::schema::rule::{every, rule};
use super::schema::transforms::{each, experimental, field};
use super::schema::union::{member, union};

/// A port with an optional hostname. Shared with ListenerSet.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    #[schemars(transform = form::section_name)]
    pub name: String,
    #[schemars(transform = form::hostname)]
    pub hostname: Option<String>,
    #[schemars(transform = form::port)]
    pub port: i32,
    /// HTTP, HTTPS, TLS, TCP, UDP, or a name with a domain prefix.
    #[schemars(transform = form::text(1, 255, PROTOCOL))]
    pub protocol: String,
    pub tls: Option<ListenerTls>,
    #[schemars(extend("default" = { "namespaces": { "from": "Same" } }))]
    pub allowed_routes: Option<AllowedRoutes>,
    #[schemars(transform = experimental)]
    pub filters: Option<ListenerFilters>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = rule(
    "self.mode != 'Terminate' || (has(self.certificateRefs) && self.certificateRefs.size() > 0) \
     || (has(self.options) && self.options.size() > 0)",
    "TLS is terminated but no certificate is set; add certificateRefs, or set mode to Passthrough",
))]
pub struct ListenerTls {
    #[serde(default = "terminate")]
    #[schemars(transform = form::one_of(["Terminate", "Passthrough"]))]
    pub mode: String,
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub certificate_refs: Vec<SecretObjectReference>,
    #[serde(default)]
    #[schemars(transform = options)]
    pub options: BTreeMap<String, String>,
}

/// Routes that may attach to a listener.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllowedRoutes {
    #[schemars(transform = allowed_from(["All", "Selector", "Same"], "Same"))]
    pub namespaces: Option<AllowedNamespaces>,
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub kinds: Vec<RouteGroupKind>,
}

/// `from` is `All`, `Same`, `Selector` (with `selector` set) or, in `AllowedListeners`, `None`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllowedNamespaces {
    pub from: Option<String>,
    pub selector: Option<LabelSelector>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteGroupKind {
    #[serde(default = "gateway_group")]
    #[schemars(transform = form::group)]
    pub group: String,
    #[schemars(transform = form::kind)]
    pub kind: String,
}

/// Filters that run before routing, so that their changes affect the choice of the route.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenerFilters {
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub requests: Vec<ListenerFilter>,
}

/// `kind` determines which other field is set.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = union("type", [
    member("ExternalAuth", "externalAuth"),
    member("ExtensionRef", "extensionRef"),
]))]
pub struct ListenerFilter {
    #[serde(rename = "type")]
    pub kind: String,
    pub external_auth: Option<ExternalAuth>,
    pub extension_ref: Option<LocalObjectReference>,
}

/// As in the CRDs of the Gateway API, where the second alternative has no `^`.
const PROTOCOL: &str = concat!("^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$|", form::dns_name!(), r"\/[A-Za-z0-9]+$");

/// Adds the rules for a list of listeners.
pub(super) fn listeners(schema: &mut Schema) {
    for (holds, message) in LISTENER_RULES {
        every("listener", "listener.name", holds, *message).transform(schema);
    }
}

const LISTENER_RULES: &[(&str, &str)] = &[
    (
        "!has(listener.tls) || !(listener.protocol in ['HTTP', 'TCP', 'UDP'])",
        "tls is set but the protocol is HTTP, TCP or UDP; remove tls, or use protocol HTTPS or TLS",
    ),
    (
        "listener.protocol != 'HTTPS' || !has(listener.tls) || listener.tls.mode in ['', 'Terminate']",
        "HTTPS cannot be passed through; set tls.mode to Terminate, or use protocol TLS",
    ),
    (
        "listener.protocol != 'TLS' || (has(listener.tls) && has(listener.tls.mode) && listener.tls.mode != '')",
        "protocol TLS needs tls.mode; set it to Terminate or Passthrough",
    ),
    (
        "!(listener.protocol in ['TCP', 'UDP']) || !has(listener.hostname) || listener.hostname == ''",
        "hostname is set but protocols TCP and UDP have no hostname; remove it",
    ),
    (
        "self.filter(other, other.name == listener.name).size() == 1",
        "another listener has the same name; give each listener a unique name",
    ),
    (
        "self.filter(other, other.port == listener.port && other.protocol == listener.protocol \
         && (has(other.hostname) ? other.hostname : '') \
         == (has(listener.hostname) ? listener.hostname : '')).size() == 1",
        "another listener has the same port, protocol and hostname; change the hostname or the port of one",
    ),
];

/// Limits the number of entries of a map, and the length of its values. The values may be any text.
pub(super) fn options(schema: &mut Schema) {
    schema.insert("maxProperties".to_owned(), json!(16));
    each(|value: &mut Schema| {
        value.insert("minLength".to_owned(), json!(0));
        value.insert("maxLength".to_owned(), json!(4096));
    })
    .transform(schema);
}

/// Sets the allowed values of `from` in [`AllowedNamespaces`], and its default.
pub(super) fn allowed_from<const N: usize>(
    values: [&'static str; N],
    default: &'static str,
) -> impl FnMut(&mut Schema) {
    move |schema| {
        schema.insert("default".to_owned(), json!({ "from": default }));
        field("from", |from: &mut Schema| {
            from.insert("default".to_owned(), Value::from(default));
            form::one_of(values)(from);
        })
        .transform(schema);
    }
}

fn terminate() -> String {
    "Terminate".to_owned()
}

fn gateway_group() -> String {
    crate::api::kind::GATEWAY_GROUP.to_owned()
}
