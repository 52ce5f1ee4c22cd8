//! Which control plane an object is for, and the tags of an entity: what several kinds have below `spec`.

use schemars::transform::Transform;
use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde_json::json;

use crate::api::gateway::schema::form;
use crate::api::gateway::schema::rule::{Rule, rule};
use crate::api::gateway::schema::shape::{each, field};
use crate::api::gateway::schema::union::{member, union};

/// The control plane that an object is for: this controller, unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = by_type)]
pub struct ControlPlaneRef {
    /// `kic` for the controller in this cluster. Objects for the others are left alone.
    #[serde(rename = "type", default = "kic")]
    pub kind: String,
    /// Identifier of a hosted control plane.
    #[serde(rename = "konnectID")]
    #[schemars(regex(pattern = r"^[0-9a-f]{8}(?:\-[0-9a-f]{4}){3}-[0-9a-f]{12}$"))]
    pub konnect_id: Option<String>,
    /// An object of this cluster that stands for a hosted control plane.
    pub konnect_namespaced_ref: Option<KonnectNamespacedRef>,
}

impl ControlPlaneRef {
    /// Whether the object is for the controller in the cluster, and so for us.
    pub fn is_here(&self) -> bool {
        self.kind == KIC
    }
}

const KIC: &str = "kic";

/// An object of this cluster that stands for a hosted control plane.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct KonnectNamespacedRef {
    /// Name of the object.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Namespace of the object.
    pub namespace: Option<String>,
}

/// Each of the other fields goes with one type.
fn by_type(schema: &mut Schema) {
    let field_of = |name| member(name, name);
    union("type", [field_of("konnectID"), field_of("konnectNamespacedRef")])(schema);
    field("type", form::one_of([KIC, "konnectID", "konnectNamespacedRef"])).transform(schema);
}

/// A root whose `spec.controlPlaneRef`, once it is set, stays.
pub(super) fn kept(schema: &mut Schema) {
    let said = |object: &str| format!("(has({object}.spec) && has({object}.spec.controlPlaneRef))");
    let (before, now) = (said("oldSelf"), said("self"));
    stays(format!("!{before} || {now}"), "is gone; it cannot be taken back, write it again").transform(schema);
    let programmed = "has(self.status) && has(self.status.conditions) \
                      && self.status.conditions.exists(c, c.type == 'Programmed' && c.status == 'True')";
    stays(
        format!("!{before} || !{now} || !({programmed}) || oldSelf.spec.controlPlaneRef == self.spec.controlPlaneRef"),
        "was changed after the object was programmed; make another object for another control plane",
    )
    .transform(schema);
}

fn stays(expression: String, message: &str) -> Rule {
    rule(expression, format!("spec.controlPlaneRef {message}"))
}

/// Objects in a namespace refer to their own.
pub(super) fn without_namespace() -> Rule {
    rule(
        "!has(self.controlPlaneRef) || !has(self.controlPlaneRef.konnectNamespacedRef) \
         || !has(self.controlPlaneRef.konnectNamespacedRef.__namespace__)",
        "controlPlaneRef.konnectNamespacedRef has a namespace; remove it, the object's own is meant",
    )
}

/// Tags of an entity.
pub(super) fn tags(schema: &mut Schema) {
    schema.insert("maxItems".to_owned(), json!(20));
    each(|tag: &mut Schema| {
        tag.insert("minLength".to_owned(), json!(1));
        tag.insert("maxLength".to_owned(), json!(128));
    })
    .transform(schema);
}

fn kic() -> String {
    KIC.to_owned()
}
