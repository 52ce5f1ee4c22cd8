//! Reads the certificates of trusted authorities from PEM text.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::upstream::tls::TrustAnchors;

/// Why a bundle cannot be used.
pub(super) struct CaBundleProblem {
    /// Continues a sentence whose subject is the object with the bundle.
    pub predicate: &'static str,
    pub remedy: &'static str,
}

/// The certificates of a bundle, at least one. Other blocks, such as private keys, are skipped. One block that cannot
/// be used makes the whole bundle invalid: its author expects that it is trusted.
pub(super) fn parse(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CaBundleProblem> {
    let invalid = |predicate, remedy| Err(CaBundleProblem { predicate, remedy });
    let Ok(certificates) = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() else {
        return invalid("has content that is not PEM", PEM_REMEDY);
    };
    if certificates.is_empty() {
        return invalid("has no certificate", PEM_REMEDY);
    }
    if certificates.iter().any(|certificate| x509_parser::parse_x509_certificate(certificate).is_err()) {
        return invalid("has a block that is not an X.509 certificate", PEM_REMEDY);
    }
    // A parsed certificate is rarely rejected here; if it is, it must not be ignored.
    if TrustAnchors::new(certificates.iter().cloned()).certificates().len() < certificates.len() {
        return invalid("has a certificate that cannot be used", "issue a new one");
    }
    Ok(certificates)
}

/// Whether all certificates are those of authorities (CA:TRUE).
pub(super) fn are_authorities(certificates: &[CertificateDer<'_>]) -> bool {
    certificates.iter().all(|certificate| {
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return false };
        parsed.basic_constraints().ok().flatten().is_some_and(|constraints| constraints.value.ca)
    })
}

const PEM_REMEDY: &str = "store the authority's certificate as a block BEGIN CERTIFICATE";
