//! Compares the API server with `portico check` for valid and invalid objects: both must accept the same objects, and
//! reject the others at the same field.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use http::Request;
use kube::Client;
use portico::api::Kind;
use portico::api::gateway::Channel;
use portico::api::kind::{
    GATEWAY_GROUP, GATEWAY_X_GROUP, KONG_GROUP, KONG_INCUBATOR_GROUP, NETWORKING_GROUP, PORTICO_GROUP,
};
use portico::schema;
use portico_e2e::cluster::Cluster;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::scenarios::core_objects;

/// Concurrent dry-run requests.
const CONCURRENT_REQUESTS: usize = 8;
/// Fewer cases would mean that the corpus was not found.
const MIN_CASES: usize = 300;

/// Intended differences: the fields that the API server rejects, those that Portico rejects, and the reason.
const INTENDED_DIFFERENCES: &[(&[&str], &[&str], &str)] = &[
    (&["metadata.labels"], &["metadata.labels.a b"], "Portico names the label"),
    (&["metadata.labels"], &["metadata.labels.a"], "Portico names the label"),
    (&["endpoints[0].addresses"], &["endpoints[0].addresses[0]"], "Portico names the address"),
    (&["data.a"], &["binaryData.a"], "the key is in both"),
    (&["spec.clusterIPs[0]"], &["spec.clusterIP"], "the API server derives the list from the field"),
    (
        &["spec.ports[0].port", "spec.ports[0].targetPort"],
        &["spec.ports[0].port"],
        "the API server derives the second field from the first",
    ),
    (
        &["annotations.kubernetes.io/ingress.class"],
        &["metadata.annotations.kubernetes.io/ingress.class"],
        "Portico's path starts at the root of the object",
    ),
    (&["spec.defaultBackend"], &["spec.defaultBackend.service.port"], "Portico names the field of the backend"),
    (&["endpoints[0].addresses[0]"], &[], "manifests without a cluster may use backends on the same machine"),
];

/// The beginning of the API server's message for an unknown field.
const UNKNOWN_FIELD: &str = "unknown field \"";

/// An object and its origin.
struct ValidationCase {
    name: String,
    kind: Kind,
    object: Value,
}

/// Needs the CRDs of this channel.
pub(crate) async fn portico_validates_like_the_api_server(cluster: &Cluster, channel: Channel) -> Result<()> {
    let cases: Vec<ValidationCase> =
        cases(channel)?.into_iter().filter(|case| case.is_installed_with(channel)).collect();
    ensure!(cases.len() >= MIN_CASES, "the corpus has only {} objects", cases.len());
    let comparisons: Vec<Option<String>> = stream::iter(cases)
        .map(|case| {
            let client = cluster.client();
            async move { compare(&client, &case, channel).await.with_context(|| case.name.clone()) }
        })
        .buffer_unordered(CONCURRENT_REQUESTS)
        .try_collect()
        .await?;
    let count = comparisons.len();
    let mut differences: Vec<String> = comparisons.into_iter().flatten().collect();
    differences.sort();
    ensure!(
        differences.is_empty(),
        "{} of {count} objects have different results:\n{}",
        differences.len(),
        differences.join("\n")
    );
    Ok(())
}

impl ValidationCase {
    /// Whether the kind of the object is installed with the channel.
    fn is_installed_with(&self, channel: Channel) -> bool {
        // The definitions of `portico crds` are installed with the experimental channel only.
        let is_own = [KONG_GROUP, KONG_INCUBATOR_GROUP, PORTICO_GROUP].contains(&self.kind.group());
        if channel == Channel::Standard && is_own {
            return false;
        }
        let without_fields = json!({ "apiVersion": self.object["apiVersion"], "kind": self.object["kind"] });
        let violations = schema::check(self.kind, &mut without_fields.clone(), channel);
        !violations.iter().any(|violation| violation.field == "kind")
    }
}

/// Describes the difference between the API server and Portico for an object, if any.
async fn compare(client: &Client, case: &ValidationCase, channel: Channel) -> Result<Option<String>> {
    let server_errors = rejected_by_server(client, case).await?;
    let violations = schema::check(case.kind, &mut case.object.clone(), channel);
    let portico_fields: BTreeSet<String> = violations.iter().map(|violation| with_dots(&violation.field)).collect();
    let server_fields: BTreeSet<String> = server_errors.iter().map(|(field, _)| with_dots(field)).collect();
    let equals =
        |fields: &BTreeSet<String>, listed: &[&str]| fields.iter().map(String::as_str).eq(listed.iter().copied());
    let is_intended = INTENDED_DIFFERENCES
        .iter()
        .any(|(server, portico, _)| equals(&server_fields, server) && equals(&portico_fields, portico));
    // With unknown fields, the API server checks nothing else. All experimental fields are unknown in the standard
    // channel.
    let has_unknown_field =
        channel == Channel::Standard && server_errors.iter().any(|(_, message)| message.contains(UNKNOWN_FIELD));
    let agreed =
        server_fields == portico_fields || is_intended || has_unknown_field && server_fields.is_subset(&portico_fields);
    Ok((!agreed).then(|| format!("{}: server {server_errors:?}, portico {portico_fields:?}", case.name)))
}

/// Writes keys of maps after a dot. The API server writes them after a dot or in brackets, depending on the message,
/// and Portico writes brackets.
fn with_dots(field: &str) -> String {
    let mut parts = field.split('[');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |field, part| match part.split_once(']') {
        Some((key, rest)) if key.parse::<usize>().is_err() => format!("{field}.{key}{rest}"),
        _ => format!("{field}[{part}"),
    })
}

/// The fields that the API server rejects, with its messages; none if it accepts the object.
async fn rejected_by_server(client: &Client, case: &ValidationCase) -> Result<Vec<(String, String)>> {
    let ValidationCase { kind, object, .. } = case;
    let version = object["apiVersion"].as_str().context("no apiVersion")?;
    let group = if version.contains('/') { "apis" } else { "api" };
    let namespace = if kind.namespaced() { "/namespaces/default" } else { "" };
    let path = format!("/{group}/{version}{namespace}/{}?dryRun=All&fieldValidation=Strict", kind.plural());
    let request =
        Request::post(path).header("content-type", "application/json").body(object.to_string().into_bytes())?;
    let status = match client.request::<Value>(request).await {
        Ok(_) => return Ok(Vec::new()),
        Err(kube::Error::Api(status)) => status,
        Err(error) => bail!("{error}"),
    };
    let causes = status.details.map(|details| details.causes).unwrap_or_default();
    if causes.is_empty() {
        return unknown_fields(&status.message);
    }
    // Errors of the whole object have no field. Messages about skipped rules or unmatched schemas are ignored; only
    // messages of Portico's rules have two parts with a semicolon.
    let causes = causes.into_iter().filter(|cause| {
        cause.field != "<nil>"
            || (cause.message.contains("; ") && !cause.message.contains("some validation rules were not checked"))
    });
    let field = |field: String| if field == "<nil>" { String::new() } else { field };
    Ok(causes.map(|cause| (field(cause.field), cause.message)).collect())
}

/// The unknown fields, which the API server reports only in the message of the whole response.
fn unknown_fields(message: &str) -> Result<Vec<(String, String)>> {
    let unknown = message.split(UNKNOWN_FIELD).skip(1).map(|rest| {
        let (field, _) = rest.split_once('"').context("unterminated field name")?;
        Ok((field.to_owned(), message.to_owned()))
    });
    let unknown: Vec<_> = unknown.collect::<Result<_>>()?;
    ensure!(!unknown.is_empty(), "unexpected message: {message}");
    Ok(unknown)
}

/// Objects of the schema tests and of `core_objects.rs`; valid objects with an invalid value at each field; and objects
/// of the Gateway API with every snippet at every field that it is for.
fn cases(channel: Channel) -> Result<Vec<ValidationCase>> {
    let mut cases = Vec::new();
    let valid = valid_objects()?;
    for (file, kind, object) in &valid {
        cases.push(ValidationCase {
            name: format!("{file}: {}", object["metadata"]["name"]),
            kind: *kind,
            object: object.clone(),
        });
    }
    for (kind, mut object) in core_objects::objects() {
        let group = if kind.group().is_empty() { String::new() } else { format!("{}/", kind.group()) };
        let name = format!("{kind} {object}");
        object["apiVersion"] = json!(format!("{group}{}", kind.versions()[0]));
        object["kind"] = json!(kind.name());
        if object.get("metadata").is_none() {
            object["metadata"] = json!({ "name": "one" });
        }
        cases.push(ValidationCase { name, kind, object });
    }
    for (file, kind, object) in kind_objects("bad.yaml")? {
        cases.push(ValidationCase { name: format!("{file}: {kind} {}", object["metadata"]["name"]), kind, object });
    }
    let mut fields_by_path: BTreeMap<(&str, String), (Kind, &Value, String)> = BTreeMap::new();
    // Ingresses are excluded: the API server reports type errors in Kubernetes' own kinds without a field.
    for (_, kind, object) in valid.iter().filter(|(_, kind, _)| kind.group() != NETWORKING_GROUP) {
        for_each_field(object, String::new(), &mut |path| {
            let pointer = format!("/{}", path.replace(['.', '['], "/").replace(']', ""));
            fields_by_path.entry((kind.name(), schema_path(path))).or_insert((*kind, object, pointer));
        });
    }
    for ((_, schema_path), (kind, object, pointer)) in &fields_by_path {
        for (description, value) in
            invalid_values(object.pointer(pointer).context("the path does not exist in the object")?)
        {
            let mut object = (*object).clone();
            *object.pointer_mut(pointer).context("the path does not exist in the object")? = value;
            cases.push(ValidationCase { name: format!("{description} at {kind} {schema_path}"), kind: *kind, object });
        }
    }
    for (file, snippets) in snippets()? {
        let of_gateway_api = |kind: Kind| [GATEWAY_GROUP, GATEWAY_X_GROUP].contains(&kind.group());
        for ((_, schema_path), (kind, object, pointer)) in
            fields_by_path.iter().filter(|(_, (kind, ..))| of_gateway_api(*kind))
        {
            let is_for_field = |end: &String| {
                schema_path.strip_suffix(end.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            };
            if !snippets.at.iter().any(is_for_field) {
                continue;
            }
            for snippet in
                snippets.accepted.iter().chain(&snippets.refused).filter(|snippet| snippet.concerns(*kind, channel))
            {
                let mut object = (*object).clone();
                *object.pointer_mut(pointer).context("the path does not exist in the object")? = snippet.value.clone();
                cases.push(ValidationCase {
                    name: format!("{file} at {kind} {schema_path}: {}", snippet.name),
                    kind: *kind,
                    object,
                });
            }
        }
    }
    Ok(cases)
}

/// Values that are invalid instead of this one: another type and, for an object, an unknown field. Each with a
/// description.
fn invalid_values(value: &Value) -> Vec<(&'static str, Value)> {
    let other_type = match value {
        Value::String(_) => json!(7),
        _ => json!("text"),
    };
    let mut invalid = vec![("another type", other_type)];
    if let Some(fields) = value.as_object() {
        let mut fields = fields.clone();
        fields.insert("unknownField".to_owned(), json!(true));
        invalid.push(("an unknown field", Value::Object(fields)));
    }
    invalid
}

/// Valid objects with the names of their files.
fn valid_objects() -> Result<Vec<(String, Kind, Value)>> {
    let mut valid = kind_objects("good.yaml")?;
    for (name, text) in files("valid")? {
        valid.extend(objects(&name, &text)?);
    }
    Ok(valid)
}

/// The objects of a file in `tests/kinds`.
fn kind_objects(name: &str) -> Result<Vec<(String, Kind, Value)>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("tests").join("kinds").join(name);
    objects(name, &fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?)
}

/// The objects of a YAML file, with the name of the file.
fn objects(name: &str, text: &str) -> Result<Vec<(String, Kind, Value)>> {
    let read = |object: Value| {
        let group = object["apiVersion"].as_str().and_then(|version| version.split_once('/')).context("no group")?.0;
        let kind = object["kind"].as_str().and_then(|kind| Kind::find(group, kind)).context("no kind")?;
        Ok((name.to_owned(), kind, object))
    };
    let objects = serde_saphyr::from_multiple::<Value>(text).with_context(|| name.to_owned())?;
    objects.into_iter().map(read).collect()
}

/// Values for some fields; `tests/gateway_crds/corpus.rs` documents the format.
#[derive(Deserialize)]
struct Snippets {
    at: Vec<String>,
    #[serde(default)]
    accepted: Vec<Snippet>,
    refused: Vec<Snippet>,
}

#[derive(Deserialize)]
struct Snippet {
    name: String,
    value: Value,
    before: Option<Value>,
    channel: Option<String>,
    kinds: Option<Vec<String>>,
    version: Option<String>,
}

impl Snippet {
    /// Whether the snippet is for this kind and channel. Snippets for transition rules are for no new object.
    fn concerns(&self, kind: Kind, channel: Channel) -> bool {
        self.before.is_none()
            && self.version.is_none()
            && self.channel.as_ref().is_none_or(|only| only == channel.name())
            && self.kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|name| name == kind.name()))
    }
}

/// The snippets of all files, with the names of the files.
fn snippets() -> Result<Vec<(String, Snippets)>> {
    let read = |(name, text): (String, String)| {
        let snippets = serde_saphyr::from_str(&text).with_context(|| name.clone())?;
        Ok((name, snippets))
    };
    files("snippets")?.into_iter().map(read).collect()
}

/// Names and texts of the files in a folder of `tests/gateway_crds`.
fn files(folder: &str) -> Result<Vec<(String, String)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("tests").join("gateway_crds").join(folder);
    let mut paths = fs::read_dir(&folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>, _>>())
        .with_context(|| format!("cannot read {}", folder.display()))?;
    paths.sort();
    let read = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((name, fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?))
    };
    paths.iter().map(read).collect()
}

/// Calls `visit` with the paths of all fields except [`SKIPPED_FIELDS`].
fn for_each_field(value: &Value, path: String, visit: &mut impl FnMut(&str)) {
    for (index, entry) in value.as_array().into_iter().flatten().enumerate() {
        for_each_field(entry, format!("{path}[{index}]"), visit);
    }
    // Keys of labels and similar maps are not fields, and may contain separators.
    for (name, field) in value.as_object().into_iter().flatten().filter(|(name, _)| !name.contains(['.', '/'])) {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if !SKIPPED_FIELDS.iter().any(|name| path.starts_with(name)) {
            for_each_field(field, path, visit);
        }
    }
    if !path.is_empty() {
        visit(&path);
    }
}

/// Fields that all kinds have.
const SKIPPED_FIELDS: [&str; 4] = ["apiVersion", "kind", "metadata", "status"];

/// The path in the schema: `spec.rules[0].name` becomes `spec.rules[].name`.
fn schema_path(path: &str) -> String {
    path.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect::<Vec<_>>().join("[]")
}
