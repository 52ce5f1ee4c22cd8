//! `internal-identity`: replaces the credentials of clients by a short-lived token that Portico signs for backends.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: identity
//! plugin: internal-identity
//! config:
//!   issuer: https://gateway.example
//!   audience: [shop]
//!   keys:
//!   - secretKeyRef: {name: identity-key, key: tls.key}
//! ---
//! apiVersion: v1
//! kind: Secret
//! metadata:
//!   name: identity-key
//! stringData:
//!   tls.key: |
//!     -----BEGIN PRIVATE KEY-----
//!     MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgqfVxfZlAaFgO3sGy
//!     qn+4SEuNJy8AAR9RMz4OmG539R+hRANCAASxdOjWJiI78QrfzLpWR+Xy+pjXnx6R
//!     EVbuFEyHGhfV4SiNBFNpFthPPSA2Bgf78UCnmkUX2PFwug3pShEXm51o
//!     -----END PRIVATE KEY-----
//! ```
//!
//! Backends that verify these tokens know which client an authentication plugin has identified, and that the request
//! came through Portico. They need no keys, passwords or tokens of clients, and cannot pass these on. The key of the
//! example is public: create another one, for example with `openssl genpkey -algorithm EC -pkeyopt
//! ec_paramgen_curve:P-256`.
//!
//! The tokens have the claims `iss`, `aud`, `sub`, `iat`, `exp`, `groups`, and `consumer` with the `id`, `username` and
//! `custom_id` of the KongConsumer. A token is signed once for all requests of the same client until half of its `ttl`
//! has passed. Signing with an RSA key takes about twenty times longer than with one of P-256.
//!
//! Public keys are in `/.well-known/portico/jwks.json` of the status listener; with `?namespace=NAME`, those of one
//! namespace. The plugin `identity-keys` serves them on a route. To replace a key, add the new one to the end of
//! `keys`, wait until backends have fetched the key set again, move it to the front, and remove the old one after
//! `ttl`.

mod claims;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::plugin_api::consumers::Sha256Digest;
use crate::plugin_api::cookies::remove_cookies;
use crate::plugin_api::field_names::{WrittenValue, parse_written_name};
use crate::plugin_api::fields::remove_from_query;
use crate::plugin_api::kind::{BuildCx, Phases, PluginKind, Scopes};
use crate::plugin_api::token::AsymmetricAlgorithm;
use crate::plugin_api::token::published_keys::{PublishedSigningKey, SigningKeys};
use crate::plugin_api::token::signing_key::SigningKey;
use crate::plugin_api::{AccessOutcome, Assertions, ChangedFields, Plugin, Reply, RequestCx};
use crate::plugin_kit::authentication::{declare_identity, parse_header_name};
use crate::plugin_kit::digest_cache::{DigestCache, Expiring};
use claims::{ClientClaims, TokenClaims};

/// Replaces the credentials of clients by tokens for backends.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The claim `iss`: a URL or a name of this installation. Required.
    issuer: String,
    /// The claim `aud`: the backends that are to accept the tokens. Without any, the tokens have no such claim.
    audience: Vec<String>,
    /// How many seconds a token is valid after it was signed: 10 to 86400. A request gets a token that is valid for at
    /// least half of them.
    #[schemars(range(min = 10, max = 86400))]
    ttl: u32,
    /// Private keys in PEM, 1 to 4, each as a reference to a Secret. The first one signs, and the public halves of all
    /// of them are published.
    keys: Vec<String>,
    /// The algorithm of the signatures. If unset, `RS256`, `ES256`, `ES384`, `ES512` or `EdDSA`, as the key requires.
    algorithm: Option<AsymmetricAlgorithm>,
    /// What the claim `sub` contains.
    subject: SubjectSource,
    /// Further claims of all tokens. The claims that the plugin sets cannot be replaced.
    claims: BTreeMap<String, String>,
    /// Name of the header with the token.
    header: String,
    /// The scheme before the token in the header; empty for the token alone.
    scheme: String,
    /// Headers with credentials of clients, which are removed.
    remove_headers: Vec<String>,
    /// Cookies with credentials of clients, which are removed.
    remove_cookies: Vec<String>,
    /// Query parameters with credentials of clients, which are removed.
    remove_parameters: Vec<String>,
    /// Name of a header that gets the claim `sub`. Values that clients send are removed.
    user_header: Option<String>,
    /// Name of a header that gets the groups, separated by commas. Values that clients send are removed.
    groups_header: Option<String>,
    /// Forward requests that no plugin has authenticated, without a token. If false, they are rejected with 401. Those
    /// without a consumer whose credential does not say whose it is, such as a token without `sub`, count as such.
    allow_unauthenticated: bool,
}

/// The source of the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SubjectSource {
    /// Username, custom id or id of the consumer, in this order; without a consumer, the id of the credential.
    Consumer,
    /// The id of the consumer; without one, the id of the credential.
    Id,
    /// What the authentication plugin writes to `X-Credential-Identifier`, such as the claim `sub` of the client's
    /// token.
    Identifier,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            issuer: String::new(),
            audience: Vec::new(),
            ttl: 300,
            keys: Vec::new(),
            algorithm: None,
            subject: SubjectSource::Consumer,
            claims: BTreeMap::new(),
            header: "authorization".to_owned(),
            scheme: "Bearer".to_owned(),
            remove_headers: vec!["authorization".to_owned()],
            remove_cookies: Vec::new(),
            remove_parameters: Vec::new(),
            user_header: None,
            groups_header: None,
            allow_unauthenticated: false,
        }
    }
}

/// The most keys: two while one is replaced, and room for a mistake.
const MAX_KEYS: usize = 4;

#[derive(Debug)]
pub(crate) struct InternalIdentity {
    /// The first one signs.
    keys: Box<[Arc<PublishedSigningKey>]>,
    claims: TokenClaims,
    ttl: Duration,
    header: HeaderName,
    /// The scheme and a space, or nothing.
    prefix: Box<str>,
    user_header: Option<HeaderName>,
    groups_header: Option<HeaderName>,
    removed: Credentials,
    allows_unauthenticated: bool,
    /// The values of the headers by the digest of what the tokens state about the client.
    tokens: DigestCache<Expiring<ClientHeaders>>,
}

/// The locations of credentials that are removed.
#[derive(Debug)]
struct Credentials {
    headers: Box<[HeaderName]>,
    cookies: Box<[Box<str>]>,
    parameters: Box<[Box<str>]>,
}

/// What the endpoint gets about a client.
#[derive(Debug)]
struct ClientHeaders {
    token: HeaderValue,
    user: Option<HeaderValue>,
    groups: Option<HeaderValue>,
}

impl PluginKind for InternalIdentity {
    const NAME: &'static str = "internal-identity";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 905;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    const ASSERTS: bool = true;
    const SCOPES: Scopes = Scopes::ALL;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let keys = config.parse_keys(&mut invalid);
        if !(10..=86400).contains(&config.ttl) {
            invalid.push(Diagnostic::in_config("ttl", "is out of range", "use 10 to 86400 seconds"));
        }
        let claims = TokenClaims::new(&config, &mut invalid);
        let mut parse =
            |field: &str, name: &str| parse_header_name(field, name).map_err(|error| invalid.push(error)).ok();
        let names = config.remove_headers.iter().enumerate();
        let removed: Vec<_> =
            names.filter_map(|(index, name)| parse(&format!("remove_headers[{index}]"), name)).collect();
        let mut parse_written = |field: &str, name: &str, value: WrittenValue| {
            parse_written_name(field, name, value).map_err(|error| invalid.push(error)).ok()
        };
        let header = parse_written("header", &config.header, WrittenValue::Token);
        let mut parse_user = |field: &str, name: Option<&str>| parse_written(field, name?, WrittenValue::User);
        let user_header = parse_user("user_header", config.user_header.as_deref());
        let groups_header = parse_user("groups_header", config.groups_header.as_deref());
        for (field, names) in
            [("remove_cookies", &config.remove_cookies), ("remove_parameters", &config.remove_parameters)]
        {
            for (index, _) in names.iter().enumerate().filter(|(_, name)| name.is_empty()) {
                let remedy = "set it to a name, or remove it";
                invalid.push(Diagnostic::in_config(format!("{field}[{index}]"), "is empty", remedy));
            }
        }
        if !config.scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            let remedy = "use letters, digits and `-`, or an empty text for the token alone";
            invalid.push(Diagnostic::in_config("scheme", "is not the name of a scheme", remedy));
        }
        let (Some(header), Some(claims), []) = (header, claims, &invalid[..]) else { return Err(invalid) };
        let published = SigningKeys::of_process(cx.state);
        let boxed = |names: Vec<String>| names.into_iter().map(String::into_boxed_str).collect();
        Ok(InternalIdentity {
            keys: keys.into_iter().map(|key| published.publish(cx.namespace(), key)).collect(),
            claims,
            ttl: Duration::from_secs(config.ttl.into()),
            header,
            prefix: if config.scheme.is_empty() { "".into() } else { format!("{} ", config.scheme).into() },
            user_header,
            groups_header,
            removed: Credentials {
                headers: removed.into(),
                cookies: boxed(config.remove_cookies),
                parameters: boxed(config.remove_parameters),
            },
            allows_unauthenticated: config.allow_unauthenticated,
            tokens: DigestCache::default(),
        })
    }
}

impl Config {
    fn parse_keys(&self, invalid: &mut Vec<Diagnostic>) -> Vec<SigningKey> {
        const REMEDY: &str = "list references such as {secretKeyRef: {name: identity-key, key: tls.key}}";
        match self.keys.len() {
            0 => invalid.push(Diagnostic::in_config("keys", "is empty, so no token can be signed", REMEDY)),
            1..=MAX_KEYS => {}
            _ => invalid.push(Diagnostic::in_config("keys", "has more than 4 keys", "remove those that are not used")),
        }
        let mut keys: Vec<SigningKey> = Vec::new();
        for (index, pem) in self.keys.iter().enumerate().take(MAX_KEYS) {
            let path = format!("keys[{index}]");
            match SigningKey::from_pem(pem.as_bytes(), self.algorithm.map(Into::into)) {
                Ok(key) if keys.iter().any(|other| other.id() == key.id()) => {
                    invalid.push(Diagnostic::in_config(path, "is listed twice", "remove it"));
                }
                Ok(key) => keys.push(key),
                Err(error) => {
                    let message = error.to_string();
                    let (message, remedy) = message.split_once("; ").unwrap_or((&message, "use another key"));
                    invalid.push(Diagnostic::in_config(path, message, remedy));
                }
            }
        }
        keys
    }
}

impl Plugin for InternalIdentity {
    fn may_wait(&self) -> bool {
        false
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let client = ClientClaims::of(cx);
        let headers = match &client {
            Some(client) => {
                let digest = client.digest(&self.claims);
                match self.headers_for(client, digest, cx) {
                    Some(headers) => Some((digest, headers)),
                    None => return AccessOutcome::Reply(signing_failed()),
                }
            }
            None if self.allows_unauthenticated => None,
            None => return AccessOutcome::Reply(unauthenticated()),
        };
        self.removed.remove_from(cx);
        let mut set = |name: &HeaderName, value: Option<&HeaderValue>| match value {
            Some(value) => cx.assert_field(name, value.clone()),
            None => cx.assert_none(name),
        };
        let known = headers.as_ref().map(|(_, headers)| headers);
        set(&self.header, None);
        if let Some(name) = &self.user_header {
            set(name, known.and_then(|headers| headers.user.as_ref()));
        }
        if let Some(name) = &self.groups_header {
            set(name, known.and_then(|headers| headers.groups.as_ref()));
        }
        if let Some((digest, headers)) = headers {
            cx.insert_token(&self.header, headers.token.clone(), digest);
        }
        AccessOutcome::Continue
    }

    fn declare_assertions(&self, assertions: &mut Assertions) {
        declare_identity(assertions);
        let set = [Some(&self.header), self.user_header.as_ref(), self.groups_header.as_ref()];
        assertions.fields.add_all(set.into_iter().flatten());
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        fields.request.add_all(&self.removed.headers);
        if !self.removed.cookies.is_empty() {
            fields.request.add(&header::COOKIE);
        }
    }
}

impl InternalIdentity {
    /// The headers for this client, whose token is signed if there is none. `None` if signing fails.
    fn headers_for(
        &self,
        client: &ClientClaims<'_>,
        key: Sha256Digest,
        cx: &RequestCx<'_>,
    ) -> Option<Arc<ClientHeaders>> {
        if let Some(headers) = self.tokens.find_value(&key, cx.now) {
            return Some(headers);
        }
        let subject = client.subject(self.claims.subject_source);
        let groups = client.groups();
        let claims = self.claims.for_client(client, &subject, &groups, cx.now, self.ttl);
        let token = self.keys[0].key.sign(&claims).ok()?;
        let mut token = HeaderValue::try_from(format!("{}{token}", self.prefix)).ok()?;
        token.set_sensitive(true);
        let headers = Arc::new(ClientHeaders {
            token,
            user: HeaderValue::from_bytes(subject.as_bytes()).ok(),
            groups: HeaderValue::from_bytes(groups.join(",").as_bytes()).ok().filter(|_| !groups.is_empty()),
        });
        self.tokens.insert_value(key, Arc::clone(&headers), cx.now + self.ttl / 2, cx.now);
        Some(headers)
    }
}

impl Credentials {
    fn remove_from(&self, cx: &mut RequestCx<'_>) {
        for name in &self.headers {
            cx.head.headers.remove(name);
        }
        if !self.cookies.is_empty() {
            remove_cookies(&mut cx.head.headers, |name| self.cookies.iter().any(|cookie| cookie.as_bytes() == name));
        }
        if !self.parameters.is_empty() {
            remove_from_query(cx.head, |name| self.parameters.iter().any(|parameter| parameter.as_bytes() == name));
        }
    }
}

fn unauthenticated() -> Box<Reply> {
    Reply::negotiated(StatusCode::UNAUTHORIZED, "Unauthorized", "no_identity")
}

fn signing_failed() -> Box<Reply> {
    let message = "An unexpected error occurred";
    Reply::negotiated(StatusCode::INTERNAL_SERVER_ERROR, message, "signing_failed")
}
