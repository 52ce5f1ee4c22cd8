//! KongVaults: where the values of references such as `{vault://PREFIX/PATH/KEY}` are, and the verdicts on the objects.
//!
//! | backend | value |
//! | --- | --- |
//! | `env` | a variable of the environment that begins with the prefix of the vault |
//! | `kubernetes` | a key of one of the Secrets that the vault lists |
//! | `hcv` | a key of a secret of a server with the API of HashiCorp Vault or OpenBao, which another task reads |
//! | `aws`, `gcp` | a secret of AWS Secrets Manager or Google Cloud Secret Manager, or a key of it, read likewise |
//!
//! Without a KongVault, `env` is a vault whose variables begin with `PORTICO_VAULT_`.

mod settings;

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use crate::api::kong::{ControlPlaneRef, KongVault};
use crate::api::kong::{DEFAULT_ENVIRONMENT_PREFIX, VaultReference};
use crate::api::{Kind, Object, ObjectId, ObjectKey};
use crate::compile::CompileContext;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::vault::{VaultQuery, VaultResponse, VaultServer, VaultValues};
use crate::store::Store;
use crate::verdict::{Code, Condition, Verdict};

/// Where the values of a vault are.
#[derive(Clone, Debug)]
enum VaultBackend {
    Environment { prefix: String, is_base64: bool },
    Secrets { namespace: String, names: Vec<String>, is_base64: bool },
    Server { server: Arc<VaultServer>, is_base64: bool },
}

/// What a reference leads to now.
#[derive(Debug)]
pub(in crate::compile) enum ResolvedValue {
    Known(String),
    /// There is no value: the message and the remedy.
    Missing(String, String),
    /// This process does not know the values, because it will not serve requests.
    Unknown,
}

/// Resolves a reference. The query is the one that another task must send, whatever the result.
pub(in crate::compile) fn resolve(
    cx: CompileContext<'_>,
    reference: &VaultReference,
) -> (ResolvedValue, Option<Arc<VaultQuery>>) {
    let values = VaultValues::of(&cx.inputs.plugin_factory.state);
    let missing = |message: String, remedy: &str| (ResolvedValue::Missing(message, remedy.to_owned()), None);
    let backend = match find(cx, &reference.prefix) {
        Some(vault) => match settings::parse(cx, &values, vault) {
            Ok(backend) => backend,
            Err(_) => {
                let message = format!("KongVault {} of this reference cannot be used", vault.meta.key);
                return missing(message, "fix the error reported for it");
            }
        },
        None if reference.prefix == "env" => {
            VaultBackend::Environment { prefix: DEFAULT_ENVIRONMENT_PREFIX.to_owned(), is_base64: false }
        }
        None => {
            let message = format!("no KongVault has the prefix {:?}", reference.prefix);
            return match cx.store.rejected_of_kind(Kind::KongVault).next() {
                Some(rejected) => {
                    let message = format!("{message}, and KongVault {rejected} was rejected");
                    missing(message, "fix the error reported for it, or correct the prefix")
                }
                None => missing(message, "create it, or correct the prefix"),
            };
        }
    };
    let has_versions = matches!(&backend, VaultBackend::Server { server, .. } if server.api.has_numbered_versions());
    if reference.version.is_some() && !has_versions {
        return missing("secrets of this vault have no numbered versions".to_owned(), "remove the version");
    }
    match backend {
        VaultBackend::Environment { prefix, is_base64 } => {
            let Some(environment) = values.environment() else { return (ResolvedValue::Unknown, None) };
            let name = reference.environment_variable(&prefix);
            let Some(value) = environment.get(&name) else {
                return missing(format!("variable {name} is not set"), "set it in the environment of Portico");
            };
            (decoded(part_of(value, reference, &format!("variable {name}")), is_base64), None)
        }
        VaultBackend::Secrets { namespace, names, is_base64 } => {
            if !names.contains(&reference.path) {
                let message = format!("the vault does not list Secret {}", reference.path);
                return missing(message, "add it to spec.config.secrets of the KongVault");
            }
            let key = ObjectKey::new(&namespace, &reference.path);
            let Some(secret) = cx.store.secrets.get(&key) else {
                return missing(format!("Secret {key} does not exist"), "create it, or correct the name");
            };
            let Some(entry) = &reference.key else {
                return missing("the reference has no key of the Secret".to_owned(), "add it as the last segment");
            };
            match secret.value(entry).map(std::str::from_utf8) {
                Some(Ok(text)) => (decoded(ResolvedValue::Known(text.to_owned()), is_base64), None),
                Some(Err(_)) => missing(format!("key {entry} of Secret {key} is not text"), "store text in UTF-8"),
                None => missing(format!("Secret {key} has no key {entry}"), "add it, or correct the key"),
            }
        }
        VaultBackend::Server { server, is_base64 } => {
            if values.environment().is_none() {
                return (ResolvedValue::Unknown, None);
            }
            let default_key = server.api.default_key();
            let query = Arc::new(VaultQuery { server, path: reference.path.clone(), version: reference.version });
            let resolved = match values.response(&query) {
                Some(VaultResponse::Found(found)) => decoded(key_of(&found, reference, default_key), is_base64),
                Some(VaultResponse::Failed(reason)) => {
                    let remedy = "correct the reference or the vault; it is read again after a while";
                    ResolvedValue::Missing(reason, remedy.to_owned())
                }
                None => {
                    let message = format!("the value of {} is not read yet", reference.path);
                    ResolvedValue::Missing(message, "wait until the vault has responded".to_owned())
                }
            };
            (resolved, Some(query))
        }
    }
}

/// The key of a secret with several.
fn key_of(found: &BTreeMap<String, String>, reference: &VaultReference, default_key: &str) -> ResolvedValue {
    let key = reference.key.as_deref().unwrap_or(default_key);
    match found.get(key) {
        Some(value) => ResolvedValue::Known(value.clone()),
        None => {
            let message = format!("secret {} has no key {key}", reference.path);
            ResolvedValue::Missing(message, "add it, or correct the key".to_owned())
        }
    }
}

/// A text, or one key of it if it is a JSON object. Messages do not contain the text.
fn part_of(text: &str, reference: &VaultReference, source: &str) -> ResolvedValue {
    let Some(key) = &reference.key else { return ResolvedValue::Known(text.to_owned()) };
    let found = serde_json::from_str::<Value>(text).ok().and_then(|mut object| {
        let value = object.as_object_mut()?.remove(key)?;
        match value {
            Value::String(text) => Some(text),
            Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    });
    found.map_or_else(
        || {
            let message = format!("{source} is not a JSON object with text at the key {key}");
            ResolvedValue::Missing(message, "correct the variable, or remove the key from the reference".to_owned())
        },
        ResolvedValue::Known,
    )
}

fn decoded(value: ResolvedValue, is_base64: bool) -> ResolvedValue {
    let ResolvedValue::Known(text) = &value else { return value };
    if !is_base64 {
        return value;
    }
    let bytes = BASE64_STANDARD.decode(text.trim()).ok();
    match bytes.and_then(|bytes| String::from_utf8(bytes).ok()) {
        Some(text) => ResolvedValue::Known(text),
        None => ResolvedValue::Missing(
            "the value is not text in base64, as base64_decode of the vault requires".to_owned(),
            "encode it, or use a vault without base64_decode".to_owned(),
        ),
    }
}

/// The vault with this prefix: of several, the oldest, then the first by name.
fn find<'s>(cx: CompileContext<'s>, prefix: &str) -> Option<&'s Arc<Object<KongVault>>> {
    let with_prefix = cx.store.kong_vaults.values().filter(|vault| vault.spec.prefix == prefix);
    with_prefix.filter(|vault| is_served(cx, vault)).min_by_key(|vault| (vault.meta.created, vault.meta.key.clone()))
}

fn is_served(cx: CompileContext<'_>, vault: &Object<KongVault>) -> bool {
    let is_of_this_control_plane =
        vault.spec.control_plane_ref.as_ref().is_none_or(ControlPlaneRef::is_this_controller);
    is_of_this_control_plane && cx.inputs.classes.serves_object(cx.store, &vault.meta, None)
}

/// The verdict on a KongVault. `None` if it does not exist.
pub(in crate::compile) fn verdict(cx: CompileContext<'_>, key: &ObjectKey) -> Option<Verdict> {
    let vault = cx.store.kong_vaults.get(key)?;
    let mut verdict = Verdict { generation: vault.meta.generation, ..Verdict::default() };
    if !is_served(cx, vault) {
        return Some(verdict);
    }
    let values = VaultValues::of(&cx.inputs.plugin_factory.state);
    let mut problems = settings::parse(cx, &values, vault).err().unwrap_or_default();
    if let Some(owner) = find(cx, &vault.spec.prefix).filter(|owner| owner.meta.key != *key) {
        let message = format!("KongVault {} is older and has the same prefix, so this one is not used", owner.meta.key);
        problems.push(Diagnostic::error("spec.prefix", message, "choose another prefix"));
    }
    verdict.conditions.push(match problems.is_empty() {
        true => Condition::without_diagnostics(Code::ObjectProgrammed),
        false => Condition::new(Code::ObjectInvalid, problems),
    });
    Some(verdict)
}

/// Whether one of these objects is a KongVault.
pub(in crate::compile) fn contains_vault<'i>(ids: impl IntoIterator<Item = &'i ObjectId>) -> bool {
    ids.into_iter().any(|id| id.kind == Kind::KongVault)
}

pub(in crate::compile) fn exist(store: &Store) -> bool {
    !store.kong_vaults.is_empty()
}

/// All KongVaults: of several with one prefix, a change of one affects the verdicts on the others.
pub(in crate::compile) fn ids(store: &Store) -> impl Iterator<Item = ObjectId> {
    store.kong_vaults.keys().map(|key| ObjectId::new(Kind::KongVault, key.clone()))
}

#[cfg(test)]
mod tests;
