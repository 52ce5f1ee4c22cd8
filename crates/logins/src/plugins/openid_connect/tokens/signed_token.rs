//! Verification of tokens that the provider has signed: access tokens, ID tokens and logout tokens.

use std::borrow::Cow;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Algorithm as Digest, SHA256, SHA384, SHA512, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::super::provider::ProviderMetadata;
use crate::plugin_api::token::jwk::PublishedKey;
use crate::plugin_api::token::signature::Algorithm;
use crate::plugin_api::token::{KeyCheck, KeySet, TokenOrigin, UnverifiedToken};
use crate::token_purpose::TokenPurpose;

/// What tokens must contain.
#[derive(Debug)]
pub(in crate::plugins::openid_connect) struct TokenRules {
    pub(in crate::plugins::openid_connect) client_id: Box<str>,
    /// If empty, the issuer of the document.
    pub(in crate::plugins::openid_connect) issuers_allowed: Box<[Box<str>]>,
    /// In seconds.
    pub(in crate::plugins::openid_connect) leeway: u32,
    /// Whether clients may send ID tokens in place of access tokens.
    pub(in crate::plugins::openid_connect) allows_id_tokens: bool,
}

/// The claims of a token.
pub(in crate::plugins::openid_connect) type TokenClaims = Map<String, Value>;

/// A token whose signature, issuer and times are valid.
#[derive(Debug)]
pub(in crate::plugins::openid_connect) struct VerifiedToken {
    pub(in crate::plugins::openid_connect) claims: TokenClaims,
    pub(super) key: Arc<PublishedKey>,
    pub(super) purpose: TokenPurpose,
    algorithm: Algorithm,
}

/// Why a token is not accepted. The messages are for the log, and contain nothing of the token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::plugins::openid_connect) enum TokenError {
    #[error("{0}")]
    Invalid(Cow<'static, str>),
    /// The provider may have published the key since the keys were fetched.
    #[error("the key of the token is not known")]
    UnknownKey,
    #[error("the keys of the issuer are not available")]
    NoKeys,
}

impl TokenError {
    pub(super) fn invalid(message: &'static str) -> Self {
        TokenError::Invalid(Cow::Borrowed(message))
    }
}

/// What an ID token must match in addition.
#[derive(Clone, Copy, Default)]
pub(super) struct IdTokenContext<'c> {
    /// The nonce of the login. `None` for tokens that no login has requested.
    pub(super) nonce: Option<&'c str>,
    /// The access token that was issued together with it.
    pub(super) access_token: Option<&'c str>,
    /// The user of the session for which the token was refreshed.
    pub(super) subject: Option<&'c str>,
}

impl TokenRules {
    /// Verifies signature, issuer and times. `now`: in seconds since 1970.
    pub(super) fn verify(
        &self,
        text: &str,
        metadata: &ProviderMetadata,
        now: u64,
    ) -> Result<VerifiedToken, TokenError> {
        let token = parse_signed(text)?;
        // The issuer is compared first, so that tokens of other issuers do not cause a fetch of the keys.
        self.check_issuer(&token.claims, metadata)?;
        verify_by_keys(token, &metadata.keys, self.leeway, now)
    }

    /// As [`TokenRules::verify`]. If the key is not known, the keys are fetched again, as often as tokens of this
    /// origin may cause that.
    pub(in crate::plugins::openid_connect) async fn verify_with_new_keys(
        &self,
        text: &str,
        origin: TokenOrigin,
        metadata: &ProviderMetadata,
        now: u64,
    ) -> Result<VerifiedToken, TokenError> {
        let verified = self.verify(text, metadata, now);
        if !matches!(verified, Err(TokenError::UnknownKey | TokenError::NoKeys)) {
            return verified;
        }
        let has_new_keys = metadata.keys.refresh(origin).await;
        match self.verify(text, metadata, now) {
            // The provider itself has issued the token, so it is not the token that is wrong.
            Err(TokenError::UnknownKey) if origin == TokenOrigin::Issuer && !has_new_keys => Err(TokenError::NoKeys),
            verified => verified,
        }
    }

    /// Verifies an ID token that the provider has sent (OpenID Connect Core, section 3.1.3.7).
    pub(super) async fn verify_id_token(
        &self,
        text: &str,
        context: IdTokenContext<'_>,
        metadata: &ProviderMetadata,
        now: u64,
    ) -> Result<TokenClaims, TokenError> {
        let token = self.verify_with_new_keys(text, TokenOrigin::Issuer, metadata, now).await?;
        self.check_id_token(&token.claims, token.algorithm, context)?;
        Ok(token.claims)
    }

    /// Refuses tokens for other purposes than access.
    pub(super) fn check_purpose(&self, purpose: TokenPurpose) -> Result<(), TokenError> {
        match purpose {
            TokenPurpose::Access => Ok(()),
            TokenPurpose::Id if self.allows_id_tokens => Ok(()),
            TokenPurpose::Id => {
                Err(TokenError::invalid("the token is an ID token, which only `allow_id_tokens` permits"))
            }
            TokenPurpose::Other => Err(TokenError::invalid("the token is not an access token")),
        }
    }

    fn check_id_token(
        &self,
        claims: &TokenClaims,
        algorithm: Algorithm,
        context: IdTokenContext<'_>,
    ) -> Result<(), TokenError> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        self.check_audience(claims)?;
        if text("sub").is_none_or(str::is_empty) {
            return Err(TokenError::invalid("the ID token has no `sub`"));
        }
        if context.subject.is_some_and(|subject| text("sub") != Some(subject)) {
            return Err(TokenError::invalid("`sub` of the ID token is another user"));
        }
        if !claims.get("iat").is_some_and(Value::is_number) {
            return Err(TokenError::invalid("the ID token has no `iat`"));
        }
        if let Some(nonce) = context.nonce {
            let is_expected =
                text("nonce").is_some_and(|found| verify_slices_are_equal(found.as_bytes(), nonce.as_bytes()).is_ok());
            if !is_expected {
                return Err(TokenError::invalid("`nonce` of the ID token is not that of the login"));
            }
        }
        if let (Some(hash), Some(access_token)) = (claims.get("at_hash"), context.access_token) {
            let expected = access_token_hash(algorithm, access_token);
            if expected.is_some_and(|expected| hash.as_str() != Some(&expected)) {
                return Err(TokenError::invalid("`at_hash` of the ID token is not that of the access token"));
            }
        }
        Ok(())
    }

    /// Verifies that a token is for this client.
    pub(in crate::plugins::openid_connect) fn check_audience(&self, claims: &TokenClaims) -> Result<(), TokenError> {
        let is_client = |value: &Value| value.as_str() == Some(&self.client_id);
        let (is_for_client, has_others) = match claims.get("aud") {
            Some(Value::Array(list)) => (list.iter().any(is_client), list.len() > 1),
            Some(value) => (is_client(value), false),
            None => (false, false),
        };
        if !is_for_client {
            return Err(TokenError::invalid("`aud` of the token is another client"));
        }
        match claims.get("azp") {
            Some(value) if !is_client(value) => Err(TokenError::invalid("`azp` of the token is another client")),
            None if has_others => Err(TokenError::invalid("the token has several audiences, but no `azp`")),
            _ => Ok(()),
        }
    }

    pub(super) fn check_issuer(&self, claims: &TokenClaims, metadata: &ProviderMetadata) -> Result<(), TokenError> {
        let issuer = claims.get("iss").and_then(Value::as_str).unwrap_or_default();
        let is_allowed = match &*self.issuers_allowed {
            [] => issuer == &*metadata.issuer,
            allowed => allowed.iter().any(|allowed| **allowed == *issuer),
        };
        is_allowed.then_some(()).ok_or(TokenError::invalid("`iss` of the token is another issuer"))
    }
}

/// Reads a token that must be signed with a key.
pub(super) fn parse_signed(text: &str) -> Result<UnverifiedToken<'_>, TokenError> {
    let token = UnverifiedToken::parse(text.as_bytes()).map_err(TokenError::invalid)?;
    match token.algorithm.is_symmetric() {
        true => Err(TokenError::invalid("the token is signed with a secret instead of a key")),
        false => Ok(token),
    }
}

/// Verifies signature and times of a token. The caller has compared the issuer of the keys with that of the token.
pub(super) fn verify_by_keys(
    token: UnverifiedToken<'_>,
    keys: &KeySet,
    leeway: u32,
    now: u64,
) -> Result<VerifiedToken, TokenError> {
    let key = match keys.verify(&token) {
        KeyCheck::Verified(key) => key,
        KeyCheck::InvalidSignature => return Err(TokenError::invalid("the signature of the token is invalid")),
        KeyCheck::OtherIssuer => return Err(TokenError::invalid("the key of the token is one of another issuer")),
        KeyCheck::UnknownKey => return Err(TokenError::UnknownKey),
        KeyCheck::NoKeys => return Err(TokenError::NoKeys),
    };
    check_times(&token.claims, leeway, now)?;
    let (purpose, algorithm) = (TokenPurpose::of(&token), token.algorithm);
    Ok(VerifiedToken { claims: token.claims, key, purpose, algorithm })
}

fn check_times(claims: &TokenClaims, leeway: u32, now: u64) -> Result<(), TokenError> {
    // Exact: 53 bits hold the seconds of many million years.
    let (leeway, now) = (f64::from(leeway), now as f64);
    let time = |name: &str| claims.get(name).map(|value| value.as_f64().unwrap_or(f64::NAN));
    match time("exp") {
        None => return Err(TokenError::invalid("the token has no `exp`")),
        Some(exp) if exp + leeway > now => {}
        Some(_) => return Err(TokenError::invalid("the token has expired")),
    }
    match time("nbf") {
        None => Ok(()),
        Some(nbf) if nbf - leeway <= now => Ok(()),
        Some(_) => Err(TokenError::invalid("the token is not valid yet")),
    }
}

/// The value of `at_hash` (OpenID Connect Core, section 3.1.3.6). `None` if the algorithm has no digest of its own.
fn access_token_hash(algorithm: Algorithm, access_token: &str) -> Option<String> {
    let hash: &'static Digest = match algorithm {
        Algorithm::Rs256 | Algorithm::Es256 | Algorithm::Ps256 => &SHA256,
        Algorithm::Rs384 | Algorithm::Es384 | Algorithm::Ps384 => &SHA384,
        Algorithm::Rs512 | Algorithm::Es512 | Algorithm::Ps512 => &SHA512,
        Algorithm::EdDsa | Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => return None,
    };
    let bytes = digest(hash, access_token.as_bytes());
    Some(URL_SAFE_NO_PAD.encode(&bytes.as_ref()[..bytes.as_ref().len() / 2]))
}

/// The claims of a token that was verified before, without verifying it again. Empty if it is not a token.
pub(super) fn claims_of_verified(text: &str) -> TokenClaims {
    UnverifiedToken::parse(text.as_bytes()).map(|token| token.claims).unwrap_or_default()
}

/// Whether a text has the form of a signed token.
pub(super) fn is_signed_token(text: &str) -> bool {
    text.bytes().filter(|byte| *byte == b'.').count() == 2 && text.starts_with("ey")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugin_api::PluginState;
    use crate::plugin_api::scripted_server::{ScriptedServer, response};
    use crate::plugin_api::token::signature::signing::Signer;

    fn rules() -> TokenRules {
        TokenRules { client_id: "shop".into(), issuers_allowed: [].into(), leeway: 5, allows_id_tokens: false }
    }

    fn claims(value: Value) -> TokenClaims {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn id_tokens_must_be_for_this_login() {
        let context = IdTokenContext { nonce: Some("n"), access_token: Some("at"), subject: Some("anna") };
        let hash = access_token_hash(Algorithm::Rs256, "at").unwrap();
        let valid = json!({"aud": "shop", "sub": "anna", "iat": 1, "nonce": "n", "at_hash": hash});
        for (changes, expected) in [
            (json!({}), ""),
            (json!({"aud": ["shop"]}), ""),
            (json!({"aud": ["shop", "b"], "azp": "shop"}), ""),
            (json!({"at_hash": null}), "at_hash"),
            (json!({"aud": "other"}), "`aud`"),
            (json!({"aud": null}), "`aud`"),
            (json!({"aud": ["shop", "b"]}), "no `azp`"),
            (json!({"azp": "b"}), "`azp`"),
            (json!({"sub": ""}), "no `sub`"),
            (json!({"sub": "bert"}), "another user"),
            (json!({"iat": "now"}), "`iat`"),
            (json!({"nonce": "m"}), "`nonce`"),
            (json!({"nonce": null}), "`nonce`"),
            (json!({"at_hash": "x"}), "`at_hash`"),
        ] {
            let mut token = claims(valid.clone());
            token.extend(claims(changes.clone()));
            let result = rules().check_id_token(&token, Algorithm::Rs256, context);
            let error = result.err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(expected) && error.is_empty() == expected.is_empty(), "{changes}: {error}");
        }
        let mut without_hash = claims(valid);
        without_hash.remove("at_hash");
        assert_eq!(rules().check_id_token(&without_hash, Algorithm::Rs256, context), Ok(()));
    }

    #[test]
    fn tokens_must_expire() {
        for (value, is_valid) in [
            (json!({"exp": 1001}), true),
            (json!({"exp": 996}), true),
            (json!({"exp": 995}), false),
            (json!({}), false),
            (json!({"exp": "2000"}), false),
            (json!({"exp": null}), false),
            (json!({"exp": 2000, "nbf": 1005}), true),
            (json!({"exp": 2000, "nbf": 1006}), false),
            (json!({"exp": 2000, "nbf": "0"}), false),
        ] {
            assert_eq!(check_times(&claims(value.clone()), 5, 1000).is_ok(), is_valid, "{value}");
        }
    }

    // RFC 8725, sections 2.1 and 3.1
    #[tokio::test]
    async fn public_keys_are_no_secrets() {
        let claims = json!({"exp": 2000});
        for (algorithm, member) in [(Algorithm::Rs256, "n"), (Algorithm::Es256, "x"), (Algorithm::EdDsa, "x")] {
            let signer = Signer::for_algorithm(algorithm);
            let (jwk, pem) = (signer.jwk(Some("a")), signer.public_pem());
            let text = jwk[member].as_str().unwrap();
            let bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
            // Some issuers publish secrets by mistake.
            let published_secret = json!({"kty": "oct", "kid": "b", "alg": "HS256", "k": text});
            let set = json!({"keys": [jwk, published_secret]}).to_string();
            let server = ScriptedServer::new(move |_| Ok(response(200, "", &set)));
            let (state, services) = (PluginState::default(), server.services());
            let keys = KeySet::open_in("https://issuer.example/keys", None, "KongPlugin/a/b", &state, &services);
            assert!(keys.refresh(TokenOrigin::Issuer).await);
            let genuine = signer.token(algorithm, &json!({"kid": "a"}), &claims);
            assert!(verify_by_keys(parse_signed(&genuine).unwrap(), &keys, 0, 1000).is_ok(), "{algorithm}");
            for secret in [pem.as_bytes(), pem.trim_end().as_bytes(), text.as_bytes(), &bytes] {
                for (hmac, id) in [(Algorithm::Hs256, "a"), (Algorithm::Hs384, "a"), (Algorithm::Hs256, "b")] {
                    let forged = Signer::secret(secret).token(hmac, &json!({"kid": id}), &claims);
                    let error = parse_signed(&forged).unwrap_err().to_string();
                    assert!(error.contains("a secret instead of a key"), "{algorithm} {hmac} {id}: {error}");
                    let token = UnverifiedToken::parse(forged.as_bytes()).unwrap();
                    assert!(verify_by_keys(token, &keys, 0, 1000).is_err(), "{algorithm} {hmac} {id}");
                }
            }
        }
    }

    #[test]
    fn the_hash_of_an_access_token_is_that_of_the_specification() {
        // The example of OpenID Connect Core, appendix A.3.
        let token = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y";
        assert_eq!(access_token_hash(Algorithm::Rs256, token).as_deref(), Some("77QmUPtjPfzWtF2AnpK9RQ"));
    }
}
