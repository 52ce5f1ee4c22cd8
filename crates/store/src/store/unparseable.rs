//! Objects that cannot be read as their kind, and of which no valid version is known. An object that protects requests
//! still does: the store has what is left of it, read leniently, so that what it protects fails closed instead of being
//! served without it.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::object::{AnyObject, UnparseableObject};
use super::readable_route::readable_route;
use crate::api::gateway::PolicyTargetReference;
use crate::api::kong::annotations::{GLOBAL_LABEL, INGRESS_CLASS, PLUGINS};
use crate::api::{Kind, Meta, ObjectKey};

/// Whether an object of this kind restricts requests or limits their effect, or takes requests from other objects that
/// may have fewer restrictions. Objects of the other kinds only add what is served: without them, a request gets an
/// error.
pub fn protects(kind: Kind) -> bool {
    match kind {
        Kind::KongPlugin
        | Kind::KongClusterPlugin
        | Kind::KongConsumer
        | Kind::KongConsumerGroup
        | Kind::BackendTlsPolicy
        | Kind::BackendPolicy
        | Kind::XBackendTrafficPolicy
        | Kind::HttpRoute
        | Kind::GrpcRoute
        | Kind::TlsRoute
        | Kind::TcpRoute
        | Kind::UdpRoute
        | Kind::Ingress
        | Kind::IngressClassParameters => true,
        Kind::GatewayClass
        | Kind::Gateway
        | Kind::ListenerSet
        | Kind::ReferenceGrant
        | Kind::XBackend
        | Kind::XMesh
        | Kind::XTelemetryPolicy
        | Kind::GatewayParameters
        | Kind::IngressClass
        | Kind::KongUpstreamPolicy
        | Kind::KongIngress
        | Kind::KongVault
        | Kind::KongLicense
        | Kind::KongServiceFacade
        | Kind::TcpIngress
        | Kind::UdpIngress
        | Kind::Service
        | Kind::EndpointSlice
        | Kind::Secret
        | Kind::ConfigMap
        | Kind::Namespace
        | Kind::ClusterTrustBundle => false,
        // An entity with errors is left out, as one that does not exist.
        Kind::KongCustomEntity => false,
    }
}

impl UnparseableObject {
    /// What is left of an object that failed to parse. `None` if its namespace cannot be read, or if it has no name and
    /// protects nothing.
    pub fn read(kind: Kind, object: &Value) -> Option<UnparseableObject> {
        UnparseableObject::read_part(kind, object, true)
    }

    /// The same. `is_complete`: whether `object` has all of the object.
    pub(super) fn read_part(kind: Kind, object: &Value, is_complete: bool) -> Option<UnparseableObject> {
        let metadata = readable_metadata(kind, object)?;
        let annotations = metadata_field(object, "annotations");
        let has_unknown_class = is_unreadable(annotations, INGRESS_CLASS);
        let has_unknown_plugins = kind == Kind::KongConsumerGroup && is_unreadable(annotations, PLUGINS);
        let meta = AnyObject::parse_metadata(kind, metadata.clone()).ok()?;
        let reader = ReadableParts { kind, metadata: &metadata, is_complete };
        let stored = protects(kind).then(|| reader.reduced(object)).flatten();
        let targets = if kind == Kind::BackendTlsPolicy { all_targets(&object["spec"]) } else { None };
        Some(UnparseableObject { kind, meta, has_unknown_class, has_unknown_plugins, stored, targets })
    }

    /// An object of which only the key matters, since it protects nothing.
    pub fn of_key(kind: Kind, key: ObjectKey, generation: i64) -> UnparseableObject {
        let meta = Meta { generation, ..Meta::new(key) };
        UnparseableObject {
            kind,
            meta,
            has_unknown_class: false,
            has_unknown_plugins: false,
            stored: None,
            targets: None,
        }
    }
}

/// The targets of a policy. `None` if one of them cannot be read, or there are none, which is invalid, too.
fn all_targets(spec: &Value) -> Option<Vec<PolicyTargetReference>> {
    let parse = |target: &Value| PolicyTargetReference::deserialize(target).ok();
    let targets = spec["targetRefs"].as_array().and_then(|targets| targets.iter().map(parse).collect());
    targets.filter(|targets: &Vec<_>| !targets.is_empty())
}

/// The metadata that can be read. Numbers and booleans are taken for texts whose quotes are missing. `None` if the
/// namespace cannot be read, because the object must not affect another one, or if there is no name and none is needed.
fn readable_metadata(kind: Kind, object: &Value) -> Option<Value> {
    let metadata = &object["metadata"];
    let mut readable = Map::new();
    let name = text(&metadata["name"]).filter(|name| !name.is_empty());
    let name = name.or_else(|| protects(kind).then(|| substitute_name(object)))?;
    readable.insert("name".to_owned(), name.into());
    if kind.namespaced() {
        let namespace = match metadata_field(object, "namespace") {
            Value::Null => String::new(),
            namespace => text(namespace)?,
        };
        let namespace = if namespace.is_empty() { "default".to_owned() } else { namespace };
        readable.insert("namespace".to_owned(), namespace.into());
    }
    readable.insert("generation".to_owned(), metadata["generation"].as_i64().unwrap_or_default().into());
    let created = metadata["creationTimestamp"].as_str().filter(|time| time.parse::<jiff::Timestamp>().is_ok());
    readable.insert("creationTimestamp".to_owned(), created.into());
    let mut labels = texts(&metadata["labels"]);
    if kind == Kind::KongClusterPlugin && is_unreadable(metadata_field(object, "labels"), GLOBAL_LABEL) {
        labels.insert(GLOBAL_LABEL.to_owned(), "true".into());
    }
    readable.insert("labels".to_owned(), Value::Object(labels));
    readable.insert("annotations".to_owned(), Value::Object(texts(&metadata["annotations"])));
    Some(Value::Object(readable))
}

/// A field of the metadata. If the metadata is no map, none of its fields can be read.
fn metadata_field<'o>(object: &'o Value, name: &str) -> &'o Value {
    static UNREADABLE: Value = Value::Array(Vec::new());
    match &object["metadata"] {
        metadata @ (Value::Object(_) | Value::Null) => &metadata[name],
        _ => &UNREADABLE,
    }
}

/// The name of an object without a valid one. It differs from the names of others, and no reference leads to it.
fn substitute_name(object: &Value) -> String {
    let mut hasher = DefaultHasher::new();
    object.to_string().hash(&mut hasher);
    format!("(unnamed {:016x})", hasher.finish())
}

/// The text of a scalar.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The entries of a map that can be read.
fn texts(map: &Value) -> Map<String, Value> {
    let entries = map.as_object().into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), text(value)?.into()))).collect()
}

/// Whether the map, or its entry with this key, is something else than a text.
fn is_unreadable(map: &Value, key: &str) -> bool {
    let is_other = |value: &Value| matches!(value, Value::Array(_) | Value::Object(_));
    match map {
        Value::Null => false,
        Value::Object(entries) => entries.get(key).is_some_and(is_other),
        _ => true,
    }
}

/// Reads the parts of one object.
struct ReadableParts<'a> {
    kind: Kind,
    metadata: &'a Value,
    is_complete: bool,
}

impl ReadableParts<'_> {
    /// What takes the place of the object.
    fn reduced(&self, object: &Value) -> Option<AnyObject> {
        let spec = &object["spec"];
        match self.kind {
            Kind::KongPlugin | Kind::KongClusterPlugin => {
                // A name that is no text is not one of a plugin.
                let plugin = object["plugin"].as_str().unwrap_or_default();
                let body = json!({"plugin": plugin, "disabled": object["disabled"] == true});
                // With a part of the list, the plugin would protect fewer requests.
                let names: &[&str] = if self.is_complete { &["protocols"] } else { &[] };
                self.with_readable(body, &[], object, names)
            }
            // Without credentials: it does not identify clients, but requests of it must not be taken for others.
            Kind::KongConsumer => {
                let names = ["username", "custom_id"].map(|name| (name.to_owned(), text(&object[name]).into()));
                let body = Value::Object(names.into_iter().collect());
                self.with_readable(body, &[], object, &["consumerGroups", "spec"])
            }
            Kind::KongConsumerGroup => self.with_readable(json!({}), &[], object, &["spec"]),
            // Blocks that can be read stay in effect, and one that cannot be has none, like one with an invalid value.
            Kind::BackendPolicy => {
                let body = json!({"spec": {"targetRefs": self.readable_targets(spec), "mode": readable_mode(spec)}});
                self.with_readable(body, &["spec"], spec, BACKEND_POLICY_BLOCKS)
            }
            Kind::XBackendTrafficPolicy => {
                let body = json!({"spec": {"targetRefs": self.readable_targets(spec)}});
                self.with_readable(body, &["spec"], spec, &["retryConstraint", "sessionPersistence"])
            }
            // Settings that cannot be read have their defaults.
            Kind::IngressClassParameters => {
                self.with_readable(json!({"spec": {}}), &["spec"], spec, INGRESS_CLASS_SETTINGS)
            }
            Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute | Kind::UdpRoute | Kind::Ingress => {
                self.parse(&json!({"spec": readable_route(self.kind, spec, self.is_complete)?}))
            }
            _ => None,
        }
    }

    /// The body with those of the named fields of `from` with which it can be parsed.
    fn with_readable(&self, mut body: Value, path: &[&str], from: &Value, names: &[&str]) -> Option<AnyObject> {
        let mut parsed = self.parse(&body);
        for name in names {
            let Some(field) = from.get(name) else { continue };
            let mut extended = body.clone();
            let parent = path.iter().fold(&mut extended, |value, name| &mut value[*name]);
            parent[*name] = field.clone();
            if let Some(object) = self.parse(&extended) {
                (body, parsed) = (extended, Some(object));
            }
        }
        parsed
    }

    fn parse(&self, body: &Value) -> Option<AnyObject> {
        let mut object = body.clone();
        object["metadata"] = self.metadata.clone();
        AnyObject::parse(self.kind, object).ok()
    }

    /// The targets of a policy that can be read, each on its own.
    fn readable_targets(&self, spec: &Value) -> Vec<Value> {
        let targets = spec["targetRefs"].as_array().into_iter().flatten().take(MAX_TARGETS);
        let is_readable = |target: &&Value| self.parse(&json!({"spec": {"targetRefs": [(*target).clone()]}})).is_some();
        targets.filter(is_readable).cloned().collect()
    }
}

/// The limits are enforced, unless the text is `DryRun` in another spelling.
fn readable_mode(spec: &Value) -> &'static str {
    let mode = spec["mode"].as_str().unwrap_or_default();
    let letters: String = mode.chars().filter(|letter| !matches!(letter, '-' | '_' | ' ')).collect();
    if letters.eq_ignore_ascii_case("DryRun") { "DryRun" } else { "Enforce" }
}

const INGRESS_CLASS_SETTINGS: &[&str] = &["serviceUpstream", "enableLegacyRegexDetection"];

const BACKEND_POLICY_BLOCKS: &[&str] =
    &["loadBalancing", "health", "limits", "circuitBreaker", "retry", "retryBudget", "timeouts", "failover", "subsets"];

/// The maximum number of targets of a policy.
pub(super) const MAX_TARGETS: usize = 16;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::api::ObjectId;
    use crate::store::{Batch, Store};

    fn read(kind: Kind, object: Value) -> UnparseableObject {
        UnparseableObject::read(kind, &object).unwrap()
    }

    /// What takes the place of an object without a single valid field.
    #[test]
    fn every_protecting_kind_keeps_protecting() {
        for kind in Kind::ALL.iter().copied() {
            let object = json!({"metadata": {"name": "x", "labels": 5}, "spec": 5, "plugin": [], "username": {}});
            let UnparseableObject { stored, targets, .. } = read(kind, object);
            // All Services of its namespace are the targets of the policy, and such a route names no requests.
            let has_rest = stored.is_some() || kind == Kind::BackendTlsPolicy;
            let is_route = matches!(
                kind,
                Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute | Kind::UdpRoute | Kind::Ingress
            );
            assert_eq!((has_rest, targets), (protects(kind) && !is_route, None), "{kind}");
        }
    }

    #[test]
    fn routes_keep_the_requests_that_they_name() {
        let rules = json!([{"matches": [{"path": {"value": "/admin"}, "method": 5}], "filters": "x"}]);
        let spec = json!({"parentRefs": [{"name": "g"}], "hostnames": ["a.example"], "rules": rules});
        let Some(AnyObject::HttpRoute(route)) =
            read(Kind::HttpRoute, json!({"metadata": {"name": "x"}, "spec": spec})).stored
        else {
            panic!("no route is stored")
        };
        assert_eq!((&*route.spec.hostnames, route.spec.parent_refs.len()), (&["a.example".to_owned()][..], 1));
        assert_eq!(route.spec.rules[0].matches[0].path.as_ref().map(|path| &*path.value), Some("/admin"));
        let tls = json!({"parentRefs": [{"name": "g"}], "hostnames": ["a.example"], "rules": 5});
        let stored = read(Kind::TlsRoute, json!({"metadata": {"name": "x"}, "spec": tls})).stored;
        assert!(matches!(stored, Some(AnyObject::TlsRoute(route)) if route.spec.rules.is_empty()));
        // All connections or datagrams of the listener. A field that these kinds do not have changes nothing.
        let stream = json!({"metadata": {"name": "x"},
            "spec": {"parentRefs": [{"name": "g"}], "hostnames": 5, "rules": [{"backendRefs": 5}]}});
        let stored = read(Kind::TcpRoute, stream.clone()).stored;
        assert!(matches!(stored, Some(AnyObject::TcpRoute(route)) if route.spec.parent_refs.len() == 1));
        let stored = read(Kind::UdpRoute, stream).stored;
        assert!(matches!(stored, Some(AnyObject::UdpRoute(route)) if route.spec.parent_refs.len() == 1));
        let calls = json!({"parentRefs": [{"name": "g"}], "rules": [{"matches": [{"method": {"service": "s"}}, 5]}]});
        let stored = read(Kind::GrpcRoute, json!({"metadata": {"name": "x"}, "spec": calls})).stored;
        assert!(matches!(stored, Some(AnyObject::GrpcRoute(route)) if route.spec.rules[0].matches.len() == 2));
        let ingress = json!({"rules": [{"host": "a", "http": {"paths": [{"path": "/admin", "pathType": 5}]}}]});
        let stored = read(Kind::Ingress, json!({"metadata": {"name": "x"}, "spec": ingress})).stored;
        assert!(matches!(stored, Some(AnyObject::Ingress(ingress)) if ingress.spec.rules.len() == 1));
    }

    #[test]
    fn metadata_is_read_leniently() {
        let metadata = json!({"name": 7, "namespace": true, "generation": "x", "creationTimestamp": "yesterday",
            "labels": {"global": true, "tier": {}}, "annotations": {"kubernetes.io/ingress.class": 5}});
        let plugin = read(Kind::KongClusterPlugin, json!({"metadata": metadata.clone()}));
        assert_eq!((plugin.id().to_string(), plugin.has_unknown_class), ("KongClusterPlugin 7".to_owned(), false));
        let texts = |map: &BTreeMap<Arc<str>, Arc<str>>| {
            map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(texts(&plugin.meta.labels), "global=true");
        assert_eq!(texts(&plugin.meta.annotations), "kubernetes.io/ingress.class=5");
        assert_eq!(read(Kind::KongPlugin, json!({"metadata": metadata})).id().to_string(), "KongPlugin true/7");
        for (metadata, is_global, has_unknown_class) in [
            (json!({"name": "x"}), false, false),
            (json!({"name": "x", "labels": null, "annotations": {}}), false, false),
            (json!({"name": "x", "labels": "global"}), true, false),
            (json!({"name": "x", "labels": {"global": ["true"]}, "annotations": []}), true, true),
            (json!({"name": "x", "annotations": {"kubernetes.io/ingress.class": []}}), false, true),
        ] {
            let plugin = read(Kind::KongClusterPlugin, json!({"metadata": metadata.clone()}));
            let found = (plugin.meta.labels.contains_key(GLOBAL_LABEL), plugin.has_unknown_class);
            assert_eq!(found, (is_global, has_unknown_class), "{metadata}");
        }
    }

    #[test]
    fn objects_without_a_name_get_one_if_they_protect() {
        let name = |kind, object: Value| {
            UnparseableObject::read(kind, &object).map(|object| object.meta.key.name.starts_with("(unnamed "))
        };
        for metadata in
            [json!(null), json!({}), json!({"name": ""}), json!({"name": []}), json!({"generateName": "x-"})]
        {
            let object = json!({"metadata": metadata});
            assert_eq!(name(Kind::KongPlugin, object.clone()), Some(true), "{object}");
            assert_eq!(name(Kind::Service, object.clone()), None, "{object}");
        }
        // An object whose namespace cannot be read affects none.
        for metadata in [json!([]), json!("x"), json!({"name": "x", "namespace": []})] {
            let object = json!({"metadata": metadata});
            assert_eq!(name(Kind::BackendTlsPolicy, object.clone()), None, "{object}");
        }
        let plugin = read(Kind::KongClusterPlugin, json!({"metadata": [{"name": "x"}]}));
        assert!(plugin.has_unknown_class && plugin.meta.labels.contains_key(GLOBAL_LABEL));
        let other = read(Kind::KongClusterPlugin, json!({"metadata": [{"name": "y"}]}));
        assert_ne!(plugin.id(), other.id(), "each has a name of its own");
    }

    #[test]
    fn groups_have_unknown_plugins_if_their_annotation_is_no_text() {
        for (annotations, expected) in [
            (json!(null), false),
            (json!({"konghq.com/plugins": "a"}), false),
            (json!({"konghq.com/plugins": 5, "other": []}), false),
            (json!({"konghq.com/plugins": ["a"]}), true),
            (json!("a"), true),
        ] {
            let group = json!({"metadata": {"name": "x", "annotations": annotations}});
            assert_eq!(read(Kind::KongConsumerGroup, group.clone()).has_unknown_plugins, expected, "{group}");
        }
    }

    #[test]
    fn readable_blocks_of_policies_stay() {
        let target = json!({"group": "", "kind": "Service", "name": "shop"});
        let spec = json!({"targetRefs": [{"name": 5}, target], "mode": "Enforce", "limits": {"maxRequests": 5},
            "timeouts": "5s", "unknown": 1});
        let policy = |spec: &Value| {
            let read = read(Kind::BackendPolicy, json!({"metadata": {"namespace": "a", "name": "x"}, "spec": spec}));
            let Some(AnyObject::BackendPolicy(policy)) = read.stored else { panic!("no policy is stored") };
            policy
        };
        let kept = policy(&spec);
        assert_eq!(kept.spec.target_refs.iter().map(|target| &*target.name).collect::<Vec<_>>(), ["shop"]);
        assert!(kept.spec.limits.is_some() && kept.spec.timeouts.is_none());
        for (mode, expected) in [
            (json!(null), "Enforce"),
            (json!("dryrun"), "DryRun"),
            (json!("Dry-Run"), "DryRun"),
            (json!("dry_run "), "DryRun"),
            (json!("Enforced"), "Enforce"),
            (json!("DryRuns"), "Enforce"),
            (json!(5), "Enforce"),
        ] {
            assert_eq!(policy(&json!({"mode": mode})).spec.mode.as_deref(), Some(expected), "{mode}");
        }
    }

    /// The class of an Ingress had the defaults of Portico because one field of its parameters was misspelled.
    #[test]
    fn readable_settings_of_classes_stay() {
        let spec = json!({"serviceUpstream": "yes", "enableLegacyRegexDetection": true, "unknown": 1});
        let parameters = read(Kind::IngressClassParameters, json!({"metadata": {"name": "x"}, "spec": spec}));
        let Some(AnyObject::IngressClassParameters(kept)) = parameters.stored else { panic!("none are stored") };
        assert!(kept.spec.enable_legacy_regex_detection && !kept.spec.service_upstream);
    }

    /// The list of protocols ends where the object is cut off.
    #[test]
    fn plugins_of_incomplete_objects_run_for_all_protocols() {
        let object = json!({"metadata": {"name": "x"}, "plugin": "key-auth", "protocols": ["http"]});
        for (is_complete, expected) in [(true, 1), (false, 0)] {
            let read = UnparseableObject::read_part(Kind::KongPlugin, &object, is_complete).unwrap();
            let Some(AnyObject::KongPlugin(plugin)) = read.stored else { panic!("no plugin is stored") };
            assert_eq!(plugin.protocols.len(), expected, "{is_complete}");
        }
    }

    /// The second rejected edit ended the protection of what the first one had added.
    #[test]
    fn targets_of_a_rejected_policy_stay_if_later_ones_cannot_be_read() {
        let object = |hostname: Value, targets: Value| {
            let validation = json!({"hostname": hostname, "wellKnownCACertificates": "System"});
            let spec = json!({"targetRefs": targets, "validation": validation});
            json!({"metadata": {"namespace": "a", "name": "x"}, "spec": spec})
        };
        let target = |name: &str| json!({"group": "", "kind": "Service", "name": name});
        let valid = AnyObject::parse(Kind::BackendTlsPolicy, object(json!("h"), json!([target("a")]))).unwrap();
        let rejected =
            |targets: Value| AnyObject::Unparseable(read(Kind::BackendTlsPolicy, object(json!(5), targets)).into());
        let id = valid.id();
        let mut store = Store::default();
        let mut apply = |object: AnyObject| {
            let changed = store.apply(Batch { upserts: vec![object], removes: vec![] }).len();
            let services: Vec<_> = store.services_referenced_by(&id).map(|key| key.name.to_string()).collect();
            (changed, services.join(" "))
        };
        let unreadable = || rejected(json!("b"));
        assert_eq!(apply(valid.clone()), (1, "a".to_owned()));
        assert_eq!(apply(unreadable()), (0, "a".to_owned()), "its last valid version applies");
        assert_eq!(apply(rejected(json!([target("b")]))), (1, "a b".to_owned()));
        assert_eq!(apply(unreadable()), (0, "a b".to_owned()));
        assert_eq!(apply(valid), (1, "a".to_owned()));
    }

    #[test]
    fn the_last_valid_version_stays() {
        let object = |disabled: Value| json!({"metadata": {"namespace": "a", "name": "x"}, "plugin": "key-auth", "disabled": disabled});
        let valid = || AnyObject::parse(Kind::KongPlugin, object(json!(true))).unwrap();
        let rejected = || AnyObject::Unparseable(read(Kind::KongPlugin, object(json!("yes"))).into());
        let mut store = Store::default();
        let mut apply = |upserts: Vec<AnyObject>, removes: Vec<ObjectId>| {
            let changed = store.apply(Batch { upserts, removes }).len();
            let stored = store.kong_plugins.values().next().map(|plugin| plugin.disabled);
            (changed, stored, store.is_rejected(&valid().id()), store.objects().count())
        };
        assert_eq!(apply(vec![rejected()], vec![]), (1, Some(false), true, 1));
        assert_eq!(apply(vec![rejected()], vec![]), (0, Some(false), true, 1));
        assert_eq!(apply(vec![valid()], vec![]), (1, Some(true), false, 1));
        assert_eq!(apply(vec![rejected()], vec![]), (0, Some(true), false, 1));
        assert_eq!(apply(vec![rejected()], vec![valid().id()]), (1, Some(false), true, 1), "it was created again");
        assert_eq!(apply(vec![], vec![valid().id()]), (1, None, false, 0));
    }
}
