//! References from one object to another: parents of routes, targets of policies, Secrets, ConfigMaps and parameters.

use schemars::transform::Transform;
use schemars::{JsonSchema, Schema};
use serde::Deserialize;

use super::Channel;
use super::schema::form;
use super::schema::rule::{Rule, every, in_channel};

/// Which Gateway or ListenerSet, and which of its listeners, a route wants to attach to.
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

/// A Secret, in the same namespace unless a ReferenceGrant allows another.
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

/// Any object by group, kind and name; the namespace, if any, is given.
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

/// Any object of the same namespace.
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

/// What a policy is about: an object of its own namespace, or one section of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyTargetReference {
    #[schemars(transform = form::group)]
    pub group: String,
    #[schemars(transform = form::kind)]
    pub kind: String,
    #[schemars(transform = form::object_name)]
    pub name: String,
    #[schemars(transform = form::section_name)]
    pub section_name: Option<String>,
}

/// Several references to one parent are told apart by the section, or, in the experimental channel, by the port.
pub(super) fn parents_differ(schema: &mut Schema) {
    let same = format!("{} && {}", same_object("parent"), equal("parent", "__namespace__", "''"));
    in_channel(Channel::Standard, told_apart("parent", &same, &[SECTION], "sectionName")).transform(schema);
    in_channel(Channel::Experimental, told_apart("parent", &same, &[SECTION, PORT], "sectionName or port"))
        .transform(schema);
}

/// Several references to one target are told apart by the section.
pub(super) fn targets_differ(schema: &mut Schema) {
    for mut rule in told_apart("target", &same_object("target"), &[SECTION], "sectionName") {
        rule.transform(schema);
    }
}

fn same_object(one: &str) -> String {
    format!("{one}.group == other.group && {one}.kind == other.kind && {one}.name == other.name")
}

/// A field and what it counts as when it is absent.
type Part = (&'static str, &'static str);
const SECTION: Part = ("sectionName", "''");
const PORT: Part = ("port", "0");

/// `what` is the reference in the expressions too.
fn told_apart(what: &str, same: &str, by: &[Part], named: &str) -> [Rule; 2] {
    let both_or_neither = join(by, |(field, absent)| {
        format!("({} == {absent}) == ({} == {absent})", value(what, field, absent), value("other", field, absent))
    });
    let identical = join(by, |(field, absent)| equal(what, field, absent));
    let name = format!("{what}.name");
    [
        every(
            what,
            &name,
            &format!("self.all(other, !({same}) || ({both_or_neither}))"),
            format!("it is named once with {named} and once without; give each reference to it one, or name it once"),
        ),
        every(
            what,
            &name,
            &format!("self.filter(other, {same} && {identical}).size() == 1"),
            format!("it is named twice alike; remove one of the references, or give each another {named}"),
        ),
    ]
}

fn join(parts: &[Part], write: impl Fn(&Part) -> String) -> String {
    parts.iter().map(write).collect::<Vec<_>>().join(" && ")
}

fn equal(one: &str, field: &str, absent: &str) -> String {
    format!("{} == {}", value(one, field, absent), value("other", field, absent))
}

/// The field of an entry, or what stands for it when it is absent.
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
