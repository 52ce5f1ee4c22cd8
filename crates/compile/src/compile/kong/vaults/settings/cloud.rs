//! The vaults of clouds: AWS Secrets Manager and Google Cloud Secret Manager.

use serde::Deserialize;
use serde_json::Value;

use super::{ReadTimes, backend, problem, secret_text};
use crate::api::Object;
use crate::api::kong::KongVault;
use crate::compile::CompileContext;
use crate::compile::kong::vaults::VaultBackend;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::aws_environment::is_region;
use crate::plugin_api::remote_request::RemoteUrl;
use crate::plugin_api::vault::{
    AwsSecretsManager, GoogleAccount, GoogleSecretManager, VaultApi, VaultToken, VaultValues,
};

/// Settings of the backend `aws`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AwsConfig {
    region: Option<String>,
    endpoint_url: Option<String>,
    assume_role_arn: Option<String>,
    role_session_name: Option<String>,
    sts_endpoint_url: Option<String>,
    base64_decode: Option<bool>,
    ttl: Option<f64>,
    neg_ttl: Option<f64>,
    resurrect_ttl: Option<f64>,
}

/// Settings of the backend `gcp`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GoogleConfig {
    project_id: Option<String>,
    /// The JSON of a key: a text, a reference to the environment, or `{secretKeyRef: …}`.
    service_account: Option<Value>,
    base64_decode: Option<bool>,
    ttl: Option<f64>,
    neg_ttl: Option<f64>,
    resurrect_ttl: Option<f64>,
}

pub(super) fn aws(
    cx: CompileContext<'_>,
    values: &VaultValues,
    vault: &Object<KongVault>,
    config: &AwsConfig,
) -> Result<VaultBackend, Vec<Diagnostic>> {
    let environment = cx.inputs.plugin_factory.services.aws_environment();
    let Some(environment) = environment else {
        let message = "the vault needs the AWS credentials of Portico's own Pod, which may not be used";
        let remedy = "start Portico with --allow-aws-pod-credentials, or use another backend";
        return Err(vec![Diagnostic::error("spec.backend", message, remedy)]);
    };
    // `portico check` does not know the environment of the process that serves.
    let is_known = values.environment().is_some();
    let region = config.region.clone().filter(|region| !region.is_empty()).or_else(|| environment.region.clone());
    let region = match region {
        Some(region) => region,
        None if !is_known => "us-east-1".to_owned(),
        None => {
            let remedy = "write the region of the secrets, such as eu-west-1, or set AWS_REGION";
            return Err(problem("region", "the region is missing", remedy));
        }
    };
    if !is_region(&region) {
        return Err(problem("region", "it is not a region", "write for example eu-west-1"));
    }
    let role = config.assume_role_arn.clone().filter(|role| !role.is_empty()).map(|role| {
        let session = config.role_session_name.clone().filter(|session| !session.is_empty());
        (role, session.unwrap_or_else(|| "KongVault".to_owned()))
    });
    let api = VaultApi::AwsSecretsManager(AwsSecretsManager {
        region,
        endpoint: secure_url(config.endpoint_url.as_deref(), "endpoint_url")?,
        role,
        sts_endpoint: secure_url(config.sts_endpoint_url.as_deref(), "sts_endpoint_url")?,
    });
    let times = ReadTimes { ttl: config.ttl, neg_ttl: config.neg_ttl, resurrect_ttl: config.resurrect_ttl };
    backend(vault, api, &times, config.base64_decode)
}

pub(super) fn google(
    cx: CompileContext<'_>,
    values: &VaultValues,
    vault: &Object<KongVault>,
    config: &GoogleConfig,
) -> Result<VaultBackend, Vec<Diagnostic>> {
    let Some(project) = config.project_id.clone().filter(|project| !project.is_empty()) else {
        return Err(problem("project_id", "the project is missing", "write the id of the project of the secrets"));
    };
    // Projects of organizations have the domain in front, as in example.com:project.
    if !project.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.:".contains(&byte)) {
        return Err(problem("project_id", "it is not the id of a project", "write for example shop-production"));
    }
    let from_environment = values.environment().and_then(|variables| variables.get(KEY_VARIABLE));
    let account = match (&config.service_account, from_environment) {
        (Some(value), _) if !value.is_null() => GoogleAccount::Key(account_key(cx, values, value)?),
        (_, Some(key)) if !key.trim().is_empty() => GoogleAccount::Key(VaultToken::new(key)),
        _ if cx.inputs.plugin_factory.services.allows_google_identity() => GoogleAccount::Machine,
        _ => {
            let message = "the vault needs a key of a service account, or the identity of Portico's own Pod, which may \
                           not be used";
            let remedy = "set service_account to {secretKeyRef: {namespace, name, key}}, or the variable \
                          GCP_SERVICE_ACCOUNT, or start Portico with --allow-gcp-pod-credentials";
            return Err(problem("service_account", message, remedy));
        }
    };
    let api = VaultApi::GoogleSecretManager(GoogleSecretManager { project, account });
    let times = ReadTimes { ttl: config.ttl, neg_ttl: config.neg_ttl, resurrect_ttl: config.resurrect_ttl };
    backend(vault, api, &times, config.base64_decode)
}

fn account_key(cx: CompileContext<'_>, values: &VaultValues, value: &Value) -> Result<VaultToken, Vec<Diagnostic>> {
    let text = secret_text(cx, values, value, "service_account")?;
    // In `portico check`, the environment is not known.
    let Some(text) = text else { return Ok(VaultToken::new("unknown")) };
    let is_key = serde_json::from_str::<Value>(&text)
        .is_ok_and(|key| ["client_email", "private_key"].iter().all(|field| key[field].is_string()));
    match is_key {
        true => Ok(VaultToken::new(&text)),
        false => {
            let message = "it is not the JSON of a key of a service account";
            Err(problem("service_account", message, "store the file that Google Cloud creates with the key"))
        }
    }
}

/// The URL of a server that gets requests with credentials.
fn secure_url(url: Option<&str>, field: &str) -> Result<Option<String>, Vec<Diagnostic>> {
    let Some(url) = url.filter(|url| !url.is_empty()) else { return Ok(None) };
    match RemoteUrl::parse(url) {
        Ok(parsed) if parsed.is_secure && parsed.authorization.is_none() => Ok(Some(url.to_owned())),
        _ => Err(problem(field, "it is not an https URL without a password", "write it like https://server.example")),
    }
}

/// As in Kong.
const KEY_VARIABLE: &str = "GCP_SERVICE_ACCOUNT";
