//! Certificates of listeners: the Secret a listener names, down to whether key and certificate belong together.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use super::grants::Reference;
use super::verdict::{Code, Problem};
use crate::api::core::Secret;
use crate::api::gateway::SecretObjectReference;
use crate::api::kind::CORE_GROUP;
use crate::api::{Kind, Object, ObjectKey};
use crate::snapshot::certs::Certificate;
use crate::snapshot::host::HostPattern;
use crate::store::Store;

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// The Secrets that listeners name, each parsed once for as long as its content stays. A certificate that is the same is
/// the same `Arc`.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    known: BTreeMap<ObjectKey, (Arc<Object<Secret>>, Parsed)>,
}

type Parsed = Result<Arc<Certificate>, Broken>;

impl Secrets {
    fn parse(&mut self, secret: &Arc<Object<Secret>>) -> Parsed {
        let key = &secret.meta.key;
        if let Some((known, parsed)) = self.known.get_mut(key)
            && (Arc::ptr_eq(known, secret) || known.body == secret.body)
        {
            known.clone_from(secret);
            return parsed.clone();
        }
        let parsed = certificate(key, secret).map(Arc::new);
        self.known.insert(key.clone(), (secret.clone(), parsed.clone()));
        parsed
    }

    /// Lets go of a Secret that is no longer there: keys are not kept longer than needed.
    pub(super) fn forget_if_gone(&mut self, store: &Store, key: &ObjectKey) {
        if !store.secrets.contains_key(key) {
            self.known.remove(key);
        }
    }
}

/// The certificate that a reference of a Gateway leads to.
pub(super) fn resolve(
    store: &Store,
    secrets: &mut Secrets,
    gateway: &ObjectKey,
    reference: &SecretObjectReference,
    field: &str,
) -> Result<Arc<Certificate>, (Code, Problem)> {
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
    of_secret(store, secrets, &target).or_else(|(message, remedy)| invalid(format!("{field}.name"), message, remedy))
}

/// The certificate that a Secret holds, or what is wrong and what would be right.
pub(super) fn of_secret(
    store: &Store,
    secrets: &mut Secrets,
    target: &ObjectKey,
) -> Result<Arc<Certificate>, (String, String)> {
    let Some(secret) = store.secrets.get(target) else {
        return Err((format!("Secret {target} does not exist"), "create it or correct the name".to_owned()));
    };
    secrets.parse(secret).map_err(|what| (format!("Secret {target} {}", what.message), what.remedy))
}

/// The certificate that we show to backends who ask who we are.
pub(super) fn of_client(store: &Store, target: &ObjectKey) -> Result<Arc<CertifiedKey>, (String, String)> {
    let Some(secret) = store.secrets.get(target) else {
        return Err((format!("Secret {target} does not exist"), "create it or correct the name".to_owned()));
    };
    let certified = certified_key(secret).map_err(|what| (format!("Secret {target} {}", what.message), what.remedy))?;
    Ok(Arc::new(certified))
}

/// What is wrong with a Secret's content; never quotes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Broken {
    message: String,
    remedy: String,
}

fn certificate(key: &ObjectKey, secret: &Secret) -> Result<Certificate, Broken> {
    let certified = certified_key(secret)?;
    // Every one was parsed before; what belongs together was checked, too.
    let chain: Vec<_> =
        certified.cert.iter().filter_map(|der| Some(x509_parser::parse_x509_certificate(der).ok()?.1)).collect();
    let first_to_end = chain.iter().map(|each| each.validity()).min_by_key(|validity| validity.not_after.timestamp());
    let (begins, expires) = first_to_end
        .map(|validity| (validity.not_before.timestamp(), validity.not_after.timestamp()))
        .unwrap_or_default();
    let names = chain.first().map(dns_names).unwrap_or_default();
    drop(chain);
    Ok(Certificate {
        secret: Arc::from(key.to_string()),
        names: names.into(),
        expires,
        lifetime: expires - begins,
        key: Arc::new(certified),
    })
}

/// The names a certificate is issued for. Those in its subject have not counted for a long time (RFC 9525, section 2).
fn dns_names(certificate: &X509Certificate<'_>) -> Vec<HostPattern> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = extension.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(HostPattern::parse(Some(name))),
        _ => None,
    });
    names.collect()
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
    fn the_first_of_a_chain_to_end_says_when_and_how_long_it_was_to_live() {
        let day = |day| rcgen::date_time_ymd(2030, 1, day);
        let key = rcgen::KeyPair::generate().unwrap();
        let valid = |from, until| {
            let mut made = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
            (made.not_before, made.not_after) = (day(from), day(until));
            made.self_signed(&key).unwrap().pem()
        };
        let chain = [valid(2, 20), valid(1, 8), valid(1, 30)].concat();
        let made = certificate(&ObjectKey::new("ns", "tls"), &secret(&chain, &key.serialize_pem())).unwrap();
        assert_eq!((made.expires, made.lifetime), (day(8).unix_timestamp(), 7 * 86400));
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
