//! `jwt`: authenticates consumers by JSON Web Tokens.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: tokens
//! plugin: jwt
//! config:
//!   claims_to_verify: [exp]
//!   jwks:
//!   - issuer: https://issuer.example
//!     uri: https://issuer.example/keys
//!     audiences: [shop]
//! ```
//!
//! If `jwks` lists the issuer of a token, the token is verified with the keys that the issuer publishes. Other tokens
//! are verified with credentials: Secrets labeled `konghq.com/credential: jwt`, which a KongConsumer lists in
//! `credentials`. The claim that `key_claim_name` names, by default `iss`, selects the Secret whose `key` equals the
//! claim.
//!
//! ```text
//!   token ─▶ in the cache? ── no ─────▶ parse ─▶ find the key: of the issuer, or of a credential
//!                │ yes                    ▲                    │
//!                ▼                        │                    ▼
//!         key still in use? ─── no ───────┘        verify signature and audience
//!                │ yes                                         │
//!                ▼                                             │
//!         check time claims ◀──────────────────────────────────┘
//!                │
//!                ▼
//!           find consumer
//! ```

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod issuer;
mod rejection;
mod token_location;
mod verified_token;

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use self::issuer::{Issuer, IssuerConfig};
use self::rejection::{Challenges, JwtRejection};
use self::token_location::TokenLocations;
use self::verified_token::{Proof, VerifiedToken};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::consumers::{JwtCredential, Sha256Digest, sha256};
use crate::plugin_api::fields::FieldValue;
use crate::plugin_api::kind::{BuildCx, Phases, PluginKind, Scopes};
use crate::plugin_api::token::signature::{VerificationKey, hmac_verifies};
use crate::plugin_api::token::{
    KeyCheck, TimeClaimName, TimeClaimRules, TimeClaims, TokenOrigin, UnverifiedToken, decode_secret,
};
use crate::plugin_api::{
    AccessOutcome, Assertions, CredentialLocations, NamedConsumer, Plugin, Reply, RequestCx, VerifiedSubject,
};
use crate::plugin_kit::authentication::{AuthPolicy, VerifiedCredential, declare_identity};
use crate::plugin_kit::digest_cache::DigestCache;
use crate::token_binding::BindingViolation;

/// Authenticates consumers by JSON Web Tokens.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Query parameters to search for a token. If query, cookies and headers contain different tokens, the request is
    /// rejected.
    uri_param_names: Vec<String>,
    /// Cookies to search for a token. If several cookies of one name contain different tokens, the request is rejected.
    cookie_names: Vec<String>,
    /// Headers to search for a token. The token must follow the scheme `Bearer`, as in `Authorization: Bearer TOKEN`. A
    /// request in which one of these headers occurs several times is rejected.
    header_names: Vec<String>,
    /// The claim whose value is the `key` of a credential. If a token does not contain it, the member of the token's
    /// header with this name is used.
    key_claim_name: String,
    /// Decode the HMAC secrets of credentials from base64.
    secret_is_base64: bool,
    /// Time claims that tokens must contain and that must be valid. Other time claims are ignored, so expired tokens
    /// are accepted if `exp` is not listed. Tokens of an issuer in `jwks` are an exception: `exp` and `nbf` must be
    /// valid if they are present, even if they are not listed.
    claims_to_verify: Vec<TimeClaimName>,
    /// Id or username of the consumer for requests without a valid token. If unset, such requests are rejected. A token
    /// of an issuer in `jwks` whose keys are not available, or with an unknown key while the keys cannot be fetched, is
    /// neither valid nor invalid: the response is 503.
    anonymous: Option<String>,
    /// Require a token for OPTIONS requests, too. If false, all of them are forwarded without a token, not only CORS
    /// preflight requests.
    run_on_preflight: bool,
    /// The maximum remaining lifetime of a token in seconds; 0 for no limit. Requires `exp` in `claims_to_verify`.
    #[schemars(range(max = 31_536_000))]
    maximum_expiration: u32,
    /// The parameter `realm` of the header `WWW-Authenticate` in 401 responses.
    realm: Option<String>,
    /// Issuers that publish their keys at a URL as a JSON Web Key Set.
    jwks: Vec<IssuerConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            uri_param_names: vec!["jwt".to_owned()],
            cookie_names: Vec::new(),
            header_names: vec!["authorization".to_owned()],
            key_claim_name: "iss".to_owned(),
            secret_is_base64: false,
            claims_to_verify: Vec::new(),
            anonymous: None,
            run_on_preflight: true,
            maximum_expiration: 0,
            realm: None,
            jwks: Vec::new(),
        }
    }
}

/// The largest `maximum_expiration`: one year in seconds.
const MAX_EXPIRATION: u32 = 31_536_000;

#[derive(Debug)]
pub(crate) struct Jwt {
    locations: TokenLocations,
    policy: AuthPolicy,
    challenges: Challenges,
    key_claim: Box<str>,
    secret_is_base64: bool,
    rules: TimeClaimRules,
    issuers: Box<[Issuer]>,
    /// Shared by all plugins of this kind in the process.
    cache: Arc<DigestCache<VerifiedToken>>,
    /// Fingerprint of the configuration. Part of the cache key, so that tokens verified under another configuration are
    /// not accepted.
    fingerprint: Sha256Digest,
}

impl PluginKind for Jwt {
    const NAME: &'static str = "jwt";
    const HAS_CREDENTIALS: bool = true;
    const PRIORITY: i32 = 1450;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    const ASSERTS: bool = true;
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let fingerprint = sha256(format!("{} {config:?}", cx.object).as_bytes());
        let mut invalid = Vec::new();
        if config.key_claim_name.is_empty() {
            invalid.push(Diagnostic::in_config("key_claim_name", "is empty", "set it to a claim, for example `iss`"));
        }
        if config.maximum_expiration > 0 && !config.claims_to_verify.contains(&TimeClaimName::Exp) {
            let remedy = "add `exp` to config.claims_to_verify";
            invalid.push(Diagnostic::in_config(
                "maximum_expiration",
                "requires `exp` in config.claims_to_verify",
                remedy,
            ));
        }
        if config.maximum_expiration > MAX_EXPIRATION {
            let remedy = "use 0 to 31536000 seconds (one year)";
            invalid.push(Diagnostic::in_config("maximum_expiration", "is too large", remedy));
        }
        let rules = TimeClaimRules::new(&config.claims_to_verify, config.maximum_expiration);
        let policy = AuthPolicy::new(config.anonymous, config.run_on_preflight).map_err(|error| invalid.push(error));
        let challenges = Challenges::new(config.realm.as_deref()).map_err(|error| invalid.push(error));
        let locations = TokenLocations::new(config.uri_param_names, config.cookie_names, &config.header_names);
        let locations = locations.map_err(|errors| invalid.extend(errors));
        let mut issuers: Vec<Issuer> = Vec::new();
        for (index, issuer) in config.jwks.into_iter().enumerate() {
            let path = format!("jwks[{index}]");
            match Issuer::new(issuer, &path, cx) {
                Ok(issuer) if issuers.iter().any(|other| other.name == issuer.name) => {
                    let remedy = "merge both entries of this issuer into one";
                    invalid.push(Diagnostic::in_config(format!("{path}.issuer"), "is listed twice", remedy));
                }
                Ok(issuer) => issuers.push(issuer),
                Err(errors) => invalid.extend(errors),
            }
        }
        if issuers.is_empty() && !config.claims_to_verify.contains(&TimeClaimName::Exp) {
            let message = "does not contain `exp`, so expired tokens are accepted";
            cx.note(Diagnostic::in_config("claims_to_verify", message, "add `exp`, unless this is intended"));
        }
        let (Ok(policy), Ok(challenges), Ok(locations), []) = (policy, challenges, locations, &invalid[..]) else {
            return Err(invalid);
        };
        if locations.is_empty() {
            let message = "has no location to search for tokens, so no request has one";
            let remedy = "list at least one name in uri_param_names, cookie_names or header_names";
            cx.note(Diagnostic::in_config("", message, remedy));
        }
        Ok(Jwt {
            locations,
            policy,
            challenges,
            key_claim: config.key_claim_name.into(),
            secret_is_base64: config.secret_is_base64,
            rules,
            issuers: issuers.into(),
            cache: cx.state.get_or_create("jwt/verified", DigestCache::default),
            fingerprint,
        })
    }
}

impl Plugin for Jwt {
    fn named_consumers(&self) -> Vec<NamedConsumer<'_>> {
        let of_issuers = self.issuers.iter().filter_map(Issuer::named_consumer);
        self.policy.anonymous_consumer().into_iter().chain(of_issuers).collect()
    }

    fn declare_assertions(&self, assertions: &mut Assertions) {
        declare_identity(assertions);
    }

    fn credential_locations(&self) -> Option<CredentialLocations> {
        Some(self.locations.to_credential_locations())
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        if self.policy.skips(cx) {
            return AccessOutcome::Continue;
        }
        let decision = match self.locations.find(cx) {
            FieldValue::Absent => TokenDecision::Reject(JwtRejection::NoToken),
            FieldValue::NotString => TokenDecision::Reject(JwtRejection::UNRECOGNIZABLE),
            FieldValue::Multiple => TokenDecision::Reject(JwtRejection::SEVERAL_TOKENS),
            FieldValue::Single(token) => match self.evaluate(cx, &token) {
                TokenDecision::AwaitKeys(issuer) => {
                    let token = token.into_owned();
                    return AccessOutcome::Wait(Box::pin(async move {
                        let has_new_keys = self.issuers[issuer].keys.refresh(TokenOrigin::Client).await;
                        let decision = match self.evaluate(cx, &token) {
                            // Another fetch would not find the key either.
                            TokenDecision::AwaitKeys(_) if has_new_keys => {
                                TokenDecision::Reject(JwtRejection::UNKNOWN_KEY)
                            }
                            decision => decision,
                        };
                        self.finish(cx, decision)
                    }));
                }
                decision => decision,
            },
        };
        self.finish(cx, decision).map_or(AccessOutcome::Continue, AccessOutcome::Reply)
    }
}

/// The result of evaluating a token.
enum TokenDecision {
    Accept(Arc<VerifiedToken>),
    Reject(JwtRejection),
    /// The key is unknown, and the issuer with this index may have published it by now.
    AwaitKeys(usize),
}

impl TokenDecision {
    /// Accepts a verified token if the client has the key that it is bound to. Otherwise rejects it.
    fn by_binding(cx: &RequestCx<'_>, token: &Arc<VerifiedToken>) -> Self {
        match token.proof.binding().check(cx.client.certificate) {
            Ok(()) => TokenDecision::Accept(Arc::clone(token)),
            Err(BindingViolation::NotRequested) if cx.needs_another_connection() => {
                TokenDecision::Reject(JwtRejection::NotAsked)
            }
            Err(violation) => TokenDecision::Reject(JwtRejection::Message(format!("Token {violation}").into())),
        }
    }
}

impl Jwt {
    /// Verifies a token, or finds it in the cache. Does not look up the consumer of an issuer's token.
    fn evaluate(&self, cx: &RequestCx<'_>, text: &[u8]) -> TokenDecision {
        let digest = self.digest(text);
        if let Some(cached) = self.cache.find(&digest).as_deref().and_then(Option::as_ref)
            && self.is_in_use(&cached.proof, cx)
        {
            return match self.rules_for(&cached.proof).check(&cached.times, cx.now) {
                Ok(()) => TokenDecision::by_binding(cx, cached),
                Err(violations) => TokenDecision::Reject(JwtRejection::Claims(violations)),
            };
        }
        let token = match UnverifiedToken::parse(text) {
            Ok(token) => token,
            Err(malformed) => return TokenDecision::Reject(JwtRejection::message(malformed)),
        };
        let issuer =
            token.string_claim("iss").and_then(|name| self.issuers.iter().position(|issuer| *issuer.name == *name));
        let proof = match issuer {
            Some(issuer) => self.verify_published(issuer, &token),
            None => self.verify_credential(cx, &token),
        };
        let proof = match proof {
            Ok(proof) => proof,
            Err(decision) => return decision,
        };
        let times = TimeClaims::from_claims(&token.claims);
        if let Err(violations) = self.rules_for(&proof).check(&times, cx.now) {
            return TokenDecision::Reject(JwtRejection::Claims(violations));
        }
        let verified = Arc::new(VerifiedToken { digest, proof, times });
        self.cache.insert(Arc::clone(&verified), cx.now);
        TokenDecision::by_binding(cx, &verified)
    }

    /// The key of a token in the cache.
    fn digest(&self, text: &[u8]) -> Sha256Digest {
        let mut context = Context::new(&SHA256);
        context.update(&self.fingerprint);
        context.update(text);
        let mut digest = Sha256Digest::default();
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }

    /// Whether the key that a cached token was verified with is still in use.
    fn is_in_use(&self, proof: &Proof, cx: &RequestCx<'_>) -> bool {
        match proof {
            Proof::Credential { credential, .. } => {
                cx.consumers.tokens.get(&*credential.claim).is_some_and(|current| Arc::ptr_eq(current, credential))
            }
            Proof::Published { issuer, key, .. } => self.issuers[*issuer].keys.publishes(key),
        }
    }

    fn rules_for(&self, proof: &Proof) -> TimeClaimRules {
        match proof {
            Proof::Credential { .. } => self.rules,
            Proof::Published { .. } => self.rules.with_present_claims(),
        }
    }

    fn verify_credential(&self, cx: &RequestCx<'_>, token: &UnverifiedToken<'_>) -> Result<Proof, TokenDecision> {
        let reject = |message| Err(TokenDecision::Reject(JwtRejection::Message(message)));
        let claim = match token.claim_or_header(&self.key_claim) {
            None => return reject(format!("No mandatory '{}' in claims", self.key_claim).into()),
            Some(Value::String(claim)) if !claim.is_empty() => &**claim,
            Some(_) => return reject(format!("Invalid '{}' in claims", self.key_claim).into()),
        };
        let Some(credential) = cx.consumers.tokens.get(claim) else {
            return reject(format!("No credentials found for given '{}'", self.key_claim).into());
        };
        if credential.key.algorithm() != token.algorithm {
            return reject("Invalid algorithm".into());
        }
        match self.verify_signature(credential, token) {
            Some(true) => {
                let user = token.string_claim("sub").unwrap_or_default();
                let subject = VerifiedSubject::of_credential(&credential.id).acting_for(user);
                Ok(Proof::Credential { credential: Arc::clone(credential), subject })
            }
            Some(false) => reject("Invalid signature".into()),
            None => reject("Invalid key/secret".into()),
        }
    }

    /// Verifies the signature. `None` if the secret is not valid base64.
    fn verify_signature(&self, credential: &JwtCredential, token: &UnverifiedToken<'_>) -> Option<bool> {
        let verifies = |secret: &[u8]| hmac_verifies(token.algorithm, secret, token.signed, &token.signature);
        match &credential.key {
            VerificationKey::Secret(secret) if self.secret_is_base64 => {
                decode_secret(secret.bytes()).map(|secret| verifies(&secret))
            }
            VerificationKey::Secret(secret) => Some(verifies(secret.bytes())),
            VerificationKey::Public(key) => Some(key.verifies(token.signed, &token.signature)),
        }
    }

    fn verify_published(&self, issuer_index: usize, token: &UnverifiedToken<'_>) -> Result<Proof, TokenDecision> {
        let issuer = &self.issuers[issuer_index];
        let reject = |message| Err(TokenDecision::Reject(JwtRejection::message(message)));
        if !issuer.accepts(token.algorithm) {
            return reject("Invalid algorithm");
        }
        match issuer.keys.verify(token) {
            KeyCheck::Verified(key) if issuer.accepts_audience(token) => {
                let (subject, binding) = (issuer.subject(token), issuer.binding(token));
                Ok(Proof::Published { issuer: issuer_index, key, subject, binding })
            }
            KeyCheck::Verified(_) => {
                Err(TokenDecision::Reject(JwtRejection::Claims(vec![("aud", "token for another audience")])))
            }
            KeyCheck::InvalidSignature | KeyCheck::OtherIssuer => reject("Invalid signature"),
            KeyCheck::UnknownKey | KeyCheck::NoKeys if issuer.keys.can_refresh(TokenOrigin::Client) => {
                Err(TokenDecision::AwaitKeys(issuer_index))
            }
            KeyCheck::UnknownKey => Err(TokenDecision::Reject(JwtRejection::UNKNOWN_KEY)),
            KeyCheck::NoKeys => Err(TokenDecision::Reject(JwtRejection::NoKeys)),
        }
    }

    /// Sets the identity, or returns the reply to a rejected request.
    fn finish(&self, cx: &mut RequestCx<'_>, decision: TokenDecision) -> Option<Box<Reply>> {
        let rejection = match decision {
            TokenDecision::Accept(verified) => match self.accept(cx, &verified.proof) {
                Ok(()) => return None,
                Err(rejection) => rejection,
            },
            TokenDecision::Reject(rejection) => rejection,
            // The fetch that the request waited for has not completed in time.
            TokenDecision::AwaitKeys(_) => JwtRejection::NoKeys,
        };
        // The token may be that of a consumer, whose limits are not those of the anonymous one.
        if matches!(rejection, JwtRejection::NoKeys | JwtRejection::NotAsked) {
            return Some(self.challenges.reply(rejection));
        }
        self.policy.reject(cx, || self.challenges.reply(rejection))
    }

    fn accept(&self, cx: &mut RequestCx<'_>, proof: &Proof) -> Result<(), JwtRejection> {
        let credential = match proof {
            Proof::Credential { credential, subject } => VerifiedCredential {
                consumer: Some(&credential.consumer),
                subject: Some(subject.clone()),
                identifier: credential.claim.header(),
            },
            Proof::Published { issuer, subject, .. } => {
                let issuer = &self.issuers[*issuer];
                let consumer = issuer.consumer(subject, cx.consumers);
                if consumer.is_none() && !issuer.allows_without_consumer {
                    let message = format!("Could not find consumer for '{}'", issuer.describe_lookup(subject));
                    return Err(JwtRejection::Message(message.into()));
                }
                VerifiedCredential {
                    consumer,
                    subject: subject.subject.clone(),
                    identifier: subject.identifier.as_ref(),
                }
            }
        };
        self.policy.accept(cx, credential);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
