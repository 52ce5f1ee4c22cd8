//! Test objects: valid ones, and snippets that are inserted into them wherever they fit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use portico::api::Kind;
use portico::api::gateway::Channel;
use serde::Deserialize;
use serde_json::Value;

use super::nodes::node_of;
use super::release::Definition;

/// Values for one type in a schema. They are accepted or rejected wherever a schema repeats the type.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Snippets {
    #[serde(skip)]
    pub(crate) file: String,
    /// Suffixes of node paths: `backendRef` is every field of that name, `filters[]` every entry of such a list.
    at: Vec<String>,
    #[serde(default)]
    pub(crate) accepted: Vec<Snippet>,
    pub(crate) refused: Vec<Snippet>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Snippet {
    pub(crate) name: String,
    pub(crate) value: Value,
    /// The value before the update, for rules that compare the two.
    pub(crate) before: Option<Value>,
    /// Restricts the snippet to a channel, kinds and a version.
    channel: Option<String>,
    kinds: Option<Vec<String>>,
    version: Option<String>,
}

/// A valid object, and whether it has fields that exist only in the experimental channel.
pub(crate) struct ValidObject {
    pub(crate) file: String,
    kind: Kind,
    experimental: bool,
    object: Value,
}

/// The object and the path in it at which a snippet is inserted.
pub(crate) struct Place<'a> {
    object: &'a Value,
    /// In the format of messages: `spec.rules[0].filters[2]`.
    pub(crate) path: String,
}

impl Snippets {
    pub(crate) fn all() -> Vec<Snippets> {
        let mut all = Vec::new();
        for file in files("snippets") {
            let mut snippets: Snippets =
                serde_saphyr::from_str(&read(&file)).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            snippets.file = file_name(&file);
            all.push(snippets);
        }
        all
    }

    /// Places in the objects of a definition that match these snippets, each node once.
    pub(crate) fn places<'a>(&self, places: &'a BTreeMap<String, Place<'a>>) -> Vec<&'a Place<'a>> {
        let is_selected = |node: &str| {
            self.at.iter().any(|suffix| {
                node.strip_suffix(suffix.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            })
        };
        places.iter().filter(|(node, _)| is_selected(node)).map(|(_, place)| place).collect()
    }
}

impl Snippet {
    pub(crate) fn applies_to(&self, definition: &Definition) -> bool {
        self.channel.as_ref().is_none_or(|channel| channel == definition.channel.name())
            && self.kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|kind| kind == definition.kind.name()))
            && self.version.as_ref().is_none_or(|version| *version == definition.version)
    }
}

impl ValidObject {
    pub(crate) fn all() -> Vec<ValidObject> {
        let mut all = Vec::new();
        for file in files("valid") {
            let documents: Vec<Value> =
                serde_saphyr::from_multiple(&read(&file)).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            for object in documents {
                let (group, _) = object["apiVersion"].as_str().unwrap().split_once('/').unwrap();
                let kind = Kind::find(group, object["kind"].as_str().unwrap()).unwrap();
                let experimental = file_name(&file).ends_with(".experimental.yaml");
                all.push(ValidObject { file: file_name(&file), kind, experimental, object });
            }
        }
        all
    }

    /// The object in the version of a definition, if its channel has the fields.
    pub(crate) fn for_definition(&self, definition: &Definition) -> Option<Value> {
        let has_fields = definition.channel == Channel::Experimental || !self.experimental;
        (self.kind == definition.kind && has_fields).then(|| {
            let mut object = self.object.clone();
            object["apiVersion"] = format!("{}/{}", self.kind.group(), definition.version).into();
            object
        })
    }
}

impl Place<'_> {
    /// Returns the valid object with this value inserted.
    pub(crate) fn with_value(&self, value: &Value) -> Value {
        let mut object = self.object.clone();
        let pointer = format!("/{}", self.path.replace(['.', '['], "/").replace(']', ""));
        *object.pointer_mut(&pointer).expect("the path was found in this object") = value.clone();
        object
    }
}

/// One place for every node that exists in any of the objects.
pub(crate) fn places(objects: &[Value]) -> BTreeMap<String, Place<'_>> {
    let mut places = BTreeMap::new();
    for object in objects {
        collect_places(object, object, String::new(), &mut places);
    }
    places
}

fn collect_places<'a>(object: &'a Value, value: &Value, path: String, places: &mut BTreeMap<String, Place<'a>>) {
    for (index, entry) in value.as_array().into_iter().flatten().enumerate() {
        collect_places(object, entry, format!("{path}[{index}]"), places);
    }
    // Keys of maps such as labels are not fields and may contain separator characters.
    for (name, field) in value.as_object().into_iter().flatten().filter(|(name, _)| !name.contains(['.', '/'])) {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        collect_places(object, field, path, places);
    }
    places.entry(node_of(&path)).or_insert(Place { object, path });
}

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway_crds").join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap()
}

fn file_name(file: &Path) -> String {
    file.file_name().unwrap().to_string_lossy().into_owned()
}
