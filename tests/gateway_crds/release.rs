//! The definitions of the release, in the layout of `scripts/gateway-crds.sh`.

use std::path::{Path, PathBuf};

use portico::api::Kind;
use portico::api::gateway::Channel;
use serde_json::Value;

/// One served version of one kind in one channel.
pub(crate) struct Definition {
    pub(crate) kind: Kind,
    pub(crate) version: String,
    pub(crate) channel: Channel,
    pub(crate) plural: String,
    pub(crate) namespaced: bool,
    pub(crate) schema: Value,
}

impl Definition {
    /// Name in messages.
    pub(crate) fn name(&self) -> String {
        format!("{} {} ({})", self.kind, self.version, self.channel.name())
    }
}

/// An object from the examples of the release.
pub(crate) struct Example {
    pub(crate) file: String,
    pub(crate) kind: Kind,
    pub(crate) channel: Channel,
    pub(crate) object: Value,
}

/// All definitions of the release, in a fixed order.
pub(crate) fn definitions() -> Vec<Definition> {
    let mut definitions = Vec::new();
    for channel in Channel::ALL {
        for (_, document) in documents("crds", channel) {
            if document["kind"] == "CustomResourceDefinition" {
                add_served_versions(&document, channel, &mut definitions);
            }
        }
    }
    definitions
}

/// Gateway API objects in the examples of valid objects.
pub(crate) fn examples() -> Vec<Example> {
    examples_in("examples")
}

/// Gateway API objects in the examples of invalid objects.
pub(crate) fn invalid_examples() -> Vec<Example> {
    examples_in("invalid-examples")
}

fn examples_in(folder: &str) -> Vec<Example> {
    let mut examples = Vec::new();
    for channel in Channel::ALL {
        for (file, object) in documents(folder, channel) {
            let group =
                object["apiVersion"].as_str().and_then(|version| version.split_once('/')).map(|(group, _)| group);
            let kind = group.zip(object["kind"].as_str()).and_then(|(group, kind)| Kind::find(group, kind));
            if let Some(kind) = kind.filter(|kind| kind.group().starts_with("gateway.")) {
                examples.push(Example { file: file.display().to_string(), kind, channel, object });
            }
        }
    }
    assert!(!examples.is_empty(), "the release has no {folder}");
    examples
}

/// All documents in a folder of one channel, with their files.
fn documents(folder: &str, channel: Channel) -> Vec<(PathBuf, Value)> {
    let mut documents = Vec::new();
    for file in files(&release_folder().join(folder).join(channel.name())) {
        let text = std::fs::read_to_string(&file).unwrap();
        let read: Vec<Value> =
            serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        documents.extend(read.into_iter().map(|document| (file.clone(), document)));
    }
    documents
}

/// The YAML files in a folder and its subfolders, in a fixed order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| {
        panic!(
            "{}: {error}; run scripts/gateway-crds.sh, which downloads the CRDs of the release, or set \
             PORTICO_GATEWAY_CRDS to the folder that it prints",
            folder.display()
        )
    });
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn add_served_versions(document: &Value, channel: Channel, definitions: &mut Vec<Definition>) {
    let spec = &document["spec"];
    let (group, name) = (spec["group"].as_str().unwrap(), spec["names"]["kind"].as_str().unwrap());
    let kind = Kind::find(group, name)
        .unwrap_or_else(|| panic!("the release contains {name} of {group}, which Portico lacks"));
    let versions = spec["versions"].as_array().unwrap();
    for version in versions.iter().filter(|version| version["served"] == true) {
        definitions.push(Definition {
            kind,
            version: version["name"].as_str().unwrap().to_owned(),
            channel,
            plural: spec["names"]["plural"].as_str().unwrap().to_owned(),
            namespaced: spec["scope"] == "Namespaced",
            schema: version["schema"]["openAPIV3Schema"].clone(),
        });
    }
}

fn release_folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("PORTICO_GATEWAY_CRDS") {
        return PathBuf::from(folder);
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    cache.unwrap_or_else(|| home.join(".cache")).join("portico/gateway-api-release-v1.7.0")
}
