//! Objects that are larger than an object may be, or nested more deeply. Of such an object, the store keeps only what
//! its refusal needs, so that the objects of a tenant cannot exhaust the memory of the process.

use serde_json::{Map, Value, json};

use super::object::{AnyObject, MalformedObject, OversizedObject, UnparseableObject};
use super::object_size::{NESTED_TOO_DEEPLY, max_object_size, object_size};
use super::reduced_route::{MAX_PARENTS, first_entries, reduced_route};
use crate::api::Kind;
use crate::api::kong::annotations::{GLOBAL_LABEL, HOST_ALIASES, INGRESS_CLASS, PLUGINS, REGEX_PREFIX};

/// What happens to objects that are larger than [`max_object_size`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LargeObjects {
    /// They are reduced to what their refusal needs.
    #[default]
    Reduce,
    /// They are kept, and reported.
    Keep,
}

impl OversizedObject {
    /// Keeps an object as it is.
    pub(super) fn keep(object: AnyObject, size: u64) -> OversizedObject {
        OversizedObject { kind: object.kind(), meta: object.meta().clone(), size, stored: Some(object) }
    }

    /// Reduces an object. `is_complete`: whether `value` has all of the object.
    pub(super) fn reduce(
        kind: Kind,
        value: &Value,
        size: u64,
        is_complete: bool,
    ) -> Result<OversizedObject, MalformedObject> {
        let metadata = reduced_metadata(&value["metadata"]);
        let meta = AnyObject::parse_metadata(kind, metadata.clone())?;
        let mut stored = match reduced_body(kind, value, is_complete) {
            Some(Value::Object(mut object)) => {
                object.insert("metadata".to_owned(), metadata);
                Some(AnyObject::parse(kind, Value::Object(object))?)
            }
            _ => None,
        };
        if kind == Kind::BackendTlsPolicy {
            stored = UnparseableObject::read(kind, value).map(|policy| AnyObject::Unparseable(policy.into()));
        }
        Ok(OversizedObject { kind, meta, size, stored })
    }
}

impl AnyObject {
    /// Parses a complete object (`apiVersion`, `kind`, `metadata`, …) as the given kind.
    pub fn parse_limited(kind: Kind, value: Value, large: LargeObjects) -> Result<AnyObject, MalformedObject> {
        let size = object_size(&value);
        AnyObject::parse_with_size(kind, value, size, large)
    }

    /// Like `parse_limited`, for an object whose size is known. If the object is reduced, `value` may lack parts of it.
    pub fn parse_with_size(
        kind: Kind,
        value: Value,
        size: u64,
        large: LargeObjects,
    ) -> Result<AnyObject, MalformedObject> {
        if size <= max_object_size(kind) {
            return AnyObject::parse(kind, value);
        }
        let oversized = match large {
            // What is nested too deeply is missing in `value`, so there is nothing to keep.
            LargeObjects::Keep if size != NESTED_TOO_DEEPLY => {
                OversizedObject::keep(AnyObject::parse(kind, value)?, size)
            }
            LargeObjects::Keep | LargeObjects::Reduce => {
                OversizedObject::reduce(kind, &value, size, object_size(&value) >= size)?
            }
        };
        Ok(AnyObject::Oversized(oversized.into()))
    }
}

/// The metadata that identifies an object, and the labels and annotations that decide whether it is served, for which
/// hosts, and which paths are regular expressions.
fn reduced_metadata(metadata: &Value) -> Value {
    let mut reduced = Map::new();
    for name in ["name", "namespace", "generation", "creationTimestamp", "resourceVersion"] {
        if let Some(field) = metadata.get(name) {
            reduced.insert(name.to_owned(), field.clone());
        }
    }
    for (name, kept) in [("labels", KEPT_LABELS), ("annotations", KEPT_ANNOTATIONS)] {
        let of_name = |key: &&str| Some(((*key).to_owned(), metadata.get(name)?.get(*key)?.clone()));
        reduced.insert(name.to_owned(), Value::Object(kept.iter().filter_map(of_name).collect()));
    }
    Value::Object(reduced)
}

const KEPT_LABELS: &[&str] = &[GLOBAL_LABEL];
const KEPT_ANNOTATIONS: &[&str] = &[INGRESS_CLASS, PLUGINS, REGEX_PREFIX, HOST_ALIASES];

/// The fields of an object without metadata that its refusal needs. `None` for a kind whose objects are not stored
/// then.
fn reduced_body(kind: Kind, object: &Value, is_complete: bool) -> Option<Value> {
    let spec = &object["spec"];
    Some(match kind {
        // Its requests must not get to a route with fewer restrictions.
        Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute | Kind::UdpRoute | Kind::Ingress => {
            json!({"spec": reduced_route(kind, spec, is_complete)})
        }
        Kind::Gateway => json!({"spec": {"gatewayClassName": spec["gatewayClassName"], "listeners": []}}),
        Kind::ListenerSet => json!({"spec": {"parentRef": spec["parentRef"], "listeners": []}}),
        // References to it must reject requests, instead of being served without it.
        Kind::KongPlugin | Kind::KongClusterPlugin => {
            json!({"plugin": shortened(&object["plugin"]), "disabled": object["disabled"] == true})
        }
        // Its plugins still apply to the consumers that belong to it.
        Kind::KongConsumerGroup => json!({}),
        kind if !kind.is_served() => json!({"spec": {
            "parentRefs": first_entries(&spec["parentRefs"], MAX_PARENTS),
            "targetRefs": first_entries(&spec["targetRefs"], MAX_PARENTS),
        }}),
        _ => return None,
    })
}

/// The start of a text that may be of any length.
fn shortened(text: &Value) -> Value {
    let text = text.as_str().unwrap_or_default();
    Value::from(&text[..text.floor_char_boundary(MAX_PLUGIN_NAME_BYTES)])
}

/// Longer than the name of any plugin.
const MAX_PLUGIN_NAME_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Batch, Store};

    fn parse(kind: Kind, mut object: Value, large: LargeObjects) -> AnyObject {
        object["metadata"] = json!({"namespace": "a", "name": "x", "generation": 7, "labels": {"l": "x".repeat(2 << 20)},
            "annotations": {"konghq.com/plugins": "p", "konghq.com/host-aliases": "h", "konghq.com/methods": "GET"}});
        AnyObject::parse_limited(kind, object, large).unwrap()
    }

    fn oversized(kind: Kind, object: Value) -> OversizedObject {
        let AnyObject::Oversized(object) = parse(kind, object, LargeObjects::Reduce) else {
            panic!("it is not reduced")
        };
        (*object).clone()
    }

    #[test]
    fn routes_keep_what_their_refusal_matches() {
        let entry = json!({"path": {"type": "Exact", "value": "/a"}, "method": "GET", "headers": [{"name": "h", "value": "v"}]});
        let rules = json!([{"matches": [entry], "backendRefs": [{"name": "s", "port": 80}]}]);
        let spec = json!({"parentRefs": [{"name": "g"}], "useDefaultGateways": "All", "hostnames": ["h.example"], "rules": rules});
        let reduced = oversized(Kind::HttpRoute, json!({"spec": spec}));
        assert_eq!((reduced.meta.generation, reduced.meta.labels.len()), (7, 0));
        let annotations: Vec<_> = reduced.meta.annotations.keys().map(|key| &**key).collect();
        assert_eq!(annotations, ["konghq.com/host-aliases", "konghq.com/plugins"]);
        let Some(AnyObject::HttpRoute(route)) = reduced.stored else { panic!("no route is stored") };
        assert_eq!((&*route.spec.hostnames, route.spec.parent_refs.len()), (&["h.example".to_owned()][..], 1));
        assert_eq!(route.spec.use_default_gateways.as_deref(), Some("All"));
        let [rule] = &*route.spec.rules else { panic!("{:?}", route.spec.rules) };
        assert!(rule.backend_refs.is_empty() && rule.matches[0].headers.is_empty());
        assert_eq!(rule.matches[0].path.as_ref().map(|path| &*path.value), Some("/a"));
    }

    #[test]
    fn ingresses_keep_their_first_paths() {
        let rule = |host: &str, paths: Vec<String>| {
            let paths: Vec<_> =
                paths.iter().map(|path| json!({"path": path, "pathType": "Exact", "backend": {}})).collect();
            json!({"host": host, "http": {"paths": paths}})
        };
        let many = (0..2_000).map(|number| format!("/{number}")).collect();
        let rules = json!([rule("a", vec!["/x".to_owned()]), rule("b", vec!["/".repeat(2_000)]), rule("c", many)]);
        let reduced = oversized(Kind::Ingress, json!({"spec": {"ingressClassName": "i", "rules": rules}}));
        let Some(AnyObject::Ingress(ingress)) = reduced.stored else { panic!("no Ingress is stored") };
        let paths = ingress.spec.rules.iter().map(|rule| {
            let paths = &rule.http.as_ref().unwrap().paths;
            (rule.host.as_deref().unwrap(), paths.len(), paths.last().and_then(|path| path.path.as_deref()).unwrap())
        });
        assert_eq!(paths.collect::<Vec<_>>(), [("a", 1, "/x"), ("c", 63, "/62"), ("b", 1, "/"), ("c", 1, "/")]);
        assert_eq!(ingress.spec.ingress_class_name.as_deref(), Some("i"));
    }

    #[test]
    fn other_objects_are_not_stored() {
        let plugin = oversized(Kind::KongPlugin, json!({"plugin": "key-auth", "config": {"a": 1}}));
        let Some(AnyObject::KongPlugin(plugin)) = plugin.stored else { panic!("no KongPlugin is stored") };
        assert_eq!((&*plugin.plugin, &plugin.config), ("key-auth", &None));
        assert_eq!(oversized(Kind::Secret, json!({"data": {"a": "YQ=="}})).stored, None);
        let policy = oversized(Kind::BackendTlsPolicy, json!({"spec": {}})).stored;
        assert!(matches!(policy, Some(AnyObject::Unparseable(_))), "its targets stay protected");
        let kept = parse(Kind::Secret, json!({"data": {"a": "YQ=="}}), LargeObjects::Keep);
        let AnyObject::Oversized(kept) = kept else { panic!("it is not reported") };
        assert!(matches!(&kept.stored, Some(AnyObject::Secret(secret)) if secret.value("a").is_some()));
    }

    #[test]
    fn the_store_has_either_version_of_an_object() {
        let mut store = Store::default();
        let mut apply = |object: AnyObject| {
            let changes = store.apply(Batch { upserts: vec![object], removes: vec![] }).len();
            (changes, store.oversized.len(), store.services.len(), store.objects().count())
        };
        let service = json!({"spec": {"ports": [{"port": 80}]}});
        let normal = json!({"metadata": {"namespace": "a", "name": "x"}, "spec": {}});
        let normal = || AnyObject::parse(Kind::Service, normal.clone()).unwrap();
        let large = || parse(Kind::Service, service.clone(), LargeObjects::Reduce);
        assert_eq!(apply(normal()), (1, 0, 1, 1));
        assert_eq!(apply(large()), (1, 1, 0, 1));
        assert_eq!(apply(large()), (0, 1, 0, 1));
        assert_eq!(apply(parse(Kind::Service, service.clone(), LargeObjects::Keep)), (1, 1, 1, 1));
        assert_eq!(apply(normal()), (1, 0, 1, 1));
        assert_eq!(apply(large()), (1, 1, 0, 1));
        let id = large().id();
        assert_eq!(store.everything().len(), 1);
        assert_eq!(store.apply(Batch { upserts: vec![], removes: vec![id] }).len(), 1);
        assert_eq!((store.oversized.len(), store.objects().count()), (0, 0));
    }
}
