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
//! Credentials are Secrets labeled `konghq.com/credential: basic-auth`, which a KongConsumer lists in `credentials`.
//! Such a Secret contains one of:
//!
//! | keys | credentials |
//! | --- | --- |
//! | `username` and `password` | one username, with its password |
//! | `username` and `password_hash` | one username, with a hash of its password |
//! | `htpasswd`, `.htpasswd` or `auth` | a username and a hash in each line, as the program `htpasswd` writes them |
//!
//! A hash is one of bcrypt (`$2y$`, with a cost of at most 14), Argon2 (`$argon2id$`, with at most 64 MiB and 16
//! passes), SHA-2 (`$5$` and `$6$`, with at most a million rounds, and passwords of at most 128 bytes), MD5 (`$apr1$`
//! and `$1$`), `{SHA}`, `{SSHA}` or `{PLAIN}`. A slow hash is computed once after the start of Portico: later requests
//! compare the password with what is then known of it, so they are as fast as without a hash. Checks against slow
//! hashes run on half of the cores at most, which namespaces share; a request that would wait for longer than 5 seconds
//! gets 503.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::plugin_api::consumers::{BasicCredential, StoredPassword, sha256};
use crate::plugin_api::dumped_fields::{DumpedFields, DumpedValue};
use crate::plugin_api::kind::{BuildCx, Phases, PluginKind, Scopes};
use crate::plugin_api::login::{Login, strip_scheme};
use crate::plugin_api::password::{ChecksBusy, PasswordChecks, PasswordHash};
use crate::plugin_api::{
    AccessOutcome, Assertions, ChangedFields, ConsumerDirectory, CredentialLocations, NamedConsumer, Plugin, Reply,
    RequestCx, VerifiedSubject,
};
use crate::plugin_kit::authentication::{
    AuthPolicy, IdentityRealm, VerifiedCredential, challenge, declare_identity, has_several_logins,
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
    checks: PasswordChecks,
}

impl PluginKind for BasicAuth {
    const NAME: &'static str = "basic-auth";
    const HAS_CREDENTIALS: bool = true;
    const PRIORITY: i32 = 1100;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    const ASSERTS: bool = true;
    const DUMPED_FIELDS: &'static [DumpedFields] =
        &[DumpedFields::new(&["brute_force_protection.redis"], DumpedValue::Anything, "3.13")];
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let policy = AuthPolicy::new(config.anonymous, true);
        let challenge = challenge("Basic", Some(&config.realm), "");
        match (policy, challenge) {
            (Ok(policy), Ok(challenge)) => Ok(BasicAuth {
                policy,
                challenge,
                hides_credentials: config.hide_credentials,
                checks: PasswordChecks::new(cx),
            }),
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

    fn declare_assertions(&self, assertions: &mut Assertions) {
        declare_identity(assertions);
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        fields.request.add_all(&[AUTHORIZATION, PROXY_AUTHORIZATION]);
    }

    fn credential_locations(&self) -> Option<CredentialLocations> {
        Some(CredentialLocations::default())
    }

    fn checks_passwords(&self) -> bool {
        true
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        if self.policy.skips(cx) {
            return AccessOutcome::Continue;
        }
        let consumers = cx.consumers;
        let has_several = has_several_logins(&cx.head.headers);
        let login = self.find_login(cx);
        if has_several {
            let reply = self.reject(cx, &BasicRejection::WrongLogin);
            return reply.map_or(AccessOutcome::Continue, AccessOutcome::Reply);
        }
        let reply = match verify(login.as_ref(), consumers) {
            Verification::Accept(credential) => self.accept(cx, credential),
            Verification::Reject(rejection) => self.reject(cx, &rejection),
            Verification::Check(credential, hash) => {
                let password = login.map(|login| login.password).unwrap_or_default();
                let (credential, hash) = (Arc::clone(credential), Arc::clone(hash));
                return AccessOutcome::Wait(Box::pin(async move {
                    match self.checks.verify(&hash, &password).await {
                        Ok(true) => self.accept(cx, &credential),
                        Ok(false) => self.reject(cx, &BasicRejection::WrongLogin),
                        Err(ChecksBusy) => Some(Reply::negotiated(
                            StatusCode::SERVICE_UNAVAILABLE,
                            "Too many passwords are being checked",
                            "checks_busy",
                        )),
                    }
                }));
            }
        };
        reply.map_or(AccessOutcome::Continue, AccessOutcome::Reply)
    }
}

impl BasicAuth {
    fn accept(&self, cx: &mut RequestCx<'_>, credential: &BasicCredential) -> Option<Box<Reply>> {
        let (consumer, identifier) = (Some(&credential.consumer), credential.username.header());
        let subject = Some(VerifiedSubject::of_credential(&credential.id));
        self.policy.accept(cx, VerifiedCredential { consumer, subject, identifier });
        None
    }

    fn reject(&self, cx: &mut RequestCx<'_>, rejection: &BasicRejection) -> Option<Box<Reply>> {
        self.policy.reject(cx, || rejection.reply().with_header(WWW_AUTHENTICATE, self.challenge.clone()))
    }

    /// The login in `Proxy-Authorization` if its username is that of a credential, otherwise the login in
    /// `Authorization`. [`Self::read_header`] may remove both headers, also the one that does not count: the endpoint
    /// would take what nothing has verified for a login.
    fn find_login(&self, cx: &mut RequestCx<'_>) -> Option<Login> {
        let consumers = cx.consumers;
        let is_known = |login: &Login| consumers.passwords.get(&*login.username).is_some();
        let [proxy_login, login] = [PROXY_AUTHORIZATION, AUTHORIZATION].map(|name| self.read_header(cx, name));
        proxy_login.filter(is_known).or(login)
    }

    /// The login in a header with the scheme `Basic`. With `hide_credentials`, removes the header, also if it occurs
    /// several times.
    fn read_header(&self, cx: &mut RequestCx<'_>, name: HeaderName) -> Option<Login> {
        let mut values = cx.head.headers.get_all(&name).iter();
        let credentials = values.find_map(|value| strip_scheme(value.as_bytes(), "basic"))?;
        let login = Login::decode(credentials);
        if self.hides_credentials {
            cx.head.headers.remove(name);
        }
        login
    }
}

/// What the credentials of a request prove.
enum Verification<'c> {
    Accept(&'c Arc<BasicCredential>),
    Reject(BasicRejection),
    /// The password must be compared with a slow hash.
    Check(&'c Arc<BasicCredential>, &'c Arc<PasswordHash>),
}

/// Why a request is rejected.
enum BasicRejection {
    NoLogin,
    WrongLogin,
}

impl BasicRejection {
    fn reply(&self) -> Box<Reply> {
        let (status, message) = (StatusCode::UNAUTHORIZED, "Unauthorized");
        match self {
            BasicRejection::NoLogin => Reply::negotiated(status, message, "no_credentials"),
            BasicRejection::WrongLogin => Reply::negotiated(status, message, "wrong_credentials"),
        }
    }
}

/// Looks up the credential with this username, and compares the password. Takes equally long for an unknown username
/// and a wrong password, except if that is compared with a hash whose password has not been used since the start.
fn verify<'c>(login: Option<&Login>, consumers: &'c ConsumerDirectory) -> Verification<'c> {
    let Some(login) = login else { return Verification::Reject(BasicRejection::NoLogin) };
    let credential = consumers.passwords.get(&*login.username);
    let digest = sha256(&login.password);
    let is_right = match credential.map(|credential| (credential, &credential.password)) {
        None => verify_slices_are_equal(&[0; 32], &digest).is_ok_and(|()| false),
        Some((_, StoredPassword::Digest(expected))) => verify_slices_are_equal(expected, &digest).is_ok(),
        Some((credential, StoredPassword::Hash(hash))) => match hash.verify_fast(&login.password) {
            Some(is_right) => is_right,
            None => return Verification::Check(credential, hash),
        },
    };
    match credential.filter(|_| is_right) {
        Some(credential) => Verification::Accept(credential),
        None => Verification::Reject(BasicRejection::WrongLogin),
    }
}

#[cfg(test)]
mod tests;
