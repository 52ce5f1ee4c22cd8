//! Finds listeners of one port between which clients may share connections.
//!
//! A client reuses a connection for every host that the server's certificate covers (RFC 9113, section 9.1.1), so its
//! requests may arrive at the wrong HTTPS listener, or at an HTTPS listener instead of the backend of a TLS listener.

use std::collections::BTreeMap;

use super::listener::ListenerPlan;
use super::listener_protocol::ListenerProtocol;
use crate::api::Kind;
use crate::compile::objects::hostname::intersects;
use crate::diagnostic::Diagnostic;
use crate::snapshot::certs::{Certificates, certificate_name_covers};
use crate::snapshot::host::HostPattern;
use crate::verdict::{Code, Condition};

/// The condition of every listener of a Gateway and its ListenerSets that overlaps with another one, by its position.
pub(in crate::compile) fn find<'a>(
    listeners: impl Iterator<Item = (&'a ListenerPlan, &'a Certificates)>,
) -> BTreeMap<usize, Condition> {
    let mut ports: BTreeMap<u16, PortOverlaps<'a>> = BTreeMap::new();
    for (position, (plan, certificates)) in listeners.enumerate() {
        let has_tls = plan.protocol.terminates_tls() || plan.protocol == ListenerProtocol::TlsPassthrough;
        // Clients do not share connections with a listener that is refused.
        if has_tls && plan.opens_port() {
            ports.entry(plan.port).or_default().add(OverlapCandidate { position, plan, certificates });
        }
    }
    let mut conditions = BTreeMap::new();
    for port in ports.values() {
        conditions.extend(port.candidates.iter().filter_map(|this| Some((this.position, port.overlap(this)?))));
    }
    conditions
}

/// The number of listeners that are compared with a listener, and of those that overlap, among which the first is
/// chosen for the message. Thousands may have the same wildcard certificate, or hosts below the same domain.
const MAX_COMPARED: usize = 256;
const MAX_CHOICES: usize = 64;

/// The listeners with TLS of one port.
#[derive(Default)]
struct PortOverlaps<'a> {
    candidates: Vec<OverlapCandidate<'a>>,
    hostnames: PatternIndex,
    /// By the names of their certificates.
    certificate_names: PatternIndex,
}

impl<'a> PortOverlaps<'a> {
    fn add(&mut self, candidate: OverlapCandidate<'a>) {
        let at = self.candidates.len();
        self.hostnames.insert(&candidate.plan.hostname, at);
        candidate.names().for_each(|name| self.certificate_names.insert(name, at));
        self.candidates.push(candidate);
    }

    fn overlap(&self, this: &OverlapCandidate<'_>) -> Option<Condition> {
        let field = format!("spec.listeners[{}]", this.plan.index);
        let hostname = &this.plan.hostname;
        let same_host = |other: &OverlapCandidate<'_>| intersects(&other.plan.hostname, hostname);
        if let Some(other) = self.first(this, self.hostnames.intersecting(hostname), same_host) {
            let message = format!("the hostname overlaps with that of {}", other.description(this));
            let remedy = "to avoid misdirected requests on shared connections, use hostnames that do not overlap";
            let problem = Diagnostic::error(format!("{field}.hostname"), message, remedy);
            return Some(Condition::new(Code::ListenerOverlappingHostnames, vec![problem]));
        }
        let of_names = this.names().flat_map(|name| self.hostnames.intersecting(name));
        let covered = self.first(this, of_names, |other| this.covers_host_of(other));
        let covering = self
            .first(this, self.certificate_names.intersecting(hostname), |other| other.covers_host_of(this))
            .filter(|covering| covered.is_none_or(|covered| covering.position < covered.position));
        let message = match (covered, covering) {
            (None, None) => return None,
            (_, Some(other)) if !this.covers_host_of(other) => {
                format!("a certificate of {} also covers hosts of this listener", other.description(this))
            }
            (_, Some(other)) | (Some(other), None) => {
                format!("a certificate also covers hosts of {}", other.description(this))
            }
        };
        let remedy = "to avoid misdirected requests on shared connections, use certificates that do not overlap";
        let problem = Diagnostic::error(format!("{field}.tls.certificateRefs"), message, remedy);
        Some(Condition::new(Code::ListenerOverlappingCertificates, vec![problem]))
    }

    /// The first of these listeners that overlaps. Clients of listeners that forward connections do not send requests
    /// of HTTP to Portico on them.
    fn first(
        &self,
        this: &OverlapCandidate<'_>,
        candidates: impl Iterator<Item = usize>,
        overlaps: impl Fn(&OverlapCandidate<'_>) -> bool,
    ) -> Option<&OverlapCandidate<'a>> {
        let others = candidates.take(MAX_COMPARED).map(|at| &self.candidates[at]).filter(|other| {
            let has_https = [this.plan.protocol, other.plan.protocol].contains(&ListenerProtocol::Https);
            other.position != this.position && has_https && overlaps(other)
        });
        others.take(MAX_CHOICES).min_by_key(|other| other.position)
    }
}

struct OverlapCandidate<'a> {
    position: usize,
    plan: &'a ListenerPlan,
    /// Empty if TLS passes through.
    certificates: &'a Certificates,
}

impl OverlapCandidate<'_> {
    /// The names of the certificates.
    fn names(&self) -> impl Iterator<Item = &HostPattern> {
        self.certificates.all().iter().flat_map(|certificate| &certificate.names)
    }

    /// Whether a certificate of this listener covers a host of the other one.
    fn covers_host_of(&self, other: &OverlapCandidate<'_>) -> bool {
        self.names().any(|name| covers_listener_host(name, &other.plan.hostname))
    }

    /// `listener https`, with its object if that is not the object of `this`.
    fn description(&self, this: &OverlapCandidate<'_>) -> String {
        let (name, declared_by) = (&self.plan.id.name, &self.plan.id.declared_by);
        let viewer = &this.plan.id.declared_by;
        match declared_by.kind {
            _ if declared_by == viewer => format!("listener {name}"),
            Kind::Gateway => format!("listener {name} of the Gateway"),
            // Owners of a namespace must not learn about ListenerSets of others; the owner of the Gateway allows them.
            _ if viewer.kind != Kind::Gateway && viewer.key.namespace != declared_by.key.namespace => {
                "a listener of another ListenerSet".to_owned()
            }
            _ => format!("listener {name} of {declared_by}"),
        }
    }
}

/// Listeners by host patterns, so that those whose pattern may intersect another one are found without looking at all.
#[derive(Default)]
struct PatternIndex {
    /// By the labels in reverse order, each followed by a dot: `example.a.` for a.example and `example.*.` for
    /// *.example. All hosts below a domain are neighbors.
    by_labels: BTreeMap<String, Vec<usize>>,
    /// Those without a host.
    any: Vec<usize>,
}

impl PatternIndex {
    fn insert(&mut self, pattern: &HostPattern, at: usize) {
        let entries = match pattern {
            HostPattern::Any => &mut self.any,
            HostPattern::Exact(host) => self.by_labels.entry(reversed(host)).or_default(),
            HostPattern::Wildcard(suffix) => self.by_labels.entry(reversed(suffix) + WILDCARD_LABEL).or_default(),
        };
        entries.push(at);
    }

    /// The listeners whose pattern may intersect this one, and possibly others.
    fn intersecting(&self, pattern: &HostPattern) -> impl Iterator<Item = usize> {
        let (labels, below) = match pattern {
            HostPattern::Any => (String::new(), Some(String::new())),
            HostPattern::Exact(host) => (reversed(host), None),
            HostPattern::Wildcard(suffix) => (reversed(suffix), Some(reversed(suffix))),
        };
        // The wildcards of all domains above the host, and the host itself.
        let parents = labels.char_indices().filter(|(_, character)| *character == '.').map(|(end, _)| end + 1);
        let mut keys: Vec<String> = parents.map(|end| labels[..end].to_owned() + WILDCARD_LABEL).collect();
        match &below {
            // The range below has this wildcard.
            Some(_) => drop(keys.pop()),
            None => keys.push(labels),
        }
        let above = keys.into_iter().filter_map(|key| self.by_labels.get(&key));
        let below = below.into_iter().flat_map(|prefix| {
            let range = self.by_labels.range(prefix.clone()..);
            range.take_while(move |(key, _)| key.starts_with(&prefix)).map(|(_, entries)| entries)
        });
        above.chain(below).chain([&self.any]).flatten().copied()
    }
}

const WILDCARD_LABEL: &str = "*.";

/// The labels of a host in reverse order, each followed by a dot.
fn reversed(host: &str) -> String {
    let mut reversed = String::with_capacity(host.len() + WILDCARD_LABEL.len() + 1);
    for label in host.rsplit('.') {
        reversed.push_str(label);
        reversed.push('.');
    }
    reversed
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
    fn index_finds_all_intersecting_patterns() {
        let patterns = ["", "a", "*.a", "b.a", "*.b.a", "c.b.a", "*.c.b.a", "bb.a", "a.b", "*.b", "d"];
        let patterns = patterns.map(|pattern| HostPattern::parse(Some(pattern)));
        let mut index = PatternIndex::default();
        patterns.iter().enumerate().for_each(|(at, pattern)| index.insert(pattern, at));
        for pattern in &patterns {
            let found: Vec<usize> = index.intersecting(pattern).collect();
            for (at, other) in patterns.iter().enumerate() {
                let count = found.iter().filter(|found| **found == at).count();
                assert!(count <= 1, "{other} is found {count} times for {pattern}");
                assert!(count == 1 || !intersects(pattern, other), "{other} is not found for {pattern}");
            }
        }
    }

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
