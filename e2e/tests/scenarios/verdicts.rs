//! The API server and `portico check` say the same of good and bad objects: whether they take them, and at which field
//! they do not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use http::Request;
use kube::Client;
use portico::api::Kind;
use portico::api::gateway::Channel;
use portico::api::kind::{GATEWAY_GROUP, GATEWAY_X_GROUP, KONG_GROUP, KONG_INCUBATOR_GROUP, NETWORKING_GROUP};
use portico::schema;
use portico_e2e::cluster::Cluster;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::core_objects;

/// How many objects are asked about at a time.
const AT_A_TIME: usize = 8;
/// Fewer would mean that the corpus was not found.
const AT_LEAST: usize = 300;

/// Where they name other fields on purpose: the API server's, ours, and why.
const NAMED_OTHERWISE: &[(&[&str], &[&str], &str)] = &[
    (&["metadata.labels"], &["metadata.labels.a b"], "ours says which label"),
    (&["metadata.labels"], &["metadata.labels.a"], "ours says which label"),
    (&["endpoints[0].addresses"], &["endpoints[0].addresses[0]"], "ours says which address"),
    (&["data.a"], &["binaryData.a"], "the key is in both"),
    (
        &["spec.clusterIPs[0]"],
        &["spec.clusterIP"],
        "the list is what the API server makes of the field that was written",
    ),
    (
        &["spec.ports[0].port", "spec.ports[0].targetPort"],
        &["spec.ports[0].port"],
        "the second is what the API server makes of the first",
    ),
    (
        &["annotations.kubernetes.io/ingress.class"],
        &["metadata.annotations.kubernetes.io/ingress.class"],
        "ours begins where all fields of an object do",
    ),
    (&["spec.defaultBackend"], &["spec.defaultBackend.service.port"], "ours says what of the backend"),
    (&["endpoints[0].addresses[0]"], &[], "manifests without a cluster lead to backends on the same machine"),
];

/// How the API server speaks of a field that nobody knows.
const UNKNOWN: &str = "unknown field \"";

/// An object, and where it is from.
struct Case {
    name: String,
    kind: Kind,
    object: Value,
}

/// Needs the CRDs of this channel.
pub(crate) async fn the_api_server_and_portico_agree(cluster: &Cluster, channel: Channel) -> Result<()> {
    let cases: Vec<Case> = cases(channel)?.into_iter().filter(|case| case.is_of(channel)).collect();
    ensure!(cases.len() >= AT_LEAST, "only {} objects are in the corpus", cases.len());
    let lines: Vec<Option<String>> = stream::iter(cases)
        .map(|case| {
            let client = cluster.client();
            async move { judge(&client, &case, channel).await.with_context(|| case.name.clone()) }
        })
        .buffer_unordered(AT_A_TIME)
        .try_collect()
        .await?;
    let number = lines.len();
    let mut lines: Vec<String> = lines.into_iter().flatten().collect();
    lines.sort();
    ensure!(lines.is_empty(), "of {number} objects {} are judged otherwise:\n{}", lines.len(), lines.join("\n"));
    Ok(())
}

impl Case {
    /// Whether the channel has its kind at all.
    fn is_of(&self, channel: Channel) -> bool {
        // Kong's kinds are installed beside one of the channels only: they are in neither.
        if channel == Channel::Standard && [KONG_GROUP, KONG_INCUBATOR_GROUP].contains(&self.kind.group()) {
            return false;
        }
        let bare = json!({ "apiVersion": self.object["apiVersion"], "kind": self.object["kind"] });
        let violations = schema::check(self.kind, &mut bare.clone(), channel);
        !violations.iter().any(|violation| violation.field == "kind")
    }
}

/// How the two differ about an object.
async fn judge(client: &Client, case: &Case, channel: Channel) -> Result<Option<String>> {
    let theirs = refused_by_server(client, case).await?;
    let ours = schema::check(case.kind, &mut case.object.clone(), channel);
    let ours: BTreeSet<String> = ours.iter().map(|violation| with_dots(&violation.field)).collect();
    let fields: BTreeSet<String> = theirs.iter().map(|(field, _)| with_dots(field)).collect();
    let same =
        |fields: &BTreeSet<String>, listed: &[&str]| fields.iter().map(String::as_str).eq(listed.iter().copied());
    let on_purpose = NAMED_OTHERWISE.iter().any(|(server, portico, _)| same(&fields, server) && same(&ours, portico));
    // It looks no further than for unknown fields where there are some, as all that are experimental are in the other channel.
    let looked_no_further = channel == Channel::Standard && theirs.iter().any(|(_, why)| why.contains(UNKNOWN));
    let agreed = fields == ours || on_purpose || looked_no_further && fields.is_subset(&ours);
    Ok((!agreed).then(|| format!("{}: server {theirs:?}, portico {ours:?}", case.name)))
}

/// Keys of maps are in brackets, in some messages of the API server and in ours, and after a dot in others of its.
fn with_dots(field: &str) -> String {
    let mut parts = field.split('[');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |field, part| match part.split_once(']') {
        Some((key, rest)) if key.parse::<usize>().is_err() => format!("{field}.{key}{rest}"),
        _ => format!("{field}[{part}"),
    })
}

/// The fields that the API server refuses, with its reasons; none if it takes the object.
async fn refused_by_server(client: &Client, case: &Case) -> Result<Vec<(String, String)>> {
    let Case { kind, object, .. } = case;
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
        return unreadable(&status.message);
    }
    // What is wrong with the object as a whole names no field. Neither does that some rules were not tried, or none of
    // several schemas fits; only messages of rules have two halves.
    let causes = causes.into_iter().filter(|cause| {
        cause.field != "<nil>"
            || (cause.message.contains("; ") && !cause.message.contains("some validation rules were not checked"))
    });
    let field = |field: String| if field == "<nil>" { String::new() } else { field };
    Ok(causes.map(|cause| (field(cause.field), cause.message)).collect())
}

/// The fields that nobody knows, which the API server only tells in words.
fn unreadable(message: &str) -> Result<Vec<(String, String)>> {
    let unknown = message.split(UNKNOWN).skip(1).map(|rest| {
        let (field, _) = rest.split_once('"').context("it ends")?;
        Ok((field.to_owned(), message.to_owned()))
    });
    let unknown: Vec<_> = unknown.collect::<Result<_>>()?;
    ensure!(!unknown.is_empty(), "not understood: {message}");
    Ok(unknown)
}

/// The objects of the schema's own tests: valid ones as they stand, and with every snippet in every place that it is for.
fn cases(channel: Channel) -> Result<Vec<Case>> {
    let mut cases = Vec::new();
    let valid = valid()?;
    for (file, kind, object) in &valid {
        cases.push(Case {
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
        cases.push(Case { name, kind, object });
    }
    for (file, kind, object) in own("bad.yaml")? {
        cases.push(Case { name: format!("{file}: {kind} {}", object["metadata"]["name"]), kind, object });
    }
    let mut places: BTreeMap<(&str, String), (Kind, &Value, String)> = BTreeMap::new();
    // What cannot even be read as one of Kubernetes' own kinds is told in words, without a field.
    for (_, kind, object) in valid.iter().filter(|(_, kind, _)| kind.group() != NETWORKING_GROUP) {
        find(object, String::new(), &mut |path| {
            let pointer = format!("/{}", path.replace(['.', '['], "/").replace(']', ""));
            places.entry((kind.name(), node(path))).or_insert((*kind, object, pointer));
        });
    }
    for ((_, node), (kind, object, pointer)) in &places {
        for (fault, value) in faults(object.pointer(pointer).context("the place is in the object")?) {
            let mut object = (*object).clone();
            *object.pointer_mut(pointer).context("the place is in the object")? = value;
            cases.push(Case { name: format!("{fault} at {kind} {node}"), kind: *kind, object });
        }
    }
    for (file, snippets) in snippets()? {
        let of_gateway_api = |kind: Kind| [GATEWAY_GROUP, GATEWAY_X_GROUP].contains(&kind.group());
        for ((_, node), (kind, object, pointer)) in places.iter().filter(|(_, (kind, ..))| of_gateway_api(*kind)) {
            let for_it = |end: &String| {
                node.strip_suffix(end.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            };
            if !snippets.at.iter().any(for_it) {
                continue;
            }
            for snippet in
                snippets.accepted.iter().chain(&snippets.refused).filter(|snippet| snippet.concerns(*kind, channel))
            {
                let mut object = (*object).clone();
                *object.pointer_mut(pointer).context("the place is in the object")? = snippet.value.clone();
                cases.push(Case { name: format!("{file} at {kind} {node}: {}", snippet.name), kind: *kind, object });
            }
        }
    }
    Ok(cases)
}

/// What is wrong anywhere: another type, and a field that nobody knows.
fn faults(value: &Value) -> Vec<(&'static str, Value)> {
    let other = match value {
        Value::String(_) => json!(7),
        _ => json!("text"),
    };
    let mut faults = vec![("another type", other)];
    if let Some(fields) = value.as_object() {
        let mut fields = fields.clone();
        fields.insert("nobodyKnowsIt".to_owned(), json!(true));
        faults.push(("an unknown field", Value::Object(fields)));
    }
    faults
}

fn valid() -> Result<Vec<(String, Kind, Value)>> {
    let mut valid = own("good.yaml")?;
    for (name, text) in files("valid")? {
        valid.extend(objects(&name, &text)?);
    }
    Ok(valid)
}

/// The objects of `tests/kinds`.
fn own(name: &str) -> Result<Vec<(String, Kind, Value)>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("tests").join("kinds").join(name);
    objects(name, &fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?)
}

fn objects(name: &str, text: &str) -> Result<Vec<(String, Kind, Value)>> {
    let read = |object: Value| {
        let group = object["apiVersion"].as_str().and_then(|version| version.split_once('/')).context("no group")?.0;
        let kind = object["kind"].as_str().and_then(|kind| Kind::find(group, kind)).context("no kind")?;
        // Status is not judged where it is a resource of its own.
        Ok((name.to_owned(), kind, object))
    };
    let objects = serde_saphyr::from_multiple::<Value>(text).with_context(|| name.to_owned())?;
    objects.into_iter().map(read).collect()
}

/// Values for one place, as `tests/gateway_crds/corpus.rs` describes them.
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
    /// What is refused only as a change cannot be said of a new object.
    fn concerns(&self, kind: Kind, channel: Channel) -> bool {
        self.before.is_none()
            && self.version.is_none()
            && self.channel.as_ref().is_none_or(|only| only == channel.name())
            && self.kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|name| name == kind.name()))
    }
}

fn snippets() -> Result<Vec<(String, Snippets)>> {
    let read = |(name, text): (String, String)| {
        let snippets = serde_saphyr::from_str(&text).with_context(|| name.clone())?;
        Ok((name, snippets))
    };
    files("snippets")?.into_iter().map(read).collect()
}

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

/// Calls `found` with every path but those of the head.
fn find(value: &Value, path: String, found: &mut impl FnMut(&str)) {
    for (index, entry) in value.as_array().into_iter().flatten().enumerate() {
        find(entry, format!("{path}[{index}]"), found);
    }
    // Keys of labels and the like are no fields, and may have the characters that separate fields.
    for (name, field) in value.as_object().into_iter().flatten().filter(|(name, _)| !name.contains(['.', '/'])) {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if !HEAD.iter().any(|name| path.starts_with(name)) {
            find(field, path, found);
        }
    }
    if !path.is_empty() {
        found(&path);
    }
}

const HEAD: [&str; 4] = ["apiVersion", "kind", "metadata", "status"];

/// `spec.rules[0].name` is one of the node `spec.rules[].name`.
fn node(path: &str) -> String {
    path.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect::<Vec<_>>().join("[]")
}
