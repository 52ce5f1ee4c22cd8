//! Validates `apiVersion`, `kind` and `metadata`, which are the same for all kinds.
//!
//! The types and names of fields have been validated by `walk`; this module checks the syntax of values.

use serde_json::{Map, Value};

use super::path::ObjectPath;
use super::quote::printable;
use super::report::ViolationReport;
use super::syntax::{
    DNS_LABEL, DNS_LABEL_1035, DNS_NAME, Grammar, LABEL_VALUE, NAME_WITH_SIGNER, QUALIFIED_NAME, check_grammar,
};
use super::{Channel, kinds};
use crate::api::Kind;

/// The version of the object: the text after the last `/` of `apiVersion`.
pub(super) fn version(object: &Value) -> &str {
    let api_version = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    api_version.rsplit_once('/').map_or(api_version, |(_, version)| version)
}

pub(super) fn check(kind: Kind, channel: Channel, object: &Value, report: &mut ViolationReport) {
    check_version_and_kind(kind, channel, object, report);
    let metadata = ObjectPath::Root.field("metadata");
    let Some(Value::Object(map)) = object.get("metadata") else { return };
    check_name(kind, map, &metadata, report);
    check_namespace(kind, map, &metadata, report);
    check_labels(map, &metadata, report);
    check_annotations(map, &metadata, report);
    check_finalizers(map, &metadata, report);
    check_owners(map, &metadata, report);
    if map.get("generation").and_then(Value::as_i64).is_some_and(|generation| generation < 0) {
        report.add(&metadata.field("generation"), "is negative", "remove it: the API server sets it");
    }
}

/// The `apiVersion` of a kind and version.
fn api_version(kind: Kind, version: &str) -> String {
    if kind.group().is_empty() { version.to_owned() } else { format!("{}/{version}", kind.group()) }
}

fn check_version_and_kind(kind: Kind, channel: Channel, object: &Value, report: &mut ViolationReport) {
    let served = kinds::versions(kind, channel);
    let is_served = |written: &str| served.iter().any(|version| api_version(kind, version) == written);
    if let Some(written) = object.get("apiVersion").and_then(Value::as_str)
        && !is_served(written)
    {
        let in_other_channel = kind.versions().iter().any(|version| api_version(kind, version) == written);
        let in_channel = if in_other_channel { format!(" in the {} channel", channel.name()) } else { String::new() };
        report.add(
            &ObjectPath::Root.field("apiVersion"),
            format!("{kind} is not served as \"{}\"{in_channel}", printable(written)),
            format!("use `{}`", api_version(kind, served.first().unwrap_or(&"v1"))),
        );
    }
    if let Some(written) = object.get("kind").and_then(Value::as_str)
        && written != kind.name()
    {
        let message = format!("\"{}\" is not {kind}", printable(written));
        report.add(&ObjectPath::Root.field("kind"), message, format!("use `{kind}`"));
    }
}

/// The grammar of names of this kind.
fn name_grammar(kind: Kind) -> Grammar {
    match kind {
        Kind::Service => DNS_LABEL_1035,
        Kind::Namespace => DNS_LABEL,
        Kind::ClusterTrustBundle => NAME_WITH_SIGNER,
        _ => DNS_NAME,
    }
}

fn text_field<'a>(map: &'a Map<String, Value>, name: &str) -> &'a str {
    map.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn check_name(kind: Kind, metadata: &Map<String, Value>, path: &ObjectPath<'_>, report: &mut ViolationReport) {
    let name = text_field(metadata, "name");
    if name.is_empty() {
        // A wrong type has been reported already.
        if metadata.get("name").is_none_or(Value::is_string) {
            let (message, remedy) = if text_field(metadata, "generateName").is_empty() {
                ("is missing", "give the object a name".to_owned())
            } else {
                (
                    "is missing, and `generateName` would create a new object at every read",
                    format!(
                        "write a name instead, for example `{}`",
                        printable(text_field(metadata, "generateName").trim_end_matches('-'))
                    ),
                )
            };
            report.add(&path.field("name"), message, remedy);
        }
        return;
    }
    check_grammar(name_grammar(kind), name, "a valid name", &path.field("name"), report);
}

fn check_namespace(kind: Kind, metadata: &Map<String, Value>, path: &ObjectPath<'_>, report: &mut ViolationReport) {
    let namespace = text_field(metadata, "namespace");
    if namespace.is_empty() {
        return;
    }
    let path = path.field("namespace");
    if kind.namespaced() {
        check_grammar(DNS_LABEL, namespace, "a namespace", &path, report);
    } else {
        report.add(&path, format!("{kind} is cluster-scoped"), "remove `namespace`");
    }
}

fn check_labels(metadata: &Map<String, Value>, path: &ObjectPath<'_>, report: &mut ViolationReport) {
    let path = path.field("labels");
    for (key, value) in metadata.get("labels").and_then(Value::as_object).into_iter().flatten() {
        check_grammar(QUALIFIED_NAME, key, "the key of a label", &path.key(key), report);
        if let Some(value) = value.as_str() {
            check_grammar(LABEL_VALUE, value, "the value of a label", &path.key(key), report);
        }
    }
}

/// The API server's limit for the keys and values of all annotations.
const ANNOTATION_BYTES: usize = 256 * 1024;

fn check_annotations(metadata: &Map<String, Value>, path: &ObjectPath<'_>, report: &mut ViolationReport) {
    let path = path.field("annotations");
    let mut bytes = 0;
    for (key, value) in metadata.get("annotations").and_then(Value::as_object).into_iter().flatten() {
        // The domain in the key of an annotation may have upper-case letters, unlike in the key of a label.
        if !(QUALIFIED_NAME.accepts)(&key.to_lowercase()) {
            check_grammar(QUALIFIED_NAME, key, "the key of an annotation", &path.key(key), report);
        }
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > ANNOTATION_BYTES {
        report.add(
            &path,
            format!("annotations have {bytes} bytes, at most {ANNOTATION_BYTES} are allowed"),
            "move large values into a ConfigMap",
        );
    }
}

fn check_finalizers(metadata: &Map<String, Value>, path: &ObjectPath<'_>, report: &mut ViolationReport) {
    let path = path.field("finalizers");
    for (index, finalizer) in metadata.get("finalizers").and_then(Value::as_array).into_iter().flatten().enumerate() {
        if let Some(finalizer) = finalizer.as_str() {
            check_grammar(QUALIFIED_NAME, finalizer, "the name of a finalizer", &path.index(index), report);
        }
    }
}

fn check_owners(metadata: &Map<String, Value>, path: &ObjectPath<'_>, report: &mut ViolationReport) {
    let path = path.field("ownerReferences");
    let mut controllers = 0;
    for (index, owner) in metadata.get("ownerReferences").and_then(Value::as_array).into_iter().flatten().enumerate() {
        let path = path.index(index);
        for name in ["apiVersion", "kind", "name", "uid"] {
            // Missing fields have been reported by the walk.
            if owner.get(name).and_then(Value::as_str) == Some("") {
                report.add(
                    &path.field(name),
                    "is empty",
                    format!("write the owner's `{name}`, or remove the reference"),
                );
            }
        }
        controllers += usize::from(owner.get("controller").and_then(Value::as_bool) == Some(true));
    }
    if controllers > 1 {
        report.add(&path, format!("{controllers} owners are controllers"), "at most one may have `controller: true`");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::diagnostic::Diagnostic;

    /// The violations of an object of the kind with this metadata, each as `field: message; remedy`.
    fn check(kind: Kind, metadata: Value) -> Vec<String> {
        let mut object =
            json!({"apiVersion": api_version(kind, kind.versions()[0]), "kind": kind.name(), "metadata": metadata});
        if kind == Kind::Service {
            object["spec"] = json!({"ports": [{"port": 80}]});
        }
        lines(crate::schema::check(kind, &mut object, Channel::Standard))
    }

    fn lines(violations: Vec<Diagnostic>) -> Vec<String> {
        violations.into_iter().map(|it| format!("{}: {}; {}", it.field, it.message, it.remedy)).collect()
    }

    #[test]
    fn good_metadata_passes() {
        for (kind, metadata) in [
            (Kind::ConfigMap, json!({"name": "a.b", "namespace": "x", "creationTimestamp": null, "labels": null})),
            (Kind::ConfigMap, json!({"name": "a".repeat(253), "generation": 3, "resourceVersion": "7"})),
            (Kind::Service, json!({"name": "a1", "labels": {"app.kubernetes.io/name": "A_1", "empty": ""}})),
            (Kind::Namespace, json!({"name": "1a", "annotations": {"Example.com/x": "ä \n", "y": ""}})),
            (
                Kind::Secret,
                json!({"name": "s", "finalizers": ["example.com/keep"], "creationTimestamp": "2026-01-01T00:00:00Z",
                "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}],
                "managedFields": [{"manager": "kubectl", "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {}}}]}),
            ),
        ] {
            assert_eq!(check(kind, metadata.clone()), Vec::<String>::new(), "{kind} {metadata}");
        }
    }

    #[test]
    fn metadata_violations_have_remedies() {
        let name_remedy = "use at most 253 lower-case letters, digits, `-` and `.`, each part between dots starting \
            and ending with a letter or digit, for example `web.example.com`";
        for (kind, metadata, expected) in [
            (Kind::ConfigMap, json!({}), "metadata.name: is missing; give the object a name".to_owned()),
            (
                Kind::ConfigMap,
                json!({"generateName": "web-"}),
                "metadata.name: is missing, and `generateName` would create a new object at every read; write a \
                    name instead, for example `web`"
                    .to_owned(),
            ),
            (Kind::ConfigMap, json!({"name": "A"}), format!("metadata.name: \"A\" is not a valid name; {name_remedy}")),
            (
                Kind::ConfigMap,
                json!({"name": "a".repeat(254)}),
                format!(r#"metadata.name: "{}…" is not a valid name; {name_remedy}"#, "a".repeat(80)),
            ),
            (
                Kind::Service,
                json!({"name": "1a"}),
                "metadata.name: \"1a\" is not a valid name; use at most 63 lower-case letters, digits and \
                    `-`, starting with a letter and ending with a letter or digit, for example `web-1`"
                    .to_owned(),
            ),
            (
                Kind::Namespace,
                json!({"name": "a", "namespace": "b"}),
                "metadata.namespace: Namespace is cluster-scoped; remove `namespace`".to_owned(),
            ),
            (
                Kind::ConfigMap,
                json!({"name": "a", "namespace": "b.c"}),
                "metadata.namespace: \"b.c\" is not a namespace; use at most 63 lower-case letters, digits and `-`, \
                    starting and ending with a letter or digit, for example `web-1`"
                    .to_owned(),
            ),
            (
                Kind::ConfigMap,
                json!({"name": "a", "label": {}}),
                "metadata.label: unknown field `label`; did you mean `labels`?".to_owned(),
            ),
            (
                Kind::ConfigMap,
                json!({"name": "a", "labels": {"x": 1}}),
                "metadata.labels[x]: is the number 1, must be a string; put what is written there in quotes".to_owned(),
            ),
            (
                Kind::ConfigMap,
                json!({"name": "a", "labels": ["x"]}),
                "metadata.labels: is a list, must be a mapping; make it one mapping: remove the `- `".to_owned(),
            ),
            (
                Kind::ConfigMap,
                json!({"name": "a", "labels": {"x": "a b"}}),
                "metadata.labels[x]: \"a b\" is not the value of a label; use nothing, or at most 63 letters, \
                    digits, `-`, `_` and `.`, starting and ending with a letter or digit, for example `blue_1.2`"
                    .to_owned(),
            ),
            (
                Kind::ConfigMap,
                json!({"name": "a", "annotations": {"a b": "x"}}),
                "metadata.annotations[a b]: \"a b\" is not the key of an annotation; use at most 63 letters, \
                    digits, `-`, `_` and `.`, starting and ending with a letter or digit, after an optional DNS \
                    name and `/`, for example `example.com/app`"
                    .to_owned(),
            ),
            (
                Kind::ConfigMap,
                json!({"name": "a", "annotations": {"a": "x".repeat(300_000)}}),
                "metadata.annotations: annotations have 300001 bytes, at most 262144 are allowed; move large values \
                    into a ConfigMap"
                    .to_owned(),
            ),
            (
                Kind::ConfigMap,
                json!({"name": "a", "creationTimestamp": "yesterday"}),
                "metadata.creationTimestamp: \"yesterday\" is not an RFC 3339 timestamp; write an RFC 3339 \
                    timestamp, for example `2026-01-31T12:00:00Z`"
                    .to_owned(),
            ),
            (
                Kind::ConfigMap,
                json!({"name": "a", "generation": -1}),
                "metadata.generation: is negative; remove it: the API server sets it".to_owned(),
            ),
        ] {
            assert_eq!(check(kind, metadata.clone()), [expected], "{kind} {metadata}");
        }
    }

    #[test]
    fn wrong_versions_and_kinds_name_the_right_one() {
        for (kind, version, name, expected) in [
            (Kind::Service, "v2", "Service", r#"apiVersion: Service is not served as "v2"; use `v1`"#),
            (
                Kind::EndpointSlice,
                "discovery.k8s.io/v1beta1",
                "EndpointSlice",
                r#"apiVersion: EndpointSlice is not served as "discovery.k8s.io/v1beta1"; use `discovery.k8s.io/v1`"#,
            ),
            (Kind::ConfigMap, "v1", "Configmap", r#"kind: "Configmap" is not ConfigMap; use `ConfigMap`"#),
        ] {
            let mut object = json!({"apiVersion": version, "kind": name, "metadata": {"name": "a"}});
            match kind {
                Kind::Service => object["spec"] = json!({"ports": [{"port": 80}]}),
                Kind::EndpointSlice => {
                    object["addressType"] = json!("IPv4");
                    object["endpoints"] = json!([]);
                }
                _ => {}
            }
            assert_eq!(lines(crate::schema::check(kind, &mut object, Channel::Standard)), [expected]);
        }
        let mut bare = json!({"metadata": {"name": "a"}});
        assert_eq!(
            lines(crate::schema::check(Kind::ConfigMap, &mut bare, Channel::Standard)),
            ["apiVersion: is missing; add `apiVersion`, a string", "kind: is missing; add `kind`, a string"]
        );
    }
}
