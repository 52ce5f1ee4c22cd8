//! Objects that cannot be read as their kind, and of which no valid version is known. An object that protects requests
//! still does: the store has what is left of it, read leniently, so that what it protects fails closed instead of being
//! served without it.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::object::{AnyObject, UnparseableObject};
use crate::api::gateway::PolicyTargetReference;
use crate::api::kong::annotations::{GLOBAL_LABEL, INGRESS_CLASS};
use crate::api::{Kind, Meta, ObjectKey};

/// Whether an object of this kind restricts requests or limits their effect. Objects of the other kinds only add what
/// is served: without them, a request gets an error.
pub fn protects(kind: Kind) -> bool {
    match kind {
        Kind::KongPlugin
        | Kind::KongClusterPlugin
        | Kind::KongConsumer
        | Kind::KongConsumerGroup
        | Kind::BackendTlsPolicy
        | Kind::BackendPolicy
        | Kind::XBackendTrafficPolicy => true,
        Kind::GatewayClass
        | Kind::Gateway
        | Kind::ListenerSet
        | Kind::HttpRoute
        | Kind::GrpcRoute
        | Kind::TlsRoute
        | Kind::TcpRoute
        | Kind::UdpRoute
        | Kind::ReferenceGrant
        | Kind::XBackend
        | Kind::XMesh
        | Kind::XTelemetryPolicy
        | Kind::GatewayParameters
        | Kind::Ingress
        | Kind::IngressClass
        | Kind::IngressClassParameters
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
    /// What is left of an object that failed to parse. `None` if it has no name, or is a Namespace, which objects in it
    /// imply.
    pub fn read(kind: Kind, object: &Value) -> Option<UnparseableObject> {
        if kind == Kind::Namespace {
            return None;
        }
        let (metadata, has_unknown_class) = readable_metadata(kind, &object["metadata"])?;
        let meta = AnyObject::parse_metadata(kind, metadata.clone()).ok()?;
        let reader = ReadableParts { kind, metadata: &metadata };
        let stored = protects(kind).then(|| reader.reduced(object)).flatten();
        let targets = if kind == Kind::BackendTlsPolicy { all_targets(&object["spec"]) } else { None };
        Some(UnparseableObject { kind, meta, has_unknown_class, stored, targets })
    }

    /// An object of which only the key matters, since it protects nothing.
    pub fn of_key(kind: Kind, key: ObjectKey, generation: i64) -> UnparseableObject {
        let meta = Meta { generation, ..Meta::new(key) };
        UnparseableObject { kind, meta, has_unknown_class: false, stored: None, targets: None }
    }
}

/// The targets of a policy. `None` if one of them cannot be read, or there are none, which is invalid, too.
fn all_targets(spec: &Value) -> Option<Vec<PolicyTargetReference>> {
    let parse = |target: &Value| PolicyTargetReference::deserialize(target).ok();
    let targets = spec["targetRefs"].as_array().and_then(|targets| targets.iter().map(parse).collect());
    targets.filter(|targets: &Vec<_>| !targets.is_empty())
}

/// The metadata that can be read, and whether the class is unknown. Numbers and booleans are taken for texts whose
/// quotes are missing.
fn readable_metadata(kind: Kind, metadata: &Value) -> Option<(Value, bool)> {
    let mut readable = Map::new();
    readable.insert("name".to_owned(), text(&metadata["name"]).filter(|name| !name.is_empty())?.into());
    if kind.namespaced() {
        let namespace = text(&metadata["namespace"]).filter(|namespace| !namespace.is_empty());
        readable.insert("namespace".to_owned(), namespace.unwrap_or_else(|| "default".to_owned()).into());
    }
    readable.insert("generation".to_owned(), metadata["generation"].as_i64().unwrap_or_default().into());
    let created = metadata["creationTimestamp"].as_str().filter(|time| time.parse::<jiff::Timestamp>().is_ok());
    readable.insert("creationTimestamp".to_owned(), created.into());
    let mut labels = texts(&metadata["labels"]);
    if kind == Kind::KongClusterPlugin && is_unreadable(&metadata["labels"], GLOBAL_LABEL) {
        labels.insert(GLOBAL_LABEL.to_owned(), "true".into());
    }
    readable.insert("labels".to_owned(), Value::Object(labels));
    readable.insert("annotations".to_owned(), Value::Object(texts(&metadata["annotations"])));
    Some((Value::Object(readable), is_unreadable(&metadata["annotations"], INGRESS_CLASS)))
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
                self.with_readable(body, &[], object, &["protocols"])
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

/// Nothing is enforced if the mode cannot be read.
fn readable_mode(spec: &Value) -> &'static str {
    match &spec["mode"] {
        Value::Null => "Enforce",
        Value::String(mode) if mode == "Enforce" => "Enforce",
        _ => "DryRun",
    }
}

const BACKEND_POLICY_BLOCKS: &[&str] =
    &["loadBalancing", "health", "limits", "circuitBreaker", "retry", "retryBudget", "timeouts", "failover", "subsets"];

/// The maximum number of targets of these policies.
const MAX_TARGETS: usize = 16;

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
        for kind in Kind::ALL.iter().copied().filter(|kind| *kind != Kind::Namespace) {
            let object = json!({"metadata": {"name": "x", "labels": 5}, "spec": 5, "plugin": [], "username": {}});
            let UnparseableObject { stored, targets, .. } = read(kind, object);
            // All Services of its namespace are the targets of the policy.
            let has_rest = stored.is_some() || kind == Kind::BackendTlsPolicy;
            assert_eq!((has_rest, targets), (protects(kind), None), "{kind}");
        }
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
        for metadata in [json!({}), json!({"name": ""}), json!({"name": []}), json!(5)] {
            assert_eq!(UnparseableObject::read(Kind::KongPlugin, &json!({"metadata": metadata})), None);
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
        for (mode, expected) in [(json!(null), "Enforce"), (json!("dryrun"), "DryRun"), (json!(5), "DryRun")] {
            assert_eq!(policy(&json!({"mode": mode})).spec.mode.as_deref(), Some(expected), "{mode}");
        }
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
