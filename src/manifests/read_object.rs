//! Reads an object from a value in a file: determines its kind and name, sets defaults, and validates it.

use std::hash::Hasher;
use std::io;

use serde_json::{Map, Value, json};

use super::outline::CLUSTER_SCOPE;
use super::unserved_kinds::replacement_of_operator_kind;
use crate::api::kind::{
    CORE_GROUP, DISCOVERY_GROUP, GATEWAY_GROUP, GATEWAY_X_GROUP, KONG_GROUP, KONG_INCUBATOR_GROUP, NETWORKING_GROUP,
    PORTICO_GROUP,
};
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
        /// What is left of the object; `None` if the value does not identify one.
        rest: Option<RejectedRest>,
        /// The object's name for messages, as far as it is known.
        name: Option<String>,
        findings: Vec<Diagnostic>,
    },
}

/// What the store gets of an object that is rejected.
#[derive(Debug)]
pub(super) struct RejectedRest {
    pub(super) id: ObjectId,
    /// Whether the value has a valid name. Otherwise, its author may have meant another object.
    pub(super) is_identified: bool,
    /// `None` for a Namespace, which the objects in it imply.
    pub(super) object: Option<AnyObject>,
    pub(super) hash: u64,
}

impl RejectedRest {
    /// `None` if the value has no name.
    fn read(kind: Kind, value: &Value) -> Option<RejectedRest> {
        let rest = UnparseableObject::read(kind, value)?;
        let hash = hash_and_size(value).0;
        Some(RejectedRest {
            id: rest.id(),
            is_identified: true,
            object: Some(AnyObject::Unparseable(rest.into())),
            hash,
        })
    }

    fn of(id: &ObjectId, value: &Value) -> RejectedRest {
        let rest = RejectedRest::read(id.kind, value);
        rest.unwrap_or_else(|| RejectedRest { id: id.clone(), is_identified: true, object: None, hash: 0 })
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
        return rejected_without_id(
            None,
            "",
            "NotAnObject",
            "this is not an object",
            "write apiVersion, kind, metadata and spec",
        );
    };
    if object.get("kind").is_some_and(|kind| kind == "List") {
        let message = if object.contains_key("items") { "is not a list" } else { "is missing" };
        return rejected_without_id(
            Some("List".to_owned()),
            "items",
            "Invalid",
            message,
            "write the objects as a list under items",
        );
    }
    let kind = match resolve_kind(&object) {
        Ok(kind) => kind,
        Err(UnresolvedKind::Ignored(kind)) => return ReadOutcome::Ignored(kind),
        Err(UnresolvedKind::Rejected { meant, name, finding }) => {
            let rest = meant.and_then(|kind| RejectedRest::read(kind, &Value::Object(object)));
            return ReadOutcome::Rejected { rest, name, findings: vec![*finding] };
        }
    };
    let mut findings = Vec::new();
    let key = match resolve_key(kind, &mut object, &mut findings) {
        Ok(key) => key,
        Err(error) => {
            let (name, diagnostic) = *error;
            remove_server_fields(&mut object);
            let mut value = Value::Object(object);
            let rest = RejectedRest::read(kind, &value);
            let rest = rest.map(|rest| RejectedRest { is_identified: false, ..rest });
            let mut violations = schema::check(kind, &mut value, settings.channel);
            violations.retain(|violation| violation.field != diagnostic.field);
            findings.push(diagnostic);
            findings.extend(violations);
            return ReadOutcome::Rejected { rest, name: Some(name), findings };
        }
    };
    let id = ObjectId::new(kind, key);
    let rejected = |value: &Value, findings| {
        let rest = Some(RejectedRest::of(&id, value));
        ReadOutcome::Rejected { rest, name: Some(id.to_string()), findings }
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

/// Why the kind of an object is not known.
enum UnresolvedKind {
    /// As `apiVersion/kind`.
    Ignored(String),
    Rejected {
        /// The kind that its author meant, if the version or the group is the only mistake.
        meant: Option<Kind>,
        name: Option<String>,
        finding: Box<Diagnostic>,
    },
}

/// The kind of the object.
fn resolve_kind(object: &Map<String, Value>) -> Result<Kind, UnresolvedKind> {
    let text_field = |field: &str| object.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    let name = match (text_field("kind"), display_name(object)) {
        (Some(kind), Some(name)) => Some(format!("{kind} {name}")),
        (kind, name) => kind.map(str::to_owned).or(name),
    };
    let (Some(api_version), Some(kind_name)) = (text_field("apiVersion"), text_field("kind")) else {
        let remedy = match ["services", "routes", "consumers", "plugins"].iter().any(|list| object.contains_key(*list))
        {
            true => "a declarative file of Kong begins with _format_version: \"3.0\"",
            false => "for example apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute",
        };
        let missing: Vec<_> = ["apiVersion", "kind"].into_iter().filter(|field| text_field(field).is_none()).collect();
        let message = format!("an object needs {}", missing.join(" and "));
        let finding = finding(missing[0], "NoKind", message, remedy).into();
        return Err(UnresolvedKind::Rejected { meant: None, name, finding });
    };
    let (group, version) = api_version.split_once('/').unwrap_or((CORE_GROUP, api_version));
    let reject = |meant, field, reason, message: String, remedy: String| {
        let finding = finding(field, reason, message, remedy).into();
        Err(UnresolvedKind::Rejected { meant, name: name.clone(), finding })
    };

    if let Some(kind) = Kind::find(group, kind_name) {
        if kind.versions().contains(&version) {
            return Ok(kind);
        }
        let message = format!("{kind} has no version `{version}`");
        return reject(
            Some(kind),
            "apiVersion",
            "WrongVersion",
            message,
            format!("did you mean `{}`?", preferred_api_version(kind)),
        );
    }
    if let Some(replacement) = replacement_of_operator_kind(kind_name).filter(|_| group == KONG_GROUP) {
        let message = format!("{kind_name} configures a control plane of Kong Operator, and is not served here");
        return reject(None, "kind", "UnservedKind", message, replacement.to_owned());
    }
    let similar = schema::nearest_kind(group, kind_name);
    if COMPLETE_GROUPS.contains(&group) {
        let message = format!("the group {group} has no kind `{kind_name}`");
        let remedy = match similar {
            Some(similar) => format!("did you mean `{similar}`?"),
            None => format!("its kinds are {}", kind_names(group)),
        };
        return reject(None, "kind", "UnknownKind", message, remedy);
    }
    if let Some(similar) = similar.filter(|_| [CORE_GROUP, NETWORKING_GROUP].contains(&group)) {
        let message = format!("{api_version} has no kind `{kind_name}`");
        return reject(None, "kind", "UnknownKind", message, format!("did you mean `{similar}`?"));
    }
    // A known kind in a misspelled or missing group is a mistake, not a kind of another project with the same name.
    if let Some(kind) = Kind::ALL.iter().find(|kind| kind.name() == kind_name)
        && ([CORE_GROUP, FORMER_GROUP].contains(&group) || schema::nearest(group, [kind.group()]).is_some())
    {
        let message = format!("`{api_version}` has no kind `{kind_name}`");
        return reject(
            Some(*kind),
            "apiVersion",
            "WrongGroup",
            message,
            format!("did you mean `{}`?", preferred_api_version(*kind)),
        );
    }
    Err(UnresolvedKind::Ignored(format!("{api_version}/{kind_name}")))
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
            return Err(error(Some(name), "metadata.name", message, "put it in quotes"));
        }
    };
    let namespace = match metadata.get("namespace") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(namespace)) => namespace.clone(),
        Some(_) => {
            return Err(error(Some(name), "metadata.namespace", "the namespace is not a string", "put it in quotes"));
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

fn rejected_without_id(
    name: Option<String>,
    field: &str,
    reason: &'static str,
    message: impl Into<String>,
    remedy: impl Into<String>,
) -> ReadOutcome {
    ReadOutcome::Rejected { rest: None, name, findings: vec![finding(field, reason, message, remedy)] }
}

fn finding(field: &str, reason: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Diagnostic {
    Diagnostic::error(field, message, remedy).with_reason(Reason::Named(reason))
}

/// `namespace/name` of an object of unknown kind.
fn display_name(object: &Map<String, Value>) -> Option<String> {
    let metadata = object.get("metadata")?;
    let name = metadata.get("name")?.as_str()?;
    let namespace = metadata.get("namespace").and_then(Value::as_str).unwrap_or("default");
    Some(format!("{namespace}/{name}"))
}

fn preferred_api_version(kind: Kind) -> String {
    let version = kind.versions()[0];
    if kind.group() == CORE_GROUP { version.to_owned() } else { format!("{}/{version}", kind.group()) }
}

fn kind_names(group: &str) -> String {
    let names: Vec<_> = Kind::ALL.iter().filter(|kind| kind.group() == group).map(|kind| kind.name()).collect();
    names.join(", ")
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

/// The API group of Ingress before Kubernetes 1.22.
const FORMER_GROUP: &str = "extensions";

/// Groups whose kinds are all known, so that any other kind is a mistake.
const COMPLETE_GROUPS: &[&str] =
    &[GATEWAY_GROUP, GATEWAY_X_GROUP, DISCOVERY_GROUP, KONG_GROUP, KONG_INCUBATOR_GROUP, PORTICO_GROUP];

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
            let ReadOutcome::Rejected { rest, name: Some(found), findings } = outcome else { panic!("{outcome:?}") };
            assert!(rest.is_none_or(|rest| !rest.is_identified));
            assert_eq!((findings[0].field.as_str(), found.as_str()), (field, name));
        }
        let outcome = read_new(json!("hello"));
        assert!(matches!(outcome, ReadOutcome::Rejected { rest: None, name: None, .. }));
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
