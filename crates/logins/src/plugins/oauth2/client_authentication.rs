//! Which client requests a code or a token.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::parameters::Parameters;
use super::refusal::{IssueError, Refusal};
use crate::plugin_api::ConsumerDirectory;
use crate::plugin_api::consumers::{OAuthClient, Sha256Digest, StoredPassword, sha256};
use crate::plugin_api::login::{Login, strip_scheme};
use crate::plugin_api::password::{ChecksBusy, PasswordChecks};

/// What a client has sent about itself.
struct ClientLogin {
    client_id: Option<String>,
    secret: Option<Vec<u8>>,
    by_header: bool,
}

/// The client with this id.
pub(super) fn find_client<'c>(
    consumers: &'c ConsumerDirectory,
    client_id: Option<&str>,
    by_header: bool,
) -> Result<&'c Arc<OAuthClient>, IssueError> {
    let client = client_id.and_then(|client_id| consumers.oauth_clients.get(client_id));
    client.ok_or_else(|| {
        if consumers.lacks_credentials { IssueError::LacksCredentials } else { Refusal::Client { by_header }.into() }
    })
}

/// Authenticates the client by its secret, in the header or among the parameters. A public client has none.
pub(super) async fn authenticate_client(
    consumers: &ConsumerDirectory,
    headers: &HeaderMap,
    auth_header: &HeaderName,
    parameters: &Parameters,
    checks: &PasswordChecks,
) -> Result<Arc<OAuthClient>, IssueError> {
    let ClientLogin { client_id, secret, by_header } = read_login(headers, auth_header, parameters)?;
    let digest = sha256(secret.as_deref().unwrap_or_default());
    let client = match find_client(consumers, client_id.as_deref(), by_header) {
        Ok(client) => client,
        Err(error) => {
            // As long as for a known client with a wrong secret.
            verify_slices_are_equal(&Sha256Digest::default(), &digest).ok();
            return Err(error);
        }
    };
    let is_right = match (&client.secret, &secret) {
        (None, None) => true,
        (None, Some(_)) => return Err(Refusal::SecretOfPublicClient.into()),
        (Some(_), None) => false,
        (Some(StoredPassword::Digest(expected)), Some(_)) => verify_slices_are_equal(expected, &digest).is_ok(),
        (Some(StoredPassword::Hash(hash)), Some(secret)) => match hash.verify_fast(secret) {
            Some(is_right) => is_right,
            None => checks.verify(hash, secret).await.map_err(|ChecksBusy| IssueError::ChecksBusy)?,
        },
    };
    if is_right { Ok(Arc::clone(client)) } else { Err(Refusal::Client { by_header }.into()) }
}

fn read_login(
    headers: &HeaderMap,
    auth_header: &HeaderName,
    parameters: &Parameters,
) -> Result<ClientLogin, IssueError> {
    let mut values = headers.get_all(auth_header).iter();
    let (header, has_more) = (values.next(), values.next().is_some());
    let credentials = header.and_then(|header| strip_scheme(HeaderValue::as_bytes(header), "basic"));
    if let (Some(client_id), Some(secret)) = (&parameters.client_id, &parameters.client_secret) {
        if credentials.is_some() {
            return Err(Refusal::SeveralSecrets.into());
        }
        let (client_id, secret) = (Some(client_id.clone()), Some(secret.clone().into_bytes()));
        return Ok(ClientLogin { client_id, secret, by_header: false });
    }
    if header.is_none() {
        let secret = parameters.client_secret.clone().map(String::into_bytes);
        return Ok(ClientLogin { client_id: parameters.client_id.clone(), secret, by_header: false });
    }
    let login = credentials.filter(|_| !has_more).and_then(Login::decode);
    let Some(Login { username, password }) = login else { return Err(Refusal::Client { by_header: true }.into()) };
    if parameters.client_secret.is_some() {
        return Err(Refusal::SeveralSecrets.into());
    }
    if parameters.client_id.as_ref().is_some_and(|client_id| *client_id != username) {
        return Err(Refusal::Client { by_header: true }.into());
    }
    let secret = (!password.is_empty()).then_some(password);
    Ok(ClientLogin { client_id: Some(username), secret, by_header: true })
}
