//! Fields that several kinds share: the control plane of an object, and its tags.

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
#[schemars(transform = fields_by_type)]
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

/// Allows each field other than `type` for one type only, and requires it there.
fn fields_by_type(schema: &mut Schema) {
    let field_of = |name| member(name, name);
    union("type", [field_of("konnectID"), field_of("konnectNamespacedRef")])(schema);
    // `kic` has no field and is therefore not a member of the union.
    field("type", form::one_of([KIC, "konnectID", "konnectNamespacedRef"])).transform(schema);
}

/// Rejects the removal of `spec.controlPlaneRef`, and its change once the object is programmed.
pub(super) fn immutable_when_programmed(schema: &mut Schema) {
    let is_set = |object: &str| format!("(has({object}.spec) && has({object}.spec.controlPlaneRef))");
    let (was_set, stays_set) = (is_set("oldSelf"), is_set("self"));
    control_plane_rule(format!("!{was_set} || {stays_set}"), "cannot be removed; keep it").transform(schema);
    let programmed = "has(self.status) && has(self.status.conditions) \
                      && self.status.conditions.exists(c, c.type == 'Programmed' && c.status == 'True')";
    control_plane_rule(
        format!(
            "!{was_set} || !{stays_set} || !({programmed}) \
             || oldSelf.spec.controlPlaneRef == self.spec.controlPlaneRef"
        ),
        "is immutable once the object is programmed; create another object for another control plane",
    )
    .transform(schema);
}

fn control_plane_rule(expression: String, message: &str) -> CelRule {
    rule(expression, format!("spec.controlPlaneRef {message}"))
}

/// Rejects a namespace in the reference of a namespaced object, which is always to the object's own namespace.
pub(super) fn without_namespace() -> CelRule {
    rule(
        "!has(self.controlPlaneRef) || !has(self.controlPlaneRef.konnectNamespacedRef) \
         || !has(self.controlPlaneRef.konnectNamespacedRef.__namespace__)",
        "controlPlaneRef.konnectNamespacedRef has a namespace; remove it, the namespace of the object is used",
    )
}

/// Limits the number and the length of tags.
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
