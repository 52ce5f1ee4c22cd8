//! What an Ingress serves under the further names of its hosts.

use std::collections::BTreeSet;

use super::host_facts::NginxHosts;
use super::server_alias::{ANNOTATION, entries, names, patterns};
use super::value_reader::ValueReader;
use crate::api::Object;
use crate::api::networking::{Ingress, IngressRule};
use crate::compile::budgets::MAX_SERVER_ALIASES;
use crate::compile::ingress::plan::HostCertificate;
use crate::snapshot::host::HostPattern;

/// Reports the names without effect. `hosts_of_rules`: those of the Ingress.
pub(super) fn report(
    reader: &mut ValueReader<'_>,
    hosts: &NginxHosts,
    ingress: &Object<Ingress>,
    hosts_of_rules: &BTreeSet<HostPattern>,
) {
    let Some(value) = reader.text(ANNOTATION) else { return };
    for entry in entries(value).filter(|entry| patterns(entry).is_empty()) {
        let message = format!("{entry:?} is not a name that is supported");
        reader.note(ANNOTATION, &message, "write names such as a.example or *.a.example");
    }
    if entries(value).map(|entry| patterns(entry).len()).sum::<usize>() > MAX_SERVER_ALIASES {
        let message = format!("it has more than {MAX_SERVER_ALIASES} names, and the others have no effect");
        reader.warn(ANNOTATION, message, "add rules for the other hosts");
    }
    let names = names(reader.meta);
    if names.is_empty() {
        return;
    }
    if hosts_of_rules.iter().all(|host| *host == HostPattern::Any) {
        reader.note(ANNOTATION, "no rule has a host", "add a host to a rule, or remove the annotation");
    }
    let named = hosts_of_rules.iter().filter(|host| **host != HostPattern::Any);
    for host in named.filter(|host| hosts.belongs_to(host, ingress)) {
        if hosts.given_aliases(host).is_none_or(|given| given.ingress.1.0 != ingress.meta.key) {
            let message = format!("an older Ingress, or another namespace, decides about the further names of {host}");
            reader.note(ANNOTATION, &message, "write the names in the oldest Ingress of the host");
            continue;
        }
        let served: BTreeSet<&HostPattern> = hosts.aliases(host).collect();
        for name in names.iter().filter(|name| *name != host && !served.contains(name)) {
            let message = format!("{name} is the host of a rule, or a further name of another host");
            reader.note(ANNOTATION, &message, "remove the name, or that host");
        }
    }
}

/// The number of paths of an Ingress, each for every name of its host.
pub(super) fn paths_of_all_names(hosts: &NginxHosts, ingress: &Object<Ingress>) -> usize {
    let of_rule = |rule: &IngressRule| {
        let names = hosts.aliases(&HostPattern::parse(rule.host.as_deref())).count();
        rule.http.iter().map(|http| http.paths.len()).sum::<usize>() * (1 + names)
    };
    ingress.spec.rules.iter().map(of_rule).sum()
}

/// Lets further names have the certificates of their hosts, unless they have their own.
pub(super) fn add_certificates(
    hosts: &NginxHosts,
    hosts_of_rules: &BTreeSet<HostPattern>,
    certificates: &mut Vec<HostCertificate>,
) {
    let mut of_aliases = Vec::new();
    for host in hosts_of_rules {
        for alias in hosts.aliases(host) {
            let has = |known: &HostCertificate, host: &HostPattern| known.host == *host;
            if !certificates.iter().any(|known| has(known, alias)) {
                let of_host = certificates.iter().filter(|known| has(known, host));
                of_aliases.extend(of_host.map(|known| HostCertificate { host: alias.clone(), ..known.clone() }));
            }
        }
    }
    certificates.append(&mut of_aliases);
}
