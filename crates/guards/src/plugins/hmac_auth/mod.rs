//! `hmac-auth`: authenticates consumers by signatures of their requests.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: signatures
//! plugin: hmac-auth
//! config:
//!   algorithms: [hmac-sha256]
//!   enforce_headers: [date, "@request-target"]
//!   hide_credentials: true
//! ```
//!
//! Credentials are Secrets with `username` and `secret`, labeled `konghq.com/credential: hmac-auth`, which a
//! KongConsumer lists in `credentials`. The secret is never sent: the client signs some fields of the request with it,
//! and sends the signature in `Authorization` or `Proxy-Authorization`:
//!
//! ```text
//! Date: Fri, 02 Jan 2026 12:00:00 GMT
//! Authorization: hmac username="shop", algorithm="hmac-sha256", headers="date @request-target", signature="BASE64"
//! ```
//!
//! The signed text has one line for each entry of `headers`, in that order, separated by line feeds and without one at
//! the end. The names of headers are written as in `headers`:
//!
//! | entry | line |
//! | --- | --- |
//! | the name of a header | `date: Fri, 02 Jan 2026 12:00:00 GMT`; several values are joined by a comma and a space |
//! | a header that the request does not have | `x-tenant:` |
//! | `@request-target` | `@request-target: get /orders?id=7`, with the method in lower case |
//! | `request-line` | `GET /orders?id=7 HTTP/1.1`, without a name; `HTTP/2.0` for requests over HTTP/2 |
//!
//! The path and query are those that the client sent. `X-Date` or `Date` must be within `clock_skew` of Portico's
//! clock. If one of both is signed, only that one counts. So a signed request cannot be sent again with a new date, but
//! it can be repeated within `clock_skew`.
//!
//! With `validate_request_body`, the header `Digest` must be `SHA-256=` and the digest of the body in base64. It only
//! protects the body if it is signed, so add `digest` to `enforce_headers`.

mod body_digest;
mod parameters;
mod signed_text;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{AUTHORIZATION, DATE, PROXY_AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, request};
use schemars::JsonSchema;
use serde::Deserialize;

use self::body_digest::BodyDigest;
use self::parameters::{SignatureParameters, strip_hmac_scheme};
use self::signed_text::{SignedText, is_pseudo_header};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::consumers::{HmacAlgorithm, HmacCredential};
use crate::plugin_api::kind::{BuildCx, Phases, PluginKind, Scopes};
use crate::plugin_api::{
    AccessOutcome, Assertions, ChangedFields, CredentialLocations, NamedConsumer, Plugin, Reply, RequestCx,
    VerifiedSubject,
};
use crate::plugin_kit::authentication::{
    AuthPolicy, VerifiedCredential, challenge, declare_identity, has_several_logins, parse_header_name,
};

/// Authenticates consumers by signatures of their requests.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Remove the header with the signature before the request is sent to the endpoint.
    hide_credentials: bool,
    /// How many seconds the date of a request may differ from Portico's clock, above 0. Both are compared by whole
    /// seconds: with `0.5`, they must be in the same second.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    clock_skew: f64,
    /// Id or username of the consumer for requests without a valid signature. If unset, such requests are rejected.
    anonymous: Option<String>,
    /// Require that the header `Digest` is that of the body, if the request has a body or the header. The bodies of
    /// requests with a signature are then buffered, and bodies larger than 1 MiB are rejected with 413.
    validate_request_body: bool,
    /// Headers that a client must sign: names of headers, `request-line` or `@request-target`. If empty, a client may
    /// sign whatever it chooses, so a signature that someone has observed may be used for other requests.
    enforce_headers: Vec<String>,
    /// Algorithms that a client may use.
    algorithms: Vec<HmacAlgorithm>,
    /// The parameter `realm` of the header `WWW-Authenticate` in 401 responses.
    realm: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        use HmacAlgorithm::{Sha1, Sha256, Sha384, Sha512};
        Config {
            hide_credentials: false,
            clock_skew: 300.0,
            anonymous: None,
            validate_request_body: false,
            enforce_headers: Vec::new(),
            algorithms: vec![Sha1, Sha256, Sha384, Sha512],
            realm: None,
        }
    }
}

/// The largest clock skew in seconds, which is above 30 years.
const MAX_CLOCK_SKEW: f64 = 1e9;
/// Takes precedence over `Date`, which browsers do not let scripts set.
const X_DATE: HeaderName = HeaderName::from_static("x-date");
/// Size limit of bodies whose digest is compared, in bytes.
const MAX_BODY_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct HmacAuth {
    policy: AuthPolicy,
    challenge: HeaderValue,
    hides_credentials: bool,
    clock_skew: Duration,
    validates_body: bool,
    /// In lower case.
    enforced: Box<[Box<str>]>,
    algorithms: Box<[HmacAlgorithm]>,
}

impl PluginKind for HmacAuth {
    const NAME: &'static str = "hmac-auth";
    const HAS_CREDENTIALS: bool = true;
    const PRIORITY: i32 = 1030;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    const ASSERTS: bool = true;
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        if !(f64::MIN_POSITIVE..=MAX_CLOCK_SKEW).contains(&config.clock_skew) {
            let message = format!("must be above 0 and at most {MAX_CLOCK_SKEW} seconds");
            invalid.push(Diagnostic::in_config("clock_skew", message, "set it to a number of seconds, such as 300"));
        }
        if config.algorithms.is_empty() {
            let remedy = "list at least one algorithm, for example hmac-sha256";
            invalid.push(Diagnostic::in_config("algorithms", "is empty, so no signature is accepted", remedy));
        }
        let mut enforced = Vec::new();
        for (index, name) in config.enforce_headers.iter().enumerate() {
            let name = name.to_ascii_lowercase();
            if is_pseudo_header(&name) {
                enforced.push(name.into());
                continue;
            }
            let parsed = parse_header_name(&format!("enforce_headers[{index}]"), &name);
            enforced.extend(parsed.map_err(|error| invalid.push(error)).ok().map(|name| name.as_str().into()));
        }
        let policy = AuthPolicy::new(config.anonymous, true).map_err(|error| invalid.push(error));
        let challenge = challenge("hmac", config.realm.as_deref(), "").map_err(|error| invalid.push(error));
        let (Ok(policy), Ok(challenge), []) = (policy, challenge, &invalid[..]) else { return Err(invalid) };
        note_unsigned_headers(&enforced, config.validate_request_body, cx);
        Ok(HmacAuth {
            policy,
            challenge,
            hides_credentials: config.hide_credentials,
            clock_skew: Duration::from_secs_f64(config.clock_skew),
            validates_body: config.validate_request_body,
            enforced: enforced.into(),
            algorithms: config.algorithms.into(),
        })
    }
}

/// Notes what an observer of a request could do with its signature.
fn note_unsigned_headers(enforced: &[Box<str>], validates_body: bool, cx: &BuildCx<'_>) {
    let enforces = |name: &str| enforced.iter().any(|enforced| **enforced == *name);
    if !enforces("date") && !enforces("x-date") {
        let message = "contains neither `date` nor `x-date`, so clients need not sign the date, and a request that \
                       someone has observed can be repeated at any time";
        cx.note(Diagnostic::in_config("enforce_headers", message, "add `date`, unless this is intended"));
    }
    if validates_body && !enforces("digest") {
        let message = "does not contain `digest`, so a changed body with a changed digest is accepted";
        cx.note(Diagnostic::in_config("enforce_headers", message, "add `digest`, unless this is intended"));
    }
}

impl Plugin for HmacAuth {
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
        if self.hides_credentials {
            fields.request.add_all(&[AUTHORIZATION, PROXY_AUTHORIZATION]);
        }
    }

    fn credential_locations(&self) -> Option<CredentialLocations> {
        Some(CredentialLocations::default())
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        self.validates_body.then_some(MAX_BODY_BYTES)
    }

    /// A request without a signature is rejected, or is anonymous, whatever its body is.
    fn buffers_body(&self, head: &request::Parts) -> bool {
        [AUTHORIZATION, PROXY_AUTHORIZATION]
            .iter()
            .any(|name| head.headers.get_all(name).iter().any(|value| strip_hmac_scheme(value.as_bytes()).is_some()))
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        if self.policy.skips(cx) {
            return AccessOutcome::Continue;
        }
        let verified = self.verify(cx);
        if self.hides_credentials {
            remove_signatures(&mut cx.head.headers);
        }
        let reply = match verified {
            Ok(credential) => {
                let (consumer, identifier) = (Some(&credential.consumer), credential.username.header());
                let subject = Some(VerifiedSubject::of_credential(&credential.id));
                self.policy.accept(cx, VerifiedCredential { consumer, subject, identifier });
                None
            }
            Err(rejection) => {
                let challenge = || self.challenge.clone();
                self.policy.reject(cx, || rejection.reply().with_header(WWW_AUTHENTICATE, challenge()))
            }
        };
        reply.map_or(AccessOutcome::Continue, AccessOutcome::Reply)
    }
}

/// Why a request is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HmacRejection {
    NoSignature,
    /// There is no date, or it differs too much from the clock.
    WrongDate,
    /// The header cannot be read, lacks something that is enforced, or names an unknown username.
    Unverifiable,
    WrongSignature,
    /// The digest of the body is missing or wrong.
    WrongDigest,
}

impl HmacRejection {
    /// The messages are Kong's.
    fn reply(self) -> Box<Reply> {
        const STATUS: StatusCode = StatusCode::UNAUTHORIZED;
        const UNVERIFIABLE: &str = "HMAC signature cannot be verified";
        const MISMATCH: &str = "HMAC signature does not match";
        const NO_DATE: &str =
            "HMAC signature cannot be verified, a valid date or x-date header is required for HMAC Authentication";
        match self {
            HmacRejection::NoSignature => Reply::negotiated(STATUS, "Unauthorized", "no_credentials"),
            HmacRejection::WrongDate => Reply::negotiated(STATUS, NO_DATE, "wrong_date"),
            HmacRejection::Unverifiable => Reply::negotiated(STATUS, UNVERIFIABLE, "wrong_credentials"),
            HmacRejection::WrongSignature => Reply::negotiated(STATUS, MISMATCH, "wrong_signature"),
            HmacRejection::WrongDigest => Reply::negotiated(STATUS, MISMATCH, "wrong_digest"),
        }
    }
}

impl HmacAuth {
    fn verify<'c>(&self, cx: &RequestCx<'c>) -> Result<&'c HmacCredential, HmacRejection> {
        let headers = &cx.head.headers;
        if !headers.contains_key(AUTHORIZATION) && !headers.contains_key(PROXY_AUTHORIZATION) {
            return Err(HmacRejection::NoSignature);
        }
        if has_several_logins(headers) {
            return Err(HmacRejection::Unverifiable);
        }
        let parameters = [PROXY_AUTHORIZATION, AUTHORIZATION].iter().find_map(|name| read_parameters(headers, name));
        self.check_date(headers, parameters.as_ref(), cx.now)?;
        let parameters = parameters.ok_or(HmacRejection::Unverifiable)?;
        let algorithm = self.algorithms.iter().find(|algorithm| algorithm.name() == parameters.algorithm);
        let algorithm = algorithm.ok_or(HmacRejection::Unverifiable)?;
        if !self.enforced.iter().all(|name| parameters.signs(name)) {
            return Err(HmacRejection::Unverifiable);
        }
        let consumers = cx.consumers;
        let credential = consumers.signers.get(parameters.username).ok_or(HmacRejection::Unverifiable)?;
        let signature = SignedText::of(cx, &parameters).sign(*algorithm, credential.secret.bytes());
        if !signature.is(parameters.signature) {
            return Err(HmacRejection::WrongSignature);
        }
        if self.validates_body && !BodyDigest::of(cx).is_valid() {
            return Err(HmacRejection::WrongDigest);
        }
        Ok(credential)
    }

    /// Checks the date. If the client has signed one, an unsigned one does not count: it could be a later one that
    /// someone has added to an observed request.
    fn check_date(
        &self,
        headers: &HeaderMap,
        parameters: Option<&SignatureParameters<'_>>,
        now: SystemTime,
    ) -> Result<(), HmacRejection> {
        let is_signed = |name: &HeaderName| parameters.is_some_and(|parameters| parameters.signs(name.as_str()));
        let signs_any = is_signed(&X_DATE) || is_signed(&DATE);
        let second = UNIX_EPOCH + Duration::from_secs(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
        let is_current = |name: &HeaderName| {
            let mut values = headers.get_all(name).iter();
            let (Some(value), None) = (values.next(), values.next()) else { return false };
            let Some(date) = value.to_str().ok().and_then(|text| httpdate::parse_http_date(text).ok()) else {
                return false;
            };
            let difference = second.duration_since(date).unwrap_or_else(|later| later.duration());
            difference <= self.clock_skew
        };
        let mut counted = [X_DATE, DATE].into_iter().filter(|name| !signs_any || is_signed(name));
        if counted.any(|name| is_current(&name)) { Ok(()) } else { Err(HmacRejection::WrongDate) }
    }
}

/// The parameters in the field of this name.
fn read_parameters<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<SignatureParameters<'h>> {
    SignatureParameters::parse(headers.get(name)?.as_bytes())
}

fn remove_signatures(headers: &mut HeaderMap) {
    for name in [AUTHORIZATION, PROXY_AUTHORIZATION] {
        let has_signature = |value: &HeaderValue| strip_hmac_scheme(value.as_bytes()).is_some();
        if headers.get_all(&name).iter().any(has_signature) {
            headers.remove(name);
        }
    }
}

#[cfg(test)]
mod tests;
