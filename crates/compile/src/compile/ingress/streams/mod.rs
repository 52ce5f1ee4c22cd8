//! Compiles TCPIngresses, UDPIngresses and ConfigMaps of ports, which share the ports of `--ingress-stream-ports`.
//!
//! ```text
//!   TCPIngress, UDPIngress ─ ../dialects/kong/stream_ingress.rs ─┐
//!   ConfigMaps of flags ─ ../dialects/nginx/stream_services.rs ──┴▶ plan.rs: a route for each rule,
//!                                                                   behind its plugins: guarded_route.rs
//!   all plans, the oldest first ─ listeners.rs ─▶ a Bind for each port that a rule uses
//! ```
//!
//! If two rules need one port, or one server name of a port with TLS, the older object wins, then the first by name.

pub(super) mod guarded_route;
mod listeners;
pub(super) mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::{Kind, ObjectId, ObjectKey};
use crate::bind_address::BindAddress;
use crate::compile::CompileContext;
use crate::compile::certificates::SecretCache;
use crate::compile::ingress::dialects::kong::stream_ingress;
use crate::compile::ingress::dialects::kong::stream_ingress::StreamIngressSource;
use crate::compile::ingress::dialects::nginx::stream_services;
use crate::compile::ingress::plan::default_certificates;
use crate::compile::kong::plugins::Plugins;
use crate::diagnostic::Diagnostic;
use crate::snapshot::Bind;
use crate::store::Changes;
use crate::upstream::UpstreamKey;
use crate::verdict::{Code, Condition, PublishedAddress, Verdict};
use listeners::StreamBinds;
use plan::StreamIngressPlan;

/// All served TCPIngresses, UDPIngresses and ConfigMaps of ports, and what is compiled from them together.
#[derive(Debug, Default)]
pub(in crate::compile) struct StreamIngressCompiler {
    plans: BTreeMap<ObjectId, StreamIngressPlan>,
    /// The Services that each ConfigMap of ports names, since nothing else refers to them.
    services: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    built: StreamBinds,
    /// The addresses for `status.loadBalancer`; `None` if it is not written.
    published: Option<Vec<PublishedAddress>>,
}

/// What an update changed.
#[derive(Debug, Default)]
pub(in crate::compile) struct StreamIngressUpdate {
    /// The upstreams of each object that was planned again, before and after.
    pub upstreams: Vec<[Vec<UpstreamKey>; 2]>,
    pub verdicts_to_update: BTreeSet<ObjectId>,
}

impl StreamIngressCompiler {
    /// Plans the touched objects. `endpoints_changed`: what was touched because of its endpoints only.
    pub(in crate::compile) fn update(
        &mut self,
        cx: CompileContext<'_>,
        plugins: &Plugins,
        secrets: &mut SecretCache,
        touched: &Changes,
        endpoints_changed: &BTreeSet<ObjectId>,
    ) -> StreamIngressUpdate {
        let mut updated = StreamIngressUpdate::default();
        let settings = cx.inputs.ingress;
        for id in touched.iter().filter(|id| is_stream_ingress(id.kind)) {
            let source = match id.kind {
                Kind::TcpIngress => {
                    cx.store.tcp_ingresses.get(&id.key).map(|object| StreamIngressSource::from(&**object))
                }
                _ => cx.store.udp_ingresses.get(&id.key).map(|object| StreamIngressSource::from(&**object)),
            };
            let after = source.and_then(|source| stream_ingress::plan(cx, plugins, secrets, &source));
            self.replace_plan(id.clone(), after, &mut updated);
        }
        for id in settings.stream_config_maps() {
            if self.is_affected(cx, &id, touched, endpoints_changed) {
                self.services.insert(id.key.clone(), stream_services::services(cx, &id.key));
                let after = stream_services::plan(cx, plugins, &id.key);
                self.replace_plan(id, Some(after), &mut updated);
            }
        }
        if updated.verdicts_to_update.is_empty() && self.plans.is_empty() {
            return updated;
        }
        let default_secret = settings.default_secret.as_ref();
        let is_default_touched =
            default_secret.is_some_and(|secret| touched.contains(&ObjectId::new(Kind::Secret, secret.clone())));
        let published = settings.publish.addresses(cx.store);
        let is_published_changed = published != self.published;
        self.published = published;
        if !updated.verdicts_to_update.is_empty() || is_default_touched {
            let default = default_certificates(cx, secrets);
            self.built = StreamBinds::build(settings.streams.as_deref().unwrap_or_default(), &self.plans, &default);
            // An older object may win or leave a port that any other one uses.
            updated.verdicts_to_update.extend(self.plans.keys().cloned());
        } else if is_published_changed {
            updated.verdicts_to_update.extend(self.plans.keys().cloned());
        }
        updated
    }

    fn replace_plan(&mut self, id: ObjectId, after: Option<StreamIngressPlan>, updated: &mut StreamIngressUpdate) {
        updated.verdicts_to_update.insert(id.clone());
        let before = self.plans.remove(&id);
        let upstreams =
            |plan: &Option<StreamIngressPlan>| plan.as_ref().map(|plan| plan.upstreams.clone()).unwrap_or_default();
        updated.upstreams.push([upstreams(&before), upstreams(&after)]);
        if let Some(after) = after {
            self.plans.insert(id, after);
        }
    }

    /// Whether a ConfigMap of ports must be planned again: it was not, or something that it depends on was touched.
    fn is_affected(
        &self,
        cx: CompileContext<'_>,
        id: &ObjectId,
        touched: &Changes,
        endpoints_changed: &BTreeSet<ObjectId>,
    ) -> bool {
        let Some(services) = self.services.get(&id.key) else { return true };
        let defaults = cx.inputs.ingress.nginx_config_map.clone().map(|key| ObjectId::new(Kind::ConfigMap, key));
        let is_touched = |service: &ObjectKey| {
            let service = ObjectId::new(Kind::Service, service.clone());
            touched.contains(&service) && !endpoints_changed.contains(&service)
        };
        touched.contains(id)
            || defaults.is_some_and(|defaults| touched.contains(&defaults))
            || services.iter().any(is_touched)
    }

    /// The binds of the ports that rules use.
    pub(in crate::compile) fn binds(&self) -> &BTreeMap<BindAddress, Arc<Bind>> {
        &self.built.binds
    }

    pub(in crate::compile) fn is_served(&self, id: &ObjectId) -> bool {
        self.plans.contains_key(id)
    }

    /// The served objects.
    pub(in crate::compile) fn ids(&self) -> impl Iterator<Item = &ObjectId> {
        self.plans.keys()
    }

    /// The verdict on an object; `None` if it does not exist. `taken`: sockets that serve Gateways instead.
    pub(in crate::compile) fn verdict(
        &self,
        cx: CompileContext<'_>,
        id: &ObjectId,
        taken: &BTreeSet<BindAddress>,
    ) -> Option<Verdict> {
        let Some(plan) = self.plans.get(id) else {
            return Some(Verdict { generation: cx.store.meta(id)?.generation, ..Verdict::default() });
        };
        let is_ingress = is_stream_ingress(id.kind);
        let mut errors = plan.errors.clone();
        errors.extend(self.built.conflicts.get(id).cloned().unwrap_or_default());
        let sockets = self.built.sockets.get(id).cloned().unwrap_or_default();
        for address in sockets.intersection(taken) {
            let message = format!("a Gateway uses {address}, so rules for this port are not served");
            let field = if is_ingress { "spec.rules" } else { "data" };
            errors.push(Diagnostic::error(field, message, "choose another port, or change the Gateway"));
        }
        let condition = match errors.is_empty() {
            true => Condition::without_diagnostics(Code::ObjectProgrammed),
            false => Condition::new(Code::ObjectInvalid, errors),
        };
        Some(Verdict {
            generation: plan.generation,
            conditions: vec![condition],
            load_balancer: self.published.clone().filter(|_| is_ingress),
            sockets: sockets.difference(taken).copied().collect(),
            diagnostics: plan.notes.clone(),
            ..Verdict::default()
        })
    }
}

/// Whether this step compiles objects of the kind.
fn is_stream_ingress(kind: Kind) -> bool {
    matches!(kind, Kind::TcpIngress | Kind::UdpIngress)
}
