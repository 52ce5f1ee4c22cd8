//! What handshakes for a host may use: the annotations `ssl-ciphers` and `ssl-prefer-server-ciphers`, and the keys of
//! the ConfigMap with their names and `ssl-protocols`. The flags of Portico limit these in turn.
//!
//! Of several Ingresses of a host, the oldest one with an annotation decides about it; only those of the namespace of
//! the oldest Ingress count.

use std::collections::BTreeSet;

use super::cipher_list;
use super::config_map::NginxConfig;
use super::handshake_annotations::{CIPHERS, HostCiphers, PREFERENCE, of_annotations};
use super::host_facts::NginxHosts;
use super::value_reader::ValueReader;
use crate::api::Object;
use crate::api::networking::Ingress;
use crate::snapshot::handshake_limits::SuiteChoice;
use crate::snapshot::host::HostPattern;

/// Reads the annotations of an Ingress, and reports what has no effect. `named`: its hosts.
pub(super) fn report(
    reader: &mut ValueReader<'_>,
    hosts: &NginxHosts,
    ingress: &Object<Ingress>,
    named: &BTreeSet<HostPattern>,
) {
    let prefers_server = reader.text(PREFERENCE).is_some();
    let Some(text) = reader.text(CIPHERS) else {
        return if prefers_server {
            report_others(reader, hosts, ingress, named, PREFERENCE)
        };
    };
    let list = cipher_list::parse(text);
    if list.suites.is_empty() {
        let message = "it names no cipher suite that is supported, so clients of its hosts need TLS 1.3".to_owned();
        reader.warn(CIPHERS, message, cipher_list::REMEDY);
    } else if let Some(unknown) = list.unknown_in_words() {
        reader.warn(CIPHERS, unknown, cipher_list::REMEDY);
    }
    report_others(reader, hosts, ingress, named, CIPHERS);
}

/// Reports the hosts about which another Ingress decides.
fn report_others(
    reader: &mut ValueReader<'_>,
    hosts: &NginxHosts,
    ingress: &Object<Ingress>,
    named: &BTreeSet<HostPattern>,
    name: &'static str,
) {
    for host in named.iter().filter(|host| hosts.belongs_to(host, ingress)) {
        let of_host = hosts.ciphers(host);
        let own = of_annotations(reader);
        let is_other = match name {
            CIPHERS => own.list != of_host.list,
            _ => own.prefers_server != of_host.prefers_server,
        };
        if is_other {
            let message = format!("an older Ingress, or another namespace, decides about the ciphers of {host}");
            reader.note(name, &message, "write the annotation in the oldest Ingress of the host");
        }
    }
}

/// What handshakes for a host may use. `None` for all that is permitted.
pub(super) fn choice(config: &NginxConfig, of_host: HostCiphers) -> Option<SuiteChoice> {
    let (permits_tls12, permits_tls13) = config.tls_versions;
    let list = of_host.list.or_else(|| config.ciphers.clone());
    let choice = SuiteChoice {
        permits_tls12,
        permits_tls13,
        tls12: list.map(|list| cipher_list::parse(&list).suites.into()),
        prefers_server: of_host.prefers_server.or(config.prefers_server_ciphers),
    };
    (choice != SuiteChoice::default()).then_some(choice)
}
