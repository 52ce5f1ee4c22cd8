//! Which clients may send requests to a location: those with certain addresses, with a password, or those that another
//! server permits.
//!
//! ```text
//!   addresses ─▶ password ─▶ server         every one has to pass, or with `any` one of them
//!       403         401       401, 403, 500
//! ```

mod addresses;
mod check;
mod digest;
mod external;
mod passed_cookies;
mod passwords;

use http::StatusCode;
use http::header::{AUTHORIZATION, SET_COOKIE};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::{
    AccessOutcome, Assertions, BuildCx, ChangedFields, CredentialLocations, Phases, Plugin, PluginKind, Reply,
    RequestCx, ResponseCx, ResponseOutcome, Scopes,
};
use crate::plugin_kit::authentication::declare_identity;
use addresses::Addresses;
use check::{Check, Refused};
use digest::DigestLogins;
use external::{AuthServer, SignInPage};
use passed_cookies::PassedCookies;
use passwords::Passwords;

/// What protects the paths of an Ingress.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Lists of addresses.
    #[serde(default)]
    addresses: Addresses,
    /// The users and their passwords.
    #[serde(default)]
    passwords: Option<passwords::Config>,
    /// The users of HTTP Digest authentication, in place of `passwords`.
    #[serde(default)]
    digest: Option<passwords::Config>,
    /// The server that permits requests.
    #[serde(default)]
    server: Option<external::Config>,
    /// Where clients without a login are redirected.
    #[serde(default)]
    sign_in: Option<external::SignInConfig>,
    /// Whether one of several protections suffices.
    #[serde(default)]
    any: bool,
}

/// Protects the paths of an Ingress.
pub(crate) struct AccessGuard {
    addresses: Addresses,
    passwords: Option<Passwords>,
    digest: Option<DigestLogins>,
    server: Option<AuthServer>,
    sign_in: Option<SignInPage>,
    any: bool,
}

impl PluginKind for AccessGuard {
    const NAME: &'static str = "location-access";
    const HAS_CREDENTIALS: bool = true;
    const JUDGES_CONSUMERS: bool = false;
    const PRIORITY: i32 = i32::MAX - 2;
    const PHASES: Phases = Phases::ACCESS_AND_RESPONSE;
    const FAIL_CLOSED: bool = true;
    const ASSERTS: bool = true;
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        Ok(AccessGuard {
            addresses: config.addresses,
            passwords: config.passwords.map(|config| Passwords::new(config, cx)).transpose()?,
            digest: config.digest.map(|config| DigestLogins::new(config, cx)).transpose()?,
            server: config.server.map(|config| AuthServer::new(config, cx)).transpose()?,
            sign_in: config.sign_in.map(SignInPage::new).transpose()?,
            any: config.any,
        })
    }
}

impl Plugin for AccessGuard {
    fn may_wait(&self) -> bool {
        // For the first check of a password, too.
        self.server.is_some() || self.has_users()
    }

    fn declare_assertions(&self, assertions: &mut Assertions) {
        declare_identity(assertions);
        if let Some(server) = &self.server {
            server.declare_assertions(assertions);
        }
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        if self.has_users() {
            fields.request.add(&AUTHORIZATION);
        }
        if self.server.is_some() {
            fields.response.add(&SET_COOKIE);
        }
    }

    fn credential_locations(&self) -> Option<CredentialLocations> {
        let has_logins = self.has_users() || self.server.is_some();
        has_logins.then(CredentialLocations::default)
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        if self.has_users() || self.server.is_some() {
            return AccessOutcome::Wait(Box::pin(self.decide(cx)));
        }
        match self.addresses.check(cx.client.address) {
            Check::Refused(refusal) => AccessOutcome::Reply(refusal.reply(None)),
            Check::Failed(reply) => AccessOutcome::Reply(reply),
            Check::Undecided | Check::Passed => AccessOutcome::Continue,
        }
    }

    fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
        if let Some(cookies) = cx.plugin_data::<PassedCookies>() {
            let cookies = std::mem::take(cookies);
            cookies.add_to(cx.status, cx.headers);
        }
        ResponseOutcome::Continue
    }
}

impl AccessGuard {
    /// Whether clients can log in with `Authorization`.
    fn has_users(&self) -> bool {
        self.passwords.is_some() || self.digest.is_some()
    }

    /// Asks one protection after the other.
    async fn decide(&self, cx: &mut RequestCx<'_>) -> Option<Box<Reply>> {
        let mut refused: Option<Refused> = None;
        let mut is_decided_by_server = false;
        for protection in [Protection::Addresses, Protection::Passwords, Protection::Server] {
            match self.check(protection, cx).await {
                Check::Passed if self.any => {
                    refused = None;
                    is_decided_by_server = protection == Protection::Server;
                    break;
                }
                Check::Undecided | Check::Passed => {}
                Check::Refused(refusal) if self.any => {
                    refused = Some(match refused {
                        Some(known) => known.and(refusal),
                        None => refusal,
                    });
                }
                Check::Refused(refusal) => return Some(self.refuse(cx, refusal)),
                Check::Failed(reply) => return Some(reply),
            }
        }
        if let Some(refusal) = refused {
            return Some(self.refuse(cx, refusal));
        }
        if let Some(server) = self.server.as_ref().filter(|_| self.any && !is_decided_by_server) {
            // No client may send what only the server says.
            server.remove_asserted(cx);
        }
        if self.has_users() {
            // The server has got it, and the endpoint does not.
            cx.head.headers.remove(AUTHORIZATION);
        }
        None
    }

    async fn check(&self, protection: Protection, cx: &mut RequestCx<'_>) -> Check {
        match protection {
            Protection::Addresses => self.addresses.check(cx.client.address),
            Protection::Passwords => match (&self.passwords, &self.digest) {
                (Some(passwords), _) => passwords.check(cx).await,
                (None, Some(digest)) => digest.check(cx),
                (None, None) => Check::Undecided,
            },
            Protection::Server => match &self.server {
                Some(server) => server.check(cx).await,
                None => Check::Undecided,
            },
        }
    }

    fn refuse(&self, cx: &RequestCx<'_>, refusal: Refused) -> Box<Reply> {
        let sign_in = self.sign_in.as_ref().filter(|_| refusal.status == StatusCode::UNAUTHORIZED);
        let page = sign_in.and_then(|sign_in| sign_in.page(cx));
        refusal.reply(page)
    }
}

/// In this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protection {
    Addresses,
    Passwords,
    Server,
}

#[cfg(test)]
mod tests;
