//! The field `config` of a KongVault, which depends on its backend.

mod cloud;

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::VaultBackend;
use crate::api::kong::{DEFAULT_ENVIRONMENT_PREFIX, VaultReference};
use crate::api::kong::{KongVault, ValueReference};
use crate::api::{Kind, Object, ObjectKey};
use crate::compile::CompileContext;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::vault::{
    AppRoleSecret, HashicorpVault, KvVersion, VaultApi, VaultLogin, VaultServer, VaultToken, VaultValues,
};

/// Settings of the backend `env`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvironmentConfig {
    prefix: Option<String>,
    base64_decode: Option<bool>,
    // Accepted, as in Kong: the environment of a process does not change.
    #[serde(rename = "ttl")]
    _ttl: Option<f64>,
    #[serde(rename = "neg_ttl")]
    _neg_ttl: Option<f64>,
    #[serde(rename = "resurrect_ttl")]
    _resurrect_ttl: Option<f64>,
}

/// Settings of the backend `kubernetes`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretsConfig {
    namespace: String,
    secrets: Vec<String>,
    base64_decode: Option<bool>,
}

/// Settings of the backend `hcv`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServerConfig {
    protocol: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    ssl_verify: Option<bool>,
    namespace: Option<String>,
    mount: Option<String>,
    kv: Option<String>,
    auth_method: Option<String>,
    /// A text, a reference to the environment, or `{secretKeyRef: …}`.
    token: Option<Value>,
    kube_role: Option<String>,
    kube_auth_path: Option<String>,
    kube_api_token_file: Option<PathBuf>,
    approle_auth_path: Option<String>,
    /// A text, a reference to the environment, or `{secretKeyRef: …}`, as that of the secret.
    approle_role_id: Option<Value>,
    approle_secret_id: Option<Value>,
    approle_secret_id_file: Option<PathBuf>,
    base64_decode: Option<bool>,
    ttl: Option<f64>,
    neg_ttl: Option<f64>,
    resurrect_ttl: Option<f64>,
}

/// Reads the settings of a vault.
pub(super) fn parse(
    cx: CompileContext<'_>,
    values: &VaultValues,
    vault: &Object<KongVault>,
) -> Result<VaultBackend, Vec<Diagnostic>> {
    match &*vault.spec.backend {
        "env" => environment(&config(vault)?),
        "kubernetes" => secrets(config(vault)?),
        "hcv" => hashicorp(cx, values, vault, config(vault)?),
        "aws" => cloud::aws(cx, values, vault, &config(vault)?),
        "gcp" => cloud::google(cx, values, vault, &config(vault)?),
        other => {
            let message = match other {
                "azure" | "conjur" => format!("the backend {other} is not supported by this version"),
                _ => format!("{other:?} is not a backend"),
            };
            let remedy = "use env, kubernetes, hcv, aws or gcp; tools such as External Secrets copy values of other \
                          vaults into Secrets";
            Err(vec![Diagnostic::error("spec.backend", message, remedy)])
        }
    }
}

/// Messages do not contain values, which may be secrets in the wrong field.
fn config<T: DeserializeOwned>(vault: &Object<KongVault>) -> Result<T, Vec<Diagnostic>> {
    let config = Value::Object(vault.spec.config.clone().unwrap_or_default());
    serde_path_to_error::deserialize(config).map_err(|error| {
        let path = error.path().to_string();
        let text = error.into_inner().to_string();
        let field = if path == "." { "spec.config".to_owned() } else { format!("spec.config.{path}") };
        let message = match text.starts_with("unknown field") || text.starts_with("missing field") {
            true => text,
            false => "the value has another type than the field requires".to_owned(),
        };
        vec![Diagnostic::error(field, message, format!("write the fields of the backend {}", vault.spec.backend))]
    })
}

fn problem(field: &str, message: impl Into<String>, remedy: impl Into<String>) -> Vec<Diagnostic> {
    vec![Diagnostic::error(format!("spec.config.{field}"), message, remedy)]
}

fn environment(config: &EnvironmentConfig) -> Result<VaultBackend, Vec<Diagnostic>> {
    let prefix = config.prefix.clone().unwrap_or_default();
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if prefix.is_empty() || !prefix.bytes().all(is_name) {
        let message = "without a prefix of letters, digits and underscores, every variable would be readable";
        return Err(problem("prefix", message, "write the beginning of the names of the variables, such as SECRET_"));
    }
    Ok(VaultBackend::Environment { prefix, is_base64: config.base64_decode.unwrap_or(false) })
}

fn secrets(config: SecretsConfig) -> Result<VaultBackend, Vec<Diagnostic>> {
    let SecretsConfig { namespace, secrets, base64_decode } = config;
    if namespace.is_empty() {
        return Err(problem("namespace", "it is empty", "write the namespace of the Secrets"));
    }
    if secrets.is_empty() {
        return Err(problem("secrets", "it lists no Secret, so there are no values", "list the names of the Secrets"));
    }
    Ok(VaultBackend::Secrets { namespace, names: secrets, is_base64: base64_decode.unwrap_or(false) })
}

fn hashicorp(
    cx: CompileContext<'_>,
    values: &VaultValues,
    vault: &Object<KongVault>,
    config: ServerConfig,
) -> Result<VaultBackend, Vec<Diagnostic>> {
    let is_secure = match config.protocol.as_deref() {
        None | Some("http") => false,
        Some("https") => true,
        Some(_) => return Err(problem("protocol", "it is neither http nor https", "write one of them")),
    };
    let kv = match config.kv.as_deref() {
        None | Some("v1") => KvVersion::V1,
        Some("v2") => KvVersion::V2,
        Some(_) => return Err(problem("kv", "it is neither v1 nor v2", "write the version of the secrets engine")),
    };
    let host = config.host.clone().filter(|host| !host.is_empty()).unwrap_or_else(|| "127.0.0.1".to_owned());
    if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:".contains(&byte)) {
        return Err(problem("host", "it is not a host name or an address", "write for example vault.vault.svc"));
    }
    let mount = path(config.mount.as_deref().unwrap_or("secret"), "mount")?;
    if config.namespace.as_ref().is_some_and(|name| !name.bytes().all(|byte| byte.is_ascii_graphic())) {
        return Err(problem("namespace", "it has other characters than letters, digits and signs", "correct it"));
    }
    let login = login(cx, values, &config)?;
    let times = ReadTimes { ttl: config.ttl, neg_ttl: config.neg_ttl, resurrect_ttl: config.resurrect_ttl };
    let api = VaultApi::Hashicorp(HashicorpVault {
        host,
        port: config.port.filter(|port| *port != 0).unwrap_or(8200),
        is_secure,
        verify: config.ssl_verify.unwrap_or(true),
        namespace: config.namespace.filter(|namespace| !namespace.is_empty()),
        mount,
        kv,
        login,
    });
    backend(vault, api, &times, config.base64_decode)
}

/// When values are read again.
struct ReadTimes {
    ttl: Option<f64>,
    neg_ttl: Option<f64>,
    resurrect_ttl: Option<f64>,
}

fn backend(
    vault: &Object<KongVault>,
    api: VaultApi,
    times: &ReadTimes,
    base64_decode: Option<bool>,
) -> Result<VaultBackend, Vec<Diagnostic>> {
    let server = VaultServer {
        object: format!("{}/{}", Kind::KongVault, vault.meta.key),
        api,
        ttl: seconds(times.ttl, "ttl")?.filter(|ttl| !ttl.is_zero()).map(|ttl| ttl.max(MIN_INTERVAL)),
        retry_after: seconds(times.neg_ttl, "neg_ttl")?.unwrap_or(DEFAULT_RETRY).max(MIN_INTERVAL),
        resurrect_ttl: seconds(times.resurrect_ttl, "resurrect_ttl")?,
    };
    Ok(VaultBackend::Server { server: Arc::new(server), is_base64: base64_decode.unwrap_or(false) })
}

fn login(cx: CompileContext<'_>, values: &VaultValues, config: &ServerConfig) -> Result<VaultLogin, Vec<Diagnostic>> {
    match config.auth_method.as_deref() {
        None | Some("token") => {
            let remedy = "write {secretKeyRef: {namespace, name, key}}, or set auth_method to kubernetes or approle";
            Ok(VaultLogin::Token(token(cx, values, config.token.as_ref(), "token", remedy)?))
        }
        Some("kubernetes") => {
            let Some(role) = config.kube_role.clone().filter(|role| !role.is_empty()) else {
                return Err(problem(
                    "kube_role",
                    "the login with Kubernetes needs a role",
                    "write the role of the vault",
                ));
            };
            let auth_path = path(config.kube_auth_path.as_deref().unwrap_or("kubernetes"), "kube_auth_path")?;
            let token_file = config.kube_api_token_file.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_TOKEN_FILE));
            check_file(&token_file, "kube_api_token_file")?;
            Ok(VaultLogin::Kubernetes { role, auth_path, token_file })
        }
        Some("approle") => {
            let remedy = "write {secretKeyRef: {namespace, name, key}}, or a reference to the vault env";
            let id = token(cx, values, config.approle_role_id.as_ref(), "approle_role_id", remedy)?;
            let secret = match (&config.approle_secret_id, &config.approle_secret_id_file) {
                (Some(_), Some(_)) => {
                    let message = "the secret is already in approle_secret_id";
                    return Err(problem("approle_secret_id_file", message, "remove one of them"));
                }
                (None, Some(file)) => {
                    check_file(file, "approle_secret_id_file")?;
                    AppRoleSecret::File(file.clone())
                }
                (secret, None) => {
                    let remedy = "write {secretKeyRef: {namespace, name, key}}, or approle_secret_id_file";
                    AppRoleSecret::Text(token(cx, values, secret.as_ref(), "approle_secret_id", remedy)?)
                }
            };
            let auth_path = path(config.approle_auth_path.as_deref().unwrap_or("approle"), "approle_auth_path")?;
            Ok(VaultLogin::AppRole { id, secret, auth_path })
        }
        Some(_) => {
            let remedy = "use token, kubernetes or approle";
            Err(problem("auth_method", "it is not supported by this version", remedy))
        }
    }
}

/// The content of the file is sent to the server, so it must be a token that is meant for servers.
fn check_file(file: &Path, field: &str) -> Result<(), Vec<Diagnostic>> {
    let is_below = TOKEN_FOLDERS.iter().any(|folder| file.starts_with(folder));
    if !is_below || file.components().any(|part| part == Component::ParentDir) {
        let remedy = format!("mount the file below {}", TOKEN_FOLDERS[0]);
        return Err(problem(field, "it is not in a folder of tokens", remedy));
    }
    Ok(())
}

/// A secret that a login needs.
fn token(
    cx: CompileContext<'_>,
    values: &VaultValues,
    token: Option<&Value>,
    field: &str,
    remedy: &str,
) -> Result<VaultToken, Vec<Diagnostic>> {
    let Some(token) = token.filter(|token| !token.is_null()) else {
        return Err(problem(field, "the login needs it", remedy));
    };
    // In `portico check`, the environment is not known.
    let Some(text) = secret_text(cx, values, token, field)? else { return Ok(VaultToken::new("unknown")) };
    let text = text.trim();
    match !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(VaultToken::new(text)),
        false => {
            let message = "it is empty, or has spaces or other characters than ASCII";
            Err(problem(field, message, "correct it, or create what it refers to"))
        }
    }
}

/// The text of a secret setting: a text, a reference to the environment, or one to a key of a Secret. `None` if the
/// environment is not known.
fn secret_text(
    cx: CompileContext<'_>,
    values: &VaultValues,
    setting: &Value,
    field: &str,
) -> Result<Option<String>, Vec<Diagnostic>> {
    let missing = |message: String| problem(field, message, "correct it, or create what it refers to");
    match setting {
        Value::String(text) if VaultReference::is_meant(text) => {
            let reference = VaultReference::parse(text).map_err(|message| missing(message.to_owned()))?;
            if reference.prefix != "env" || reference.key.is_some() {
                return Err(missing(format!("only a variable of the vault env can be the {field}")));
            }
            let Some(environment) = values.environment() else { return Ok(None) };
            let name = reference.environment_variable(DEFAULT_ENVIRONMENT_PREFIX);
            let value = environment.get(&name).cloned();
            value.map(Some).ok_or_else(|| missing(format!("variable {name} is not set")))
        }
        Value::String(text) => Ok(Some(text.clone())),
        value => {
            let Some(reference) = ValueReference::parse(value).filter(|reference| reference.kind == Kind::Secret)
            else {
                return Err(missing("it is neither text nor a reference to a key of a Secret".to_owned()));
            };
            let Some(namespace) = &reference.target.namespace else {
                return Err(missing("the reference to the Secret has no namespace".to_owned()));
            };
            let key = ObjectKey::new(namespace, &reference.target.name);
            let value = cx.store.secrets.get(&key).and_then(|secret| secret.value(&reference.target.key));
            let value = value.and_then(|value| std::str::from_utf8(value).ok()).map(str::to_owned);
            let absent = || missing(format!("Secret {key} has no text at key {}", reference.target.key));
            value.map(Some).ok_or_else(absent)
        }
    }
}

/// A path in the API of the server.
fn path(text: &str, field: &str) -> Result<String, Vec<Diagnostic>> {
    let text = text.trim_matches('/');
    let is_segment = |segment: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        !matches!(segment, "" | "." | "..") && segment.bytes().all(is_allowed)
    };
    match text.split('/').all(is_segment) {
        true => Ok(text.to_owned()),
        false => Err(problem(field, "it is not a path of letters, digits, dots and dashes", "correct it")),
    }
}

fn seconds(value: Option<f64>, field: &str) -> Result<Option<Duration>, Vec<Diagnostic>> {
    let Some(value) = value else { return Ok(None) };
    match Duration::try_from_secs_f64(value) {
        Ok(time) if time <= MAX_TTL => Ok(Some(time)),
        _ => Err(problem(field, "it is negative or longer than ten years", "write a number of seconds")),
    }
}

const TOKEN_FOLDERS: [&str; 2] = ["/var/run/secrets", "/run/secrets"];
const DEFAULT_TOKEN_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// A shorter interval would be a load on the vault, not a benefit.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
const DEFAULT_RETRY: Duration = Duration::from_secs(10);
const MAX_TTL: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
