//! `basic-auth`: a username and a password say who is asking.
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
//! Usernames and passwords are Secrets labeled `konghq.com/credential: basic-auth`, which a KongConsumer lists.

use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::plugin::authentication::{Gate, IdentityRealm, Shown, challenge};
use crate::plugin::consumers::{BasicCredential, digest_of};
use crate::plugin::kind::{BuildCx, Invalid, Kind, Phases, Scopes};
use crate::plugin::{Directory, Outcome, Plugin, Reply, RequestCx};

/// Lets in who knows the password of a consumer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Id or username of the consumer in whose name requests without a valid password go on. Without it they are refused.
    anonymous: Option<String>,
    /// Whether the endpoint does not get to see the header with the password.
    hide_credentials: bool,
    /// What the client is told that the password is for, in `WWW-Authenticate`.
    realm: String,
    /// What is done about somebody who tries one password after another.
    brute_force_protection: Option<BruteForceProtection>,
    /// Where consumers are kept. Only those of this cluster are known here.
    identity_realms: Vec<IdentityRealm>,
}

/// What is done about somebody who tries one password after another.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BruteForceProtection {
    /// `off`: nothing. Limit the requests of an address with rate-limiting instead.
    strategy: Strategy,
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) enum Strategy {
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
        BruteForceProtection { strategy: Strategy::Off }
    }
}

#[derive(Debug)]
pub(crate) struct BasicAuth {
    gate: Gate,
    challenge: HeaderValue,
    hides: bool,
}

impl Kind for BasicAuth {
    const NAME: &'static str = "basic-auth";
    const PRIORITY: i32 = 1100;
    const PHASES: Phases = Phases::ACCESS;
    const GUARD: bool = true;
    const SCOPES: Scopes = Scopes::FOR_EVERYBODY;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, _cx: &BuildCx<'_>) -> Result<Self, Vec<Invalid>> {
        let gate = Gate::new(config.anonymous, true);
        let challenge = challenge("Basic", Some(&config.realm), "");
        match (gate, challenge) {
            (Ok(gate), Ok(challenge)) => Ok(BasicAuth { gate, challenge, hides: config.hide_credentials }),
            (gate, challenge) => Err(gate.err().into_iter().chain(challenge.err()).collect()),
        }
    }
}

impl Plugin for BasicAuth {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> Outcome<'a> {
        if self.gate.is_open(cx) {
            return Outcome::Next;
        }
        let consumers = cx.consumers;
        let shown = self.shown(cx);
        let known = shown.as_ref().and_then(|shown| shown.check(consumers));
        let reply = match known {
            Some(known) => {
                let (consumer, identifier) = (Some(&known.consumer), known.username.header());
                self.gate.admit(cx, Shown { consumer, credential: &known.id, identifier });
                None
            }
            None => self.gate.turn_away(cx, || {
                let reason = if shown.is_some() { "wrong_credentials" } else { "no_credentials" };
                let reply = Reply::negotiated(StatusCode::UNAUTHORIZED, "Unauthorized", reason);
                reply.with(WWW_AUTHENTICATE, self.challenge.clone())
            }),
        };
        reply.map_or(Outcome::Next, Outcome::Reply)
    }
}

impl BasicAuth {
    /// What stands in `Proxy-Authorization` if a consumer is called that, or else in `Authorization`. Takes out of the
    /// request what it looked at, if credentials are to be hidden.
    fn shown(&self, cx: &mut RequestCx<'_>) -> Option<Password> {
        let for_proxy = self.read(cx, PROXY_AUTHORIZATION).filter(|shown| shown.is_of_somebody(cx.consumers));
        for_proxy.or_else(|| self.read(cx, AUTHORIZATION))
    }

    fn read(&self, cx: &mut RequestCx<'_>, name: HeaderName) -> Option<Password> {
        let credentials = basic(cx.head.headers.get(&name)?.as_bytes())?;
        let password = Password::decode(credentials);
        if self.hides {
            cx.head.headers.remove(name);
        }
        password
    }
}

/// What follows the scheme.
fn basic(value: &[u8]) -> Option<&[u8]> {
    let (scheme, credentials) = value.trim_ascii().split_at_checked(5)?;
    scheme.eq_ignore_ascii_case(b"basic").then(|| credentials.trim_ascii())
}

/// Clients leave the padding out now and then.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A username and a password, as somebody has shown them.
struct Password {
    username: String,
    password: Vec<u8>,
}

impl Password {
    fn decode(credentials: &[u8]) -> Option<Self> {
        let mut username = BASE64.decode(credentials).ok()?;
        let colon = memchr::memchr(b':', &username)?;
        let password = username.split_off(colon + 1);
        username.truncate(colon);
        let username = String::from_utf8(username).ok().filter(|username| !username.is_empty())?;
        Some(Password { username, password })
    }

    fn is_of_somebody(&self, consumers: &Directory) -> bool {
        consumers.passwords.get(&*self.username).is_some()
    }

    /// Takes as long for a username that nobody has as for a wrong password.
    fn check<'c>(&self, consumers: &'c Directory) -> Option<&'c Arc<BasicCredential>> {
        let known = consumers.passwords.get(&*self.username);
        let expected = known.map_or(&[0; 32], |known| &known.password);
        verify_slices_are_equal(expected, &digest_of(&self.password)).ok().and(known)
    }
}

#[cfg(test)]
mod tests;
