//! `jwt`: a signed token says who is asking.
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
//! Tokens are verified with Secrets labeled `konghq.com/credential: jwt`, which a KongConsumer lists and which the key claim of
//! a token names; or, if `jwks` lists their issuer, with the keys that this one publishes.
//!
//! ```text
//!   token ─▶ known from before? ──yes──▶ still in use what it was verified with? ──yes──▶ times ─▶ consumer
//!                 │ no ◀───────────────────────────── no ─────┘                            ▲
//!                 └─▶ parse ─▶ whose? ─▶ credential or published key ─▶ signature ─────────┘
//! ```

mod issuer;
mod key_set;
mod refusal;
mod sources;
mod times;
mod token;
mod verified;

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use self::issuer::{Checked, Issuer, IssuerConfig};
use self::refusal::{Challenges, Refusal};
use self::sources::Sources;
use self::times::{Claim, Rules, Times};
use self::token::{Token, decode_secret};
use self::verified::{Entry, Proof, Verified};
use crate::plugin::authentication::{Gate, Shown};
use crate::plugin::consumers::{Digest, JwtCredential, digest_of};
use crate::plugin::fields::Found;
use crate::plugin::kind::{BuildCx, Invalid, Kind, Phases, Scopes};
use crate::plugin::signature::{Key, hmac_verifies};
use crate::plugin::{Outcome, Plugin, Reply, RequestCx};

/// Lets in who shows a token that a consumer or an issuer has signed.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Parameters of the query that are searched for tokens.
    uri_param_names: Vec<String>,
    /// Cookies that are searched.
    cookie_names: Vec<String>,
    /// Headers that are searched, for `Bearer` and a token.
    header_names: Vec<String>,
    /// The claim, or else the member of the token's header, that names the credential.
    key_claim_name: String,
    /// Whether secrets for HMAC are written in base64.
    secret_is_base64: bool,
    /// Claims about time that tokens must have and that must hold. Of tokens that `jwks` verifies, `exp` and `nbf` must hold in
    /// any case if they are there; of others nothing that is not listed is looked at, so that expired tokens are valid.
    claims_to_verify: Vec<Claim>,
    /// Id or username of the consumer in whose name requests without a valid token go on. Without it they are refused.
    anonymous: Option<String>,
    /// Whether OPTIONS requests need a token too.
    run_on_preflight: bool,
    /// For how many seconds from now a token may be valid at most; 0 for any number. Needs `exp` among `claims_to_verify`.
    #[schemars(range(max = 31_536_000))]
    maximum_expiration: u32,
    /// What the client is told that the token is for, in `WWW-Authenticate`.
    realm: Option<String>,
    /// Issuers whose keys are fetched.
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

const LONGEST_EXPIRATION: u32 = 31_536_000;

#[derive(Debug)]
pub(crate) struct Jwt {
    sources: Sources,
    gate: Gate,
    challenges: Challenges,
    key_claim: Box<str>,
    secret_is_base64: bool,
    rules: Rules,
    issuers: Box<[Issuer]>,
    verified: Arc<Verified>,
    /// Of the configuration, so that a token that was verified under another one is not known under this.
    fingerprint: Digest,
}

impl Kind for Jwt {
    const NAME: &'static str = "jwt";
    const PRIORITY: i32 = 1450;
    const PHASES: Phases = Phases::ACCESS;
    const GUARD: bool = true;
    const SCOPES: Scopes = Scopes::FOR_EVERYBODY;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Invalid>> {
        let fingerprint = digest_of(format!("{} {config:?}", cx.object).as_bytes());
        let mut invalid = Vec::new();
        if config.key_claim_name.is_empty() {
            invalid.push(Invalid::new("key_claim_name", "is empty", "name a claim, for example `iss`"));
        }
        if config.maximum_expiration > 0 && !config.claims_to_verify.contains(&Claim::Exp) {
            let remedy = "list `exp` in config.claims_to_verify";
            invalid.push(Invalid::new("maximum_expiration", "needs the claim `exp` to be verified", remedy));
        }
        if config.maximum_expiration > LONGEST_EXPIRATION {
            let remedy = "write 0 to 31536000 seconds, which is a year";
            invalid.push(Invalid::new("maximum_expiration", "is too long", remedy));
        }
        let (rules, gate) = (
            Rules::new(&config.claims_to_verify, config.maximum_expiration),
            Gate::new(config.anonymous, config.run_on_preflight).map_err(|error| invalid.push(error)),
        );
        let challenges = Challenges::new(config.realm.as_deref()).map_err(|error| invalid.push(error));
        let sources = Sources::new(config.uri_param_names, config.cookie_names, &config.header_names);
        let sources = sources.map_err(|errors| invalid.extend(errors));
        let mut issuers: Vec<Issuer> = Vec::new();
        for (at, issuer) in config.jwks.into_iter().enumerate() {
            let path = format!("jwks[{at}]");
            match Issuer::new(issuer, &path, cx) {
                Ok(issuer) if issuers.iter().any(|known| known.name == issuer.name) => {
                    let remedy = "write all that is accepted of an issuer in one place";
                    invalid.push(Invalid::new(format!("{path}.issuer"), "is listed twice", remedy));
                }
                Ok(issuer) => issuers.push(issuer),
                Err(errors) => invalid.extend(errors),
            }
        }
        if issuers.is_empty() && !config.claims_to_verify.contains(&Claim::Exp) {
            let message = "does not list `exp`, so that tokens are accepted which have expired";
            cx.note(Invalid::new("claims_to_verify", message, "list `exp`, unless that is meant"));
        }
        let (Ok(gate), Ok(challenges), Ok(sources), []) = (gate, challenges, sources, &invalid[..]) else {
            return Err(invalid);
        };
        Ok(Jwt {
            sources,
            gate,
            challenges,
            key_claim: config.key_claim_name.into(),
            secret_is_base64: config.secret_is_base64,
            rules,
            issuers: issuers.into(),
            verified: cx.state.shared("jwt/verified", Verified::default),
            fingerprint,
        })
    }
}

impl Plugin for Jwt {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> Outcome<'a> {
        if self.gate.is_open(cx) {
            return Outcome::Next;
        }
        let judgment = match self.sources.find(cx) {
            Found::Nothing => Judgment::Refuse(Refusal::NO_TOKEN),
            Found::NoText => Judgment::Refuse(Refusal::UNRECOGNIZABLE),
            Found::Many => Judgment::Refuse(Refusal::SEVERAL_TOKENS),
            Found::One(token) => match self.judge(cx, &token) {
                Judgment::Ask(issuer) => {
                    let token = token.into_owned();
                    return Outcome::Wait(Box::pin(async move {
                        self.issuers[issuer].keys.news().await;
                        let judgment = self.judge(cx, &token);
                        self.conclude(cx, judgment)
                    }));
                }
                judgment => judgment,
            },
        };
        self.conclude(cx, judgment).map_or(Outcome::Next, Outcome::Reply)
    }
}

/// What is to become of a request.
enum Judgment {
    Accept(Arc<Entry>),
    Refuse(Refusal),
    /// The issuer in this place may have a key by now that would decide it.
    Ask(usize),
}

impl Jwt {
    fn judge(&self, cx: &RequestCx<'_>, text: &[u8]) -> Judgment {
        let digest = self.digest(text);
        if let Some(entry) = self.verified.find(&digest).as_deref().and_then(Option::as_ref)
            && self.holds(&entry.proof, cx)
        {
            return match self.rules_of(&entry.proof).check(&entry.times, cx.now) {
                Ok(()) => Judgment::Accept(Arc::clone(entry)),
                Err(violations) => Judgment::Refuse(Refusal::Claims(violations)),
            };
        }
        let token = match Token::parse(text) {
            Ok(token) => token,
            Err(malformed) => return Judgment::Refuse(Refusal::message(malformed)),
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
        let times = Times::of(&token.claims);
        if let Err(violations) = self.rules_of(&proof).check(&times, cx.now) {
            return Judgment::Refuse(Refusal::Claims(violations));
        }
        let entry = Arc::new(Entry { digest, proof, times });
        self.verified.keep(Arc::clone(&entry), cx.now);
        Judgment::Accept(entry)
    }

    fn digest(&self, text: &[u8]) -> Digest {
        let mut context = Context::new(&SHA256);
        context.update(&self.fingerprint);
        context.update(text);
        let mut digest = Digest::default();
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }

    /// Whether what a token was verified with is still what it would be verified with.
    fn holds(&self, proof: &Proof, cx: &RequestCx<'_>) -> bool {
        match proof {
            Proof::Credential(credential) => {
                cx.consumers.tokens.get(&*credential.claim).is_some_and(|known| Arc::ptr_eq(known, credential))
            }
            Proof::Published { issuer, key, .. } => self.issuers[*issuer].publishes(key),
        }
    }

    fn rules_of(&self, proof: &Proof) -> Rules {
        match proof {
            Proof::Credential(_) => self.rules,
            Proof::Published { .. } => self.rules.and_what_is_there(),
        }
    }

    fn verify_credential(&self, cx: &RequestCx<'_>, token: &Token<'_>) -> Result<Proof, Judgment> {
        let refuse = |message| Err(Judgment::Refuse(Refusal::Message(message)));
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
        match self.is_genuine(credential, token) {
            Some(true) => Ok(Proof::Credential(Arc::clone(credential))),
            Some(false) => refuse("Invalid signature".into()),
            None => refuse("Invalid key/secret".into()),
        }
    }

    /// None if the secret cannot be used.
    fn is_genuine(&self, credential: &JwtCredential, token: &Token<'_>) -> Option<bool> {
        let verifies = |secret: &[u8]| hmac_verifies(token.algorithm, secret, token.signed, &token.signature);
        match &credential.key {
            Key::Secret(secret) if self.secret_is_base64 => {
                decode_secret(secret.bytes()).map(|secret| verifies(&secret))
            }
            Key::Secret(secret) => Some(verifies(secret.bytes())),
            Key::Public(key) => Some(key.verifies(token.signed, &token.signature)),
        }
    }

    fn verify_published(&self, at: usize, token: &Token<'_>) -> Result<Proof, Judgment> {
        let issuer = &self.issuers[at];
        let refuse = |message| Err(Judgment::Refuse(Refusal::message(message)));
        if !issuer.accepts(token.algorithm) {
            return refuse("Invalid algorithm");
        }
        match issuer.check(token) {
            Checked::Genuine(key) if issuer.is_for_us(token) => {
                Ok(Proof::Published { issuer: at, key, subject: issuer.subject(token) })
            }
            Checked::Genuine(_) => Err(Judgment::Refuse(Refusal::Claims(vec![("aud", "token for another audience")]))),
            Checked::Forged => refuse("Invalid signature"),
            Checked::UnknownKey | Checked::NoKeys if issuer.keys.may_have_news() => Err(Judgment::Ask(at)),
            Checked::UnknownKey => refuse("Invalid key/secret"),
            Checked::NoKeys => Err(Judgment::Refuse(Refusal::NoKeys)),
        }
    }

    fn conclude(&self, cx: &mut RequestCx<'_>, judgment: Judgment) -> Option<Box<Reply>> {
        let refusal = match judgment {
            Judgment::Accept(entry) => match self.admit(cx, &entry.proof) {
                Ok(()) => return None,
                Err(refusal) => refusal,
            },
            Judgment::Refuse(refusal) => refusal,
            // It was waited for once already.
            Judgment::Ask(_) => Refusal::NoKeys,
        };
        self.gate.turn_away(cx, || self.challenges.reply(refusal))
    }

    fn admit(&self, cx: &mut RequestCx<'_>, proof: &Proof) -> Result<(), Refusal> {
        let shown = match proof {
            Proof::Credential(credential) => Shown {
                consumer: Some(&credential.consumer),
                credential: &credential.id,
                identifier: credential.claim.header(),
            },
            Proof::Published { issuer, subject, .. } => {
                let issuer = &self.issuers[*issuer];
                let consumer = issuer.consumer(subject, cx.consumers);
                if consumer.is_none() && !issuer.allows_without_consumer {
                    let message = format!("Could not find consumer for '{}'", issuer.sought(subject));
                    return Err(Refusal::Message(message.into()));
                }
                Shown { consumer, credential: &subject.credential, identifier: subject.identifier.as_ref() }
            }
        };
        self.gate.admit(cx, shown);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
