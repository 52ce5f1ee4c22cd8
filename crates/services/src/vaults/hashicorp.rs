//! Requests to a server with the HTTP API of HashiCorp Vault and OpenBao: logging in, and reading secrets.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use super::logins::{LoginToken, Logins, pause_after_failure};
use super::secret_reading::ReadError;
use crate::plugin_api::PluginServices;
use crate::plugin_api::remote::{Remote, RemoteTls};
use crate::plugin_api::remote_request::{RemoteRequest, RemoteResponse, ResponseBodyUse};
use crate::plugin_api::vault::{AppRoleSecret, HashicorpVault, KvVersion, VaultLogin, VaultQuery};

/// Reads secrets of such servers. It keeps the tokens of logins until they expire.
pub(super) struct HashicorpClient {
    services: Arc<dyn PluginServices>,
    logins: Logins<HashicorpVault>,
}

impl HashicorpClient {
    pub(super) fn new(services: Arc<dyn PluginServices>) -> Self {
        HashicorpClient { services, logins: Logins::new() }
    }

    /// The text of each key of a secret.
    pub(super) async fn read(
        &self,
        server: &HashicorpVault,
        query: &VaultQuery,
    ) -> Result<BTreeMap<String, String>, ReadError> {
        let token = self.token(server, query).await?;
        let mut response = self.read_once(server, query, token.clone()).await?;
        if response.status == StatusCode::FORBIDDEN && !matches!(server.login, VaultLogin::Token(_)) {
            // The server may have revoked the token.
            self.logins.remove(server, &token).await;
            let token = self.token(server, query).await?;
            response = self.read_once(server, query, token).await?;
        }
        match response.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                return Err(ReadError::Missing(format!("the vault has no secret {}", query.path)));
            }
            status => {
                let status = status.as_u16();
                let message = format!("the vault has responded with {status} to the request for {}", query.path);
                return Err(ReadError::Unavailable(message));
            }
        }
        fields(&response.body, server.kv)
            .ok_or_else(|| ReadError::Missing(format!("the response for {} is not that of a secret", query.path)))
    }

    async fn read_once(
        &self,
        server: &HashicorpVault,
        query: &VaultQuery,
        token: HeaderValue,
    ) -> Result<RemoteResponse, ReadError> {
        let VaultQuery { path, version, .. } = query;
        let folder = match server.kv {
            KvVersion::V1 => "",
            KvVersion::V2 => "data/",
        };
        let mut target = format!("/v1/{}/{folder}{}", server.mount, utf8_percent_encode(path, PATH));
        if let (KvVersion::V2, Some(version)) = (server.kv, version) {
            target.push_str(&format!("?version={version}"));
        }
        self.send(server, Method::GET, target, Some(token), Bytes::new()).await
    }

    async fn token(&self, server: &HashicorpVault, query: &VaultQuery) -> Result<HeaderValue, ReadError> {
        let pause = pause_after_failure(query.server.retry_after);
        self.logins.token(server, pause, self.log_in(server)).await
    }

    /// A token of the settings needs no request and lasts as long as they do.
    async fn log_in(&self, server: &HashicorpVault) -> Result<LoginToken, ReadError> {
        let now = Instant::now();
        let unavailable = |message: &str| ReadError::Unavailable(message.to_owned());
        let (auth_path, body) = match &server.login {
            VaultLogin::Token(token) => return Ok(LoginToken { value: header(token.reveal())?, renew_at: None }),
            VaultLogin::Kubernetes { role, auth_path, token_file } => {
                let own_token = read_file(token_file, "the token of the service account cannot be read").await?;
                (auth_path, json!({ "role": role, "jwt": own_token.trim() }))
            }
            VaultLogin::AppRole { id, secret, auth_path } => {
                let body = match secret {
                    AppRoleSecret::Text(secret) => json!({ "role_id": id.reveal(), "secret_id": secret.reveal() }),
                    AppRoleSecret::File(file) => {
                        let secret = read_file(file, "the file with the secret of the AppRole cannot be read").await?;
                        json!({ "role_id": id.reveal(), "secret_id": secret.trim() })
                    }
                };
                (auth_path, body)
            }
        };
        let target = format!("/v1/auth/{auth_path}/login");
        let response = self.send(server, Method::POST, target, None, body.to_string().into()).await?;
        if response.status != StatusCode::OK {
            return Err(ReadError::Unavailable(format!(
                "the vault has responded with {} to the login",
                response.status.as_u16()
            )));
        }
        let document: Option<Value> = serde_json::from_slice(&response.body).ok();
        let auth = document.as_ref().map(|document| &document["auth"]);
        let token = auth.and_then(|auth| auth["client_token"].as_str());
        let value = header(token.ok_or_else(|| unavailable("the response to the login has no token"))?)?;
        let lease = auth.and_then(|auth| auth["lease_duration"].as_u64()).filter(|seconds| *seconds > 0);
        // Renewed before it expires, however long the requests take.
        let renew_at = lease.map(|seconds| now + Duration::from_secs(seconds.min(MAX_LEASE_SECONDS)).mul_f64(0.8));
        Ok(LoginToken { value, renew_at })
    }

    async fn send(
        &self,
        server: &HashicorpVault,
        method: Method,
        target: String,
        token: Option<HeaderValue>,
        body: Bytes,
    ) -> Result<RemoteResponse, ReadError> {
        let malformed = || ReadError::Unavailable("the request to the vault cannot be written".to_owned());
        let host = if server.host.contains(':') { format!("[{}]", server.host) } else { server.host.clone() };
        let mut headers = HeaderMap::new();
        headers.insert(HOST, format!("{host}:{}", server.port).try_into().map_err(|_| malformed())?);
        // OpenBao and HashiCorp Vault reject requests without it if they may have been forwarded by mistake.
        headers.insert(HeaderName::from_static("x-vault-request"), HeaderValue::from_static("true"));
        if let Some(token) = token {
            headers.insert(HeaderName::from_static("x-vault-token"), token);
        }
        if let Some(namespace) = &server.namespace {
            let value = namespace.as_str().try_into().map_err(|_| malformed())?;
            headers.insert(HeaderName::from_static("x-vault-namespace"), value);
        }
        if !body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let remote = Remote {
            host: server.host.clone(),
            port: server.port,
            namespace: None,
            tls: server.is_secure.then_some(RemoteTls { server_name: None, verify: server.verify, files: None }),
            timeout: TIMEOUT,
        };
        let request = RemoteRequest {
            remote,
            method,
            target: PathAndQuery::try_from(target).map_err(|_| malformed())?,
            headers,
            body,
            timeout: TIMEOUT,
            keep_alive: None,
            is_repeatable: false,
            response_body: ResponseBodyUse::Collect { max_bytes: MAX_RESPONSE_BYTES },
        };
        self.services.send(request).await.map_err(|error| ReadError::Unavailable(format!("the vault: {error}")))
    }
}

/// A short file, which is read for each login because it may be rotated.
async fn read_file(path: &Path, problem: &str) -> Result<String, ReadError> {
    let unreadable = |_| ReadError::Unavailable(problem.to_owned());
    let mut text = String::new();
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    file.take(MAX_TOKEN_BYTES).read_to_string(&mut text).await.map_err(unreadable)?;
    Ok(text)
}

fn header(token: &str) -> Result<HeaderValue, ReadError> {
    let mut value = HeaderValue::try_from(token)
        .map_err(|_| ReadError::Unavailable("the token for the vault has characters of no token".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The keys of the response to a read. Values that are not text are JSON.
fn fields(body: &[u8], kv: KvVersion) -> Option<BTreeMap<String, String>> {
    let mut document: Value = serde_json::from_slice(body).ok()?;
    let mut data = document.get_mut("data")?.take();
    if kv == KvVersion::V2 {
        data = data.get_mut("data")?.take();
    }
    let Value::Object(data) = data else { return None };
    let fields = data.into_iter().map(|(name, value)| match value {
        Value::String(text) => (name, text),
        other => (name, other.to_string()),
    });
    Some(fields.collect())
}

/// What is encoded in a path: all but letters, digits, and the signs that paths of secrets have.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

const TIMEOUT: Duration = Duration::from_secs(5);
/// The default limit of a secret in HashiCorp Vault is 1 MiB.
const MAX_RESPONSE_BYTES: usize = 1 << 20;
const MAX_TOKEN_BYTES: u64 = 64 * 1024;
const MAX_LEASE_SECONDS: u64 = 365 * 24 * 3600;
