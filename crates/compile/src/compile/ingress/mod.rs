//! Compiles Ingresses. All Ingresses share two ports. The class of an Ingress selects its dialect: that of Kong's
//! ingress controller (docs/kong-compatibility.md), in dialects/kong/, that of ingress-nginx, in dialects/nginx/, or
//! `kubernetes`, in dialects/kubernetes/.
//!
//! ```text
//!   TCPIngress, UDPIngress, ConfigMaps of ports ─▶ streams/ ─▶ a Bind for each of their ports
//!   Ingress ─ ../ingress_class/: served? ─ dialects/ ┬▶ kubernetes/
//!                                                    ├▶ nginx/
//!                                                    └▶ kong/plan.rs
//!                                                    each ─▶ service_backend.rs ─▶ ../backend/
//!                                                         └▶ plan.rs ─▶ ../certificates/  spec.tls
//!   hosts ─ host_claims.rs ─▶ whose they are, before planning
//!   all plans ┬ host_index.rs ─▶ listener_routes.rs, host_conflicts.rs ─▶ a Bind for plain text, one for TLS
//!             │                        └ joined_locations.rs
//!             └ publish.rs ─▶ status.loadBalancer
//! ```
//!
//! If two Ingresses claim the certificate of a host or the default backend, the older one wins, then the first by name.

mod dialects;
mod handshakes;
mod host_claims;
mod host_conflicts;
mod host_index;
mod joined_locations;
mod listener_routes;
mod passthrough;
mod plan;
pub(super) mod publish;
mod service_backend;
pub(super) mod settings;
mod streams;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::{Kind, ObjectId, ObjectKey};
use crate::bind_address::BindAddress;
use crate::compile::CompileContext;
use crate::compile::affected::keys_of_kind;
use crate::compile::budgets::SharedBudgets;
use crate::compile::certificates::SecretCache;
use crate::compile::ingress_class;
use crate::compile::kong::plugins::Plugins;
use crate::compile::kong::rule_options::UNMATCHED;
use crate::diagnostic::{Diagnostic, Topic};
use crate::snapshot::access_logs::LocationAccessLog;
use crate::snapshot::certs::{Certificate, Certificates};
use crate::snapshot::host::{HostMap, HostPattern};
use crate::snapshot::port_tls::{PortTls, TlsListener};
use crate::snapshot::rule::RouteRule;
use crate::snapshot::{Bind, HttpListener};
use crate::store::Changes;
use crate::upstream::UpstreamKey;
use crate::verdict::{Code, Condition, PublishedAddress, Verdict};
pub use dialects::nginx::{AnnotationSupport, annotation_support, config_map_problem};
use dialects::nginx::{NginxHosts, error_backend};
use host_claims::HostClaims;
use host_index::{ClaimedHost, PlannedIngresses};
use listener_routes::{ChangedRoutes, ListenerRoutes};
use plan::{EqualParts, IngressPlan};
use settings::{HostOwnership, IngressListener, IngressSettings};
pub(super) use streams::StreamIngressCompiler;

/// All served Ingresses, and what is compiled from them together.
#[derive(Debug, Default)]
pub(super) struct IngressCompiler {
    ingresses: PlannedIngresses,
    host_claims: HostClaims,
    nginx_hosts: NginxHosts,
    /// What the Ingresses take of the budgets that they share.
    budgets: SharedBudgets,
    /// Per Ingress, diagnostics about certificates, default backends, hosts and paths that have no effect because an
    /// older Ingress has one.
    conflicts: BTreeMap<ObjectKey, Vec<Diagnostic>>,
    /// The routes of all Ingresses; `None` before the first update.
    routes: Option<ListenerRoutes>,
    /// The rule of the default backend for hosts that no Ingress names.
    of_unnamed_hosts: Option<Arc<RouteRule>>,
    /// What is done with the TLS connections of each host: its certificates, or a backend.
    tls: PortTls,
    /// The addresses for `status.loadBalancer`; `None` if it is not written.
    published: Option<Vec<PublishedAddress>>,
    binds: BTreeMap<BindAddress, Arc<Bind>>,
}

/// What an update changed.
#[derive(Debug, Default)]
pub(super) struct IngressUpdate {
    plans: Vec<ChangedPlan>,
    /// Ingresses whose verdict must be updated.
    pub verdicts_to_update: BTreeSet<ObjectKey>,
    pub router_built: bool,
}

/// The plan of an Ingress that was planned again. `None` if the Ingress was or is not served.
#[derive(Debug)]
struct ChangedPlan {
    before: Option<Arc<IngressPlan>>,
    after: Option<Arc<IngressPlan>>,
}

impl IngressUpdate {
    /// The upstreams of each Ingress that was planned again, before and after.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = [&[UpstreamKey]; 2]> {
        self.plans.iter().map(|ChangedPlan { before, after }| {
            [before, after].map(|plan| plan.as_deref().map(|plan| &*plan.upstreams).unwrap_or_default())
        })
    }
}

/// What differs between two plans of the Ingresses that an update has planned.
#[derive(Debug, Default)]
struct ChangedParts {
    routes: ChangedRoutes,
    hosts: BTreeSet<ClaimedHost>,
    /// The Ingresses whose routes or certificates changed.
    ingresses: BTreeSet<ObjectKey>,
}

impl IngressCompiler {
    /// Plans the touched Ingresses, and what all of them serve together as far as that changes it. `endpoints_changed`:
    /// what was touched because of its endpoints only.
    pub(super) fn update(
        &mut self,
        cx: CompileContext<'_>,
        plugins: &Plugins,
        secrets: &mut SecretCache,
        touched: &Changes,
        endpoints_changed: &BTreeSet<ObjectId>,
    ) -> IngressUpdate {
        let mut updated = IngressUpdate::default();
        let settings = cx.inputs.ingress;
        let mut changed = self.plan_touched(cx, plugins, secrets, touched, endpoints_changed, &mut updated);
        let is_default_secret_touched = settings
            .default_secret
            .as_ref()
            .is_some_and(|secret| touched.contains(&ObjectId::new(Kind::Secret, secret.clone())));
        let is_first = self.routes.is_none();
        if is_default_secret_touched || is_first {
            // The default certificate is that of any host, unless an Ingress has one for any host.
            changed.hosts.insert(ClaimedHost::Host(None));
        }
        let of_unnamed_hosts = error_backend::of_unnamed_hosts(cx, plugins, &self.nginx_hosts);
        let is_default_backend_changed = of_unnamed_hosts != self.of_unnamed_hosts;
        if is_default_backend_changed {
            self.of_unnamed_hosts = of_unnamed_hosts;
            updated.router_built = true;
        }
        if !changed.ingresses.is_empty() || is_default_secret_touched || is_default_backend_changed || is_first {
            self.join_plans(cx, secrets, changed, &mut updated);
        }
        let is_published_service = |id: &ObjectId| id.kind == Kind::Service && settings.publish.uses_service(&id.key);
        if is_first || touched.iter().any(is_published_service) {
            let published = settings.publish.addresses(cx.store);
            if published != self.published {
                self.published = published;
                updated.verdicts_to_update.extend(self.ingresses.keys().cloned());
            }
        }
        updated
    }

    /// Plans the touched Ingresses, and those that share their budgets and hosts.
    fn plan_touched(
        &mut self,
        cx: CompileContext<'_>,
        plugins: &Plugins,
        secrets: &mut SecretCache,
        touched: &Changes,
        endpoints_changed: &BTreeSet<ObjectId>,
        updated: &mut IngressUpdate,
    ) -> ChangedParts {
        let mut changed_parts = ChangedParts::default();
        let host_ownership = cx.inputs.ingress.host_ownership;
        let mut ingresses: BTreeSet<ObjectKey> = keys_of_kind(touched, Kind::Ingress).cloned().collect();
        if cx.inputs.ingress.nginx_namespaces.is_some() {
            // Nothing refers to the labels of a Namespace.
            let namespaces: BTreeSet<&str> = keys_of_kind(touched, Kind::Namespace).map(|key| &*key.name).collect();
            let is_of_touched = |key: &&ObjectKey| namespaces.contains(&*key.namespace);
            ingresses.extend(cx.store.ingresses.keys().filter(is_of_touched).cloned());
        }
        if let Some(config_map) = &cx.inputs.ingress.nginx_config_map
            && touched.contains(&ObjectId::new(Kind::ConfigMap, config_map.clone()))
        {
            ingresses.extend(self.ingresses.with_locations().cloned());
        }
        if let Some(service) = &cx.inputs.ingress.nginx_default_backend
            && let service = ObjectId::new(Kind::Service, service.clone())
            && touched.contains(&service)
            && !endpoints_changed.contains(&service)
        {
            ingresses.extend(self.ingresses.with_locations().cloned());
        }
        let claim_changes = self.host_claims.update(cx, ingresses.iter());
        match host_ownership {
            HostOwnership::Any => updated.verdicts_to_update.extend(claim_changes.outdated),
            HostOwnership::Namespace => ingresses.extend(claim_changes.owner_changed.iter().cloned()),
        }
        if cx.inputs.ingress.nginx_ssl_passthrough {
            // Only the namespace of a host lets its connections pass through.
            ingresses.extend(claim_changes.owner_changed);
        }
        let with_changed_hosts = self.nginx_hosts.update(cx, &self.host_claims, ingresses.iter());
        ingresses.extend(with_changed_hosts);
        let created = |id: &ObjectId| cx.store.ingresses.get(&id.key).and_then(|object| object.meta.created);
        let ingresses = ingresses.into_iter().map(|key| ObjectId::new(Kind::Ingress, key));
        // The oldest first, because the youngest are refused if they exceed the budget of their namespace.
        let mut to_plan: BTreeSet<_> = ingresses.map(|id| (created(&id), id)).collect();
        while let Some((age, id)) = to_plan.pop_first() {
            let object = cx.store.ingresses.get(&id.key);
            let budgets = cx.inputs.budgets;
            let (after, changed) = match object {
                Some(object) => {
                    let (hosts, before) = (&self.nginx_hosts, self.ingresses.get(&id.key).map(|plan| &**plan));
                    let plan = |share| dialects::plan(cx, plugins, secrets, hosts, before, object, share);
                    self.budgets.plan(budgets, &id, age, plan)
                }
                None => (None, self.budgets.remove(budgets, &id)),
            };
            to_plan.extend(changed.into_iter().map(|id| (created(&id), id)));
            let mut after = after.flatten();
            if let (HostOwnership::Namespace, Some(plan), Some(object)) = (host_ownership, &mut after, object) {
                self.host_claims.remove_foreign_hosts(object, plan);
            }
            updated.verdicts_to_update.insert(id.key.clone());
            self.replace_plan(id.key, after, &mut changed_parts, updated);
        }
        changed_parts
    }

    /// Replaces the plan of an Ingress, and notes what differs.
    fn replace_plan(
        &mut self,
        key: ObjectKey,
        mut after: Option<IngressPlan>,
        changed: &mut ChangedParts,
        updated: &mut IngressUpdate,
    ) {
        let before = self.ingresses.get(&key).cloned();
        let equal_parts = match (&before, &mut after) {
            (None, None) => return,
            (Some(before), Some(after)) => after.share_equal_parts(before),
            _ => EqualParts::default(),
        };
        let after = after.map(Arc::new);
        updated.plans.push(ChangedPlan { before: before.clone(), after: after.clone() });
        // Diagnostics about conflicts name fields, which may have moved.
        let is_equal = equal_parts.routes && equal_parts.tls && !self.conflicts.contains_key(&key);
        if let (true, Some(after)) = (is_equal, &after) {
            self.ingresses.replace_equal(&key, Arc::clone(after));
            return;
        }
        self.ingresses.set(&key, after.clone(), &mut changed.hosts);
        if !equal_parts.routes {
            updated.router_built = true;
            changed.routes.add(before.as_deref(), after.as_deref());
        }
        changed.ingresses.insert(key);
    }

    /// Updates what is compiled from all plans together: routes, certificates, conflicts and binds.
    fn join_plans(
        &mut self,
        cx: CompileContext<'_>,
        secrets: &mut SecretCache,
        changed: ChangedParts,
        updated: &mut IngressUpdate,
    ) {
        let settings = cx.inputs.ingress;
        let ChangedParts { routes: changed_routes, hosts: changed_hosts, ingresses: mut changed_ingresses } = changed;
        let is_first = self.routes.is_none();
        let affected = self.ingresses.with_hosts(&changed_hosts);
        let mut routes = self.routes.take().unwrap_or_else(|| ListenerRoutes::new(settings.flavor));
        if updated.router_built {
            let plans = self.ingresses.by_age(&affected);
            let of_unnamed_hosts = self.of_unnamed_hosts.as_ref();
            routes.update(&self.ingresses, &plans, &changed_hosts, changed_routes, of_unnamed_hosts);
        }
        self.routes = Some(routes);
        // An affected Ingress may also conflict with others because of hosts that did not change.
        let plans = self.ingresses.by_age(&self.ingresses.neighbors(&affected));
        let (mut certificates, mut conflicts) = resolve_conflicts(cx, secrets, &plans);
        let passed = passthrough::listeners(settings, &plans);
        let changed_listeners = changed_hosts.iter().filter_map(|host| {
            let pattern = host.pattern()?;
            let terminating = || certificates.remove(&pattern).map(TlsListener::Terminate);
            let listener = passed.get(&pattern).cloned().or_else(terminating);
            let is_same = passthrough::are_equal(listener.as_ref(), self.tls.listeners().get(&pattern), &pattern);
            (!is_same).then_some((pattern, listener))
        });
        let changed_listeners: Vec<_> = changed_listeners.collect();
        changed_ingresses.extend(affected.into_iter().cloned());
        for key in changed_ingresses {
            let new = conflicts.remove(&key);
            if new.as_ref() != self.conflicts.get(&key) {
                match new {
                    Some(new) => drop(self.conflicts.insert(key.clone(), new)),
                    None => drop(self.conflicts.remove(&key)),
                }
                updated.verdicts_to_update.insert(key);
            }
        }
        let chosen = handshakes::by_host(&plans);
        let patterns = changed_hosts.iter().filter_map(ClaimedHost::pattern);
        let changed_limits = patterns.filter_map(|pattern| handshakes::changed(&self.tls, &chosen, pattern));
        let changed_limits: Vec<_> = changed_limits.collect();
        let have_listeners_changed = !changed_listeners.is_empty() || !changed_limits.is_empty();
        if have_listeners_changed {
            self.tls = self.tls.with_listeners(changed_listeners).with_limits(changed_limits);
        }
        // The binds contain the router and the listeners for TLS.
        if updated.router_built || is_first || have_listeners_changed {
            self.build_binds(settings);
        }
    }

    fn build_binds(&mut self, settings: &IngressSettings) {
        let Some(ingress_routes) = &self.routes else { return };
        self.binds.clear();
        for (ingress_listener, name, is_secure) in [(settings.http, "http", false), (settings.https, "https", true)] {
            let is_needed = |listener: &IngressListener| listener.always_listen || !self.ingresses.is_empty();
            let Some(IngressListener { address, public_port, .. }) = ingress_listener.filter(is_needed) else {
                continue;
            };
            let routes = ingress_routes.as_routes();
            let listener = HttpListener {
                gateway: "ingress".into(),
                name: name.into(),
                port: public_port,
                routes,
                unmatched: UNMATCHED,
            };
            let tls = is_secure.then(|| self.tls.clone());
            let listeners = HostMap::new([(HostPattern::Any, Arc::new(listener))]);
            self.binds.insert(BindAddress::tcp(address), Arc::new(Bind::with_http(listeners, tls)));
        }
    }

    /// What the ConfigMap of ingress-nginx says about the access log.
    pub(super) fn location_log(&self) -> &LocationAccessLog {
        self.nginx_hosts.location_log()
    }

    /// The binds of the listeners.
    pub(super) fn binds(&self) -> &BTreeMap<BindAddress, Arc<Bind>> {
        &self.binds
    }

    /// The verdict on an Ingress; `None` if it does not exist. `taken`: sockets that serve Gateways instead of
    /// Ingresses.
    pub(super) fn verdict(
        &self,
        cx: CompileContext<'_>,
        key: &ObjectKey,
        taken: &BTreeSet<BindAddress>,
    ) -> Option<Verdict> {
        let Some(plan) = self.ingresses.get(key) else {
            return cx.store.ingresses.get(key).map(|object| ingress_class::foreign_verdict(cx, object));
        };
        let condition = match &plan.errors[..] {
            [] => Condition::without_diagnostics(Code::ObjectProgrammed),
            errors => Condition::new(Code::ObjectInvalid, errors.to_vec()),
        };
        let mut diagnostics = plan.notes.clone();
        diagnostics.extend(self.conflicts.get(key).cloned().unwrap_or_default());
        if let (HostOwnership::Any, Some(ingress)) = (cx.inputs.ingress.host_ownership, cx.store.ingresses.get(key)) {
            diagnostics.extend(self.host_claims.shared_hosts(ingress));
        }
        for address in taken.iter().filter(|address| self.binds.contains_key(address)) {
            let message = format!("{address} is used by a Gateway, so it does not serve Ingresses");
            diagnostics.push(
                Diagnostic::of_object(
                    message,
                    "choose another address with --ingress-http-listen or --ingress-https-listen",
                )
                .into_warning(),
            );
        }
        Some(Verdict {
            generation: plan.generation,
            conditions: vec![condition],
            load_balancer: self.published.clone(),
            sockets: self.binds.keys().filter(|address| !taken.contains(address)).copied().collect(),
            diagnostics,
            ..Verdict::default()
        })
    }

    pub(super) fn is_served(&self, key: &ObjectKey) -> bool {
        self.ingresses.get(key).is_some()
    }

    /// The rules of a served Ingress, in no order; one with several paths may be repeated.
    pub(super) fn rules(&self, key: &ObjectKey) -> impl Iterator<Item = &Arc<RouteRule>> {
        self.ingresses.get(key).into_iter().flat_map(|plan| plan.rules())
    }

    /// The served Ingresses.
    pub(super) fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.ingresses.keys()
    }
}

/// Assigns every host the certificate of the oldest Ingress that has one. Returns these certificates, and diagnostics
/// for the Ingresses whose certificates, default backends, hosts or paths have no effect. `plans`: the oldest first.
fn resolve_conflicts(
    cx: CompileContext<'_>,
    secrets: &mut SecretCache,
    plans: &[(&ObjectKey, &Arc<IngressPlan>)],
) -> (BTreeMap<HostPattern, Arc<Certificates>>, BTreeMap<ObjectKey, Vec<Diagnostic>>) {
    let mut conflicts: BTreeMap<ObjectKey, Vec<Diagnostic>> = BTreeMap::new();
    let mut assigned: BTreeMap<HostPattern, (&ObjectKey, &Arc<Certificate>)> = BTreeMap::new();
    let mut default_backend_owner: Option<&ObjectKey> = None;
    let found = host_conflicts::find(cx.store, plans).into_iter();
    for (key, problem) in found.chain(dialects::path_conflicts(cx.inputs.ingress.flavor, plans)) {
        conflicts.entry(key.clone()).or_default().push(problem);
    }
    for &(key, plan) in plans {
        let mut report = |problem: Diagnostic| conflicts.entry(key.clone()).or_default().push(problem);
        for requested in &plan.certificates {
            let (owner, certificate) = assigned.entry(requested.host.clone()).or_insert((key, &requested.certificate));
            // Equal certificates from two Secrets do not conflict.
            if certificate.key.cert != requested.certificate.key.cert {
                let message = format!("{} uses the certificate of Ingress {owner}, which is older", requested.host);
                let remedy = "use the same Secret in both, or remove the host from one";
                let note = Diagnostic::warning(requested.field.as_str(), message, remedy);
                report(note.with_topic(Topic::Conflict));
            }
        }
        if plan.has_default_backend() {
            if let Some(owner) = default_backend_owner {
                let message =
                    format!("Ingress {owner} is older and also has a default backend, so this one has no effect");
                let note = Diagnostic::warning("spec.defaultBackend", message, "remove one of them");
                report(note.with_topic(Topic::Conflict));
            } else {
                default_backend_owner = Some(key);
            }
        }
    }
    let mut certificates: BTreeMap<_, _> = assigned
        .into_iter()
        .map(|(host, (_, certificate))| (host, Arc::new(Certificates::new(vec![Arc::clone(certificate)]))))
        .collect();
    certificates.entry(HostPattern::Any).or_insert_with(|| plan::default_certificates(cx, secrets));
    (certificates, conflicts)
}
