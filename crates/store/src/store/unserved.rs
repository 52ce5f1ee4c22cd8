//! Objects whose kind is validated but not served, reduced to what a verdict needs: their metadata and what they name.

use std::sync::Arc;

use serde_json::Value;

use crate::api::kind::{CORE_GROUP, GATEWAY_GROUP};
use crate::api::{Kind, Meta, ObjectId, ObjectKey};

/// An object whose kind is not served.
#[derive(Clone, Debug, PartialEq)]
pub struct UnservedObject {
    pub kind: Kind,
    pub meta: Meta,
    /// The Gateways and Services that it names, in the order of their fields.
    pub targets: Vec<UnservedTarget>,
    /// `spec.controllerName`.
    pub controller: Option<String>,
}

/// A Gateway or Service that an object of a kind that is not served names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnservedTarget {
    /// The field with the reference: `spec.parentRefs[0]`.
    pub field: String,
    pub target: ObjectId,
}

impl UnservedObject {
    /// Reads what is needed from the object without its metadata. Other fields are not read, so no object is rejected
    /// for a field that has no effect.
    pub(super) fn read(kind: Kind, meta: Meta, object: &Value) -> UnservedObject {
        let spec = &object["spec"];
        let target = |field: String, reference: &Value, default: Option<Kind>| {
            let text = |name: &str| reference[name].as_str();
            let kind = match (text("group"), text("kind"), default) {
                (None | Some(GATEWAY_GROUP), None, Some(default)) => default,
                (group, Some(kind), default) => {
                    let default_group = default.map_or(CORE_GROUP, Kind::group);
                    Kind::find(group.unwrap_or(default_group), kind)
                        .filter(|kind| matches!(kind, Kind::Gateway | Kind::Service))?
                }
                _ => return None,
            };
            let namespace = text("namespace").map_or_else(|| meta.key.namespace.clone(), Arc::from);
            let key = ObjectKey { namespace, name: Arc::from(text("name")?) };
            Some(UnservedTarget { field, target: ObjectId::new(kind, key) })
        };
        // A route whose parent is a Service belongs to a mesh, and so never to Portico.
        let parent = |field: String, reference: &Value| {
            target(field, reference, Some(Kind::Gateway)).filter(|parent| parent.target.kind == Kind::Gateway)
        };
        let list = |name: &str| spec[name].as_array().into_iter().flatten().take(MAX_TARGETS).enumerate();
        let parents =
            list("parentRefs").filter_map(|(index, entry)| parent(format!("spec.parentRefs[{index}]"), entry));
        let only_parent = parent("spec.parentRef".to_owned(), &spec["parentRef"]);
        let policy_targets =
            list("targetRefs").filter_map(|(index, entry)| target(format!("spec.targetRefs[{index}]"), entry, None));
        let targets = parents.chain(only_parent).chain(policy_targets).collect();
        let controller = spec["controllerName"].as_str().map(str::to_owned);
        UnservedObject { kind, targets, controller, meta }
    }
}

/// The largest number of entries that a list of references may have in the Gateway API.
const MAX_TARGETS: usize = 32;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn named_gateways_and_services_are_found() {
        for (spec, expected) in [
            (json!({"parentRefs": [{"name": "g"}]}), vec!["spec.parentRefs[0] Gateway a/g"]),
            (
                json!({"parentRefs": [{"group": "", "kind": "Service", "name": "mesh"},
                    {"kind": "Gateway", "namespace": "b", "name": "g"}]}),
                vec!["spec.parentRefs[1] Gateway b/g"],
            ),
            (json!({"parentRef": {"name": "g"}}), vec!["spec.parentRef Gateway a/g"]),
            (
                json!({"targetRefs": [{"group": "", "kind": "Service", "name": "s"},
                    {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "g"},
                    {"group": "example.com", "kind": "Gateway", "name": "g"}, {"name": "g"}]}),
                vec!["spec.targetRefs[0] Service a/s", "spec.targetRefs[1] Gateway a/g"],
            ),
            (json!({"parentRefs": [{"name": 5}, "g"], "targetRefs": {}}), vec![]),
            (Value::Null, vec![]),
        ] {
            let meta = serde_json::from_value(json!({"namespace": "a", "name": "x"})).unwrap();
            let object = UnservedObject::read(Kind::GrpcRoute, meta, &json!({"spec": spec}));
            let found: Vec<_> =
                object.targets.iter().map(|target| format!("{} {}", target.field, target.target)).collect();
            assert_eq!(found, expected, "{spec}");
        }
        let meta = serde_json::from_value(json!({"name": "x"})).unwrap();
        let mesh = UnservedObject::read(Kind::XMesh, meta, &json!({"spec": {"controllerName": "a/b"}}));
        assert_eq!((mesh.controller.as_deref(), mesh.targets), (Some("a/b"), vec![]));
    }
}
