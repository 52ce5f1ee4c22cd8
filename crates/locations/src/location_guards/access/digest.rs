//! HTTP Digest authentication with the users of a file of `htdigest`.

use http::HeaderValue;
use http::header::AUTHORIZATION;

use super::check::{Check, Refused};
use super::passwords::Config;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::login::strip_scheme;
use crate::plugin_api::password::{DigestOutcome, DigestUsers};
use crate::plugin_api::{BuildCx, RequestCx, VerifiedSubject};
use crate::plugin_kit::authentication::{AuthPolicy, VerifiedCredential, challenge, has_several_logins};

/// Admits users that know their passwords, without sending them.
pub(super) struct DigestLogins {
    users: DigestUsers,
    /// What challenges begin with.
    challenge: Box<str>,
    policy: AuthPolicy,
    /// The Ingress, which distinguishes its users from those of others.
    object: Box<str>,
}

impl DigestLogins {
    pub(super) fn new(Config { realm, users }: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let challenge = challenge("Digest", Some(&realm), r#"qop="auth", algorithm=MD5, nonce="#);
        let challenge = challenge.map_err(|problem| vec![problem])?;
        let (users, invalid) = DigestUsers::parse(&realm, &users);
        for line in invalid {
            let remedy = "write each user once, as USERNAME:REALM:HASH, with htdigest and the realm of auth-realm";
            cx.note(Diagnostic::in_config("users", format!("{line}, so its user cannot log in"), remedy));
        }
        Ok(DigestLogins {
            users,
            challenge: String::from_utf8_lossy(challenge.as_bytes()).into(),
            policy: AuthPolicy::required(),
            object: cx.object.into(),
        })
    }

    pub(super) fn check(&self, cx: &mut RequestCx<'_>) -> Check {
        // The endpoint of another proxy could take the second one for the login.
        if has_several_logins(&cx.head.headers) {
            return self.refuse(cx, "wrong_credentials", false);
        }
        let value = cx.head.headers.get(AUTHORIZATION);
        let Some(credentials) = value.and_then(|value| strip_scheme(value.as_bytes(), "digest")) else {
            return self.refuse(cx, "no_credentials", false);
        };
        match self.users.check(credentials, cx.head.method.as_str(), cx.raw_target, cx.now) {
            DigestOutcome::Verified(username) => {
                let subject = VerifiedSubject::issued(&self.object, &username);
                self.policy.accept(cx, VerifiedCredential { consumer: None, subject, identifier: None });
                Check::Passed
            }
            DigestOutcome::Stale => self.refuse(cx, "wrong_credentials", true),
            DigestOutcome::Wrong => self.refuse(cx, "wrong_credentials", false),
        }
    }

    /// Asks the client to log in with another nonce.
    fn refuse(&self, cx: &RequestCx<'_>, reason: &'static str, is_stale: bool) -> Check {
        let stale = if is_stale { ", stale=true" } else { "" };
        let challenge = format!("{}\"{}\"{stale}", self.challenge, self.users.nonce(cx.now));
        Check::Refused(Refused::unauthorized(reason, HeaderValue::try_from(challenge).into_iter().collect()))
    }
}
