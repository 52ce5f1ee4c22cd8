//! TLS of the host.

use super::super::annotation::OnBadValue::{Default, Reject};
use super::super::value::ValueKind;
use super::row::{Row, host};

pub(super) const TLS: &[Row] = &[
    host("ssl-passthrough", ValueKind::Flag, "false", Reject)
        .says("Passes TLS connections to the backend without decryption."),
    host("ssl-ciphers", ValueKind::CipherList, "", Reject).says("Lists the ciphers of TLS 1.2 for the host."),
    host("ssl-prefer-server-ciphers", ValueKind::Flag, "true", Default)
        .says("Prefers the order of ciphers of the server to that of the client."),
];
