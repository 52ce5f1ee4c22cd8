//! Requests to AWS Secrets Manager, with the identity of this Pod or machine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::secret_reading::{ReadError, keys_of_text};
use crate::plugin_api::PluginServices;
use crate::plugin_api::remote_request::{RemoteRequest, RemoteUrl, ResponseBodyUse};
use crate::plugin_api::vault::{AwsSecretsManager, VaultQuery};
use crate::plugin_kit::aws_credentials::{AwsCredentials, MetadataVersion, StsEndpoint, amazon_host};
use crate::plugin_kit::aws_signature::{SigningScope, sign};

/// Reads secrets. It keeps the credentials of each server until they expire.
pub(super) struct AwsClient {
    services: Arc<dyn PluginServices>,
    credentials: Mutex<BTreeMap<AwsSecretsManager, Arc<AwsCredentials>>>,
}

impl AwsClient {
    pub(super) fn new(services: Arc<dyn PluginServices>) -> Self {
        AwsClient { services, credentials: Mutex::default() }
    }

    pub(super) async fn read(
        &self,
        server: &AwsSecretsManager,
        query: &VaultQuery,
    ) -> Result<BTreeMap<String, String>, ReadError> {
        let mut request = request(server, &query.path).map_err(ReadError::Unavailable)?;
        let credentials = self.credentials(server).map_err(ReadError::Unavailable)?;
        let now = SystemTime::now();
        let scope = SigningScope { region: &server.region, service: "secretsmanager" };
        let signed = credentials.with_keys(now, |keys| sign(&mut request, keys, scope, now)).await;
        let signed = signed.map_err(|error| ReadError::Unavailable(format!("the credentials of AWS: {error}")))?;
        signed.ok_or_else(|| ReadError::Unavailable("the credentials of AWS cannot be sent in a header".to_owned()))?;
        let response = self.services.send(request).await;
        let response = response.map_err(|error| ReadError::Unavailable(format!("AWS Secrets Manager: {error}")))?;
        if response.status != StatusCode::OK {
            return Err(refusal(response.status, &response.body, &query.path));
        }
        let text = secret_text(&response.body);
        text.map(keys_of_text)
            .ok_or_else(|| ReadError::Missing(format!("the value of {} is not text in UTF-8", query.path)))
    }

    fn credentials(&self, server: &AwsSecretsManager) -> Result<Arc<AwsCredentials>, String> {
        let mut known = self.credentials.lock();
        if let Some(credentials) = known.get(server) {
            return Ok(Arc::clone(credentials));
        }
        let environment = self.services.aws_environment();
        let environment = environment.ok_or("the credentials of this Pod may not be used")?;
        let amazon_url = format!("https://{}/", amazon_host("sts", &server.region));
        let sts = |url: &str| {
            let url = RemoteUrl::parse(url)?;
            Ok::<_, String>(StsEndpoint { url, region: server.region.clone(), namespace: None, verify: true })
        };
        let mut credentials =
            AwsCredentials::of_environment(&environment, MetadataVersion::V2, sts(&amazon_url)?, &self.services);
        if let Some((role, session)) = &server.role {
            let url = server.sts_endpoint.as_deref().unwrap_or(&amazon_url);
            credentials = credentials.assuming(role.clone(), session.clone(), sts(url)?);
        }
        // Vaults that were edited leave credentials behind.
        if known.len() >= MAX_SERVERS {
            known.clear();
        }
        known.insert(server.clone(), Arc::clone(&credentials));
        Ok(credentials)
    }
}

fn request(server: &AwsSecretsManager, secret: &str) -> Result<RemoteRequest, String> {
    let amazon_url = format!("https://{}/", amazon_host("secretsmanager", &server.region));
    let url = RemoteUrl::parse(server.endpoint.as_deref().unwrap_or(&amazon_url))?;
    let mut headers = HeaderMap::new();
    headers.insert(HOST, url.authority.clone());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1"));
    let target = HeaderValue::from_static("secretsmanager.GetSecretValue");
    headers.insert(HeaderName::from_static("x-amz-target"), target);
    Ok(RemoteRequest {
        remote: url.remote(None, true, TIMEOUT),
        method: Method::POST,
        target: url.target,
        headers,
        body: json!({ "SecretId": secret }).to_string().into(),
        timeout: TIMEOUT,
        keep_alive: None,
        is_repeatable: false,
        response_body: ResponseBodyUse::Collect { max_bytes: MAX_RESPONSE_BYTES },
    })
}

/// The text of `SecretString`, or else of `SecretBinary`.
fn secret_text(body: &[u8]) -> Option<String> {
    let document: Value = serde_json::from_slice(body).ok()?;
    match (&document["SecretString"], &document["SecretBinary"]) {
        (Value::String(text), _) => Some(text.clone()),
        (_, Value::String(encoded)) => String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok(),
        _ => None,
    }
}

/// The error of a response, with its code. The message of Amazon may name objects of the account.
fn refusal(status: StatusCode, body: &[u8], path: &str) -> ReadError {
    let document: Value = serde_json::from_slice(body).unwrap_or_default();
    let code = document["__type"].as_str().and_then(|code| code.rsplit('#').next()).unwrap_or_default();
    let code: String = code.chars().filter(char::is_ascii_alphanumeric).take(60).collect();
    match &*code {
        "ResourceNotFoundException" => ReadError::Missing(format!("AWS Secrets Manager has no secret {path}")),
        _ => {
            let status = status.as_u16();
            let message = format!("AWS Secrets Manager has responded with {status} {code} to the request for {path}");
            ReadError::Unavailable(message)
        }
    }
}

const TIMEOUT: Duration = Duration::from_secs(5);
/// A secret has at most 64 KiB, which JSON can make six times as long.
const MAX_RESPONSE_BYTES: usize = 1 << 20;
const MAX_SERVERS: usize = 100;
