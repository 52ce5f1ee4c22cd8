//! Loads certificates of listeners, and client certificates for backends, from Secrets; checks that each belongs to its
//! private key.

pub(super) mod backend_client;
pub(super) mod ca_bundle;
pub(super) mod endpoint_trust;

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use crate::api::core::Secret;
use crate::api::gateway::SecretObjectReference;
use crate::api::kind::CORE_GROUP;
use crate::api::{Kind, Object, ObjectId, ObjectKey};
use crate::certified_key::{KeyProblem, SUPPORTED_KEYS, certified_key};
use crate::compile::objects::missing_object::missing_object;
use crate::compile::objects::reference_grants::{CrossNamespaceReference, Referrer};
use crate::diagnostic::Diagnostic;
use crate::snapshot::certs::Certificate;
use crate::snapshot::client_validation::{ClientValidation, ClientValidationMode};
use crate::snapshot::host::HostPattern;
use crate::store::Store;
use crate::verdict::Code;

/// The entries of a Secret of type `kubernetes.io/tls`.
const CERTIFICATE_ENTRY: &str = "tls.crt";
const PRIVATE_KEY_ENTRY: &str = "tls.key";

/// The Secrets that listeners refer to, parsed once per content, and the validations of their clients. An unchanged
/// certificate or validation keeps its `Arc`.
#[derive(Debug, Default)]
pub(super) struct SecretCache {
    parsed: BTreeMap<ObjectKey, (Arc<Object<Secret>>, ParsedSecret)>,
    /// Those that listeners use.
    client_validations: Vec<Weak<ClientValidation>>,
}

type ParsedSecret = Result<Arc<Certificate>, Diagnostic>;

impl SecretCache {
    fn parse(&mut self, secret: &Arc<Object<Secret>>) -> ParsedSecret {
        let key = &secret.meta.key;
        if let Some((cached, parsed)) = self.parsed.get_mut(key)
            && (Arc::ptr_eq(cached, secret) || cached.body == secret.body)
        {
            cached.clone_from(secret);
            return parsed.clone();
        }
        let parsed = parse_certificate(key, secret).map(Arc::new);
        self.parsed.insert(key.clone(), (secret.clone(), parsed.clone()));
        parsed
    }

    /// The validation with these settings. A listener keeps it when other settings of its Gateway change, so its
    /// clients can resume their TLS sessions.
    pub(super) fn client_validation(
        &mut self,
        mode: ClientValidationMode,
        authorities: Vec<CertificateDer<'static>>,
    ) -> Result<Arc<ClientValidation>, String> {
        self.client_validations.retain(|validation| validation.strong_count() > 0);
        let mut known = self.client_validations.iter().filter_map(Weak::upgrade);
        if let Some(known) = known.find(|known| known.has_settings(mode, &authorities)) {
            return Ok(known);
        }
        let created = Arc::new(ClientValidation::new(mode, authorities)?);
        self.client_validations.push(Arc::downgrade(&created));
        Ok(created)
    }

    /// Removes a Secret that no longer exists, so that keys are not kept longer than needed.
    pub(super) fn remove_if_deleted(&mut self, store: &Store, key: &ObjectKey) {
        if !store.secrets.contains_key(key) {
            self.parsed.remove(key);
        }
    }
}

/// The certificate that a reference of a Gateway or ListenerSet resolves to.
pub(super) fn resolve(
    store: &Store,
    secrets: &mut SecretCache,
    referrer: &ObjectId,
    reference: &SecretObjectReference,
    field: &str,
) -> Result<Arc<Certificate>, (Code, Diagnostic)> {
    let from = Referrer { kind: referrer.kind, namespace: &referrer.key.namespace };
    let target = permitted_secret(store, from, reference, field)?;
    from_secret(store, secrets, &target)
        .map_err(|problem| (Code::ListenerInvalidCertificateRef, problem.at(format!("{field}.name"))))
}

/// The client certificate for TLS to backends that a reference resolves to.
pub(super) fn referenced_client_certificate(
    store: &Store,
    from: Referrer<'_>,
    reference: &SecretObjectReference,
    field: &str,
) -> Result<Arc<CertifiedKey>, (Code, Diagnostic)> {
    let target = permitted_secret(store, from, reference, field)?;
    client_certificate(store, &target)
        .map_err(|problem| (Code::ListenerInvalidCertificateRef, problem.at(format!("{field}.name"))))
}

/// The key of the Secret that a reference names, if the referrer may use it.
fn permitted_secret(
    store: &Store,
    from: Referrer<'_>,
    reference: &SecretObjectReference,
    field: &str,
) -> Result<ObjectKey, (Code, Diagnostic)> {
    if reference.group != CORE_GROUP || reference.kind != Kind::Secret.name() {
        let (kind, field) = if reference.group == CORE_GROUP {
            (reference.kind.clone(), format!("{field}.kind"))
        } else {
            (format!("{}/{}", reference.group, reference.kind), format!("{field}.group"))
        };
        let message = format!("certificates of kind {kind} cannot be used");
        let problem = Diagnostic::error(field, message, "refer to a Secret of type kubernetes.io/tls");
        return Err((Code::ListenerInvalidCertificateRef, problem));
    }
    let target = ObjectKey::new(reference.namespace.as_deref().unwrap_or(from.namespace), &reference.name);
    // Permission is checked before existence, so that an object without permission does not reveal whether the Secret
    // exists.
    let crossing = CrossNamespaceReference { from, to: Kind::Secret, target: &target };
    match crossing.is_allowed(store) {
        true => Ok(target),
        false => Err((Code::ListenerRefNotPermitted, crossing.problem(store, format!("{field}.namespace")))),
    }
}

/// The certificate in a Secret. The diagnostic about the Secret has no field.
pub(super) fn from_secret(
    store: &Store,
    secrets: &mut SecretCache,
    target: &ObjectKey,
) -> Result<Arc<Certificate>, Diagnostic> {
    let Some(secret) = store.secrets.get(target) else {
        return Err(missing_object(store, "", Kind::Secret, target));
    };
    secrets.parse(secret).map_err(|problem| with_secret_name(target, problem))
}

/// The client certificate for TLS to backends. The diagnostic about the Secret has no field.
pub(super) fn client_certificate(store: &Store, target: &ObjectKey) -> Result<Arc<CertifiedKey>, Diagnostic> {
    let Some(secret) = store.secrets.get(target) else {
        return Err(missing_object(store, "", Kind::Secret, target));
    };
    let certified = read_certified_key(secret).map_err(|problem| with_secret_name(target, problem))?;
    Ok(Arc::new(certified))
}

/// Adds the name of the Secret to a diagnostic about its content. No diagnostic quotes the content itself.
fn with_secret_name(target: &ObjectKey, problem: Diagnostic) -> Diagnostic {
    Diagnostic { message: format!("Secret {target} {}", problem.message), ..problem }
}

fn parse_certificate(key: &ObjectKey, secret: &Secret) -> Result<Certificate, Diagnostic> {
    let certified = read_certified_key(secret)?;
    // `read_certified_key` has already rejected a chain with a block that cannot be parsed.
    let chain: Vec<_> =
        certified.cert.iter().filter_map(|der| Some(x509_parser::parse_x509_certificate(der).ok()?.1)).collect();
    let first_to_expire =
        chain.iter().map(|certificate| certificate.validity()).min_by_key(|validity| validity.not_after.timestamp());
    let (starts, expires) = first_to_expire
        .map(|validity| (validity.not_before.timestamp(), validity.not_after.timestamp()))
        .unwrap_or_default();
    let names = chain.first().map(dns_names).unwrap_or_default();
    drop(chain);
    Ok(Certificate {
        secret: Arc::from(key.to_string()),
        names: names.into(),
        expires,
        lifetime: expires - starts,
        key: Arc::new(certified),
    })
}

/// The names in the certificate's subjectAltName. The subject's common name does not count (RFC 9525, section 2).
fn dns_names(certificate: &X509Certificate<'_>) -> Vec<HostPattern> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = extension.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(HostPattern::parse(Some(name))),
        _ => None,
    });
    names.collect()
}

/// The certificate chain with its private key. The message of an error continues a sentence that starts with
/// the name of the Secret.
fn read_certified_key(secret: &Secret) -> Result<CertifiedKey, Diagnostic> {
    let problem = |message: String, remedy: &str| Diagnostic::of_object(message, remedy);
    let value = |key: &str| {
        secret.value(key).filter(|bytes| !bytes.is_empty()).ok_or_else(|| {
            problem(format!("has no {key}"), "store the PEM of certificate and key under tls.crt and tls.key")
        })
    };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(value(CERTIFICATE_ENTRY)?).collect::<Result<_, pem::Error>>().map_err(|_| {
            problem(format!("has a {CERTIFICATE_ENTRY} that is not PEM"), "store the certificate chain as PEM")
        })?;
    if chain.is_empty() {
        let message = format!("has a {CERTIFICATE_ENTRY} without a certificate");
        return Err(problem(
            message,
            "store the chain as PEM blocks BEGIN CERTIFICATE, the server's certificate first",
        ));
    }
    for certificate in &chain {
        if x509_parser::parse_x509_certificate(certificate).is_err() {
            let message = format!("has a {CERTIFICATE_ENTRY} with a block that is not an X.509 certificate");
            return Err(problem(message, "store the certificate chain as it was issued"));
        }
    }
    let key = PrivateKeyDer::from_pem_slice(value(PRIVATE_KEY_ENTRY)?).map_err(|_| {
        problem(
            format!("has a {PRIVATE_KEY_ENTRY} that is not a private key in PEM"),
            "store the key as a block BEGIN PRIVATE KEY",
        )
    })?;
    certified_key(chain, &key).map_err(|found| match found {
        KeyProblem::Unsupported => problem(
            format!("has a {PRIVATE_KEY_ENTRY} of an unsupported type or size"),
            &format!("use {SUPPORTED_KEYS}"),
        ),
        KeyProblem::OtherCertificate => problem(
            format!(
                "has a {PRIVATE_KEY_ENTRY} that does not belong to the first certificate of its {CERTIFICATE_ENTRY}"
            ),
            "store the key that the certificate was issued for, and the server's certificate first",
        ),
    })
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
    fn expiry_and_lifetime_come_from_first_expiring_certificate() {
        let day = |day| rcgen::date_time_ymd(2030, 1, day);
        let key = rcgen::KeyPair::generate().unwrap();
        let self_signed = |from, until| {
            let mut parameters = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
            (parameters.not_before, parameters.not_after) = (day(from), day(until));
            parameters.self_signed(&key).unwrap().pem()
        };
        let chain = [self_signed(2, 20), self_signed(1, 8), self_signed(1, 30)].concat();
        let certificate =
            parse_certificate(&ObjectKey::new("ns", "tls"), &secret(&chain, &key.serialize_pem())).unwrap();
        assert_eq!((certificate.expires, certificate.lifetime), (day(8).unix_timestamp(), 7 * 86400));
    }

    #[test]
    fn invalid_or_mismatched_key_and_certificate_are_rejected() {
        let self_signed = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(vec!["b.example".to_owned()]).unwrap();
        let (certificate, key) = (self_signed.cert.pem(), self_signed.signing_key.serialize_pem());
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
            let problem = read_certified_key(&secret(certificate, key)).err();
            match (problem, expected) {
                (None, None) => {}
                (Some(problem), Some(expected)) => assert!(problem.message.contains(expected), "{problem:?}"),
                (problem, expected) => panic!("expected {expected:?}, got {problem:?}"),
            }
        }
    }
}
