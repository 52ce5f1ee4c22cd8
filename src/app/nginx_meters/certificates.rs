//! The certificates of hosts: when they expire, and which authority has issued them.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::snapshot::Snapshot;
use crate::snapshot::certs::Certificate;

/// Encodes both families. Only as many certificates as `max_series` have series: those that expire first.
pub(super) fn encode(
    encoder: &mut DescriptorEncoder<'_>,
    snapshot: &Snapshot,
    class: &str,
    max_series: usize,
) -> fmt::Result {
    let found = served(snapshot, max_series);
    let base = |of_host: &'_ ServedCertificate| {
        let ServedCertificate { namespace, host, secret, facts, .. } = of_host;
        let texts =
            [("namespace", namespace), ("host", host), ("secret_name", secret), ("identifier", &facts.identifier)];
        let mut labels = vec![("class", class.to_owned())];
        labels.extend(texts.map(|(name, text)| (name, text.clone())));
        labels
    };
    let help = "When a certificate, or one of its chain, expires, in Unix time";
    let mut expiry =
        encoder.encode_descriptor("nginx_ingress_controller_ssl_expire_time_seconds", help, None, MetricType::Gauge)?;
    for certificate in &found {
        expiry.encode_family(&base(certificate))?.encode_gauge(&certificate.expires)?;
    }
    let help = "The issuer and the key of a certificate; always 1";
    let mut info =
        encoder.encode_descriptor("nginx_ingress_controller_ssl_certificate_info", help, None, MetricType::Gauge)?;
    for certificate in &found {
        let CertificateFacts { issuer_organization, issuer_common_name, serial_number, key_algorithm, .. } =
            &certificate.facts;
        let mut labels = base(certificate);
        labels.extend([
            ("issuer_organization", issuer_organization.clone()),
            ("issuer_common_name", issuer_common_name.clone()),
            ("serial_number", serial_number.clone()),
            ("public_key_algorithm", (*key_algorithm).to_owned()),
        ]);
        info.encode_family(&labels)?.encode_gauge(&1_u64)?;
    }
    Ok(())
}

/// A certificate of a host.
#[derive(Debug)]
struct ServedCertificate {
    namespace: String,
    /// The name of the Secret.
    secret: String,
    host: String,
    expires: i64,
    facts: CertificateFacts,
}

/// What a certificate says. Texts that it lacks are empty.
#[derive(Debug, Default, PartialEq)]
struct CertificateFacts {
    /// The serial numbers of the issuer and of the certificate.
    identifier: String,
    issuer_organization: String,
    issuer_common_name: String,
    serial_number: String,
    key_algorithm: &'static str,
}

/// Each host and Secret once, whichever listeners have them. Certificates that the process made are in no Secret.
fn served(snapshot: &Snapshot, max_series: usize) -> Vec<ServedCertificate> {
    let tables = snapshot.http_binds().filter_map(|bind| bind.tls.as_ref());
    let of_hosts = tables.flat_map(|tls| tls.certificates());
    let mut by_host: BTreeMap<(String, &str), &Certificate> = BTreeMap::new();
    for (host, certificates) in of_hosts {
        for certificate in certificates.all().iter().filter(|certificate| !certificate.is_self_generated()) {
            by_host.insert((host.to_string(), &certificate.secret), certificate);
        }
    }
    let mut found: Vec<_> = by_host.into_iter().collect();
    found.sort_by_key(|(_, certificate)| certificate.expires);
    found.truncate(max_series);
    let describe = |((host, secret), certificate): ((String, &str), &Certificate)| {
        let (namespace, secret) = secret.split_once('/').unwrap_or(("", secret));
        let leaf = certificate.key.cert.first().map(|der| facts(der)).unwrap_or_default();
        ServedCertificate {
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            host,
            expires: certificate.expires,
            facts: leaf,
        }
    };
    found.into_iter().map(describe).collect()
}

fn facts(der: &[u8]) -> CertificateFacts {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return CertificateFacts::default() };
    let issuer = certificate.issuer();
    let serial_number = certificate.tbs_certificate.serial.to_string();
    CertificateFacts {
        identifier: format!("{}-{serial_number}", text(issuer, |name| name == SERIAL_NUMBER)),
        issuer_organization: text(issuer, |name| name == ORGANIZATION),
        issuer_common_name: text(issuer, |name| name == COMMON_NAME),
        serial_number,
        key_algorithm: key_algorithm(&certificate.public_key().algorithm.algorithm.to_id_string()),
    }
}

/// The first attribute of a name whose type is one.
fn text(name: &X509Name<'_>, is_wanted: impl Fn(&str) -> bool) -> String {
    let has_type = |attribute: &&AttributeTypeAndValue<'_>| is_wanted(&attribute.attr_type().to_id_string());
    let found = name.iter_attributes().find(has_type);
    found.and_then(|attribute| attribute.as_str().ok()).unwrap_or_default().to_owned()
}

/// The name of an algorithm in ingress-nginx; `0` for one that it does not know.
fn key_algorithm(id: &str) -> &'static str {
    match id {
        "1.2.840.113549.1.1.1" => "RSA",
        "1.2.840.10045.2.1" => "ECDSA",
        "1.2.840.10040.4.1" => "DSA",
        "1.3.101.112" => "Ed25519",
        _ => "0",
    }
}

/// Types of attributes (RFC 4519).
const COMMON_NAME: &str = "2.5.4.3";
const SERIAL_NUMBER: &str = "2.5.4.5";
const ORGANIZATION: &str = "2.5.4.10";

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SerialNumber};

    use super::*;

    #[test]
    fn issuer_and_serial_number_are_those_of_the_certificate() {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "Root 1");
        authority.distinguished_name.push(DnType::OrganizationName, "Example Inc.");
        let authority = Issuer::new(authority, KeyPair::generate().unwrap());
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(4711_u64));
        let certificate = params.signed_by(&KeyPair::generate().unwrap(), &authority).unwrap();
        let expected = CertificateFacts {
            identifier: "-4711".to_owned(),
            issuer_organization: "Example Inc.".to_owned(),
            issuer_common_name: "Root 1".to_owned(),
            serial_number: "4711".to_owned(),
            key_algorithm: "ECDSA",
        };
        assert_eq!(facts(certificate.der()), expected);
        assert_eq!(facts(b"no certificate"), CertificateFacts::default());
    }
}
