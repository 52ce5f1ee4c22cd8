//! The way of one kind of token through the plugin: found, verified or introspected, and signed again.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use serde_json::{Map, Value};

use super::SignerRejection;
use super::claims::{ClaimRules, TokenClaimChanges, boxed, find};
use super::config::TokenConfig;
use crate::client_certificate::ConsumerField;
use crate::diagnostic::Diagnostic;
use crate::introspection::{
    Introspection, IntrospectionRequests, MAX_INTROSPECTION, TokenActivity, introspected_binding,
};
use crate::plugin_api::consumers::{Sha256Digest, sha256};
use crate::plugin_api::field_names::{WrittenValue, parse_written_name};
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::token::jwk::PublishedKey;
use crate::plugin_api::token::published_keys::{PublishedSigningKey, SigningKeys};
use crate::plugin_api::token::signing_key::SigningKey;
use crate::plugin_api::token::{
    KeyCheck, KeySet, KeySetSubscription, TokenOrigin, UnverifiedToken, lasting_claims, strip_bearer_scheme,
};
use crate::plugin_api::{Consumer, ConsumerDirectory, RequestCx, VerifiedSubject};
use crate::plugin_kit::authentication::parse_header_name;
use crate::plugin_kit::digest_cache::{DigestCache, Expiring};
use crate::plugin_kit::remote_server::{RemoteServer, RemoteServerConfig};
use crate::rejection_log::RejectionLog;
use crate::token_binding::{BindingViolation, TokenBinding};
use crate::token_purpose::TokenPurpose;

#[derive(Debug)]
pub(super) struct TokenFlow {
    pub(super) request_header: HeaderName,
    is_optional: bool,
    keys: Option<(Arc<KeySet>, KeySetSubscription)>,
    introspection: Option<Introspection<Map<String, Value>>>,
    rules: ClaimRules,
    /// The object that configures the plugin, which stands for the issuer of tokens that do not name it.
    object: Box<str>,
    /// Whether clients must have the keys that their tokens are bound to.
    verifies_binding: bool,
    consumer_claim: Box<[Box<str>]>,
    consumer_by: Box<[ConsumerField]>,
    signing: Option<Signing>,
    /// Name and scheme of the header with the new token.
    upstream: Option<(HeaderName, Box<str>)>,
    /// The tokens that were verified and signed, by their digest.
    signed: DigestCache<Expiring<SignedToken>>,
    /// How long a token is kept.
    ttl: Duration,
}

#[derive(Debug)]
struct Signing {
    /// The first one signs.
    keys: Vec<Arc<PublishedSigningKey>>,
    changes: TokenClaimChanges,
}

/// A token that was accepted.
#[derive(Debug)]
pub(super) struct SignedToken {
    claims: Map<String, Value>,
    /// `None` if the token does not name it.
    pub(super) subject: Option<VerifiedSubject>,
    /// The key that the client must have.
    binding: TokenBinding,
    /// The key that has verified it. `None` if it was introspected.
    key: Option<Arc<PublishedKey>>,
    /// The value of the header for the endpoint.
    header: HeaderValue,
    /// What the new token stands for. `None` if the endpoint gets the token of the client.
    stands_for: Option<Sha256Digest>,
}

pub(super) enum FlowOutcome {
    Token(Arc<SignedToken>),
    /// The request has none and needs none.
    NoToken,
}

impl TokenFlow {
    /// `None` if these tokens are not read.
    pub(super) fn build(config: TokenConfig, cx: &BuildCx<'_>) -> Result<Option<Self>, Vec<Diagnostic>> {
        let kind = config.kind;
        let Some(request_header) = config.request_header.as_deref() else { return Ok(None) };
        let mut invalid = Vec::new();
        let path = |field: &str| format!("{kind}_token_{field}");
        let request_header = parse_header_name(&path("request_header"), request_header);
        let request_header = request_header.map_err(|error| invalid.push(error)).ok();
        if !config.verify_signature {
            let message = "is false, which is not supported: Portico would sign what any client writes";
            let field = format!("verify_{kind}_token_signature");
            invalid.push(Diagnostic::in_config(field, message, "remove it"));
        }
        if config.jwks_uri.is_none() && config.introspection_endpoint.is_none() {
            let remedy = format!("set {kind}_token_jwks_uri or {kind}_token_introspection_endpoint");
            let message = "is unset, and there is no introspection endpoint either, so no token can be verified";
            invalid.push(Diagnostic::in_config(path("jwks_uri"), message, remedy));
        }
        let introspection = config.introspection(cx, &mut invalid);
        let upstream = config.upstream(&mut invalid);
        let signing = config.signing(cx, &mut invalid);
        let keys = config.keys(cx, &mut invalid);
        let (Some(request_header), []) = (request_header, &invalid[..]) else { return Err(invalid) };
        Ok(Some(TokenFlow {
            request_header,
            is_optional: config.optional,
            keys,
            introspection,
            rules: ClaimRules::new(&config),
            object: cx.object.into(),
            verifies_binding: config.verify_binding,
            consumer_claim: boxed(&config.consumer_claim),
            consumer_by: config.consumer_by.into(),
            signing,
            upstream,
            signed: DigestCache::default(),
            ttl: Duration::from_secs(config.cache_introspection_ttl.into()),
        }))
    }

    /// The header with the new token.
    pub(super) fn asserted_header(&self) -> Option<&HeaderName> {
        self.upstream.as_ref().map(|(name, _)| name)
    }

    /// Finds and verifies the token of a request.
    pub(super) async fn verify(&self, cx: &RequestCx<'_>, log: &RejectionLog) -> Result<FlowOutcome, SignerRejection> {
        let mut values = cx.head.headers.get_all(&self.request_header).iter();
        let text = match (values.next(), values.next()) {
            (None, _) if self.is_optional => return Ok(FlowOutcome::NoToken),
            (None, _) => return Err(SignerRejection::NoToken),
            (Some(_), Some(_)) => return Err(SignerRejection::InvalidToken),
            (Some(value), None) => strip_bearer_scheme(value.as_bytes()).unwrap_or(value.as_bytes()).to_vec(),
        };
        let digest = sha256(&text);
        let token = match self.find(&digest, cx.now) {
            Some(token) => token,
            None => self.verify_new(&text, digest, cx.client.address, cx.now).await?,
        };
        if !self.rules.accept_times(&token.claims, cx.now) {
            return Err(SignerRejection::InvalidToken);
        }
        if self.verifies_binding
            && let Err(violation) = token.binding.check(cx.client.certificate)
        {
            log.rejected(cx.scope, "token", &format!("the token {violation}"));
            return Err(match violation {
                BindingViolation::NotRequested if cx.needs_another_connection() => SignerRejection::NotAsked,
                _ => SignerRejection::InvalidToken,
            });
        }
        Ok(FlowOutcome::Token(token))
    }

    /// A token that was verified lately, with a key that is still in use.
    fn find(&self, digest: &Sha256Digest, now: SystemTime) -> Option<Arc<SignedToken>> {
        let token = self.signed.find_value(digest, now)?;
        let is_in_use = match (&token.key, &self.keys) {
            (Some(key), Some((keys, _))) => keys.publishes(key),
            (Some(_), None) => false,
            (None, _) => true,
        };
        is_in_use.then_some(token)
    }

    async fn verify_new(
        &self,
        text: &[u8],
        digest: Sha256Digest,
        client: IpAddr,
        now: SystemTime,
    ) -> Result<Arc<SignedToken>, SignerRejection> {
        let parsed = UnverifiedToken::parse(text).ok();
        let (claims, key) = match (&self.keys, parsed) {
            (Some((keys, _)), Some(token)) if !token.algorithm.is_symmetric() => {
                if TokenPurpose::of(&token) == TokenPurpose::Other {
                    return Err(SignerRejection::InvalidToken);
                }
                let key = verify_signature(keys, &token).await?;
                (token.claims, Some(key))
            }
            _ => (self.introspect(text, client, now).await?, None),
        };
        if !self.rules.accept(&claims) || !self.rules.accept_times(&claims, now) {
            return Err(SignerRejection::InvalidToken);
        }
        let (header, stands_for) = self.header(text, &claims).ok_or(SignerRejection::SigningFailed)?;
        let claim = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
        let issuer = Some(claim("iss")).filter(|issuer| !issuer.is_empty()).unwrap_or(&self.object);
        let subject = VerifiedSubject::issued(issuer, claim("sub"));
        let binding = if key.is_some() { TokenBinding::of(&claims) } else { introspected_binding(&claims) };
        let token = Arc::new(SignedToken { claims, subject, binding, key, header, stands_for });
        self.signed.insert_value(digest, Arc::clone(&token), now + self.ttl, now);
        Ok(token)
    }

    async fn introspect(
        &self,
        text: &[u8],
        client: IpAddr,
        now: SystemTime,
    ) -> Result<Map<String, Value>, SignerRejection> {
        let introspection = self.introspection.as_ref().ok_or(SignerRejection::InvalidToken)?;
        let token = std::str::from_utf8(text).map_err(|_| SignerRejection::InvalidToken)?;
        let key = Introspection::<Map<String, Value>>::key(text, &[]);
        let activity = match introspection.find(&key, now) {
            Some(activity) => activity,
            None => {
                let fetched = introspection.fetch(key, token, Vec::new(), client, now).await;
                fetched.map_err(|_| SignerRejection::Unavailable)?
            }
        };
        match activity {
            TokenActivity::Active(claims) => Ok((*claims).clone()),
            TokenActivity::Inactive => Err(SignerRejection::InvalidToken),
        }
    }

    /// The value of the header for the endpoint, and what it stands for if it is a new token. `None` if it cannot be
    /// signed.
    fn header(&self, text: &[u8], claims: &Map<String, Value>) -> Option<(HeaderValue, Option<Sha256Digest>)> {
        let scheme = self.upstream.as_ref().map_or("", |(_, scheme)| scheme);
        let (token, stands_for) = match &self.signing {
            Some(Signing { keys, changes }) => {
                let claims = changes.apply(claims);
                (keys.first()?.key.sign(&claims).ok()?, Some(lasting_claims([&claims])))
            }
            None => (String::from_utf8(text.to_vec()).ok()?, None),
        };
        let mut header = HeaderValue::try_from(format!("{scheme}{token}")).ok()?;
        header.set_sensitive(true);
        Some((header, stands_for))
    }

    /// Whether tokens identify consumers.
    pub(super) fn finds_consumers(&self) -> bool {
        !self.consumer_claim.is_empty()
    }

    pub(super) fn consumer<'c>(
        &self,
        token: &SignedToken,
        consumers: &'c ConsumerDirectory,
    ) -> Option<&'c Arc<Consumer>> {
        let name = find(&token.claims, &self.consumer_claim)?.as_str().filter(|name| !name.is_empty())?;
        self.consumer_by.iter().find_map(|field| match field {
            ConsumerField::Username => consumers.usernames.get(name),
            ConsumerField::CustomId => consumers.custom_ids.get(name),
        })
    }

    /// Replaces the token of the client.
    pub(super) fn apply(&self, cx: &mut RequestCx<'_>, outcome: &FlowOutcome) {
        cx.head.headers.remove(&self.request_header);
        match (self.asserted_header(), outcome) {
            (Some(name), FlowOutcome::Token(token)) => match token.stands_for {
                Some(stands_for) => cx.insert_token(name, token.header.clone(), stands_for),
                None => cx.tell_endpoint(name, token.header.clone()),
            },
            (Some(name), FlowOutcome::NoToken) => cx.assert_none(name),
            (None, _) => {}
        }
    }
}

async fn verify_signature(keys: &KeySet, token: &UnverifiedToken<'_>) -> Result<Arc<PublishedKey>, SignerRejection> {
    let mut check = keys.verify(token);
    if matches!(check, KeyCheck::UnknownKey | KeyCheck::NoKeys) && keys.can_refresh(TokenOrigin::Client) {
        keys.refresh(TokenOrigin::Client).await;
        check = keys.verify(token);
    }
    match check {
        KeyCheck::Verified(key) => Ok(key),
        KeyCheck::InvalidSignature | KeyCheck::OtherIssuer | KeyCheck::UnknownKey => Err(SignerRejection::InvalidToken),
        KeyCheck::NoKeys => Err(SignerRejection::Unavailable),
    }
}

impl TokenConfig {
    fn introspection(
        &self,
        cx: &BuildCx<'_>,
        invalid: &mut Vec<Diagnostic>,
    ) -> Option<Introspection<Map<String, Value>>> {
        let url = self.introspection_endpoint.as_deref()?;
        let server = RemoteServerConfig {
            field: &format!("{}_token_introspection_endpoint", self.kind),
            url,
            timeout_field: &format!("{}_token_introspection_timeout", self.kind),
            timeout: self.introspection_timeout,
            keep_alive: 60_000,
            verify: true,
            max_response: MAX_INTROSPECTION,
        };
        let server = RemoteServer::new(server, cx).map_err(|errors| invalid.extend(errors)).ok();
        let authorization = self.introspection_authorization.as_deref().map(HeaderValue::from_str).transpose();
        let authorization = authorization.map_err(|_| {
            let field = format!("{}_token_introspection_authorization", self.kind);
            let remedy = "use visible ASCII characters and spaces only";
            invalid.push(Diagnostic::in_config(field, "is not a valid header value", remedy));
        });
        let mut authorization = authorization.ok()?;
        if let Some(authorization) = &mut authorization {
            authorization.set_sensitive(true);
        }
        let requests = IntrospectionRequests {
            authorization,
            headers: HeaderMap::new(),
            token_type_hint: self.introspection_hint.as_deref().map(Box::from),
            ttl: Duration::from_secs(self.cache_introspection_ttl.into()),
        };
        Some(Introspection::new(server?, requests, Map::clone))
    }

    /// Name of the header with the new token, and the scheme before it with a space.
    fn upstream(&self, invalid: &mut Vec<Diagnostic>) -> Option<(HeaderName, Box<str>)> {
        let text = self.upstream_header.as_deref()?;
        let field = format!("{}_token_upstream_header", self.kind);
        let (name, scheme) = text.split_once(':').unwrap_or((text, ""));
        let name = parse_written_name(&field, name, WrittenValue::Token).map_err(|error| invalid.push(error)).ok()?;
        let scheme = scheme.trim();
        if !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            let remedy = "write the name of the header and the scheme, such as Authorization:Bearer";
            invalid.push(Diagnostic::in_config(field, "has a scheme that is not valid", remedy));
            return None;
        }
        Some((name, if scheme.is_empty() { "".into() } else { format!("{scheme} ").into() }))
    }

    fn signing(&self, cx: &BuildCx<'_>, invalid: &mut Vec<Diagnostic>) -> Option<Signing> {
        // Without a header, the endpoint gets no token.
        if !self.signing || self.upstream_header.is_none() {
            return None;
        }
        let field = format!("{}_token_signing_keys", self.kind);
        if self.signing_keys.is_empty() {
            let remedy = "list references such as {secretKeyRef: {name: signer-key, key: tls.key}}";
            invalid.push(Diagnostic::in_config(&field, "is empty, so no token can be signed", remedy));
        }
        let published = SigningKeys::of_process(cx.state);
        let mut keys = Vec::new();
        for (index, pem) in self.signing_keys.iter().enumerate() {
            match SigningKey::from_pem(pem.as_bytes(), self.signing_algorithm.map(Into::into)) {
                Ok(key) => keys.push(published.publish(cx.namespace(), key)),
                Err(error) => {
                    let message = error.to_string();
                    let (message, remedy) = message.split_once("; ").unwrap_or((&message, "use another key"));
                    invalid.push(Diagnostic::in_config(format!("{field}[{index}]"), message, remedy));
                }
            }
        }
        Some(Signing { keys, changes: TokenClaimChanges::new(self) })
    }

    fn keys(&self, cx: &BuildCx<'_>, invalid: &mut Vec<Diagnostic>) -> Option<(Arc<KeySet>, KeySetSubscription)> {
        let uri = self.jwks_uri.as_deref()?;
        let field = format!("{}_token_jwks_uri", self.kind);
        let parsed = uri.parse::<Uri>().ok().filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
        let Some(host) = parsed.as_ref().and_then(Uri::host).filter(|_| !uri.contains('@')) else {
            let remedy = "use the URL of the key set, for example https://issuer.example/keys";
            invalid.push(Diagnostic::in_config(field, "is not an http or https URL without a username", remedy));
            return None;
        };
        if let Some(blocked) = cx.check_host(&field, host) {
            invalid.push(blocked);
        }
        // Errors of other fields do not start fetches.
        if !invalid.is_empty() {
            return None;
        }
        let keys = KeySet::open(uri, cx);
        let subscription = keys.subscribe(cx.object, &field, cx.services);
        Some((keys, subscription))
    }
}
