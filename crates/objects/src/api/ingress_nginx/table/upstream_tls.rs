//! TLS to the backend. Nothing of it has an effect without `proxy-ssl-secret`.

use super::super::annotation::AnnotationRisk::{High, Low, Medium};
use super::super::annotation::AnnotationTier::A;
use super::super::annotation::OnBadValue::{Default, Deny503, Reject};
use super::super::characters::CharacterSet;
use super::super::value::ValueKind;
use super::row::{COUNT, ON_OFF, Row, host};

pub(super) const UPSTREAM_TLS: &[Row] = &[
    host("proxy-ssl-secret", A, Medium, ValueKind::QualifiedReference, "", Reject)
        .wrong_form(Deny503)
        .says("Names the Secret with the client certificate and the authorities for the backend."),
    host("proxy-ssl-verify", A, Low, ON_OFF, "off", Default).says("Verifies the certificate of the backend."),
    host("proxy-ssl-verify-depth", A, Low, COUNT, "1", Default)
        .says("Sets the longest permitted chain of certificates of the backend."),
    host("proxy-ssl-name", A, High, ValueKind::ServerName, "", Default)
        .says("Sets the name that the certificate of the backend must have."),
    host("proxy-ssl-server-name", A, Low, ON_OFF, "off", Default)
        .says("Sends the name of the server in the TLS handshake with the backend."),
    host("proxy-ssl-protocols", A, Low, PROTOCOLS, "TLSv1.2", Default)
        .says("Lists the versions of TLS to the backend."),
    host("proxy-ssl-ciphers", A, Medium, ValueKind::SpacedText(CharacterSet::Ciphers), "DEFAULT", Default)
        .says("Lists the ciphers of TLS to the backend."),
];

const PROTOCOLS: ValueKind = ValueKind::Words(&["TLSv1.2", "TLSv1.3"]);
