//! The names in a certificate.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

use super::distinguished_name::{name_text, push_escaped};
use crate::plugin_api::subjects::VerifiedSubject;

/// What a certificate says about its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateNames {
    /// The subject alternative names that are text: DNS names, email addresses, URIs and IP addresses, in order.
    pub alternative: Vec<String>,
    /// The common name of the subject.
    pub common: Option<String>,
    /// The subject with the escapes of RFC 4514, in the order of the certificate.
    pub subject: String,
    /// The owner, whatever certificates the client sends with its own.
    pub owner: VerifiedSubject,
    /// When the certificate expires, in seconds since 1970.
    pub expires: i64,
}

impl CertificateNames {
    /// `None` if the certificate cannot be parsed.
    pub(crate) fn parse(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let extension = parsed.subject_alternative_name().ok().flatten();
        let names = extension.iter().flat_map(|extension| &extension.value.general_names);
        let common = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        Some(CertificateNames {
            alternative: names.filter_map(text).collect(),
            common: common.filter(|name| !name.is_empty()).map(str::to_owned),
            subject: name_text(parsed.subject()),
            owner: VerifiedSubject::of_certificate(parsed.tbs_certificate.as_ref()),
            expires: parsed.validity().not_after.timestamp(),
        })
    }

    /// The alternative names as a list for a header. A comma that is part of a name has a backslash in front of it.
    pub(crate) fn alternative_list(&self) -> String {
        let mut list = String::new();
        for (index, name) in self.alternative.iter().enumerate() {
            list.push_str(if index == 0 { "" } else { ", " });
            push_escaped(&mut list, name);
        }
        list
    }

    /// The names by which a consumer may be found: the alternative ones, and then the common name.
    pub(crate) fn all(&self) -> impl Iterator<Item = &str> {
        self.alternative.iter().chain(&self.common).map(String::as_str)
    }
}

fn text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => {
            Some((*text).to_owned()).filter(|text| !text.is_empty())
        }
        GeneralName::IPAddress(bytes) => {
            let mut address = String::new();
            match (<[u8; 4]>::try_from(*bytes), <[u8; 16]>::try_from(*bytes)) {
                (Ok(bytes), _) => write!(address, "{}", Ipv4Addr::from(bytes)).ok()?,
                (_, Ok(bytes)) => write!(address, "{}", Ipv6Addr::from(bytes)).ok()?,
                _ => return None,
            }
            Some(address)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{DnType, SanType};

    use super::*;
    use crate::client_certificate::test_authority::TestAuthority;

    #[test]
    fn names_are_read_in_order() {
        let certificate = TestAuthority::new("ca").issue(|params| {
            params.distinguished_name.push(DnType::OrganizationName, "Shop");
            params.distinguished_name.push(DnType::CommonName, "anna");
            params.subject_alt_names = vec![
                SanType::DnsName("a.example".try_into().unwrap()),
                SanType::Rfc822Name("anna@a.example".try_into().unwrap()),
                SanType::URI("spiffe://a.example/anna".try_into().unwrap()),
                SanType::IpAddress([192, 0, 2, 1].into()),
                SanType::IpAddress("2001:db8::1".parse().unwrap()),
            ];
        });
        let names = CertificateNames::parse(&certificate).unwrap();
        let expected = ["a.example", "anna@a.example", "spiffe://a.example/anna", "192.0.2.1", "2001:db8::1", "anna"];
        assert_eq!(names.all().collect::<Vec<_>>(), expected);
        assert_eq!(names.subject, "O=Shop, CN=anna");
        assert_eq!(names.alternative_list(), expected[..5].join(", "));
        assert_eq!(names.expires, TestAuthority::NOT_AFTER);
    }

    #[test]
    fn a_comma_in_an_alternative_name_makes_no_other_name_of_it() {
        let certificate = TestAuthority::new("ca").issue(|params| {
            let uri = "spiffe://a.example/anna, admin.a.example";
            params.subject_alt_names =
                vec![SanType::URI(uri.try_into().unwrap()), SanType::DnsName("a.example".try_into().unwrap())];
        });
        let names = CertificateNames::parse(&certificate).unwrap();
        assert_eq!(names.alternative_list(), "spiffe://a.example/anna\\, admin.a.example, a.example");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            position in 0_usize..400,
            replacement in any::<u8>(),
        ) {
            let _any = CertificateNames::parse(&CertificateDer::from(bytes));
            let mut damaged = TestAuthority::shared_certificate().to_vec();
            if let Some(byte) = damaged.get_mut(position) {
                *byte = replacement;
            }
            let _damaged = CertificateNames::parse(&CertificateDer::from(damaged));
        }
    }
}
