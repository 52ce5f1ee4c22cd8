//! The token endpoint: tokens for codes, refresh tokens, users and clients.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::StatusCode;
use serde::Serialize;

use super::OAuth2;
use super::authorize::redirect_uri;
use super::client_authentication::authenticate_client;
use super::grant::{
    Expiry, Grant, GrantName, GrantPlace, HeaderText, IssuedCode, IssuedTokens, SentToken, Stage, TokenKind,
};
use super::parameters::Parameters;
use super::refusal::{IssueError, Refusal, error_reply, json_body, with_json_headers};
use super::token_store::ExchangeOutcome;
use crate::plugin_api::consumers::{OAuthClient, Sha256Digest, sha256};
use crate::plugin_api::{Reply, RequestCx, Scheme};

/// How long a code can be exchanged.
pub(super) const CODE_LIFETIME: Duration = Duration::from_secs(300);

/// The response with a token (RFC 6749, section 5.1).
#[derive(Serialize)]
pub(super) struct TokenReply {
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    token_type: &'static str,
    pub(super) access_token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires_in: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<String>,
}

/// The refresh token that a token is issued with.
pub(super) enum RefreshToken<'t> {
    New,
    /// The one that was sent, which remains valid.
    Kept(&'t str, Sha256Digest),
}

impl OAuth2 {
    pub(super) async fn token(&self, cx: &RequestCx<'_>, parameters: Result<Parameters, Refusal>) -> Box<Reply> {
        let (parameters, issued) = match parameters {
            Ok(parameters) => {
                let issued = self.issue_token(cx, &parameters).await;
                (parameters, issued)
            }
            Err(refusal) => (Parameters::default(), Err(refusal.into())),
        };
        match issued {
            Ok(reply) => {
                let body = json_body(&TokenReply { state: parameters.state, ..reply });
                with_json_headers(Reply::new(StatusCode::OK, body, "token_issued"))
            }
            Err(error) => error_reply(&error, parameters.state.as_deref(), &self.settings.challenges.client),
        }
    }

    async fn issue_token(&self, cx: &RequestCx<'_>, parameters: &Parameters) -> Result<TokenReply, IssueError> {
        self.check_https(cx)?;
        let (headers, auth_header) = (&cx.head.headers, &self.settings.auth_header);
        let client = authenticate_client(cx.consumers, headers, auth_header, parameters, &self.checks).await?;
        let grants = self.settings.grants;
        let grant_type = parameters.grant_type.as_deref();
        if grant_type != Some("client_credentials") && !redirect_uri(&client, parameters.redirect_uri.as_deref()).1 {
            return Err(Refusal::RedirectUri.into());
        }
        match grant_type {
            Some("authorization_code") => self.exchange_code(cx, parameters, &client).await,
            Some("refresh_token") => self.refresh(cx, parameters, &client).await,
            Some("client_credentials") if grants.client_credentials => {
                if client.secret.is_none() {
                    return Err(Refusal::PublicClient.into());
                }
                // Without a user, the client acts for itself.
                let user = self.user(parameters)?;
                if user.is_some() {
                    self.check_provision_key(parameters)?;
                }
                self.begin_with_tokens(cx, parameters, &client, user, None).await
            }
            Some("password") if grants.password => {
                self.check_provision_key(parameters)?;
                let user = self.user(parameters)?.ok_or(Refusal::NoUser)?;
                self.begin_with_tokens(cx, parameters, &client, Some(user), Some(RefreshToken::New)).await
            }
            _ => Err(Refusal::GrantType.into()),
        }
    }

    async fn begin_with_tokens(
        &self,
        cx: &RequestCx<'_>,
        parameters: &Parameters,
        client: &OAuthClient,
        user: Option<HeaderText>,
        refresh: Option<RefreshToken<'_>>,
    ) -> Result<TokenReply, IssueError> {
        let (scope, name) = (self.scope(parameters)?, GrantName::random());
        let (tokens, reply) = self.issue(cx.now, &name, scope.clone(), refresh);
        self.begin(cx, &name, client, user, scope, Stage::Tokens(tokens)).await?;
        Ok(reply)
    }

    async fn exchange_code(
        &self,
        cx: &RequestCx<'_>,
        parameters: &Parameters,
        client: &OAuthClient,
    ) -> Result<TokenReply, IssueError> {
        let text = parameters.code.as_deref().filter(|_| self.settings.grants.authorization_code);
        let text = text.ok_or(Refusal::Code)?;
        let (sent, name, grant) = self.grant_of(cx, TokenKind::Code, text).await?.ok_or(Refusal::Code)?;
        let Stage::Code(issued) = &grant.stage else {
            // The code was exchanged before, so one of the two clients has stolen it.
            self.settings.store.remove(&sent.grant).await?;
            return Err(Refusal::Code.into());
        };
        if !sent.is(&issued.code) || issued.expires.is_past(cx.now) || !grant.is_of(client) {
            return Err(Refusal::Code.into());
        }
        self.check_verifier(client, issued, parameters.code_verifier.as_deref())?;
        let (uri, is_registered) = redirect_uri(client, parameters.redirect_uri.as_deref());
        if !is_registered || *uri != *issued.redirect_uri {
            return Err(Refusal::RedirectUri.into());
        }
        let (tokens, reply) = self.issue(cx.now, &name, grant.scope.clone(), Some(RefreshToken::New));
        let after = Grant { stage: Stage::Tokens(tokens), ..(*grant).clone() };
        match self.settings.store.exchange(&sent.grant, &sent.digest, &grant, after, cx.now).await? {
            ExchangeOutcome::Done => Ok(reply),
            ExchangeOutcome::UsedBefore | ExchangeOutcome::Gone => Err(Refusal::Code.into()),
        }
    }

    fn check_verifier(&self, client: &OAuthClient, code: &IssuedCode, verifier: Option<&str>) -> Result<(), Refusal> {
        // A verifier without a challenge: an attacker has removed the challenge from the request of the client (RFC
        // 9700, section 2.1.1).
        if code.challenge.is_none() && verifier.is_none() && !self.requires_pkce(client) {
            return Ok(());
        }
        let verifier = verifier.ok_or(Refusal::NoVerifier)?;
        if !(43..=128).contains(&verifier.len()) {
            return Err(Refusal::VerifierLength);
        }
        let challenge = code.challenge.as_ref().ok_or(Refusal::WrongVerifier)?;
        verify_slices_are_equal(challenge, &sha256(verifier.as_bytes())).map_err(|_| Refusal::WrongVerifier)
    }

    async fn refresh(
        &self,
        cx: &RequestCx<'_>,
        parameters: &Parameters,
        client: &OAuthClient,
    ) -> Result<TokenReply, IssueError> {
        let text = parameters.refresh_token.as_deref().ok_or(Refusal::RefreshToken)?;
        let found = self.grant_of(cx, TokenKind::Refresh, text).await?;
        let (sent, name, grant) = found.ok_or(Refusal::RefreshToken)?;
        let current = match &grant.stage {
            Stage::Tokens(IssuedTokens { refresh: Some(current), .. }) => current,
            _ => return Err(Refusal::RefreshToken.into()),
        };
        if !sent.is(&current.0) {
            // It was replaced before, so one of the two clients has stolen it.
            self.settings.store.remove(&sent.grant).await?;
            return Err(Refusal::RefreshToken.into());
        }
        if current.1.is_past(cx.now) {
            return Err(Refusal::RefreshToken.into());
        }
        if !grant.is_of(client) {
            return Err(Refusal::Client { by_header: false }.into());
        }
        let scope = narrowed_scope(grant.scope.as_ref(), parameters.scope.as_deref())?;
        let store = &self.settings.store;
        let is_kept = self.settings.reuses_refresh_tokens && self.settings.access_lifetime.is_some();
        let refresh = if is_kept { RefreshToken::Kept(text, sent.digest) } else { RefreshToken::New };
        let (tokens, reply) = self.issue(cx.now, &name, scope, Some(refresh));
        let after = Grant { stage: Stage::Tokens(tokens), ..(*grant).clone() };
        let is_valid = if is_kept {
            store.replace(&sent.grant, after, cx.now).await?
        } else {
            store.exchange(&sent.grant, &sent.digest, &grant, after, cx.now).await? == ExchangeOutcome::Done
        };
        if is_valid { Ok(reply) } else { Err(Refusal::RefreshToken.into()) }
    }

    /// The grant that a code or a refresh token names, if it is valid here.
    async fn grant_of(
        &self,
        cx: &RequestCx<'_>,
        kind: TokenKind,
        text: &str,
    ) -> Result<Option<(SentToken, GrantName, Arc<Grant>)>, IssueError> {
        let Some(sent) = SentToken::parse(kind, text.as_bytes()) else { return Ok(None) };
        let grant = self.settings.store.get(&sent.grant).await?.filter(|grant| self.is_valid_here(grant, cx));
        Ok(GrantName::of_token(text).zip(grant).map(|(name, grant)| (sent, name, grant)))
    }

    /// New tokens of a grant, for the store and for the client.
    pub(super) fn issue(
        &self,
        now: SystemTime,
        name: &GrantName,
        scope: Option<HeaderText>,
        refresh: Option<RefreshToken<'_>>,
    ) -> (IssuedTokens, TokenReply) {
        let (access_token, access) = name.issue(TokenKind::Access);
        let lifetime = self.settings.access_lifetime;
        // A token that does not expire needs no other one.
        let refresh = refresh.filter(|_| lifetime.is_some()).map(|refresh| match refresh {
            RefreshToken::New => name.issue(TokenKind::Refresh),
            RefreshToken::Kept(text, digest) => (text.to_owned(), digest),
        });
        let (refresh_token, refresh) = refresh.unzip();
        let refresh = refresh.map(|digest| (digest, Expiry::after(now, self.settings.refresh_lifetime)));
        let tokens = IssuedTokens { access, access_expires: Expiry::after(now, lifetime), scope, refresh };
        let expires_in = lifetime.map(|lifetime| lifetime.as_secs());
        (tokens, TokenReply { refresh_token, token_type: "bearer", access_token, expires_in, state: None })
    }

    pub(super) fn check_https(&self, cx: &RequestCx<'_>) -> Result<(), Refusal> {
        let scheme = if self.settings.accepts_terminated_tls { cx.client.scheme } else { cx.client.received.scheme };
        if scheme == Scheme::Https { Ok(()) } else { Err(Refusal::NoHttps) }
    }

    /// Where the tokens of a request for them are valid.
    pub(super) fn place(&self, cx: &RequestCx<'_>) -> Option<GrantPlace> {
        let plugin = self.settings.object.clone()?;
        Some(GrantPlace { plugin, service: (*cx.route.service).into() })
    }

    pub(super) fn is_valid_here(&self, grant: &Grant, cx: &RequestCx<'_>) -> bool {
        match (&grant.place, &self.settings.object) {
            (None, None) => true,
            (Some(place), Some(object)) => place.plugin == *object && *place.service == *cx.route.service,
            _ => false,
        }
    }
}

/// The scope of a refreshed token, which is at most what the user has granted (RFC 6749, section 6).
fn narrowed_scope(granted: Option<&HeaderText>, requested: Option<&str>) -> Result<Option<HeaderText>, Refusal> {
    let Some(requested) = requested.filter(|scope| !scope.trim().is_empty()) else { return Ok(granted.cloned()) };
    let granted: Vec<&str> = granted.map_or(Vec::new(), |granted| granted.as_str().split(' ').collect());
    let mut scopes: Vec<&str> = requested.split_whitespace().collect();
    if !scopes.iter().all(|scope| granted.contains(scope)) {
        return Err(Refusal::ScopeMismatch);
    }
    scopes.sort_unstable();
    scopes.dedup();
    Ok(HeaderText::parse(&scopes.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refreshed_scopes_are_a_part_of_the_granted_ones() {
        let granted = HeaderText::parse("read write");
        let narrowed = |requested| {
            let scope = narrowed_scope(granted.as_ref(), requested);
            scope.map(|scope| scope.map_or(String::new(), |scope| scope.as_str().to_owned()))
        };
        assert_eq!(narrowed(None), Ok("read write".to_owned()));
        assert_eq!(narrowed(Some(" ")), Ok("read write".to_owned()));
        assert_eq!(narrowed(Some("write write")), Ok("write".to_owned()));
        assert_eq!(narrowed(Some("write admin")), Err(Refusal::ScopeMismatch));
        assert_eq!(narrowed_scope(None, Some("read")), Err(Refusal::ScopeMismatch));
    }
}
