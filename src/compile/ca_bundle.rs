//! Reads the certificates of trusted authorities from PEM text, and from ConfigMaps.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::missing_object::missing_object;
use crate::api::kind::CORE_GROUP;
use crate::api::{Kind, ObjectKey};
use crate::diagnostic::Diagnostic;
use crate::store::Store;
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

/// The certificates under `ca.crt` of a ConfigMap, at least one. The diagnostic about the ConfigMap has no field.
pub(super) fn from_config_map(store: &Store, key: &ObjectKey) -> Result<Vec<CertificateDer<'static>>, Diagnostic> {
    let invalid = |predicate: &str, remedy: &str| Diagnostic::of_object(format!("ConfigMap {key} {predicate}"), remedy);
    let map = store.config_maps.get(key).ok_or_else(|| missing_object(store, "", Kind::ConfigMap, key))?;
    let bundle = map.data.get("ca.crt").filter(|bundle| !bundle.is_empty());
    let bundle = bundle.ok_or_else(|| invalid("has no ca.crt", "store the PEM of the authorities under ca.crt"))?;
    parse(bundle.as_bytes()).map_err(|CaBundleProblem { predicate, remedy }| invalid(predicate, remedy))
}

/// The diagnostic for a reference at `field` to an object that is not a ConfigMap.
pub(super) fn unsupported_kind(group: &str, kind: &str, field: &str) -> Diagnostic {
    let (subfield, found) =
        if group == CORE_GROUP { ("kind", kind.to_owned()) } else { ("group", format!("{group}/{kind}")) };
    let message = format!("authorities are not read from objects of kind {found}");
    Diagnostic::error(format!("{field}.{subfield}"), message, "refer to a ConfigMap")
}

const PEM_REMEDY: &str = "store the authority's certificate as a block BEGIN CERTIFICATE";
