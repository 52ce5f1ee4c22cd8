//! Compiles Ingresses. All Ingresses share two ports. The class of an Ingress selects its dialect: that of Kong's
//! ingress controller (docs/kong-compatibility.md), in kong/, or `kubernetes`, in kubernetes/.
//!
//! ```text
//!   Ingress ─ ../ingress_class/: served? ─ plan_by_dialect.rs ┬▶ kubernetes/
//!                                                             └▶ kong/plan.rs
//!                                                             each ─▶ plan.rs ─▶ ../certificates.rs  spec.tls
//!   all plans ┬ listener_routes.rs, host_conflicts.rs ─▶ a Bind for plain text, one for TLS
//!             └ publish.rs ─▶ status.loadBalancer
//! ```
//!
//! If two Ingresses claim the certificate of a host or the default backend, the older one wins, then the first by name.

mod host_conflicts;
mod kong;
mod kubernetes;
mod listener_routes;
mod plan;
mod plan_by_dialect;
mod publish;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

pub use publish::PublishSource;

use super::CompileContext;
use super::certificates::{self, SecretCache};
use super::ingress_class;
use super::kong::plugins::Plugins;
use super::kong::rule_options::PRODUCT_HEADERS;
use super::verdict::{Code, Condition, PublishedAddress, Verdict};
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::diagnostic::Diagnostic;
use crate::snapshot::certs::{Certificate, Certificates};
use crate::snapshot::host::{HostMap, HostPattern};
use crate::snapshot::port_tls::PortTls;
use crate::snapshot::router::by_conditions::RouterFlavor;
use crate::snapshot::{Bind, BindAddress, HttpListener};
use crate::store::Changes;
use crate::upstream::UpstreamKey;
use listener_routes::{HostRouters, ListenerRoutes};
use plan::IngressPlan;

/// Settings for all Ingresses.
#[derive(Clone, Debug, Default)]
pub struct IngressSettings {
    /// The listener for plain text. `None` disables it.
    pub http: Option<IngressListener>,
    /// The listener for TLS.
    pub https: Option<IngressListener>,
    pub flavor: RouterFlavor,
    /// The Secret with the certificate for hosts without one.
    pub default_secret: Option<ObjectKey>,
    /// The certificate if that Secret does not exist or is invalid. Without it, handshakes for hosts without a
    /// certificate are rejected.
    pub default_certificate: Option<Arc<Certificate>>,
    pub publish: PublishSource,
}

/// A port that all Ingresses share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IngressListener {
    pub address: SocketAddr,
    /// The port that clients connect to.
    pub public_port: u16,
    /// Whether to listen even if no Ingress is served.
    pub always_listen: bool,
}

impl IngressSettings {
    /// The port of redirects to HTTPS.
    fn public_https(&self) -> u16 {
        self.https.map_or(443, |listener| listener.public_port)
    }
}

/// All served Ingresses, and what is compiled from them together.
#[derive(Debug, Default)]
pub(super) struct IngressCompiler {
    plans: BTreeMap<ObjectKey, Arc<IngressPlan>>,
    /// Per Ingress, diagnostics about certificates, default backends, hosts and paths that have no effect because an
    /// older Ingress has one.
    conflicts: BTreeMap<ObjectKey, Vec<Diagnostic>>,
    /// The routes of all Ingresses; `None` before the first update.
    routes: Option<ListenerRoutes>,
    host_routers: HostRouters,
    certificates: Arc<BTreeMap<HostPattern, Arc<Certificates>>>,
    /// The addresses for `status.loadBalancer`; `None` if it is not written.
    published: Option<Vec<PublishedAddress>>,
    binds: BTreeMap<BindAddress, Arc<Bind>>,
}

/// What an update changed.
#[derive(Debug, Default)]
pub(super) struct IngressUpdate {
    /// Upstreams of each Ingress that was planned again, before and after.
    pub upstreams: Vec<(BTreeSet<UpstreamKey>, BTreeSet<UpstreamKey>)>,
    /// Ingresses whose verdict must be updated.
    pub verdicts_to_update: BTreeSet<ObjectKey>,
    pub router_built: bool,
}

impl IngressCompiler {
    /// Plans the touched Ingresses.
    pub(super) fn update(
        &mut self,
        cx: CompileContext<'_>,
        plugins: &Plugins,
        secrets: &mut SecretCache,
        touched: &Changes,
    ) -> IngressUpdate {
        let mut updated = IngressUpdate::default();
        let settings = cx.inputs.ingress;
        let mut changed_hosts = BTreeSet::new();
        for id in touched.iter().filter(|id| id.kind == Kind::Ingress) {
            let object = cx.store.ingresses.get(&id.key);
            let plan = object.and_then(|object| plan_by_dialect::plan(cx, plugins, secrets, object));
            updated.verdicts_to_update.insert(id.key.clone());
            let after = plan.as_ref().map(|plan| plan.upstreams.clone()).unwrap_or_default();
            changed_hosts.extend(plan.iter().flat_map(IngressPlan::router_hosts).cloned());
            let before = match plan {
                Some(plan) => self.plans.insert(id.key.clone(), Arc::new(plan)),
                None => self.plans.remove(&id.key),
            };
            if before.is_none() && !self.plans.contains_key(&id.key) {
                continue;
            }
            updated.router_built = true;
            changed_hosts.extend(before.iter().flat_map(|plan| plan.router_hosts()).cloned());
            let before = before.map(|plan| plan.upstreams.clone()).unwrap_or_default();
            updated.upstreams.push((before, after));
        }
        let is_default_secret_touched = settings
            .default_secret
            .as_ref()
            .is_some_and(|secret| touched.contains(&ObjectId::new(Kind::Secret, secret.clone())));
        let is_first = self.routes.is_none();
        if updated.router_built || is_default_secret_touched || is_first {
            if updated.router_built || is_first {
                self.build_routes(settings.flavor, &changed_hosts);
            }
            let certificates_before = Arc::clone(&self.certificates);
            let conflicts = self.resolve_conflicts(cx, secrets);
            for key in conflicts.keys().chain(self.conflicts.keys()) {
                if conflicts.get(key) != self.conflicts.get(key) {
                    updated.verdicts_to_update.insert(key.clone());
                }
            }
            self.conflicts = conflicts;
            // The binds contain the router and the certificates.
            if updated.router_built || is_first || !Arc::ptr_eq(&certificates_before, &self.certificates) {
                self.build_binds(settings);
            }
        }
        let is_published_service = |id: &ObjectId| id.kind == Kind::Service && settings.publish.uses_service(&id.key);
        if is_first || touched.iter().any(is_published_service) {
            let published = settings.publish.addresses(cx.store);
            if published != self.published {
                self.published = published;
                updated.verdicts_to_update.extend(self.plans.keys().cloned());
            }
        }
        updated
    }

    /// All plans, oldest first.
    fn plans_by_age(&self) -> Vec<(&ObjectKey, &Arc<IngressPlan>)> {
        let mut plans: Vec<_> = self.plans.iter().collect();
        plans.sort_by_key(|(key, plan)| (plan.created, *key));
        plans
    }

    fn build_routes(&mut self, flavor: RouterFlavor, changed_hosts: &BTreeSet<HostPattern>) {
        let mut host_routers = std::mem::take(&mut self.host_routers);
        let routes = ListenerRoutes::build(&self.plans_by_age(), flavor, &mut host_routers, changed_hosts);
        (self.host_routers, self.routes) = (host_routers, Some(routes));
    }

    /// Assigns every host the certificate of the oldest Ingress that has one. Returns diagnostics for the Ingresses
    /// whose certificates or default backends have no effect.
    fn resolve_conflicts(
        &mut self,
        cx: CompileContext<'_>,
        secrets: &mut SecretCache,
    ) -> BTreeMap<ObjectKey, Vec<Diagnostic>> {
        let mut conflicts: BTreeMap<ObjectKey, Vec<Diagnostic>> = BTreeMap::new();
        let mut assigned: BTreeMap<HostPattern, (&ObjectKey, &Arc<Certificate>)> = BTreeMap::new();
        let mut default_backend_owner: Option<&ObjectKey> = None;
        let plans = self.plans_by_age();
        for (key, problem) in
            host_conflicts::find(cx.store, &plans).into_iter().chain(kubernetes::path_conflicts::find(&plans))
        {
            conflicts.entry(key.clone()).or_default().push(problem);
        }
        for (key, plan) in plans {
            let mut report = |problem: Diagnostic| conflicts.entry(key.clone()).or_default().push(problem);
            for requested in &plan.certificates {
                let (owner, certificate) =
                    assigned.entry(requested.host.clone()).or_insert((key, &requested.certificate));
                // Equal certificates from two Secrets do not conflict.
                if certificate.key.cert != requested.certificate.key.cert {
                    let message = format!("{} uses the certificate of Ingress {owner}, which is older", requested.host);
                    report(Diagnostic::warning(
                        requested.field.as_str(),
                        message,
                        "use the same Secret in both, or remove the host from one",
                    ));
                }
            }
            if plan.has_default_backend() {
                if let Some(owner) = default_backend_owner {
                    let message =
                        format!("Ingress {owner} is older and also has a default backend, so this one has no effect");
                    report(Diagnostic::warning("spec.defaultBackend", message, "remove one of them"));
                } else {
                    default_backend_owner = Some(key);
                }
            }
        }
        let mut certificates: BTreeMap<HostPattern, Arc<Certificates>> = assigned
            .into_iter()
            .map(|(host, (_, certificate))| (host, Arc::new(Certificates::new(vec![Arc::clone(certificate)]))))
            .collect();
        let settings = cx.inputs.ingress;
        let secret = settings.default_secret.as_ref();
        let from_secret = secret.and_then(|secret| certificates::from_secret(cx.store, secrets, secret).ok());
        let default = from_secret.or_else(|| settings.default_certificate.clone());
        let default = Arc::new(Certificates::new(default.into_iter().collect()));
        certificates.entry(HostPattern::Any).or_insert(default);
        if certificates != *self.certificates {
            self.certificates = Arc::new(certificates);
        }
        conflicts
    }

    fn build_binds(&mut self, settings: &IngressSettings) {
        let Some(ingress_routes) = &self.routes else { return };
        self.binds.clear();
        for (ingress_listener, name, is_secure) in [(settings.http, "http", false), (settings.https, "https", true)] {
            let is_needed = |listener: &IngressListener| listener.always_listen || !self.plans.is_empty();
            let Some(IngressListener { address, public_port, .. }) = ingress_listener.filter(is_needed) else {
                continue;
            };
            let routes = ingress_routes.as_routes();
            let listener = HttpListener {
                gateway: "ingress".into(),
                name: name.into(),
                port: public_port,
                routes,
                product_headers: Some(&PRODUCT_HEADERS),
            };
            let tls = is_secure.then(|| {
                let certificates = self.certificates.iter();
                let listeners = certificates.map(|(host, all)| (host.clone(), Arc::clone(all)));
                PortTls::terminating(HostMap::new(listeners))
            });
            let listeners = HostMap::new([(HostPattern::Any, Arc::new(listener))]);
            self.binds.insert(BindAddress::tcp(address), Arc::new(Bind::with_http(listeners, tls)));
        }
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
        let Some(plan) = self.plans.get(key) else {
            return cx.store.ingresses.get(key).map(|object| ingress_class::foreign_verdict(cx, object));
        };
        let condition = match &plan.errors[..] {
            [] => Condition::without_diagnostics(Code::ObjectProgrammed),
            errors => Condition::new(Code::ObjectInvalid, errors.to_vec()),
        };
        let mut diagnostics = plan.notes.clone();
        diagnostics.extend(self.conflicts.get(key).cloned().unwrap_or_default());
        for address in taken {
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

    /// The served Ingresses.
    pub(super) fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.plans.keys()
    }
}
