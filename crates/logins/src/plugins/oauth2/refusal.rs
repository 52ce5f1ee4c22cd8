//! Why a request for a code or a token is refused, as an error of RFC 6749 and as a reply.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, PRAGMA, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, StatusCode};
use serde::Serialize;

use super::parameters::InvalidParameters;
use super::token_store::StoreError;
use crate::plugin_api::{Reply, ReplyBody};
use crate::plugin_kit::authentication::challenge;

/// Why a request for a code or a token is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Parameters(InvalidParameters),
    NoHttps,
    ProvisionKey,
    NoUser,
    User,
    ResponseType,
    GrantType,
    NoScope,
    UnknownScope(String),
    /// The scope is not a part of what the user has granted.
    ScopeMismatch,
    /// The client is unknown, or its secret is wrong. Whether it has sent the secret in the header.
    Client {
        by_header: bool,
    },
    /// The client has sent its secret in the header and among the parameters.
    SeveralSecrets,
    SecretOfPublicClient,
    /// A public client requests tokens for its own credentials, which everyone knows.
    PublicClient,
    RedirectUri,
    /// Whether the client is a public one.
    NoChallenge {
        is_public: bool,
    },
    MethodWithoutChallenge,
    ChallengeMethod,
    Challenge,
    NoVerifier,
    VerifierLength,
    WrongVerifier,
    Code,
    RefreshToken,
}

impl Refusal {
    /// The values of `error` and `error_description`.
    pub(super) fn texts(&self) -> (&'static str, Cow<'static, str>) {
        let (error, description) = match self {
            Refusal::Parameters(InvalidParameters::BodyTooLarge) => ("invalid_request", "The body is too large"),
            Refusal::Parameters(InvalidParameters::MalformedBody) => {
                ("invalid_request", "The body has no valid parameters")
            }
            Refusal::Parameters(InvalidParameters::Repeated(name)) => {
                return ("invalid_request", format!("The parameter {name} occurs more than once").into());
            }
            Refusal::Parameters(InvalidParameters::NotText(name)) => {
                return ("invalid_request", format!("The parameter {name} is not text").into());
            }
            Refusal::Parameters(InvalidParameters::TooLong(name)) => {
                return ("invalid_request", format!("The parameter {name} is too long").into());
            }
            Refusal::NoHttps => ("access_denied", "You must use HTTPS"),
            Refusal::ProvisionKey => ("invalid_provision_key", "Invalid provision_key"),
            Refusal::NoUser => ("invalid_authenticated_userid", "Missing authenticated_userid parameter"),
            Refusal::User => ("invalid_authenticated_userid", "Invalid authenticated_userid parameter"),
            Refusal::ResponseType => ("unsupported_response_type", "Invalid response_type"),
            Refusal::GrantType => ("unsupported_grant_type", "Invalid grant_type"),
            Refusal::NoScope => ("invalid_scope", "You must specify a scope"),
            Refusal::UnknownScope(scope) => {
                return ("invalid_scope", format!("\"{scope}\" is an invalid scope").into());
            }
            Refusal::ScopeMismatch => ("invalid_scope", "Scope mismatch"),
            Refusal::Client { .. } => ("invalid_client", "Invalid client authentication"),
            Refusal::SeveralSecrets => ("invalid_request", "The client must authenticate in one way only"),
            Refusal::SecretOfPublicClient => ("invalid_request", "client_secret is disallowed for public clients"),
            Refusal::PublicClient => ("unauthorized_client", "The grant requires a confidential client"),
            Refusal::RedirectUri => (
                "invalid_request",
                "Invalid redirect_uri that does not match with any redirect_uri created with the application",
            ),
            Refusal::NoChallenge { is_public: true } => {
                ("invalid_request", "code_challenge is required for public clients")
            }
            Refusal::NoChallenge { is_public: false } => {
                ("invalid_request", "code_challenge is required for confidential clients")
            }
            Refusal::MethodWithoutChallenge => {
                ("invalid_request", "code_challenge is required when code_method is present")
            }
            Refusal::ChallengeMethod => ("invalid_request", "code_challenge_method is not supported, must be S256"),
            Refusal::Challenge => ("invalid_request", "code_challenge is not a SHA-256 digest in base64url"),
            Refusal::NoVerifier => ("invalid_request", "code_verifier is required for PKCE authorization requests"),
            Refusal::VerifierLength => ("invalid_request", "code_verifier must be between 43 and 128 characters"),
            Refusal::WrongVerifier => ("invalid_grant", "Invalid code"),
            Refusal::Code => ("invalid_request", "Invalid code"),
            Refusal::RefreshToken => ("invalid_request", "Invalid refresh_token"),
        };
        (error, Cow::Borrowed(description))
    }
}

/// Why an endpoint issues nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum IssueError {
    Refused(Refusal),
    Store(StoreError),
    /// Too many secrets are being checked.
    ChecksBusy,
    /// The client is unknown while not all credentials could be read.
    LacksCredentials,
}

impl From<Refusal> for IssueError {
    fn from(refusal: Refusal) -> Self {
        IssueError::Refused(refusal)
    }
}

impl From<StoreError> for IssueError {
    fn from(error: StoreError) -> Self {
        IssueError::Store(error)
    }
}

#[derive(Serialize)]
struct ErrorBody<'b> {
    error_description: &'b str,
    error: &'b str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'b str>,
}

/// The reply with an error of an endpoint. `client_challenge`: for clients whose secret in the header is wrong.
pub(super) fn error_reply(error: &IssueError, state: Option<&str>, client_challenge: &HeaderValue) -> Box<Reply> {
    const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;
    match error {
        IssueError::Refused(refusal) => {
            let (error, description) = refusal.texts();
            let body = json_body(&ErrorBody { error_description: &description, error, state });
            match refusal {
                Refusal::Client { by_header: true } => {
                    with_json_headers(Reply::new(StatusCode::UNAUTHORIZED, body, "wrong_client"))
                        .with_header(WWW_AUTHENTICATE, client_challenge.clone())
                }
                Refusal::Client { .. } => with_json_headers(Reply::new(StatusCode::BAD_REQUEST, body, "wrong_client")),
                Refusal::Parameters(InvalidParameters::BodyTooLarge) => {
                    with_json_headers(Reply::new(StatusCode::PAYLOAD_TOO_LARGE, body, "form_too_large"))
                }
                _ => with_json_headers(Reply::new(StatusCode::BAD_REQUEST, body, "token_refused")),
            }
        }
        IssueError::Store(StoreError::Unavailable) => store_unavailable(),
        IssueError::Store(StoreError::Full) => {
            Reply::negotiated(UNAVAILABLE, "There is no room for another token", "token_store_full")
        }
        IssueError::ChecksBusy => Reply::negotiated(UNAVAILABLE, "Too many passwords are being checked", "checks_busy"),
        IssueError::LacksCredentials => {
            Reply::negotiated(UNAVAILABLE, "Not all credentials could be read yet", "missing_credentials")
        }
    }
}

pub(super) fn store_unavailable() -> Box<Reply> {
    let message = "The store of tokens is not available";
    Reply::negotiated(StatusCode::SERVICE_UNAVAILABLE, message, "token_store_unavailable")
}

/// The reply to another method than POST.
pub(super) fn method_reply(method: &Method, endpoint: &str, realm: Option<&str>) -> Box<Reply> {
    let description = format!("The HTTP method {method} is invalid for the {endpoint} endpoint");
    let body = json_body(&ErrorBody { error_description: &description, error: "invalid_method", state: None });
    let parameters = format!("error=\"invalid_method\", error_description=\"{description}\"");
    let reply = with_json_headers(Reply::new(StatusCode::METHOD_NOT_ALLOWED, body, "method_not_allowed"))
        .with_header(ALLOW, HeaderValue::from_static("POST"));
    match challenge("Bearer", realm, &parameters) {
        Ok(challenge) => reply.with_header(WWW_AUTHENTICATE, challenge),
        Err(_) => reply,
    }
}

/// The reply to a request for a resource.
pub(super) fn unauthenticated_reply(has_token: bool, challenge: &HeaderValue) -> Box<Reply> {
    const STATUS: StatusCode = StatusCode::UNAUTHORIZED;
    let reply = if has_token {
        let body = r#"{"error_description":"The access token is invalid or has expired","error":"invalid_token"}"#;
        Reply::new(STATUS, ReplyBody::Raw(Bytes::from_static(body.as_bytes())), "wrong_credentials")
    } else {
        let body = r#"{"error_description":"The access token is missing","error":"invalid_request"}"#;
        Reply::new(STATUS, ReplyBody::Raw(Bytes::from_static(body.as_bytes())), "no_credentials")
    };
    reply.with_header(CONTENT_TYPE, JSON).with_header(WWW_AUTHENTICATE, challenge.clone())
}

pub(super) fn json_body(body: &impl Serialize) -> ReplyBody {
    ReplyBody::Raw(serde_json::to_vec(body).expect("the body consists of texts and numbers").into())
}

/// Adds the headers of replies with tokens, which nothing may store (RFC 6749, section 5.1).
pub(super) fn with_json_headers(reply: Box<Reply>) -> Box<Reply> {
    reply
        .with_header(CONTENT_TYPE, JSON)
        .with_header(CACHE_CONTROL, HeaderValue::from_static("no-store"))
        .with_header(PRAGMA, HeaderValue::from_static("no-cache"))
}

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
