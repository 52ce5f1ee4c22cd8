//! What is known before an Ingress is planned: the settings for all of them, and what all Ingresses of a host decide
//! together, such as whether its paths are expressions, and whether it has TLS. If that changes, the Ingresses of the
//! host are planned again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::annotations::written;
use super::config_map;
use super::config_map::NginxConfig;
use super::path::written_path;
use super::unsupported;
use crate::api::ingress_nginx::{self, find};
use crate::api::networking::Ingress;
use crate::api::{Object, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::ingress::host_claims::HostClaims;
use crate::compile::ingress::settings::HostOwnership;
use crate::compile::ingress_class::dialect::{self, Dialect};
use crate::compile::ingress_class::{foreign_annotations, served_class};
use crate::snapshot::host::HostPattern;

/// The settings for all Ingresses of the dialect, and what these say about each host.
#[derive(Debug, Default)]
pub(in crate::compile::ingress) struct NginxHosts {
    pub(super) config: NginxConfig,
    /// The age of each Ingress, and its hosts.
    by_ingress: BTreeMap<ObjectKey, (Option<i64>, BTreeSet<HostPattern>)>,
    by_host: BTreeMap<HostPattern, Host>,
}

/// What is known of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HostFacts {
    /// Whether all its paths are expressions.
    pub has_expressions: bool,
    pub has_tls: bool,
    /// Whether an Ingress has a guard for all paths of the host that is not supported.
    pub is_closed: bool,
}

#[derive(Debug, Default)]
struct Host {
    /// By age; of equal age, the later name first, as in ingress-nginx.
    said: BTreeMap<(Option<i64>, Reverse<ObjectKey>), SaidOfHost>,
    facts: HostFacts,
    /// The namespaces of the Ingresses that give it TLS. Those of a wildcard decide about the hosts below it.
    namespaces_with_tls: BTreeSet<Arc<str>>,
}

/// What one Ingress says about a host.
#[derive(Debug, Default)]
struct SaidOfHost {
    has_tls: bool,
    closes_host: bool,
    /// Whether each path is exact, its text, and whether the Ingress makes it an expression.
    paths: Vec<(bool, Box<str>, bool)>,
    /// Whether it would rewrite requests for the root, if no Ingress has a path for that and it is the oldest one.
    rewrites_root: bool,
    /// It has only a default backend, which precedes paths for the root.
    is_catch_all: bool,
}

impl Host {
    fn find_namespaces_with_tls(&self) -> BTreeSet<Arc<str>> {
        let with_tls = self.said.iter().filter(|(_, said)| said.has_tls);
        with_tls.map(|((_, Reverse(key)), _)| Arc::clone(&key.namespace)).collect()
    }

    /// Only of the paths that are used, which are those of the oldest Ingresses.
    fn find_facts(&self) -> HostFacts {
        let has_catch_all = self.said.values().any(|said| said.is_catch_all);
        let mut known: BTreeSet<(bool, &str)> = has_catch_all.then_some((false, "/")).into_iter().collect();
        let mut has_expressions = false;
        for (is_exact, path, is_expression) in self.said.values().flat_map(|said| &said.paths) {
            has_expressions |= known.insert((*is_exact, path)) && *is_expression;
        }
        let rewrites_root = self.said.values().next().is_some_and(|oldest| oldest.rewrites_root);
        HostFacts {
            has_expressions: has_expressions || rewrites_root && !known.contains(&(false, "/")),
            has_tls: self.said.values().any(|said| said.has_tls),
            is_closed: self.said.values().any(|said| said.closes_host),
        }
    }
}

impl NginxHosts {
    /// Reads the settings, and updates what changed Ingresses say. Returns the Ingresses that name a host of which
    /// something else is known now.
    pub(in crate::compile::ingress) fn update<'k>(
        &mut self,
        cx: CompileContext<'_>,
        claims: &HostClaims,
        ingresses: impl Iterator<Item = &'k ObjectKey>,
    ) -> BTreeSet<ObjectKey> {
        self.config = config_map::read(cx);
        let mut touched: BTreeSet<HostPattern> = BTreeSet::new();
        for key in ingresses {
            let (age, hosts) = self.by_ingress.remove(key).unwrap_or_default();
            let place = (age, Reverse(key.clone()));
            for host in hosts {
                if let Some(known) = self.by_host.get_mut(&host) {
                    known.said.remove(&place);
                }
                touched.insert(host);
            }
            let Some(ingress) = cx.store.ingresses.get(key) else { continue };
            let said = said_of_hosts(cx, claims, ingress);
            if said.is_empty() {
                continue;
            }
            self.by_ingress.insert(key.clone(), (ingress.meta.created, said.keys().cloned().collect()));
            for (host, said) in said {
                let place = (ingress.meta.created, Reverse(key.clone()));
                self.by_host.entry(host.clone()).or_default().said.insert(place, said);
                touched.insert(host);
            }
        }
        let mut changed = Vec::new();
        for host in touched {
            let Some(known) = self.by_host.get_mut(&host) else { continue };
            let facts = known.find_facts();
            let namespaces = known.find_namespaces_with_tls();
            let before = std::mem::replace(&mut known.facts, facts);
            let namespaces_before = std::mem::replace(&mut known.namespaces_with_tls, namespaces);
            let is_changed = before != known.facts || namespaces_before != known.namespaces_with_tls;
            if known.said.is_empty() {
                self.by_host.remove(&host);
            }
            changed.extend(is_changed.then_some(host));
        }
        changed.iter().flat_map(|host| self.affected_by(host)).cloned().collect()
    }

    /// What is known of a host. A host without TLS of its own has that of its wildcard. `owner`: the namespace whose
    /// Ingresses decide about that, if others may not.
    pub(super) fn facts(&self, host: &HostPattern, owner: Option<&str>) -> HostFacts {
        let own = self.own(host);
        let HostPattern::Exact(name) = host else { return own };
        let wildcard = name.split_once('.').and_then(|(_, suffix)| {
            let namespaces = &self.by_host.get(&HostPattern::Wildcard(suffix.into()))?.namespaces_with_tls;
            Some(owner.map_or(!namespaces.is_empty(), |owner| namespaces.contains(owner)))
        });
        HostFacts { has_tls: own.has_tls || wildcard == Some(true), ..own }
    }

    fn own(&self, host: &HostPattern) -> HostFacts {
        self.by_host.get(host).map(|known| known.facts).unwrap_or_default()
    }

    /// The Ingresses that name a host, or for a wildcard one of its hosts.
    fn affected_by(&self, host: &HostPattern) -> Vec<&ObjectKey> {
        let is_below = |other: &HostPattern| match (host, other) {
            (HostPattern::Wildcard(suffix), HostPattern::Exact(name)) => {
                name.split_once('.').is_some_and(|(_, rest)| *rest == **suffix)
            }
            _ => false,
        };
        // Certificates of wildcards change rarely, so that looking at all hosts is no burden.
        let is_wildcard = matches!(host, HostPattern::Wildcard(_));
        let below = self.by_host.iter().filter(|(other, _)| is_wildcard && is_below(other));
        let hosts = self.by_host.get(host).into_iter().chain(below.map(|(_, known)| known));
        hosts.flat_map(|known| known.said.keys()).map(|(_, Reverse(key))| key).collect()
    }
}

/// What an Ingress says about the hosts of its rules. Nothing if it is not one of the dialect, about hosts that belong
/// to another namespace, and if it is a canary, which has no paths of its own.
fn said_of_hosts(
    cx: CompileContext<'_>,
    claims: &HostClaims,
    ingress: &Object<Ingress>,
) -> BTreeMap<HostPattern, SaidOfHost> {
    let mut said: BTreeMap<HostPattern, SaidOfHost> = BTreeMap::new();
    let Some(class) = served_class(cx, ingress) else { return said };
    if dialect::of_served_ingress(cx, ingress, class) != Ok(Dialect::Nginx) || is_canary(ingress) {
        return said;
    }
    if ingress.spec.rules.is_empty() && ingress.spec.default_backend.is_some() {
        said.entry(HostPattern::Any).or_default().is_catch_all = true;
    }
    let closes_host =
        foreign_annotations::refuses_guards(cx, ingress, class) && unsupported::guard_of_host(&ingress.meta).is_some();
    let use_regex = written(&ingress.meta, "use-regex").and_then(ingress_nginx::flag) == Some(true);
    let target = written(&ingress.meta, "rewrite-target")
        .filter(|target| find("rewrite-target").is_none_or(|row| row.consequence(target).is_none()));
    for rule in &ingress.spec.rules {
        let host = HostPattern::parse(rule.host.as_deref());
        let is_foreign = cx.inputs.ingress.host_ownership == HostOwnership::Namespace
            && matches!(&host, HostPattern::Exact(name) if !claims.belongs_to(name, &ingress.meta.key.namespace));
        if is_foreign {
            continue;
        }
        let is_any = host == HostPattern::Any;
        let known = said.entry(host).or_default();
        known.has_tls = !ingress.spec.tls.is_empty();
        known.closes_host = closes_host;
        known.rewrites_root = !is_any && target.is_some_and(|target| target != "/");
        for path in rule.http.iter().flat_map(|http| &http.paths) {
            let text = written_path(path.path.as_deref());
            let is_expression = use_regex || target.is_some_and(|target| target != text);
            known.paths.push((path.path_type.as_deref() == Some("Exact"), text.into(), is_expression));
        }
    }
    said
}

/// Whether an Ingress only gives a share of the requests for the paths of another one to its own backends.
pub(super) fn is_canary(ingress: &Object<Ingress>) -> bool {
    written(&ingress.meta, "canary").and_then(ingress_nginx::flag) == Some(true)
}
