//! The identity that a BackendTLSPolicy requires of an endpoint, instead of the Host of requests.

use http::HeaderValue;
use rustls::CertificateError;
use rustls::pki_types::{CertificateDer, DnsName, ServerName};
use webpki::EndEntityCert;
use x509_parser::extensions::GeneralName;

use super::DigestBuilder;

/// The server name for all handshakes, and the names of which the certificate of the endpoint must have one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointIdentity {
    /// A DNS name. It is also the required name if `alternatives` is empty.
    pub server_name: HeaderValue,
    pub alternatives: Box<[IdentityName]>,
}

/// A subject alternative name that a certificate may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityName {
    Dns(DnsName<'static>),
    /// The domain after the wildcard: the certificate has the wildcard name itself, or one with a single label before
    /// the domain.
    DnsWildcard(Box<str>),
    /// For example a SPIFFE ID. Compared byte by byte.
    Uri(Box<str>),
}

impl EndpointIdentity {
    pub(super) fn add_to(&self, digest: &mut DigestBuilder) {
        digest.add(self.server_name.as_bytes());
        for name in &self.alternatives {
            let (kind, text) = match name {
                IdentityName::Dns(name) => (b"dns", name.as_ref()),
                IdentityName::DnsWildcard(domain) => (b"any", &**domain),
                IdentityName::Uri(uri) => (b"uri", &**uri),
            };
            digest.add(kind);
            digest.add(text.as_bytes());
        }
    }

    /// Whether the certificate has one of the names. None without alternatives: then the server name counts.
    pub(super) fn verify(
        &self,
        certificate: &CertificateDer<'_>,
        parsed: &EndEntityCert<'_>,
    ) -> Option<Result<(), CertificateError>> {
        if self.alternatives.is_empty() {
            return None;
        }
        let has_name = |name: &IdentityName| match name {
            IdentityName::Dns(name) => {
                parsed.verify_is_valid_for_subject_name(&ServerName::DnsName(name.borrow())).is_ok()
            }
            IdentityName::DnsWildcard(domain) => has_alternative(certificate, |name| match name {
                GeneralName::DNSName(name) => {
                    let rest = name.split_once('.').map(|(_, rest)| rest);
                    rest.is_some_and(|rest| rest.eq_ignore_ascii_case(domain))
                }
                _ => false,
            }),
            IdentityName::Uri(uri) => {
                has_alternative(certificate, |name| matches!(name, GeneralName::URI(found) if **found == **uri))
            }
        };
        Some(match self.alternatives.iter().any(has_name) {
            true => Ok(()),
            false => Err(CertificateError::NotValidForName),
        })
    }
}

/// Whether a subject alternative name of the certificate satisfies `is_searched`.
fn has_alternative(certificate: &CertificateDer<'_>, is_searched: impl Fn(&GeneralName<'_>) -> bool) -> bool {
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else { return false };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return false };
    names.value.general_names.iter().any(is_searched)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn certificate(names: Vec<SanType>) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn one_of_the_alternatives_suffices() {
        let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
        let uri = |uri: &str| SanType::URI(uri.try_into().unwrap());
        let exact = |name: &str| IdentityName::Dns(DnsName::try_from(name.to_owned()).unwrap());
        let (wildcard, spiffe) =
            (IdentityName::DnsWildcard("a.example".into()), IdentityName::Uri("spiffe://cluster/a".into()));
        for (names, required, is_valid) in [
            (vec![dns("x.example")], vec![exact("x.example")], true),
            (vec![dns("*.a.example")], vec![exact("x.a.example")], true),
            (vec![dns("y.example")], vec![exact("x.example")], false),
            // The server name does not count.
            (vec![dns("server.example")], vec![exact("x.example")], false),
            (vec![dns("y.example")], vec![exact("x.example"), exact("y.example")], true),
            (vec![dns("x.A.example")], vec![wildcard.clone()], true),
            (vec![dns("*.a.example")], vec![wildcard.clone()], true),
            (vec![dns("x.y.a.example")], vec![wildcard.clone()], false),
            (vec![dns("a.example")], vec![wildcard], false),
            (vec![uri("spiffe://cluster/a")], vec![spiffe.clone()], true),
            (vec![uri("spiffe://cluster/a/b"), dns("server.example")], vec![spiffe], false),
        ] {
            let (der, context) = (certificate(names.clone()), format!("{names:?} {required:?}"));
            let identity = EndpointIdentity {
                server_name: HeaderValue::from_static("server.example"),
                alternatives: required.into(),
            };
            let verified = identity.verify(&der, &EndEntityCert::try_from(&der).unwrap()).unwrap();
            assert_eq!(verified.is_ok(), is_valid, "{context}");
        }
    }
}
