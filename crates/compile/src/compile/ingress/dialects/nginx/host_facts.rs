//! What is known before an Ingress is planned: the settings for all of them, and what all Ingresses of a host decide
//! together, such as whether its paths are expressions, and whether it has TLS. If that changes, the Ingresses of the
//! host are planned again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::annotation_prefixes;
use super::authority_cache::AuthorityCache;
use super::canary;
use super::canary::CanaryPath;
use super::client_certificates;
use super::client_certificates::{CertificateRequirement, HostCertificates};
use super::config_map;
use super::config_map::NginxConfig;
use super::handshake_annotations;
use super::handshake_annotations::HostCiphers;
use super::host_paths::HostPaths;
use super::passthrough_wish;
use super::path::written_path;
use super::permitted;
use super::server_alias;
use super::server_alias::{GivenAliases, IngressAge, WantedAliases};
use super::snippets;
use super::snippets::ServerSnippet;
use super::unsupported;
use super::value_reader::{ValueReader, is_canary, written};
use crate::api::ingress_nginx::{self, find};
use crate::api::networking::Ingress;
use crate::api::{Object, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::ingress::host_claims::HostClaims;
use crate::compile::ingress::settings::HostOwnership;
use crate::compile::ingress_class::dialect::{self, Dialect};
use crate::compile::ingress_class::{foreign_annotations, served_class};
use crate::snapshot::access_logs::LocationAccessLog;
use crate::snapshot::host::HostPattern;

/// The settings for all Ingresses of the dialect, and what these say about each host.
#[derive(Debug, Default)]
pub(in crate::compile::ingress) struct NginxHosts {
    pub(super) config: NginxConfig,
    /// The age of each Ingress, and its hosts.
    by_ingress: BTreeMap<ObjectKey, (Option<i64>, BTreeSet<HostPattern>)>,
    by_host: BTreeMap<HostPattern, Host>,
    aliases: WantedAliases,
    pub(super) authorities: AuthorityCache,
}

/// How the paths of ACME challenges begin.
const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// What is known of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HostFacts {
    /// Whether all its paths are expressions.
    pub has_expressions: bool,
    pub has_tls: bool,
    /// Whether an Ingress has a guard for all paths of the host that is not supported.
    pub is_closed: bool,
    /// Whether the prefix `/` is its only location, to which therefore every rewrite leads.
    pub has_one_location: bool,
}

#[derive(Debug, Default)]
struct Host {
    said: BTreeMap<IngressAge, SaidOfHost>,
    facts: HostFacts,
    canaries: Vec<Arc<CanaryPath>>,
    /// That of the oldest Ingress with one.
    server_snippet: Option<Arc<ServerSnippet>>,
    closed_by: Option<ObjectKey>,
    certificates: Option<HostCertificates>,
    /// Those of the oldest Ingress with some.
    aliases: Option<GivenAliases>,
    ciphers: HostCiphers,
    /// The namespace of the Ingresses that let its TLS connections pass through.
    passes_through_for: Option<Arc<str>>,
    /// Whether an Ingress had it at the last update.
    was_named: bool,
    /// The namespaces of the Ingresses that give it TLS. Those of a wildcard decide about the hosts below it.
    namespaces_with_tls: BTreeSet<Arc<str>>,
}

/// What one Ingress says about a host.
#[derive(Debug, Default)]
struct SaidOfHost {
    has_tls: bool,
    /// The Ingress itself, if it closes the host.
    closes_host: Option<ObjectKey>,
    certificates: Option<CertificateRequirement>,
    /// Whether each path is exact, its text, and whether the Ingress makes it an expression.
    paths: Vec<(bool, Box<str>, bool)>,
    /// Whether there is a location that it has no path for: that of `app-root`, or that of the health of ingress-nginx.
    has_further_location: bool,
    /// Whether it would rewrite requests for the root, if no Ingress has a path for that and it is the oldest one.
    rewrites_root: bool,
    /// It has only a default backend, which precedes paths for the root.
    is_catch_all: bool,
    /// The paths of a canary, which says nothing else.
    canaries: Vec<Arc<CanaryPath>>,
    server_snippet: Option<Arc<ServerSnippet>>,
    aliases: Vec<HostPattern>,
    passes_through: bool,
    ciphers: HostCiphers,
    /// That of the Ingress.
    namespace: Arc<str>,
}

impl Host {
    fn find_namespaces_with_tls(&self) -> BTreeSet<Arc<str>> {
        let with_tls = self.said.iter().filter(|(_, said)| said.has_tls);
        with_tls.map(|((_, Reverse(key)), _)| Arc::clone(&key.namespace)).collect()
    }

    /// What Ingresses say for all paths of the host: those of the namespace of the oldest one, since another namespace
    /// could take requests over.
    fn of_owner(&self) -> impl Iterator<Item = (&IngressAge, &SaidOfHost)> {
        let mut ordinary = self.said.iter().filter(|(_, said)| said.canaries.is_empty()).peekable();
        let owner = ordinary.peek().map(|(_, said)| Arc::clone(&said.namespace));
        ordinary.filter(move |(_, said)| Some(&said.namespace) == owner.as_ref())
    }

    fn find_aliases(&self) -> Option<GivenAliases> {
        let (ingress, said) = self.of_owner().find(|(_, said)| !said.aliases.is_empty())?;
        Some(GivenAliases { ingress: ingress.clone(), names: said.aliases.as_slice().into() })
    }

    /// Of each annotation, that of the oldest Ingress with it.
    fn find_ciphers(&self) -> HostCiphers {
        HostCiphers {
            list: self.of_owner().find_map(|(_, said)| said.ciphers.list.clone()),
            prefers_server: self.of_owner().find_map(|(_, said)| said.ciphers.prefers_server),
        }
    }

    fn find_passthrough(&self) -> Option<Arc<str>> {
        self.of_owner().find(|(_, said)| said.passes_through).map(|(_, said)| Arc::clone(&said.namespace))
    }

    /// The Ingress because of which the host is closed.
    fn find_closing(&self) -> Option<ObjectKey> {
        let by_snippet = self.find_server_snippet().filter(|snippet| snippet.closes_host);
        let by_guard = || self.of_owner().find_map(|(_, said)| said.closes_host.clone());
        by_snippet.map(|snippet| snippet.ingress.clone()).or_else(by_guard)
    }

    /// What the host requires of the certificates of its clients. An Ingress whose requirement is not known closes the
    /// host, whatever the others require; otherwise, the oldest one with a requirement decides.
    fn find_certificates(&self) -> Option<HostCertificates> {
        let required = || self.of_owner().filter_map(|(age, said)| Some((age, said.certificates.as_ref()?)));
        let is_known =
            |requirement: &CertificateRequirement| matches!(requirement, CertificateRequirement::Verified(_));
        let unknown = required().find(|(_, requirement)| !is_known(requirement));
        let ((_, Reverse(ingress)), requirement) = unknown.or_else(|| required().next())?;
        Some(HostCertificates { ingress: ingress.clone(), requirement: requirement.clone() })
    }

    fn find_server_snippet(&self) -> Option<Arc<ServerSnippet>> {
        let written = self.of_owner().find_map(|(_, said)| said.server_snippet.as_ref())?;
        let is_in_effect = !written.needs_one_location() || self.has_one_location();
        Some(if is_in_effect { Arc::clone(written) } else { Arc::new(written.refused()) })
    }

    /// Whether an Ingress has it that is not a canary.
    fn is_named(&self) -> bool {
        self.said.values().any(|said| said.canaries.is_empty())
    }

    /// Whether the owner of the host has no location but the prefix `/`. Others cannot take its snippets out of effect,
    /// and neither can the paths of challenges, which nothing protects.
    fn has_one_location(&self) -> bool {
        let paths = self.of_owner().flat_map(|(_, said)| &said.paths).map(|(is_exact, path, _)| (*is_exact, &**path));
        let has_catch_all = self.of_owner().any(|(_, said)| said.is_catch_all);
        let root = has_catch_all.then_some((false, "/"));
        let written = paths.filter(|(_, path)| !path.starts_with(CHALLENGES)).chain(root).collect();
        let has_further_location = self.of_owner().any(|(_, said)| said.has_further_location);
        let has_expressions = self.find_paths().has_expressions;
        HostPaths { written, has_expressions, has_further_location }.has_one_location()
    }

    /// Only of the paths that are used, which are those of the oldest Ingresses.
    fn find_paths(&self) -> HostPaths<'_> {
        let has_catch_all = self.said.values().any(|said| said.is_catch_all);
        let mut known: BTreeSet<(bool, &str)> = has_catch_all.then_some((false, "/")).into_iter().collect();
        let mut has_expressions = false;
        for (is_exact, path, is_expression) in self.said.values().flat_map(|said| &said.paths) {
            has_expressions |= known.insert((*is_exact, path)) && *is_expression;
        }
        let oldest = self.said.values().find(|said| said.canaries.is_empty());
        let rewrites_root = oldest.is_some_and(|oldest| oldest.rewrites_root);
        HostPaths {
            has_expressions: has_expressions || rewrites_root && !known.contains(&(false, "/")),
            has_further_location: self.said.values().any(|said| said.has_further_location),
            written: known,
        }
    }

    fn find_facts(&self) -> HostFacts {
        let paths = self.find_paths();
        HostFacts {
            has_expressions: paths.has_expressions,
            has_one_location: self.has_one_location(),
            has_tls: self.said.values().any(|said| said.has_tls),
            is_closed: self.find_closing().is_some(),
        }
    }
}

impl NginxHosts {
    /// The lines of the access log for requests of the dialect.
    pub(in crate::compile::ingress) fn location_log(&self) -> &LocationAccessLog {
        &self.config.logs.lines
    }

    /// Reads the settings, and updates what changed Ingresses say. Returns the Ingresses that name a host of which
    /// something else is known now.
    pub(in crate::compile::ingress) fn update<'k>(
        &mut self,
        cx: CompileContext<'_>,
        claims: &HostClaims,
        ingresses: impl Iterator<Item = &'k ObjectKey>,
    ) -> BTreeSet<ObjectKey> {
        self.config = config_map::read(cx);
        self.authorities.sweep(cx.store);
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
            let said = said_of_hosts(cx, &self.config, &self.authorities, claims, ingress);
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
        let mut changed_names = BTreeSet::new();
        for host in touched {
            let Some(known) = self.by_host.get_mut(&host) else { continue };
            let facts = known.find_facts();
            let namespaces = known.find_namespaces_with_tls();
            let before = std::mem::replace(&mut known.facts, facts);
            let namespaces_before = std::mem::replace(&mut known.namespaces_with_tls, namespaces);
            let server_snippet = known.find_server_snippet();
            let closed_by = known.find_closing();
            let closed_before = std::mem::replace(&mut known.closed_by, closed_by);
            let snippet_before = std::mem::replace(&mut known.server_snippet, server_snippet);
            let certificates = known.find_certificates();
            let have_certificates_changed = certificates != known.certificates;
            if have_certificates_changed {
                // Otherwise, the known ones stay, so that open connections need not be verified again.
                known.certificates = certificates;
            }
            let ciphers = known.find_ciphers();
            let ciphers_before = std::mem::replace(&mut known.ciphers, ciphers);
            let passes_through_for = known.find_passthrough();
            let passed_before = std::mem::replace(&mut known.passes_through_for, passes_through_for);
            let canaries = known.said.values().flat_map(|said| &said.canaries).map(Arc::clone).collect();
            let canaries_before = std::mem::replace(&mut known.canaries, canaries);
            // A canary and the Ingress with the same path report about each other, and what the canary refers to may
            // have changed as well.
            let has_canaries = !canaries_before.is_empty() || !known.canaries.is_empty();
            let is_changed = before != known.facts
                || namespaces_before != known.namespaces_with_tls
                || closed_before != known.closed_by
                || snippet_before != known.server_snippet
                || have_certificates_changed
                || ciphers_before != known.ciphers
                || passed_before != known.passes_through_for
                || has_canaries;
            let aliases = known.find_aliases();
            let aliases_before = std::mem::replace(&mut known.aliases, aliases);
            changed_names.extend(self.aliases.replace(&host, aliases_before.as_ref(), known.aliases.as_ref()));
            let is_changed = is_changed || aliases_before != known.aliases;
            let is_named = known.is_named();
            let was_named = std::mem::replace(&mut known.was_named, is_named);
            if known.said.is_empty() {
                self.by_host.remove(&host);
            }
            changed.extend(is_changed.then(|| host.clone()));
            if is_named != was_named {
                changed_names.insert(host);
            }
        }
        for name in &changed_names {
            changed.extend(www_twin(name));
            changed.extend(self.aliases.hosts(name).cloned());
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

    /// Whether an Ingress has a host, which does not belong to another namespace.
    pub(super) fn belongs_to(&self, host: &HostPattern, ingress: &Object<Ingress>) -> bool {
        let place = (ingress.meta.created, Reverse(ingress.meta.key.clone()));
        self.by_host.get(host).is_some_and(|known| known.said.contains_key(&place))
    }

    /// The host that redirects to this one, unless an Ingress has it, or a host has this name.
    pub(super) fn redirecting_twin(&self, host: &HostPattern) -> Option<HostPattern> {
        www_twin(host).filter(|twin| !self.is_named(twin) && self.aliases.hosts(twin).next().is_none())
    }

    /// The names that an Ingress gives to a host, whether it gets them or not.
    pub(super) fn given_aliases(&self, host: &HostPattern) -> Option<&GivenAliases> {
        self.by_host.get(host)?.aliases.as_ref()
    }

    /// The further names of a host.
    pub(super) fn aliases(&self, host: &HostPattern) -> impl Iterator<Item = &HostPattern> {
        let names = self.given_aliases(host).into_iter().flat_map(|given| given.names.iter());
        names.filter(move |name| !self.is_named(name) && self.aliases.hosts(name).next() == Some(host))
    }

    /// Whether an Ingress has a rule for the host.
    fn is_named(&self, host: &HostPattern) -> bool {
        self.by_host.get(host).is_some_and(Host::is_named)
    }

    /// The Ingress because of which a host is closed.
    pub(super) fn closing_ingress(&self, host: &HostPattern) -> Option<&ObjectKey> {
        self.by_host.get(host)?.closed_by.as_ref()
    }

    /// What a host requires of the certificates of its clients.
    pub(super) fn certificates(&self, host: &HostPattern) -> Option<&HostCertificates> {
        self.by_host.get(host)?.certificates.as_ref()
    }

    /// What the annotations of a host say about ciphers. A further name has those of its host.
    pub(super) fn ciphers(&self, host: &HostPattern) -> HostCiphers {
        let of_alias = || self.aliases.hosts(host).next().filter(|_| !self.is_named(host));
        let known = self.by_host.get(of_alias().unwrap_or(host));
        known.map(|known| known.ciphers.clone()).unwrap_or_default()
    }

    /// Whether a name is only a further one of another host.
    pub(super) fn is_alias(&self, name: &HostPattern) -> bool {
        !self.is_named(name) && self.aliases.hosts(name).next().is_some()
    }

    /// The namespace of the Ingresses that let the TLS connections of a host pass through; `None` if they do not.
    pub(super) fn passes_through_for(&self, host: &HostPattern) -> Option<&Arc<str>> {
        self.by_host.get(host)?.passes_through_for.as_ref()
    }

    /// The snippet of a host.
    pub(super) fn server_snippet(&self, host: &HostPattern) -> Option<&ServerSnippet> {
        self.by_host.get(host)?.server_snippet.as_deref()
    }

    /// The canary of a path: that of the oldest Ingress of the namespace. Other namespaces cannot take requests over.
    pub(super) fn canary(
        &self,
        host: &HostPattern,
        is_exact: bool,
        path: &str,
        namespace: &str,
    ) -> Option<&Arc<CanaryPath>> {
        let mut canaries = self.by_host.get(host)?.canaries.iter();
        canaries
            .find(|canary| (canary.is_exact, &*canary.path, &*canary.ingress.namespace) == (is_exact, path, namespace))
    }

    /// Whether an Ingress of the namespace has a path that is none of a canary.
    pub(super) fn has_path(&self, host: &HostPattern, is_exact: bool, path: &str, namespace: &str) -> bool {
        let mut said = self.by_host.get(host).into_iter().flat_map(|known| known.said.values());
        said.any(|said| {
            let is_path = |known: &(bool, Box<str>, bool)| (known.0, &*known.1) == (is_exact, path);
            *said.namespace == *namespace && said.paths.iter().any(is_path)
        })
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

/// The same host with `www`, or without.
fn www_twin(host: &HostPattern) -> Option<HostPattern> {
    let HostPattern::Exact(name) = host else { return None };
    Some(HostPattern::Exact(match name.strip_prefix("www.") {
        Some(rest) => rest.into(),
        None => format!("www.{name}").into(),
    }))
}

/// What an Ingress says about the hosts of its rules. Nothing if it is not one of the dialect, and about hosts that
/// belong to another namespace.
fn said_of_hosts(
    cx: CompileContext<'_>,
    config: &NginxConfig,
    authorities: &AuthorityCache,
    claims: &HostClaims,
    ingress: &Object<Ingress>,
) -> BTreeMap<HostPattern, SaidOfHost> {
    let mut said: BTreeMap<HostPattern, SaidOfHost> = BTreeMap::new();
    let Some(class) = served_class(cx, ingress) else { return said };
    if dialect::of_served_ingress(cx, ingress, class) != Ok(Dialect::Nginx) {
        return said;
    }
    let is_foreign = |host: &HostPattern| {
        cx.inputs.ingress.host_ownership == HostOwnership::Namespace
            && matches!(host, HostPattern::Exact(name) if !claims.belongs_to(name, &ingress.meta.key.namespace))
    };
    let ingress = &*annotation_prefixes::with_usual_prefix(ingress);
    if is_canary(ingress) {
        for (host, path) in canary::paths(ingress, config, cx.inputs.budgets.regex_limit()) {
            if !is_foreign(&host) {
                said.entry(host).or_default().canaries.push(path);
            }
        }
        return said;
    }
    let refuses_guards = foreign_annotations::refuses_guards(cx, ingress, class);
    let limit = cx.inputs.budgets.regex_limit();
    let mut reader = ValueReader::new(&ingress.meta);
    let certificates = client_certificates::read(cx, &mut reader, config, authorities, limit).requirement;
    let closes_host = refuses_guards && unsupported::guard_of_host(&ingress.meta).is_some()
        || certificates == Some(CertificateRequirement::Rejected);
    let closes_host = closes_host.then(|| ingress.meta.key.clone());
    let server_snippet = snippets::of_server(&ingress.meta, config, limit, refuses_guards).map(Arc::new);
    if ingress.spec.rules.is_empty() && ingress.spec.default_backend.is_some() {
        let known = said.entry(HostPattern::Any).or_default();
        known.is_catch_all = true;
        known.has_further_location = true;
        known.namespace = Arc::clone(&ingress.meta.key.namespace);
        known.closes_host.clone_from(&closes_host);
        known.certificates.clone_from(&certificates);
        known.server_snippet.clone_from(&server_snippet);
    }
    let ciphers = handshake_annotations::of_annotations(&reader);
    // Connections that pass through would get no status 503.
    let is_permitted = permitted::are_permitted(&ingress.meta, config);
    let mut aliases = server_alias::names(&ingress.meta);
    aliases.retain(|alias| !is_foreign(alias));
    let use_regex = written(&ingress.meta, "use-regex").and_then(ingress_nginx::flag) == Some(true);
    let target = written(&ingress.meta, "rewrite-target")
        .filter(|target| find("rewrite-target").is_none_or(|row| row.consequence(target).is_none()));
    for rule in &ingress.spec.rules {
        let host = HostPattern::parse(rule.host.as_deref());
        if is_foreign(&host) {
            continue;
        }
        let is_any = host == HostPattern::Any;
        let passes_through = is_permitted && passthrough_wish::is_wanted(cx, claims, ingress, &host);
        let known = said.entry(host).or_default();
        known.namespace = Arc::clone(&ingress.meta.key.namespace);
        known.passes_through = passes_through;
        known.ciphers.clone_from(&ciphers);
        known.has_tls = !ingress.spec.tls.is_empty();
        known.closes_host.clone_from(&closes_host);
        known.certificates.clone_from(&certificates);
        known.server_snippet.clone_from(&server_snippet);
        if !is_any {
            known.aliases.clone_from(&aliases);
        }
        known.has_further_location = is_any || written(&ingress.meta, "app-root").is_some();
        known.rewrites_root = !is_any && target.is_some_and(|target| target != "/");
        for path in rule.http.iter().flat_map(|http| &http.paths) {
            let text = written_path(path.path.as_deref());
            let is_expression = use_regex || target.is_some_and(|target| target != text);
            known.paths.push((path.path_type.as_deref() == Some("Exact"), text.into(), is_expression));
        }
    }
    said
}
