//! Portico as a client of the provider: gets tokens for logins, sessions and passwords, and verifies tokens of clients.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;

use super::super::claims::ClaimSources;
use super::super::config::AuthMethod;
use super::super::provider::{Provider, ProviderMetadata};
use super::super::provider_client::{IssuedTokens, ProviderClient, ProviderError};
use super::bearer_issuers::BearerIssuers;
use super::session_tokens::SessionTokens;
use super::signed_token::{
    IdTokenContext, TokenClaims, TokenError, TokenRules, VerifiedToken, claims_of_verified, is_signed_token,
};
use super::token_identity::TokenIdentity;
use crate::introspection::introspected_binding;
use crate::plugin_api::consumers::Sha256Digest;
use crate::plugin_api::token::TokenOrigin;
use crate::plugin_api::token::jwk::PublishedKey;
use crate::sealed_cookie::random_text;
use crate::token_binding::TokenBinding;
use crate::token_purpose::TokenPurpose;

/// The client with its provider.
pub(in crate::plugins::openid_connect) struct RelyingParty {
    pub(in crate::plugins::openid_connect) provider: Arc<Provider>,
    /// Other issuers of access tokens.
    pub(in crate::plugins::openid_connect) issuers: BearerIssuers,
    pub(in crate::plugins::openid_connect) client: ProviderClient,
    pub(in crate::plugins::openid_connect) rules: TokenRules,
    pub(in crate::plugins::openid_connect) methods: Box<[AuthMethod]>,
    /// The scopes to request.
    pub(in crate::plugins::openid_connect) scope: Box<str>,
    /// Longest time that the result of an introspection is used, in seconds; 0 for a single request.
    pub(in crate::plugins::openid_connect) introspection_ttl: u64,
    /// The same for tokens that were issued for passwords.
    pub(in crate::plugins::openid_connect) token_ttl: u64,
    /// Whether clients must have the keys that their tokens are bound to.
    pub(in crate::plugins::openid_connect) verifies_binding: bool,
}

/// A code of the provider, with what proves that it belongs to a login of this browser.
#[derive(Clone, Copy)]
pub(in crate::plugins::openid_connect) struct CodeGrant<'l> {
    pub(in crate::plugins::openid_connect) code: &'l str,
    pub(in crate::plugins::openid_connect) redirect_uri: &'l str,
    /// The verifier of PKCE (RFC 7636).
    pub(in crate::plugins::openid_connect) verifier: &'l str,
    /// That of the ID token.
    pub(in crate::plugins::openid_connect) nonce: &'l str,
}

/// Why a credential is not accepted. The messages are for the log.
#[derive(Debug, thiserror::Error)]
pub(in crate::plugins::openid_connect) enum AuthenticationError {
    #[error("{0}")]
    Rejected(String),
    /// The provider is needed for the decision, and is not available.
    #[error("{0}")]
    Unavailable(String),
}

impl From<ProviderError> for AuthenticationError {
    fn from(error: ProviderError) -> Self {
        match error {
            ProviderError::Rejected(_) => AuthenticationError::Rejected(error.to_string()),
            ProviderError::Unavailable(message) => AuthenticationError::Unavailable(message),
        }
    }
}

impl From<TokenError> for AuthenticationError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::NoKeys => AuthenticationError::Unavailable(error.to_string()),
            TokenError::Invalid(_) | TokenError::UnknownKey => AuthenticationError::Rejected(error.to_string()),
        }
    }
}

impl RelyingParty {
    pub(in crate::plugins::openid_connect) fn accepts(&self, method: AuthMethod) -> bool {
        self.methods.contains(&method)
    }

    /// The document of the provider, or the error if there is none.
    pub(in crate::plugins::openid_connect) async fn metadata(
        &self,
    ) -> Result<Arc<ProviderMetadata>, AuthenticationError> {
        let unavailable =
            || AuthenticationError::Unavailable("the document of the provider is not available".to_owned());
        self.provider.metadata().await.ok_or_else(unavailable)
    }

    /// The tokens for the code with which the provider has sent the browser back.
    pub(in crate::plugins::openid_connect) async fn finish_login(
        &self,
        grant: CodeGrant<'_>,
        client: IpAddr,
        now: u64,
    ) -> Result<SessionTokens, AuthenticationError> {
        let metadata = self.metadata().await?;
        let parameters = [
            ("grant_type", "authorization_code"),
            ("code", grant.code),
            ("redirect_uri", grant.redirect_uri),
            ("code_verifier", grant.verifier),
        ];
        let tokens = self.client.request_tokens(&metadata, &parameters, Some(client)).await?;
        let Some(id_token) = tokens.id_token.clone() else {
            return Err(AuthenticationError::Rejected("the provider has issued no ID token".to_owned()));
        };
        let context =
            IdTokenContext { nonce: Some(grant.nonce), access_token: Some(&tokens.access_token), subject: None };
        self.rules.verify_id_token(&id_token, context, &metadata, now).await?;
        let tokens = self.session_tokens(tokens, id_token, &metadata, now).await;
        Ok(SessionTokens { session_id: random_text(SESSION_ID_BYTES).into(), ..tokens })
    }

    /// New tokens for a session whose access token has expired.
    pub(in crate::plugins::openid_connect) async fn refresh(
        &self,
        old: &SessionTokens,
        now: u64,
    ) -> Result<SessionTokens, AuthenticationError> {
        let metadata = self.metadata().await?;
        let Some(refresh_token) = old.refresh_token.as_deref() else {
            return Err(AuthenticationError::Rejected("the session has no refresh token".to_owned()));
        };
        let parameters = [("grant_type", "refresh_token"), ("refresh_token", refresh_token)];
        let mut tokens = self.client.request_tokens(&metadata, &parameters, None).await?;
        let id_token = match tokens.id_token.clone() {
            Some(id_token) => {
                let subject = old.provider_session().subject;
                let context = IdTokenContext {
                    nonce: None,
                    access_token: Some(&tokens.access_token),
                    // Without the subject of the session, no ID token is accepted.
                    subject: Some(subject.as_deref().unwrap_or_default()),
                };
                self.rules.verify_id_token(&id_token, context, &metadata, now).await?;
                id_token
            }
            None => old.id_token.clone(),
        };
        // RFC 6749, section 6: without a new one, the old one stays valid, and so does the scope.
        tokens.refresh_token = tokens.refresh_token.or_else(|| old.refresh_token.clone());
        tokens.scope = tokens.scope.or_else(|| old.scope.clone());
        let tokens = self.session_tokens(tokens, id_token, &metadata, now).await;
        Ok(SessionTokens { session_id: old.session_id.clone(), ..tokens })
    }

    /// The identity of a client with this access token, without waiting. `None` if the provider must be reached.
    pub(in crate::plugins::openid_connect) fn verify_locally(
        &self,
        token: &str,
        digest: Sha256Digest,
        now: u64,
    ) -> Option<Result<TokenIdentity, AuthenticationError>> {
        if !self.is_verified_by_keys(token) {
            return None;
        }
        if let Some((index, issuer)) = self.issuers.find(token) {
            let verified = issuer.verify_locally(token, self.rules.leeway, now)?.map_err(AuthenticationError::from);
            return Some(verified.and_then(|verified| self.signed_identity(token, digest, verified, Some(index))));
        }
        let metadata = self.provider.current();
        let metadata = metadata.as_ref()?;
        match self.rules.verify(token, metadata, now) {
            Err(TokenError::UnknownKey | TokenError::NoKeys) if metadata.keys.can_refresh(TokenOrigin::Client) => None,
            verified => {
                let verified = verified.map_err(AuthenticationError::from);
                Some(verified.and_then(|verified| self.signed_identity(token, digest, verified, None)))
            }
        }
    }

    /// The identity of a client with this access token.
    pub(in crate::plugins::openid_connect) async fn verify(
        &self,
        token: &str,
        digest: Sha256Digest,
        client: IpAddr,
        now: u64,
    ) -> Result<TokenIdentity, AuthenticationError> {
        let is_signed = self.is_verified_by_keys(token);
        // Before the document of the provider, which may not be available.
        if is_signed && let Some((index, issuer)) = self.issuers.find(token) {
            let verified = issuer.verify(token, self.rules.leeway, now).await?;
            return self.signed_identity(token, digest, verified, Some(index));
        }
        let metadata = self.metadata().await?;
        if is_signed {
            let verified = self.rules.verify_with_new_keys(token, TokenOrigin::Client, &metadata, now).await?;
            return self.signed_identity(token, digest, verified, None);
        }
        let introspects = self.accepts(AuthMethod::Introspection) && metadata.introspection.is_some();
        if introspects {
            let claims = self.client.introspect(&metadata, token, client).await?;
            self.check_introspection(&claims, &metadata, now)?;
            let introspection = Some(Arc::new(claims.clone()));
            let expires = introspected_until(&claims, self.rules.leeway).min(now + self.introspection_ttl);
            let binding = self.reported_binding(&claims, token);
            return Ok(TokenIdentity { introspection, expires, binding, ..identity(token, digest, claims, None) });
        }
        if self.accepts(AuthMethod::Userinfo) && metadata.userinfo.is_some() {
            let claims = self.client.userinfo(&metadata, token, client).await?;
            let expires = now + self.introspection_ttl;
            let binding = self.reported_binding(&claims, token);
            return Ok(TokenIdentity { expires, binding, ..identity(token, digest, claims, None) });
        }
        Err(AuthenticationError::Rejected("no method of `auth_methods` can verify the token".to_owned()))
    }

    /// The identity of a user or a client with this name and password.
    pub(in crate::plugins::openid_connect) async fn verify_password(
        &self,
        (name, password): (&str, &str),
        digest: Sha256Digest,
        client: IpAddr,
        now: u64,
    ) -> Result<TokenIdentity, AuthenticationError> {
        let metadata = self.metadata().await?;
        let mut result = Err(AuthenticationError::Rejected("no method accepts passwords".to_owned()));
        if self.accepts(AuthMethod::Password) {
            let parameters =
                [("grant_type", "password"), ("username", name), ("password", password), ("scope", &self.scope)];
            result = self.client.request_tokens(&metadata, &parameters, Some(client)).await.map_err(Into::into);
        }
        if matches!(result, Err(AuthenticationError::Rejected(_))) && self.accepts(AuthMethod::ClientCredentials) {
            let scope = self.scope.split(' ').filter(|scope| *scope != "openid").collect::<Vec<_>>().join(" ");
            let requested = self.client.request_client_tokens(&metadata, (name, password), &scope, client).await;
            result = requested.map_err(Into::into);
        }
        let tokens = result?;
        let mut claims = Vec::new();
        let verified = self.verify_issued(&tokens.access_token, &metadata, now).await;
        let expires = expiry(&tokens, verified.as_ref().map(|verified| &verified.claims), now);
        claims.extend(verified.map(|verified| verified.claims));
        if let Some(id_token) = &tokens.id_token {
            let context = IdTokenContext { access_token: Some(&tokens.access_token), ..IdTokenContext::default() };
            claims.push(self.rules.verify_id_token(id_token, context, &metadata, now).await?);
        }
        claims.extend(
            tokens.scope.as_deref().map(|scope| [("scope".to_owned(), Value::from(scope))].into_iter().collect()),
        );
        Ok(TokenIdentity {
            claims: Arc::new(ClaimSources(claims)),
            expires: expires.unwrap_or(u64::MAX).min(now + self.token_ttl),
            ..identity(&tokens.access_token, digest, TokenClaims::new(), None)
        })
    }

    /// An access token that the provider has issued, if it is one that its keys verify. It need not be, and fetches of
    /// the keys would not change that, so it causes as few as tokens of clients.
    async fn verify_issued(&self, token: &str, metadata: &ProviderMetadata, now: u64) -> Option<VerifiedToken> {
        self.rules.verify_with_new_keys(token, TokenOrigin::Client, metadata, now).await.ok()
    }

    fn signed_identity(
        &self,
        token: &str,
        digest: Sha256Digest,
        verified: VerifiedToken,
        bearer_issuer: Option<usize>,
    ) -> Result<TokenIdentity, AuthenticationError> {
        self.rules.check_purpose(verified.purpose)?;
        let binding = self.binding(&verified.claims);
        Ok(TokenIdentity { bearer_issuer, binding, ..identity(token, digest, verified.claims, Some(verified.key)) })
    }

    fn binding(&self, claims: &TokenClaims) -> TokenBinding {
        if self.verifies_binding { TokenBinding::of(claims) } else { TokenBinding::None }
    }

    /// That in what the provider says about a token, or else in the token itself. The provider has accepted the token,
    /// so its claims are right if it has any.
    fn reported_binding(&self, claims: &TokenClaims, token: &str) -> TokenBinding {
        if !self.verifies_binding {
            return TokenBinding::None;
        }
        match introspected_binding(claims) {
            TokenBinding::None => TokenBinding::of(&claims_of_verified(token)),
            binding => binding,
        }
    }

    /// Whether a key is still published: by the provider, or by the further issuer with this index.
    pub(in crate::plugins::openid_connect) fn publishes(
        &self,
        bearer_issuer: Option<usize>,
        key: &Arc<PublishedKey>,
    ) -> bool {
        match bearer_issuer {
            Some(index) => self.issuers.publishes(index, key),
            None => self.provider.current().as_ref().is_some_and(|metadata| metadata.keys.publishes(key)),
        }
    }

    /// Whether the token is a signed one, which the keys of the provider verify.
    fn is_verified_by_keys(&self, token: &str) -> bool {
        self.accepts(AuthMethod::Bearer) && is_signed_token(token)
    }

    /// RFC 7662, section 4: the server may omit claims, but those that it sends count.
    fn check_introspection(
        &self,
        claims: &TokenClaims,
        metadata: &ProviderMetadata,
        now: u64,
    ) -> Result<(), AuthenticationError> {
        let rejected = |message: &str| Err(AuthenticationError::Rejected(message.to_owned()));
        let (now, leeway) = (now as f64, f64::from(self.rules.leeway));
        if claims.get("exp").is_some_and(|exp| exp.as_f64().is_none_or(|exp| exp + leeway <= now)) {
            return rejected("the introspected token has expired");
        }
        if claims.get("nbf").is_some_and(|nbf| nbf.as_f64().is_none_or(|nbf| nbf - leeway > now)) {
            return rejected("the introspected token is not valid yet");
        }
        if claims.contains_key("iss") {
            self.rules.check_issuer(claims, metadata)?;
        }
        Ok(self.rules.check_purpose(TokenPurpose::of_introspected(claims))?)
    }

    /// The tokens of a session, without its id.
    async fn session_tokens(
        &self,
        tokens: IssuedTokens,
        id_token: Box<str>,
        metadata: &ProviderMetadata,
        now: u64,
    ) -> SessionTokens {
        let verified = self.verify_issued(&tokens.access_token, metadata, now).await;
        SessionTokens {
            expires: expiry(&tokens, verified.as_ref().map(|verified| &verified.claims), now),
            access_token: tokens.access_token,
            id_token,
            refresh_token: tokens.refresh_token,
            // RFC 6749, section 5.1: without `scope`, it is the requested one.
            scope: Some(tokens.scope.unwrap_or_else(|| self.scope.clone())),
            session_id: Box::default(),
            has_claims: verified.is_some(),
        }
    }
}

/// The random bytes of the id of a session.
const SESSION_ID_BYTES: usize = 16;

/// When an introspected token expires, in seconds since 1970. The time may have a fraction (RFC 7519, section 2).
fn introspected_until(claims: &TokenClaims, leeway: u32) -> u64 {
    let expires = claims.get("exp").and_then(Value::as_f64).map_or(u64::MAX, |exp| exp as u64);
    expires.saturating_add(u64::from(leeway))
}

fn identity(token: &str, digest: Sha256Digest, claims: TokenClaims, key: Option<Arc<PublishedKey>>) -> TokenIdentity {
    let expires = claims.get("exp").and_then(Value::as_f64).map_or(u64::MAX, |exp| exp as u64);
    let claims = Arc::new(ClaimSources(vec![claims]));
    let access_token = token.into();
    // A token that Portico has requested for a password is bound to nothing that the client has. Those of clients are.
    let (bearer_issuer, introspection, binding) = (None, None, TokenBinding::None);
    TokenIdentity { digest, claims, key, bearer_issuer, introspection, binding, access_token, expires }
}

/// When an access token expires, in seconds since 1970: by the response, or by the token.
fn expiry(tokens: &IssuedTokens, claims: Option<&TokenClaims>, now: u64) -> Option<u64> {
    let by_response = tokens.expires_in.map(|seconds| now.saturating_add(seconds));
    by_response.or_else(|| claims?.get("exp")?.as_f64().map(|exp| exp as u64))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn introspections_are_used_until_their_token_expires() {
        for (claims, expected) in [
            (json!({"exp": 1000}), 1005),
            (json!({"exp": 1000.0}), 1005),
            (json!({"exp": 1000.9}), 1005),
            (json!({"exp": -1.5}), 5),
            (json!({"exp": u64::MAX}), u64::MAX),
            (json!({}), u64::MAX),
        ] {
            assert_eq!(introspected_until(claims.as_object().unwrap(), 5), expected, "{claims}");
        }
    }
}
