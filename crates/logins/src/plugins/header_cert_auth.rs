//! `header-cert-auth`: authenticates clients by certificates that a proxy in front of Portico has received.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: certificates
//! plugin: header-cert-auth
//! config:
//!   certificate_header_name: x-client-cert
//!   certificate_header_format: url_encoded
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
//! The proxy terminates TLS, verifies that the client has the private key, and sends the certificate in a header.
//! Portico verifies the certificate again, as `mtls-auth` does. Only proxies that
//! `--trusted-ips` lists may send the header: any client could send the certificate of another one, which is not
//! secret. So a request of another peer has no certificate, and its header is removed.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderName, HeaderValue, StatusCode};
use percent_encoding::percent_decode;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::client_certificate::{
    CertificatePolicy, CertificateRejection, CertificateSettings, ConsumerField, GroupSource, RevocationMode,
};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::consumers::chain_digest;
use crate::plugin_api::dumped_fields::{DumpedFields, DumpedValue};
use crate::plugin_api::kind::{BuildCx, Phases, PluginKind, Scopes};
use crate::plugin_api::{AccessOutcome, Assertions, CredentialLocations, NamedConsumer, Plugin, Reply, RequestCx};
use crate::plugin_kit::authentication::parse_header_name;

/// Authenticates clients by certificates in a header.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Name of the header with the certificate. Required.
    certificate_header_name: String,
    /// How the certificate is written in the header. Required.
    certificate_header_format: Option<HeaderFormat>,
    /// Accept the header only from trusted peers. False is not supported.
    secure_source: bool,
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HeaderFormat {
    /// The certificate without the lines BEGIN and END of PEM, which is the base64 of DER.
    Base64Encoded,
    /// PEM in percent-encoding, such as `$ssl_client_escaped_cert` of nginx. The certificates of intermediate
    /// authorities may follow.
    UrlEncoded,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            certificate_header_name: String::new(),
            certificate_header_format: None,
            secure_source: true,
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
        }
    }
}

#[derive(Debug)]
pub(crate) struct HeaderCertAuth {
    policy: CertificatePolicy,
    header: HeaderName,
    format: HeaderFormat,
}

impl PluginKind for HeaderCertAuth {
    const NAME: &'static str = "header-cert-auth";
    const HAS_CREDENTIALS: bool = true;
    const PRIORITY: i32 = 1009;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    const ASSERTS: bool = true;
    const DUMPED_FIELDS: &'static [DumpedFields] = &[
        DumpedFields::new(
            &["http_proxy_host", "http_proxy_port", "https_proxy_host", "https_proxy_port"],
            DumpedValue::Nothing,
            "3.8",
        ),
        DumpedFields::new(&["ssl_verify"], DumpedValue::Nothing, "3.13"),
    ];
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, _cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let header = match &*config.certificate_header_name {
            "" => Err(Diagnostic::in_config(
                "certificate_header_name",
                "is missing",
                "set it to the header in which the proxy sends the certificate, such as x-client-cert",
            )),
            name => parse_header_name("certificate_header_name", name),
        };
        let header = header.map_err(|error| invalid.push(error));
        if config.certificate_header_format.is_none() {
            let remedy = "set it to base64_encoded or url_encoded, as the proxy writes the certificate";
            invalid.push(Diagnostic::in_config("certificate_header_format", "is missing", remedy));
        }
        if !config.secure_source {
            let message = "is false, which is not supported: any client could send the certificate of another one";
            let remedy = "set it to true, and list the addresses of the proxy in --trusted-ips";
            invalid.push(Diagnostic::in_config("secure_source", message, remedy));
        }
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
        let policy = CertificatePolicy::new(settings).map_err(|errors| invalid.extend(errors));
        let (Ok(header), Some(format), Ok(policy), []) =
            (header, config.certificate_header_format, policy, &invalid[..])
        else {
            return Err(invalid);
        };
        Ok(HeaderCertAuth { policy, header, format })
    }
}

impl Plugin for HeaderCertAuth {
    fn may_wait(&self) -> bool {
        false
    }

    fn named_consumers(&self) -> Vec<NamedConsumer<'_>> {
        self.policy.named_consumers()
    }

    fn declare_assertions(&self, assertions: &mut Assertions) {
        CertificatePolicy::declare_assertions(assertions);
        assertions.fields.add(&self.header);
    }

    fn credential_locations(&self) -> Option<CredentialLocations> {
        Some(CredentialLocations { headers: vec![self.header.clone()], ..CredentialLocations::default() })
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let mut values = Vec::new();
        if cx.client.is_peer_trusted {
            values.extend(cx.head.headers.get_all(&self.header).iter().cloned());
            cx.assert_unchanged(&self.header);
        } else {
            cx.assert_none(&self.header);
        }
        if self.policy.auth_policy().skips(cx) {
            return AccessOutcome::Continue;
        }
        let accepted = match &values[..] {
            [] => {
                let reply = self.policy.reject(cx, no_certificate);
                return reply.map_or(AccessOutcome::Continue, AccessOutcome::Reply);
            }
            [value] => match self.format.decode(value) {
                Some(chain) => self.policy.accept(cx, &chain, &chain_digest(&chain)),
                None => Err(CertificateRejection::Untrusted),
            },
            // Which of them the proxy has sent is unknown.
            _ => Err(CertificateRejection::Untrusted),
        };
        let rejected = accepted.err().and_then(|rejection| self.policy.reject(cx, || refused(rejection)));
        rejected.map_or(AccessOutcome::Continue, AccessOutcome::Reply)
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

/// Some proxies omit the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The most certificates in a header.
const MAX_CHAIN: usize = 8;

impl HeaderFormat {
    /// The certificates in the header, at least one.
    fn decode(self, value: &HeaderValue) -> Option<Vec<CertificateDer<'static>>> {
        let chain: Vec<_> = match self {
            HeaderFormat::Base64Encoded => {
                let text: Vec<u8> =
                    value.as_bytes().iter().filter(|byte| !byte.is_ascii_whitespace()).copied().collect();
                vec![CertificateDer::from(BASE64.decode(text).ok()?)]
            }
            HeaderFormat::UrlEncoded => {
                let pem: Vec<u8> = percent_decode(value.as_bytes()).collect();
                CertificateDer::pem_slice_iter(&pem).take(MAX_CHAIN).collect::<Result<_, _>>().ok()?
            }
        };
        Some(chain).filter(|chain| !chain.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::client_certificate::test_authority::{TestAuthority, at_day};
    use crate::plugin_api::{ConsumerDirectory, RegisteredKind};
    use crate::plugin_chain::testing::{TestOutcome, TestRequest, build, chain, consumer};

    const KIND: RegisteredKind<HeaderCertAuth> = RegisteredKind::NEW;

    fn config(authority: &TestAuthority, format: &str) -> Value {
        json!({
            "certificate_header_name": "X-Client-Cert", "certificate_header_format": format,
            "ca_certificates": [authority.pem()],
        })
    }

    fn url_encoded(certificates: &[&CertificateDer<'_>]) -> String {
        let block = |der: &&CertificateDer<'_>| {
            let base64 = base64::prelude::BASE64_STANDARD.encode(der.as_ref());
            format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n")
        };
        let pem: String = certificates.iter().map(block).collect();
        percent_encode(pem.as_bytes(), NON_ALPHANUMERIC).to_string()
    }

    async fn run(config: &Value, values: &[&str], is_trusted: bool) -> TestOutcome {
        run_at(5, config, values, is_trusted).await
    }

    /// At noon of this day of January 2026.
    async fn run_at(day: u64, config: &Value, values: &[&str], is_trusted: bool) -> TestOutcome {
        let mut consumers = ConsumerDirectory::default();
        consumers.add(&consumer("anna", &[]));
        let request = TestRequest::get("/").with_consumers(&consumers);
        let mut request = values.iter().fold(request, |request, value| request.header("x-client-cert", value));
        for name in ["x_client_cert", "x-client_cert", "x_client_cert_dn", "x-client-cert-san"] {
            request = request.header(name, "forged");
        }
        (request.is_peer_trusted, request.now) = (is_trusted, at_day(day));
        request.run(&chain(&[(&KIND, config.clone())])).await
    }

    // docs/kong-compatibility.md, 5.7
    #[tokio::test]
    async fn only_trusted_peers_may_send_certificates() {
        let (authority, other) = (TestAuthority::new("ca"), TestAuthority::new("other"));
        let certificate = authority.issue_for("anna");
        let (intermediate, issuer) = authority.intermediate("sub");
        let of_intermediate = issuer.issue_for("anna");
        let base64 = base64::prelude::BASE64_STANDARD.encode(certificate.as_ref());
        let foreign = url_encoded(&[&other.issue_for("anna")]);
        let (url, chain) = (url_encoded(&[&certificate]), url_encoded(&[&of_intermediate, &intermediate]));
        let unknown = url_encoded(&[&authority.issue_for("unknown")]);
        for (format, values, is_trusted, reason) in [
            ("url_encoded", &[&*url][..], true, None),
            ("url_encoded", &[&*chain], true, None),
            ("base64_encoded", &[&*base64], true, None),
            ("base64_encoded", &[base64.trim_end_matches('=')], true, None),
            ("url_encoded", &[&*url], false, Some("no_credentials")),
            ("url_encoded", &[], true, Some("no_credentials")),
            ("url_encoded", &[&*url, &*url], true, Some("wrong_credentials")),
            ("url_encoded", &[&*base64], true, Some("wrong_credentials")),
            ("base64_encoded", &[&*url], true, Some("wrong_credentials")),
            ("url_encoded", &[&*foreign], true, Some("wrong_credentials")),
            ("url_encoded", &["%"], true, Some("wrong_credentials")),
            ("url_encoded", &[&*unknown], true, Some("no_consumer")),
        ] {
            let outcome = run(&config(&authority, format), values, is_trusted).await;
            assert_eq!(outcome.reply.as_ref().map(|reply| reply.reason), reason, "{format} {is_trusted} {values:?}");
            if reason.is_none() {
                assert_eq!(outcome.upstream_identity(), (Some("anna"), None, false), "{format}");
            }
            if !is_trusted {
                assert_eq!(outcome.upstream_header("x-client-cert"), None);
            }
            let sent = format!("{:?}", outcome.request.headers);
            assert!(!sent.contains("forged"), "the endpoint may read another spelling: {sent}");
        }
    }

    /// The path to the authority is looked for among all certificates of a header.
    #[tokio::test]
    async fn only_the_first_certificates_of_a_header_count() {
        let (authority, other) = (TestAuthority::new("ca"), TestAuthority::new("other"));
        let (intermediate, issuer) = authority.intermediate("sub");
        let (certificate, further) = (issuer.issue_for("anna"), other.issue_for("bert"));
        for (further_count, reason) in [(MAX_CHAIN - 2, None), (MAX_CHAIN - 1, Some("wrong_credentials"))] {
            let mut certificates = vec![&certificate];
            certificates.extend(std::iter::repeat_n(&further, further_count));
            certificates.push(&intermediate);
            let value = url_encoded(&certificates);
            let outcome = run(&config(&authority, "url_encoded"), &[&*value], true).await;
            assert_eq!(outcome.reply.map(|reply| reply.reason), reason, "{further_count}");
        }
    }

    /// With an anonymous consumer, a forged certificate makes a client that one, and not the owner of the certificate.
    #[tokio::test]
    async fn forged_certificates_identify_nobody() {
        let authority = TestAuthority::new("ca");
        let mut config = config(&authority, "url_encoded");
        config["anonymous"] = json!("anna");
        let certificate = url_encoded(&[&authority.issue_for("anna")]);
        let for_servers = authority.issue(|params| {
            params.distinguished_name.push(rcgen::DnType::CommonName, "anna");
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        });
        let expired = authority.issue(|params| {
            params.distinguished_name.push(rcgen::DnType::CommonName, "anna");
            params.not_after = rcgen::date_time_ymd(2026, 1, 4);
        });
        for (name, value, is_trusted, is_anonymous) in [
            ("of a trusted peer", certificate.clone(), true, false),
            ("of another peer", certificate, false, true),
            ("for servers", url_encoded(&[&for_servers]), true, true),
            ("expired", url_encoded(&[&expired]), true, true),
        ] {
            let outcome = run(&config, &[&*value], is_trusted).await;
            assert_eq!(outcome.upstream_identity().2, is_anonymous, "{name}");
            assert_eq!(!outcome.state.identity.is_authenticated(), is_anonymous, "{name}");
        }
    }

    /// The list is valid from day 1 to day 10.
    #[tokio::test]
    async fn revoked_certificates_are_refused() {
        let (authority, other) = (TestAuthority::new("ca"), TestAuthority::new("other"));
        let issue = |authority: &TestAuthority, serial: u64| {
            let certificate = authority.issue(|params| {
                params.distinguished_name.push(rcgen::DnType::CommonName, "anna");
                params.serial_number = Some(serial.into());
            });
            url_encoded(&[&certificate])
        };
        let (valid, revoked, of_other) = (issue(&authority, 8), issue(&authority, 7), issue(&other, 7));
        let (intermediate, issuer) = authority.numbered_intermediate(7);
        // Its own authority has no list, and the authority of that one has revoked it.
        let of_revoked = url_encoded(&[&issuer.issue_for("anna"), &intermediate]);
        let (intermediate, issuer) = authority.numbered_intermediate(8);
        let of_unrevoked = url_encoded(&[&issuer.issue_for("anna"), &intermediate]);
        let certificates = [&valid, &revoked, &of_other, &of_revoked, &of_unrevoked];
        for (mode, day, expected) in [
            // The default
            (None, 5, [true, false, true, false, true]),
            (Some("IGNORE_CA_ERROR"), 5, [true, false, true, false, true]),
            (Some("IGNORE_CA_ERROR"), 20, [true, false, true, false, true]),
            (Some("STRICT"), 5, [true, false, false, false, false]),
            (Some("STRICT"), 20, [false, false, false, false, false]),
            (Some("SKIP"), 5, [true, true, true, true, true]),
        ] {
            let mut config = config(&authority, "url_encoded");
            config["ca_certificates"] = json!([authority.pem(), other.pem()]);
            config["crls"] = json!([authority.revocation_list(&[7])]);
            if let Some(mode) = mode {
                config["revocation_check_mode"] = json!(mode);
            }
            for (index, (certificate, is_accepted)) in certificates.into_iter().zip(expected).enumerate() {
                let outcome = run_at(day, &config, &[certificate], true).await;
                let reason = outcome.reply.as_ref().map(|reply| (reply.status.as_u16(), reply.reason));
                let expected = (!is_accepted).then_some((401, "wrong_credentials"));
                assert_eq!(reason, expected, "{mode:?} day {day}, certificate {index}");
                let has_consumer = outcome.state.identity.consumer.is_some();
                assert_eq!(has_consumer, is_accepted, "{mode:?} day {day}, certificate {index}");
            }
        }
        // A list that another authority has signed under the name of this one shows nothing.
        let mut forged = config(&authority, "url_encoded");
        forged["crls"] = json!([TestAuthority::new("ca").revocation_list(&[])]);
        forged["revocation_check_mode"] = json!("STRICT");
        assert!(run(&forged, &[&valid], true).await.reply.is_some());
    }

    #[test]
    fn invalid_configurations_name_the_field() {
        let authority = TestAuthority::new("ca");
        for (fields, field) in [
            (json!({"certificate_header_name": ""}), "config.certificate_header_name"),
            (json!({"certificate_header_name": "a b"}), "config.certificate_header_name"),
            (json!({"certificate_header_format": null}), "config.certificate_header_format"),
            (json!({"certificate_header_format": "pem"}), "config.certificate_header_format"),
            (json!({"secure_source": false}), "config.secure_source"),
            (json!({"ca_certificates": []}), "config.ca_certificates"),
            (json!({"crls": [authority.pem()]}), "config.crls[0]"),
            (json!({"revocation_check_mode": "STRICT"}), "config.revocation_check_mode"),
            (json!({"revocation_check_mode": "strict"}), "config.revocation_check_mode"),
        ] {
            let mut config = config(&authority, "url_encoded");
            config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{fields} was accepted"));
            assert_eq!(invalid[0].field, field, "{fields}: {invalid:?}");
        }
    }

    proptest! {
        #[test]
        fn decoding_never_panics(bytes in proptest::collection::vec(0x20_u8..0x7f, 0..200)) {
            let value = HeaderValue::from_bytes(&bytes).unwrap();
            let _base64 = HeaderFormat::Base64Encoded.decode(&value);
            let _url = HeaderFormat::UrlEncoded.decode(&value);
            let pem = [b"-----BEGIN CERTIFICATE-----%0A", &bytes[..], b"%0A-----END CERTIFICATE-----"].concat();
            let _pem = HeaderFormat::UrlEncoded.decode(&HeaderValue::from_bytes(&pem).unwrap());
        }
    }
}
