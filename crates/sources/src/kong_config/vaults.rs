//! Vaults, which become KongVaults, and references to their values in configurations of plugins.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::fields::FileFindings;
use super::model::Entity;
use super::names::Names;
use super::objects::Draft;
use super::settings::TranslationSettings;
use crate::api::kong::{DEFAULT_ENVIRONMENT_PREFIX, VaultReference};

/// The KongVaults.
pub(super) fn plan(vaults: Vec<Entity<'_>>, settings: &TranslationSettings, names: &mut Names) -> Vec<Draft> {
    let mut drafts = Vec::new();
    for mut vault in vaults {
        let findings = vault.fields.findings;
        let path = vault.path().to_owned();
        let (prefix, backend) = (vault.fields.text("prefix"), vault.name.clone());
        let description = vault.fields.text("description");
        let config = vault.fields.object("config").unwrap_or_default();
        let is_mistyped = ["prefix", "name"].iter().any(|name| vault.fields.is_mistyped(name));
        vault.fields.finish();
        let (Some(prefix), Some(backend)) = (prefix, backend) else {
            if !is_mistyped {
                let remedy = "write prefix, and the backend as the name";
                findings.reject(&path, "the vault has no prefix or no name", remedy);
            }
            continue;
        };
        if !BACKENDS.contains(&&*backend) {
            let remedy = format!("use {}, or a tool that copies its values into Secrets", BACKENDS.join(", "));
            findings.leave_out(&path, format!("vaults of the backend {backend} are not supported"), remedy);
            continue;
        }
        let name = names.name("KongVault", &prefix);
        let mut spec = Map::new();
        spec.insert("backend".to_owned(), json!(backend));
        spec.insert("prefix".to_owned(), json!(prefix));
        if let Some(description) = description {
            spec.insert("description".to_owned(), json!(description));
        }
        spec.insert("config".to_owned(), Value::Object(config));
        let draft = Draft::new("configuration.konghq.com/v1alpha1", "KongVault", &name, &path).cluster_wide();
        drafts.push(draft.of_class(settings).with("spec", Value::Object(spec)));
    }
    drafts
}

/// Rejects references where no vault is read: outside of configurations of plugins, or without the vault.
pub(super) fn check_references(file: &Value, findings: &FileFindings) {
    let vaults = file["vaults"].as_array().into_iter().flatten();
    let prefixes: HashSet<&str> = vaults.filter_map(|vault| vault["prefix"].as_str()).collect();
    check(file, "", ReferencePlace::File, &prefixes, findings);
}

/// Where a value is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ReferencePlace {
    File,
    /// In a list of plugins.
    Plugins,
    /// In the configuration of a plugin.
    Config,
    /// In the configuration of a vault, whose own references the compiler reads.
    Vault,
}

fn check(value: &Value, path: &str, place: ReferencePlace, prefixes: &HashSet<&str>, findings: &FileFindings) {
    match value {
        Value::String(text) if VaultReference::is_meant(text) && place != ReferencePlace::Vault => {
            check_reference(text, path, place, prefixes, findings);
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                check(item, &format!("{path}[{index}]"), place, prefixes, findings);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let inner = match (place, &**name) {
                    (ReferencePlace::File, "plugins") => ReferencePlace::Plugins,
                    (ReferencePlace::File, "vaults") => ReferencePlace::Vault,
                    (ReferencePlace::Plugins, "config") => ReferencePlace::Config,
                    (place, _) => place,
                };
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                check(field, &path, inner, prefixes, findings);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn check_reference(text: &str, path: &str, place: ReferencePlace, prefixes: &HashSet<&str>, findings: &FileFindings) {
    if place != ReferencePlace::Config {
        let message = "references to vaults are read in configurations of plugins only";
        let remedy = "write the value, or the name of an environment variable: ${{ env \"DECK_NAME\" }}";
        return findings.reject(path, message, remedy);
    }
    let reference = match VaultReference::parse(text) {
        Ok(reference) => reference,
        Err(problem) => {
            let message = format!("this is no reference to a vault: {problem}");
            return findings.reject(path, message, "write {vault://PREFIX/PATH} or {vault://PREFIX/PATH/KEY}");
        }
    };
    let prefix = &*reference.prefix;
    if prefix == "env" && !prefixes.contains("env") {
        let read = reference.environment_variable(DEFAULT_ENVIRONMENT_PREFIX);
        let message =
            format!("the value is read from variable {read} instead of {}", reference.environment_variable(""));
        findings.differs(path, message, "set that variable, or add a vault with a prefix of its own");
    } else if !prefixes.contains(prefix) {
        let message = format!("no vault of this file has the prefix {prefix:?}");
        findings.reject(path, message, "add it to vaults, or correct the prefix");
    }
}

const BACKENDS: [&str; 4] = ["env", "hcv", "aws", "gcp"];
