//! References from one object to another: parents of routes, targets of policies, Secrets, ConfigMaps and parameters.

use schemars::transform::Transform;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};

use super::Channel;
use super::schema::form;
use super::schema::rule::{CelRule, every, in_channel};

/// The Gateway or ListenerSet, and optionally the listener, that a route attaches to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParentReference {
    #[serde(default = "gateway_group")]
    #[schemars(transform = form::group)]
    pub group: String,
    #[serde(default = "gateway_kind")]
    #[schemars(transform = form::kind)]
    pub kind: String,
    #[schemars(transform = form::namespace)]
    pub namespace: Option<String>,
    #[schemars(transform = form::object_name)]
    pub name: String,
    #[schemars(transform = form::section_name)]
    pub section_name: Option<String>,
    #[schemars(transform = form::port)]
    pub port: Option<i32>,
}

/// The scope of a Gateway's `defaultScope` and a route's `useDefaultGateways` with which they attach to each other
/// without a `parentRef` (GEP-3793).
pub const ALL_DEFAULT_GATEWAYS: &str = "All";

impl ParentReference {
    /// A reference to all listeners of a Gateway.
    pub fn of_gateway(namespace: &str, name: &str) -> Self {
        ParentReference {
            group: gateway_group(),
            kind: gateway_kind(),
            namespace: Some(namespace.to_owned()),
            name: name.to_owned(),
            section_name: None,
            port: None,
        }
    }
}

/// A Secret. Another namespace requires a ReferenceGrant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretObjectReference {
    #[serde(default)]
    #[schemars(transform = form::group)]
    pub group: String,
    #[serde(default = "secret_kind")]
    #[schemars(transform = form::kind)]
    pub kind: String,
    #[schemars(transform = form::object_name)]
    pub name: String,
    #[schemars(transform = form::namespace)]
    pub namespace: Option<String>,
}

/// Any object by group, kind, name and optional namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    #[schemars(transform = form::group)]
    pub group: String,
    #[schemars(transform = form::kind)]
    pub kind: String,
    #[schemars(transform = form::object_name)]
    pub name: String,
    #[schemars(transform = form::namespace)]
    pub namespace: Option<String>,
}

/// Any object in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalObjectReference {
    #[schemars(transform = form::group)]
    pub group: String,
    #[schemars(transform = form::kind)]
    pub kind: String,
    #[schemars(transform = form::object_name)]
    pub name: String,
}

/// The target of a policy: an object in the same namespace, or one section of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyTargetReference {
    /// Group of the object; empty for a Service.
    #[schemars(transform = form::group)]
    pub group: String,
    /// Kind of the object.
    #[schemars(transform = form::kind)]
    pub kind: String,
    /// Name of the object.
    #[schemars(transform = form::object_name)]
    pub name: String,
    /// Name of a section of the object, such as a port of a Service.
    #[schemars(transform = form::section_name)]
    pub section_name: Option<String>,
}

/// References to the same parent must differ in the section or, in the experimental channel, in the port.
pub(super) fn parents_differ(schema: &mut Schema) {
    let same = format!("{} && {}", same_object("parent"), equal("parent", "__namespace__", "''"));
    in_channel(Channel::Standard, unique_by("parent", &same, &[SECTION], "sectionName")).transform(schema);
    in_channel(Channel::Experimental, unique_by("parent", &same, &[SECTION, PORT], "sectionName or port"))
        .transform(schema);
}

/// References to the same target must differ in the section.
pub(in crate::api) fn targets_differ(schema: &mut Schema) {
    for mut rule in unique_by("target", &same_object("target"), &[SECTION], "sectionName") {
        rule.transform(schema);
    }
}

/// Expression for references `variable` and `other` with the same group, kind and name.
fn same_object(variable: &str) -> String {
    format!("{variable}.group == other.group && {variable}.kind == other.kind && {variable}.name == other.name")
}

/// A field, and the CEL literal that stands for it if it is absent.
type KeyField = (&'static str, &'static str);
const SECTION: KeyField = ("sectionName", "''");
const PORT: KeyField = ("port", "0");

/// Rules for references to the same object: either all or none of them have the key fields, and the values differ.
/// `entry` is the variable of a reference in the expressions and its noun in the message. `same` is the expression for
/// whether `entry` and `other` refer to the same object. `field_names` are the key fields in words.
fn unique_by(entry: &str, same: &str, key_fields: &[KeyField], field_names: &str) -> [CelRule; 2] {
    let both_or_neither = join_and(key_fields, |(field, absent)| {
        format!("({} == {absent}) == ({} == {absent})", value(entry, field, absent), value("other", field, absent))
    });
    let identical = join_and(key_fields, |(field, absent)| equal(entry, field, absent));
    let name = format!("{entry}.name");
    [
        every(
            entry,
            &name,
            &format!("self.all(other, !({same}) || ({both_or_neither}))"),
            format!(
                "it is referenced with and without {field_names}; set {field_names} in each reference, or keep only one"
            ),
        ),
        every(
            entry,
            &name,
            &format!("self.filter(other, {same} && {identical}).size() == 1"),
            format!("it is referenced twice; remove one of the references, or give each a different {field_names}"),
        ),
    ]
}

fn join_and(key_fields: &[KeyField], expression: impl Fn(&KeyField) -> String) -> String {
    key_fields.iter().map(expression).collect::<Vec<_>>().join(" && ")
}

fn equal(entry: &str, field: &str, absent: &str) -> String {
    format!("{} == {}", value(entry, field, absent), value("other", field, absent))
}

/// Expression for the field of an entry, or `absent` if it is absent.
fn value(entry: &str, field: &str, absent: &str) -> String {
    format!("(has({entry}.{field}) ? {entry}.{field} : {absent})")
}

fn gateway_group() -> String {
    crate::api::kind::GATEWAY_GROUP.to_owned()
}

fn gateway_kind() -> String {
    "Gateway".to_owned()
}

fn secret_kind() -> String {
    "Secret".to_owned()
}
