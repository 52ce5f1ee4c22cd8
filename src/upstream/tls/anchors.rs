//! Authorities that an endpoint's certificate may come from, each for as long as its own certificate is valid.

use std::ops::RangeInclusive;

use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::anchor_from_trusted_cert;

use super::{Digest, Parts};

/// A set of authorities.
#[derive(Debug)]
pub struct Anchors {
    /// Of the certificates, which are more than a hundred of a system: terms are made for every reference to a Service.
    digest: Digest,
    certificates: Vec<CertificateDer<'static>>,
    /// What chains are built with, in the same order.
    anchors: Vec<TrustAnchor<'static>>,
    /// When each may be used, in seconds since 1970.
    spans: Vec<RangeInclusive<u64>>,
}

impl Anchors {
    /// Those of the certificates that can be an authority.
    pub fn new(certificates: impl IntoIterator<Item = CertificateDer<'static>>) -> Self {
        let (mut kept, mut anchors, mut spans) = (Vec::new(), Vec::new(), Vec::new());
        let mut parts = Parts::default();
        for certificate in certificates {
            let Some((anchor, span)) = read(&certificate) else { continue };
            parts.add(&certificate);
            anchors.push(anchor);
            spans.push(span);
            kept.push(certificate);
        }
        Anchors { digest: parts.finish(), certificates: kept, anchors, spans }
    }

    /// What this machine trusts. Reads files.
    pub fn of_system() -> Self {
        let found = rustls_native_certs::load_native_certs();
        for error in found.errors {
            tracing::debug!(%error, "Cannot read all that this system trusts");
        }
        Anchors::new(found.certs)
    }

    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    pub(super) fn digest(&self) -> &Digest {
        &self.digest
    }

    pub(super) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }

    /// Whether `anchor` may be used now. A renewed authority is equal to the one of before but for its dates, so one of them
    /// suffices. What is none of these may not.
    pub(super) fn is_valid(&self, anchor: &TrustAnchor<'_>, now: UnixTime) -> Result<(), webpki::Error> {
        let equal = self.anchors.iter().zip(&self.spans).filter(|(own, _)| *own == anchor);
        let mut failed = webpki::Error::UnknownIssuer;
        for (_, span) in equal {
            match is_within(span, now) {
                Ok(()) => return Ok(()),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// When the certificate may be used, if it is one of these itself.
    pub(super) fn span_of(&self, certificate: &CertificateDer<'_>) -> Option<&RangeInclusive<u64>> {
        self.spans.get(self.certificates.iter().position(|own| own == certificate)?)
    }
}

impl Default for Anchors {
    /// Nobody.
    fn default() -> Self {
        Anchors::new([])
    }
}

fn read(certificate: &CertificateDer<'static>) -> Option<(TrustAnchor<'static>, RangeInclusive<u64>)> {
    let anchor = anchor_from_trusted_cert(certificate).ok()?.to_owned();
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
    let validity = parsed.validity();
    Some((anchor, seconds(validity.not_before.timestamp())..=seconds(validity.not_after.timestamp())))
}

pub(super) fn is_within(span: &RangeInclusive<u64>, now: UnixTime) -> Result<(), webpki::Error> {
    let at = |seconds: u64| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    if now.as_secs() < *span.start() {
        return Err(webpki::Error::CertNotValidYet { time: now, not_before: at(*span.start()) });
    }
    if now.as_secs() > *span.end() {
        return Err(webpki::Error::CertExpired { time: now, not_after: at(*span.end()) });
    }
    Ok(())
}
