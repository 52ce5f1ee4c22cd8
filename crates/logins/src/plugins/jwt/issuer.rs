//! Issuers that publish their keys: which of their tokens are accepted, and the mapping to consumers.

use std::sync::Arc;

use http::{HeaderValue, Uri};
use schemars::JsonSchema;
use serde::Deserialize;

use super::verified_token::TokenSubject;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::consumers::{Consumer, ConsumerDirectory};
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::token::signature::Algorithm;
use crate::plugin_api::token::{AsymmetricAlgorithm, KeySet, KeySetSubscription, UnverifiedToken};
use crate::plugin_api::{NamedConsumer, VerifiedSubject};
use crate::token_binding::TokenBinding;

/// An issuer whose keys are fetched. Its tokens must not have expired, even if `claims_to_verify` does not list `exp`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IssuerConfig {
    /// The exact value of the claim `iss`. Tokens with this value are verified only with the keys of this issuer.
    issuer: String,
    /// `https` or `http` URL of the issuer's JSON Web Key Set. A host without dots is a Service in the namespace of the
    /// plugin. The keys are fetched every five minutes. They are also fetched when a token refers to an unknown key,
    /// four times, and then at most once in thirty seconds. While the URL is unavailable, the known keys remain in use.
    uri: String,
    /// Accepted audiences: `aud` of a token must contain one of them. If empty, all audiences are accepted. The purpose
    /// of a token does not matter, so ID tokens are accepted, too: list the audience of this API, which they do not
    /// have.
    #[serde(default)]
    audiences: Vec<String>,
    /// Accepted signature algorithms. If empty, all possible values of this field are accepted.
    #[serde(default)]
    algorithms: Vec<AsymmetricAlgorithm>,
    /// Id or username of the consumer for all tokens of the issuer. Cannot be combined with `consumer_claim`.
    consumer: Option<String>,
    /// The claim with the username or custom id of the consumer. The default is `sub`, unless `consumer` is set.
    consumer_claim: Option<String>,
    /// Accept tokens for which no consumer is found. The endpoint then gets no headers with a consumer, only the
    /// claim `sub` in `X-Credential-Identifier`.
    #[serde(default)]
    allow_without_consumer: bool,
    /// Compare the certificate of the client with that in the claim `cnf` of tokens (RFC 8705), and refuse tokens that
    /// are bound to a key in another way, such as DPoP. If false, a stolen token can be used.
    #[serde(default = "verify_token_binding")]
    verify_token_binding: bool,
}

fn verify_token_binding() -> bool {
    true
}

#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) name: Box<str>,
    pub(super) keys: Arc<KeySet>,
    audiences: Box<[Box<str>]>,
    algorithms: Box<[Algorithm]>,
    mapping: ConsumerMapping,
    pub(super) allows_without_consumer: bool,
    verifies_binding: bool,
    /// The path of the issuer in the configuration.
    path: Box<str>,
    _subscription: KeySetSubscription,
}

/// How the consumer of a token is determined.
#[derive(Debug)]
enum ConsumerMapping {
    /// Always the consumer with this id or username.
    Always(Box<str>),
    /// The consumer whose username or custom id is the value of this claim.
    ByClaim(Box<str>),
}

impl Issuer {
    /// `path` is the path of the issuer in the configuration.
    pub(super) fn new(config: IssuerConfig, path: &str, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let uri = check_uri(&config.uri);
        let host = uri.as_ref().ok().and_then(Uri::host);
        let mut invalid: Vec<_> =
            host.and_then(|host| cx.check_host(format!("{path}.uri"), host)).into_iter().collect();
        let mut add_error = |field: &str, message: &str, remedy: &str| {
            invalid.push(Diagnostic::in_config(format!("{path}.{field}"), message, remedy));
        };
        if config.issuer.is_empty() {
            add_error("issuer", "is empty", "set it to the value of `iss` in the tokens");
        }
        if let Err(message) = uri {
            add_error("uri", message, "use the URL of the key set, for example https://issuer.example/keys");
        }
        // The mapping and, for errors, the field that determines it.
        let mapping = match (config.consumer, config.consumer_claim) {
            (Some(_), Some(_)) => {
                add_error("consumer_claim", "cannot be combined with `consumer`", "set only one of them");
                None
            }
            (Some(consumer), None) => Some(("consumer", ConsumerMapping::Always(consumer.into()))),
            (None, claim) => {
                Some(("consumer_claim", ConsumerMapping::ByClaim(claim.unwrap_or_else(|| "sub".to_owned()).into())))
            }
        };
        if let Some((field, ConsumerMapping::Always(name) | ConsumerMapping::ByClaim(name))) = &mapping
            && name.is_empty()
        {
            add_error(field, "is empty", "set it to a name, or remove it");
        }
        let (Some((_, mapping)), []) = (mapping, &invalid[..]) else { return Err(invalid) };
        let algorithms: Box<[Algorithm]> = if config.algorithms.is_empty() {
            Algorithm::ALL.into_iter().filter(|algorithm| !algorithm.is_symmetric()).collect()
        } else {
            config.algorithms.into_iter().map(Algorithm::from).collect()
        };
        let keys = KeySet::open(&config.uri, cx);
        Ok(Issuer {
            name: config.issuer.into(),
            _subscription: keys.subscribe(cx.object, &format!("{path}.uri"), cx.services),
            keys,
            audiences: config.audiences.into_iter().map(String::into_boxed_str).collect(),
            algorithms,
            mapping,
            allows_without_consumer: config.allow_without_consumer,
            verifies_binding: config.verify_token_binding,
            path: path.into(),
        })
    }

    pub(super) fn accepts(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    /// Whether the token is for one of the accepted audiences.
    pub(super) fn accepts_audience(&self, token: &UnverifiedToken<'_>) -> bool {
        self.audiences.is_empty() || token.is_for_one_of(&self.audiences)
    }

    /// The key that the client must have.
    pub(super) fn binding(&self, token: &UnverifiedToken<'_>) -> TokenBinding {
        if self.verifies_binding { TokenBinding::of(&token.claims) } else { TokenBinding::None }
    }

    pub(super) fn subject(&self, token: &UnverifiedToken<'_>) -> TokenSubject {
        let name = token.string_claim("sub").unwrap_or_default();
        let claim = match &self.mapping {
            ConsumerMapping::Always(_) => "",
            ConsumerMapping::ByClaim(claim) => token.string_claim(claim).unwrap_or_default(),
        };
        TokenSubject {
            subject: VerifiedSubject::issued(&self.name, name),
            identifier: Some(name).filter(|name| !name.is_empty()).and_then(|name| HeaderValue::from_str(name).ok()),
            claim: claim.into(),
        }
    }

    pub(super) fn consumer<'c>(
        &self,
        subject: &TokenSubject,
        consumers: &'c ConsumerDirectory,
    ) -> Option<&'c Arc<Consumer>> {
        match &self.mapping {
            ConsumerMapping::Always(name) => consumers.by_id_or_username(name),
            ConsumerMapping::ByClaim(_) if subject.claim.is_empty() => None,
            ConsumerMapping::ByClaim(_) => consumers.by_username_or_custom_id(&subject.claim),
        }
    }

    /// The consumer of all tokens, if the configuration names it.
    pub(super) fn named_consumer(&self) -> Option<NamedConsumer<'_>> {
        let ConsumerMapping::Always(name) = &self.mapping else { return None };
        let consequence = match self.allows_without_consumer {
            true => "requests with a token of this issuer are forwarded without a consumer",
            false => "no token of this issuer is accepted",
        };
        Some(NamedConsumer { path: format!("{}.consumer", self.path), name, consequence })
    }

    /// The consumer that was looked up, for error messages: `sub=anna`.
    pub(super) fn describe_lookup(&self, subject: &TokenSubject) -> String {
        match &self.mapping {
            ConsumerMapping::Always(name) => format!("consumer={name}"),
            ConsumerMapping::ByClaim(claim) => format!("{claim}={}", subject.claim),
        }
    }
}

fn check_uri(uri: &str) -> Result<Uri, &'static str> {
    let uri: Uri = uri.parse().map_err(|_| "is not a valid URL")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("does not begin with https:// or http://");
    }
    match uri.authority() {
        None => Err("has no host"),
        Some(authority) if authority.as_str().contains('@') => Err("contains a username, which is not supported"),
        Some(_) => Ok(uri),
    }
}
