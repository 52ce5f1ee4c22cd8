//! The variables of nginx about the certificate of a client, for snippets of its host.

use std::borrow::Cow;
use std::time::SystemTime;

use http::HeaderValue;

use super::fields::escaped_pem;
use super::{CertificateMode, CertificateStep, VerifiedChain};
use crate::plugin_api::{ClientCertificate, ClientInfo, Scheme};
use crate::snapshot::location_snippet::CertificateVariable;

impl CertificateStep {
    /// The value of a variable for a request that `check` lets pass. `step`: `None` for a host that verifies no
    /// certificates, where nginx requests none, although another host of the listener may have.
    pub(in crate::snapshot::location_steps) fn variable(
        step: Option<&CertificateStep>,
        client: &ClientInfo<'_>,
        now: SystemTime,
        variable: CertificateVariable,
    ) -> Cow<'static, str> {
        if client.received.scheme == Scheme::Http {
            return Cow::Borrowed("");
        }
        let settings = match step {
            Some(CertificateStep::Verify { settings, .. }) if settings.mode != CertificateMode::Off => settings,
            _ => return without_certificate(variable),
        };
        let ClientCertificate::Chain(chain, _, findings) = client.certificate else {
            return without_certificate(variable);
        };
        if variable == CertificateVariable::EscapedPem {
            // The fields have it only if the endpoint gets it.
            return chain.first().map_or(Cow::Borrowed(""), |own| Cow::Owned(escaped_pem(own)));
        }
        VerifiedChain::with(settings, (chain, findings), now, |verified| {
            let value = match variable {
                CertificateVariable::Result => verified.result.as_ref(),
                CertificateVariable::Subject => verified.fields.subject.as_ref(),
                CertificateVariable::Issuer => verified.fields.issuer.as_ref(),
                CertificateVariable::EscapedPem => None,
            };
            let bytes = value.map(HeaderValue::as_bytes).unwrap_or_default();
            Cow::Owned(String::from_utf8_lossy(bytes).into_owned())
        })
    }
}

fn without_certificate(variable: CertificateVariable) -> Cow<'static, str> {
    Cow::Borrowed(if variable == CertificateVariable::Result { "NONE" } else { "" })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::pki_types::CertificateDer;

    use super::super::tests::{authority, chain_of, client, run, settings};
    use super::*;
    use crate::plugin_chain::testing::TestRequest;
    use crate::snapshot::location_snippet::{MatchedLocation, Snippet, SnippetPlace};
    use crate::snapshot::location_steps::{LocationNames, LocationSnippets, LocationSteps};
    use crate::snapshot::regex::RegexLimit;

    /// The steps of a location that denies clients without a certificate, and shows that of others.
    fn steps(certificates: Option<CertificateStep>) -> LocationSteps {
        let text = r#"
            if ($ssl_client_verify = NONE) { return 401; }
            proxy_set_header X-Client "$ssl_client_verify|$ssl_client_s_dn|$ssl_client_i_dn";
            proxy_set_header X-Pem "$ssl_client_escaped_cert";
        "#;
        let snippet = Snippet::parse(text, SnippetPlace::Location, RegexLimit::MEMORY_ONLY).unwrap();
        let matched = MatchedLocation::Prefix("/".into());
        let snippets = LocationSnippets::new(None, Arc::new(snippet), LocationNames::default(), matched);
        LocationSteps { certificates, snippets: Some(snippets), ..LocationSteps::default() }
    }

    #[tokio::test]
    async fn snippets_read_what_was_verified() {
        let (own, other) = (authority("ca"), authority("other"));
        let verify = |mode| {
            let settings = Arc::new(settings(&[&own], None, mode));
            Some(CertificateStep::Verify { settings, permits_plain_text: false })
        };
        let (good, bad) = ([client("anna", 1, &own)], [client("anna", 1, &other)]);
        let unknown = "FAILED:unable to verify the first certificate|CN=anna,O=Shop|CN=other,O=Shop";
        let cases: [(_, &[CertificateDer<'static>], _); 6] = [
            (verify(CertificateMode::Optional), &good, Some("SUCCESS|CN=anna,O=Shop|CN=ca,O=Shop")),
            (verify(CertificateMode::AnyAuthority), &bad, Some(unknown)),
            (verify(CertificateMode::Optional), &[], None),
            // What another host has requested says nothing here.
            (verify(CertificateMode::Off), &good, None),
            (None, &good, None),
            (None, &[], None),
        ];
        for (index, (step, certificates, expected)) in cases.into_iter().enumerate() {
            let outcome = run(&chain_of(steps(step)), Some(certificates), 5).await;
            assert_eq!(
                outcome.reply_status().map(|status| status.as_u16()),
                expected.is_none().then_some(401),
                "{index}"
            );
            if expected.is_some() {
                assert_eq!(outcome.upstream_header("x-client"), expected, "{index}");
                let pem = outcome.upstream_header("x-pem").unwrap();
                assert!(pem.starts_with("-----BEGIN%20CERTIFICATE-----%0AMII"), "{pem}");
                assert_eq!(outcome.upstream_header("ssl-client-cert"), None, "{index}");
            }
        }
    }

    #[tokio::test]
    async fn variables_are_empty_in_plain_text() {
        let outcome = TestRequest::get("/").run(&chain_of(steps(None))).await;
        assert_eq!((outcome.upstream_header("x-client"), outcome.upstream_header("x-pem")), (Some("||"), None));
    }
}
