//! `mtls-auth`: authenticates clients by the certificates of their TLS connections.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: certificates
//! plugin: mtls-auth
//! config:
//!   ca_certificates:
//!   - secretKeyRef: {name: client-authority, key: tls.crt}
//! ---
//! apiVersion: v1
//! kind: Secret
//! metadata:
//!   name: client-authority
//! stringData:
//!   tls.crt: |
//!     -----BEGIN CERTIFICATE-----
//!     MIIBrDCCAVOgAwIBAgIUb1MUqO0zdXFux2GaYo+c2Fn7PkowCgYIKoZIzj0EAwIw
//!     IzEhMB8GA1UEAwwYZXhhbXBsZSBjbGllbnQgYXV0aG9yaXR5MCAXDTI2MTEyNzEy
//!     MzQ1NVoYDzIxMjYxMTAzMTIzNDU1WjAjMSEwHwYDVQQDDBhleGFtcGxlIGNsaWVu
//!     dCBhdXRob3JpdHkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARl5X8KJAMTSSNR
//!     xP7hkwxn57F9Lgx5NeTu2ADzetnx16qJHRPb/Td4z7vRwXIW633L3mHUPfpGiJQ8
//!     KF/OHbMwo2MwYTAdBgNVHQ4EFgQUfHE7ujc7WOOX7AatOOtmlTmcmcIwHwYDVR0j
//!     BBgwFoAUfHE7ujc7WOOX7AatOOtmlTmcmcIwDwYDVR0TAQH/BAUwAwEB/zAOBgNV
//!     HQ8BAf8EBAMCAQYwCgYIKoZIzj0EAwIDRwAwRAIgHl951y3voz1q4H7ndmF4t+Bu
//!     5dzvJyFHr7V0ET1Hh4MCIGZN8bNe0zbeateMPu/JZw/w8ii4aT47eTuvPMPFlitN
//!     -----END CERTIFICATE-----
//! ```
//!
//! The handshake requests a certificate if the server name of the client is one of a route with the plugin. On the
//! listener of Ingresses of a Kong class, all handshakes do. A client without a certificate can still use other routes,
//! and gets 401 on those with the plugin. Connections that were opened before the plugin was attached get 421, after
//! which browsers and other clients open another one.
//!
//! A certificate that a listed authority has issued, and that is neither expired nor revoked, identifies a consumer: by
//! a credential of type `mtls-auth`, whose `subject_name` is one of the subject alternative names or the common name of
//! the certificate, or else by the username or custom id of the consumer, which is one of these names.
//!
//! Revocation lists are read from objects, as in `crls: [{configMapKeyRef: {name: revoked, key: ca.crl}}]`. Portico
//! does not fetch lists and does not use OCSP.

use http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::client_certificate::{
    CertificatePolicy, CertificateRejection, CertificateSettings, ConsumerField, GroupSource, RevocationMode,
};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::dumped_fields::{DumpedFields, DumpedValue};
use crate::plugin_api::kind::{BuildCx, Phases, PluginKind, Scopes};
use crate::plugin_api::{
    AccessOutcome, Assertions, ClientCertificate, CredentialLocations, NamedConsumer, Plugin, Reply, RequestCx,
};
use crate::token_binding::another_connection;

/// Authenticates clients by certificates.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Certificates of the authorities in PEM, each as a reference to a Secret or ConfigMap. Ids of certificates, as in
    /// Kong, are not supported. Required.
    ca_certificates: Vec<String>,
    /// Revocation lists of the authorities in PEM, each as a reference to a Secret or ConfigMap.
    crls: Vec<String>,
    /// How `crls` are used.
    revocation_check_mode: RevocationMode,
    /// Accept all trusted certificates without looking for a consumer. The endpoint then gets the names in
    /// `X-Client-Cert-DN` and `X-Client-Cert-SAN`. A comma, a plus sign and others that are part of a name have a
    /// backslash in front of them (RFC 4514).
    skip_consumer_lookup: bool,
    /// The fields of consumers that are compared with the names in a certificate.
    consumer_by: Vec<ConsumerField>,
    /// Id or username of the consumer for trusted certificates that identify no other.
    default_consumer: Option<String>,
    /// Id or username of the consumer for requests without a trusted certificate. If unset, such requests are rejected.
    anonymous: Option<String>,
    /// What is the group of the client, for acl, if `skip_consumer_lookup` is set.
    authenticated_group_by: Option<GroupSource>,
    /// For how many milliseconds a certificate that was verified is not verified again.
    cert_cache_ttl: u32,
    /// No effect: consumers are not cached.
    cache_ttl: Option<u32>,
    /// No effect: revocation lists are not fetched.
    http_timeout: Option<u32>,
    /// No effect: any certificate in `ca_certificates` is trusted, also one that another authority has issued.
    allow_partial_chain: Option<bool>,
    /// No effect: handshakes contain no names of authorities.
    send_ca_dn: Option<bool>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            ca_certificates: Vec::new(),
            crls: Vec::new(),
            revocation_check_mode: RevocationMode::IgnoreMissing,
            skip_consumer_lookup: false,
            consumer_by: vec![ConsumerField::Username, ConsumerField::CustomId],
            default_consumer: None,
            anonymous: None,
            authenticated_group_by: Some(GroupSource::CommonName),
            cert_cache_ttl: 60_000,
            cache_ttl: None,
            http_timeout: None,
            allow_partial_chain: None,
            send_ca_dn: None,
        }
    }
}

#[derive(Debug)]
pub(crate) struct MtlsAuth {
    policy: CertificatePolicy,
}

impl PluginKind for MtlsAuth {
    const NAME: &'static str = "mtls-auth";
    const HAS_CREDENTIALS: bool = true;
    const PRIORITY: i32 = 1600;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    const ASSERTS: bool = true;
    const DUMPED_FIELDS: &'static [DumpedFields] = &[
        DumpedFields::new(
            &["http_proxy_host", "http_proxy_port", "https_proxy_host", "https_proxy_port"],
            DumpedValue::Nothing,
            "3.4",
        ),
        DumpedFields::new(&["ssl_verify"], DumpedValue::Nothing, "3.13"),
    ];
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, _cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let settings = CertificateSettings {
            ca_certificates: config.ca_certificates,
            crls: config.crls,
            revocation_check_mode: config.revocation_check_mode,
            skip_consumer_lookup: config.skip_consumer_lookup,
            consumer_by: config.consumer_by,
            default_consumer: config.default_consumer,
            anonymous: config.anonymous,
            authenticated_group_by: config.authenticated_group_by,
            cert_cache_ttl: config.cert_cache_ttl,
        };
        Ok(MtlsAuth { policy: CertificatePolicy::new(settings)? })
    }
}

impl Plugin for MtlsAuth {
    fn may_wait(&self) -> bool {
        false
    }

    fn requests_client_certificate(&self) -> bool {
        true
    }

    fn named_consumers(&self) -> Vec<NamedConsumer<'_>> {
        self.policy.named_consumers()
    }

    fn declare_assertions(&self, assertions: &mut Assertions) {
        CertificatePolicy::declare_assertions(assertions);
    }

    fn credential_locations(&self) -> Option<CredentialLocations> {
        Some(CredentialLocations::default())
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        if self.policy.auth_policy().skips(cx) {
            return AccessOutcome::Continue;
        }
        let reply = match cx.client.certificate {
            ClientCertificate::Chain(chain, digest, _) => match self.policy.accept(cx, chain, digest) {
                Ok(()) => None,
                Err(rejection) => self.policy.reject(cx, || refused(rejection)),
            },
            ClientCertificate::Missing => self.policy.reject(cx, no_certificate),
            ClientCertificate::NotRequested if cx.needs_another_connection() => {
                self.policy.reject(cx, another_connection)
            }
            ClientCertificate::NotRequested => self.policy.reject(cx, no_certificate),
        };
        reply.map_or(AccessOutcome::Continue, AccessOutcome::Reply)
    }
}

fn no_certificate() -> Box<Reply> {
    let message = "No required TLS certificate was sent";
    Reply::negotiated(StatusCode::UNAUTHORIZED, message, "no_credentials")
}

fn refused(rejection: CertificateRejection) -> Box<Reply> {
    let message = "TLS certificate failed verification";
    match rejection {
        CertificateRejection::Untrusted => Reply::negotiated(StatusCode::UNAUTHORIZED, message, "wrong_credentials"),
        CertificateRejection::NoConsumer => Reply::negotiated(StatusCode::UNAUTHORIZED, message, "no_consumer"),
    }
}

#[cfg(test)]
mod tests {
    mod bound_tokens;

    use std::sync::Arc;

    use rustls::pki_types::CertificateDer;
    use serde_json::{Value, json};

    use super::*;
    use crate::client_certificate::test_authority::{TestAuthority, at_day};
    use crate::plugin_api::consumers::{CertificateCredential, EntityId};
    use crate::plugin_api::{ConsumerDirectory, RegisteredKind, Scheme};
    use crate::plugin_chain::testing::{TestOutcome, TestRequest, build, chain, consumer};

    const KIND: RegisteredKind<MtlsAuth> = RegisteredKind::NEW;

    fn consumers() -> ConsumerDirectory {
        let mut consumers = ConsumerDirectory::default();
        for name in ["anna", "bert", "guest"] {
            consumers.add(&consumer(name, &[]));
        }
        let bert = Arc::clone(consumers.usernames.get("bert").unwrap());
        let credential = CertificateCredential::new(EntityId::from_text("id-certificate"), "device-7", bert);
        consumers.certificates.insert(Arc::new(credential));
        consumers
    }

    async fn run(
        authority: &TestAuthority,
        fields: &Value,
        certificates: Option<Vec<CertificateDer<'static>>>,
        scheme: Scheme,
    ) -> TestOutcome {
        let mut config = json!({"ca_certificates": [authority.pem()]});
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let mut request = TestRequest::get("/")
            .header("x-client-cert-dn", "forged")
            .header("x_client_cert_san", "forged")
            .header("x-consumer-username", "forged")
            .with_consumers(&consumers());
        (request.certificates, request.scheme, request.now) = (certificates, scheme, at_day(5));
        let outcome = request.run(&chain(&[(&KIND, config)])).await;
        assert!(!format!("{:?}", outcome.request.headers).contains("cert-dn\": \"forged"));
        outcome
    }

    #[tokio::test]
    async fn certificates_identify_consumers() {
        let authority = TestAuthority::new("ca");
        let with_email = authority.issue(|params| {
            params.subject_alt_names = vec![rcgen::SanType::Rfc822Name("custom-anna".try_into().unwrap())];
        });
        let cases = [
            (json!({}), authority.issue_for("anna"), Some("anna"), None),
            (json!({}), with_email.clone(), Some("anna"), None),
            (json!({"consumer_by": ["custom_id"]}), with_email, Some("anna"), None),
            (json!({}), authority.issue_for("device-7"), Some("bert"), Some("device-7")),
            (json!({"default_consumer": "guest"}), authority.issue_for("unknown"), Some("guest"), None),
        ];
        for (fields, certificate, username, identifier) in cases {
            let outcome = run(&authority, &fields, Some(vec![certificate]), Scheme::Https).await;
            assert_eq!(outcome.message(), None, "{fields}");
            assert_eq!(outcome.upstream_identity(), (username, identifier, false), "{fields}");
            assert!(outcome.state.identity.is_authenticated());
            assert_eq!(outcome.upstream_header("x-client-cert-dn"), None);
        }
    }

    #[tokio::test]
    async fn names_are_forwarded_if_no_consumer_is_looked_up() {
        let authority = TestAuthority::new("ca");
        let certificate = authority.issue(|params| {
            params.distinguished_name.push(rcgen::DnType::OrganizationName, "Shop");
            params.distinguished_name.push(rcgen::DnType::CommonName, "anna");
            params.subject_alt_names = vec![rcgen::SanType::DnsName("a.example".try_into().unwrap())];
        });
        for (group_by, group) in [(json!("CN"), Some("anna")), (json!("DN"), Some("O=Shop, CN=anna"))] {
            let fields = json!({"skip_consumer_lookup": true, "authenticated_group_by": group_by});
            let outcome = run(&authority, &fields, Some(vec![certificate.clone()]), Scheme::Https).await;
            assert_eq!(outcome.message(), None);
            assert_eq!(outcome.upstream_identity(), (None, None, false));
            assert_eq!(outcome.upstream_header("x-client-cert-dn"), Some("O=Shop, CN=anna"));
            assert_eq!(outcome.upstream_header("x-client-cert-san"), Some("a.example"));
            assert_eq!(outcome.upstream_header("x_client_cert_san"), None);
            assert_eq!(outcome.state.identity.groups.first().map(|group| &**group), group);
        }
    }

    // docs/kong-compatibility.md, 5.6
    #[tokio::test]
    async fn other_clients_are_rejected() {
        let (authority, other) = (TestAuthority::new("ca"), TestAuthority::new("other"));
        let (none, refused) = ("No required TLS certificate was sent", "TLS certificate failed verification");
        let cases = [
            (None, Scheme::Http, 401, none, "no_credentials"),
            (None, Scheme::Https, 421, "Misdirected request", "not_asked"),
            (Some(vec![]), Scheme::Https, 401, none, "no_credentials"),
            (Some(vec![other.issue_for("anna")]), Scheme::Https, 401, refused, "wrong_credentials"),
            (Some(vec![authority.issue_for("unknown")]), Scheme::Https, 401, refused, "no_consumer"),
        ];
        for (certificates, scheme, status, message, reason) in cases {
            let outcome = run(&authority, &json!({}), certificates.clone(), scheme).await;
            assert_eq!(outcome.reply_status().unwrap().as_u16(), status, "{reason}");
            assert_eq!(outcome.message(), Some(message));
            assert_eq!(outcome.reply.unwrap().reason, reason);
            let outcome = run(&authority, &json!({"anonymous": "guest"}), certificates, scheme).await;
            assert_eq!(outcome.upstream_identity(), (Some("guest"), None, true), "{reason}");
        }
    }

    /// The cache must not accept a certificate for longer than it is valid.
    #[tokio::test]
    async fn a_certificate_is_rejected_as_soon_as_it_expires() {
        let authority = TestAuthority::new("ca");
        let chain =
            chain(&[(&KIND, json!({"ca_certificates": [authority.pem()], "cert_cache_ttl": 4_000_000_000_u32}))]);
        let certificate = authority.issue_for("anna");
        for (day, status) in [(5, None), (30, None), (31, Some(401))] {
            let mut request = TestRequest::get("/").with_consumers(&consumers());
            (request.certificates, request.now) = (Some(vec![certificate.clone()]), at_day(day));
            let outcome = request.run(&chain).await;
            assert_eq!(outcome.reply_status().map(|status| status.as_u16()), status, "{day}");
        }
    }

    #[test]
    fn invalid_configurations_name_the_field() {
        let pem = TestAuthority::new("ca").pem();
        for (config, field) in [
            (json!({}), "config.ca_certificates"),
            (json!({"ca_certificates": ["cce8c384-721f-4f58-85dd-50834e3e733a"]}), "config.ca_certificates[0]"),
            (json!({"ca_certificates": [pem], "crls": ["x"]}), "config.crls[0]"),
            (json!({"ca_certificates": [pem], "revocation_check_mode": "STRICT"}), "config.revocation_check_mode"),
            (json!({"ca_certificates": [pem], "consumer_by": ["id"]}), "config.consumer_by[0]"),
            (json!({"ca_certificates": [pem], "anonymous": ""}), "config.anonymous"),
            (json!({"ca_certificates": [pem], "default_consumer": ""}), "config.default_consumer"),
            (
                json!({"ca_certificates": [pem], "default_consumer": "a", "skip_consumer_lookup": true}),
                "config.default_consumer",
            ),
        ] {
            let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
            assert_eq!(invalid[0].field, field, "{config}: {invalid:?}");
        }
    }
}
