//! Certificates of a listener, and how the server name selects one: exact name, wildcard, or else the first.

use std::fmt;
use std::sync::Arc;

use rustls::sign::CertifiedKey;

use super::client_validation::ClientValidation;
use super::host::{HostMap, HostPattern};

/// A certificate with its key, from a Secret or generated.
pub struct Certificate {
    /// `namespace/name` of the Secret, or `SELF_GENERATED`.
    pub secret: Arc<str>,
    pub key: Arc<CertifiedKey>,
    /// The DNS names of the certificate, in lower case.
    pub names: Box<[HostPattern]>,
    /// The earliest expiry among the certificates of the chain, in seconds since 1970.
    pub expires: i64,
    /// The validity period of the certificate with the earliest expiry, in seconds.
    pub lifetime: i64,
}

/// The value of [`Certificate::secret`] for a certificate that the process generated.
pub const SELF_GENERATED: &str = "generated at startup";

impl Certificate {
    /// Whether the process generated this certificate, so that every replica has a different one.
    pub fn is_self_generated(&self) -> bool {
        &*self.secret == SELF_GENERATED
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Certificate").field("secret", &self.secret).field("names", &self.names).finish()
    }
}

/// The certificates of one listener. Without any, TLS handshakes fail.
#[derive(Debug, Default)]
pub struct Certificates {
    all: Box<[Arc<Certificate>]>,
    /// The certificates by their DNS names; empty if there is only one certificate, which is always used.
    by_dns_name: HostMap<NamedCertificates>,
    /// How clients are verified; `None` if they are not asked for a certificate.
    client_validation: Option<Arc<ClientValidation>>,
}

/// The certificates with one DNS name.
#[derive(Clone, Debug)]
struct NamedCertificates {
    /// The key in the map, repeated here because a lookup returns only the value.
    pattern: HostPattern,
    certificates: Vec<Arc<Certificate>>,
}

impl Certificates {
    /// `all` is in the order of the listener's references, which decides between equal matches.
    pub fn new(all: Vec<Arc<Certificate>>) -> Self {
        let mut by_dns_name: std::collections::BTreeMap<&HostPattern, Vec<Arc<Certificate>>> = Default::default();
        for certificate in all.iter().filter(|_| all.len() > 1) {
            for name in &certificate.names {
                by_dns_name.entry(name).or_default().push(Arc::clone(certificate));
            }
        }
        let by_dns_name = by_dns_name.into_iter().map(|(pattern, certificates)| {
            let named = NamedCertificates { pattern: pattern.clone(), certificates };
            (pattern.clone(), named)
        });
        let by_dns_name = by_dns_name.collect();
        Certificates { all: all.into(), by_dns_name, client_validation: None }
    }

    /// The same certificates, for clients that are verified.
    pub fn with_client_validation(self, client_validation: Option<Arc<ClientValidation>>) -> Self {
        Certificates { client_validation, ..self }
    }

    pub fn client_validation(&self) -> Option<&Arc<ClientValidation>> {
        self.client_validation.as_ref()
    }

    /// The certificates by preference for a server name: those with the exact name, those with a wildcard that covers
    /// it, then all in their listed order. The caller takes the first whose key type the client supports.
    pub fn by_preference(&self, name: Option<&str>) -> impl Iterator<Item = &Arc<Certificate>> {
        let named = name.into_iter().flat_map(|name| {
            let covers_name = move |named: &&NamedCertificates| certificate_name_covers(&named.pattern, name);
            self.by_dns_name.candidates(name).filter(covers_name).flat_map(|named| &named.certificates)
        });
        named.chain(&self.all)
    }

    pub fn all(&self) -> &[Arc<Certificate>] {
        &self.all
    }
}

/// Equal if both hold the same `Arc`s in the same order, and verify clients in the same way.
impl PartialEq for Certificates {
    fn eq(&self, other: &Self) -> bool {
        self.client_validation == other.client_validation
            && self.all.len() == other.all.len()
            && self.all.iter().zip(&other.all).all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

/// Whether a certificate's name covers a host. A certificate's wildcard stands for one label (RFC 9525, section 6.3); a
/// listener's stands for any number.
pub fn certificate_name_covers(name: &HostPattern, host: &str) -> bool {
    match name {
        HostPattern::Exact(name) => **name == *host,
        HostPattern::Wildcard(suffix) => host.split_once('.').is_some_and(|(_, parent)| *parent == **suffix),
        HostPattern::Any => false,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A certificate for these names; `secret` distinguishes it from others.
    pub(crate) fn certificate(secret: &str, names: &[&str]) -> Arc<Certificate> {
        let generated =
            rcgen::generate_simple_self_signed(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let generated = generated.unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(generated.signing_key.serialize_der()).unwrap();
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
        Arc::new(Certificate {
            secret: secret.into(),
            key: Arc::new(CertifiedKey::new(vec![generated.cert.der().clone()], key)),
            names: names.iter().map(|name| HostPattern::parse(Some(name))).collect(),
            expires: 0,
            lifetime: 0,
        })
    }

    #[test]
    fn best_matching_certificate_comes_first() {
        let certificates = Certificates::new(vec![
            certificate("wild", &["*.example.com"]),
            certificate("deep", &["*.b.example.com", "c.example.org"]),
            certificate("exact", &["a.example.com", "c.example.org"]),
        ]);
        for (name, expected) in [
            (Some("a.example.com"), "exact"),
            (Some("x.example.com"), "wild"),
            (Some("x.b.example.com"), "deep"),
            (Some("c.example.org"), "deep"),
            // A certificate's wildcard covers one label, so none matches and the first is used.
            (Some("x.y.example.com"), "wild"),
            (Some("example.com"), "wild"),
            (Some("elsewhere"), "wild"),
            (None, "wild"),
        ] {
            let found = certificates.by_preference(name).next().map(|certificate| &*certificate.secret);
            assert_eq!(found, Some(expected), "{name:?}");
        }
        assert!(Certificates::default().by_preference(Some("a.example.com")).next().is_none());
    }
}
