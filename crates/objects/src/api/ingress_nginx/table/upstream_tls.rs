//! TLS to the backend. Nothing of it has an effect without `proxy-ssl-secret`.

use super::super::annotation::OnBadValue::{Default, Deny503, Reject};
use super::super::characters::CharacterSet;
use super::super::value::ValueKind;
use super::row::{COUNT, ON_OFF, Row, host};

pub(super) const UPSTREAM_TLS: &[Row] = &[
    host("proxy-ssl-secret", ValueKind::QualifiedReference, "", Reject)
        .wrong_form(Deny503)
        .says("Names the Secret with the client certificate and the authorities for the backend."),
    host("proxy-ssl-verify", ON_OFF, "off", Default).says("Verifies the certificate of the backend."),
    host("proxy-ssl-verify-depth", COUNT, "1", Default)
        .says("Sets the longest permitted chain of certificates of the backend."),
    host("proxy-ssl-name", ValueKind::ServerName, "", Default)
        .says("Sets the name that the certificate of the backend must have."),
    host("proxy-ssl-server-name", ON_OFF, "off", Default)
        .says("Sends the name of the server in the TLS handshake with the backend."),
    host("proxy-ssl-protocols", PROTOCOLS, "TLSv1.2", Default).says("Lists the versions of TLS to the backend."),
    host("proxy-ssl-ciphers", ValueKind::SpacedText(CharacterSet::Ciphers), "DEFAULT", Default)
        .says("Lists the ciphers of TLS to the backend."),
];

const PROTOCOLS: ValueKind = ValueKind::Words(&["TLSv1.2", "TLSv1.3"]);
