//! Objects that are larger than an object may be, or nested more deeply. Of such an object, the store keeps only what
//! its refusal needs, so that the objects of a tenant cannot exhaust the memory of the process.

use serde_json::{Map, Value, json};

use super::object::{AnyObject, MalformedObject, OversizedObject, UnparseableObject};
use super::object_size::{NESTED_TOO_DEEPLY, max_object_size, object_size};
use super::reduced_route::{MAX_PARENTS, entries, first_entries, reduced_route};
use super::unparseable::MAX_TARGETS;
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
        OversizedObject { kind: object.kind(), meta: object.meta().clone(), size, is_whole: true, stored: Some(object) }
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
        let stored = match reduced_body(kind, value, is_complete) {
            Some(Value::Object(mut object)) => {
                object.insert("metadata".to_owned(), metadata);
                Some(AnyObject::parse(kind, Value::Object(object))?)
            }
            _ if kind == Kind::BackendTlsPolicy => {
                let targets = reduced_targets(&value["spec"]["targetRefs"], is_complete);
                let policy = json!({"metadata": metadata, "spec": {"targetRefs": targets}});
                UnparseableObject::read(kind, &policy).map(|policy| AnyObject::Unparseable(policy.into()))
            }
            _ => None,
        };
        Ok(OversizedObject { kind, meta, size, is_whole: false, stored })
    }
}

impl UnparseableObject {
    /// What is left of an object of this size that failed to parse. `value` may lack parts of an object that is larger
    /// than an object may be.
    pub fn read_with_size(kind: Kind, value: &Value, size: u64) -> Option<UnparseableObject> {
        if size <= max_object_size(kind) {
            return UnparseableObject::read(kind, value);
        }
        let mut reduced = value.clone();
        reduced["metadata"] = reduced_metadata(&value["metadata"]);
        if kind == Kind::BackendTlsPolicy {
            let targets = reduced_targets(&value["spec"]["targetRefs"], object_size(value) >= size);
            reduced["spec"] = json!({"targetRefs": targets});
        }
        UnparseableObject::read_part(kind, &reduced, object_size(value) >= size)
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
        let map = match metadata.get(name) {
            None | Some(Value::Null | Value::Object(_)) => Value::Object(kept.iter().filter_map(of_name).collect()),
            // It stays one that cannot be read.
            Some(_) => json!([]),
        };
        reduced.insert(name.to_owned(), map);
    }
    Value::Object(reduced)
}

/// The targets of a BackendTLSPolicy. `Null`, which stands for all Services of its namespace, if some may be missing.
fn reduced_targets(targets: &Value, is_complete: bool) -> Value {
    let is_kept = is_complete && entries(targets).len() <= MAX_TARGETS && object_size(targets) <= MAX_TARGETS_SIZE;
    if is_kept { targets.clone() } else { Value::Null }
}

/// The size of so many targets whose names have the maximum length.
const MAX_TARGETS_SIZE: u64 = 32 << 10;

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

    /// The labels may take as much memory as the object, and a list that was cut off is not all of the targets.
    #[test]
    fn policies_protect_all_services_if_targets_may_be_missing() {
        let target = |number: usize| json!({"group": "", "kind": "Service", "name": format!("s{number}")});
        let object = |count: usize| {
            let metadata = json!({"namespace": "a", "name": "x", "labels": {"l": "x".repeat(2 << 20)}});
            json!({"metadata": metadata, "spec": {"targetRefs": (0..count).map(target).collect::<Vec<_>>()}})
        };
        let kind = Kind::BackendTlsPolicy;
        for (count, is_complete, expected) in
            [(2, true, Some(2)), (2, false, None), (16, true, Some(16)), (17, true, None)]
        {
            let (value, what) = (object(count), format!("{count} {is_complete}"));
            let size = object_size(&value) + u64::from(!is_complete);
            let oversized = AnyObject::parse_with_size(kind, value.clone(), size, LargeObjects::Reduce).unwrap();
            let AnyObject::Oversized(oversized) = oversized else { panic!("it is not reduced") };
            let Some(AnyObject::Unparseable(policy)) = &oversized.stored else { panic!("no policy is stored") };
            let malformed = UnparseableObject::read_with_size(kind, &value, size).unwrap();
            for policy in [&**policy, &malformed] {
                assert_eq!(policy.targets.as_ref().map(Vec::len), expected, "{what}");
                assert_eq!(policy.meta.labels.len(), 0, "{what}");
            }
        }
    }

    /// What was cut off may be a path of the host.
    #[test]
    fn malformed_parts_of_routes_refuse_all_requests_to_their_hosts() {
        let rules = json!([{"matches": [{"path": {"value": "/a"}, "headers": 5}]}]);
        let spec = json!({"parentRefs": [{"name": "g"}], "hostnames": ["h.example"], "rules": rules});
        let labels = json!({"l": "x".repeat(2 << 20)});
        let object = json!({"metadata": {"namespace": "a", "name": "x", "labels": labels}, "spec": spec});
        let size = object_size(&object);
        for (size, expected) in [(size, 1), (size + 1, 2), (NESTED_TOO_DEEPLY, 2)] {
            let read = UnparseableObject::read_with_size(Kind::HttpRoute, &object, size).unwrap();
            let Some(AnyObject::HttpRoute(route)) = read.stored else { panic!("no route is stored") };
            assert_eq!((route.spec.rules.len(), route.meta.labels.len()), (expected, 0), "{size}");
        }
    }

    /// What is left of a plugin counted as its last valid version, and the plugin ran with its defaults.
    #[test]
    fn oversized_objects_have_no_last_valid_version() {
        let plugin =
            |disabled: Value| json!({"plugin": "key-auth", "config": {"key_names": ["k"]}, "disabled": disabled});
        let oversized = |large: LargeObjects| parse(Kind::KongPlugin, plugin(json!(false)), large);
        let with_name = |disabled: Value| {
            let mut object = plugin(disabled);
            object["metadata"] = json!({"namespace": "a", "name": "x"});
            object
        };
        let rejected = || {
            let rest = UnparseableObject::read(Kind::KongPlugin, &with_name(json!("no"))).unwrap();
            AnyObject::Unparseable(rest.into())
        };
        let valid = || AnyObject::parse(Kind::KongPlugin, with_name(json!(false))).unwrap();
        let id = valid().id();
        let mut store = Store::default();
        let mut apply = |object: AnyObject| {
            let changes = store.apply(Batch { upserts: vec![object], removes: vec![] }).len();
            let has_config = store.kong_plugins.values().any(|plugin| plugin.config.is_some());
            (changes, store.oversized.len(), store.is_rejected(&id), has_config)
        };
        assert_eq!(apply(oversized(LargeObjects::Reduce)), (1, 1, false, false));
        assert_eq!(apply(rejected()), (1, 0, true, false));
        assert_eq!(apply(valid()), (1, 0, false, true));
        // An object that is kept as a whole is valid.
        assert_eq!(apply(oversized(LargeObjects::Keep)), (1, 1, false, true));
        assert_eq!(apply(rejected()), (0, 1, false, true));
        assert_eq!(apply(valid()), (1, 0, false, true));
    }

    /// A list of all objects repeats those that did not change.
    #[test]
    fn oversized_policies_stay_protected_when_they_are_listed_again() {
        let policy = || parse(Kind::BackendTlsPolicy, json!({"spec": {"targetRefs": []}}), LargeObjects::Reduce);
        let mut store = Store::default();
        for changes in [1, 0] {
            assert_eq!(store.apply(Batch { upserts: vec![policy()], removes: vec![] }).len(), changes);
            assert_eq!((store.oversized.len(), store.unparseable.len()), (1, 1));
        }
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
