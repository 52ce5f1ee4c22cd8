//! Issuers that publish their keys: what is accepted of each, and which consumer it speaks of.

use std::sync::Arc;

use http::{HeaderValue, Uri};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::key_set::{KeySet, Keys, Subscription};
use super::token::Token;
use super::verified::Subject;
use crate::plugin::consumers::{Consumer, Directory, Id};
use crate::plugin::jwk::PublishedKey;
use crate::plugin::kind::{BuildCx, Invalid};
use crate::plugin::signature::Algorithm;

/// An issuer whose keys are fetched. Its tokens must not have expired, also if `claims_to_verify` does not say so.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IssuerConfig {
    /// What its tokens have in `iss`, to the letter. They are verified with its keys and no others.
    issuer: String,
    /// Where it publishes them, a JSON Web Key Set by `https` or `http`. Fetched every five minutes and when a token names a
    /// key that is not known, at most every thirty seconds. While the issuer is down, the keys that are known stay in use.
    uri: String,
    /// Tokens must be for one of these (`aud`). Without it they may be for anybody.
    #[serde(default)]
    audiences: Vec<String>,
    /// How its tokens may be signed; without it in any of these ways.
    #[serde(default)]
    algorithms: Vec<AsymmetricAlgorithm>,
    /// Id or username of the consumer that all of its tokens stand for.
    consumer: Option<String>,
    /// The claim that holds the username of the consumer, or else the custom id. `sub` if `consumer` is not set either.
    consumer_claim: Option<String>,
    /// Whether a token for whom there is no consumer is accepted nevertheless. The endpoint is then told the subject only, as
    /// `X-Credential-Identifier`.
    #[serde(default)]
    allow_without_consumer: bool,
}

/// How tokens of an issuer can be signed that publishes keys. HMAC is none: who could verify could sign.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum AsymmetricAlgorithm {
    Rs256,
    Rs384,
    Rs512,
    Es256,
    Es384,
    Es512,
    Ps256,
    Ps384,
    Ps512,
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl From<AsymmetricAlgorithm> for Algorithm {
    fn from(algorithm: AsymmetricAlgorithm) -> Self {
        match algorithm {
            AsymmetricAlgorithm::Rs256 => Algorithm::Rs256,
            AsymmetricAlgorithm::Rs384 => Algorithm::Rs384,
            AsymmetricAlgorithm::Rs512 => Algorithm::Rs512,
            AsymmetricAlgorithm::Es256 => Algorithm::Es256,
            AsymmetricAlgorithm::Es384 => Algorithm::Es384,
            AsymmetricAlgorithm::Es512 => Algorithm::Es512,
            AsymmetricAlgorithm::Ps256 => Algorithm::Ps256,
            AsymmetricAlgorithm::Ps384 => Algorithm::Ps384,
            AsymmetricAlgorithm::Ps512 => Algorithm::Ps512,
            AsymmetricAlgorithm::EdDsa => Algorithm::EdDsa,
        }
    }
}

#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) name: Box<str>,
    pub(super) keys: Arc<KeySet>,
    audiences: Box<[Box<str>]>,
    algorithms: Box<[Algorithm]>,
    mapping: Mapping,
    pub(super) allows_without_consumer: bool,
    _subscription: Subscription,
}

/// How a token leads to a consumer.
#[derive(Debug)]
enum Mapping {
    /// By id or username.
    Always(Box<str>),
    ByClaim(Box<str>),
}

/// Keys that are tried with a token that names none.
const MOST_TRIES: usize = 8;

/// What the keys of an issuer say of a token.
pub(super) enum Checked {
    Genuine(Arc<PublishedKey>),
    Forged,
    /// Signed with a key that is not known, which may be a new one.
    UnknownKey,
    /// The issuer was never heard of.
    NoKeys,
}

impl Issuer {
    /// `path` is where it stands in the configuration.
    pub(super) fn new(config: IssuerConfig, path: &str, cx: &BuildCx<'_>) -> Result<Self, Vec<Invalid>> {
        let mut invalid = Vec::new();
        let mut refuse = |field: &str, message: &str, remedy: &str| {
            invalid.push(Invalid::new(format!("{path}.{field}"), message, remedy));
        };
        if config.issuer.is_empty() {
            refuse("issuer", "is empty", "write what its tokens have in `iss`");
        }
        if let Err(wrong) = check_uri(&config.uri) {
            refuse("uri", wrong, "write where the keys are, for example https://issuer.example/keys");
        }
        let mapping = match (config.consumer, config.consumer_claim) {
            (Some(_), Some(_)) => {
                refuse("consumer_claim", "is set beside `consumer`", "set one of them");
                None
            }
            (Some(consumer), None) => Some(("consumer", Mapping::Always(consumer.into()))),
            (None, claim) => {
                Some(("consumer_claim", Mapping::ByClaim(claim.unwrap_or_else(|| "sub".to_owned()).into())))
            }
        };
        if let Some((field, Mapping::Always(name) | Mapping::ByClaim(name))) = &mapping
            && name.is_empty()
        {
            refuse(field, "is empty", "name a consumer, or a claim that does");
        }
        let (Some((_, mapping)), []) = (mapping, &invalid[..]) else { return Err(invalid) };
        let algorithms: Box<[Algorithm]> = if config.algorithms.is_empty() {
            Algorithm::ALL.into_iter().filter(|algorithm| !algorithm.is_symmetric()).collect()
        } else {
            config.algorithms.into_iter().map(Algorithm::from).collect()
        };
        let keys = KeySet::open(&config.uri, cx.state, cx.services);
        Ok(Issuer {
            name: config.issuer.into(),
            _subscription: keys.subscribe(cx.object, &format!("{path}.uri"), cx.services),
            keys,
            audiences: config.audiences.into_iter().map(String::into_boxed_str).collect(),
            algorithms,
            mapping,
            allows_without_consumer: config.allow_without_consumer,
        })
    }

    pub(super) fn accepts(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    pub(super) fn check(&self, token: &Token<'_>) -> Checked {
        let keys = self.keys.current();
        let Some(keys) = keys.as_ref() else { return Checked::NoKeys };
        let Some(id) = token.key_id() else {
            let fitting = keys.iter().filter(|key| key.of(token.algorithm).is_some()).take(MOST_TRIES);
            return verify(token, fitting).map_or(Checked::Forged, Checked::Genuine);
        };
        let named = || keys.iter().filter(|key| key.id.as_deref() == Some(id));
        match verify(token, named().take(MOST_TRIES)) {
            Some(key) => Checked::Genuine(key),
            None if named().next().is_some() => Checked::Forged,
            None => Checked::UnknownKey,
        }
    }

    /// Whether this key is still among those that it publishes.
    pub(super) fn publishes(&self, key: &Arc<PublishedKey>) -> bool {
        let keys: &Keys = &self.keys.current();
        keys.iter().flatten().any(|known| Arc::ptr_eq(known, key))
    }

    /// Whether the token is for one of us.
    pub(super) fn is_for_us(&self, token: &Token<'_>) -> bool {
        let is_ours =
            |value: &Value| value.as_str().is_some_and(|name| self.audiences.iter().any(|own| **own == *name));
        self.audiences.is_empty()
            || match token.claims.get("aud") {
                Some(Value::Array(several)) => several.iter().any(is_ours),
                Some(one) => is_ours(one),
                None => false,
            }
    }

    pub(super) fn subject(&self, token: &Token<'_>) -> Subject {
        let name = token.text("sub").unwrap_or_default();
        let claim = match &self.mapping {
            Mapping::Always(_) => "",
            Mapping::ByClaim(claim) => token.text(claim).unwrap_or_default(),
        };
        Subject {
            credential: Id::of(&format!("{}#{name}", self.name)),
            identifier: Some(name).filter(|name| !name.is_empty()).and_then(|name| HeaderValue::from_str(name).ok()),
            claim: claim.into(),
        }
    }

    pub(super) fn consumer<'c>(&self, subject: &Subject, consumers: &'c Directory) -> Option<&'c Arc<Consumer>> {
        match &self.mapping {
            Mapping::Always(name) => consumers.named(name),
            Mapping::ByClaim(_) if subject.claim.is_empty() => None,
            Mapping::ByClaim(_) => consumers.called(&subject.claim),
        }
    }

    /// `sub=anna`: for whom there is no consumer.
    pub(super) fn sought(&self, subject: &Subject) -> String {
        match &self.mapping {
            Mapping::Always(name) => format!("consumer={name}"),
            Mapping::ByClaim(claim) => format!("{claim}={}", subject.claim),
        }
    }
}

fn verify<'k>(token: &Token<'_>, mut keys: impl Iterator<Item = &'k Arc<PublishedKey>>) -> Option<Arc<PublishedKey>> {
    let fits = |key: &&Arc<PublishedKey>| {
        key.of(token.algorithm).is_some_and(|key| key.verifies(token.signed, &token.signature))
    };
    keys.find(fits).cloned()
}

fn check_uri(uri: &str) -> Result<(), &'static str> {
    let uri: Uri = uri.parse().map_err(|_| "is no URI")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("begins with neither https:// nor http://");
    }
    match uri.authority() {
        None => Err("names no host"),
        Some(authority) if authority.as_str().contains('@') => Err("holds a username, which would not be sent"),
        Some(_) => Ok(()),
    }
}
