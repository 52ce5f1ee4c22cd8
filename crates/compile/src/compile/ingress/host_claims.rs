//! Which namespaces name each exact host in their Ingresses. A host of several namespaces is reported, or belongs to
//! the namespace of the oldest Ingress that names it, as `HostOwnership` says.
//!
//! Messages name the other namespace and none of its objects: a user who may write Ingresses in one namespace may not
//! be allowed to read those of another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::dialects::nginx::server_alias::server_alias_names;
use super::plan::IngressPlan;
use crate::api::ingress_nginx::written_key;
use crate::api::kong::annotations::{HOST_ALIASES, list};
use crate::api::networking::Ingress;
use crate::api::{Object, ObjectKey};
use crate::compile::CompileContext;
use crate::compile::budgets::MAX_HOST_ALIASES;
use crate::compile::ingress_class::dialect;
use crate::compile::ingress_class::served_class;
use crate::compile::objects::annotation_reader::annotation_field;
use crate::diagnostic::{Diagnostic, Topic};
use crate::snapshot::host::HostPattern;
use crate::snapshot::router::by_conditions::{ConditionRoute, HostCondition, HostName};

/// The exact hosts that the served Ingresses name: in rules, aliases and `spec.tls`.
#[derive(Debug, Default)]
pub(super) struct HostClaims {
    /// By host, then age. The first entry of a host decides whose it is.
    by_age: BTreeSet<(Arc<str>, Option<i64>, ObjectKey)>,
    /// The number of Ingresses by host and namespace; never 0.
    namespaces: BTreeMap<(Arc<str>, Arc<str>), usize>,
    by_ingress: BTreeMap<ObjectKey, IngressClaims>,
}

#[derive(Debug, PartialEq, Eq)]
struct IngressClaims {
    created: Option<i64>,
    hosts: BTreeSet<Arc<str>>,
}

/// What diagnostics say about a host. Two values differ if the diagnostics of its Ingresses do.
#[derive(Debug, PartialEq, Eq)]
struct HostState {
    owner: Arc<str>,
    /// The first namespaces by name. Any further ones are not named, so they make no difference.
    namespaces: Vec<Arc<str>>,
}

/// The Ingresses that an update affects, besides those that were updated.
#[derive(Debug, Default)]
pub(super) struct ClaimChanges {
    /// A host that they name belongs to another namespace than before.
    pub(super) owner_changed: BTreeSet<ObjectKey>,
    /// Their diagnostics may differ.
    pub(super) outdated: BTreeSet<ObjectKey>,
}

impl HostClaims {
    /// Updates the claims of changed Ingresses, all at once, so that each affected Ingress is planned once.
    pub(super) fn update<'k>(
        &mut self,
        cx: CompileContext<'_>,
        ingresses: impl Iterator<Item = &'k ObjectKey>,
    ) -> ClaimChanges {
        let mut before: BTreeMap<Arc<str>, Option<HostState>> = BTreeMap::new();
        for key in ingresses {
            let claims = cx.store.ingresses.get(key).and_then(|ingress| claims_of(cx, ingress));
            if self.by_ingress.get(key) == claims.as_ref() {
                continue;
            }
            let hosts = self.by_ingress.get(key).into_iter().chain(&claims).flat_map(|claims| &claims.hosts);
            for host in hosts.cloned().collect::<BTreeSet<_>>() {
                before.entry(host.clone()).or_insert_with(|| self.state(&host));
            }
            self.replace(key, claims);
        }
        let mut changes = ClaimChanges::default();
        for (host, before) in before {
            let after = self.state(&host);
            if after == before {
                continue;
            }
            let owner = |state: &Option<HostState>| state.as_ref().map(|state| state.owner.clone());
            if owner(&before) != owner(&after) {
                changes.owner_changed.extend(self.claimants(&host).cloned());
            }
            changes.outdated.extend(self.claimants(&host).cloned());
        }
        changes
    }

    fn replace(&mut self, key: &ObjectKey, claims: Option<IngressClaims>) {
        let namespace = &key.namespace;
        if let Some(IngressClaims { created, hosts }) = self.by_ingress.remove(key) {
            for host in hosts {
                let in_namespace = (host.clone(), namespace.clone());
                if let Some(count) = self.namespaces.get_mut(&in_namespace) {
                    *count -= 1;
                    if *count == 0 {
                        self.namespaces.remove(&in_namespace);
                    }
                }
                self.by_age.remove(&(host, created, key.clone()));
            }
        }
        if let Some(claims) = claims {
            for host in &claims.hosts {
                *self.namespaces.entry((host.clone(), namespace.clone())).or_default() += 1;
                self.by_age.insert((host.clone(), claims.created, key.clone()));
            }
            self.by_ingress.insert(key.clone(), claims);
        }
    }

    /// `None` if no Ingress names the host.
    fn state(&self, host: &Arc<str>) -> Option<HostState> {
        let owner = self.claimants(host).next()?.namespace.clone();
        let of_host = self.namespaces.range((host.clone(), Arc::from(""))..);
        let of_host = of_host.map(|(key, _)| key).take_while(|(other, _)| other == host);
        Some(HostState { owner, namespaces: of_host.take(3).map(|(_, namespace)| namespace.clone()).collect() })
    }

    /// The Ingresses that name a host, the oldest first.
    fn claimants(&self, host: &Arc<str>) -> impl Iterator<Item = &ObjectKey> {
        // An Ingress without creation time is older than all others.
        let of_host = self.by_age.range((host.clone(), None, ObjectKey::cluster(""))..);
        of_host.take_while(move |(other, ..)| other == host).map(|(.., key)| key)
    }

    /// Whether a host belongs to a namespace, or to none.
    pub(super) fn belongs_to(&self, host: &Arc<str>, namespace: &str) -> bool {
        self.claimants(host).next().is_none_or(|oldest| *oldest.namespace == *namespace)
    }

    /// Removes from a plan what it has for hosts of other namespaces, and reports these hosts.
    pub(super) fn remove_foreign_hosts(&self, ingress: &Object<Ingress>, plan: &mut IngressPlan) {
        let key = &ingress.meta.key;
        let mut fields = None;
        let mut foreign: BTreeSet<Box<str>> = BTreeSet::new();
        for (host, state) in self.states(key).filter(|(_, state)| state.owner != key.namespace) {
            let field = fields.get_or_insert_with(|| fields_of_hosts(ingress)).get(&**host).cloned();
            let message = format!(
                "host {host} belongs to namespace {}, which has the oldest Ingress that names it, so nothing of this \
                 Ingress is served for it",
                state.owner
            );
            let remedy = "remove the host, or delete the Ingresses of the other namespace that name it";
            plan.errors.push(Diagnostic::error(
                field.unwrap_or_else(|| field_of_alias(ingress, host)),
                message,
                remedy,
            ));
            foreign.insert(Box::from(&**host));
        }
        if !foreign.is_empty() {
            remove_hosts(plan, &foreign);
        }
    }

    /// Warnings about the hosts of an Ingress that other namespaces name, too.
    pub(super) fn shared_hosts(&self, ingress: &Object<Ingress>) -> Vec<Diagnostic> {
        let own = &ingress.meta.key.namespace;
        let mut fields = None;
        let mut notes = Vec::new();
        for (host, state) in self.states(&ingress.meta.key) {
            let Some(other) = state.namespaces.iter().find(|namespace| *namespace != own) else { continue };
            let field = fields.get_or_insert_with(|| fields_of_hosts(ingress)).get(&**host).cloned();
            let others = if state.namespaces.len() > 2 { " and others" } else { "" };
            let message = format!(
                "Ingresses of namespace {other}{others} name host {host}, too, and may get its requests or provide \
                 its certificate"
            );
            let remedy = "use the host in one namespace only; with --ingress-host-owner namespace, it belongs to that \
                          of the oldest Ingress";
            let field = field.unwrap_or_else(|| field_of_alias(ingress, host));
            notes.push(Diagnostic::warning(field, message, remedy).with_topic(Topic::Conflict));
        }
        notes
    }

    fn states(&self, ingress: &ObjectKey) -> impl Iterator<Item = (&Arc<str>, HostState)> {
        let hosts = self.by_ingress.get(ingress).into_iter().flat_map(|claims| &claims.hosts);
        hosts.filter_map(|host| Some((host, self.state(host)?)))
    }
}

/// The claims of an Ingress. `None` if it is not served, or names no exact host.
fn claims_of(cx: CompileContext<'_>, ingress: &Object<Ingress>) -> Option<IngressClaims> {
    served_class(cx, ingress)?;
    let mut hosts: BTreeSet<Arc<str>> = fields_of_hosts(ingress).into_keys().map(Arc::from).collect();
    if dialect::has_host_aliases(cx, ingress) {
        let aliases = ingress.meta.annotations.get(HOST_ALIASES).into_iter().flat_map(|value| list(value));
        hosts.extend(aliases.take(MAX_HOST_ALIASES).filter_map(exact_host).map(Arc::from));
    }
    if dialect::has_server_aliases(cx, ingress) {
        hosts.extend(server_alias_names(ingress).into_iter().filter_map(exact_name));
    }
    (!hosts.is_empty()).then_some(IngressClaims { created: ingress.meta.created, hosts })
}

/// The first field with each exact host, without aliases.
fn fields_of_hosts(ingress: &Ingress) -> BTreeMap<Box<str>, String> {
    let mut fields = BTreeMap::new();
    for (index, rule) in ingress.spec.rules.iter().enumerate() {
        if let Some(host) = rule.host.as_deref().and_then(exact_host) {
            fields.entry(host).or_insert_with(|| format!("spec.rules[{index}].host"));
        }
    }
    for (index, tls) in ingress.spec.tls.iter().enumerate() {
        for (position, host) in tls.hosts.iter().enumerate() {
            if let Some(host) = exact_host(host) {
                fields.entry(host).or_insert_with(|| format!("spec.tls[{index}].hosts[{position}]"));
            }
        }
    }
    fields
}

/// The annotation that names a host which no other field does.
fn field_of_alias(ingress: &Object<Ingress>, host: &Arc<str>) -> String {
    let is_of_nginx = server_alias_names(ingress).into_iter().filter_map(exact_name).any(|name| name == *host);
    let key = written_key(&ingress.meta.annotations, "server-alias").filter(|_| is_of_nginx);
    annotation_field(key.unwrap_or(HOST_ALIASES))
}

fn exact_name(host: HostPattern) -> Option<Arc<str>> {
    match host {
        HostPattern::Exact(name) => Some(name),
        HostPattern::Wildcard(_) | HostPattern::Any => None,
    }
}

/// The name in lower case and without port; `None` if it has a wildcard or is invalid.
fn exact_host(text: &str) -> Option<Box<str>> {
    match HostCondition::parse(text)?.name {
        HostName::Exact(name) => Some((*name).into()),
        HostName::LeadingWildcard(_) | HostName::TrailingWildcard(_) => None,
    }
}

/// Removes the routes and certificates for these hosts.
fn remove_hosts(plan: &mut IngressPlan, foreign: &BTreeSet<Box<str>>) {
    let is_own = |host: &HostCondition| !matches!(&host.name, HostName::Exact(name) if foreign.contains(&**name));
    let is_own_pattern = |host: &HostPattern| !matches!(host, HostPattern::Exact(name) if foreign.contains(&**name));
    // A route that loses its last host must go: without hosts, it would match every host.
    plan.routes.retain_mut(|route| {
        if route.hosts.iter().all(is_own) {
            return true;
        }
        let hosts: Vec<HostCondition> = route.hosts.iter().filter(|host| is_own(host)).cloned().collect();
        let is_left = !hosts.is_empty();
        if is_left {
            *route = Arc::new(ConditionRoute { hosts, ..ConditionRoute::clone(route) });
        }
        is_left
    });
    if let Some(routes) = &mut plan.by_host {
        routes.paths.retain(|path| is_own_pattern(&path.host));
    }
    if let Some(hosts) = &mut plan.by_location {
        hosts.retain(|host| is_own_pattern(&host.host));
    }
    plan.certificates.retain(|certificate| is_own_pattern(&certificate.host));
    plan.passthrough.retain(|passed| is_own_pattern(&passed.host));
    plan.handshakes.retain(|(host, _)| is_own_pattern(host));
    let has_routes = !plan.routes.is_empty() || plan.router_hosts().next().is_some() || plan.has_default_backend();
    if !has_routes {
        plan.upstreams = Box::default();
    }
}
