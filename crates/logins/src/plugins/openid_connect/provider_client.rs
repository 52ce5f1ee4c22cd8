//! Requests to the provider: for tokens, for introspection, for claims about a user, and for revocation.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::config::ClientAuth;
use super::form_parameters::{append_parameter, encode, encode_form};
use super::provider::ProviderMetadata;
use crate::plugin_api::server_text::shorten_to;
use crate::plugin_api::{
    ClientRequestFailure, PluginServices, RemoteRequest, RemoteResponse, RemoteUrl, ResponseBodyUse,
};

/// The client that Portico is at the provider.
pub(super) struct ProviderClient {
    pub(super) services: Arc<dyn PluginServices>,
    pub(super) namespace: Option<String>,
    pub(super) timeout: Duration,
    pub(super) client_id: Box<str>,
    pub(super) client_secret: Option<Box<str>>,
    /// `None`: as the provider requires.
    pub(super) client_auth: Option<ClientAuth>,
    /// Parameters of all token requests.
    pub(super) token_args: Vec<(String, String)>,
}

/// The tokens that the provider has issued.
pub(super) struct IssuedTokens {
    pub(super) access_token: Box<str>,
    pub(super) id_token: Option<Box<str>>,
    pub(super) refresh_token: Option<Box<str>>,
    /// Seconds until the access token expires.
    pub(super) expires_in: Option<u64>,
    pub(super) scope: Option<Box<str>>,
}

/// Whether a request is sent once more if the provider closes a kept connection while it is on the way.
#[derive(Clone, Copy)]
enum Repetition {
    Allowed,
    /// Codes and refresh tokens are used once, and the provider may have read the request.
    Never,
}

/// Why there is no result. The messages are for the log: they contain no credentials.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProviderError {
    /// The provider does not accept the credential.
    #[error("the provider has rejected the request: {0}")]
    Rejected(String),
    /// The provider cannot be reached, or has sent something that is not a result.
    #[error("{0}")]
    Unavailable(String),
}

impl ProviderClient {
    /// Requests tokens. `parameters` are those of the grant. `client`: the one that waits for the tokens. Without one,
    /// the request completes in any case.
    pub(super) async fn request_tokens(
        &self,
        metadata: &ProviderMetadata,
        parameters: &[(&str, &str)],
        client: Option<IpAddr>,
    ) -> Result<IssuedTokens, ProviderError> {
        let endpoint = self.endpoint(metadata.token.as_deref(), "token_endpoint")?;
        let mut form = encode_form(parameters.iter().copied());
        for (name, value) in &self.token_args {
            append_parameter(&mut form, name, value);
        }
        let response = self.post(endpoint, form, self.client_auth(metadata), Repetition::Never, client).await?;
        IssuedTokens::from_response(read_object(&response)?)
    }

    /// Requests tokens for the client with this id and secret, which is not Portico itself.
    pub(super) async fn request_client_tokens(
        &self,
        metadata: &ProviderMetadata,
        (id, secret): (&str, &str),
        scope: &str,
        client: IpAddr,
    ) -> Result<IssuedTokens, ProviderError> {
        let endpoint = self.endpoint(metadata.token.as_deref(), "token_endpoint")?;
        let mut form = encode_form([("grant_type", "client_credentials"), ("scope", scope)]);
        for (name, value) in &self.token_args {
            append_parameter(&mut form, name, value);
        }
        let authorization = Some(basic_authorization(id, secret));
        let response = self.send(endpoint, Method::POST, authorization, form, Repetition::Never, Some(client)).await?;
        // Here, it is the client of the request that is not valid, and not Portico.
        if response.status.is_client_error() && error_code(&response).as_deref() == Some(INVALID_CLIENT) {
            return Err(ProviderError::Rejected(INVALID_CLIENT.to_owned()));
        }
        IssuedTokens::from_response(read_object(&response)?)
    }

    /// The result of the introspection (RFC 7662). A token that is not active is rejected.
    pub(super) async fn introspect(
        &self,
        metadata: &ProviderMetadata,
        token: &str,
        client: IpAddr,
    ) -> Result<Map<String, Value>, ProviderError> {
        let endpoint = self.endpoint(metadata.introspection.as_deref(), "introspection_endpoint")?;
        let form = encode_form([("token", token), ("token_type_hint", "access_token")]);
        let client_auth = self.client_auth(metadata);
        let response = self.post(endpoint, form, client_auth, Repetition::Allowed, Some(client)).await?;
        // A rejection is about Portico's own credentials, and says nothing about the token.
        let object = read_object(&response).map_err(|error| ProviderError::Unavailable(error.to_string()))?;
        if object.get("active") != Some(&Value::Bool(true)) {
            return Err(ProviderError::Rejected("the token is not active".to_owned()));
        }
        Ok(object)
    }

    /// The claims of the userinfo endpoint.
    pub(super) async fn userinfo(
        &self,
        metadata: &ProviderMetadata,
        token: &str,
        client: IpAddr,
    ) -> Result<Map<String, Value>, ProviderError> {
        let endpoint = self.endpoint(metadata.userinfo.as_deref(), "userinfo_endpoint")?;
        let authorization = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| ProviderError::Rejected("the token is not valid in a header".to_owned()))?;
        let (authorization, client) = (Some(authorization), Some(client));
        let response =
            self.send(endpoint, Method::GET, authorization, String::new(), Repetition::Allowed, client).await?;
        if matches!(response.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(ProviderError::Rejected(format!("status {}", response.status)));
        }
        read_object(&response)
    }

    /// Revokes a token (RFC 7009).
    pub(super) async fn revoke(&self, metadata: &ProviderMetadata, token: &str) -> Result<(), ProviderError> {
        let endpoint = self.endpoint(metadata.revocation.as_deref(), "revocation_endpoint")?;
        let form = encode_form([("token", token)]);
        let response = self.post(endpoint, form, self.client_auth(metadata), Repetition::Allowed, None).await?;
        match response.status.is_success() {
            true => Ok(()),
            false => Err(ProviderError::Unavailable(format!("{endpoint} responded with status {}", response.status))),
        }
    }

    fn endpoint<'m>(&self, url: Option<&'m str>, name: &str) -> Result<&'m str, ProviderError> {
        url.ok_or_else(|| ProviderError::Unavailable(format!("the document of the provider has no `{name}`")))
    }

    fn client_auth(&self, metadata: &ProviderMetadata) -> ClientAuth {
        match (self.client_auth, &self.client_secret) {
            (Some(client_auth), _) => client_auth,
            (None, None) => ClientAuth::None,
            (None, Some(_)) if metadata.needs_secret_in_body => ClientAuth::ClientSecretPost,
            (None, Some(_)) => ClientAuth::ClientSecretBasic,
        }
    }

    /// Sends a form as the client of the configuration. `client` as for [`Self::send`].
    async fn post(
        &self,
        endpoint: &str,
        mut form: String,
        client_auth: ClientAuth,
        repetition: Repetition,
        client: Option<IpAddr>,
    ) -> Result<RemoteResponse, ProviderError> {
        let secret = self.client_secret.as_deref().unwrap_or_default();
        let authorization = match client_auth {
            ClientAuth::ClientSecretBasic => Some(basic_authorization(&self.client_id, secret)),
            ClientAuth::ClientSecretPost => {
                append_parameter(&mut form, "client_id", &self.client_id);
                append_parameter(&mut form, "client_secret", secret);
                None
            }
            ClientAuth::None => {
                append_parameter(&mut form, "client_id", &self.client_id);
                None
            }
        };
        self.send(endpoint, Method::POST, authorization, form, repetition, client).await
    }

    /// `client`: the one that waits for the response. Without one, the request completes, also if the future is
    /// dropped: a refresh and a revocation must not depend on a client that may leave.
    async fn send(
        &self,
        endpoint: &str,
        method: Method,
        authorization: Option<HeaderValue>,
        form: String,
        repetition: Repetition,
        client: Option<IpAddr>,
    ) -> Result<RemoteResponse, ProviderError> {
        let url = RemoteUrl::parse(endpoint).map_err(ProviderError::Unavailable)?;
        let mut headers = HeaderMap::new();
        headers.insert(HOST, url.authority.clone());
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if method == Method::POST {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        }
        if let Some(mut authorization) = authorization {
            authorization.set_sensitive(true);
            headers.insert(AUTHORIZATION, authorization);
        }
        let request = RemoteRequest {
            remote: url.remote(self.namespace.as_deref(), true, self.timeout),
            method,
            target: url.target,
            headers,
            body: Bytes::from(form),
            timeout: self.timeout,
            keep_alive: Some(KEEP_ALIVE),
            is_repeatable: matches!(repetition, Repetition::Allowed),
            response_body: ResponseBodyUse::Collect { max_bytes: MAX_RESPONSE_BYTES },
        };
        let response = match client {
            Some(client) => {
                let sending = self.services.send_for_client(client, request);
                sending.await.map_err(ClientRequestFailure::into_message)
            }
            None => self.send_to_the_end(request).await,
        };
        response.map_err(|error| ProviderError::Unavailable(format!("{endpoint}: {error}")))
    }

    async fn send_to_the_end(&self, request: RemoteRequest) -> Result<RemoteResponse, String> {
        let (sender, receiver) = oneshot::channel();
        let sending = self.services.send(request);
        self.services.spawn(Box::pin(async move { drop(sender.send(sending.await)) }));
        receiver.await.unwrap_or_else(|_| Err("the request was aborted".to_owned()))
    }
}

impl IssuedTokens {
    fn from_response(object: Map<String, Value>) -> Result<Self, ProviderError> {
        let text = |name: &str| object.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let unavailable = |message: &str| ProviderError::Unavailable(message.to_owned());
        let access_token = text("access_token").ok_or_else(|| unavailable("the response has no `access_token`"))?;
        // RFC 6749, section 7.1: a client must not use a token of a type that it does not know.
        if !text("token_type").is_some_and(|token_type| token_type.eq_ignore_ascii_case("bearer")) {
            return Err(unavailable("the access token is not a bearer token"));
        }
        Ok(IssuedTokens {
            access_token: access_token.into(),
            id_token: text("id_token").map(Box::from),
            refresh_token: text("refresh_token").map(Box::from),
            expires_in: object
                .get("expires_in")
                .and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok())),
            scope: text("scope").map(Box::from),
        })
    }
}

/// The JSON object of a response. A status 4xx with an error code is a rejection, unless the code or the status says
/// that the same request may succeed later: a provider that limits the rate of requests ends no sessions.
fn read_object(response: &RemoteResponse) -> Result<Map<String, Value>, ProviderError> {
    if response.status.is_success() {
        let body = serde_json::from_slice(&response.body).ok();
        return body.ok_or_else(|| ProviderError::Unavailable("the response is not a JSON object".to_owned()));
    }
    let is_about_request = response.status.is_client_error()
        && !matches!(response.status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
    match error_code(response) {
        Some(code) if is_about_request && !OTHER_CAUSES.contains(&&*code) => Err(ProviderError::Rejected(code)),
        Some(code) => Err(ProviderError::Unavailable(format!("status {}: {code}", response.status))),
        None => Err(ProviderError::Unavailable(format!("status {}", response.status))),
    }
}

/// The error code of a response (RFC 6749, section 5.2). It is the provider's text, so it may be anything.
fn error_code(response: &RemoteResponse) -> Option<String> {
    let body: Map<String, Value> = serde_json::from_slice(&response.body).ok()?;
    let code = body.get("error")?.as_str()?;
    Some(shorten_to(&code.escape_debug().to_string(), MAX_CODE_BYTES).into_owned())
}

/// RFC 6749, section 2.3.1: id and secret are encoded as in a form.
fn basic_authorization(id: &str, secret: &str) -> HeaderValue {
    let credentials = format!("{}:{}", encode(id), encode(secret));
    HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(credentials))).expect("base64 is a header value")
}

/// How long a connection to the provider may stay idle.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// Size limit of responses.
const MAX_RESPONSE_BYTES: usize = 256 * 1024;
/// The error code if the credentials of the client are not valid.
const INVALID_CLIENT: &str = "invalid_client";
/// Error codes that are not about the credential in the request (RFC 6749, sections 4.1.2.1 and 5.2).
const OTHER_CAUSES: [&str; 3] = [INVALID_CLIENT, "server_error", "temporarily_unavailable"];
/// Limit of an error code in the log.
const MAX_CODE_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use serde_json::json;

    use super::super::OpenIdConnect;
    use super::*;
    use crate::plugin_api::PluginState;
    use crate::plugin_api::kind::{BuildCx, BuildNotes, PluginKind};
    use crate::plugin_api::scripted_server::{ScriptedServer, response};

    // RFC 6749, section 5.2, and RFC 6585, section 4
    #[test]
    fn only_errors_about_the_credential_are_rejections() {
        for (status, body, is_rejected) in [
            (400, r#"{"error":"invalid_grant"}"#, true),
            (400, r#"{"error":"interaction_required"}"#, true),
            (401, r#"{"error":"invalid_token"}"#, true),
            (401, r#"{"error":"invalid_client"}"#, false),
            (429, r#"{"error":"invalid_grant"}"#, false),
            (429, r#"{"error":"too_many_requests"}"#, false),
            (408, r#"{"error":"timeout"}"#, false),
            (400, r#"{"error":"temporarily_unavailable"}"#, false),
            (400, r#"{"error":"server_error"}"#, false),
            (503, r#"{"error":"invalid_grant"}"#, false),
            (400, "{}", false),
            (200, "[]", false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let response = RemoteResponse { status, headers: HeaderMap::new(), body: Bytes::from(body) };
            let error = read_object(&response).unwrap_err();
            assert_eq!(matches!(error, ProviderError::Rejected(_)), is_rejected, "{status} {body}: {error}");
        }
    }

    /// A provider that has read a code or a refresh token does not accept it again.
    #[tokio::test(start_paused = true)]
    async fn requests_for_tokens_are_not_repeated() {
        const ISSUER: &str = "https://login.example";
        let server = ScriptedServer::new(|_| {
            let url = |path: &str| format!("{ISSUER}/{path}");
            let body = json!({
                "issuer": ISSUER, "jwks_uri": url("keys"), "token_endpoint": url("token"),
                "introspection_endpoint": url("introspect"), "revocation_endpoint": url("revoke"),
                "active": true, "access_token": "a", "token_type": "Bearer", "keys": [],
            });
            Ok(response(200, "", &body.to_string()))
        });
        let (state, services, notes) = (PluginState::default(), server.services(), BuildNotes::default());
        let object = "KongPlugin/default/test";
        let cx = BuildCx { object, state: &state, services: &services, node: "test", notes: &notes };
        let config = json!({"issuer": ISSUER, "client_id": ["shop"], "auth_methods": ["introspection"]});
        let plugin = OpenIdConnect::build(serde_json::from_value(config).unwrap(), &cx)
            .unwrap_or_else(|invalid| panic!("{invalid:?}"));
        let party = &plugin.settings.party;
        let metadata = party.metadata().await.unwrap();
        let client = IpAddr::from([192, 0, 2, 1]);
        party.client.introspect(&metadata, "a", client).await.unwrap();
        party.client.revoke(&metadata, "a").await.unwrap();
        party.client.request_tokens(&metadata, &[("grant_type", "refresh_token")], None).await.map(drop).unwrap();
        party.client.request_client_tokens(&metadata, ("a", "b"), "", client).await.map(drop).unwrap();
        let of_clients = ["/introspect", "/token"].map(|path| (path.to_owned(), client));
        assert_eq!(*server.of_clients.lock(), of_clients);
        // A client that logs out may leave at once.
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let before = tasks();
        assert!(party.client.revoke(&metadata, "a").now_or_never().is_none());
        assert_eq!(tasks(), before + 1, "the revocation completes");
        let requests = server.requests.lock();
        for (path, expected) in [("/introspect", vec![true]), ("/revoke", vec![true; 2]), ("/token", vec![false; 2])] {
            let found = requests.iter().filter(|request| request.target.path() == path);
            assert_eq!(found.map(|request| request.is_repeatable).collect::<Vec<_>>(), expected, "{path}");
        }
    }
}
