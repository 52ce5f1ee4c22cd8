//! The ports that objects share: which rule gets which connections.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::plan::{PlannedRule, StreamIngressPlan};
use crate::api::ObjectId;
use crate::bind_address::BindAddress;
use crate::compile::ingress::settings::{StreamListener, StreamProtocol};
use crate::diagnostic::Diagnostic;
use crate::snapshot::Bind;
use crate::snapshot::certs::Certificates;
use crate::snapshot::host::{HostMap, HostPattern};
use crate::snapshot::port_tls::{PortTls, StreamHosts, TlsListener};
use crate::snapshot::stream::StreamRule;

/// The binds of all ports that rules use, and the rules without effect.
#[derive(Debug, Default)]
pub(super) struct StreamBinds {
    pub binds: BTreeMap<BindAddress, Arc<Bind>>,
    /// The sockets on which rules of each object are served.
    pub sockets: BTreeMap<ObjectId, BTreeSet<BindAddress>>,
    /// Per object, its rules that an older object, or an earlier rule of it, makes useless.
    pub conflicts: BTreeMap<ObjectId, Vec<Diagnostic>>,
}

/// A rule that gets connections, with its object.
type OwnedRule<'a> = (&'a ObjectId, &'a StreamIngressPlan, &'a PlannedRule);

impl StreamBinds {
    /// `default`: the certificates of server names without one.
    pub(super) fn build(
        listeners: &[StreamListener],
        plans: &BTreeMap<ObjectId, StreamIngressPlan>,
        default: &Arc<Certificates>,
    ) -> Self {
        let mut built = StreamBinds::default();
        let mut by_age: Vec<_> = plans.iter().collect();
        by_age.sort_by_key(|(id, plan)| (plan.created, *id));
        let mut owned: BTreeMap<(StreamProtocol, u16), BTreeMap<&HostPattern, OwnedRule<'_>>> = BTreeMap::new();
        for (id, plan) in by_age {
            for rule in &plan.rules {
                let of_port = owned.entry((rule.protocol, rule.port)).or_default();
                match of_port.get(&rule.host) {
                    Some((owner, ..)) => {
                        built.conflicts.entry(id.clone()).or_default().push(conflict(id, owner, rule));
                    }
                    None => drop(of_port.insert(&rule.host, (id, plan, rule))),
                }
            }
        }
        for listener in listeners {
            let port = listener.address.port();
            let Some(rules) = owned.get(&(listener.protocol, port)) else { continue };
            let address = BindAddress::new(listener.protocol.transport(), listener.address.ip(), port);
            for (id, ..) in rules.values() {
                built.sockets.entry((*id).clone()).or_default().insert(address);
            }
            built.binds.insert(address, Arc::new(bind(listener, rules, default)));
        }
        built
    }
}

fn bind(listener: &StreamListener, rules: &BTreeMap<&HostPattern, OwnedRule<'_>>, default: &Arc<Certificates>) -> Bind {
    let port = listener.address.port();
    let name: Arc<str> = format!("{}-{port}", listener.protocol.name()).into();
    let stream_rule = |rule: Option<&PlannedRule>| {
        let route = rule.map(|rule| Arc::clone(&rule.route));
        Arc::new(StreamRule { gateway: "ingress".into(), listener: Arc::clone(&name), port, route })
    };
    let first = rules.values().next().map(|(.., rule)| *rule);
    match listener.protocol {
        StreamProtocol::Tcp => Bind::with_tcp(stream_rule(first)),
        StreamProtocol::Udp => Bind::with_udp(stream_rule(first)),
        StreamProtocol::Tls => {
            let hosts = rules.iter().map(|(host, (.., rule))| ((*host).clone(), stream_rule(Some(rule)))).collect();
            let hosts = StreamHosts { hosts, unrouted: stream_rule(None) };
            let of_host = |certificates: &Arc<Certificates>| {
                TlsListener::TerminateStream(Arc::clone(certificates), hosts.clone())
            };
            let mut terminating = BTreeMap::new();
            for (host, (_, plan, _)) in rules {
                terminating.insert((*host).clone(), of_host(&certificates_for(plan, host, default)));
            }
            // A rule without host also serves the hosts of its certificates.
            if let Some((_, plan, _)) = rules.get(&HostPattern::Any) {
                for (host, certificates) in plan.certificates.sorted() {
                    terminating.entry(host.clone()).or_insert_with(|| of_host(certificates));
                }
            }
            terminating.entry(HostPattern::Any).or_insert_with(|| of_host(default));
            Bind::with_http(HostMap::new([]), Some(PortTls::new(terminating.into_iter().collect())))
        }
    }
}

/// The certificates with which a rule for a host is served: those that its own object has for the host.
fn certificates_for(plan: &StreamIngressPlan, host: &HostPattern, default: &Arc<Certificates>) -> Arc<Certificates> {
    let own = match host {
        HostPattern::Exact(name) => plan.certificates.most_specific(name),
        HostPattern::Wildcard(_) | HostPattern::Any => plan.certificates.get(host),
    };
    Arc::clone(own.unwrap_or(default))
}

fn conflict(id: &ObjectId, owner: &ObjectId, rule: &PlannedRule) -> Diagnostic {
    let PlannedRule { port, host, field, .. } = rule;
    let what = match host {
        HostPattern::Any => format!("port {port}"),
        host => format!("host {host} of port {port}"),
    };
    if owner == id {
        let message = format!("an earlier rule has {what}, so this one is not served");
        return Diagnostic::error(field.as_str(), message, "remove one of them");
    }
    let message = format!("{owner} is older and has {what}, so this rule is not served");
    Diagnostic::error(field.as_str(), message, "choose another port or host, or remove one of the rules")
}
