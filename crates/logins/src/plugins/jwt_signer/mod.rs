//! `jwt-signer`: verifies the tokens of clients, and signs them again with a key of Portico.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: sign
//! plugin: jwt-signer
//! config:
//!   access_token_jwks_uri: https://issuer.example/keys
//!   access_token_issuers_allowed: [https://issuer.example]
//!   access_token_signing_keys:
//!   - secretKeyRef: {name: signer-key, key: tls.key}
//! ---
//! apiVersion: v1
//! kind: Secret
//! metadata:
//!   name: signer-key
//! stringData:
//!   tls.key: |
//!     -----BEGIN PRIVATE KEY-----
//!     MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgqfVxfZlAaFgO3sGy
//!     qn+4SEuNJy8AAR9RMz4OmG539R+hRANCAASxdOjWJiI78QrfzLpWR+Xy+pjXnx6R
//!     EVbuFEyHGhfV4SiNBFNpFthPPSA2Bgf78UCnmkUX2PFwug3pShEXm51o
//!     -----END PRIVATE KEY-----
//! ```
//!
//! The endpoint then needs only the keys of Portico, whichever issuers clients use. An access token is required, unless
//! `access_token_optional` is set; a channel token, which identifies an application for example, is read if
//! `channel_token_request_header` is set. A token is either signed, and verified with the keys at `…_jwks_uri`, or
//! validated by `…_introspection_endpoint`. A token that is verified is signed once, and the result is kept as long as
//! it is valid. Tokens for other purposes than access, such as logout tokens, are rejected, but ID tokens are not: list
//! in `…_audiences_allowed` the applications whose tokens are signed.
//!
//! The public keys are in the key set of `internal-identity`, which `identity-keys` serves.

mod claims;
mod config;
mod dumped_fields;
#[cfg(test)]
mod tests;
mod token_flow;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderName, HeaderValue, StatusCode};

use crate::diagnostic::Diagnostic;
use crate::plugin_api::dumped_fields::DumpedFields;
use crate::plugin_api::kind::{BuildCx, Phases, PluginKind, Scopes};
use crate::plugin_api::{AccessOutcome, Assertions, ChangedFields, CredentialLocations, Plugin, Reply, RequestCx};
use crate::plugin_kit::authentication::{AuthPolicy, VerifiedCredential, challenge, declare_identity, record_subject};
use crate::rejection_log::RejectionLog;
use crate::token_binding::another_connection;
use config::Config;
use token_flow::{FlowOutcome, TokenFlow};

#[derive(Debug)]
pub(crate) struct JwtSigner {
    /// Of the access token, then of the channel token.
    flows: Vec<TokenFlow>,
    policy: AuthPolicy,
    challenge: HeaderValue,
    log: RejectionLog,
}

impl PluginKind for JwtSigner {
    const NAME: &'static str = "jwt-signer";
    const HAS_CREDENTIALS: bool = true;
    const PRIORITY: i32 = 1020;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    const ASSERTS: bool = true;
    const DUMPED_FIELDS: &'static [DumpedFields] = dumped_fields::DUMPED_FIELDS;
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        if config.enable_hs_signatures {
            let message = "is true, which is not supported";
            invalid.push(Diagnostic::in_config("enable_hs_signatures", message, "remove it"));
        }
        let challenge = challenge("Bearer", config.realm.as_deref(), "error=\"invalid_token\"");
        let challenge = challenge.map_err(|error| invalid.push(error));
        let mut flows = Vec::new();
        for tokens in config.split() {
            match TokenFlow::build(tokens, cx) {
                Ok(flow) => flows.extend(flow),
                Err(errors) => invalid.extend(errors),
            }
        }
        if flows.is_empty() && invalid.is_empty() {
            let message = "is unset, and so is channel_token_request_header, so no token is read";
            let remedy = "set one of them to the header with the token";
            invalid.push(Diagnostic::in_config("access_token_request_header", message, remedy));
        }
        let (Ok(challenge), []) = (challenge, &invalid[..]) else { return Err(invalid) };
        Ok(JwtSigner { flows, policy: AuthPolicy::required(), challenge, log: RejectionLog::new(Self::NAME) })
    }
}

impl Plugin for JwtSigner {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        AccessOutcome::Wait(Box::pin(self.run(cx)))
    }

    fn declare_assertions(&self, assertions: &mut Assertions) {
        declare_identity(assertions);
        assertions.fields.add_all(self.flows.iter().filter_map(TokenFlow::asserted_header));
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        fields.request.add_all(self.flows.iter().map(|flow| &flow.request_header));
    }

    fn credential_locations(&self) -> Option<CredentialLocations> {
        let headers: Vec<HeaderName> = self.flows.iter().map(|flow| flow.request_header.clone()).collect();
        Some(CredentialLocations { headers, ..CredentialLocations::default() })
    }
}

/// Why a request is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SignerRejection {
    NoToken,
    InvalidToken,
    /// The token is bound to a certificate, which the handshake of another connection requests.
    NotAsked,
    /// The keys of the issuer or the introspection endpoint are not available.
    Unavailable,
    NoConsumer,
    SigningFailed,
}

impl JwtSigner {
    async fn run(&self, cx: &mut RequestCx<'_>) -> Option<Box<Reply>> {
        let mut accepted = Vec::new();
        for flow in &self.flows {
            match flow.verify(cx, &self.log).await {
                Ok(outcome) => accepted.push((flow, outcome)),
                Err(rejection) => return Some(self.reply(rejection)),
            }
        }
        // The consumer is that of the access token, or else that of the channel token.
        let mut is_identified = false;
        for (flow, outcome) in &accepted {
            let FlowOutcome::Token(token) = outcome else { continue };
            if flow.finds_consumers() && !is_identified {
                let consumers = cx.consumers;
                let Some(consumer) = flow.consumer(token, consumers) else {
                    return Some(self.reply(SignerRejection::NoConsumer));
                };
                let (consumer, subject) = (Some(consumer), token.subject.clone());
                self.policy.accept(cx, VerifiedCredential { consumer, subject, identifier: None });
                is_identified = true;
            } else {
                record_subject(cx, token.subject.clone());
            }
        }
        for (flow, outcome) in accepted {
            flow.apply(cx, &outcome);
        }
        None
    }

    fn reply(&self, rejection: SignerRejection) -> Box<Reply> {
        const STATUS: StatusCode = StatusCode::UNAUTHORIZED;
        let reply = match rejection {
            SignerRejection::NoToken => Reply::negotiated(STATUS, "Unauthorized", "no_credentials"),
            SignerRejection::InvalidToken => Reply::negotiated(STATUS, "Unauthorized", "wrong_credentials"),
            SignerRejection::NotAsked => return another_connection(),
            SignerRejection::NoConsumer => Reply::negotiated(STATUS, "Unauthorized", "no_consumer"),
            SignerRejection::Unavailable => {
                let message = "The server that validates tokens is not available";
                return Reply::negotiated(StatusCode::SERVICE_UNAVAILABLE, message, "no_keys");
            }
            SignerRejection::SigningFailed => {
                let message = "An unexpected error occurred";
                return Reply::negotiated(StatusCode::INTERNAL_SERVER_ERROR, message, "signing_failed");
            }
        };
        reply.with_header(WWW_AUTHENTICATE, self.challenge.clone())
    }
}
