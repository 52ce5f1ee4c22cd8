//! Gateway: addresses and the listeners on them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use schemars::transform::Transform;
use serde::Deserialize;
use serde_json::json;

use super::Channel;
use super::gateway_tls::GatewayTls;
use super::listener::{self, AllowedNamespaces, Listener};
use super::reference::LocalObjectReference;
use super::schema::form;
use super::schema::rule::{CelRule, TRUNCATED_KEY, every, rule};
use super::schema::transforms::{Presence, each, experimental, keyed_by};

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
pub struct Gateway {
    pub spec: GatewaySpec,
    /// The controller that has accepted the Gateway, by the status that the API server sent with the object. The store
    /// takes it.
    #[serde(skip)]
    #[schemars(skip)]
    pub accepted_by: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewaySpec {
    #[schemars(transform = form::object_name)]
    pub gateway_class_name: String,
    #[schemars(
        length(min = 1, max = 64),
        transform = keyed_by(["name"]),
        transform = listener::listeners,
        transform = each(filters_need_http()),
    )]
    pub listeners: Vec<Listener>,
    #[serde(default)]
    #[schemars(length(max = 16), transform = unique_addresses("IPAddress"), transform = unique_addresses("Hostname"))]
    pub addresses: Vec<GatewayAddress>,
    pub infrastructure: Option<GatewayInfrastructure>,
    pub allowed_listeners: Option<AllowedListeners>,
    pub tls: Option<GatewayTls>,
    #[schemars(transform = experimental, transform = form::one_of(["All", "None"]))]
    pub default_scope: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = address_rules(Presence::Optional))]
pub struct GatewayAddress {
    #[serde(rename = "type", default = "ip_address")]
    #[schemars(transform = form::text(1, 253, ADDRESS_TYPE))]
    pub kind: String,
    #[schemars(length(max = 253))]
    pub value: Option<String>,
    /// Where the address is reachable from: empty for any, `Cluster`, or a name with a domain prefix.
    #[schemars(transform = experimental, length(max = 253), transform = routability())]
    pub routability: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayInfrastructure {
    #[serde(default)]
    #[schemars(extend("maxProperties" = 8), transform = each(form::label_value), transform = qualified_keys("label"))]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    #[schemars(transform = listener::options, transform = qualified_keys("annotation"))]
    pub annotations: BTreeMap<String, String>,
    pub parameters_ref: Option<LocalObjectReference>,
}

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AllowedListeners {
    #[schemars(transform = listener::allowed_from(["All", "Selector", "Same", "None"], "None"))]
    pub namespaces: Option<AllowedNamespaces>,
}

/// As in the CRDs of the Gateway API: `^` is part of only the first alternative, and `$` of only the last one.
pub(super) const ADDRESS_TYPE: &str =
    concat!("^Hostname|IPAddress|NamedAddress|", form::dns_name!(), r"\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$");

/// Requires addresses that are valid for their type. The field `value` is optional in a spec, and required in a status.
pub(super) fn address_rules(value_presence: Presence) -> impl FnMut(&mut schemars::Schema) {
    move |schema| {
        let absent_or = if value_presence == Presence::Optional { "!has(self.value) || " } else { "" };
        rule(
            format!("self.type != 'Hostname' || {absent_or}self.value.matches(r'{}')", form::WILDCARD_HOSTNAME),
            "the value is not a hostname; write a lowercase DNS name, whose first label may be *",
        )
        .transform(schema);
        schema.insert(
            "oneOf".to_owned(),
            json!([
                { "properties": {
                    "type": { "enum": ["IPAddress"] },
                    "value": { "anyOf": [{ "format": "ipv4" }, { "format": "ipv6" }] },
                } },
                { "properties": { "type": { "not": { "enum": ["IPAddress"] } } } },
            ]),
        );
    }
}

/// Requires an empty value, `Cluster`, or a name with a domain prefix other than k8s.io and its subdomains, which are
/// reserved for Kubernetes.
pub(super) fn routability() -> CelRule {
    rule(
        "self in ['', 'Cluster'] || (self.matches('^[^/]+/.+$') \
         && !format.dns1123Subdomain().validate(self.split('/')[0]).hasValue() \
         && !('.' + self.split('/')[0]).endsWith('.k8s.io'))",
        "not a valid routability; leave it empty, or write Cluster or a name prefixed with your domain, \
         as in example.com/internal",
    )
}

fn unique_addresses(kind: &str) -> CelRule {
    every(
        "address",
        "address.value",
        &format!(
            "address.type != '{kind}' || !has(address.value) \
             || self.filter(other, other.type == '{kind}' && has(other.value) \
             && other.value == address.value).size() == 1"
        ),
        format!("another address of type {kind} has the same value; remove one of them"),
    )
}

fn filters_need_http() -> CelRule {
    rule(
        "self.protocol == 'HTTP' || self.protocol == 'HTTPS' || !has(self.filters)",
        "filters is set but the protocol is not HTTP or HTTPS; remove filters, or use HTTP or HTTPS",
    )
    .only(Channel::Experimental)
}

/// Validates keys of labels and annotations: a name with an optional domain prefix. `noun` is "label" or "annotation".
fn qualified_keys(noun: &'static str) -> impl FnMut(&mut schemars::Schema) {
    move |schema| {
        every(
            "key",
            TRUNCATED_KEY,
            &format!("key.matches(r'{}')", form::QUALIFIED_NAME),
            format!(
                "not a valid {noun} key; write a name of at most 63 letters, digits, '-', '_' or '.', optionally with \
                 the prefix DOMAIN/"
            ),
        )
        .transform(schema);
        every(
            "key",
            TRUNCATED_KEY,
            "key.split('/')[0].size() <= 252",
            format!("the domain of the {noun} key is too long; use at most 252 characters before the '/'"),
        )
        .transform(schema);
    }
}

fn ip_address() -> String {
    "IPAddress".to_owned()
}
