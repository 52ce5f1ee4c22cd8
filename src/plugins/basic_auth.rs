//! `basic-auth`: authenticates consumers by username and password.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: passwords
//! plugin: basic-auth
//! config:
//!   hide_credentials: true
//! ```
//!
//! Credentials are Secrets with `username` and `password`, labeled `konghq.com/credential: basic-auth`, which a
//! KongConsumer lists in `credentials`.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::plugin_api::authentication::{
    AuthPolicy, IdentityRealm, VerifiedCredential, challenge, declare_identity_headers,
};
use crate::plugin_api::consumers::{BasicCredential, sha256};
use crate::plugin_api::kind::{BuildCx, Phases, PluginKind, Scopes};
use crate::plugin_api::{
    AccessOutcome, ChangedFields, ConsumerDirectory, CredentialLocations, NamedConsumer, Plugin, Reply, RequestCx,
};

/// Authenticates consumers by username and password.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Id or username of the consumer for requests without a valid password. If unset, such requests are rejected.
    anonymous: Option<String>,
    /// Remove the header with the username and password before the request is sent to the endpoint.
    hide_credentials: bool,
    /// The parameter `realm` of the header `WWW-Authenticate` in 401 responses.
    realm: String,
    /// Protection against password guessing.
    brute_force_protection: Option<BruteForceProtection>,
    /// Where to look up consumers. If unset, in the KongConsumers of this cluster; the only supported entry,
    /// `scope: cp`, means the same. Unrelated to `realm`.
    identity_realms: Vec<IdentityRealm>,
}

/// Protection against password guessing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BruteForceProtection {
    /// Only `off`, no protection, is supported. To limit the attempts of a client address, use the plugin
    /// rate-limiting.
    strategy: BruteForceStrategy,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) enum BruteForceStrategy {
    #[serde(rename = "off")]
    Off,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            anonymous: None,
            hide_credentials: false,
            realm: "service".to_owned(),
            brute_force_protection: None,
            identity_realms: Vec::new(),
        }
    }
}

impl Default for BruteForceProtection {
    fn default() -> Self {
        BruteForceProtection { strategy: BruteForceStrategy::Off }
    }
}

#[derive(Debug)]
pub(crate) struct BasicAuth {
    policy: AuthPolicy,
    challenge: HeaderValue,
    hides_credentials: bool,
}

impl PluginKind for BasicAuth {
    const NAME: &'static str = "basic-auth";
    const PRIORITY: i32 = 1100;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, _cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let policy = AuthPolicy::new(config.anonymous, true);
        let challenge = challenge("Basic", Some(&config.realm), "");
        match (policy, challenge) {
            (Ok(policy), Ok(challenge)) => {
                Ok(BasicAuth { policy, challenge, hides_credentials: config.hide_credentials })
            }
            (policy, challenge) => Err(policy.err().into_iter().chain(challenge.err()).collect()),
        }
    }
}

impl Plugin for BasicAuth {
    fn may_wait(&self) -> bool {
        false
    }

    fn named_consumers(&self) -> Vec<NamedConsumer<'_>> {
        self.policy.anonymous_consumer().into_iter().collect()
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        declare_identity_headers(fields);
        fields.request.add_all(&[AUTHORIZATION, PROXY_AUTHORIZATION]);
    }

    fn credential_locations(&self) -> Option<CredentialLocations> {
        Some(CredentialLocations::default())
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        if self.policy.skips(cx) {
            return AccessOutcome::Continue;
        }
        let consumers = cx.consumers;
        let login = self.find_login(cx);
        let credential = login.as_ref().and_then(|login| login.verify(consumers));
        let reply = match credential {
            Some(credential) => {
                let (consumer, identifier) = (Some(&credential.consumer), credential.username.header());
                self.policy.accept(cx, VerifiedCredential { consumer, credential: &credential.id, identifier });
                None
            }
            None => self.policy.reject(cx, || {
                let (status, message) = (StatusCode::UNAUTHORIZED, "Unauthorized");
                let reply = match login {
                    Some(_) => Reply::negotiated(status, message, "wrong_credentials"),
                    None => Reply::negotiated(status, message, "no_credentials"),
                };
                reply.with_header(WWW_AUTHENTICATE, self.challenge.clone())
            }),
        };
        reply.map_or(AccessOutcome::Continue, AccessOutcome::Reply)
    }
}

impl BasicAuth {
    /// The login in `Proxy-Authorization` if its username is that of a credential, otherwise the login in
    /// `Authorization`. [`Self::read_header`] may remove both headers.
    fn find_login(&self, cx: &mut RequestCx<'_>) -> Option<Login> {
        let proxy_login =
            self.read_header(cx, PROXY_AUTHORIZATION).filter(|login| login.has_known_username(cx.consumers));
        proxy_login.or_else(|| self.read_header(cx, AUTHORIZATION))
    }

    /// The login in a header with the scheme `Basic`. With `hide_credentials`, removes the header.
    fn read_header(&self, cx: &mut RequestCx<'_>, name: HeaderName) -> Option<Login> {
        let credentials = strip_basic_scheme(cx.head.headers.get(&name)?.as_bytes())?;
        let login = Login::decode(credentials);
        if self.hides_credentials {
            cx.head.headers.remove(name);
        }
        login
    }
}

/// The credentials after the scheme `Basic`.
fn strip_basic_scheme(value: &[u8]) -> Option<&[u8]> {
    let (scheme, credentials) = value.trim_ascii().split_at_checked(5)?;
    scheme.eq_ignore_ascii_case(b"basic").then(|| credentials.trim_ascii())
}

/// Some clients omit the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A username and password from a request.
struct Login {
    username: String,
    password: Vec<u8>,
}

impl Login {
    fn decode(credentials: &[u8]) -> Option<Self> {
        let mut decoded = BASE64.decode(credentials).ok()?;
        let colon = memchr::memchr(b':', &decoded)?;
        let password = decoded.split_off(colon + 1);
        decoded.truncate(colon);
        let username = String::from_utf8(decoded).ok().filter(|username| !username.is_empty())?;
        Some(Login { username, password })
    }

    fn has_known_username(&self, consumers: &ConsumerDirectory) -> bool {
        consumers.passwords.get(&*self.username).is_some()
    }

    /// The credential with this username and password. Takes equally long for an unknown username and a wrong password.
    fn verify<'c>(&self, consumers: &'c ConsumerDirectory) -> Option<&'c Arc<BasicCredential>> {
        let credential = consumers.passwords.get(&*self.username);
        let expected_digest = credential.map_or(&[0; 32], |credential| &credential.password);
        verify_slices_are_equal(expected_digest, &sha256(&self.password)).ok().and(credential)
    }
}

#[cfg(test)]
mod tests;
