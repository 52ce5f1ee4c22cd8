//! Certificate chains with their private keys, of listeners and of clients.

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};

/// Why a key cannot be used with a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyProblem {
    /// None of [`SUPPORTED_KEYS`].
    Unsupported,
    /// It does not belong to the first certificate of the chain.
    OtherCertificate,
}

/// What to use in place of a key that is not supported.
pub const SUPPORTED_KEYS: &str = "RSA of 2048 to 8192 bits, ECDSA P-256, P-384 or P-521, or Ed25519";

/// The chain with the key of its first certificate.
pub fn certified_key(chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'_>) -> Result<CertifiedKey, KeyProblem> {
    let key = any_supported_type(key).map_err(|_| KeyProblem::Unsupported)?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // `Unknown` means that the key type does not reveal its public half; handshakes still work.
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(_) => Err(KeyProblem::OtherCertificate),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::generate_simple_self_signed;

    use super::*;

    #[test]
    fn key_belongs_to_the_first_certificate() {
        let generate = || generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let (own, other) = (generate(), generate());
        let key = |der: &[u8]| PrivateKeyDer::try_from(der.to_vec()).unwrap();
        let (own_key, other_key) = (own.signing_key.serialize_der(), other.signing_key.serialize_der());
        let chain = || vec![own.cert.der().clone(), other.cert.der().clone()];
        assert_eq!(certified_key(chain(), &key(&own_key)).unwrap().cert, chain());
        assert_eq!(certified_key(chain(), &key(&other_key)).unwrap_err(), KeyProblem::OtherCertificate);
        let truncated = PrivateKeyDer::Pkcs8(own_key[..20].to_vec().into());
        assert_eq!(certified_key(chain(), &truncated).unwrap_err(), KeyProblem::Unsupported);
    }
}
