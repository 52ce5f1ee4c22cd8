//! Ingress v1 as Kong's ingress controller reads it (`kong-compat.md` §2, §3.1, §3.2): all Ingresses of ours behind two ports.
//!
//! ```text
//!   Ingress ─ class.rs: ours? ─▶ plan.rs ─┬ route_settings.rs   annotations of the Ingress
//!                                         ├ path.rs             paths by type
//!                                         ├ backend.rs          Service or facade ─ service_settings.rs, policy.rs
//!                                         └ certificates        spec.tls
//!   all plans ─▶ one kong::Router ─▶ a Bind for plain text, one for TLS      published.rs ─▶ status.loadBalancer
//! ```
//!
//! Annotations of HTTPRoutes, and of Services behind them, are read by on_http_route.rs.
//!
//! What two Ingresses want the older one gets, then the first by name: the certificate of a host, and the default backend.

pub(super) mod annotations;
mod backend;
mod class;
pub(super) mod disagreements;
pub(super) mod on_http_route;
mod path;
mod plan;
pub(super) mod policy;
mod published;
mod route_settings;
pub(super) mod service_settings;
pub(super) mod upstream_tls;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

pub(super) use class::verdict as class_verdict;
pub use published::Publish;

use super::Inputs;
use super::certificates::{self, Secrets};
use super::plugins::Plugins;
use super::verdict::{Code, Condition, Problem, Published, Verdict};
use crate::api::{Kind, ObjectId, ObjectKey};
use crate::snapshot::certs::{Certificate, Certificates, Tls};
use crate::snapshot::host::{HostMap, HostPattern};
use crate::snapshot::kong::{Flavor, Router};
use crate::snapshot::{Bind, Listener, Routes};
use crate::store::{Changes, Store};
use crate::upstream::UpstreamKey;
use plan::IngressPlan;

/// How Ingresses are served.
#[derive(Clone, Debug, Default)]
pub struct IngressSettings {
    /// For plain text. None: not at all.
    pub http: Option<Entrance>,
    /// For TLS.
    pub https: Option<Entrance>,
    pub flavor: Flavor,
    /// The Secret of the certificate that is shown for hosts without one.
    pub default_secret: Option<ObjectKey>,
    /// What is shown if there is no such Secret. Without any, hosts without a certificate are refused.
    pub default_certificate: Option<Arc<Certificate>>,
    pub publish: Publish,
}

/// A port that all Ingresses share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entrance {
    pub address: SocketAddr,
    /// The port that clients see.
    pub public: u16,
    /// Listens also while there is no Ingress of ours.
    pub always: bool,
}

impl IngressSettings {
    fn public_https(&self) -> u16 {
        self.https.map_or(443, |entrance| entrance.public)
    }
}

/// Every Ingress of ours, and what all of them together come to.
#[derive(Debug, Default)]
pub(super) struct Ingresses {
    plans: BTreeMap<ObjectKey, Arc<IngressPlan>>,
    /// What each does not get because an older one has it.
    contested: BTreeMap<ObjectKey, Vec<Problem>>,
    /// None until everything was seen once.
    router: Option<Arc<Router>>,
    certificates: Arc<BTreeMap<HostPattern, Arc<Certificates>>>,
    published: Option<Vec<Published>>,
    binds: BTreeMap<SocketAddr, Arc<Bind>>,
}

/// What an update changed.
#[derive(Debug, Default)]
pub(super) struct Updated {
    /// Upstreams of each Ingress that was planned again, before and after.
    pub upstreams: Vec<(BTreeSet<UpstreamKey>, BTreeSet<UpstreamKey>)>,
    /// Ingresses to be judged again.
    pub again: BTreeSet<ObjectKey>,
    pub router_built: bool,
}

impl Ingresses {
    /// Plans again what was touched.
    pub(super) fn update(
        &mut self,
        store: &Store,
        inputs: &Inputs<'_>,
        plugins: &Plugins,
        secrets: &mut Secrets,
        touched: &Changes,
    ) -> Updated {
        let mut updated = Updated::default();
        let settings = inputs.ingress;
        for id in touched.iter().filter(|id| id.kind == Kind::Ingress) {
            let object = store.ingresses.get(&id.key);
            let plan = object.and_then(|object| plan::plan(store, inputs, plugins, secrets, object));
            updated.again.insert(id.key.clone());
            let after = plan.as_ref().map(|plan| plan.upstreams.clone()).unwrap_or_default();
            let before = match plan {
                Some(plan) => self.plans.insert(id.key.clone(), Arc::new(plan)),
                None => self.plans.remove(&id.key),
            };
            if before.is_none() && !self.plans.contains_key(&id.key) {
                continue;
            }
            updated.router_built = true;
            let before = before.map(|plan| plan.upstreams.clone()).unwrap_or_default();
            updated.upstreams.push((before, after));
        }
        let default_touched = settings
            .default_secret
            .as_ref()
            .is_some_and(|secret| touched.contains(&ObjectId::new(Kind::Secret, secret.clone())));
        let is_first = self.router.is_none();
        if updated.router_built || default_touched || is_first {
            if updated.router_built || is_first {
                self.build_router(settings.flavor);
            }
            let shown = Arc::clone(&self.certificates);
            let contested = self.share_out(store, inputs, secrets);
            for key in contested.keys().chain(self.contested.keys()) {
                if contested.get(key) != self.contested.get(key) {
                    updated.again.insert(key.clone());
                }
            }
            self.contested = contested;
            // Whatever is bound anew is published anew.
            if updated.router_built || is_first || !Arc::ptr_eq(&shown, &self.certificates) {
                self.bind(settings);
            }
        }
        let asked = |id: &ObjectId| id.kind == Kind::Service && settings.publish.asks(&id.key);
        if is_first || touched.iter().any(asked) {
            let published = settings.publish.addresses(store);
            if published != self.published {
                self.published = published;
                updated.again.extend(self.plans.keys().cloned());
            }
        }
        updated
    }

    /// The oldest first.
    fn by_age(&self) -> Vec<(&ObjectKey, &Arc<IngressPlan>)> {
        let mut plans: Vec<_> = self.plans.iter().collect();
        plans.sort_by_key(|(key, plan)| (plan.created, *key));
        plans
    }

    fn build_router(&mut self, flavor: Flavor) {
        let oldest = self.by_age().into_iter().find_map(|(_, plan)| plan.fallback.clone());
        let routes = self.plans.values().flat_map(|plan| &plan.routes).cloned();
        self.router = Some(Arc::new(Router::build(flavor, routes.chain(oldest))));
    }

    /// Gives every host the certificate of the oldest Ingress that has one. Says what the others do not get.
    fn share_out(
        &mut self,
        store: &Store,
        inputs: &Inputs<'_>,
        secrets: &mut Secrets,
    ) -> BTreeMap<ObjectKey, Vec<Problem>> {
        let mut contested: BTreeMap<ObjectKey, Vec<Problem>> = BTreeMap::new();
        let mut shown: BTreeMap<HostPattern, (&ObjectKey, &Arc<Certificate>)> = BTreeMap::new();
        let mut fallback: Option<&ObjectKey> = None;
        for (key, plan) in self.by_age() {
            let mut lose = |problem: Problem| contested.entry(key.clone()).or_default().push(problem);
            for own in &plan.certificates {
                let (owner, certificate) = shown.entry(own.host.clone()).or_insert((key, &own.certificate));
                // The same certificate out of two Secrets is one certificate.
                if certificate.key.cert != own.certificate.key.cert {
                    let message = format!("{} is shown the certificate of Ingress {owner}, which is older", own.host);
                    lose(Problem::new(
                        own.field.as_str(),
                        message,
                        "name the same Secret in both, or remove the host from one",
                    ));
                }
            }
            if plan.fallback.is_some() {
                if let Some(owner) = fallback {
                    let message = format!("Ingress {owner} is older and has one too, so this one gets nothing");
                    lose(Problem::new("spec.defaultBackend", message, "remove one of them"));
                } else {
                    fallback = Some(key);
                }
            }
        }
        let mut certificates: BTreeMap<HostPattern, Arc<Certificates>> = shown
            .into_iter()
            .map(|(host, (_, certificate))| (host, Arc::new(Certificates::new(vec![Arc::clone(certificate)]))))
            .collect();
        let settings = inputs.ingress;
        let named = settings.default_secret.as_ref();
        let named = named.and_then(|secret| certificates::of_secret(store, secrets, secret).ok());
        let default = named.or_else(|| settings.default_certificate.clone());
        let default = Arc::new(Certificates::new(default.into_iter().collect()));
        certificates.entry(HostPattern::Any).or_insert(default);
        if certificates != *self.certificates {
            self.certificates = Arc::new(certificates);
        }
        contested
    }

    fn bind(&mut self, settings: &IngressSettings) {
        let Some(router) = &self.router else { return };
        self.binds.clear();
        for (entrance, name, is_secure) in [(settings.http, "http", false), (settings.https, "https", true)] {
            let Some(entrance) = entrance.filter(|entrance| entrance.always || !self.plans.is_empty()) else {
                continue;
            };
            let routes = Routes::Kong(Arc::clone(router));
            let listener = Listener { gateway: "ingress".into(), name: name.into(), port: entrance.public, routes };
            let tls = is_secure.then(|| {
                let certificates = self.certificates.iter();
                let listeners = certificates.map(|(host, all)| (host.clone(), Arc::clone(all)));
                Tls { listeners: HostMap::new(listeners) }
            });
            let listeners = HostMap::new([(HostPattern::Any, Arc::new(listener))]);
            self.binds.insert(entrance.address, Arc::new(Bind { listeners, tls }));
        }
    }

    /// What is listened on.
    pub(super) fn binds(&self) -> &BTreeMap<SocketAddr, Arc<Bind>> {
        &self.binds
    }

    /// None if there is no such Ingress. `lost` are addresses that Gateways have.
    pub(super) fn verdict(
        &self,
        store: &Store,
        inputs: &Inputs<'_>,
        key: &ObjectKey,
        lost: &BTreeSet<SocketAddr>,
    ) -> Option<Verdict> {
        let Some(plan) = self.plans.get(key) else {
            return store.ingresses.get(key).map(|object| class::foreign(store, inputs, object));
        };
        let condition = match &plan.refused[..] {
            [] => Condition::plain(Code::KongProgrammed),
            refused => Condition::new(Code::KongInvalid, refused.to_vec()),
        };
        let mut notes = plan.notes.clone();
        notes.extend(self.contested.get(key).cloned().unwrap_or_default());
        for address in lost {
            let message = format!("{address} belongs to a Gateway, so Ingresses are not served there");
            notes.push(Problem::new(
                "",
                message,
                "choose another address with --ingress-http-listen or --ingress-https-listen",
            ));
        }
        Some(Verdict {
            generation: plan.generation,
            conditions: vec![condition],
            load_balancer: self.published.clone(),
            sockets: self.binds.keys().filter(|address| !lost.contains(address)).copied().collect(),
            notes,
            broken_plugins: plan.broken_plugins.clone(),
            unheeded: plan.unheeded.clone(),
            ..Verdict::default()
        })
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &ObjectKey> {
        self.plans.keys()
    }
}
