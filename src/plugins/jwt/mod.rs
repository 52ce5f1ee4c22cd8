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
//! are verified with Secrets labeled `konghq.com/credential: jwt`, which a KongConsumer lists in `credentials`; the key
//! claim of the token selects the Secret.
//!
//! ```text
//!   token ─▶ in the cache? ──yes──▶ is its key still valid? ──yes──▶ check time claims ─▶ consumer
//!                │ no ◀──────────────────── no ──┘                          ▲
//!                └─▶ parse ─▶ find credential or published key ─▶ verify signature
//! ```

mod issuer;
mod key_set;
mod rejection;
mod time_claims;
mod token;
mod token_cache;
mod token_location;

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use self::issuer::{Issuer, IssuerConfig, KeyCheck};
use self::rejection::{Challenges, JwtRejection};
use self::time_claims::{TimeClaimName, TimeClaimRules, TimeClaims};
use self::token::{UnverifiedToken, decode_secret};
use self::token_cache::{Proof, TokenCache, VerifiedToken};
use self::token_location::TokenLocations;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::authentication::{AuthPolicy, VerifiedCredential};
use crate::plugin_api::consumers::{JwtCredential, Sha256Digest, sha256};
use crate::plugin_api::fields::FieldValue;
use crate::plugin_api::kind::{BuildCx, Phases, PluginKind, Scopes};
use crate::plugin_api::signature::{VerificationKey, hmac_verifies};
use crate::plugin_api::{AccessOutcome, Plugin, Reply, RequestCx};

/// Authenticates consumers by JSON Web Tokens.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Query parameters to search for a token.
    uri_param_names: Vec<String>,
    /// Cookies to search for a token.
    cookie_names: Vec<String>,
    /// Headers to search for a token after the scheme `Bearer`.
    header_names: Vec<String>,
    /// The claim, or else the member of the token's header, that identifies the credential.
    key_claim_name: String,
    /// HMAC secrets are encoded in base64.
    secret_is_base64: bool,
    /// Time claims that tokens must contain and that must be valid. In tokens verified with `jwks`, `exp` and `nbf`
    /// must be valid if they are present, even if they are not listed. In other tokens, claims that are not listed are
    /// ignored, so without `exp` here, expired tokens are accepted.
    claims_to_verify: Vec<TimeClaimName>,
    /// Id or username of the consumer for requests without a valid token. If unset, such requests are rejected.
    anonymous: Option<String>,
    /// Require a token for OPTIONS requests, too.
    run_on_preflight: bool,
    /// The maximum remaining lifetime of a token in seconds; 0 for no limit. Requires `exp` in `claims_to_verify`.
    #[schemars(range(max = 31_536_000))]
    maximum_expiration: u32,
    /// Realm in `WWW-Authenticate`.
    realm: Option<String>,
    /// Issuers whose keys are fetched from a URL.
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
    cache: Arc<TokenCache>,
    /// Fingerprint of the configuration. Part of the cache key, so that tokens verified under another configuration are
    /// not accepted.
    fingerprint: Sha256Digest,
}

impl PluginKind for Jwt {
    const NAME: &'static str = "jwt";
    const PRIORITY: i32 = 1450;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
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
        let (rules, gate) = (
            TimeClaimRules::new(&config.claims_to_verify, config.maximum_expiration),
            AuthPolicy::new(config.anonymous, config.run_on_preflight).map_err(|error| invalid.push(error)),
        );
        let challenges = Challenges::new(config.realm.as_deref()).map_err(|error| invalid.push(error));
        let sources = TokenLocations::new(config.uri_param_names, config.cookie_names, &config.header_names);
        let sources = sources.map_err(|errors| invalid.extend(errors));
        let mut issuers: Vec<Issuer> = Vec::new();
        for (at, issuer) in config.jwks.into_iter().enumerate() {
            let path = format!("jwks[{at}]");
            match Issuer::new(issuer, &path, cx) {
                Ok(issuer) if issuers.iter().any(|known| known.name == issuer.name) => {
                    let remedy = "merge the entries of this issuer";
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
        let (Ok(gate), Ok(challenges), Ok(sources), []) = (gate, challenges, sources, &invalid[..]) else {
            return Err(invalid);
        };
        Ok(Jwt {
            locations: sources,
            policy: gate,
            challenges,
            key_claim: config.key_claim_name.into(),
            secret_is_base64: config.secret_is_base64,
            rules,
            issuers: issuers.into(),
            cache: cx.state.get_or_create("jwt/verified", TokenCache::default),
            fingerprint,
        })
    }
}

impl Plugin for Jwt {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        if self.policy.skips(cx) {
            return AccessOutcome::Continue;
        }
        let judgment = match self.locations.find(cx) {
            FieldValue::Absent => TokenDecision::Reject(JwtRejection::NO_TOKEN),
            FieldValue::NotString => TokenDecision::Reject(JwtRejection::UNRECOGNIZABLE),
            FieldValue::Multiple => TokenDecision::Reject(JwtRejection::SEVERAL_TOKENS),
            FieldValue::Single(token) => match self.evaluate(cx, &token) {
                TokenDecision::AwaitKeys(issuer) => {
                    let token = token.into_owned();
                    return AccessOutcome::Wait(Box::pin(async move {
                        self.issuers[issuer].keys.refresh().await;
                        let judgment = self.evaluate(cx, &token);
                        self.finish(cx, judgment)
                    }));
                }
                judgment => judgment,
            },
        };
        self.finish(cx, judgment).map_or(AccessOutcome::Continue, AccessOutcome::Reply)
    }
}

/// The result of evaluating a token.
enum TokenDecision {
    Accept(Arc<VerifiedToken>),
    Reject(JwtRejection),
    /// The key is unknown, and the issuer with this index may have published it by now.
    AwaitKeys(usize),
}

impl Jwt {
    fn evaluate(&self, cx: &RequestCx<'_>, text: &[u8]) -> TokenDecision {
        let digest = self.digest(text);
        if let Some(entry) = self.cache.find(&digest).as_deref().and_then(Option::as_ref)
            && self.is_still_valid(&entry.proof, cx)
        {
            return match self.rules_for(&entry.proof).check(&entry.times, cx.now) {
                Ok(()) => TokenDecision::Accept(Arc::clone(entry)),
                Err(violations) => TokenDecision::Reject(JwtRejection::Claims(violations)),
            };
        }
        let token = match UnverifiedToken::parse(text) {
            Ok(token) => token,
            Err(malformed) => return TokenDecision::Reject(JwtRejection::message(malformed)),
        };
        let issuer = token.text("iss").and_then(|name| self.issuers.iter().position(|known| *known.name == *name));
        let proof = match issuer {
            Some(issuer) => self.verify_published(issuer, &token),
            None => self.verify_credential(cx, &token),
        };
        let proof = match proof {
            Ok(proof) => proof,
            Err(judgment) => return judgment,
        };
        let times = TimeClaims::from_claims(&token.claims);
        if let Err(violations) = self.rules_for(&proof).check(&times, cx.now) {
            return TokenDecision::Reject(JwtRejection::Claims(violations));
        }
        let entry = Arc::new(VerifiedToken { digest, proof, times });
        self.cache.insert(Arc::clone(&entry), cx.now);
        TokenDecision::Accept(entry)
    }

    fn digest(&self, text: &[u8]) -> Sha256Digest {
        let mut context = Context::new(&SHA256);
        context.update(&self.fingerprint);
        context.update(text);
        let mut digest = Sha256Digest::default();
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }

    /// Whether the key that a cached token was verified with is still valid for it.
    fn is_still_valid(&self, proof: &Proof, cx: &RequestCx<'_>) -> bool {
        match proof {
            Proof::Credential(credential) => {
                cx.consumers.tokens.get(&*credential.claim).is_some_and(|known| Arc::ptr_eq(known, credential))
            }
            Proof::Published { issuer, key, .. } => self.issuers[*issuer].publishes(key),
        }
    }

    fn rules_for(&self, proof: &Proof) -> TimeClaimRules {
        match proof {
            Proof::Credential(_) => self.rules,
            Proof::Published { .. } => self.rules.with_present_claims(),
        }
    }

    fn verify_credential(&self, cx: &RequestCx<'_>, token: &UnverifiedToken<'_>) -> Result<Proof, TokenDecision> {
        let refuse = |message| Err(TokenDecision::Reject(JwtRejection::Message(message)));
        let claim = match token.claim_or_header(&self.key_claim) {
            None => return refuse(format!("No mandatory '{}' in claims", self.key_claim).into()),
            Some(Value::String(claim)) if !claim.is_empty() => &**claim,
            Some(_) => return refuse(format!("Invalid '{}' in claims", self.key_claim).into()),
        };
        let Some(credential) = cx.consumers.tokens.get(claim) else {
            return refuse(format!("No credentials found for given '{}'", self.key_claim).into());
        };
        if credential.key.algorithm() != token.algorithm {
            return refuse("Invalid algorithm".into());
        }
        match self.verify_signature(credential, token) {
            Some(true) => Ok(Proof::Credential(Arc::clone(credential))),
            Some(false) => refuse("Invalid signature".into()),
            None => refuse("Invalid key/secret".into()),
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

    fn verify_published(&self, at: usize, token: &UnverifiedToken<'_>) -> Result<Proof, TokenDecision> {
        let issuer = &self.issuers[at];
        let refuse = |message| Err(TokenDecision::Reject(JwtRejection::message(message)));
        if !issuer.accepts(token.algorithm) {
            return refuse("Invalid algorithm");
        }
        match issuer.check(token) {
            KeyCheck::Verified(key) if issuer.accepts_audience(token) => {
                Ok(Proof::Published { issuer: at, key, subject: issuer.subject(token) })
            }
            KeyCheck::Verified(_) => {
                Err(TokenDecision::Reject(JwtRejection::Claims(vec![("aud", "token for another audience")])))
            }
            KeyCheck::InvalidSignature => refuse("Invalid signature"),
            KeyCheck::UnknownKey | KeyCheck::NoKeys if issuer.keys.can_refresh() => Err(TokenDecision::AwaitKeys(at)),
            KeyCheck::UnknownKey => refuse("Invalid key/secret"),
            KeyCheck::NoKeys => Err(TokenDecision::Reject(JwtRejection::NoKeys)),
        }
    }

    fn finish(&self, cx: &mut RequestCx<'_>, decision: TokenDecision) -> Option<Box<Reply>> {
        let rejection = match decision {
            TokenDecision::Accept(entry) => match self.accept(cx, &entry.proof) {
                Ok(()) => return None,
                Err(rejection) => rejection,
            },
            TokenDecision::Reject(rejection) => rejection,
            // The request has already waited for a fetch.
            TokenDecision::AwaitKeys(_) => JwtRejection::NoKeys,
        };
        self.policy.reject(cx, || self.challenges.reply(rejection))
    }

    fn accept(&self, cx: &mut RequestCx<'_>, proof: &Proof) -> Result<(), JwtRejection> {
        let shown = match proof {
            Proof::Credential(credential) => VerifiedCredential {
                consumer: Some(&credential.consumer),
                credential: &credential.id,
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
                    credential: &subject.credential,
                    identifier: subject.identifier.as_ref(),
                }
            }
        };
        self.policy.accept(cx, shown);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
