//! Reads an object from a value in a file: determines its name, sets defaults, and validates it.

use std::hash::Hasher;
use std::io;

use serde_json::{Map, Value, json};

use super::object_kind::{UNKNOWN_KIND, UnresolvedKind, finding, resolve_kind};
use super::outline::CLUSTER_SCOPE;
use crate::api::names::NAMESPACE_NAME_LABEL;
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::diagnostic::{Diagnostic, Reason};
use crate::schema::{self, Channel};
use crate::store::{AnyObject, LargeObjects, MalformedObject, UnparseableObject, protects};

/// How objects are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadSettings {
    pub(super) channel: Channel,
    pub(super) large_objects: LargeObjects,
}

/// The result of reading one value.
#[derive(Debug)]
pub(super) enum ReadOutcome {
    Accepted(AcceptedObject),
    /// A kind that Portico does not read, as `apiVersion/kind`.
    Ignored(String),
    Rejected {
        /// What is left of the object; `None` if the value does not identify one, and it is not known what an object of
        /// its kind would protect.
        rest: Option<RejectedRest>,
        /// Whether it may be any object that protects, or several, so that nothing takes its place.
        is_unknown: bool,
        /// The object's name for messages, as far as it is known.
        name: Option<String>,
        findings: Vec<Diagnostic>,
    },
}

/// What the store gets of an object that is rejected.
#[derive(Debug)]
pub(super) struct RejectedRest {
    pub(super) id: ObjectId,
    /// Whether the value has a valid kind and name. Otherwise, its author may have meant another object.
    pub(super) is_identified: bool,
    pub(super) object: AnyObject,
    pub(super) hash: u64,
}

impl RejectedRest {
    fn read(kind: Kind, is_identified: bool, value: &Value) -> Option<RejectedRest> {
        let rest = UnparseableObject::read(kind, value)?;
        let hash = hash_and_size(value).0;
        Some(RejectedRest { id: rest.id(), is_identified, object: AnyObject::Unparseable(rest.into()), hash })
    }
}

#[derive(Debug)]
pub(super) struct AcceptedObject {
    pub(super) object: AnyObject,
    /// The hash of the content: equal hashes mean equal objects.
    pub(super) hash: u64,
    /// Warnings, which do not prevent its use.
    pub(super) warnings: Vec<Diagnostic>,
}

/// Reads one object. `accepted_before` returns the object with this id and content hash if it was accepted before, so
/// that it is not validated again.
pub(super) fn read_object(
    value: Value,
    settings: ReadSettings,
    accepted_before: impl Fn(&ObjectId, u64) -> Option<AnyObject>,
) -> ReadOutcome {
    let Value::Object(mut object) = value else {
        let is_unknown = may_be_object(&value);
        let remedy = match is_unknown {
            true => "separate the objects by `---`, or put them under `items` of a `kind: List`",
            false => "write apiVersion, kind, metadata and spec",
        };
        let finding = finding("", "NotAnObject", "this is not an object", remedy);
        return ReadOutcome::Rejected { rest: None, is_unknown, name: None, findings: vec![finding] };
    };
    if let Some((name, finding)) = wrong_list(&object) {
        return ReadOutcome::Rejected { rest: None, is_unknown: true, name: Some(name), findings: vec![finding] };
    }
    let has_objects = object.get("items").is_some_and(may_be_object);
    let kind = match resolve_kind(&object) {
        Ok(kind) => kind,
        Err(UnresolvedKind::Ignored(kind)) if !has_objects => return ReadOutcome::Ignored(kind),
        Err(UnresolvedKind::Ignored(kind)) => {
            let message = format!("`{kind}` is no list, and the objects under items are not read");
            let findings = vec![finding("kind", UNKNOWN_KIND, message, "write apiVersion: v1, kind: List")];
            return ReadOutcome::Rejected { rest: None, is_unknown: true, name: Some(kind), findings };
        }
        Err(UnresolvedKind::Rejected { meant, name, mut finding, may_protect }) => {
            let lacks_kind = object.get("kind").is_none_or(|kind| kind.is_null() || kind == "");
            if has_objects && lacks_kind {
                finding.remedy = "write `kind: List`".to_owned();
            }
            let value = Value::Object(object);
            let rest = meant.and_then(|meant| RejectedRest::read(meant.kind, meant.is_certain, &value));
            let is_unknown = match meant {
                Some(meant) => rest.is_none() && protects(meant.kind),
                None => may_protect || value["kind"].as_str().is_none_or(str::is_empty) && may_be_object(&value),
            };
            let is_unknown = is_unknown || has_objects;
            return ReadOutcome::Rejected { rest, is_unknown, name, findings: vec![*finding] };
        }
    };
    let mut findings = Vec::new();
    let key = match resolve_key(kind, &mut object, &mut findings) {
        Ok(key) => key,
        Err(error) => {
            let (name, diagnostic) = *error;
            remove_server_fields(&mut object);
            let mut value = Value::Object(object);
            let rest = RejectedRest::read(kind, false, &value);
            let is_unknown = rest.is_none() && protects(kind);
            let mut violations = schema::check(kind, &mut value, settings.channel);
            violations.retain(|violation| violation.field != diagnostic.field);
            findings.push(diagnostic);
            findings.extend(violations);
            return ReadOutcome::Rejected { rest, is_unknown, name: Some(name), findings };
        }
    };
    let id = ObjectId::new(kind, key);
    let rejected = |value: &Value, findings| {
        let rest = RejectedRest::read(kind, true, value);
        let is_unknown = rest.is_none() && protects(kind);
        ReadOutcome::Rejected { rest, is_unknown, name: Some(id.to_string()), findings }
    };

    remove_server_fields(&mut object);
    if kind == Kind::Namespace {
        add_name_label(&mut object, &id.key.name);
    }
    let mut value = Value::Object(object);
    let (hash, size) = hash_and_size(&value);
    if size > MAX_OBJECT_BYTES {
        let message = format!("the object has {size} bytes; the API server stores at most {MAX_OBJECT_BYTES}");
        findings.push(Diagnostic::of_file("TooLarge", message, "split it into several objects"));
        return rejected(&value, findings);
    }
    if let Some(object) = accepted_before(&id, hash).filter(|_| findings.is_empty()) {
        return ReadOutcome::Accepted(AcceptedObject { object, hash, warnings: findings });
    }
    let violations = schema::check(kind, &mut value, settings.channel);
    if !violations.is_empty() {
        findings.extend(violations);
        return rejected(&value, findings);
    }
    let kept = if protects(kind) { value.clone() } else { json!({"metadata": value["metadata"]}) };
    match AnyObject::parse_limited(kind, value, settings.large_objects) {
        Ok(object) => ReadOutcome::Accepted(AcceptedObject { object, hash, warnings: findings }),
        Err(malformed) => {
            findings.push(malformed_diagnostic(kind, malformed));
            rejected(&kept, findings)
        }
    }
}

/// What is wrong with a list whose objects could not be taken out of it, and its name for messages. `None` for another
/// object.
fn wrong_list(object: &Map<String, Value>) -> Option<(String, Diagnostic)> {
    let kind = object.get("kind")?.as_str()?;
    if kind == "List" {
        let message = if object.contains_key("items") { "is not a list" } else { "is missing" };
        let remedy = "write the objects as a list under items";
        return Some((kind.to_owned(), finding("items", "Invalid", message, remedy)));
    }
    let has_items = object.contains_key("items");
    let is_meant = kind.eq_ignore_ascii_case("List") || has_items && schema::misspells(kind, "List");
    let finding = || finding("kind", UNKNOWN_KIND, format!("there is no kind `{kind}`"), "did you mean `List`?");
    is_meant.then(|| (kind.to_owned(), finding()))
}

/// The namespace and name of an object. The error is what is known of the name, for messages, and a diagnostic. Writes
/// the default namespace into the object, as the API server does.
fn resolve_key(
    kind: Kind,
    object: &mut Map<String, Value>,
    findings: &mut Vec<Diagnostic>,
) -> Result<ObjectKey, Box<(String, Diagnostic)>> {
    let error = |name: Option<String>, field: &str, message: &str, remedy: &str| {
        let name = name.map_or_else(|| kind.name().to_owned(), |name| format!("{kind} {name}"));
        Box::new((name, Diagnostic::error(field, message, remedy).with_reason(Reason::Named("NoName"))))
    };
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return Err(error(None, "metadata", "an object needs metadata", "write metadata.name"));
    };
    let name = match metadata.get("name") {
        Some(Value::String(name)) if !name.is_empty() => name.clone(),
        Some(Value::Null) | None if metadata.contains_key("generateName") => {
            return Err(error(
                None,
                "metadata.generateName",
                "generateName works only in a cluster",
                "write metadata.name",
            ));
        }
        None | Some(Value::Null | Value::String(_)) => {
            return Err(error(None, "metadata.name", "an object needs a name", "write metadata.name"));
        }
        Some(value) => {
            let (name, message) = (value.to_string(), "the name is not a string");
            let remedy = one_text_remedy(value, "write one name, such as `name: shop`");
            return Err(error(Some(name), "metadata.name", message, remedy));
        }
    };
    let namespace = match metadata.get("namespace") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(namespace)) => namespace.clone(),
        Some(value) => {
            let remedy = one_text_remedy(value, "write one name, such as `namespace: shop`");
            return Err(error(Some(name), "metadata.namespace", "the namespace is not a string", remedy));
        }
    };
    if !kind.namespaced() {
        if metadata.shift_remove("namespace").is_some() && !namespace.is_empty() {
            let message = format!("{kind} is a cluster-scoped kind; the namespace is ignored");
            let ignored = Diagnostic::warning("metadata.namespace", message, "delete the namespace");
            findings.push(ignored.with_reason(Reason::Named(CLUSTER_SCOPE)));
        }
        return Ok(ObjectKey::cluster(&name));
    }
    let namespace = if namespace.is_empty() { "default" } else { &namespace };
    metadata.insert("namespace".to_owned(), Value::from(namespace));
    Ok(ObjectKey::new(namespace, &name))
}

/// The remedy for a value that must be a text: `of_collection` for a list or a mapping.
fn one_text_remedy<'r>(value: &Value, of_collection: &'r str) -> &'r str {
    if value.is_array() || value.is_object() { of_collection } else { "put what is written there in quotes" }
}

/// Removes the fields that the API server sets. For objects from files, Portico counts the generation. A Service keeps
/// its UID, from which the keys of its sessions are derived.
fn remove_server_fields(object: &mut Map<String, Value>) {
    object.shift_remove("status");
    let has_used_uid = object.get("kind").and_then(Value::as_str) == Some(Kind::Service.name());
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["generation", "managedFields", "resourceVersion", "selfLink"] {
            metadata.shift_remove(field);
        }
        if !has_used_uid {
            metadata.shift_remove("uid");
        }
    }
}

/// Adds the label that the API server sets on every Namespace and that selectors rely on.
fn add_name_label(object: &mut Map<String, Value>, name: &str) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let labels = metadata.entry("labels").or_insert(Value::Null);
    if labels.is_null() {
        *labels = Value::Object(Map::new());
    }
    // Labels with a wrong type are reported by the schema.
    if let Some(labels) = labels.as_object_mut() {
        labels.insert(NAMESPACE_NAME_LABEL.to_owned(), Value::from(name));
    }
}

fn malformed_diagnostic(kind: Kind, malformed: MalformedObject) -> Diagnostic {
    // The deserializer quotes the invalid value, which in a Secret is secret.
    if kind == Kind::Secret && !malformed.field.starts_with("metadata") {
        let remedy = "write base64 under data or text under stringData, both as strings in quotes";
        return Diagnostic::of_object("a value in data or stringData is invalid", remedy);
    }
    let remedy = format!("see `kubectl explain {}`", kind.plural());
    Diagnostic::error(malformed.field.trim_start_matches('.'), malformed.message, remedy)
}

/// Whether a value of unknown kind may be meant as an object or a list of objects, or as a declarative file of Kong. A
/// file with settings of another program has none of these fields, except for Helm's `Chart.yaml`: its `apiVersion` has
/// no group.
fn may_be_object(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(may_be_object),
        Value::Object(fields) => {
            let has_group = |version: &Value| version.as_str().is_none_or(|text| text.contains('/'));
            fields.get("apiVersion").is_some_and(has_group)
                || ["kind", "metadata", "consumers", "plugins"].iter().any(|name| fields.contains_key(*name))
                || fields.get("items").is_some_and(may_be_object)
        }
        _ => false,
    }
}

/// The hash and the size of the object as JSON, in which the API server stores it.
fn hash_and_size(value: &Value) -> (u64, usize) {
    struct Digest {
        hasher: std::hash::DefaultHasher,
        size: usize,
    }
    impl io::Write for Digest {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.hasher.write(bytes);
            self.size += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut digest = Digest { hasher: std::hash::DefaultHasher::new(), size: 0 };
    serde_json::to_writer(&mut digest, value).expect("values have string keys and this writer does not fail");
    (digest.hasher.finish(), digest.size)
}

/// The default limit of etcd, and so of the API server.
const MAX_OBJECT_BYTES: usize = 1_572_864;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::diagnostic::Severity;

    fn read_new(value: Value) -> ReadOutcome {
        let large_objects = LargeObjects::Reduce;
        read_object(value, ReadSettings { channel: Channel::Standard, large_objects }, |_, _| None)
    }

    #[test]
    fn kinds_are_accepted_ignored_or_corrected() {
        for (api_version, kind, expected) in [
            ("gateway.networking.k8s.io/v1", "HTTPRoute", "accepted"),
            ("gateway.networking.k8s.io/v1beta1", "HTTPRoute", "accepted"),
            ("v1", "Secret", "accepted"),
            ("apps/v1", "Deployment", "apps/v1/Deployment"),
            ("v1", "Pod", "v1/Pod"),
            ("networking.istio.io/v1", "Gateway", "networking.istio.io/v1/Gateway"),
            ("serving.knative.dev/v1", "Service", "serving.knative.dev/v1/Service"),
            ("gateway.networking.k8s.io/v1", "HttpRoute", "kind UnknownKind did you mean `HTTPRoute`?"),
            (
                "gateway.networking.k8s.io/v2",
                "HTTPRoute",
                "apiVersion WrongVersion did you mean `gateway.networking.k8s.io/v1`?",
            ),
            ("gateway.networking.k8s.io/v1", "Elephant", "kind UnknownKind its kinds are GatewayClass, Gateway,"),
            (
                "discovery.k8s.io/v1beta1",
                "EndpointSlice",
                "apiVersion WrongVersion did you mean `discovery.k8s.io/v1`?",
            ),
            ("v1", "Servce", "kind UnknownKind did you mean `Service`?"),
            ("v1", "secret", "kind UnknownKind did you mean `Secret`?"),
            ("v1", "HTTPRoute", "apiVersion WrongGroup did you mean `gateway.networking.k8s.io/v1`?"),
            (
                "gateway.network.k8s.io/v1",
                "Gateway",
                "apiVersion WrongGroup did you mean `gateway.networking.k8s.io/v1`?",
            ),
            ("v2", "Service", "apiVersion WrongVersion did you mean `v1`?"),
            (
                "networking.k8s.io/v1",
                "KongClusterPlugin",
                "apiVersion WrongGroup did you mean `configuration.konghq.com/v1`?",
            ),
            (
                "apps/v1",
                "kongclusterplugins",
                "apiVersion WrongGroup did you mean `KongClusterPlugin` of `configuration.konghq.com/v1`?",
            ),
            ("", "Service", "apiVersion NoKind"),
            ("v1", "", "kind NoKind"),
        ] {
            let mut value = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}});
            if kind == "HTTPRoute" {
                value["spec"] = json!({});
            }
            let found = match read_new(value) {
                ReadOutcome::Accepted(_) => "accepted".to_owned(),
                ReadOutcome::Ignored(kind) => kind,
                ReadOutcome::Rejected { findings, .. } => {
                    format!(
                        "{} {} {}",
                        findings[0].field,
                        findings[0].reason.name().unwrap_or("Invalid"),
                        findings[0].remedy
                    )
                }
            };
            assert!(found.starts_with(expected), "{api_version} {kind}: {found}");
        }
    }

    #[test]
    fn objects_are_completed_as_the_api_server_does() {
        let ReadOutcome::Accepted(accepted) = read_new(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web", "generation": 7, "uid": "x"},
                "status": {"x": 1},
        })) else {
            panic!("it is valid")
        };
        assert_eq!(accepted.object.id().to_string(), "ConfigMap default/web");
        assert_eq!(accepted.object.meta().generation, 0, "the generation in the file is ignored");
        let ReadOutcome::Accepted(same) = read_new(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web", "resourceVersion": "12"},
        })) else {
            panic!("it is valid")
        };
        assert_eq!(accepted.hash, same.hash, "server fields do not count as content");

        for labels in [json!(null), json!({"a": "b"})] {
            let value =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}});
            let ReadOutcome::Accepted(accepted) = read_new(value) else { panic!("it is valid") };
            assert_eq!(accepted.object.meta().labels.get(NAMESPACE_NAME_LABEL).map(AsRef::as_ref), Some("shop"));
        }
        let ReadOutcome::Accepted(accepted) = read_new(json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "namespace": "x"},
        })) else {
            panic!("it is valid")
        };
        assert_eq!(
            (&accepted.warnings[0].reason, accepted.warnings[0].severity),
            (&Reason::Named(CLUSTER_SCOPE), Severity::Warning)
        );
    }

    #[test]
    fn objects_without_a_valid_name_are_rejected() {
        for (metadata, field, name) in [
            (json!(null), "metadata", "Service"),
            (json!({}), "metadata.name", "Service"),
            (json!({"generateName": "x-"}), "metadata.generateName", "Service"),
            (json!({"name": 7}), "metadata.name", "Service 7"),
            (json!({"name": "x", "namespace": 7}), "metadata.namespace", "Service x"),
        ] {
            let outcome = read_new(json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata}));
            let ReadOutcome::Rejected { rest, name: Some(found), findings, is_unknown: false } = outcome else {
                panic!("{outcome:?}")
            };
            assert!(rest.is_none_or(|rest| !rest.is_identified));
            assert_eq!((findings[0].field.as_str(), found.as_str()), (field, name));
        }
        let outcome = read_new(json!("hello"));
        assert!(matches!(outcome, ReadOutcome::Rejected { rest: None, is_unknown: false, name: None, .. }));
    }

    #[test]
    fn remedies_suit_what_is_written() {
        let service = |metadata: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata});
        let separate = "separate the objects by `---`, or put them under `items` of a `kind: List`";
        for (value, remedy) in [
            (service(json!({"name": 7})), "put what is written there in quotes"),
            (service(json!({"name": true})), "put what is written there in quotes"),
            (service(json!({"name": ["x"]})), "write one name, such as `name: shop`"),
            (service(json!({"name": "x", "namespace": 7})), "put what is written there in quotes"),
            (service(json!({"name": "x", "namespace": ["a"]})), "write one name, such as `namespace: shop`"),
            (service(json!({"name": "x", "namespace": {"a": "b"}})), "write one name, such as `namespace: shop`"),
            (json!([service(json!({"name": "x"}))]), separate),
            (json!(["a"]), "write apiVersion, kind, metadata and spec"),
            (json!({"apiVersion": "v1", "items": [service(json!({"name": "x"}))]}), "write `kind: List`"),
            (json!({"kind": null, "items": [service(json!({"name": "x"}))]}), "write `kind: List`"),
        ] {
            let ReadOutcome::Rejected { findings, .. } = read_new(value.clone()) else {
                panic!("{value} is not rejected")
            };
            assert_eq!(findings[0].remedy, remedy, "{value}");
        }
    }

    /// What takes the place of an object that protects, and has no valid name or kind.
    #[test]
    fn guards_without_a_valid_name_or_kind_stay_guards() {
        let kong = "configuration.konghq.com/v1";
        let plugin = |api_version: Value, kind: Value, metadata: Value| json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "plugin": "key-auth"});
        let named = || json!({"name": "x"});
        let (unnamed, unknown) = ("KongClusterPlugin (unnamed", "unknown");
        for (value, expected) in [
            (plugin(json!(null), json!("KongClusterPlugin"), named()), "KongClusterPlugin x"),
            (plugin(json!(1), json!("KongClusterPlugin"), named()), "KongClusterPlugin x"),
            (plugin(json!("configuration.konghq.co/v1"), json!("KongClusterPlugin"), named()), "KongClusterPlugin x"),
            (plugin(json!("networking.k8s.io/v1"), json!("KongClusterPlugin"), named()), "KongClusterPlugin x"),
            (plugin(json!(kong), json!("KongClusterPlugins"), named()), "KongClusterPlugin x"),
            (plugin(json!(kong), json!("kongclusterplugin"), named()), "KongClusterPlugin x"),
            (plugin(json!(kong), json!("KongClustrPlugin"), named()), "KongClusterPlugin x"),
            (plugin(json!("v1"), json!("kongclusterplugins"), named()), "KongClusterPlugin x"),
            (plugin(json!(kong), json!("KongClusterPlugin"), json!(null)), unnamed),
            (plugin(json!(kong), json!("KongClusterPlugin"), json!({"generateName": "x-"})), unnamed),
            (plugin(json!(kong), json!("KongClusterPlugin"), json!({"name": ["x"]})), unnamed),
            (plugin(json!(kong), json!("KongClusterPlugin"), json!([named()])), unnamed),
            (
                json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "BackendTLSPolicy", "spec": {}}),
                "BackendTLSPolicy default/(unnamed",
            ),
            (
                json!({"apiVersion": "portico.dev/v1alpha1", "kind": "BackendTLSPolicy", "metadata": named()}),
                "BackendTLSPolicy default/x",
            ),
            // What these protect is unknown.
            (plugin(json!(kong), json!(null), named()), unknown),
            (plugin(json!(kong), json!("KongPlugin"), json!([named()])), unknown),
            (json!([plugin(json!(kong), json!("KongPlugin"), named())]), unknown),
            (json!({"kind": "List", "items": plugin(json!(kong), json!("KongPlugin"), named())}), unknown),
            (json!({"plugins": [{"name": "key-auth"}]}), unknown),
            (plugin(json!(kong), json!("Plugin"), named()), unknown),
            (json!({"apiVersion": "portico.dev/v1alpha1", "kind": "Elephant", "metadata": named()}), unknown),
            (json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Route", "metadata": named()}), unknown),
            (json!({"apiVersion": "v1", "kind": "list", "items": []}), unknown),
            (json!({"apiVersion": "v1", "kind": "Lists", "items": [{"kind": "KongPlugin"}]}), unknown),
            (json!({"apiVersion": "v1", "kind": "Objects", "items": [{"kind": "KongPlugin"}]}), unknown),
            (json!({"apiVersion": "v1", "items": [{"kind": "KongPlugin"}]}), unknown),
            (
                json!({
                    "apiVersion": "gateway.networking.x-k8s.io/v1alpha1", "kind": "XListenerSet", "metadata": named(),
                }),
                "nothing",
            ),
            // These are no objects, or protect nothing.
            (json!({"services": {"web": {"image": "shop"}}}), "nothing"),
            (json!(["a"]), "nothing"),
            (json!({"apiVersion": "v2", "name": "shop", "version": "1.0.0"}), "nothing"),
            (plugin(json!(kong), json!("KongService"), named()), "nothing"),
            (json!({"kind": "Deployment", "metadata": named()}), "nothing"),
            (json!({"apiVersion": "v1", "kind": "Service", "metadata": [named()]}), "nothing"),
        ] {
            let ReadOutcome::Rejected { rest, is_unknown, .. } = read_new(value.clone()) else {
                panic!("{value} is not rejected")
            };
            let found = match &rest {
                Some(rest) => rest.id.to_string(),
                None if is_unknown => unknown.to_owned(),
                None => "nothing".to_owned(),
            };
            assert!(found.starts_with(expected) && is_unknown == (expected == unknown), "{value}: {found}");
        }
    }

    #[test]
    fn secret_values_are_not_quoted() {
        for data in [json!({"password": 8_125_550}), json!({"password": "8125550!"})] {
            let value = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "data": data});
            let ReadOutcome::Rejected { rest: Some(_), findings, .. } = read_new(value) else {
                panic!("it is rejected")
            };
            assert!(!format!("{findings:?}").contains("8125550"), "{findings:?}");
        }
    }

    #[test]
    fn objects_above_the_size_limit_are_rejected() {
        let value = |size| {
            let data = json!({"a": "x".repeat(size)});
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data})
        };
        assert!(matches!(read_new(value(900_000)), ReadOutcome::Accepted(_)));
        let ReadOutcome::Rejected { rest: Some(_), findings, .. } = read_new(value(MAX_OBJECT_BYTES)) else {
            panic!("it is accepted")
        };
        assert_eq!(findings[0].reason, Reason::Named("TooLarge"));
    }
}
