//! Requests to Google Cloud Secret Manager, with a key of a service account or the identity of this Pod or machine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::logins::{LoginToken, Logins, pause_after_failure};
use super::secret_reading::{ReadError, keys_of_text};
use crate::plugin_api::PluginServices;
use crate::plugin_api::remote_request::{RemoteRequest, RemoteResponse, RemoteUrl, ResponseBodyUse};
use crate::plugin_api::token::signature::Algorithm;
use crate::plugin_api::token::signing_key::SigningKey;
use crate::plugin_api::vault::{GoogleAccount, GoogleSecretManager, VaultQuery};
use crate::plugin_kit::form_body::{FORM_MEDIA_TYPE, form_body};

/// Reads secrets. It keeps the access tokens until they expire.
pub(super) struct GoogleClient {
    services: Arc<dyn PluginServices>,
    /// Their tokens are values of `Authorization`.
    logins: Logins<GoogleAccount>,
}

/// A key of a service account, as Google Cloud writes it. Its other fields are not read.
#[derive(Deserialize)]
struct AccountKey {
    client_email: String,
    private_key: String,
    private_key_id: Option<String>,
}

impl GoogleClient {
    pub(super) fn new(services: Arc<dyn PluginServices>) -> Self {
        GoogleClient { services, logins: Logins::new() }
    }

    pub(super) async fn read(
        &self,
        server: &GoogleSecretManager,
        query: &VaultQuery,
    ) -> Result<BTreeMap<String, String>, ReadError> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if !query.path.bytes().all(is_name) {
            let message = format!("{} is not the name of a secret, which has letters, digits, - and _", query.path);
            return Err(ReadError::Missing(message));
        }
        let token = self.token(server, query).await?;
        let mut response = self.read_once(server, query, token.clone()).await.map_err(ReadError::Unavailable)?;
        if response.status == StatusCode::UNAUTHORIZED {
            // The token may have been revoked.
            self.logins.remove(&server.account, &token).await;
            let token = self.token(server, query).await?;
            response = self.read_once(server, query, token).await.map_err(ReadError::Unavailable)?;
        }
        match response.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                return Err(ReadError::Missing(format!("the project has no secret {}", query.path)));
            }
            status => {
                let (status, path) = (status.as_u16(), &query.path);
                let message = format!("Secret Manager has responded with {status} to the request for {path}");
                return Err(ReadError::Unavailable(message));
            }
        }
        secret_text(&response.body)
            .map(keys_of_text)
            .ok_or_else(|| ReadError::Missing(format!("the value of {} is not text in UTF-8", query.path)))
    }

    async fn read_once(
        &self,
        server: &GoogleSecretManager,
        query: &VaultQuery,
        token: HeaderValue,
    ) -> Result<RemoteResponse, String> {
        let version = query.version.map_or_else(|| "latest".to_owned(), |version| version.to_string());
        let (project, name) = (&server.project, &query.path);
        let url = format!("{SECRETS_URL}/v1/projects/{project}/secrets/{name}/versions/{version}:access");
        let headers = HeaderMap::from_iter([(AUTHORIZATION, token)]);
        let request = request(&url, Method::GET, headers, Bytes::new())?;
        self.services.send(request).await.map_err(|error| format!("Secret Manager: {error}"))
    }

    async fn token(&self, server: &GoogleSecretManager, query: &VaultQuery) -> Result<HeaderValue, ReadError> {
        let log_in = async { self.log_in(&server.account).await.map_err(ReadError::Unavailable) };
        self.logins.token(&server.account, pause_after_failure(query.server.retry_after), log_in).await
    }

    async fn log_in(&self, account: &GoogleAccount) -> Result<LoginToken, String> {
        let now = Instant::now();
        let response = match account {
            GoogleAccount::Machine => {
                let flavor = (HeaderName::from_static("metadata-flavor"), HeaderValue::from_static("Google"));
                let request = request(METADATA_URL, Method::GET, HeaderMap::from_iter([flavor]), Bytes::new())?;
                self.services.send_to_metadata(request).await?
            }
            GoogleAccount::Key(key) => {
                let assertion = assertion(key.reveal(), SystemTime::now())?;
                let form = [("grant_type", JWT_GRANT), ("assertion", &*assertion)];
                let media_type = (CONTENT_TYPE, HeaderValue::from_static(FORM_MEDIA_TYPE));
                let headers = HeaderMap::from_iter([media_type]);
                self.services.send(request(TOKEN_URL, Method::POST, headers, form_body(form))?).await?
            }
        };
        if response.status != StatusCode::OK {
            return Err(format!("the login at Google Cloud got status {}", response.status.as_u16()));
        }
        let document: Value = serde_json::from_slice(&response.body).unwrap_or_default();
        let token = document["access_token"].as_str().ok_or("the response to the login has no token")?;
        let value = HeaderValue::try_from(format!("Bearer {token}"));
        let mut value = value.map_err(|_| "the token has characters of no token".to_owned())?;
        value.set_sensitive(true);
        let lifetime = document["expires_in"].as_u64().unwrap_or_default().min(MAX_LIFETIME_SECONDS);
        // Renewed before it expires, however long the requests take.
        Ok(LoginToken { value, renew_at: Some(now + Duration::from_secs(lifetime).mul_f64(0.8)) })
    }
}

/// The proof of a service account (RFC 7523). Errors contain no part of the key.
fn assertion(key: &str, now: SystemTime) -> Result<String, String> {
    let unusable = || "the key of the service account is not that of Google Cloud".to_owned();
    let key: AccountKey = serde_json::from_str(key).map_err(|_| unusable())?;
    let signing = SigningKey::from_pem(key.private_key.as_bytes(), Some(Algorithm::Rs256));
    let mut signing = signing.map_err(|error| format!("the key of the service account {error}"))?;
    if let Some(id) = &key.private_key_id {
        signing = signing.with_id(id);
    }
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| unusable())?.as_secs();
    let claims = json!({
        "iss": key.client_email,
        "scope": SCOPE,
        "aud": TOKEN_URL,
        "iat": now,
        "exp": now + 3600,
    });
    let claims: Map<String, Value> = claims.as_object().cloned().unwrap_or_default();
    signing.sign(&claims).map_err(|error| error.to_string())
}

fn request(url: &str, method: Method, mut headers: HeaderMap, body: Bytes) -> Result<RemoteRequest, String> {
    let url = RemoteUrl::parse(url)?;
    headers.insert(HOST, url.authority.clone());
    Ok(RemoteRequest {
        remote: url.remote(None, true, TIMEOUT),
        method,
        target: url.target,
        headers,
        body,
        timeout: TIMEOUT,
        keep_alive: None,
        is_repeatable: false,
        response_body: ResponseBodyUse::Collect { max_bytes: MAX_RESPONSE_BYTES },
    })
}

fn secret_text(body: &[u8]) -> Option<String> {
    let document: Value = serde_json::from_slice(body).ok()?;
    let data = BASE64_STANDARD.decode(document["payload"]["data"].as_str()?).ok()?;
    String::from_utf8(data).ok()
}

const SECRETS_URL: &str = "https://secretmanager.googleapis.com";
const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";
/// The address of `metadata.google.internal`, which needs no DNS.
const METADATA_URL: &str = "http://169.254.169.254/computeMetadata/v1/instance/service-accounts/default/token";
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
const JWT_GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const TIMEOUT: Duration = Duration::from_secs(5);
/// A secret has at most 64 KiB, which base64 makes longer by a third.
const MAX_RESPONSE_BYTES: usize = 1 << 20;
const MAX_LIFETIME_SECONDS: u64 = 24 * 3600;
