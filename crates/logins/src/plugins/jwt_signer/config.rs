//! The configuration of `jwt-signer`: the same fields for access tokens and for channel tokens.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::client_certificate::ConsumerField;
use crate::plugin_api::token::AsymmetricAlgorithm;

/// Verifies tokens and signs them again.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The parameter `realm` of the header `WWW-Authenticate` in 401 responses.
    pub(super) realm: Option<String>,
    /// Accept HMAC signatures. True is not supported: their keys would have to be published.
    pub(super) enable_hs_signatures: bool,
    /// Name of the header with the access token, with or without `Bearer` before it.
    pub(super) access_token_request_header: Option<String>,
    /// Forward requests without an access token. If false, they are rejected with 401.
    pub(super) access_token_optional: bool,
    /// URL of the JSON Web Key Set with which signed access tokens are verified.
    pub(super) access_token_jwks_uri: Option<String>,
    /// URL of the endpoint that validates access tokens that are not signed (RFC 7662).
    pub(super) access_token_introspection_endpoint: Option<String>,
    /// The header `Authorization` of the requests to the introspection endpoint.
    pub(super) access_token_introspection_authorization: Option<String>,
    /// The parameter `token_type_hint` of the requests to the introspection endpoint.
    pub(super) access_token_introspection_hint: Option<String>,
    /// Timeout in milliseconds for a request to the introspection endpoint. At most 60000 takes effect.
    pub(super) access_token_introspection_timeout: u32,
    /// For how many seconds a result of the introspection endpoint is kept.
    pub(super) cache_access_token_introspection_ttl: u32,
    /// Verify the signatures of access tokens. False is not supported.
    pub(super) verify_access_token_signature: bool,
    /// Reject access tokens that have expired.
    pub(super) verify_access_token_expiry: bool,
    /// Reject access tokens whose `nbf` is in the future.
    pub(super) verify_access_token_notbefore: bool,
    /// Compare the certificate of the client with that in the claim `cnf` of access tokens (RFC 8705), and refuse
    /// tokens that are bound to a key in another way, such as DPoP. The new token has no `cnf`. If false, a stolen
    /// token can be used.
    pub(super) verify_access_token_binding: bool,
    /// How many seconds the clock of the issuer may differ.
    pub(super) access_token_leeway: u32,
    /// Accepted values of `iss`. If empty, all are accepted.
    pub(super) access_token_issuers_allowed: Vec<String>,
    /// Accepted values of `aud`, of which a token needs one. If empty, all are accepted.
    pub(super) access_token_audiences_allowed: Vec<String>,
    /// Accepted values of `sub`. If empty, all are accepted.
    pub(super) access_token_subjects_allowed: Vec<String>,
    /// The path of the claim with the scopes.
    pub(super) access_token_scopes_claim: Vec<String>,
    /// Required scopes: a token needs all scopes of one of these entries, which are separated by spaces.
    pub(super) access_token_scopes_required: Vec<String>,
    /// The path of the claim that identifies the consumer. If unset, no consumer is identified.
    pub(super) access_token_consumer_claim: Vec<String>,
    /// The fields of consumers that are compared with the claim.
    pub(super) access_token_consumer_by: Vec<ConsumerField>,
    /// Sign access tokens again. If false, the endpoint gets them as the client sent them.
    pub(super) access_token_signing: bool,
    /// Private keys in PEM, each as a reference to a Secret. The first one signs, and the public halves of all are
    /// published, as those of internal-identity. Required if access tokens are signed.
    pub(super) access_token_signing_keys: Vec<String>,
    /// The algorithm of the signatures. If unset, the one that the key requires.
    pub(super) access_token_signing_algorithm: Option<AsymmetricAlgorithm>,
    /// The claim `iss` of the new token. The former value becomes `original_iss`.
    pub(super) access_token_issuer: String,
    /// Name of the header with the new token, and after a colon the scheme before it.
    pub(super) access_token_upstream_header: Option<String>,
    /// How many seconds the new token is valid for longer than the former one.
    pub(super) access_token_upstream_leeway: u32,
    /// Claims of the new token, which replace existing ones.
    pub(super) set_access_token_claims: BTreeMap<String, String>,
    /// Claims of the new token that the former one does not have.
    pub(super) add_access_token_claims: BTreeMap<String, String>,
    /// Claims that the new token does not have.
    pub(super) remove_access_token_claims: Vec<String>,
    /// Name of the header with the channel token, with or without `Bearer` before it. If unset, there are no channel
    /// tokens.
    pub(super) channel_token_request_header: Option<String>,
    /// Forward requests without a channel token. If false, they are rejected with 401.
    pub(super) channel_token_optional: bool,
    /// URL of the JSON Web Key Set with which signed channel tokens are verified.
    pub(super) channel_token_jwks_uri: Option<String>,
    /// URL of the endpoint that validates channel tokens that are not signed (RFC 7662).
    pub(super) channel_token_introspection_endpoint: Option<String>,
    /// The header `Authorization` of the requests to the introspection endpoint.
    pub(super) channel_token_introspection_authorization: Option<String>,
    /// The parameter `token_type_hint` of the requests to the introspection endpoint.
    pub(super) channel_token_introspection_hint: Option<String>,
    /// Timeout in milliseconds for a request to the introspection endpoint. At most 60000 takes effect.
    pub(super) channel_token_introspection_timeout: u32,
    /// For how many seconds a result of the introspection endpoint is kept.
    pub(super) cache_channel_token_introspection_ttl: u32,
    /// Verify the signatures of channel tokens. False is not supported.
    pub(super) verify_channel_token_signature: bool,
    /// Reject channel tokens that have expired.
    pub(super) verify_channel_token_expiry: bool,
    /// Reject channel tokens whose `nbf` is in the future.
    pub(super) verify_channel_token_notbefore: bool,
    /// Compare the certificate of the client with that in the claim `cnf` of channel tokens (RFC 8705), and refuse
    /// tokens that are bound to a key in another way, such as DPoP. The new token has no `cnf`. If false, a stolen
    /// token can be used.
    pub(super) verify_channel_token_binding: bool,
    /// How many seconds the clock of the issuer may differ.
    pub(super) channel_token_leeway: u32,
    /// Accepted values of `iss`. If empty, all are accepted.
    pub(super) channel_token_issuers_allowed: Vec<String>,
    /// Accepted values of `aud`, of which a token needs one. If empty, all are accepted.
    pub(super) channel_token_audiences_allowed: Vec<String>,
    /// Accepted values of `sub`. If empty, all are accepted.
    pub(super) channel_token_subjects_allowed: Vec<String>,
    /// The path of the claim with the scopes.
    pub(super) channel_token_scopes_claim: Vec<String>,
    /// Required scopes: a token needs all scopes of one of these entries, which are separated by spaces.
    pub(super) channel_token_scopes_required: Vec<String>,
    /// The path of the claim that identifies the consumer. If unset, no consumer is identified.
    pub(super) channel_token_consumer_claim: Vec<String>,
    /// The fields of consumers that are compared with the claim.
    pub(super) channel_token_consumer_by: Vec<ConsumerField>,
    /// Sign channel tokens again. If false, the endpoint gets them as the client sent them.
    pub(super) channel_token_signing: bool,
    /// Private keys in PEM, each as a reference to a Secret. The first one signs, and the public halves of all are
    /// published, as those of internal-identity. Required if channel tokens are signed.
    pub(super) channel_token_signing_keys: Vec<String>,
    /// The algorithm of the signatures. If unset, the one that the key requires.
    pub(super) channel_token_signing_algorithm: Option<AsymmetricAlgorithm>,
    /// The claim `iss` of the new token. The former value becomes `original_iss`.
    pub(super) channel_token_issuer: String,
    /// Name of the header with the new token, and after a colon the scheme before it.
    pub(super) channel_token_upstream_header: Option<String>,
    /// How many seconds the new token is valid for longer than the former one.
    pub(super) channel_token_upstream_leeway: u32,
    /// Claims of the new token, which replace existing ones.
    pub(super) set_channel_token_claims: BTreeMap<String, String>,
    /// Claims of the new token that the former one does not have.
    pub(super) add_channel_token_claims: BTreeMap<String, String>,
    /// Claims that the new token does not have.
    pub(super) remove_channel_token_claims: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            realm: None,
            enable_hs_signatures: false,
            access_token_request_header: Some("Authorization".to_owned()),
            access_token_optional: false,
            access_token_jwks_uri: None,
            access_token_introspection_endpoint: None,
            access_token_introspection_authorization: None,
            access_token_introspection_hint: None,
            access_token_introspection_timeout: 10_000,
            cache_access_token_introspection_ttl: 30,
            verify_access_token_signature: true,
            verify_access_token_expiry: true,
            verify_access_token_notbefore: false,
            verify_access_token_binding: true,
            access_token_leeway: 0,
            access_token_issuers_allowed: Vec::new(),
            access_token_audiences_allowed: Vec::new(),
            access_token_subjects_allowed: Vec::new(),
            access_token_scopes_claim: vec!["scope".to_owned()],
            access_token_scopes_required: Vec::new(),
            access_token_consumer_claim: Vec::new(),
            access_token_consumer_by: vec![ConsumerField::Username, ConsumerField::CustomId],
            access_token_signing: true,
            access_token_signing_keys: Vec::new(),
            access_token_signing_algorithm: None,
            access_token_issuer: "kong".to_owned(),
            access_token_upstream_header: Some("Authorization:Bearer".to_owned()),
            access_token_upstream_leeway: 0,
            set_access_token_claims: BTreeMap::new(),
            add_access_token_claims: BTreeMap::new(),
            remove_access_token_claims: Vec::new(),
            channel_token_request_header: None,
            channel_token_optional: false,
            channel_token_jwks_uri: None,
            channel_token_introspection_endpoint: None,
            channel_token_introspection_authorization: None,
            channel_token_introspection_hint: None,
            channel_token_introspection_timeout: 10_000,
            cache_channel_token_introspection_ttl: 30,
            verify_channel_token_signature: true,
            verify_channel_token_expiry: true,
            verify_channel_token_notbefore: false,
            verify_channel_token_binding: true,
            channel_token_leeway: 0,
            channel_token_issuers_allowed: Vec::new(),
            channel_token_audiences_allowed: Vec::new(),
            channel_token_subjects_allowed: Vec::new(),
            channel_token_scopes_claim: vec!["scope".to_owned()],
            channel_token_scopes_required: Vec::new(),
            channel_token_consumer_claim: Vec::new(),
            channel_token_consumer_by: vec![ConsumerField::Username, ConsumerField::CustomId],
            channel_token_signing: true,
            channel_token_signing_keys: Vec::new(),
            channel_token_signing_algorithm: None,
            channel_token_issuer: "kong".to_owned(),
            channel_token_upstream_header: None,
            channel_token_upstream_leeway: 0,
            set_channel_token_claims: BTreeMap::new(),
            add_channel_token_claims: BTreeMap::new(),
            remove_channel_token_claims: Vec::new(),
        }
    }
}

/// The fields of one kind of tokens.
pub(super) struct TokenConfig {
    /// `access` or `channel`, as in the names of the fields.
    pub(super) kind: &'static str,
    pub(super) request_header: Option<String>,
    pub(super) optional: bool,
    pub(super) jwks_uri: Option<String>,
    pub(super) introspection_endpoint: Option<String>,
    pub(super) introspection_authorization: Option<String>,
    pub(super) introspection_hint: Option<String>,
    pub(super) introspection_timeout: u32,
    pub(super) cache_introspection_ttl: u32,
    pub(super) verify_signature: bool,
    pub(super) verify_expiry: bool,
    pub(super) verify_notbefore: bool,
    pub(super) verify_binding: bool,
    pub(super) leeway: u32,
    pub(super) issuers_allowed: Vec<String>,
    pub(super) audiences_allowed: Vec<String>,
    pub(super) subjects_allowed: Vec<String>,
    pub(super) scopes_claim: Vec<String>,
    pub(super) scopes_required: Vec<String>,
    pub(super) consumer_claim: Vec<String>,
    pub(super) consumer_by: Vec<ConsumerField>,
    pub(super) signing: bool,
    pub(super) signing_keys: Vec<String>,
    pub(super) signing_algorithm: Option<AsymmetricAlgorithm>,
    pub(super) issuer: String,
    pub(super) upstream_header: Option<String>,
    pub(super) upstream_leeway: u32,
    pub(super) set_claims: BTreeMap<String, String>,
    pub(super) add_claims: BTreeMap<String, String>,
    pub(super) remove_claims: Vec<String>,
}

impl Config {
    /// The fields of access tokens, and those of channel tokens.
    pub(super) fn split(self) -> [TokenConfig; 2] {
        let access = TokenConfig {
            kind: "access",
            request_header: self.access_token_request_header,
            optional: self.access_token_optional,
            jwks_uri: self.access_token_jwks_uri,
            introspection_endpoint: self.access_token_introspection_endpoint,
            introspection_authorization: self.access_token_introspection_authorization,
            introspection_hint: self.access_token_introspection_hint,
            introspection_timeout: self.access_token_introspection_timeout,
            cache_introspection_ttl: self.cache_access_token_introspection_ttl,
            verify_signature: self.verify_access_token_signature,
            verify_expiry: self.verify_access_token_expiry,
            verify_notbefore: self.verify_access_token_notbefore,
            verify_binding: self.verify_access_token_binding,
            leeway: self.access_token_leeway,
            issuers_allowed: self.access_token_issuers_allowed,
            audiences_allowed: self.access_token_audiences_allowed,
            subjects_allowed: self.access_token_subjects_allowed,
            scopes_claim: self.access_token_scopes_claim,
            scopes_required: self.access_token_scopes_required,
            consumer_claim: self.access_token_consumer_claim,
            consumer_by: self.access_token_consumer_by,
            signing: self.access_token_signing,
            signing_keys: self.access_token_signing_keys,
            signing_algorithm: self.access_token_signing_algorithm,
            issuer: self.access_token_issuer,
            upstream_header: self.access_token_upstream_header,
            upstream_leeway: self.access_token_upstream_leeway,
            set_claims: self.set_access_token_claims,
            add_claims: self.add_access_token_claims,
            remove_claims: self.remove_access_token_claims,
        };
        let channel = TokenConfig {
            kind: "channel",
            request_header: self.channel_token_request_header,
            optional: self.channel_token_optional,
            jwks_uri: self.channel_token_jwks_uri,
            introspection_endpoint: self.channel_token_introspection_endpoint,
            introspection_authorization: self.channel_token_introspection_authorization,
            introspection_hint: self.channel_token_introspection_hint,
            introspection_timeout: self.channel_token_introspection_timeout,
            cache_introspection_ttl: self.cache_channel_token_introspection_ttl,
            verify_signature: self.verify_channel_token_signature,
            verify_expiry: self.verify_channel_token_expiry,
            verify_notbefore: self.verify_channel_token_notbefore,
            verify_binding: self.verify_channel_token_binding,
            leeway: self.channel_token_leeway,
            issuers_allowed: self.channel_token_issuers_allowed,
            audiences_allowed: self.channel_token_audiences_allowed,
            subjects_allowed: self.channel_token_subjects_allowed,
            scopes_claim: self.channel_token_scopes_claim,
            scopes_required: self.channel_token_scopes_required,
            consumer_claim: self.channel_token_consumer_claim,
            consumer_by: self.channel_token_consumer_by,
            signing: self.channel_token_signing,
            signing_keys: self.channel_token_signing_keys,
            signing_algorithm: self.channel_token_signing_algorithm,
            issuer: self.channel_token_issuer,
            upstream_header: self.channel_token_upstream_header,
            upstream_leeway: self.channel_token_upstream_leeway,
            set_claims: self.set_channel_token_claims,
            add_claims: self.add_channel_token_claims,
            remove_claims: self.remove_channel_token_claims,
        };
        [access, channel]
    }
}
