//! The annotations of an Ingress about handshakes with clients: `ssl-ciphers` and `ssl-prefer-server-ciphers`.

use std::sync::Arc;

use super::value_reader::ValueReader;
use crate::api::ingress_nginx::flag;

/// What the annotations of a host say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HostCiphers {
    pub list: Option<Arc<str>>,
    pub prefers_server: Option<bool>,
}

/// The values of an Ingress, without those that are bad.
pub(super) fn of_annotations(reader: &ValueReader<'_>) -> HostCiphers {
    let mut silent = ValueReader::new(reader.meta);
    HostCiphers { list: silent.text(CIPHERS).map(Arc::from), prefers_server: silent.text(PREFERENCE).and_then(flag) }
}

pub(super) const CIPHERS: &str = "ssl-ciphers";
pub(super) const PREFERENCE: &str = "ssl-prefer-server-ciphers";
