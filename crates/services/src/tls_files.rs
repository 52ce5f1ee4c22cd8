//! Reads files with certificates: those of authorities, and that of a client with its key.

use std::path::Path;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use webpki::anchor_from_trusted_cert;

use crate::certified_key::{KeyProblem, SUPPORTED_KEYS, certified_key};
use crate::plugin_api::ClientCertificateFiles;

/// The certificates of authorities, at least one.
pub(super) fn read_authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    parse_authorities(&read(path)?).map_err(|problem| about(path, &problem))
}

/// A certificate with its key, which belongs to it.
pub(super) fn read_client_certificate(files: &ClientCertificateFiles) -> Result<Arc<CertifiedKey>, String> {
    let ClientCertificateFiles { certificate, key } = files;
    let chain = parse_certificates(&read(certificate)?).map_err(|problem| about(certificate, &problem))?;
    let der = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|_| about(key, "has no private key in PEM"))?;
    let problem = |problem| match problem {
        KeyProblem::Unsupported => format!("has a key of a type that is not supported; use {SUPPORTED_KEYS}"),
        KeyProblem::OtherCertificate => {
            format!("is not the key of the first certificate in {}", certificate.display())
        }
    };
    certified_key(chain, &der).map(Arc::new).map_err(|found| about(key, &problem(found)))
}

fn parse_authorities(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = parse_certificates(pem)?;
    // What cannot be an authority would make every handshake fail.
    match certificates.iter().position(|der| anchor_from_trusted_cert(der).is_err()) {
        Some(index) => Err(format!("certificate {} cannot be read", index + 1)),
        None => Ok(certificates),
    }
}

fn parse_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|error| format!("is not a file of certificates in PEM: {error}"))?;
    if certificates.is_empty() { Err("has no certificate in PEM".to_owned()) } else { Ok(certificates) }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| about(path, &error.to_string()))
}

fn about(path: &Path, problem: &str) -> String {
    format!("{}: {problem}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_authorities_have_certificates() {
        let certificate = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap().cert.pem();
        assert_eq!(parse_authorities(certificate.repeat(2).as_bytes()).unwrap().len(), 2);
        let truncated = certificate.replace("-----END", "----END");
        for (pem, expected) in [("", "no certificate"), ("text", "no certificate"), (&truncated, "PEM")] {
            let error = parse_authorities(pem.as_bytes()).unwrap_err();
            assert!(error.contains(expected), "{pem}: {error}");
        }
    }

    #[test]
    fn client_certificates_have_their_key() {
        let folder = tempfile::tempdir().unwrap();
        let generate = || rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let (own, other) = (generate(), generate());
        let save = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let files = |certificate: &str, key: &str| ClientCertificateFiles {
            certificate: save("certificate", certificate),
            key: save("key", key),
        };
        let (certificate, key) = (own.cert.pem(), own.signing_key.serialize_pem());
        let read = read_client_certificate(&files(&certificate, &key)).unwrap();
        assert_eq!(read.cert[..], [own.cert.der().clone()]);
        for (certificate, key, expected) in [
            ("text", &*key, "certificate: has no certificate in PEM"),
            (&certificate, "text", "key: has no private key in PEM"),
            (&certificate, &other.signing_key.serialize_pem(), "is not the key of the first certificate"),
        ] {
            let error = read_client_certificate(&files(certificate, key)).unwrap_err();
            assert!(error.contains(expected) && !error.contains("PRIVATE"), "{error}");
        }
        let missing = ClientCertificateFiles { certificate: "missing".into(), key: "missing".into() };
        assert!(read_client_certificate(&missing).unwrap_err().starts_with("missing: "));
    }
}
