//! The authorities whose certificates are trusted, and their revocation lists.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use webpki::{
    ALL_VERIFICATION_ALGS, CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy, anchor_from_trusted_cert,
};

use crate::diagnostic::Diagnostic;

/// What happens to certificates about which no revocation list says anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RevocationMode {
    /// Revocation lists are not used.
    #[serde(rename = "SKIP")]
    Skip,
    /// Certificates in a list of `crls` are rejected. Lists that have expired are used, and certificates without a list
    /// of their authority are accepted.
    #[serde(rename = "IGNORE_CA_ERROR")]
    IgnoreMissing,
    /// As `IGNORE_CA_ERROR`, but certificates are also rejected if there is no list of their authority that is valid
    /// now.
    #[serde(rename = "STRICT")]
    Strict,
}

/// The authorities and revocation lists of a configuration.
pub(crate) struct CertificateTrust {
    anchors: Vec<TrustAnchor<'static>>,
    /// When the certificates of the authorities are valid, in seconds since 1970, in the order of `anchors`.
    periods: Vec<(i64, i64)>,
    revocations: Vec<CertRevocationList<'static>>,
    mode: RevocationMode,
}

/// Why a certificate is not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UntrustedCertificate;

impl CertificateTrust {
    /// `authorities` and `lists` are PEM texts, each with one block or more.
    pub(crate) fn parse(
        authorities: &[String],
        lists: &[String],
        mode: RevocationMode,
    ) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let (mut anchors, mut periods) = (Vec::new(), Vec::new());
        for (index, pem) in authorities.iter().enumerate() {
            let problem = |message: &str| {
                let remedy = "refer to the object with the authority's certificate, such as {secretKeyRef: {name: ca, \
                              key: ca.crt}} or {configMapKeyRef: {name: ca, key: ca.crt}}; ids are not supported";
                Diagnostic::in_config(format!("ca_certificates[{index}]"), message, remedy)
            };
            let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
            let certificates = certificates.unwrap_or_default();
            if certificates.is_empty() {
                invalid.push(problem("has no certificate in PEM"));
            }
            for certificate in certificates {
                let parsed = x509_parser::parse_x509_certificate(&certificate).ok();
                let period = parsed.map(|(_, parsed)| {
                    let validity = parsed.validity();
                    (validity.not_before.timestamp(), validity.not_after.timestamp())
                });
                match (anchor_from_trusted_cert(&certificate), period) {
                    (Ok(anchor), Some(period)) => {
                        anchors.push(anchor.to_owned());
                        periods.push(period);
                    }
                    _ => invalid.push(problem("has a block that is not an X.509 certificate")),
                }
            }
        }
        if authorities.is_empty() {
            let remedy = "list the authorities that issue certificates of clients, such as {secretKeyRef: {name: ca, \
                          key: ca.crt}}";
            invalid.push(Diagnostic::in_config("ca_certificates", "is empty, so no certificate is trusted", remedy));
        }
        let mut revocations = Vec::new();
        for (index, pem) in lists.iter().enumerate() {
            let blocks: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem.as_bytes()).collect();
            let blocks = blocks.unwrap_or_default();
            let parsed: Result<Vec<_>, _> =
                blocks.iter().map(|block| OwnedCertRevocationList::from_der(block.as_ref())).collect();
            match parsed {
                Ok(parsed) if !parsed.is_empty() => {
                    revocations.extend(parsed.into_iter().map(CertRevocationList::from))
                }
                _ => {
                    let remedy = "store it in PEM, as a block -----BEGIN X509 CRL-----";
                    let message = "is not a certificate revocation list in PEM";
                    invalid.push(Diagnostic::in_config(format!("crls[{index}]"), message, remedy));
                }
            }
        }
        if mode == RevocationMode::Strict && lists.is_empty() {
            let message = "is STRICT, but there is no revocation list, so no certificate would be accepted";
            let remedy = "set crls; Portico does not fetch lists and does not use OCSP";
            invalid.push(Diagnostic::in_config("revocation_check_mode", message, remedy));
        }
        if !invalid.is_empty() {
            return Err(invalid);
        }
        Ok(CertificateTrust { anchors, periods, revocations, mode })
    }

    /// Whether the first certificate is one for clients that leads to an authority, and is valid and not revoked now.
    pub(crate) fn verify(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<(), UntrustedCertificate> {
        let [certificate, intermediates @ ..] = chain else { return Err(UntrustedCertificate) };
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let parsed = EndEntityCert::try_from(certificate).map_err(|_| UntrustedCertificate)?;
        let lists: Vec<&CertRevocationList<'_>> = match self.mode {
            RevocationMode::Skip => Vec::new(),
            RevocationMode::IgnoreMissing | RevocationMode::Strict => self.revocations.iter().collect(),
        };
        let (unknown, expired) = match self.mode {
            RevocationMode::Strict => (UnknownStatusPolicy::Deny, ExpirationPolicy::Enforce),
            RevocationMode::Skip | RevocationMode::IgnoreMissing => {
                (UnknownStatusPolicy::Allow, ExpirationPolicy::Ignore)
            }
        };
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(unknown)
                .with_expiration_policy(expired)
                .build()
        });
        let time = UnixTime::since_unix_epoch(Duration::from_secs(since.as_secs()));
        // The library ignores the validity of authorities.
        let is_valid = |path: &webpki::VerifiedPath<'_>| match self.is_authority_valid(path.anchor(), since.as_secs()) {
            true => Ok(()),
            false => Err(webpki::Error::UnknownIssuer),
        };
        let verified = parsed.verify_for_usage(
            ALL_VERIFICATION_ALGS,
            &self.anchors,
            intermediates,
            time,
            KeyUsage::client_auth(),
            revocation,
            Some(&is_valid),
        );
        verified.map(drop).map_err(|_| UntrustedCertificate)
    }

    fn is_authority_valid(&self, anchor: &TrustAnchor<'_>, now: u64) -> bool {
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let same_key = |other: &TrustAnchor<'_>| {
            other.subject == anchor.subject && other.subject_public_key_info == anchor.subject_public_key_info
        };
        let mut periods = self.anchors.iter().zip(&self.periods).filter(|(other, _)| same_key(other));
        periods.any(|(_, (not_before, not_after))| (*not_before..=*not_after).contains(&now))
    }
}

impl fmt::Debug for CertificateTrust {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CertificateTrust")
            .field("authorities", &self.anchors.len())
            .field("lists", &self.revocations.len())
            .field("mode", &self.mode)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::ExtendedKeyUsagePurpose;

    use super::*;
    use crate::client_certificate::test_authority::{TestAuthority, at_day};

    fn trust(authorities: &[&TestAuthority], lists: &[String], mode: RevocationMode) -> CertificateTrust {
        let pem: Vec<_> = authorities.iter().map(|authority| authority.pem()).collect();
        CertificateTrust::parse(&pem, lists, mode).unwrap()
    }

    #[test]
    fn only_valid_certificates_of_the_authorities_are_trusted() {
        let (authority, other) = (TestAuthority::new("ca"), TestAuthority::new("other"));
        let trust = trust(&[&authority], &[], RevocationMode::IgnoreMissing);
        let verify = |chain: &[CertificateDer<'_>], day| trust.verify(chain, at_day(day)).is_ok();
        let own = [authority.issue(|_| {})];
        assert!(verify(&own, 5));
        assert!(!verify(&[], 5), "no certificate");
        assert!(!verify(&own, 0), "not yet valid");
        assert!(!verify(&own, 32), "expired");
        assert!(!verify(&[other.issue(|_| {})], 5), "of another authority");
        assert!(!verify(&[CertificateDer::from(vec![1, 2, 3])], 5));
        let for_servers =
            authority.issue(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
        assert!(!verify(&[for_servers], 5), "not for clients");
        // An authority of the same name with another key.
        assert!(!verify(&[TestAuthority::new("ca").issue(|_| {})], 5));
        let (intermediate, issuer) = authority.intermediate("sub");
        let of_intermediate = issuer.issue(|_| {});
        assert!(!verify(std::slice::from_ref(&of_intermediate), 5), "the intermediate certificate is missing");
        assert!(verify(&[of_intermediate, intermediate], 5));
    }

    #[test]
    fn clients_are_no_authorities() {
        let authority = TestAuthority::new("ca");
        let trust = trust(&[&authority], &[], RevocationMode::Skip);
        let (certificate, client) = authority.client("anna");
        assert!(trust.verify(std::slice::from_ref(&certificate), at_day(5)).is_ok());
        let forged = client.issue_for("bert");
        assert!(trust.verify(&[forged, certificate], at_day(5)).is_err());
    }

    #[test]
    fn certificates_end_with_their_authority() {
        let authority = TestAuthority::new("ca");
        let trust = trust(&[&authority], &[], RevocationMode::Skip);
        let longer = [authority.issue(|params| params.not_after = rcgen::date_time_ymd(2026, 3, 1))];
        assert!(trust.verify(&longer, at_day(30)).is_ok());
        assert!(trust.verify(&longer, at_day(40)).is_err(), "the authority has expired");
    }

    #[test]
    fn certificates_end_with_a_revoked_intermediate_authority() {
        let authority = TestAuthority::new("ca");
        let (intermediate, issuer) = authority.numbered_intermediate(7);
        let chain = [issuer.issue(|_| {}), intermediate];
        for (revoked, is_trusted) in [(8, true), (7, false)] {
            let lists = [authority.revocation_list(&[revoked])];
            let trust = trust(&[&authority], &lists, RevocationMode::IgnoreMissing);
            assert_eq!(trust.verify(&chain, at_day(5)).is_ok(), is_trusted, "{revoked}");
        }
    }

    #[test]
    fn revoked_certificates_are_rejected() {
        let (authority, other) = (TestAuthority::new("ca"), TestAuthority::new("other"));
        let serial = |number: u64| {
            move |params: &mut rcgen::CertificateParams| {
                params.serial_number = Some(number.into());
            }
        };
        let (revoked, valid) = ([authority.issue(serial(7))], [authority.issue(serial(8))]);
        let of_other = [other.issue(serial(7))];
        let list = || vec![authority.revocation_list(&[7])];
        use RevocationMode::{IgnoreMissing, Skip, Strict};
        // The list is valid from day 1 to day 10.
        for (mode, day, expected) in [
            (Skip, 5, [true, true, true]),
            (IgnoreMissing, 5, [false, true, true]),
            (IgnoreMissing, 20, [false, true, true]),
            (Strict, 5, [false, true, false]),
            (Strict, 20, [false, false, false]),
        ] {
            let trust = trust(&[&authority, &other], &list(), mode);
            let found = [&revoked, &valid, &of_other].map(|chain| trust.verify(chain, at_day(day)).is_ok());
            assert_eq!(found, expected, "{mode:?} {day}");
        }
    }

    #[test]
    fn invalid_authorities_and_lists_are_reported() {
        let authority = TestAuthority::new("ca");
        let (pem, list) = (authority.pem(), authority.revocation_list(&[]));
        let id = "cce8c384-721f-4f58-85dd-50834e3e733a".to_owned();
        for (authorities, lists, mode, field) in [
            (vec![], vec![], RevocationMode::Skip, "config.ca_certificates"),
            (vec![pem.clone(), id], vec![], RevocationMode::Skip, "config.ca_certificates[1]"),
            (vec![pem.replacen("MI", "AA", 1)], vec![], RevocationMode::Skip, "config.ca_certificates[0]"),
            (vec![pem.clone()], vec![pem.clone()], RevocationMode::Skip, "config.crls[0]"),
            (vec![pem.clone()], vec![list.replacen("MI", "AA", 1)], RevocationMode::Skip, "config.crls[0]"),
            (vec![pem], vec![], RevocationMode::Strict, "config.revocation_check_mode"),
        ] {
            let invalid = CertificateTrust::parse(&authorities, &lists, mode).unwrap_err();
            assert_eq!(invalid[0].field, field, "{invalid:?}");
        }
    }
}
