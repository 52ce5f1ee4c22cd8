//! HTTP Basic authentication with the users of a file of `htpasswd`.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;

use super::check::{Check, Refused};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::login::{Login, strip_scheme};
use crate::plugin_api::password::{
    ChecksBusy, InvalidPasswordHash, LineProblem, PasswordChecks, PasswordHash, parse_htpasswd,
};
use crate::plugin_api::{BuildCx, Reply, RequestCx, VerifiedSubject};
use crate::plugin_kit::authentication::{AuthPolicy, VerifiedCredential, challenge, has_several_logins};

/// The users, whatever the scheme.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// Shown to the user.
    pub(super) realm: String,
    /// A user and a hash in each line.
    pub(super) users: String,
}

/// Omits the hashes.
impl std::fmt::Debug for Config {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Config").field("realm", &self.realm).finish_non_exhaustive()
    }
}

/// Admits users that know their passwords.
pub(super) struct Passwords {
    users: BTreeMap<Box<str>, Arc<PasswordHash>>,
    challenge: HeaderValue,
    checks: PasswordChecks,
    policy: AuthPolicy,
    /// The Ingress, which distinguishes its users from those of others.
    object: Box<str>,
}

impl Passwords {
    pub(super) fn new(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let challenge = challenge("Basic", Some(&config.realm), "").map_err(|problem| vec![problem])?;
        let (users, invalid) = parse_htpasswd(&config.users);
        for line in invalid {
            let message = format!("{line}, so its user cannot log in");
            let remedy = match line.problem {
                LineProblem::Hash(_) => InvalidPasswordHash::REMEDY,
                LineProblem::NoHash | LineProblem::RepeatedUsername => "write each user once, as USERNAME:HASH",
            };
            cx.note(Diagnostic::in_config("users", message, remedy));
        }
        Ok(Passwords {
            users: users.into_iter().map(|(name, hash)| (name.into(), Arc::new(hash))).collect(),
            challenge,
            checks: PasswordChecks::new(cx),
            policy: AuthPolicy::required(),
            object: cx.object.into(),
        })
    }

    pub(super) async fn check(&self, cx: &mut RequestCx<'_>) -> Check {
        let refused = |reason| Check::Refused(Refused::unauthorized(reason, vec![self.challenge.clone()]));
        // The endpoint of another proxy could take the second one for the login.
        if has_several_logins(&cx.head.headers) {
            return refused("wrong_credentials");
        }
        let value = cx.head.headers.get(AUTHORIZATION);
        let Some(credentials) = value.and_then(|value| strip_scheme(value.as_bytes(), "basic")) else {
            return refused("no_credentials");
        };
        let Some(Login { username, password }) = Login::decode(credentials) else {
            return refused("wrong_credentials");
        };
        let Some(hash) = self.users.get(&*username) else { return refused("wrong_credentials") };
        let is_right = match hash.verify_fast(&password) {
            Some(is_right) => Ok(is_right),
            None => self.checks.verify(hash, &password).await,
        };
        match is_right {
            Ok(true) => {
                let subject = VerifiedSubject::issued(&self.object, &username);
                self.policy.accept(cx, VerifiedCredential { consumer: None, subject, identifier: None });
                Check::Passed
            }
            Ok(false) => refused("wrong_credentials"),
            Err(ChecksBusy) => Check::Failed(Reply::negotiated(
                StatusCode::SERVICE_UNAVAILABLE,
                "Too many passwords are being checked",
                "checks_busy",
            )),
        }
    }
}
