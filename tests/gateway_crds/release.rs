//! The definitions of the release, as `scripts/gateway-crds.sh` lays them down.

use std::path::PathBuf;

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
    /// As messages name it.
    pub(crate) fn name(&self) -> String {
        format!("{} {} ({})", self.kind, self.version, self.channel.name())
    }
}

/// Everything that the release serves, in a fixed order.
pub(crate) fn definitions() -> Vec<Definition> {
    let folder = folder();
    let mut definitions = Vec::new();
    for channel in Channel::ALL {
        let folder = folder.join(channel.name());
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| {
            panic!(
                "{}: {error}; run scripts/gateway-crds.sh, which puts the CRDs of the release there, or set \
                 PORTICO_GATEWAY_CRDS to the folder that it prints",
                folder.display()
            )
        });
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            let documents: Vec<Value> =
                serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            for document in documents.iter().filter(|document| document["kind"] == "CustomResourceDefinition") {
                add(document, channel, &mut definitions);
            }
        }
    }
    definitions
}

fn add(document: &Value, channel: Channel, definitions: &mut Vec<Definition>) {
    let spec = &document["spec"];
    let (group, name) = (spec["group"].as_str().unwrap(), spec["names"]["kind"].as_str().unwrap());
    let kind = Kind::find(group, name).unwrap_or_else(|| panic!("the release has {name} of {group}, we have not"));
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

fn folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("PORTICO_GATEWAY_CRDS") {
        return PathBuf::from(folder);
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    cache.unwrap_or_else(|| home.join(".cache")).join("portico/gateway-api-v1.7.0")
}
