//! Certificates of listeners: the Secret a listener names, down to whether key and certificate belong together.

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::grants::Reference;
use super::verdict::{Code, Problem};
use crate::api::core::Secret;
use crate::api::gateway::SecretObjectReference;
use crate::api::kind::CORE_GROUP;
use crate::api::{Kind, ObjectKey};
use crate::store::Store;

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// Checks one certificate reference of a Gateway. Ok means that a handshake could be served with it.
pub(super) fn check(
    store: &Store,
    gateway: &ObjectKey,
    reference: &SecretObjectReference,
    field: &str,
) -> Result<(), (Code, Problem)> {
    let invalid = |field: String, message: String, remedy: String| {
        Err((Code::ListenerInvalidCertificateRef, Problem::new(field, message, remedy)))
    };
    if reference.group != CORE_GROUP || reference.kind != Kind::Secret.name() {
        let (what, field) = if reference.group == CORE_GROUP {
            (reference.kind.clone(), format!("{field}.kind"))
        } else {
            (format!("{}/{}", reference.group, reference.kind), format!("{field}.group"))
        };
        let message = format!("certificates of kind {what} cannot be used");
        return invalid(field, message, "refer to a Secret of type kubernetes.io/tls".to_owned());
    }
    let namespace = reference.namespace.as_deref().unwrap_or(&gateway.namespace);
    let target = ObjectKey::new(namespace, &reference.name);
    // Whether it is allowed comes before whether it exists, so that existence is not told to those who may not know.
    let crossing = Reference { from: Kind::Gateway, namespace: &gateway.namespace, to: Kind::Secret, target: &target };
    if !crossing.is_allowed(store) {
        return Err((Code::ListenerRefNotPermitted, crossing.problem(format!("{field}.namespace"))));
    }
    let Some(secret) = store.secrets.get(&target) else {
        let message = format!("Secret {target} does not exist");
        return invalid(format!("{field}.name"), message, "create it or correct the name".to_owned());
    };
    match certified_key(secret) {
        Ok(_) => Ok(()),
        Err(what) => invalid(format!("{field}.name"), format!("Secret {target} {}", what.message), what.remedy),
    }
}

/// What is wrong with a Secret's content; never quotes it.
#[derive(Debug, PartialEq, Eq)]
struct Broken {
    message: String,
    remedy: String,
}

fn certified_key(secret: &Secret) -> Result<CertifiedKey, Broken> {
    let broken = |message: String, remedy: &str| Broken { message, remedy: remedy.to_owned() };
    let value = |key: &str| {
        secret.value(key).filter(|bytes| !bytes.is_empty()).ok_or_else(|| {
            broken(format!("has no {key}"), "store the PEM of certificate and key under tls.crt and tls.key")
        })
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(value(CERTIFICATE)?)
        .collect::<Result<_, pem::Error>>()
        .map_err(|_| broken(format!("has a {CERTIFICATE} that is not PEM"), "store the certificate chain as PEM"))?;
    if chain.is_empty() {
        let message = format!("has a {CERTIFICATE} without a certificate");
        return Err(broken(message, "store the chain as PEM blocks BEGIN CERTIFICATE, the server's own first"));
    }
    for certificate in &chain {
        if x509_parser::parse_x509_certificate(certificate).is_err() {
            let message = format!("has a {CERTIFICATE} with a block that is not an X.509 certificate");
            return Err(broken(message, "store the certificate chain as it was issued"));
        }
    }
    let key = PrivateKeyDer::from_pem_slice(value(KEY)?).map_err(|_| {
        broken(format!("has a {KEY} that is not a private key in PEM"), "store the key as a block BEGIN PRIVATE KEY")
    })?;
    let key = any_supported_type(&key).map_err(|_| {
        broken(
            format!("has a {KEY} of a kind that cannot be used"),
            "use RSA of 2048 to 8192 bits, ECDSA P-256, P-384 or P-521, or Ed25519",
        )
    })?;
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        // Unknown means the key's kind cannot tell us its public half; a handshake would still be correct.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
        Err(_) => {
            let message = format!("has a {KEY} that does not belong to the first certificate of its {CERTIFICATE}");
            Err(broken(
                message,
                "store the key that the certificate was issued for, and the server's certificate first",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secret(certificate: &str, key: &str) -> Secret {
        let value = json!({"type": "kubernetes.io/tls", "stringData": {"tls.crt": certificate, "tls.key": key}});
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn key_and_certificate_must_be_whole_and_belong_together() {
        let own = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(vec!["b.example".to_owned()]).unwrap();
        let (certificate, key) = (own.cert.pem(), own.signing_key.serialize_pem());
        let damaged = certificate.replace("MII", "AAA");
        for (certificate, key, expected) in [
            (&*certificate, &*key, None),
            (&*certificate, &*other.signing_key.serialize_pem(), Some("does not belong")),
            ("", &*key, Some("has no tls.crt")),
            (&*certificate, "", Some("has no tls.key")),
            ("hello", &*key, Some("without a certificate")),
            ("-----BEGIN CERTIFICATE-----\n%%\n-----END CERTIFICATE-----\n", &*key, Some("not PEM")),
            (&*damaged, &*key, Some("not an X.509 certificate")),
            (&*certificate, "hello", Some("not a private key")),
            (&*key, &*key, Some("without a certificate")),
        ] {
            let found = certified_key(&secret(certificate, key)).err();
            match (found, expected) {
                (None, None) => {}
                (Some(broken), Some(expected)) => assert!(broken.message.contains(expected), "{broken:?}"),
                (found, expected) => panic!("expected {expected:?}, got {found:?}"),
            }
        }
    }
}
