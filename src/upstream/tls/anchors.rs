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
    /// The validity period of each, in seconds since 1970.
    validity: Vec<RangeInclusive<u64>>,
}

impl TrustAnchors {
    /// The certificates that are usable as trust anchors; others are skipped.
    pub fn new(certificates: impl IntoIterator<Item = CertificateDer<'static>>) -> Self {
        let (mut kept, mut anchors, mut validity) = (Vec::new(), Vec::new(), Vec::new());
        let mut parts = DigestBuilder::default();
        for certificate in certificates {
            let Some((anchor, span)) = parse_anchor(&certificate) else { continue };
            parts.add(&certificate);
            anchors.push(anchor);
            validity.push(span);
            kept.push(certificate);
        }
        TrustAnchors { digest: parts.finish(), certificates: kept, anchors, validity }
    }

    /// The certificate authorities that the operating system trusts. Reads files.
    pub fn from_system() -> Self {
        let found = rustls_native_certs::load_native_certs();
        for error in found.errors {
            tracing::debug!(%error, "Cannot read a trusted certificate of the system");
        }
        TrustAnchors::new(found.certs)
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

    /// Whether `anchor` is valid now. A renewed authority may differ from its predecessor only in dates, so one valid
    /// match suffices. Unknown anchors are invalid.
    pub(super) fn check_validity(&self, anchor: &TrustAnchor<'_>, now: UnixTime) -> Result<(), webpki::Error> {
        let equal = self.anchors.iter().zip(&self.validity).filter(|(own, _)| *own == anchor);
        let mut failed = webpki::Error::UnknownIssuer;
        for (_, span) in equal {
            match check_period(span, now) {
                Ok(()) => return Ok(()),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// The validity period of the certificate, if it is one of these itself.
    pub(super) fn validity_of(&self, certificate: &CertificateDer<'_>) -> Option<&RangeInclusive<u64>> {
        self.validity.get(self.certificates.iter().position(|own| own == certificate)?)
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

pub(super) fn check_period(span: &RangeInclusive<u64>, now: UnixTime) -> Result<(), webpki::Error> {
    let at = |seconds: u64| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    if now.as_secs() < *span.start() {
        return Err(webpki::Error::CertNotValidYet { time: now, not_before: at(*span.start()) });
    }
    if now.as_secs() > *span.end() {
        return Err(webpki::Error::CertExpired { time: now, not_after: at(*span.end()) });
    }
    Ok(())
}
