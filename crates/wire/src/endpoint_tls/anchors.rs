//! Trust anchors for endpoint certificates, each valid for the period of its own certificate.

use std::ops::RangeInclusive;

use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::anchor_from_trusted_cert;

use super::{DigestBuilder, TlsDigest};

/// A set of certificate authorities.
#[derive(Debug)]
pub struct TrustAnchors {
    /// Digest of the certificates, computed once: a system has more than a hundred, and TLS settings are built for
    /// every reference to a Service.
    digest: TlsDigest,
    certificates: Vec<CertificateDer<'static>>,
    /// The trust anchors, in the same order.
    anchors: Vec<TrustAnchor<'static>>,
    /// The validity period of each certificate, in seconds since 1970, in the same order.
    validity: Vec<RangeInclusive<u64>>,
}

impl TrustAnchors {
    /// The certificates that are usable as trust anchors; others are skipped.
    pub fn new(certificates: impl IntoIterator<Item = CertificateDer<'static>>) -> Self {
        let (mut usable, mut anchors, mut validity) = (Vec::new(), Vec::new(), Vec::new());
        let mut digest = DigestBuilder::default();
        for certificate in certificates {
            let Some((anchor, period)) = parse_anchor(&certificate) else { continue };
            digest.add(&certificate);
            anchors.push(anchor);
            validity.push(period);
            usable.push(certificate);
        }
        TrustAnchors { digest: digest.finish(), certificates: usable, anchors, validity }
    }

    /// The certificate authorities that the operating system trusts. Reads files.
    pub fn from_system() -> Self {
        let loaded = rustls_native_certs::load_native_certs();
        for error in loaded.errors {
            tracing::debug!(%error, "Cannot read a trusted certificate of the system");
        }
        TrustAnchors::new(loaded.certs)
    }

    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    pub(super) fn digest(&self) -> &TlsDigest {
        &self.digest
    }

    pub(super) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// Checks that `anchor` is valid now. A renewed authority may differ from its predecessor only in dates, so one
    /// valid match suffices. An unknown anchor is an error.
    pub(super) fn check_validity(&self, anchor: &TrustAnchor<'_>, now: UnixTime) -> Result<(), webpki::Error> {
        let matching = self.anchors.iter().zip(&self.validity).filter(|(known, _)| *known == anchor);
        let mut last_error = webpki::Error::UnknownIssuer;
        for (_, period) in matching {
            match check_period(period, now) {
                Ok(()) => return Ok(()),
                Err(error) => last_error = error,
            }
        }
        Err(last_error)
    }

    /// The validity period of the certificate, if it is in this set itself.
    pub(super) fn find_validity(&self, certificate: &CertificateDer<'_>) -> Option<&RangeInclusive<u64>> {
        self.validity.get(self.certificates.iter().position(|known| known == certificate)?)
    }
}

impl Default for TrustAnchors {
    /// No authorities.
    fn default() -> Self {
        TrustAnchors::new([])
    }
}

fn parse_anchor(certificate: &CertificateDer<'static>) -> Option<(TrustAnchor<'static>, RangeInclusive<u64>)> {
    let anchor = anchor_from_trusted_cert(certificate).ok()?.to_owned();
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
    let validity = parsed.validity();
    Some((anchor, seconds(validity.not_before.timestamp())..=seconds(validity.not_after.timestamp())))
}

/// Checks that `now` is within a validity period.
pub(super) fn check_period(period: &RangeInclusive<u64>, now: UnixTime) -> Result<(), webpki::Error> {
    let time_at = |seconds: u64| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    if now.as_secs() < *period.start() {
        return Err(webpki::Error::CertNotValidYet { time: now, not_before: time_at(*period.start()) });
    }
    if now.as_secs() > *period.end() {
        return Err(webpki::Error::CertExpired { time: now, not_after: time_at(*period.end()) });
    }
    Ok(())
}
