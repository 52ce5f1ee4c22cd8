//! From a value in a file to an object we keep: which kind it is, what is missing in it, and whether it may be so.

use std::hash::Hasher;
use std::io;

use serde_json::{Map, Value};

use super::outline::Aim;
use super::refusal::Severity;
use crate::api::kind::{
    CORE_GROUP, DISCOVERY_GROUP, GATEWAY_GROUP, GATEWAY_X_GROUP, KONG_GROUP, KONG_INCUBATOR_GROUP, NETWORKING_GROUP,
};
use crate::api::names::NAMESPACE_NAME_LABEL;
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::schema::{self, Channel, Violation};
use crate::store::{AnyObject, Malformed};

/// What became of one value.
#[derive(Debug)]
pub(super) enum Outcome {
    Taken(Taken),
    /// A kind we do not read, as `apiVersion/kind`.
    Ignored(String),
    Refused {
        /// None when the value does not say which object it is.
        id: Option<ObjectId>,
        /// The object as far as it is known.
        name: Option<String>,
        findings: Vec<Finding>,
    },
}

#[derive(Debug)]
pub(super) struct Taken {
    pub(super) object: AnyObject,
    /// Of the content: equal hashes are equal objects.
    pub(super) hash: u64,
    /// Remarks that do not keep it from being used.
    pub(super) findings: Vec<Finding>,
}

/// One thing to say about an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    pub(super) field: String,
    pub(super) aim: Aim,
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) remedy: String,
}

/// Reads one object. `known` gives back what an equal object was read as before, so that nothing is checked twice.
pub(super) fn admit(value: Value, channel: Channel, known: impl Fn(&ObjectId, u64) -> Option<AnyObject>) -> Outcome {
    let Value::Object(mut object) = value else {
        return nameless(None, "", "NotAnObject", "this is no object", "write apiVersion, kind, metadata and spec");
    };
    if object.get("kind").is_some_and(|kind| kind == "List") {
        let message = if object.contains_key("items") { "is not a list" } else { "is missing" };
        return nameless(
            Some("List".to_owned()),
            "items",
            "Invalid",
            message,
            "write the objects as a list under items",
        );
    }
    let kind = match kind_of(&object) {
        Ok(kind) => kind,
        Err(outcome) => return outcome,
    };
    let mut findings = Vec::new();
    let key = match key_of(kind, &mut object, &mut findings) {
        Ok(key) => key,
        Err(outcome) => return outcome,
    };
    let id = ObjectId::new(kind, key);
    let refused = |findings| Outcome::Refused { id: Some(id.clone()), name: Some(id.to_string()), findings };

    forget_what_the_server_wrote(&mut object);
    if kind == Kind::Namespace {
        label_with_its_name(&mut object, &id.key.name);
    }
    let mut value = Value::Object(object);
    let (hash, size) = digest(&value);
    if size > MAX_OBJECT {
        let message = format!("the object takes {size} bytes, the API server stores {MAX_OBJECT} at most");
        findings.push(Finding::error("", "TooLarge", message, "split it"));
        return refused(findings);
    }
    if let Some(object) = known(&id, hash).filter(|_| findings.is_empty()) {
        return Outcome::Taken(Taken { object, hash, findings });
    }
    let violations = schema::check(kind, &mut value, channel);
    if !violations.is_empty() {
        findings.extend(violations.into_iter().map(of_violation));
        return refused(findings);
    }
    match AnyObject::parse(kind, value) {
        Ok(object) => Outcome::Taken(Taken { object, hash, findings }),
        Err(malformed) => {
            findings.push(of_malformed(kind, malformed));
            refused(findings)
        }
    }
}

impl Finding {
    fn error(field: &str, reason: &'static str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Finding {
            severity: Severity::Error,
            field: field.to_owned(),
            aim: Aim::Value,
            reason,
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}

/// The kind we read it as, or what to say instead.
fn kind_of(object: &Map<String, Value>) -> Result<Kind, Outcome> {
    let word = |field: &str| object.get(field).and_then(Value::as_str).filter(|word| !word.is_empty());
    let name = match (word("kind"), display_name(object)) {
        (Some(kind), Some(name)) => Some(format!("{kind} {name}")),
        (kind, name) => kind.map(str::to_owned).or(name),
    };
    let (Some(api_version), Some(kind_name)) = (word("apiVersion"), word("kind")) else {
        let field = if word("apiVersion").is_none() { "apiVersion" } else { "kind" };
        let message = format!("an object needs {field}");
        return Err(nameless(
            name,
            field,
            "NoKind",
            message,
            "for example apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute",
        ));
    };
    let (group, version) = api_version.split_once('/').unwrap_or((CORE_GROUP, api_version));
    let refuse = |field, reason, message, remedy| Err(nameless(name.clone(), field, reason, message, remedy));

    if let Some(kind) = Kind::find(group, kind_name) {
        if kind.versions().contains(&version) {
            return Ok(kind);
        }
        let message = format!("{kind} has no version `{version}`");
        return refuse("apiVersion", "WrongVersion", message, format!("did you mean `{}`?", preferred(kind)));
    }
    let alike = schema::nearest_kind(group, kind_name);
    if OWN_GROUPS.contains(&group) {
        let message = format!("the group {group} has no kind `{kind_name}`");
        let remedy = match alike {
            Some(alike) => format!("did you mean `{alike}`?"),
            None => format!("its kinds are {}", names_in(group)),
        };
        return refuse("kind", "UnknownKind", message, remedy);
    }
    if let Some(alike) = alike.filter(|_| [CORE_GROUP, NETWORKING_GROUP].contains(&group)) {
        let message = format!("{api_version} has no kind `{kind_name}`");
        return refuse("kind", "UnknownKind", message, format!("did you mean `{alike}`?"));
    }
    // A kind of ours in a group that is nearly ours, or in none, is not somebody else's kind of the same name.
    if let Some(kind) = Kind::ALL.iter().find(|kind| kind.name() == kind_name)
        && ([CORE_GROUP, FORMER_GROUP].contains(&group) || schema::nearest(group, [kind.group()]).is_some())
    {
        let message = format!("`{api_version}` has no kind `{kind_name}`");
        return refuse("apiVersion", "WrongGroup", message, format!("did you mean `{}`?", preferred(*kind)));
    }
    Err(Outcome::Ignored(format!("{api_version}/{kind_name}")))
}

/// Namespace and name, which are written back into the object as the API server would.
fn key_of(kind: Kind, object: &mut Map<String, Value>, findings: &mut Vec<Finding>) -> Result<ObjectKey, Outcome> {
    let refuse = |name: Option<String>, field: &str, message: &str, remedy: &str| {
        let name = name.map_or_else(|| kind.name().to_owned(), |name| format!("{kind} {name}"));
        nameless(Some(name), field, "NoName", message, remedy)
    };
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else {
        return Err(refuse(None, "metadata", "an object needs metadata", "write metadata.name"));
    };
    let name = match metadata.get("name") {
        Some(Value::String(name)) if !name.is_empty() => name.clone(),
        Some(Value::Null) | None if metadata.contains_key("generateName") => {
            return Err(refuse(
                None,
                "metadata.generateName",
                "names are generated by a cluster only",
                "write metadata.name",
            ));
        }
        None | Some(Value::Null | Value::String(_)) => {
            return Err(refuse(None, "metadata.name", "an object needs a name", "write metadata.name"));
        }
        Some(other) => {
            let (name, message) = (other.to_string(), "the name is not a string");
            return Err(refuse(Some(name), "metadata.name", message, "put it in quotes"));
        }
    };
    let namespace = match metadata.get("namespace") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(namespace)) => namespace.clone(),
        Some(_) => {
            return Err(refuse(Some(name), "metadata.namespace", "the namespace is not a string", "put it in quotes"));
        }
    };
    if !kind.namespaced() {
        if metadata.shift_remove("namespace").is_some() && !namespace.is_empty() {
            findings.push(Finding {
                severity: Severity::Warning,
                aim: Aim::Key,
                ..Finding::error(
                    "metadata.namespace",
                    "ClusterScope",
                    format!("a {kind} belongs to no namespace; this one is ignored"),
                    "delete the line",
                )
            });
        }
        return Ok(ObjectKey::cluster(&name));
    }
    let namespace = if namespace.is_empty() { "default" } else { &namespace };
    metadata.insert("namespace".to_owned(), Value::from(namespace));
    Ok(ObjectKey::new(namespace, &name))
}

/// What `kubectl get -o yaml` shows and nobody writes. The generation is ours to count.
fn forget_what_the_server_wrote(object: &mut Map<String, Value>) {
    object.shift_remove("status");
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["generation", "managedFields", "resourceVersion", "selfLink", "uid"] {
            metadata.shift_remove(field);
        }
    }
}

/// The label that the API server puts on every Namespace, which selectors rely on.
fn label_with_its_name(object: &mut Map<String, Value>, name: &str) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let labels = metadata.entry("labels").or_insert(Value::Null);
    if labels.is_null() {
        *labels = Value::Object(Map::new());
    }
    // Labels of another shape are left for the schema to refuse.
    if let Some(labels) = labels.as_object_mut() {
        labels.insert(NAMESPACE_NAME_LABEL.to_owned(), Value::from(name));
    }
}

fn of_violation(violation: Violation) -> Finding {
    let Violation { field, message, remedy } = violation;
    // A key that should not be there is pointed at itself, not at its value.
    let (aim, reason) =
        if message.contains("unknown field") { (Aim::Key, "UnknownField") } else { (Aim::Value, "Invalid") };
    Finding { aim, ..Finding::error(&field, reason, message, remedy) }
}

fn of_malformed(kind: Kind, malformed: Malformed) -> Finding {
    // The reader quotes the value it stumbled over, which in a Secret is the secret.
    if kind == Kind::Secret && !malformed.field.starts_with("metadata") {
        let remedy = "write base64 under data or text under stringData, both as strings in quotes";
        return Finding::error("", "Invalid", "some value is not what a Secret holds", remedy);
    }
    let remedy = format!("see `kubectl explain {}`", kind.plural());
    Finding::error(malformed.field.trim_start_matches('.'), "Invalid", malformed.message, remedy)
}

fn nameless(
    name: Option<String>,
    field: &str,
    reason: &'static str,
    message: impl Into<String>,
    remedy: impl Into<String>,
) -> Outcome {
    Outcome::Refused { id: None, name, findings: vec![Finding::error(field, reason, message, remedy)] }
}

/// `namespace/name` of an object whose kind is not known.
fn display_name(object: &Map<String, Value>) -> Option<String> {
    let metadata = object.get("metadata")?;
    let name = metadata.get("name")?.as_str()?;
    let namespace = metadata.get("namespace").and_then(Value::as_str).unwrap_or("default");
    Some(format!("{namespace}/{name}"))
}

fn preferred(kind: Kind) -> String {
    let version = kind.versions()[0];
    if kind.group() == CORE_GROUP { version.to_owned() } else { format!("{}/{version}", kind.group()) }
}

fn names_in(group: &str) -> String {
    let names: Vec<_> = Kind::ALL.iter().filter(|kind| kind.group() == group).map(|kind| kind.name()).collect();
    names.join(", ")
}

/// Hash and size of the object as the API server would store it.
fn digest(value: &Value) -> (u64, usize) {
    struct Digest(std::hash::DefaultHasher, usize);
    impl io::Write for Digest {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes);
            self.1 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut digest = Digest(std::hash::DefaultHasher::new(), 0);
    serde_json::to_writer(&mut digest, value).expect("values have string keys and this writer does not fail");
    (digest.0.finish(), digest.1)
}

/// Where Ingress was in its first years.
const FORMER_GROUP: &str = "extensions";

/// Groups in which every kind is known, so that any other is a mistake.
const OWN_GROUPS: &[&str] = &[GATEWAY_GROUP, GATEWAY_X_GROUP, DISCOVERY_GROUP, KONG_GROUP, KONG_INCUBATOR_GROUP];

/// What etcd takes by default, and so the API server.
const MAX_OBJECT: usize = 1_572_864;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn admit_new(value: Value) -> Outcome {
        admit(value, Channel::Standard, |_, _| None)
    }

    #[test]
    fn kinds_are_read_ignored_or_corrected() {
        for (api_version, kind, expected) in [
            ("gateway.networking.k8s.io/v1", "HTTPRoute", "taken"),
            ("gateway.networking.k8s.io/v1beta1", "HTTPRoute", "taken"),
            ("v1", "Secret", "taken"),
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
            let found = match admit_new(value) {
                Outcome::Taken(_) => "taken".to_owned(),
                Outcome::Ignored(what) => what,
                Outcome::Refused { findings, .. } => {
                    format!("{} {} {}", findings[0].field, findings[0].reason, findings[0].remedy)
                }
            };
            assert!(found.starts_with(expected), "{api_version} {kind}: {found}");
        }
    }

    #[test]
    fn objects_are_completed_as_the_api_server_does() {
        let Outcome::Taken(taken) = admit_new(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web", "generation": 7, "uid": "x"}, "status": {"x": 1},
        })) else {
            panic!("it is fine")
        };
        assert_eq!(taken.object.id().to_string(), "ConfigMap default/web");
        assert_eq!(taken.object.meta().generation, 0, "the generation is counted by us");
        let Outcome::Taken(same) = admit_new(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web", "resourceVersion": "12"},
        })) else {
            panic!("it is fine")
        };
        assert_eq!(taken.hash, same.hash, "what the server wrote is no content");

        for labels in [json!(null), json!({"a": "b"})] {
            let value =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}});
            let Outcome::Taken(taken) = admit_new(value) else { panic!("it is fine") };
            assert_eq!(taken.object.meta().labels.get(NAMESPACE_NAME_LABEL).map(AsRef::as_ref), Some("shop"));
        }
        let Outcome::Taken(taken) = admit_new(json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "namespace": "x"},
        })) else {
            panic!("it is fine")
        };
        assert_eq!((taken.findings[0].reason, taken.findings[0].severity), ("ClusterScope", Severity::Warning));
    }

    #[test]
    fn objects_without_a_usable_name_say_so() {
        for (metadata, field, name) in [
            (json!(null), "metadata", "Service"),
            (json!({}), "metadata.name", "Service"),
            (json!({"generateName": "x-"}), "metadata.generateName", "Service"),
            (json!({"name": 7}), "metadata.name", "Service 7"),
            (json!({"name": "x", "namespace": 7}), "metadata.namespace", "Service x"),
        ] {
            let outcome = admit_new(json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata}));
            let Outcome::Refused { id: None, name: Some(found), findings } = outcome else { panic!("{outcome:?}") };
            assert_eq!((findings[0].field.as_str(), found.as_str()), (field, name));
        }
        let outcome = admit_new(json!("hello"));
        assert!(matches!(outcome, Outcome::Refused { id: None, name: None, .. }));
    }

    #[test]
    fn secrets_are_not_quoted() {
        for data in [json!({"password": 8_125_550}), json!({"password": "8125550!"})] {
            let value = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "data": data});
            let Outcome::Refused { id: Some(_), findings, .. } = admit_new(value) else { panic!("it is refused") };
            assert!(!format!("{findings:?}").contains("8125550"), "{findings:?}");
        }
    }

    #[test]
    fn objects_that_no_api_server_would_store_are_refused() {
        let value = |size| {
            let data = json!({"a": "x".repeat(size)});
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data})
        };
        assert!(matches!(admit_new(value(900_000)), Outcome::Taken(_)));
        let Outcome::Refused { id: Some(_), findings, .. } = admit_new(value(MAX_OBJECT)) else { panic!("too large") };
        assert_eq!(findings[0].reason, "TooLarge");
    }
}
