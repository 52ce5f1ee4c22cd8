//! Finds listeners of one port between which clients may share connections.
//!
//! A client reuses a connection for every host that the server's certificate covers (RFC 9113, section 9.1.1), so its
//! requests may arrive at the wrong HTTPS listener, or at an HTTPS listener instead of the backend of a TLS listener.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::hostname::intersects;
use super::listener_protocol::ListenerProtocol;
use super::verdict::{Code, Condition};
use crate::api::gateway::Listener;
use crate::diagnostic::Diagnostic;
use crate::snapshot::certs::{Certificates, certificate_name_covers};
use crate::snapshot::host::HostPattern;

/// The condition of every listener that overlaps with another one, by index.
pub(super) fn find(listeners: &[Listener], certificates: &[Arc<Certificates>]) -> BTreeMap<usize, Condition> {
    let mut tls_listeners = Vec::new();
    for (index, (listener, certificates)) in listeners.iter().zip(certificates).enumerate() {
        let protocol = ListenerProtocol::from_listener(listener);
        if protocol.terminates_tls() || protocol == ListenerProtocol::TlsPassthrough {
            let hostname = HostPattern::parse(listener.hostname.as_deref());
            tls_listeners.push(OverlapCandidate { index, listener, protocol, hostname, certificates });
        }
    }
    // Clients of listeners that forward connections do not send requests of HTTP to Portico on them.
    let others_of_port = |this: &OverlapCandidate<'_>| {
        let (index, port, protocol) = (this.index, this.listener.port, this.protocol);
        tls_listeners.iter().filter(move |other| {
            let has_https = [protocol, other.protocol].contains(&ListenerProtocol::Https);
            other.index != index && other.listener.port == port && has_https
        })
    };
    let mut conditions = BTreeMap::new();
    for this in &tls_listeners {
        let field = format!("spec.listeners[{}]", this.index);
        if let Some(other) = others_of_port(this).find(|other| intersects(&other.hostname, &this.hostname)) {
            let message = format!("the hostname overlaps with that of listener {}", other.listener.name);
            let remedy = "to avoid misdirected requests on shared connections, use hostnames that do not overlap";
            let problem = Diagnostic::error(format!("{field}.hostname"), message, remedy);
            conditions.insert(this.index, Condition::new(Code::ListenerOverlappingHostnames, vec![problem]));
        } else if let Some(other) =
            others_of_port(this).find(|other| this.covers_host_of(other) || other.covers_host_of(this))
        {
            let name = &other.listener.name;
            let message = if this.covers_host_of(other) {
                format!("a certificate also covers hosts of listener {name}")
            } else {
                format!("a certificate of listener {name} also covers hosts of this listener")
            };
            let remedy = "to avoid misdirected requests on shared connections, use certificates that do not overlap";
            let problem = Diagnostic::error(format!("{field}.tls.certificateRefs"), message, remedy);
            conditions.insert(this.index, Condition::new(Code::ListenerOverlappingCertificates, vec![problem]));
        }
    }
    conditions
}

struct OverlapCandidate<'l> {
    index: usize,
    listener: &'l Listener,
    protocol: ListenerProtocol,
    hostname: HostPattern,
    /// Empty if TLS passes through.
    certificates: &'l Certificates,
}

impl OverlapCandidate<'_> {
    /// Whether a certificate of this listener covers a host of the other one.
    fn covers_host_of(&self, other: &OverlapCandidate<'_>) -> bool {
        let mut names = self.certificates.all().iter().flat_map(|certificate| &certificate.names);
        names.any(|name| covers_listener_host(name, &other.hostname))
    }
}

/// Whether a certificate's name covers a host of a listener.
fn covers_listener_host(name: &HostPattern, hostname: &HostPattern) -> bool {
    match hostname {
        HostPattern::Exact(host) => certificate_name_covers(name, host),
        // A certificate's wildcard covers one label, so it lies within the listener's wildcard or is disjoint from it.
        HostPattern::Wildcard(suffix) => match name {
            HostPattern::Wildcard(domain) => {
                domain == suffix || intersects(&HostPattern::Exact(domain.clone()), hostname)
            }
            HostPattern::Exact(_) | HostPattern::Any => intersects(name, hostname),
        },
        HostPattern::Any => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificate_names_cover_listener_hosts() {
        for (name, hostname, expected) in [
            ("a.example", "a.example", true),
            ("a.example", "b.example", false),
            ("*.example", "a.example", true),
            ("*.example", "a.b.example", false),
            ("*.example", "example", false),
            ("*.example", "*.example", true),
            ("*.b.example", "*.example", true),
            ("*.example", "*.b.example", false),
            ("a.b.example", "*.example", true),
            ("a.example", "", true),
        ] {
            let (name, hostname) = (HostPattern::parse(Some(name)), HostPattern::parse(Some(hostname)));
            assert_eq!(covers_listener_host(&name, &hostname), expected, "{name} and {hostname}");
        }
    }
}
