//! What the endpoint gets of the certificate of a client, made once for a connection.

use data_encoding::BASE64;
use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::CertificateDer;
use x509_parser::parse_x509_certificate;

use super::distinguished_name::name_text;

/// The values of fields about one certificate. `None` for those that are empty or not sent.
#[derive(Debug, Default)]
pub(super) struct CertificateFields {
    pub subject: Option<HeaderValue>,
    pub issuer: Option<HeaderValue>,
    /// The certificate in PEM, with escapes as in URLs.
    pub certificate: Option<HeaderValue>,
}

impl CertificateFields {
    pub(super) fn new(certificate: &CertificateDer<'_>, forwards_certificate: bool) -> Self {
        let value = |text: String| HeaderValue::try_from(text).ok().filter(|value| !value.is_empty());
        let parsed = parse_x509_certificate(certificate).ok().map(|(_, parsed)| parsed);
        CertificateFields {
            subject: parsed.as_ref().and_then(|parsed| value(name_text(parsed.subject()))),
            issuer: parsed.as_ref().and_then(|parsed| value(name_text(parsed.issuer()))),
            certificate: forwards_certificate.then(|| value(escaped_pem(certificate))).flatten(),
        }
    }
}

/// The certificate in PEM, with escapes as in URLs.
pub(super) fn escaped_pem(certificate: &[u8]) -> String {
    let encoded = BASE64.encode(certificate);
    let mut pem = String::with_capacity(encoded.len() + encoded.len() / PEM_COLUMNS + 64);
    pem.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = &*encoded;
    while !rest.is_empty() {
        let (line, others) = rest.split_at(rest.len().min(PEM_COLUMNS));
        pem.push_str(line);
        pem.push('\n');
        rest = others;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    utf8_percent_encode(&pem, ESCAPED_IN_COMPONENTS).to_string()
}

/// RFC 7468, section 2
const PEM_COLUMNS: usize = 64;

/// All but unreserved characters.
const ESCAPED_IN_COMPONENTS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_has_lines_and_escapes() {
        let expected = format!("-----BEGIN%20CERTIFICATE-----%0A{}%0A%2B%2F%2F%2B%0A", "A".repeat(64));
        let text = escaped_pem(&[&[0; 48][..], &[0xfb, 0xff, 0xfe]].concat());
        assert_eq!(text, format!("{expected}-----END%20CERTIFICATE-----%0A"));
    }

    #[test]
    fn certificate_that_cannot_be_parsed_has_no_names() {
        let fields = CertificateFields::new(&CertificateDer::from(vec![1, 2, 3]), true);
        assert!(fields.subject.is_none() && fields.issuer.is_none() && fields.certificate.is_some());
    }
}
