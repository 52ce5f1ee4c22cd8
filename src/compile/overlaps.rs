//! HTTPS listeners of one port that a client may take for each other: it reuses a connection for every host that the
//! certificate it was shown is good for, and so its requests may come to the wrong listener (RFC 9113, section 9.1.1).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::hostname::intersects;
use super::verdict::{Code, Condition, Problem};
use crate::api::gateway::Listener;
use crate::snapshot::certs::{Certificates, covers};
use crate::snapshot::host::HostPattern;

/// The condition of every listener that overlaps with another one, by its place in the list.
pub(super) fn find(listeners: &[Listener], certificates: &[Arc<Certificates>]) -> BTreeMap<usize, Condition> {
    let entries: Vec<_> = listeners
        .iter()
        .zip(certificates)
        .enumerate()
        .filter(|(_, (listener, _))| listener.protocol == "HTTPS")
        .map(|(index, (listener, certificates))| Entry {
            index,
            listener,
            hostname: HostPattern::parse(listener.hostname.as_deref()),
            certificates,
        })
        .collect();
    let others = |entry: &Entry<'_>| {
        let (index, port) = (entry.index, entry.listener.port);
        entries.iter().filter(move |other| other.index != index && other.listener.port == port)
    };
    let mut found = BTreeMap::new();
    for entry in &entries {
        let field = format!("spec.listeners[{}]", entry.index);
        if let Some(other) = others(entry).find(|other| intersects(&other.hostname, &entry.hostname)) {
            let message = format!("the hostname overlaps with that of listener {}", other.listener.name);
            let remedy =
                "a request over the connection of the wrong one is misdirected; use hostnames apart to avoid it";
            let problem = Problem::new(format!("{field}.hostname"), message, remedy);
            found.insert(entry.index, Condition::new(Code::ListenerOverlappingHostnames, vec![problem]));
        } else if let Some(other) = others(entry).find(|other| entry.is_good_for(other) || other.is_good_for(entry)) {
            let name = &other.listener.name;
            let message = if entry.is_good_for(other) {
                format!("a certificate is good for hosts of listener {name} too")
            } else {
                format!("a certificate of listener {name} is good for hosts of this one too")
            };
            let remedy =
                "a request over the connection of the wrong one is misdirected; use certificates apart to avoid it";
            let problem = Problem::new(format!("{field}.tls.certificateRefs"), message, remedy);
            found.insert(entry.index, Condition::new(Code::ListenerOverlappingCertificates, vec![problem]));
        }
    }
    found
}

struct Entry<'l> {
    index: usize,
    listener: &'l Listener,
    hostname: HostPattern,
    certificates: &'l Certificates,
}

impl Entry<'_> {
    /// Whether a certificate of this listener is good for a host of the other one.
    fn is_good_for(&self, other: &Entry<'_>) -> bool {
        let mut names = self.certificates.all().iter().flat_map(|certificate| &certificate.names);
        names.any(|name| reaches(name, &other.hostname))
    }
}

/// Whether a certificate's name is good for some host of a listener.
fn reaches(name: &HostPattern, hostname: &HostPattern) -> bool {
    match hostname {
        HostPattern::Exact(host) => covers(name, host),
        // The wildcard of a certificate stands for one label, so it is inside of the listener's or apart from it.
        HostPattern::Wildcard(suffix) => match name {
            HostPattern::Wildcard(own) => own == suffix || intersects(&HostPattern::Exact(own.clone()), hostname),
            HostPattern::Exact(_) | HostPattern::Any => intersects(name, hostname),
        },
        HostPattern::Any => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_certificates_reach_hosts_of_listeners() {
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
            assert_eq!(reaches(&name, &hostname), expected, "{name} and {hostname}");
        }
    }
}
