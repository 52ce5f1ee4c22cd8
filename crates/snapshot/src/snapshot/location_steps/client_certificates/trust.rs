//! The authorities of a host and their revocation lists, and whether they have issued the certificate of a client. As
//! in nginx, each certificate of a chain must be in no list, and must have one if there are lists.

use std::fmt;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, TrustAnchor, UnixTime};
use webpki::{
    ALL_VERIFICATION_ALGS, CertRevocationList, EndEntityCert, ExpirationPolicy, KeyUsage, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptionsBuilder, UnknownStatusPolicy, VerifiedPath, anchor_from_trusted_cert,
};
use x509_parser::x509::X509Version;
use x509_parser::{parse_x509_certificate, parse_x509_crl};

/// The authorities whose certificates are trusted.
pub struct ClientAuthorities {
    certificates: Vec<CertificateDer<'static>>,
    lists: Vec<CertificateRevocationListDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
    /// When the certificates of the authorities are valid, in seconds since 1970, in the order of `anchors`.
    periods: Vec<(i64, i64)>,
    /// Certificates between those of authorities and clients, in addition to those that clients send.
    intermediates: Vec<CertificateDer<'static>>,
    revocations: Vec<CertRevocationList<'static>>,
    /// When each certificate and each list ends, in seconds since 1970.
    ends: Vec<i64>,
}

/// Why a certificate is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RejectedCertificate {
    /// No authority is known that has issued it, with the reason that nginx gives.
    UnknownAuthority(&'static str),
    Other,
}

impl ClientAuthorities {
    /// Reads PEM texts, of which only that of the lists may be missing.
    ///
    /// # Errors
    ///
    /// A clause that says what is wrong.
    pub fn parse(authorities: &[u8], lists: Option<&[u8]>) -> Result<Self, String> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(authorities).collect();
        let certificates = certificates.unwrap_or_default();
        if certificates.is_empty() {
            return Err("ca.crt has no certificate in PEM".to_owned());
        }
        let mut authorities = ClientAuthorities {
            certificates,
            lists: Vec::new(),
            anchors: Vec::new(),
            periods: Vec::new(),
            intermediates: Vec::new(),
            revocations: Vec::new(),
            ends: Vec::new(),
        };
        authorities.add_anchors()?;
        if let Some(lists) = lists {
            authorities.add_lists(lists)?;
        }
        Ok(authorities)
    }

    /// Those that have signed themselves. Without such a certificate, every one is trusted as it is.
    fn add_anchors(&mut self) -> Result<(), String> {
        let invalid = || "ca.crt has a block that is not an X.509 certificate".to_owned();
        let has_roots = self.certificates.iter().any(is_self_issued);
        for certificate in &self.certificates {
            let (_, parsed) = parse_x509_certificate(certificate).map_err(|_| invalid())?;
            let period = (parsed.validity().not_before.timestamp(), parsed.validity().not_after.timestamp());
            self.ends.push(period.1);
            // OpenSSL would trust it for itself only, and the library for certificates that its key has signed.
            if parsed.version() == X509Version::V3 && !parsed.is_ca() {
                continue;
            }
            let anchor = anchor_from_trusted_cert(certificate).map_err(|_| invalid())?.to_owned();
            if has_roots && !is_self_issued(certificate) {
                self.intermediates.push(certificate.clone());
            } else {
                self.anchors.push(anchor);
                self.periods.push(period);
            }
        }
        match self.anchors.is_empty() {
            true => Err("ca.crt has no certificate of an authority (CA:TRUE)".to_owned()),
            false => Ok(()),
        }
    }

    fn add_lists(&mut self, lists: &[u8]) -> Result<(), String> {
        let invalid = || "ca.crl is not a list of revoked certificates in PEM".to_owned();
        let blocks: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(lists).collect();
        self.lists = blocks.unwrap_or_default();
        if self.lists.is_empty() {
            return Err(invalid());
        }
        for list in &self.lists {
            let (_, parsed) = parse_x509_crl(list).map_err(|_| invalid())?;
            self.ends.extend(parsed.next_update().map(|time| time.timestamp()));
            self.revocations.push(OwnedCertRevocationList::from_der(list).map_err(|_| invalid())?.into());
        }
        Ok(())
    }

    /// Until when the first certificate is valid, which is one for clients, in seconds since 1970.
    pub(super) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        max_intermediates: usize,
        now: Duration,
    ) -> Result<i64, RejectedCertificate> {
        let [own, sent @ ..] = chain else { return Err(RejectedCertificate::Other) };
        let certificate = EndEntityCert::try_from(own).map_err(|_| RejectedCertificate::Other)?;
        let lists: Vec<&CertRevocationList<'_>> = self.revocations.iter().collect();
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(|options| {
            options
                .with_depth(RevocationCheckDepth::Chain)
                .with_status_policy(UnknownStatusPolicy::Deny)
                .with_expiration_policy(ExpirationPolicy::Enforce)
                .build()
        });
        let time = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()));
        // The library searches all orders of what a client sends, so that a few certificates may take long.
        let sent = &sent[..sent.len().min(MAX_SENT)];
        let intermediates: Vec<CertificateDer<'_>> = sent.iter().chain(&self.intermediates).cloned().collect();
        let check_path = |path: &VerifiedPath<'_>| {
            if path.intermediate_certificates().count() > max_intermediates {
                return Err(webpki::Error::MaximumPathDepthExceeded);
            }
            // The library ignores the validity of authorities.
            match self.is_authority_valid(path.anchor(), seconds(now)) {
                true => Ok(()),
                false => Err(webpki::Error::CertExpired { time, not_after: time }),
            }
        };
        let verified = certificate.verify_for_usage(
            ALL_VERIFICATION_ALGS,
            &self.anchors,
            &intermediates,
            time,
            KeyUsage::client_auth(),
            revocation,
            Some(&check_path),
        );
        match verified {
            Ok(_) => Ok(self.end(chain, seconds(now))),
            // The library does not look for the authority of a certificate that is one of an authority itself.
            Err(webpki::Error::UnknownIssuer | webpki::Error::CaUsedAsEndEntity) => {
                Err(RejectedCertificate::UnknownAuthority(missing_authority(chain)))
            }
            Err(_) => Err(RejectedCertificate::Other),
        }
    }

    fn is_authority_valid(&self, anchor: &TrustAnchor<'_>, now: i64) -> bool {
        let same_key = |other: &TrustAnchor<'_>| {
            other.subject == anchor.subject && other.subject_public_key_info == anchor.subject_public_key_info
        };
        let mut periods = self.anchors.iter().zip(&self.periods).filter(|(other, _)| same_key(other));
        periods.any(|(_, (not_before, not_after))| (*not_before..=*not_after).contains(&now))
    }

    /// The first end of anything that may be needed for the chain. What has ended before is not needed.
    pub(super) fn end(&self, chain: &[CertificateDer<'_>], now: i64) -> i64 {
        let of_chain = chain.iter().filter_map(|certificate| {
            let (_, parsed) = parse_x509_certificate(certificate).ok()?;
            Some(parsed.validity().not_after.timestamp())
        });
        of_chain.chain(self.ends.iter().copied()).filter(|end| *end >= now).min().unwrap_or(now)
    }
}

/// How many of the certificates that a client sends with its own are used. The chains of public authorities have fewer.
const MAX_SENT: usize = 6;

fn is_self_issued(certificate: &CertificateDer<'_>) -> bool {
    parse_x509_certificate(certificate).is_ok_and(|(_, parsed)| parsed.subject().as_raw() == parsed.issuer().as_raw())
}

/// The reason that OpenSSL gives if it does not find the authority of a chain.
fn missing_authority(chain: &[CertificateDer<'_>]) -> &'static str {
    match chain {
        [own, ..] if is_self_issued(own) => "self-signed certificate",
        [_, others @ ..] if others.iter().any(is_self_issued) => "self-signed certificate in certificate chain",
        [_] => "unable to verify the first certificate",
        _ => "unable to get local issuer certificate",
    }
}

pub(super) fn seconds(since: Duration) -> i64 {
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

impl fmt::Debug for ClientAuthorities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ClientAuthorities")
            .field("certificates", &self.certificates.len())
            .field("lists", &self.lists.len())
            .finish_non_exhaustive()
    }
}

/// Equal if both were read from the same certificates and lists.
impl PartialEq for ClientAuthorities {
    fn eq(&self, other: &Self) -> bool {
        fn bytes<'l>(lists: &'l [CertificateRevocationListDer<'_>]) -> impl Iterator<Item = &'l [u8]> {
            lists.iter().map(|list| &**list)
        }
        self.certificates == other.certificates && bytes(&self.lists).eq(bytes(&other.lists))
    }
}

impl Eq for ClientAuthorities {}
