//! The control plane of an object and the tags of an entity, shared by several kinds.

use schemars::transform::Transform;
use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde_json::json;

use crate::api::gateway::schema::form;
use crate::api::gateway::schema::rule::{CelRule, rule};
use crate::api::gateway::schema::transforms::{each, field};
use crate::api::gateway::schema::union::{member, union};

/// The control plane that the object belongs to; this controller by default.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = by_type)]
pub struct ControlPlaneRef {
    /// `kic` for the controller in this cluster. Objects of other control planes are ignored.
    #[serde(rename = "type", default = "kic")]
    pub kind: String,
    /// Identifier of a hosted control plane.
    #[serde(rename = "konnectID")]
    #[schemars(regex(pattern = r"^[0-9a-f]{8}(?:\-[0-9a-f]{4}){3}-[0-9a-f]{12}$"))]
    pub konnect_id: Option<String>,
    /// An object in this cluster that represents a hosted control plane.
    pub konnect_namespaced_ref: Option<KonnectNamespacedRef>,
}

impl ControlPlaneRef {
    /// Whether the object belongs to the controller in the cluster, and therefore to Portico.
    pub fn is_this_controller(&self) -> bool {
        self.kind == KIC
    }
}

const KIC: &str = "kic";

/// An object in this cluster that represents a hosted control plane.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub struct KonnectNamespacedRef {
    /// Name of the object.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Namespace of the object.
    pub namespace: Option<String>,
}

/// Restricts each of the other fields to one type.
fn by_type(schema: &mut Schema) {
    let field_of = |name| member(name, name);
    union("type", [field_of("konnectID"), field_of("konnectNamespacedRef")])(schema);
    field("type", form::one_of([KIC, "konnectID", "konnectNamespacedRef"])).transform(schema);
}

/// Makes `spec.controlPlaneRef` immutable once it is set.
pub(super) fn kept(schema: &mut Schema) {
    let said = |object: &str| format!("(has({object}.spec) && has({object}.spec.controlPlaneRef))");
    let (before, now) = (said("oldSelf"), said("self"));
    control_plane_rule(format!("!{before} || {now}"), "cannot be removed; set it again").transform(schema);
    let programmed = "has(self.status) && has(self.status.conditions) \
                      && self.status.conditions.exists(c, c.type == 'Programmed' && c.status == 'True')";
    control_plane_rule(
        format!("!{before} || !{now} || !({programmed}) || oldSelf.spec.controlPlaneRef == self.spec.controlPlaneRef"),
        "is immutable once the object is programmed; create another object for another control plane",
    )
    .transform(schema);
}

fn control_plane_rule(expression: String, message: &str) -> CelRule {
    rule(expression, format!("spec.controlPlaneRef {message}"))
}

/// Namespaced objects refer to their own namespace only.
pub(super) fn without_namespace() -> CelRule {
    rule(
        "!has(self.controlPlaneRef) || !has(self.controlPlaneRef.konnectNamespacedRef) \
         || !has(self.controlPlaneRef.konnectNamespacedRef.__namespace__)",
        "controlPlaneRef.konnectNamespacedRef has a namespace; remove it, the namespace of the object is used",
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
