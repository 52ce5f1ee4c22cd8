//! `ldap-auth`: authenticates users of an LDAP directory by username and password.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: directory
//! plugin: ldap-auth
//! config:
//!   ldap_host: ldap.example.com
//!   ldap_port: 636
//!   ldaps: true
//!   verify_ldap_host: true
//!   base_dn: ou=users,dc=example,dc=com
//!   attribute: uid
//!   header_type: basic
//!   hide_credentials: true
//!   groups_required: [staff]
//! ```
//!
//! A client sends `Authorization: ldap` or `Proxy-Authorization: ldap` and `username:password` in base64; with
//! `header_type: basic`, clients send what they send for `basic-auth`. Portico logs in to the directory with them. With
//! `bind_dn`, it searches for the entry of the user; without it, the name of the entry is made of the username.
//! Whatever a username contains is part of the name, never of the structure of the request. A login without a password
//! is rejected, since directories take it for an anonymous one.
//!
//! The endpoint gets the username in `X-Credential-Identifier` as the entry of the user has it, however the client has
//! written it: Portico reads the entry with the rights of the user. If the user may not read it, the username is in
//! lower case and without spaces around it. A KongConsumer is not needed: one is only looked up with `consumer_by`.
//! Groups of the directory can be required with `groups_required`, and the plugin `acl` compares them with its lists if
//! the request has no consumer.
//!
//! After `cache_ttl`, the directory decides again. Until then, accepted logins are stored as digests with a secret of
//! the process, and without their passwords. If the directory is not available, requests get 500, also with
//! `anonymous`, and the condition `Programmed` of the plugin says why. A plugin has at most 16 connections at a time.

mod accepted_login;
mod ber;
pub(in crate::plugins) mod config;
mod connection;
mod directory;
mod message;
mod names;

use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use smallvec::SmallVec;

use self::accepted_login::{AcceptedLogin, login_key};
pub(crate) use self::config::Config;
use self::config::ConsumerLookup;
use self::directory::{Directory, DirectoryLogin, DirectoryUnavailable};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::consumers::{Sha256Digest, sha256};
use crate::plugin_api::kind::{BuildCx, Phases, PluginKind, Scopes};
use crate::plugin_api::login::{Login, strip_scheme};
use crate::plugin_api::{
    AccessOutcome, Assertions, ChangedFields, Consumer, ConsumerDirectory, CredentialLocations, NamedConsumer, Plugin,
    Reply, RequestCx, VerifiedSubject,
};
use crate::plugin_kit::authentication::{
    AuthPolicy, VerifiedCredential, challenge, declare_identity, has_several_logins,
};
use crate::plugin_kit::digest_cache::{DigestCache, Expiring};
use crate::plugin_kit::server_diagnostics::ServerDiagnostic;

pub(crate) struct LdapAuth {
    policy: AuthPolicy,
    challenge: HeaderValue,
    scheme: Box<str>,
    hides_credentials: bool,
    directory: Arc<Directory>,
    cache: Arc<DigestCache<Expiring<AcceptedLogin>>>,
    cache_lifetime: Duration,
    /// Distinguishes the configuration in the cache: a login that another one has accepted is not accepted here.
    fingerprint: Sha256Digest,
    /// One of these is enough, with all of its groups.
    required_groups: Box<[Box<[Box<str>]>]>,
    consumer_by: Box<[ConsumerLookup]>,
    is_consumer_optional: bool,
}

/// The longest username and password that are sent to the directory, in bytes.
const MAX_USERNAME: usize = 256;
const MAX_PASSWORD: usize = 1024;

impl PluginKind for LdapAuth {
    const NAME: &'static str = "ldap-auth";
    const HAS_CREDENTIALS: bool = true;
    const PRIORITY: i32 = 1200;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    const ASSERTS: bool = true;
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let server = config.server(cx).map_err(|errors| invalid.extend(errors));
        let query = config.query().map_err(|errors| invalid.extend(errors));
        let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
        if config.header_type.is_empty() || !config.header_type.bytes().all(is_scheme) {
            let remedy = "use ldap or basic";
            invalid.push(Diagnostic::in_config("header_type", "is not a scheme of Authorization", remedy));
        }
        if config.consumer_optional && config.consumer_by.is_empty() {
            let remedy = "set config.consumer_by, or remove this field";
            invalid.push(Diagnostic::in_config(
                "consumer_optional",
                "has no effect without config.consumer_by",
                remedy,
            ));
        }
        let policy = AuthPolicy::new(config.anonymous.clone(), true).map_err(|error| invalid.push(error));
        // As in Kong, which writes its own scheme in capitals.
        let shown = if config.header_type == "ldap" { "LDAP" } else { &config.header_type };
        let challenge = challenge(shown, config.realm.as_deref(), "").map_err(|error| invalid.push(error));
        let (Ok(server), Ok(query), Ok(policy), Ok(challenge), []) = (server, query, policy, challenge, &invalid[..])
        else {
            return Err(invalid);
        };
        let fingerprint = sha256(format!("{} {server:?} {query:?}", cx.object).as_bytes());
        let services = Arc::clone(cx.services);
        let directory = Directory::new(server, query, config.keepalive(), services, ServerDiagnostic::new(cx));
        Ok(LdapAuth {
            policy,
            challenge,
            hides_credentials: config.hide_credentials,
            directory,
            cache: cx.state.get_or_create("ldap-auth/logins", DigestCache::default),
            cache_lifetime: config.cache_lifetime(),
            fingerprint,
            required_groups: config.required_groups(),
            scheme: config.header_type.into(),
            consumer_by: config.consumer_by.into(),
            is_consumer_optional: config.consumer_optional,
        })
    }
}

impl Plugin for LdapAuth {
    fn named_consumers(&self) -> Vec<NamedConsumer<'_>> {
        self.policy.anonymous_consumer().into_iter().collect()
    }

    fn declare_assertions(&self, assertions: &mut Assertions) {
        declare_identity(assertions);
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        if self.hides_credentials {
            fields.request.add_all(&[AUTHORIZATION, PROXY_AUTHORIZATION]);
        }
    }

    fn credential_locations(&self) -> Option<CredentialLocations> {
        Some(CredentialLocations::default())
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        if self.policy.skips(cx) {
            return AccessOutcome::Continue;
        }
        let has_several = has_several_logins(&cx.head.headers);
        let logins = self.find_logins(&cx.head.headers);
        if self.hides_credentials {
            self.remove_logins(&mut cx.head.headers);
        }
        if has_several || logins.is_empty() {
            let rejection = if has_several { LdapRejection::WrongLogin } else { LdapRejection::NoLogin };
            let reply = self.reject(cx, rejection);
            return reply.map_or(AccessOutcome::Continue, AccessOutcome::Reply);
        }
        for login in &logins {
            if let Some(cached) = self.cache.find_value(&self.key(login), cx.now) {
                let reply = self.accept(cx, &cached);
                return reply.map_or(AccessOutcome::Continue, AccessOutcome::Reply);
            }
        }
        AccessOutcome::Wait(Box::pin(async move {
            for login in logins.into_iter().filter(may_be_valid) {
                let key = self.key(&login);
                match self.directory.log_in(login.username, login.password).await {
                    Ok(DirectoryLogin::WrongCredentials) => {}
                    Ok(DirectoryLogin::Accepted { entry, username, groups }) => {
                        let address = self.directory.global_address();
                        let subject = entry.and_then(|entry| VerifiedSubject::of_entry(&address, &entry));
                        let accepted = Arc::new(AcceptedLogin { subject, username, groups });
                        self.cache.insert_value(key, Arc::clone(&accepted), cx.now + self.cache_lifetime, cx.now);
                        return self.accept(cx, &accepted);
                    }
                    Err(DirectoryUnavailable) => {
                        let message = "An unexpected error occurred";
                        let status = StatusCode::INTERNAL_SERVER_ERROR;
                        return Some(Reply::negotiated(status, message, "directory_unavailable"));
                    }
                }
            }
            self.reject(cx, LdapRejection::WrongLogin)
        }))
    }
}

/// Why a request is rejected.
#[derive(Clone, Copy)]
enum LdapRejection {
    NoLogin,
    WrongLogin,
    NoConsumer,
}

impl LdapRejection {
    fn reply(self) -> Box<Reply> {
        let (status, message) = (StatusCode::UNAUTHORIZED, "Unauthorized");
        match self {
            LdapRejection::NoLogin => Reply::negotiated(status, message, "no_credentials"),
            LdapRejection::WrongLogin => Reply::negotiated(status, message, "wrong_credentials"),
            LdapRejection::NoConsumer => Reply::negotiated(status, message, "no_consumer"),
        }
    }
}

impl LdapAuth {
    /// The logins in `Proxy-Authorization` and then in `Authorization`.
    fn find_logins(&self, headers: &HeaderMap) -> SmallVec<[Login; 2]> {
        let login = |name: &HeaderName| Login::decode(strip_scheme(headers.get(name)?.as_bytes(), &self.scheme)?);
        [PROXY_AUTHORIZATION, AUTHORIZATION].iter().filter_map(login).collect()
    }

    fn remove_logins(&self, headers: &mut HeaderMap) {
        for name in [AUTHORIZATION, PROXY_AUTHORIZATION] {
            let has_login = |value: &HeaderValue| strip_scheme(value.as_bytes(), &self.scheme).is_some();
            if headers.get_all(&name).iter().any(has_login) {
                headers.remove(name);
            }
        }
    }

    fn key(&self, login: &Login) -> Sha256Digest {
        login_key(&self.fingerprint, &login.username, &login.password)
    }

    /// Continues as the user, if groups and consumer permit it.
    fn accept(&self, cx: &mut RequestCx<'_>, login: &AcceptedLogin) -> Option<Box<Reply>> {
        let has = |group: &str| login.groups.iter().any(|own| **own == *group);
        let has_groups = |groups: &[Box<str>]| groups.iter().all(|group| has(group));
        if !self.required_groups.is_empty() && !self.required_groups.iter().any(|groups| has_groups(groups)) {
            let message = "You cannot consume this service";
            return Some(Reply::negotiated(StatusCode::FORBIDDEN, message, "blocked_by_group"));
        }
        let consumers = cx.consumers;
        let consumer = self.consumer_by.iter().find_map(|lookup| find_consumer(consumers, *lookup, &login.username));
        if consumer.is_none() && !self.consumer_by.is_empty() && !self.is_consumer_optional {
            return self.reject(cx, LdapRejection::NoConsumer);
        }
        let identifier = HeaderValue::from_bytes(login.username.as_bytes()).ok();
        let subject = login.subject.clone();
        self.policy.accept(cx, VerifiedCredential { consumer, subject, identifier: identifier.as_ref() });
        cx.identity.groups.clone_from(&login.groups);
        None
    }

    fn reject(&self, cx: &mut RequestCx<'_>, rejection: LdapRejection) -> Option<Box<Reply>> {
        self.policy.reject(cx, || rejection.reply().with_header(WWW_AUTHENTICATE, self.challenge.clone()))
    }
}

/// Whether the login is sent to the directory at all. Without a password, it would accept any name (RFC 4513, section
/// 5.1.2).
fn may_be_valid(login: &Login) -> bool {
    (1..=MAX_PASSWORD).contains(&login.password.len()) && login.username.len() <= MAX_USERNAME
}

fn find_consumer<'c>(
    consumers: &'c ConsumerDirectory,
    lookup: ConsumerLookup,
    username: &str,
) -> Option<&'c Arc<Consumer>> {
    match lookup {
        ConsumerLookup::Username => consumers.usernames.get(username),
        ConsumerLookup::CustomId => consumers.custom_ids.get(username),
    }
}

#[cfg(test)]
pub(super) mod tests;
